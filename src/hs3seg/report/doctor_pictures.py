"""Pictures of a find on the page of `hs3 data check`, with the place marked."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from hs3seg.report.markup import TIMES, escape, tag
from hs3seg.report.pictures import Tile

_WIDE = 300  # pixels of width that small pictures are enlarged to, by whole factors
_INNER, _OUTER = (255, 255, 255), (214, 39, 40)
_TITLES = {
    "image": "image",
    "mask": "mask",
    "image-crop": "image, enlarged",
    "mask-crop": "mask, enlarged",
    "other": "the other image",
}

Box = tuple[float, float, float, float]


def picture_tiles(
    diagnosis: Mapping[str, Any], pictures: Mapping[str, NDArray[np.uint8]], finding: int, severity: str
) -> str:
    """What shows a find; empty where nothing was kept of it.

    Args:
        diagnosis: `Diagnosis.to_dict()`.
        pictures: `NUMBER/KEY` -> (h, w, 3) uint8.
        finding: Position of the find.
        severity: Of the find; becomes a class of the element.
    """
    numbers = [n for n, shown in enumerate(diagnosis["pictures"]) if shown["finding"] == finding]
    if not numbers:
        return ""
    shown, found = diagnosis["pictures"][numbers[0]], diagnosis["findings"][finding]
    tiles = []
    for key, title in _TITLES.items():
        pixels = pictures.get(f"{numbers[0]}/{key}")
        if pixels is None:
            continue
        tile = _tile(key, title, pixels, shown, found)
        tiles.append(tile.html(shown["name"]))
    if not tiles:
        return ""
    heading = tag("h4", escape(f"{found['split']}: {shown['name']}"))
    return tag(
        "div",
        heading + tag("div", "".join(tiles), class_="tiles", style=f"--count:{len(tiles)}"),
        class_=f"shown {severity}",
    )


def _tile(key: str, title: str, pixels: NDArray[np.uint8], shown: Mapping[str, Any], found: Mapping[str, Any]) -> Tile:
    place, crop = found["place"], shown["crop"]
    width, height = shown["size"]
    picture = Image.fromarray(np.ascontiguousarray(pixels))
    if (factor := _WIDE // picture.width) > 1:
        picture = picture.resize((picture.width * factor, picture.height * factor), Image.Resampling.NEAREST)
    if key.endswith("-crop"):
        note = f"x {crop['x']}, y {crop['y']}, {crop['width']} {TIMES} {crop['height']}"
        _mark(picture, place, (crop["x"], crop["y"], crop["width"], crop["height"]))
        return Tile(title, note, picture)
    if key == "mask" and shown["mask_size"]:
        width, height = shown["mask_size"]
    if place and key != "other":
        _mark(picture, place, (0, 0, width, height))
    return Tile(title, "" if key == "other" else f"{width} {TIMES} {height}", picture, photo=key != "mask")


def _mark(picture: Image.Image, place: Mapping[str, int], window: Box) -> None:
    """Frames a place in a picture that shows the window x, y, width, height; at least 8 pixels wide and high."""
    left, top, width, height = window
    across, down = picture.width / width, picture.height / height
    x, y = (place["x"] - left) * across, (place["y"] - top) * down
    right, bottom = x + place["width"] * across, y + place["height"] * down
    grow_x, grow_y = max(2.0, (8 - (right - x)) / 2), max(2.0, (8 - (bottom - y)) / 2)
    limits = (picture.width - 1, picture.height - 1)
    draw = ImageDraw.Draw(picture)
    for extra, colour in ((1, _INNER), (0, _OUTER), (-1, _OUTER)):
        low = [max(0.0, value) for value in (x - grow_x - extra, y - grow_y - extra)]
        high = [
            min(most, value)
            for most, value in zip(limits, (right + grow_x + extra, bottom + grow_y + extra), strict=True)
        ]
        if low[0] < high[0] and low[1] < high[1]:
            draw.rectangle((*low, *high), outline=colour)
