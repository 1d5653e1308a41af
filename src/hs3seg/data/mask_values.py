"""Which ids or colours mask files hold, and how often."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hs3seg.data.images import open_header, pack_colours, raw_mask
from hs3seg.errors import DataError
from hs3seg.taxonomy import Colour

_MOST_VALUES = 4096  # of one mask; more are never labels
_MOST_KEPT = 512
_MOST_CLEAN = 256  # of one mask; with more it was smoothed, or it is no mask
_REACH, _ALIKE = 3, 24  # pixels that mixtures at borders are wide, and how far values of one class lie apart
_SPECK = 5e-4  # share below which a value of a lossy mask is taken for an artefact
_NEAR_COLOUR = 48.0  # distance in RGB up to which a colour of a lossy mask is taken for its neighbour
_NEAR_ID = 8.0
_SMALL_VOID = 0.1  # share of the pixels


@dataclass(frozen=True, slots=True)
class MaskValues:
    """What one mask holds.

    Args:
        file: Of the mask.
        kind: `ids`, `colours`, or `error`.
        counts: Pixels of each id, or of each colour as r * 65536 + g * 256 + b.
        size: Height and width.
        palette: Colours of the ids of a palette file.
        is_lossy: Saved as JPEG.
        top: Largest id that the file can hold; -1 where it has signs.
        error: Why it cannot be read.
    """

    file: Path
    kind: str
    counts: dict[int, int] = field(default_factory=dict)
    size: tuple[int, int] = (0, 0)
    palette: tuple[Colour, ...] = ()
    is_lossy: bool = False
    top: int = 255
    error: str = ""


def look(file: Path) -> MaskValues:
    """The values of one mask file; a file that cannot be read is no error here, but a finding."""
    try:
        raw = raw_mask(file)
        with open_header(file) as image:
            is_lossy = image.format in ("JPEG", "MPO")
            palette = (image.getpalette("RGB") or []) if image.mode == "P" else []
    except (DataError, OSError) as error:
        return MaskValues(file, "error", error=str(error))
    colours = raw.ndim == 3
    labels = pack_colours(raw[..., :3]) if colours else raw
    values, counts = np.unique(labels, return_counts=True)
    if is_lossy or len(values) > _MOST_CLEAN:
        inside = _inside(raw.reshape(*raw.shape[:2], -1)[..., :3])
        values, counts = np.unique(labels[inside] if inside.any() else labels, return_counts=True)
    if len(values) > _MOST_VALUES:
        order = np.argsort(-counts, kind="stable")[:_MOST_VALUES]
        values, counts = values[order], counts[order]
    return MaskValues(
        file,
        "colours" if colours else "ids",
        dict(zip(values.tolist(), counts.tolist(), strict=True)),
        (raw.shape[0], raw.shape[1]),
        tuple(zip(palette[::3], palette[1::3], palette[2::3], strict=True)),
        is_lossy,
        int(np.iinfo(raw.dtype).max) if raw.dtype.kind == "u" else -1,
    )


def _inside(raw: NDArray[Any]) -> NDArray[np.bool_]:
    """Pixels (H, W) of (H, W, C) whose neighbours on all sides are much like them: mixtures at borders are not."""
    wide = np.pad(raw.astype(np.int64), ((_REACH, _REACH), (_REACH, _REACH), (0, 0)), mode="edge")
    height, width = raw.shape[:2]
    inside = np.ones((height, width), np.bool_)
    for y, x in ((0, 1), (2, 1), (1, 0), (1, 2)):
        other = wide[y * _REACH : y * _REACH + height, x * _REACH : x * _REACH + width]
        inside &= (np.abs(other - raw) <= _ALIKE).all(-1)
    return inside


def totals(seen: Iterable[MaskValues]) -> tuple[dict[int, int], dict[int, int]]:
    """Pixels of each value in all masks, and the number of masks that have it."""
    pixels: Counter[int] = Counter()
    files: Counter[int] = Counter()
    for values in seen:
        pixels.update(values.counts)
        files.update(values.counts.keys())
    return dict(pixels), dict(files)


def is_black_void(pixels: Mapping[int, int]) -> bool:
    """Whether black among the pixels of each colour probably means unlabelled: it is rare, and others are classes."""
    return 0 < pixels.get(0, 0) < _SMALL_VOID * sum(pixels.values()) and len(pixels) > 3


def put_together(pixels: dict[int, int], files: dict[int, int], kind: str) -> tuple[dict[int, int], dict[int, int]]:
    """Gives rare values of lossy masks to near frequent ones, and drops those that are near none.

    Args:
        pixels: Of each value, as of `totals`.
        files: Of each value.
        kind: `ids` or `colours`.

    Returns:
        Pixels and files of the values that remain.
    """
    total = sum(pixels.values())
    near = _NEAR_COLOUR if kind == "colours" else _NEAR_ID
    kept: dict[int, int] = {}
    points = np.empty((0, 3))
    for value in sorted(pixels, key=lambda value: -pixels[value]):
        point = np.array(unpacked(value) if kind == "colours" else (value, 0, 0), np.float64)
        distances = np.linalg.norm(points - point, axis=1)
        if len(kept) and distances.min() <= near:
            kept[list(kept)[int(distances.argmin())]] += pixels[value]
        elif pixels[value] >= _SPECK * total and len(kept) < _MOST_KEPT:
            kept[value] = pixels[value]
            points = np.vstack([points, point])
    return kept, {value: files[value] for value in kept}


def unpacked(value: int) -> Colour:
    """Inverse of `pack_colours` for one colour."""
    return value >> 16, value >> 8 & 255, value & 255
