"""Confusion matrices, row-normalised, ordered by group with the groups' borders drawn."""

import numpy as np
from numpy.typing import NDArray

from hs3seg.report.canvas import Canvas, text_width
from hs3seg.report.figure import Figure
from hs3seg.report.grid import grid_of
from hs3seg.report.load import Run
from hs3seg.report.markup import arm_title, listed
from hs3seg.report.theme import HEAT
from hs3seg.taxonomy import Grouping, Taxonomy

_MANY = 60  # classes: no thin lines between them, and more confusions in words


def row_shares(confusion: NDArray[np.int64]) -> NDArray[np.float64]:
    """Share of each class's truth pixels per prediction, (K, K); a class without pixels has zeros."""
    sums = confusion.sum(1, keepdims=True)
    shares: NDArray[np.float64] = np.divide(confusion, sums, out=np.zeros(confusion.shape), where=sums > 0)
    return shares


def analysis_figures(run: Run) -> list[Figure]:
    """Matrices of phase one on the analysis split: each in the order of its stage's groups."""
    if run.taxonomy is None:
        return []
    groupings = {s.stage: s.grouping for s in run.plan.stages} if run.plan is not None else {}
    last = next(reversed(groupings.values()), None)
    figures = []
    for stage, matrix in run.confusions.items():
        grouping = groupings.get(stage, last) or Grouping.identity(run.taxonomy.num_classes)
        figures.append(
            _matrix(matrix, grouping, run.taxonomy, f"confusion-analysis-{stage}", f"{stage}, analysis split")
        )
    return figures


def split_figures(run: Run, split: str) -> list[Figure]:
    """Matrices of the final output of each arm on a split, in the order of the deepest stage's groups of HS3."""
    if run.taxonomy is None:
        return []
    last = run.plan.stages[-1].grouping if run.plan is not None and run.plan.stages else None
    grouping = last or Grouping.identity(run.taxonomy.num_classes)
    return [
        _matrix(
            matrices["final"],
            grouping,
            run.taxonomy,
            f"confusion-{split}-{arm.name}",
            f"{arm_title(arm.name)}, {split}",
        )
        for arm in run.arms.values()
        if "final" in (matrices := arm.confusions.get(split, {}))
    ]


def _matrix(confusion: NDArray[np.int64], grouping: Grouping, taxonomy: Taxonomy, name: str, title: str) -> Figure:
    order = [c for group in grouping.groups for c in group]
    shares = row_shares(confusion)[np.ix_(order, order)]
    count = len(order)
    grid = grid_of([taxonomy.names[c] for c in order])
    left, top = max(grid.margin + 26, 86), grid.margin + 34
    side, cell = grid.side, grid.cell
    canvas = Canvas(max(left + side, text_width(title, 13, bold=True)) + 6, top + side + 4)
    canvas.text(2, 10, title, "ink", 13, bold=True)
    pixels = np.empty((count, count, 4), np.uint8)
    pixels[..., :3] = HEAT
    pixels[..., 3] = np.rint(255 * shares)
    canvas.cells(left, top, side, side, pixels)
    canvas.box(left, top, side, side, stroke="rule")
    grid.draw_labels(canvas, left, top)
    canvas.text(8, top + side / 2, "truth", "muted", 11, anchor="middle", upright=True)
    canvas.text(left - 8, top - 12, "prediction", "muted", 11, anchor="end")
    if cell >= 22:
        for i, j in zip(*np.nonzero(shares >= 0.005), strict=True):
            colour = "#ffffff" if shares[i, j] > 0.5 else "ink"
            where = left + cell * (j + 0.5), top + cell * (i + 0.5)
            canvas.text(*where, f"{100 * shares[i, j]:.0f}", colour, min(10.5, cell * 0.4), anchor="middle")
    _borders(canvas, grouping, left, top, cell)
    told = largest_confusions(confusion, taxonomy, 3 if count <= _MANY else 12)
    return Figure(name, canvas, f"Confusion matrix: {title}. {told}", told, natural=True)


def _borders(canvas: Canvas, grouping: Grouping, left: float, top: float, cell: float) -> None:
    """A frame around the diagonal block of each group, and a thin line across at each border."""
    side = cell * grouping.num_classes
    start = 0
    for group in grouping.groups:
        a, b = cell * start, cell * (start + len(group))
        if start and not grouping.is_identity and grouping.num_classes <= _MANY:
            canvas.line([(left, top + a), (left + side, top + a)], "faint", 0.6, opacity=0.7)
            canvas.line([(left + a, top), (left + a, top + side)], "faint", 0.6, opacity=0.7)
        start += len(group)
        if not grouping.is_identity:
            frame = [
                (left + a, top + a),
                (left + b, top + a),
                (left + b, top + b),
                (left + a, top + b),
                (left + a, top + a),
            ]
            canvas.line(frame, "ink", 1.4)


def largest_confusions(confusion: NDArray[np.int64], taxonomy: Taxonomy, limit: int = 3) -> str:
    """The off-diagonal cells with the largest share of their row, as a sentence."""
    shares = row_shares(confusion)
    np.fill_diagonal(shares, 0)
    cells = np.argsort(-shares, axis=None, kind="stable")[:limit]
    places = [divmod(int(cell), len(shares)) for cell in cells]
    shown = [
        f"{taxonomy.names[i]} as {taxonomy.names[j]} ({100 * shares[i, j]:.0f} %)"
        for i, j in places
        if shares[i, j] > 0
    ]
    return f"Most often taken for another: {listed(shown)}." if shown else "No pixel is taken for another class."
