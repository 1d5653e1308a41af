"""A figure of the page, and the axes that several of them share."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from hs3seg.report.canvas import Canvas, Point, text_width
from hs3seg.report.markup import escape, tag


@dataclass(frozen=True)
class Figure:
    """A drawing with its words.

    Args:
        name: Stem of its PNG file.
        canvas: The drawing.
        label: What it shows, for those who cannot see it.
        caption: Text below; may be empty.
        natural: Never shrink it below its natural width.
        zoom: How much larger than drawn it may be shown where there is room.
    """

    name: str
    canvas: Canvas
    label: str
    caption: str = ""
    natural: bool = False
    zoom: float = 1.0

    def html(self) -> str:
        """The `<figure>` element."""
        drawing = tag("div", self.canvas.svg(self.label, natural=self.natural), class_="scroll")
        words = tag("figcaption", escape(self.caption)) if self.caption else ""
        return tag("figure", drawing + words, style=f"width:{round(self.canvas.width * self.zoom)}px")


@dataclass
class Axes:
    """Linear axes on a canvas.

    Args:
        canvas: To draw on.
        left: Of the plot area, pixels, as are the next three.
        top: Upper edge.
        width: Of the plot area.
        height: Of the plot area.
        x: Range of x values.
        y: Range of y values.
    """

    canvas: Canvas
    left: float
    top: float
    width: float
    height: float
    x: tuple[float, float]
    y: tuple[float, float]

    def place(self, x: float, y: float) -> Point:
        """Pixels of a value pair; y is held inside the plot area."""
        across = (x - self.x[0]) / ((self.x[1] - self.x[0]) or 1)
        up = (y - self.y[0]) / ((self.y[1] - self.y[0]) or 1)
        return self.left + across * self.width, self.top + (1 - min(max(up, 0.0), 1.0)) * self.height

    def frame(self, x_title: str, y_title: str, *, percent: bool = False, whole: bool = True) -> None:
        """Draws grid lines, tick labels and titles.

        Args:
            x_title: Below the axis.
            y_title: Beside the axis.
            percent: y values are fractions, written in percent.
            whole: x values are counts: no ticks between them.
        """
        places = ticks(*self.y, 5)
        for value, text in zip(places, percents(places) if percent else [f"{v:g}" for v in places], strict=True):
            _, y = self.place(self.x[0], value)
            self.canvas.line([(self.left, y), (self.left + self.width, y)], "rule", 1)
            self.canvas.text(self.left - 8, y, text, "muted", 11, anchor="end")
        bottom = self.top + self.height
        for value in ticks(*self.x, 8, whole=whole):
            x, _ = self.place(value, 0)
            self.canvas.line([(x, bottom), (x, bottom + 4)], "faint", 1)
            self.canvas.text(x, bottom + 14, f"{value:g}", "muted", 11, anchor="middle")
        self.canvas.line([(self.left, bottom), (self.left + self.width, bottom)], "faint", 1)
        self.canvas.text(self.left + self.width / 2, bottom + 33, x_title, "muted", 11.5, anchor="middle")
        self.canvas.text(
            self.left - 38, self.top + self.height / 2, y_title, "muted", 11.5, anchor="middle", upright=True
        )


def ticks(low: float, high: float, count: int, *, whole: bool = False) -> list[float]:
    """Round values between two bounds, about `count` of them."""
    span = high - low
    if not span > 0:
        return [low]
    power = 10 ** math.floor(math.log10(span / count))
    step = next((power * m for m in (1, 2, 5, 10) if power * m * count >= span * 0.999), power * 10)
    step = max(step, 1.0) if whole else step
    first = math.ceil(low / step - 1e-9)
    return [round(i * step, 10) for i in range(first, math.floor(high / step + 1e-9) + 1)]


def percents(values: Sequence[float]) -> list[str]:
    """Tick labels of fractions, in percent: with as many digits as it takes to tell one from the next."""
    step = min((b - a for a, b in pairwise(values)), default=0.01)
    digits = max(0, -math.floor(math.log10(100 * step) + 1e-9))
    return [f"{100 * value:.{digits}f}" for value in values]


def legend(canvas: Canvas, left: float, top: float, right: float, entries: Sequence[tuple[str, str]]) -> float:
    """Draws (text, colour) entries in lines that wrap; returns the height used."""
    x, y = left, top
    for text, colour in entries:
        width = text_width(text, 12) + 34
        if x > left and x + width > right:
            x, y = left, y + 19
        canvas.line([(x, y), (x + 16, y)], colour, 2.5)
        canvas.text(x + 22, y, text, "ink", 12)
        x += width + 6
    return y - top + 19


def place_label(canvas: Canvas, point: Point, text: str, colour: str, taken: list[Point]) -> None:
    """Writes a label beside a point where the fewest of the `taken` places lie below it; it then takes its own."""
    width, height = text_width(text, 12, bold=True) + 4, 17.0
    options = []
    for reach in (0, 14):
        for dx, dy in ((12, -14), (-12, 14), (12, 14), (-12, -14), (0, -20), (0, 20), (14, 0), (-14, 0)):
            x, y = (
                point[0] + dx + math.copysign(reach, dx) * bool(dx),
                point[1] + dy + math.copysign(reach, dy) * bool(dy),
            )
            left = x if dx > 0 else x - width if dx < 0 else x - width / 2
            outside = left < 4 or left + width > canvas.width - 2 or y < 10 or y > canvas.height - 44
            covered = sum(left - 3 <= px <= left + width + 3 and abs(py - y) <= height / 2 + 3 for px, py in taken)
            options.append((covered + 1000 * outside + reach / 20, left, y))
    _, left, y = min(options, key=lambda option: option[0])
    canvas.text(left + 2, y, text, colour, 12, bold=True, halo=True)
    taken += [(left + width * i / 12, y + dy) for i in range(13) for dy in (-6.0, 0.0, 6.0)] * 5


def label_column(
    canvas: Canvas, left: float, heights: tuple[float, float], places: Mapping[str, Point], colour: str
) -> None:
    """Writes the labels of points one below the other, each joined to its point by a thin line.

    Args:
        canvas: Drawn on.
        left: Where the labels begin.
        heights: Top and bottom of the column; it grows beyond the bottom where the labels need more room.
        places: Label -> its point; labels keep the points' order from top to bottom.
        colour: Of the labels.
    """
    order = sorted(places, key=lambda label: (places[label][1], -places[label][0]))
    lines = spread([places[label][1] for label in order], heights, 18.0)
    for label, y in zip(order, lines, strict=True):
        x, height = places[label]
        canvas.line([(x, height), (left - 12, y), (left - 3, y)], "faint", 1)
        canvas.text(left, y, label, colour, 12, bold=True)


def spread(wanted: Sequence[float], bounds: tuple[float, float], apart: float) -> list[float]:
    """Sorted positions, moved as little as may be so that neighbours are at least `apart`.

    They stay within the bounds, as far as there is room; what does not fit goes beyond the upper one.
    """
    found: list[float] = []
    for value in wanted:
        found.append(max(value, found[-1] + apart if found else bounds[0]))
    limit = bounds[1]
    for index in range(len(found) - 1, -1, -1):
        lowest = bounds[0] + index * apart
        found[index] = max(min(found[index], limit), lowest)
        limit = found[index] - apart
    return found
