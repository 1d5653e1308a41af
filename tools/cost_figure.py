"""Draws mIoU against GMACs of several run folders in one picture (the paper's Fig. 4 in small).

    .venv/bin/python tools/cost_figure.py OUT.png "plain=RUN" "OCR=ANOTHER RUN"

A run's arms are called by its label: `OCR` for the arm none, `OCR, HS3`, and `HS3-Fuse` for hs3_fuse.
"""

import sys
from dataclasses import replace
from pathlib import Path

from hs3seg.report.cost import CostPoint, cost_figure, cost_points
from hs3seg.report.load import load_run
from hs3seg.report.markup import arm_title


def main(out: Path, runs: dict[str, Path]) -> None:
    """Draws one picture of all arms of all runs.

    Raises:
        SystemExit: the runs were counted at different image sizes, or all cost the same.
    """
    points: list[CostPoint] = []
    sizes = []
    for label, folder in runs.items():
        run = load_run(folder)
        sizes.append(tuple(run.profile.get("input_size", ())))
        names = {arm_title(arm): name for arm in run.arms if (name := _name(label, arm))}
        points += [replace(point, name=names[point.name]) for point in cost_points(run)]
    if len(set(sizes)) != 1:
        raise SystemExit(f"the runs' costs were counted at different sizes: {sizes}")
    figure = cost_figure(points, sizes[0])
    if figure is None:
        raise SystemExit("all arms cost the same; there is nothing to draw")
    out.write_bytes(figure.canvas.png())


def _name(label: str, arm: str) -> str:
    return {"none": label, "hs3_fuse": "HS3-Fuse"}.get(arm, f"{label}, {arm_title(arm)}")


if __name__ == "__main__":
    main(
        Path(sys.argv[1]), {label: Path(folder) for label, _, folder in (word.partition("=") for word in sys.argv[2:])}
    )
