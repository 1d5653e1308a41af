"""A drawing that becomes both SVG (in the page, following its theme) and PNG (beside it, light).

Own, since importing matplotlib and drawing these figures with it takes longer than everything else the report does;
its DejaVu font is used for measuring and for the PNG files. Coordinates are in pixels, y downwards.
"""

import functools
import importlib.util
import io
import itertools
import math
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont, ImageOps

from hs3seg.report.markup import clean, data_uri, escape
from hs3seg.report.theme import css, resolve

Point = tuple[float, float]
_OVERSAMPLING = 2  # Pillow's slanted and round edges are hard: drawn larger, then reduced
_ANCHORS = {"start": "l", "middle": "m", "end": "r"}


@dataclass(frozen=True, slots=True)
class _Line:
    points: Sequence[Point]
    colour: str
    width: float
    dash: float
    opacity: float


@dataclass(frozen=True, slots=True)
class _Box:
    x: float
    y: float
    width: float
    height: float
    fill: str
    stroke: str
    radius: float
    title: str


@dataclass(frozen=True, slots=True)
class _Disc:
    x: float
    y: float
    radius: float
    fill: str
    stroke: str
    title: str


@dataclass(frozen=True, slots=True)
class _Text:
    x: float
    y: float
    text: str
    colour: str
    size: float
    anchor: str
    bold: bool
    upright: bool
    halo: bool


@dataclass(frozen=True, slots=True)
class _Cells:
    x: float
    y: float
    width: float
    height: float
    pixels: NDArray[np.uint8]


@dataclass
class Canvas:
    """A drawing of `width` x `height` pixels. Colours are theme names or #rrggbb."""

    width: float
    height: float
    _shapes: list[Any] = field(default_factory=list)

    def line(
        self, points: Sequence[Point], colour: str = "ink", width: float = 1.5, dash: float = 0, opacity: float = 1
    ) -> None:
        """A line through the points; `dash` is the length of dash and gap."""
        self._shapes.append(_Line(points, colour, width, dash, opacity))

    def link(self, start: Point, end: Point, colour: str, width: float = 1.5) -> None:
        """A smooth connection from left to right."""
        (x0, y0), (x1, y1) = start, end
        if abs(y1 - y0) < 0.5:
            self.line([start, end], colour, width)
            return
        steps = np.linspace(0, 1, 13)
        ease = steps * steps * (3 - 2 * steps)
        self.line([(x0 + (x1 - x0) * t, y0 + (y1 - y0) * e) for t, e in zip(steps, ease, strict=True)], colour, width)

    def box(
        self,
        x: float,
        y: float,
        width: float,
        height: float,
        fill: str = "",
        *,
        stroke: str = "",
        radius: float = 0,
        title: str = "",
    ) -> None:
        """A rectangle; `title` is shown when pointed at."""
        self._shapes.append(_Box(x, y, width, height, fill, stroke, radius, title))

    def disc(self, x: float, y: float, radius: float, fill: str, stroke: str = "card", title: str = "") -> None:
        """A dot with a rim."""
        self._shapes.append(_Disc(x, y, radius, fill, stroke, title))

    def text(
        self,
        x: float,
        y: float,
        text: object,
        colour: str = "ink",
        size: float = 12,
        *,
        anchor: str = "start",
        bold: bool = False,
        upright: bool = False,
        halo: bool = False,
    ) -> None:
        """One line of text, vertically centred on y; `upright` reads from below to above."""
        self._shapes.append(_Text(x, y, clean(text), colour, size, anchor, bold, upright, halo))

    def cells(self, x: float, y: float, width: float, height: float, pixels: NDArray[np.uint8]) -> None:
        """A grid of coloured cells on the card, (rows, columns, 4) RGBA; what lies below is covered."""
        self._shapes.append(_Cells(x, y, width, height, pixels))

    def svg(self, label: str, *, natural: bool = False) -> str:
        """The drawing as an inline SVG element.

        Args:
            label: What it shows, for those who cannot see it.
            natural: Keep at least the natural width (the page scrolls) instead of shrinking on narrow screens.
        """
        style = f' style="min-width:{_n(self.width)}px"' if natural else ""
        return (
            f'<svg viewBox="0 0 {_n(self.width)} {_n(self.height)}" width="{_n(self.width)}" height="{_n(self.height)}"'
            f' role="img" aria-label="{escape(label)}"{style}>{"".join(_svg(shape) for shape in self._shapes)}</svg>'
        )

    def png(self, scale: int = 2) -> bytes:
        """The drawing as a PNG file in the light theme, `scale` times its size, with a margin of 8 pixels."""
        oversampling = _OVERSAMPLING if any(map(_has_hard_edges, self._shapes)) else 1
        factor = scale * oversampling
        size = scale * math.ceil(self.width) * oversampling, scale * math.ceil(self.height) * oversampling
        image = Image.new("RGB", size, resolve("card"))
        draw = ImageDraw.Draw(image, "RGBA")
        for shape in self._shapes:
            _paint(shape, image, draw, factor)
        buffer = io.BytesIO()
        whole = image.reduce(oversampling) if oversampling > 1 else image
        whole = ImageOps.expand(whole, 8 * scale, resolve("card"))
        whole.save(buffer, "PNG", compress_level=2)
        return buffer.getvalue()


