"""Runs all small studies, one data set per process, and publishes a page for each; goes on where it stopped.

    .venv/bin/python tools/run_studies.py --camvid FOLDER --nyuv2 FOLDER
    .venv/bin/python tools/run_studies.py --pages-only

Numbers of finished trainings are kept in docs/results/runs, so that a checkout alone is enough to go on from; pages are
docs/results/NAME. Each process takes one thread. Ctrl-C stops both; at most a minute of work is lost.
"""

import argparse
import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from hs3seg.pipeline.reproduce import STUDIES
from hs3seg.pipeline.reproduce.settings import config_folder, setting_config

ORDER = (
    "arms",
    "fig2",
    "table6",
    "table5",
    "single-phase",
    "affinity",
    "heads",
    "gamma",
    "stages",
    "table3",
    "fig4",
    "fig5",
    "table4",
    "table1",
    "table2",
)
"""What matters most first; a later study takes over what an earlier one trained."""
KEEP, PAGES, LOGS = Path("docs/results/runs"), Path("docs/results"), Path("runs")


def command(study: str, *words: str) -> list[str]:
    """What runs a study, or a part of it."""
    return [sys.executable, "-m", "hs3seg", "reproduce", study, "--small", "--keep", str(KEEP), *words]


def settings_of(study: str, kind: str) -> list[str]:
    """Names of a study's settings that take data of a kind."""
    folder = config_folder()
    small = STUDIES[study].small
    return [s.name for s in small.settings if setting_config(s, folder, ()).data.kind == kind]


def train(kind: str, root: Path, studies: list[str]) -> None:
    """The trainings of one data set, one study after another."""
    with (LOGS / f"studies-{kind}.log").open("a") as log:
        for study in studies:
            names = settings_of(study, kind)
            if names:
                words = ["--settings", ",".join(names), "--data.root", str(root), "--out", f"{LOGS}/{kind}-{study}"]
                print(f"{kind}: {study}", flush=True)
                subprocess.run(command(study, *words), stdout=log, stderr=log, check=True)


def publish(studies: list[str]) -> None:
    """A page per study that has every arm, with one seed at least."""
    for study in studies:
        settings = STUDIES[study].small.settings
        wanted = sum(len(setting.names or ("hs3",)) for setting in settings)
        done = subprocess.run(command(study, "--page", "--json"), check=True, stdout=subprocess.PIPE)
        found = len(json.loads(done.stdout)["arms"])
        if found == wanted:
            subprocess.run(command(study, "--page", "--publish", str(PAGES / study)), check=True)
        else:
            print(f"{study}: {found} of {wanted} arms are there; no page yet")


def main() -> None:
    """Both data sets side by side; then the pages."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--camvid", type=Path, help="CamVid in SegNet's layout")
    parser.add_argument(
        "--nyuv2", type=Path, help="NYU-Depth-v2: train.txt and test.txt with `rgb depth label` per line"
    )
    parser.add_argument("--studies", default=",".join(ORDER), metavar="LIST")
    parser.add_argument("--pages-only", action="store_true")
    options = parser.parse_args()
    studies = options.studies.split(",")
    LOGS.mkdir(exist_ok=True)
    if not options.pages_only:
        roots = {kind: root for kind in ("camvid", "nyuv2") if (root := getattr(options, kind)) is not None}
        # Threads only wait for their child processes; Ctrl-C reaches these, which save and end.
        with ThreadPoolExecutor() as pool:
            jobs = {kind: pool.submit(train, kind, root, studies) for kind, root in roots.items()}
        failed = [kind for kind, job in jobs.items() if job.exception()]
        if failed:
            sys.exit(f"stopped: {', '.join(failed)}; see {LOGS}/studies-*.log, or give the same command to go on")
    publish(studies)


if __name__ == "__main__":
    main()
