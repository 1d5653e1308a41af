"""Why a sample cannot be read: what its files say, its pixels, or at last the reader's own words."""

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hs3seg.data.doctor.files import Header, damaged
from hs3seg.data.doctor.findings import Finding, Place
from hs3seg.data.doctor.labels import bounds
from hs3seg.data.doctor.masks import compare_with_image, wrong_colours, wrong_ids
from hs3seg.data.images import pack_colours, raw_mask, read_image, read_mask
from hs3seg.errors import DataError
from hs3seg.taxonomy import Taxonomy

_AS_SAID = "do as the message says"
_LABEL_AT = re.compile(r"(?P<what>colour|label|value|id) .*?at x=(?P<x>\d+), y=(?P<y>\d+)", re.DOTALL)


@dataclass(slots=True)
class Unreadable:
    """What is known of a sample that cannot be read.

    Args:
        findings: Why; at least one.
        image: (H, W, 3), if that can be read.
        raw_ids: Ids of an index mask, if these are the reason.
    """

    findings: list[Finding] = field(default_factory=list)
    image: NDArray[np.uint8] | None = None
    raw_ids: frozenset[int] = frozenset()


def diagnose(
    taxonomy: Taxonomy,
    image_path: Path | None,
    mask_path: Path | None,
    headers: dict[Path, Header | Finding],
    files: tuple[str, ...],
    error: DataError,
) -> Unreadable:
    """Why a sample cannot be read.

    Args:
        taxonomy: Classes.
        image_path: Of the image; None where it is no picture file, as for the mask.
        mask_path: Of the mask.
        headers: Of both.
        files: All of the sample.
        error: What the reader said.
    """
    found = Unreadable([head for head in headers.values() if isinstance(head, Finding)])
    if image_path is not None and isinstance(headers[image_path], Header):
        try:
            found.image = read_image(image_path).permute(1, 2, 0).contiguous().numpy()
        except DataError as reason:
            found.findings.append(damaged(image_path, str(reason)))
    raw: NDArray[Any] | None = None
    if mask_path is not None and isinstance(headers[mask_path], Header):
        try:
            raw = raw_mask(mask_path)
        except DataError as reason:
            found.findings.append(_float(mask_path, headers[mask_path]) or damaged(mask_path, str(reason)))
    if not found.findings and mask_path is not None and raw is not None:
        head = headers[mask_path]
        pair = headers[image_path] if image_path is not None else None
        assert isinstance(head, Header)
        if found.image is not None and isinstance(pair, Header):
            found.findings = _of_pair(raw, found.image, mask_path, pair)
        if not found.findings:
            known = str(error).removeprefix(f"{mask_path}: ")
            if not _is_of_read_mask(str(error), raw, mask_path, taxonomy):
                found.findings = _in_words(known, raw, mask_path, head.lossy)
            elif raw.ndim == 2:
                found.raw_ids = frozenset(np.unique(raw)[:1024].tolist())
                found.findings = [wrong_ids(raw, taxonomy, mask_path, head.lossy, known.split(";")[0])]
            else:
                found.findings = wrong_colours(raw, taxonomy, mask_path, head.lossy)
    if not found.findings:
        named = next((file for file in files if file in str(error)), files[-1])
        known = str(error).removeprefix(f"{named}: ")
        found.findings = [Finding("unreadable-sample", "error", "", named, known, _AS_SAID)]
    return found


def _is_of_read_mask(error: str, raw: NDArray[Any], path: Path, taxonomy: Taxonomy) -> bool:
    """Whether labels were read with the taxonomy's own ids and colours; other readers have tables of their own."""
    if " is no class" not in error:
        return False
    if raw.ndim == 2:
        return f"allowed: 0..{taxonomy.num_classes - 1} and the ignore label {taxonomy.ignore_index}" in error
    try:
        read_mask(path, taxonomy)
    except DataError as own:
        return str(own) == error
    return False


def _in_words(known: str, raw: NDArray[Any], path: Path, lossy: str) -> list[Finding]:
    """A finding where a reader's words say which label is wrong and where; empty where they do not."""
    said = _LABEL_AT.match(known)
    if said is None:
        return []
    if lossy:
        message = f"is saved as {lossy}, which changes labels: {known}"
        return [Finding("lossy-mask", "error", "", str(path), message, "save it again from its source as PNG")]
    x, y = int(said["x"]), int(said["y"])
    place = bounds((raw if raw.ndim == 2 else pack_colours(raw[..., :3])) == _value_at(raw, x, y))
    kind = "unknown-colour" if said["what"] == "colour" else "unknown-id"
    return [Finding(kind, "error", "", str(path), known, _AS_SAID, place or Place(x, y))]


def _value_at(raw: NDArray[Any], x: int, y: int) -> Any:
    if not (0 <= y < raw.shape[0] and 0 <= x < raw.shape[1]):
        return None
    return raw[y, x] if raw.ndim == 2 else pack_colours(raw[y, x, :3])


def _of_pair(raw: NDArray[Any], image: NDArray[np.uint8], path: Path, pair: Header) -> list[Finding]:
    """Faults of a mask (H, W) or (H, W, C) that its image (h, w, 3) explains."""
    if found := compare_with_image(raw, image, path):
        return [found]
    (height, width), (tall, wide) = raw.shape[:2], image.shape[:2]
    if (height, width) == (tall, wide):
        return []
    message = f"is {width}x{height} pixels, its image is {wide}x{tall}; they must be equal"
    if (height, width) == (wide, tall):
        if pair.orientation >= 5:
            message += f"; the image has EXIF orientation {pair.orientation}, and only one of the two was turned by it"
            remedy = "write the image's pixels as its EXIF tag turns them and remove the tag, or turn the mask"
            return [Finding("exif-rotated", "error", "", str(path), message, remedy)]
        remedy = "one of the two is turned by a quarter: turn the mask"
    elif abs(height * wide - width * tall) <= max(height, wide, width, tall):
        remedy = f"resize the mask to {wide}x{tall} with nearest neighbour, or the image to {width}x{height}"
    else:
        remedy = "their shapes differ: look whether they belong together, and cut both alike"
    return [Finding("size-mismatch", "error", "", str(path), message, remedy)]


def _float(path: Path, head: Header | Finding) -> Finding | None:
    if isinstance(head, Header) and head.mode == "F":
        message = "holds floating-point values, but labels are integers"
        return Finding("float-mask", "error", "", str(path), message, "round the values to ids and save as 8-bit PNG")
    return None