def text_width(text: object, size: float = 12, *, bold: bool = False) -> float:
    """Width in pixels of one line of text; system fonts are rarely wider than DejaVu, in which it is measured."""
    line = clean(text)
    # DejaVu has no characters of East Asia; fonts that do give each a square.
    narrow = "".join(c for c in line if unicodedata.east_asian_width(c) not in "WF")
    return (float(_font(100, bold).getlength(narrow)) / 100 + len(line) - len(narrow)) * size


def shortened(text: object, width: float, size: float = 12) -> str:
    """The text, or its beginning and an ellipsis where it is wider than `width` pixels."""
    whole = clean(text)
    if text_width(whole, size) <= width:
        return whole
    low, high = 0, len(whole) - 1  # low characters fit, if any do
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if text_width(whole[:middle] + "…", size) <= width else (low, middle - 1)
    return whole[:low].rstrip() + "…"


@functools.cache
def _font(size: int, bold: bool = False) -> Any:
    spec = importlib.util.find_spec("matplotlib")  # finds the folder without importing the package
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        path = Path(folder) / "mpl-data" / "fonts" / "ttf" / ("DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf")
        if path.is_file():
            return ImageFont.truetype(str(path), size, layout_engine=ImageFont.Layout.BASIC)
    return ImageFont.load_default(size)


