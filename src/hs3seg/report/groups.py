"""The group tree of a stage: which classes it learns as one."""

import numpy as np
from numpy.typing import NDArray

from hs3seg.analysis import StagePlan, SupervisionPlan, iou_per_class
from hs3seg.report.canvas import Canvas, shortened, text_width
from hs3seg.report.figure import Figure
from hs3seg.report.load import Run
from hs3seg.report.markup import hex_colour, percent
from hs3seg.taxonomy import Colour, Taxonomy

_ROW, _GAP, _TOP = 22.0, 9.0, 52.0


def pixel_weights(run: Run) -> list[float] | None:
    """Truth pixels per class, from the analysis split or else any evaluation; None where nothing was counted."""
    matrices = [run.confusions.get("final")]
    matrices += [c.get("final") for arm in run.arms.values() for c in arm.confusions.values()]
    return next((m.sum(1).tolist() for m in matrices if m is not None and m.sum() > 0), None)


def group_colours(run: Run, taxonomy: Taxonomy, stage: StagePlan) -> tuple[Colour, ...]:
    """A group has the colour of its most frequent class."""
    return stage.grouping.group_colours(taxonomy.colours, pixel_weights(run))


def tree_figures(run: Run, plan: SupervisionPlan, name: str) -> list[Figure]:
    """One tree per stage of a plan; IoU values come from phase one's confusion matrices, where these are there."""
    if run.taxonomy is None:
        return []
    return [_tree(run, run.taxonomy, stage, f"groups-{name}-{stage.stage}") for stage in plan.stages]


def _tree(run: Run, taxonomy: Taxonomy, stage: StagePlan, name: str) -> Figure:
    groups = stage.grouping.groups
    names_width = min(max(text_width(n, 12.5) for n in taxonomy.names), 170.0)
    leaf, alone, together = 118.0, 118 + 20 + names_width + 44, 118 + 20 + names_width + 66
    height = _TOP + sum(_ROW * len(group) + _GAP for group in groups) + 4
    title = f"{shortened(stage.stage, 340, 14)}: {len(groups)} groups of {taxonomy.num_classes} classes"
    canvas = Canvas(max(together + 60, 300, text_width(title, 14, bold=True) + 6), height)
    middle = _TOP + (height - _TOP) / 2
    single, merged = _ious(run.confusions.get(stage.stage), stage)
    colours = [hex_colour(colour) for colour in taxonomy.colours]
    canvas.text(2, 14, title, "ink", 14, bold=True)
    if single is not None:
        canvas.text(alone, 38, "alone", "muted", 11, anchor="end")
        canvas.text(together, 38, "as group", "muted", 11)
    y = _TOP
    for number, (group, colour) in enumerate(zip(groups, group_colours(run, taxonomy, stage), strict=True)):
        rows = [y + _ROW * (i + 0.5) for i in range(len(group))]
        centre = (rows[0] + rows[-1]) / 2
        canvas.link((10, middle), (72, centre), "faint", 1.5 if len(groups) <= 12 else 0.8)
        for row, member in zip(rows, group, strict=True):
            canvas.link((72, centre), (leaf, row), "faint")
            canvas.box(leaf, row - 6, 12, 12, colours[member], stroke="rule", radius=2.5)
            canvas.text(leaf + 20, row, shortened(taxonomy.names[member], names_width + 2, 12.5), "ink", 12.5)
            if single is not None:
                canvas.text(alone, row, _shown(single[member]), "muted", 12, anchor="end")
        canvas.disc(
            72,
            centre,
            6,
            hex_colour(colour),
            "rule",
            title=f"group {number}: {stage.grouping.group_names(taxonomy.names)[number]}",
        )
        if merged is not None and len(group) > 1:
            edge = alone + 10
            canvas.line(
                [(edge, rows[0] - 6), (edge + 5, rows[0] - 6), (edge + 5, rows[-1] + 6), (edge, rows[-1] + 6)],
                "faint",
                1.2,
            )
            canvas.text(together, centre, _shown(merged[number]), "ink", 12.5, bold=True)
        y += _ROW * len(group) + _GAP
    canvas.disc(10, middle, 5, "muted")
    return Figure(name, canvas, f"Group tree of {stage.stage}: {'; '.join(stage.grouping.group_names(taxonomy.names))}")


def _ious(
    confusion: NDArray[np.int64] | None, stage: StagePlan
) -> tuple[NDArray[np.float64] | None, NDArray[np.float64] | None]:
    """IoU of each class alone (K,) and of each group (k,)."""
    if confusion is None:
        return None, None
    return iou_per_class(confusion), iou_per_class(stage.grouping.merge(confusion))


def _shown(value: float) -> str:
    return percent(None if np.isnan(value) else float(value))
