"""What is wrong with a mask file whose labels cannot be used, judged by its raw pixels."""

import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hs3seg.data.doctor.findings import Finding, Place
from hs3seg.data.doctor.labels import bounds, densest
from hs3seg.data.images import pack_colours
from hs3seg.taxonomy import Taxonomy

_NEAR = 40.0  # Euclidean distance up to which a colour is a class colour that compression moved
_OFF_LINE = 12.0  # and up to which it is a mixture of two
_LOOKED_AT = 20_000  # unknown pixels, evenly over all
_NAMED = 3  # colours with a finding of their own
_AGAIN = "save the masks again from their source as PNG"
_SMOOTH = (
    "make the masks again without smoothing: draw without anti-aliasing, resize with nearest neighbour; or give every"
    " unknown pixel its nearest class"
)


def compare_with_image(raw: NDArray[Any], image: NDArray[np.uint8], path: Path) -> Finding | None:
    """Whether a mask (H, W) or (H, W, C) is a picture like its image (H, W, 3), or the image is the mask."""
    colours = _colours(image)
    if raw.shape[:2] == image.shape[:2] and colours > 64:
        other = raw[..., :3] if raw.ndim == 3 else raw[..., None]
        grey = image @ np.array([0.299, 0.587, 0.114]) if raw.ndim == 2 else image
        difference = np.abs(other.astype(np.float64) - grey.reshape(*image.shape[:2], -1)).mean()
        if difference < 4:  # levels of 255: compressed again it is still the image
            message = f"holds the picture of its image (mean difference {difference:.1f} of 255)"
            return _wrong("mask-is-image", path, message, "put the label file in its place")
    if colours <= 64 and raw.ndim == 3 and _colours(raw[..., :3]) > 1000:
        message = f"is a picture of {_colours(raw[..., :3])} colours, but its image has only {colours}"
        return _wrong("swapped-pair", path, message, "swap the two files, or the settings of image and mask folder")
    return None