def _n(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")


def _title(text: str) -> str:
    return f"<title>{escape(text)}</title>" if text else ""


def _svg(shape: Any) -> str:
    match shape:
        case _Line(points, colour, width, dash, opacity):
            path = " ".join(f"{_n(x)},{_n(y)}" for x, y in points)
            extra = f' stroke-dasharray="{_n(dash)}"' if dash else ""
            extra += f' stroke-opacity="{opacity:g}"' if opacity < 1 else ""
            return (
                f'<polyline points="{path}" fill="none" stroke="{css(colour)}" stroke-width="{width:g}"'
                f' stroke-linejoin="round"{extra}/>'
            )
        case _Box(x, y, width, height, fill, stroke, radius, title):
            extra = f' rx="{_n(radius)}"' if radius else ""
            extra += f' stroke="{css(stroke)}"' if stroke else ""
            return (
                f'<rect x="{_n(x)}" y="{_n(y)}" width="{_n(width)}" height="{_n(height)}"'
                f' fill="{css(fill) if fill else "none"}"{extra}>{_title(title)}</rect>'
            )
        case _Disc(x, y, radius, fill, stroke, title):
            return (
                f'<circle cx="{_n(x)}" cy="{_n(y)}" r="{_n(radius)}" fill="{css(fill)}" stroke="{css(stroke)}"'
                f' stroke-width="1.5">{_title(title)}</circle>'
            )
        case _Text(x, y, text, colour, size, anchor, bold, upright, halo):
            extra = f' text-anchor="{anchor}"' if anchor != "start" else ""
            extra += ' font-weight="600"' if bold else ""
            extra += f' transform="rotate(-90 {_n(x)} {_n(y)})"' if upright else ""
            extra += ' class="halo"' if halo else ""
            return (
                f'<text x="{_n(x)}" y="{_n(y)}" dy=".35em" fill="{css(colour)}" font-size="{_n(size)}"{extra}>'
                f"{escape(text)}</text>"
            )
        case _Cells(x, y, width, height, pixels):
            buffer = io.BytesIO()
            Image.fromarray(pixels).save(buffer, "PNG", compress_level=9)
            return (
                f'<image x="{_n(x)}" y="{_n(y)}" width="{_n(width)}" height="{_n(height)}" preserveAspectRatio="none"'
                f' style="image-rendering:pixelated" href="{data_uri(buffer.getvalue(), "png")}"/>'
            )
    raise AssertionError(f"unknown shape {shape!r}")


def _has_hard_edges(shape: Any) -> bool:
    """Whether a shape has slanted, round or many edges; others, text among them, are painted well at their own size."""
    match shape:
        case _Line(points, dash=dash):  # Pillow's dashes end a pixel too late
            return dash > 0 or any(a != c and b != d for (a, b), (c, d) in itertools.pairwise(points))
        case _Box():
            return bool(shape.radius)
        case _Disc():
            return True
    return False


def _paint(shape: Any, image: Image.Image, draw: ImageDraw.ImageDraw, factor: int) -> None:
    match shape:
        case _Line(points, colour, width, dash, opacity):
            ink = (*_rgb(colour), round(255 * opacity))
            scaled = [(x * factor, y * factor) for x, y in points]
            for part in _dashes(scaled, dash * factor) if dash else [scaled]:
                draw.line(part, ink, max(1, round(width * factor)), joint="curve")
        case _Box(x, y, width, height, fill, stroke, radius, _):
            corners = [x * factor, y * factor, (x + width) * factor - 1, (y + height) * factor - 1]
            draw.rounded_rectangle(
                corners,
                radius * factor,
                resolve(fill) if fill else None,
                resolve(stroke) if stroke else None,
                factor if stroke else 0,
            )
        case _Disc(x, y, radius, fill, stroke, _):
            draw.circle(
                (x * factor, y * factor), (radius + 0.75) * factor, resolve(fill), resolve(stroke), round(1.5 * factor)
            )
        case _Text(x, y, text, colour, size, anchor, bold, upright, halo):
            font = _font(round(size * factor), bold)
            rim: dict[str, Any] = {"stroke_width": 2 * factor, "stroke_fill": resolve("card")} if halo else {}
            if not upright:
                draw.text((x * factor, y * factor), text, resolve(colour), font, _ANCHORS[anchor] + "m", **rim)
                return
            width, height = max(1, math.ceil(font.getlength(text))), math.ceil(1.4 * size * factor)
            strip = Image.new("L", (width, height))
            ImageDraw.Draw(strip).text((0, height / 2), text, 255, font, "lm")
            strip = strip.transpose(Image.Transpose.ROTATE_90)
            shift = {"start": width, "middle": width / 2, "end": 0}[anchor]
            image.paste(resolve(colour), (round(x * factor - height / 2), round(y * factor - shift)), strip)
        case _Cells(x, y, width, height, pixels):
            corner, large = (round(x * factor), round(y * factor)), (round(width * factor), round(height * factor))
            # Laid on the card before they grow: a mask of the whole area takes many times as long.
            card = Image.new("RGBA", (pixels.shape[1], pixels.shape[0]), resolve("card"))
            opaque = Image.alpha_composite(card, Image.fromarray(pixels)).convert("RGB")
            image.paste(opaque.resize(large, Image.Resampling.NEAREST), corner)


def _rgb(colour: str) -> tuple[int, int, int]:
    value = resolve(colour)
    return int(value[1:3], 16), int(value[3:5], 16), int(value[5:7], 16)


def _dashes(points: Sequence[Point], length: float) -> list[list[Point]]:
    """Cuts a line into dashes of a length, with gaps of the same."""
    parts: list[list[Point]] = []
    on, left = True, length
    current = [points[0]]
    for start, end in itertools.pairwise(points):
        distance = math.dist(start, end)
        done = 0.0
        while distance - done > left:
            done += left
            place = (
                start[0] + (end[0] - start[0]) * done / distance,
                start[1] + (end[1] - start[1]) * done / distance,
            )
            if on:
                parts.append([*current, place])
            current, on, left = [place], not on, length
        left -= distance - done
        current.append(end)
    if on and len(current) > 1:
        parts.append(current)
    return parts
