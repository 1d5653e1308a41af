"""Accuracy against inference cost, the paper's Fig. 4."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from hs3seg.report.canvas import Canvas, text_width
from hs3seg.report.figure import Axes, Figure, label_column
from hs3seg.report.load import Run
from hs3seg.report.markup import arm_title, number, percent
from hs3seg.report.theme import stage_colour

_PLOT, _HEIGHT = 290.0, 340.0  # width of a panel's plot, height of the figure
_LEFT, _GAP = 54.0, 26.0  # of the plot: for its axis, and between the last point and the labels


@dataclass(frozen=True, slots=True)
class CostPoint:
    """One network.

    Args:
        name: Written beside it.
        gmacs: At inference, one image, 1e9 multiply-accumulates.
        miou: Split -> mIoU, fractions.
    """

    name: str
    gmacs: float
    miou: dict[str, float]


def cost_points(run: Run) -> list[CostPoint]:
    """Arms with their cost at inference; those without a score are left out."""
    plain = _gmacs(run.profile.get("inference"))
    own = run.profile.get("inference_of")
    points = []
    for name, arm in run.arms.items():
        gmacs = _gmacs(own.get(name)) if isinstance(own, dict) and name in own else plain
        miou = {split: s.miou for split, s in arm.scores.items() if s.miou is not None}
        if gmacs is not None and miou:
            points.append(CostPoint(arm_title(name), gmacs, miou))
    return points


def cost_figure(points: Sequence[CostPoint], size: Sequence[int] = ()) -> Figure | None:
    """Draws mIoU against GMACs, one panel per split.

    Args:
        points: Networks.
        size: Height and width that the cost was counted at.

    Returns:
        None where all cost the same: there is nothing to weigh.
    """
    if len({round(point.gmacs, 9) for point in points}) < 2:
        return None
    splits = list(dict.fromkeys(split for point in points for split in point.miou))
    labels = max(text_width(point.name, 12, bold=True) for point in points)
    panel = _LEFT + _PLOT + _GAP + labels + 24
    canvas = Canvas(panel * len(splits), _HEIGHT)
    for index, split in enumerate(splits):
        _panel(canvas, index * panel, split, [p for p in points if split in p.miou], stage_colour(index), _of(size))
    words = "; ".join(f"{p.name} {p.gmacs:.3g} GMACs" for p in points)
    return Figure("miou-gmacs", canvas, f"mIoU against cost at inference: {words}", natural=True)


def _panel(canvas: Canvas, left: float, split: str, points: list[CostPoint], colour: str, size: str) -> None:
    scores = {point.name: point.miou[split] for point in points}
    low, high = min(scores.values()), max(scores.values())
    margin = max(0.005, 0.25 * (high - low))
    axes = Axes(
        canvas,
        *(left + _LEFT, 34, _PLOT, _HEIGHT - 82),
        x=(0, 1.05 * max(point.gmacs for point in points)),
        y=(max(0.0, low - margin), min(1.0, high + margin)),
    )
    canvas.text(left + _LEFT, 14, split, colour, 13, bold=True)
    axes.frame(f"GMACs at inference{size}", "mIoU, %", percent=True, whole=False)
    places = {point.name: axes.place(point.gmacs, point.miou[split]) for point in points}
    label_column(canvas, left + _LEFT + _PLOT + _GAP, (34, _HEIGHT - 48), places, colour)
    for point in points:
        title = f"{point.name}, {split}: {percent(point.miou[split])} % at {point.gmacs:.3g} GMACs"
        canvas.disc(*places[point.name], 5, colour, title=title)


def _of(size: Sequence[int]) -> str:
    return f", one image of {size[0]}x{size[1]}" if len(size) == 2 else ""


def _gmacs(values: Any) -> float | None:
    return number(values.get("gmacs")) if isinstance(values, dict) else None
