"""Runs all small studies in two processes and publishes a page for each; goes on where it stopped.

    .venv/bin/python tools/run_studies.py --camvid FOLDER --nyuv2 FOLDER
    .venv/bin/python tools/run_studies.py --pages-only

One process takes CamVid, the other NYU-Depth-v2, planted and digit scenes, which need no folder; each has one thread.
The first four studies are trained with all their seeds, then the first seed of all others, and so on. Numbers of
finished trainings are kept in docs/results/runs, so that a checkout alone is enough to go on from; pages are
docs/results/NAME. Ctrl-C stops both; at most a minute of work is lost.
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
    "conditions",
    "data-size",
    "many-seeds",
    "fig2",
    "table6",
    "table5",
    "table3",
    "fig5",
    "table4",
    "affinity",
    "heads",
    "single-phase",
    "table2",
    "table1",
    "fig4",
    "stages",
    "gamma",
)
"""What matters most first; a later study takes over what an earlier one trained."""
WHOLE = ("arms", "conditions", "data-size", "many-seeds")
"""Studies whose question one seed cannot answer: with all their seeds before the others begin."""
KEEP, PAGES, LOGS = Path("docs/results/runs"), Path("docs/results"), Path("runs")


def command(study: str, *words: str) -> list[str]:
    """What runs a study, or a part of it."""
    return [sys.executable, "-m", "hs3seg", "reproduce", study, "--small", "--keep", str(KEEP), *words]


def settings_of(study: str, kind: str) -> list[str]:
    """Names of a study's settings that take data of a kind."""
    folder = config_folder()
    small = STUDIES[study].small
    return [s.name for s in small.settings if setting_config(s, folder, ()).data.kind == kind]


def rounds(studies: list[str]) -> list[tuple[str, tuple[int, ...]]]:
    """Studies and seeds in the order of training: of what is not `WHOLE`, something of all before more of the same."""
    others = [study for study in studies if study not in WHOLE]
    wanted = {study: STUDIES[study].small.seeds for study in studies}
    later = [
        (study, (seed,))
        for seed in sorted({s for o in others for s in wanted[o]})
        for study in others
        if seed in wanted[study]
    ]
    return [*((study, wanted[study]) for study in studies if study in WHOLE), *later]


def train(roots: dict[str, Path | None], studies: list[str]) -> None:
    """The trainings of some kinds of data, one study after another."""
    for study, seeds in rounds(studies):
        for kind, root in roots.items():
            names = settings_of(study, kind)
            if names:
                words = ["--settings", ",".join(names), "--seeds", ",".join(map(str, seeds))]
                words += ["--out", f"{LOGS}/{kind}-{study}", *(["--data.root", str(root)] if root else [])]
                print(f"{kind}: {study}, seeds {seeds}", flush=True)
                with (LOGS / f"studies-{kind}.log").open("a") as log:
                    subprocess.run(command(study, *words), stdout=log, stderr=log, check=True)


def publish(studies: list[str], *, partial: bool) -> None:
    """A page per study that has every arm, with one seed at least; `partial`: any arm, the page names what lacks."""
    for study in studies:
        settings = STUDIES[study].small.settings
        wanted = sum(len(setting.names or ("hs3",)) for setting in settings)
        done = subprocess.run(command(study, "--page", "--json"), check=True, stdout=subprocess.PIPE)
        found = len(json.loads(done.stdout)["arms"])
        if found == wanted or (partial and found):
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
    parser.add_argument("--partial", action="store_true", help="also pages of studies of which some arms are missing")
    options = parser.parse_args()
    studies = options.studies.split(",")
    LOGS.mkdir(exist_ok=True)
    if not options.pages_only:
        lanes: list[dict[str, Path | None]] = [{}, {"planted": None, "digits": None}]
        if options.camvid is not None:
            lanes[0]["camvid"] = options.camvid
        if options.nyuv2 is not None:
            lanes[1]["nyuv2"] = options.nyuv2
        # Threads only wait for their child processes; Ctrl-C reaches these, which save and end.
        with ThreadPoolExecutor() as pool:
            jobs = [pool.submit(train, roots, studies) for roots in lanes]
        failed = [str(job.exception()) for job in jobs if job.exception()]
        if failed:
            sys.exit(f"{'; '.join(failed)}: see {LOGS}/studies-*.log, or give the same command to go on")
    publish(studies, partial=options.partial)


if __name__ == "__main__":
    main()
