"""Pictures of the worst finds: the whole sample, and the place that shows the fault."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from hs3seg.data.doctor.findings import Finding, Picture, Place
from hs3seg.data.doctor.observe import sample_paths
from hs3seg.data.images import raw_mask, read_image
from hs3seg.data.sample import SegmentationDataset
from hs3seg.errors import DataError
from hs3seg.taxonomy import Taxonomy

_SIDE, _CROP = 480, 64  # largest side of a whole picture; smallest one of a cut-out, in pixels
_MOST = 0.5  # share of the picture above which a cut-out says nothing more
_PER_KIND = 2
_UNKNOWN, _IGNORED = (255, 0, 255), (0, 0, 0)


def pick(findings: Sequence[Finding], most: int) -> list[int]:
    """Positions of the findings to show: those of a sample, the first two of each kind, errors before warnings."""
    count: Counter[str] = Counter()
    chosen: list[int] = []
    for rounds in range(1, _PER_KIND + 1):
        for number, finding in enumerate(findings):
            if finding.index is None or number in chosen or count[finding.kind] >= rounds:
                continue
            if len(chosen) == most:
                break
            count[finding.kind] += 1
            chosen.append(number)
    return sorted(chosen)


def pictures(
    datasets: Mapping[str, SegmentationDataset], findings: Sequence[Finding], most: int
) -> tuple[Picture, ...]:
    """Shows the worst finds.

    Args:
        datasets: Split -> data set.
        findings: In the order of their weight.
        most: Pictures at most.
    """
    shown = []
    for number in pick(findings, most):
        finding = findings[number]
        if finding.kind == "fatal-sample" or finding.split not in datasets or finding.index is None:
            continue
        dataset = datasets[finding.split]
        image, mask = _read(dataset, finding.index)
        arrays: dict[str, NDArray[np.uint8]] = {}
        whole = image if image is not None else mask
        if whole is None:
            continue
        size = (whole.shape[1], whole.shape[0])
        crop = _crop(finding.place, size) if finding.place is not None else None
        for key, pixels in (("image", image), ("mask", mask)):
            if pixels is None:
                continue
            arrays[key] = _reduced(pixels, key == "image")
            if crop is not None and (pixels.shape[1], pixels.shape[0]) == size:
                cut = pixels[crop.y : crop.y + crop.height, crop.x : crop.x + crop.width]
                arrays[f"{key}-crop"] = _reduced(cut, key == "image")
        if finding.other is not None and finding.other[0] in datasets:
            other, _ = _read(datasets[finding.other[0]], finding.other[1])
            if other is not None:
                arrays["other"] = _reduced(other, True)
        mask_size = (mask.shape[1], mask.shape[0]) if mask is not None else None
        shown.append(Picture(number, dataset.names[finding.index], size, mask_size, crop, arrays))
    return tuple(shown)


def paint(labels: NDArray[np.int64], taxonomy: Taxonomy) -> NDArray[np.uint8]:
    """Labels (H, W) in the colours of their classes; ignored pixels black, unknown ids magenta. (H, W, 3)."""
    table = np.array([*taxonomy.colours, _IGNORED, _UNKNOWN], np.uint8)
    classes = taxonomy.num_classes
    known = (labels >= 0) & (labels < classes)
    other = np.where(labels == taxonomy.ignore_index, classes, classes + 1)
    return table[np.where(known, labels, other)]


def _read(dataset: SegmentationDataset, index: int) -> tuple[NDArray[np.uint8] | None, NDArray[np.uint8] | None]:
    """Image and painted mask (H, W, 3) of a sample, from its files where the data set cannot read it."""
    try:
        sample = dataset.read(index)
        image = sample.image.as_subclass(Tensor)[:3].permute(1, 2, 0).contiguous().numpy()
        return image, paint(sample.mask.as_subclass(Tensor).numpy(), dataset.taxonomy)
    except Exception:  # whatever it was, it is a finding already
        image_path, mask_path = sample_paths(dataset.files(index))
    return _image(image_path), _mask(mask_path, dataset.taxonomy)


def _image(path: Path | None) -> NDArray[np.uint8] | None:
    try:
        return None if path is None else read_image(path).permute(1, 2, 0).contiguous().numpy()
    except DataError:
        return None


def _mask(path: Path | None, taxonomy: Taxonomy) -> NDArray[np.uint8] | None:
    try:
        raw = None if path is None else raw_mask(path)
    except DataError:
        return None
    if raw is None or raw.size == 0:
        return None
    return raw[..., :3].astype(np.uint8) if raw.ndim == 3 else paint(raw.astype(np.int64), taxonomy)


def _crop(place: Place, size: tuple[int, int]) -> Place | None:
    """A box around a place, a bit larger than it and inside the picture; None where it would be most of the picture."""
    width = max(_CROP, place.width + place.width // 2)
    height = max(round(width * size[1] / size[0]), place.height + place.height // 2)  # in the picture's shape
    width, height = min(size[0], max(width, round(height * size[0] / size[1]))), min(size[1], height)
    if width * height > _MOST * size[0] * size[1]:
        return None
    x = min(max(0, place.x + place.width // 2 - width // 2), size[0] - width)
    y = min(max(0, place.y + place.height // 2 - height // 2), size[1] - height)
    return Place(x, y, width, height)


def _reduced(pixels: NDArray[np.uint8], smooth: bool) -> NDArray[np.uint8]:
    """At most `_SIDE` pixels on a side."""
    height, width = pixels.shape[:2]
    factor = _SIDE / max(height, width)
    if factor >= 1:
        return pixels.copy()
    how = Image.Resampling.BOX if smooth else Image.Resampling.NEAREST
    size = (max(1, round(width * factor)), max(1, round(height * factor)))
    return np.asarray(Image.fromarray(np.ascontiguousarray(pixels)).resize(size, how))
