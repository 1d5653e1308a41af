"""How steady the groups of some runs are, how much the diagonal is worth to them, and whether their curves have a knee.

Reads phase one's counts on the analysis images (`analysis/per_image.npz`) of every run named; nothing is trained.

    python tools/group_facts.py runs/studies/small/camvid-small runs/studies/small/nyuv2-small --out docs/results/groups

A folder stands for its seeds. Per stage: the adjusted Rand index between the plan's groups and those of images drawn
anew, the share of draws that give the very same groups, the height of the curve's knee (mIoU above a straight fall)
without and with the affinity's diagonal, and how much mIoU the merged matrix gains by keeping it, mean over all sizes.
"""

import argparse
import shlex
import sys
from pathlib import Path
from typing import Any

import numpy as np

from hs3seg.analysis import analyze
from hs3seg.analysis.per_image import load_per_image
from hs3seg.analysis.stability import group_stability
from hs3seg.files import write_atomically, write_json
from hs3seg.pipeline.kept import PHASE_ONE, commits_of
from hs3seg.report.comparison_section import markdown_table

BOOTSTRAPS = 200
HEAD = (
    *("run", "stage", "groups", "index", "95 % of draws", "same groups, %", "knee, points", "knee with diagonal"),
    "diagonal's gain, points",
)


def facts_of(run: Path) -> dict[str, Any]:
    """Stage -> what is to be known of its groups."""
    counts = load_per_image(run / "analysis" / "per_image.npz")
    total = counts.total()
    usual, kept = (analyze(total, diagonal=way) for way in ("drop", "keep"))
    sizes = {curve.stage: usual.plan.stage(curve.stage).grouping.num_groups for curve in usual.curves}
    steady = {found.stage: found for found in group_stability(counts, sizes, bootstraps=BOOTSTRAPS, choose=False)}
    told = {}
    for one, other in zip(usual.curves, kept.curves, strict=True):
        index = steady[one.stage].agreements
        common = [k for k in one.mious if k in other.mious and k < max(one.mious)]
        told[one.stage] = {
            "num_groups": sizes[one.stage],
            "index": steady[one.stage].mean,
            "interval": list(steady[one.stage].interval()),
            "same": float((index > 1 - 1e-9).mean()),
            "knee": one.knee.height,
            "knee_at": one.knee.num_groups,
            "knee_with_diagonal": other.knee.height,
            "knee_with_diagonal_at": other.knee.num_groups,
            "gain_of_diagonal": float(np.mean([other.mious[k] - one.mious[k] for k in common])),
        }
    return told


def rows_of(runs: dict[str, dict[str, Any]]) -> list[list[str]]:
    """A row per run and stage."""
    return [
        [
            *(name, stage, str(f["num_groups"]), f"{f['index']:.2f}"),
            f"{f['interval'][0]:.2f} to {f['interval'][1]:.2f}",
            f"{100 * f['same']:.0f}",
            f"{100 * f['knee']:.1f}" + (f" at {f['knee_at']}" if f["knee"] > 0 else ""),
            f"{100 * f['knee_with_diagonal']:.1f}"
            + (f" at {f['knee_with_diagonal_at']}" if f["knee_with_diagonal"] > 0 else ""),
            f"{100 * f['gain_of_diagonal']:+.1f}",
        ]
        for name, stages in runs.items()
        for stage, f in stages.items()
    ]


def main() -> None:
    """Writes results.json and README.md."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+", metavar="FOLDER", help="of seed-* run folders")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    runs, commits = {}, set[str]()
    for folder in options.runs:
        seeds = [p for p in sorted(folder.glob("seed-*")) if (p / "analysis" / "per_image.npz").exists()]
        for path in seeds:
            runs[f"{folder.name}, {path.name.replace('-', ' ')}"] = facts_of(path)
            commits.update(commits_of(path / PHASE_ONE, path))
            print(f"{path}: done", flush=True)
    command = shlex.join(["python", "tools/group_facts.py", *sys.argv[1:]])
    facts = {"command": command, "commit": ", ".join(sorted(commits)), "bootstraps": BOOTSTRAPS, "runs": runs}
    write_json(options.out / "results.json", facts)
    lines = [
        "# Groups: how steady, and do the curves have a knee?",
        "",
        "Of phase one's counts on the analysis images; nothing is trained for it. Index: adjusted Rand index between"
        f" the plan's groups and those of images drawn anew ({BOOTSTRAPS} draws), 1 = the same, 0 = as random groups of"
        " such sizes. Knee: the highest point of mIoU over the number of groups above a straight fall, as the usual"
        " clustering, without the diagonal, finds the groups, and with the affinity's diagonal kept; 5 points count as"
        " a clear one."
        " The diagonal's gain is in mIoU of the merged matrix, mean over all numbers of groups.",
        "",
        *markdown_table(HEAD, rows_of(runs)),
        "",
        f"Made by `{command}`; trained at {', '.join(commit[:7] for commit in sorted(commits))}.",
        "",
    ]
    text = "\n".join(lines)

    def write(temporary: Path) -> Any:
        temporary.write_text(text, encoding="utf-8")

    write_atomically(options.out / "README.md", write)


if __name__ == "__main__":
    main()
