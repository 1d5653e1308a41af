"""Sizes and names of a matrix of classes, be they 2 or 1000."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from hs3seg.report.canvas import Canvas, shortened, text_width

_SIDE = 520.0  # of a matrix of few classes, pixels
_READABLE = 9.0  # side of a cell beside which a name can be read
_MOST = 1350.0  # side of a matrix that is enlarged for its names' sake


@dataclass(frozen=True)
class Grid:
    """A square of cells.

    Args:
        cell: Side of a cell, pixels.
        font: Size of the names.
        labels: Of each row and column; empty where its neighbours leave no room.
        margin: Width of the longest label.
    """

    cell: float
    font: float
    labels: tuple[str, ...]
    margin: float

    @property
    def side(self) -> float:
        """Of the square, pixels."""
        return self.cell * len(self.labels)

    def draw_labels(self, canvas: Canvas, left: float, top: float) -> None:
        """Beside the square's left and upper edge."""
        for i, label in enumerate(self.labels):
            if label:
                middle = self.cell * (i + 0.5)
                canvas.text(left - 6, top + middle, label, "ink", self.font, anchor="end")
                canvas.text(left + middle, top - 6, label, "ink", self.font, upright=True)


def grid_of(names: Sequence[str]) -> Grid:
    """As large as its names need; with very many, every n-th has one."""
    count = len(names)
    cell = min(30.0, max(_SIDE / count, min(_READABLE, _MOST / count), 3.0))
    step = math.ceil(_READABLE / cell)
    font = min(11.0, step * cell - 1.5)
    labels = tuple(shortened(name, 104, font) if i % step == 0 else "" for i, name in enumerate(names))
    return Grid(cell, font, labels, max(text_width(label, font) for label in labels))
