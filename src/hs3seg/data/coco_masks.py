"""Regions of COCO's JSON files as pixels: run lengths, plain and packed, and polygons.

Source of the formats: cocodataset.org/#format-data and the headers of github cocodataset/cocoapi, common/maskApi.h.
Shapes: H x W pixels; run lengths go down the columns.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Region = bytes | NDArray[np.int64] | tuple[NDArray[np.float64], ...]
"""Packed runs, plain runs, or polygons (P, 2) of x, y; much smaller than the lists of a JSON file."""


def parse_region(segmentation: Any, height: int, width: int) -> Region:
    """What stands under `segmentation`, checked as far as that can be done without pixels.

    Raises:
        ValueError: of no known form, or for another size; a sentence without the place.
    """
    if isinstance(segmentation, dict):
        if segmentation.get("size") != [height, width]:
            raise ValueError(
                f"run lengths for the size {segmentation.get('size')}, but the image has {[height, width]}"
            )
        counts = segmentation.get("counts")
        if isinstance(counts, str):
            return counts.encode()
        if isinstance(counts, list) and all(type(count) is int for count in counts):
            return np.array(counts, np.int64)
        raise ValueError("run lengths without `counts`, a list of integers or a string")
    if isinstance(segmentation, list):
        return tuple(_parse_polygon(polygon) for polygon in segmentation)
    raise ValueError(f"a segmentation that is neither polygons nor run lengths, but {type(segmentation).__name__}")


def region_mask(region: Region, height: int, width: int) -> NDArray[np.bool_]:
    """The pixels (H, W) of a region; a pixel belongs to a polygon if its centre does, and to several if to any.

    Raises:
        ValueError: run lengths that do not make H x W pixels.
    """
    if isinstance(region, tuple):
        mask = np.zeros((height, width), np.bool_)
        for polygon in region:
            mask |= fill_polygon(polygon, height, width)
        return mask
    return decode_runs(unpack_runs(region) if isinstance(region, bytes) else region, height, width)


def decode_runs(counts: Sequence[int] | NDArray[np.int64], height: int, width: int) -> NDArray[np.bool_]:
    """Pixels of run lengths: outside, inside, outside, ... from the top left down the columns."""
    counts = np.asarray(counts, np.int64)
    if (counts < 0).any() or int(counts.sum()) != height * width:
        raise ValueError(f"run lengths that make {int(counts.sum())} pixels of {height * width}")
    inside = np.arange(counts.size) % 2 == 1
    return np.repeat(inside, counts).reshape(width, height).T


def unpack_runs(packed: bytes) -> NDArray[np.int64]:
    """Run lengths of a packed string.

    Each character is 48 and six bits: five of the number, lowest first, and 32 where more follow; 16 in the last says
    that the number is negative. From the fourth run on, numbers are differences to the run two before.
    """
    counts: list[int] = []
    number, shift = 0, 0
    for character in packed:
        bits = character - 48
        if not 0 <= bits < 64 or shift > 35:
            raise ValueError(f"packed run lengths with the character {chr(character)!r} at a wrong place")
        number |= (bits & 31) << shift
        shift += 5
        if bits & 32:
            continue
        if bits & 16:
            number -= 1 << shift
        counts.append(number + (counts[-2] if len(counts) > 2 else 0))
        number, shift = 0, 0
    if shift:
        raise ValueError("packed run lengths that end within a number")
    return np.array(counts, np.int64)


def fill_polygon(polygon: NDArray[np.float64], height: int, width: int) -> NDArray[np.bool_]:
    """Pixels (H, W) whose centre lies inside a polygon (P, 2) of x, y, by the even-odd rule.

    The left and upper border belong to it, so polygons that share an edge share no pixel. x = 0 is the left side of the
    first pixel, whose centre is 0.5. cocoapi draws on a grid five times as fine; borders may differ by a pixel.
    """
    start, end = polygon, np.roll(polygon, -1, axis=0)
    level = start[:, 1] == end[:, 1]
    start, end = start[~level], end[~level]
    top, bottom = np.minimum(start[:, 1], end[:, 1]), np.maximum(start[:, 1], end[:, 1])
    first = np.clip(np.ceil(top - 0.5), 0, height).astype(np.int64)  # rows whose centre the edge passes
    last = np.clip(np.ceil(bottom - 0.5), 0, height).astype(np.int64)
    edges = np.repeat(np.arange(len(start)), last - first)
    rows = np.arange(len(edges)) - np.repeat(np.cumsum(last - first) - last, last - first)
    slope = (end[edges, 0] - start[edges, 0]) / (end[edges, 1] - start[edges, 1])
    crossing = start[edges, 0] + (rows + 0.5 - start[edges, 1]) * slope
    columns = np.clip(np.ceil(crossing - 0.5), 0, width).astype(np.int64)
    mask = np.zeros((height, width), np.bool_)
    if not len(rows):
        return mask
    above, left, right = rows.min(), columns.min(), columns.max()
    rows, columns, size = rows - above, columns - left, right - left + 1
    # Each crossing changes inside and outside for all pixels right of it; right of the last one is outside.
    changes = np.bincount(rows * size + columns, minlength=(rows.max() + 1) * size).reshape(-1, size)
    mask[above : above + len(changes), left:right] = np.cumsum(changes[:, :-1], axis=1) % 2 == 1
    return mask


def _parse_polygon(polygon: Any) -> NDArray[np.float64]:
    if not isinstance(polygon, list) or not all(isinstance(value, (int, float)) for value in polygon):
        raise ValueError("a polygon that is no list of numbers")
    if len(polygon) < 6 or len(polygon) % 2:
        raise ValueError(f"a polygon of {len(polygon)} numbers; x and y of at least three points are needed")
    points = np.array(polygon, np.float64).reshape(-1, 2)
    if not np.isfinite(points).all():
        raise ValueError("a polygon with a value that is not finite")
    return points