def wrong_ids(raw: NDArray[Any], taxonomy: Taxonomy, path: Path, lossy: str, words: str) -> Finding:
    """What is wrong with ids (H, W), some of which are no class.

    Args:
        raw: Ids as the file has them.
        taxonomy: Classes.
        path: Of the file.
        lossy: Its compression.
        words: What the reader said; taken over where nothing more is known.
    """
    classes, ignore = taxonomy.num_classes, taxonomy.ignore_index
    values = {int(v) for v in np.unique(raw)}
    unknown = (raw != ignore) & ((raw < 0) | (raw >= classes))
    place = bounds(unknown)
    for step in (257, 256):
        small = {value // step for value in values}
        if max(values) > 255 and not any(value % step for value in values):
            fits = all(value < classes or value in (ignore, 255) for value in small)
            known = "" if fits else f"; of the ids that then remain, {max(small)} is no class"
            message = f"16-bit ids {_some(values)} are all multiples of {step}, i.e. {_some(small)} scaled up{known}"
            return _wrong("sixteen-bit-mask", path, message, f"divide by {step} and save with 8 bits", place)
    if lossy:
        message = f"is saved as {lossy}, which changes ids: {len(values)} values, {_some(values)}"
        return _wrong("lossy-mask", path, message, _AGAIN, densest(unknown))
    if values <= {0, 255} and 255 in values:
        message = f"binary mask of 0 and 255, but the {classes} classes are 0..{classes - 1}"
        return _wrong("binary-255", path, message, "write the foreground as 1 instead of 255", place)
    if found := _scaled(raw, values, taxonomy, path):
        return found
    if len(values) >= 8 and _is_blend(raw, unknown):
        message = f"{int(unknown.sum())} pixels at the borders of classes have ids between those of the two sides"
        return _wrong("smoothed-mask", path, message, _SMOOTH, densest(unknown))
    remedy = "correct the mask, add the class to taxonomy.toml, or list the id among the ignored ones"
    if spot := re.search(r"x=(\d+), y=(\d+)", words):
        place = bounds(raw == raw[int(spot[2]), int(spot[1])])
    return _wrong("unknown-id", path, words, remedy, place)


def wrong_colours(raw: NDArray[Any], taxonomy: Taxonomy, path: Path, lossy: str) -> list[Finding]:
    """What is wrong with colours (H, W, 3 or 4), some of which are no class; empty where all are known."""
    packed = pack_colours(raw[..., :3])
    table = np.array([*taxonomy.colours, (0, 0, 0)], np.int64)  # black is void unless a class is black
    unknown = ~np.isin(packed, pack_colours(table))
    if not unknown.any():
        return []
    if found := _grey(raw, taxonomy, path):
        return [found]
    values, counts = np.unique(packed[unknown], return_counts=True)
    order = np.argsort(-counts, kind="stable")
    values, counts = values[order], counts[order]
    colours = _unpacked(values)
    distances = np.sqrt(((colours[:, None] - table[None]) ** 2).sum(-1))  # (colours, K + 1)
    near = float(counts[distances.min(1) <= _NEAR].sum() / counts.sum())
    total, distinct = int(counts.sum()), len(values)
    what = f"{distinct} colours that no class has, on {total} pixels"
    if lossy:
        message = f"is saved as {lossy}, which changes colours: {what}"
        return [_wrong("lossy-mask", path, message, _AGAIN, densest(unknown))]
    if distinct >= 4 and _blended(packed, unknown) >= 0.6:
        message = f"{what}, which are mixtures of the classes on both sides of borders"
        return [_wrong("smoothed-mask", path, message, _SMOOTH, densest(unknown))]
    if distinct >= 24 and near >= 0.6:
        message = f"{what}, {100 * near:.0f} % of them close to a class: it was lossy before it was saved like this"
        return [_wrong("lossy-mask", path, message, _AGAIN, densest(unknown))]
    more = f"; {distinct - _NAMED} further unknown colours" if distinct > _NAMED else ""
    findings = []
    for number in range(min(distinct, _NAMED)):
        closest = int(distances[number].argmin())
        name = f"'{taxonomy.names[closest]}'" if closest < taxonomy.num_classes else "void"
        place = bounds(packed == values[number])
        assert place is not None, "the colour was found in the mask"
        y, x = (int(v) for v in np.argwhere(packed == values[number])[0])
        message = (
            f"colour {tuple(colours[number].tolist())} at x={x}, y={y} ({int(counts[number])} such pixels) is no"
            f" class; nearest: {name} {tuple(table[closest].tolist())}{more if number == _NAMED - 1 else ''}"
        )
        remedy = f"add it to taxonomy.toml, or repaint it as {name}"
        findings.append(_wrong("unknown-colour", path, message, remedy, place))
    return findings


def _grey(raw: NDArray[Any], taxonomy: Taxonomy, path: Path) -> Finding | None:
    """Ids in three equal channels, as image programs save them."""
    if (raw[..., 0] != raw[..., 1]).any() or (raw[..., 0] != raw[..., 2]).any():
        return None
    values = {int(v) for v in np.unique(raw[..., 0])}
    classes = values - {taxonomy.ignore_index}
    if len(classes) < 2 or max(classes) >= taxonomy.num_classes:
        return None
    message = f"three equal channels of the values {_some(values)}: ids, written as grey colours"
    return _wrong("ids-as-colours", path, message, "save one channel of 8 bits", None)


def _scaled(raw: NDArray[Any], values: set[int], taxonomy: Taxonomy, path: Path) -> Finding | None:
    """Ids that were multiplied to be told apart by eye."""
    ids = values - {0, taxonomy.ignore_index}
    step = math.gcd(*ids) if ids else 0
    # Few values can be multiples of a small number by chance.
    if len(ids) < 2 or step < 3 or max(ids) // step >= taxonomy.num_classes:
        return None
    message = f"ids {_some(values)} are all multiples of {step}: they were stretched to be told apart by eye"
    return _wrong("scaled-ids", path, message, f"divide the ids by {step}", bounds(raw == max(ids)))


@dataclass(frozen=True, slots=True)
class ReadMask:
    """A mask that could be read: raw pixels (H, W) or (H, W, C) beside the classes (H, W) that they became."""

    raw: NDArray[Any]
    labels: NDArray[np.int64]
    palette: NDArray[np.uint8] | None = None  # (256, 3) of a palette file


def oddities(mask: ReadMask, taxonomy: Taxonomy, path: Path) -> list[Finding]:
    """What is doubtful about a mask file that could be read."""
    findings = []
    if mask.palette is not None and mask.raw.shape == mask.labels.shape:
        own = {tuple(colour): index for index, colour in enumerate(taxonomy.colours)}
        wrong = []
        for value in np.unique(mask.raw).tolist():
            label = int(mask.labels.flat[int(np.argmax(mask.raw.ravel() == value))])
            meant = own.get(tuple(mask.palette[value].tolist())) if value < len(mask.palette) else None
            if meant is not None and label != meant and label != taxonomy.ignore_index:
                wrong.append((value, label, meant))
        if wrong:
            value, label, meant = wrong[0]
            message = (
                f"id {value} has the palette colour of '{taxonomy.names[meant]}', but is read as"
                f" '{taxonomy.names[label]}' ({len(wrong)} such ids)"
            )
            remedy = "save the masks with ids in the order of taxonomy.toml, or put its classes into their order"
            findings.append(_wrong("palette-order", path, message, remedy, bounds(mask.raw == value), "warning"))
    return findings


def transparency(alpha: NDArray[Any], path: Path) -> Finding:
    """An alpha channel (H, W) of a mask, which no reader uses."""
    through = alpha < alpha.max() if alpha.min() < alpha.max() else alpha < np.iinfo(alpha.dtype).max
    if not through.any():
        return _wrong("mask-with-alpha", path, "has an opaque alpha channel", "it may go: save without", None, "note")
    share = 100 * float(through.mean())
    message = f"{share:.1f} % of the pixels are transparent, but labels are taken from the colours below"
    remedy = "paint what is transparent in its class or in black (void), and save without alpha"
    return _wrong("mask-with-alpha", path, message, remedy, densest(through), "warning")


def _is_blend(raw: NDArray[Any], unknown: NDArray[np.bool_]) -> bool:
    """Whether unknown ids are a narrow seam: below 30 % of the pixels, each within three pixels of two known ids."""
    y, x = _sampled(unknown)
    if unknown.mean() > 0.3 or len(y) == 0:
        return False
    padded, blocked = np.pad(raw.astype(np.int64), 3, mode="edge"), np.pad(unknown, 3, constant_values=True)
    found = np.zeros(len(y), np.bool_)
    for dy, dx in _STEPS:
        a, b = padded[y + 3 - dy, x + 3 - dx], padded[y + 3 + dy, x + 3 + dx]
        known = ~blocked[y + 3 - dy, x + 3 - dx] & ~blocked[y + 3 + dy, x + 3 + dx]
        found |= known & (np.minimum(a, b) < raw[y, x]) & (raw[y, x] < np.maximum(a, b))
    return float(found.mean()) >= 0.6


def _blended(packed: NDArray[np.int64], unknown: NDArray[np.bool_]) -> float:
    """Share of the unknown pixels whose colour lies on the line between two known ones on opposite sides."""
    y, x = _sampled(unknown)
    own = _unpacked(packed[y, x])
    known = np.pad(~unknown, 3)
    colours = np.pad(packed, 3, mode="edge")
    found = np.zeros(len(y), np.bool_)
    for dy, dx in _STEPS:
        first, second = (y + 3 - dy, x + 3 - dx), (y + 3 + dy, x + 3 + dx)
        a, b = _unpacked(colours[first]), _unpacked(colours[second])
        line = b - a
        length = np.maximum((line**2).sum(1), 1)
        along = ((own - a) * line).sum(1) / length
        off = np.sqrt(((own - a - along[:, None] * line) ** 2).sum(1))
        sides = known[first] & known[second] & (colours[first] != colours[second])
        found |= sides & (along > 0) & (along < 1) & (off <= _OFF_LINE)
    return float(found.mean())


_STEPS = [(d * dy, d * dx) for d in (1, 2, 3) for dy, dx in ((0, 1), (1, 0), (1, 1), (1, -1))]


def _sampled(where: NDArray[np.bool_]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    y, x = np.nonzero(where)
    step = max(1, len(y) // _LOOKED_AT)
    return y[::step], x[::step]


def _unpacked(values: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.stack([values >> 16, values >> 8 & 255, values & 255], -1)


def _colours(pixels: NDArray[Any]) -> int:
    return len(np.unique(pack_colours(pixels)))


def _some(values: set[int]) -> str:
    ordered = sorted(values)
    return ", ".join(map(str, ordered[:6])) + (f", ... {ordered[-1]}" if len(ordered) > 6 else "")


def _wrong(
    kind: str, path: Path, message: str, remedy: str, place: Place | None = None, severity: Any = "error"
) -> Finding:
    return Finding(kind, severity, "", str(path), message, remedy, place)
