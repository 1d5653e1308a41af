"""What is kept of one sample: findings that it shows alone, and small numbers to compare it with the others."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from hs3seg.data.doctor.files import Header, header
from hs3seg.data.doctor.findings import Finding, Place
from hs3seg.data.doctor.hashes import digest, signature
from hs3seg.data.doctor.labels import alignment, blends, bounds, densest, has_shape, specks
from hs3seg.data.doctor.masks import ReadMask, oddities, transparency
from hs3seg.data.doctor.unreadable import diagnose
from hs3seg.data.images import IMAGE_SUFFIXES
from hs3seg.data.sample import Sample, SegmentationDataset
from hs3seg.errors import DataError
from hs3seg.taxonomy import Taxonomy

# CamVid's masks, reduced with nearest neighbour, have 0.27 % at most and 0.06 % on average; NYU-Depth-v2's 0.07 %.
MAX_SPECKS = 0.005
# Of the one-pixel runs between two classes of real masks at most 50 % lie between them in number, and these are at most
# 5 % of the borders; a smooth resize makes it 100 % and a third.
_BLEND_SHARE, _BLENDS_PER_BORDER = 0.8, 0.1
_EVEN, _DARK = 2, 24  # levels of 255


@dataclass(slots=True)
class Observation:
    """One sample, without its pixels.

    Args:
        index: Position in the split.
        name: Of the sample.
        image_file: Its image, or what stands for it.
        mask_file: Its mask, or what stands for it.
        identity: Of the image file on disk, whatever its name; empty where there is none.
        findings: What the sample shows alone.
        size: Width and height of the image; None where it cannot be read, like all that follows.
        image_digest: Equal for equal pixels.
        look: Signature and thumbnail of `hashes.signature`; None for a flat image.
        is_grey: Its three channels are equal.
        counts: Pixels per class (K,); None where labels cannot be used.
        ignored: Pixels without a class.
        mask_digest: Equal for equal labels; empty where they have too little shape to be compared.
        alignment: Of `labels.alignment`.
        raw_ids: Ids of an index mask that cannot be used.
    """

    index: int
    name: str
    image_file: str
    mask_file: str
    identity: tuple[int, int] | None = None
    findings: list[Finding] = field(default_factory=list)
    size: tuple[int, int] | None = None
    image_digest: bytes = b""
    look: tuple[NDArray[np.uint64], NDArray[np.uint8]] | None = None
    is_constant: bool = False
    is_grey: bool = False
    counts: NDArray[np.int64] | None = None
    ignored: int = 0
    mask_digest: bytes = b""
    alignment: NDArray[np.float32] | None = None
    raw_ids: frozenset[int] = frozenset()


def sample_paths(files: tuple[str, ...]) -> tuple[Path | None, Path | None]:
    """Image and mask among a sample's files, the first and the last; None for what is no picture file."""
    paths = [Path(file) if Path(file).suffix.lower() in IMAGE_SUFFIXES else None for file in files]
    return (paths[0] if paths else None), (paths[-1] if len(paths) > 1 else None)


def observe(dataset: SegmentationDataset, index: int) -> Observation:
    """Reads one sample and says all that it shows alone."""
    files = dataset.files(index)
    image_path, mask_path = sample_paths(files)
    seen = Observation(index, dataset.names[index], files[0], files[-1])
    if image_path is not None and image_path.is_file():
        status = image_path.stat()
        seen.identity = (status.st_dev, status.st_ino)
    headers = {path: header(path) for path in (image_path, mask_path) if path is not None}
    try:
        sample = dataset.read(index)
    except DataError as error:
        reason = diagnose(dataset.taxonomy, image_path, mask_path, headers, files, error)
        seen.raw_ids = reason.raw_ids
        if reason.image is not None:
            _see_image(seen, reason.image)
        seen.findings += reason.findings
    else:
        image = sample.image.as_subclass(Tensor)[:3].permute(1, 2, 0).contiguous().numpy()
        labels = sample.mask.as_subclass(Tensor).numpy()
        _see_image(seen, image)
        _see_labels(seen, image, labels, dataset.taxonomy)
        if mask_path is not None and isinstance(head := headers[mask_path], Header):
            seen.findings += _doubts_of_mask(mask_path, head, sample, dataset.taxonomy)
    if image_path is not None and isinstance(head := headers[image_path], Header):
        seen.findings += _doubts_of_image(image_path, head, {finding.kind for finding in seen.findings})
    seen.findings = [finding.located(dataset.split, index) for finding in seen.findings]
    return seen


def _see_image(seen: Observation, image: NDArray[np.uint8]) -> None:
    """Notes size, fingerprints and look of an image (H, W, 3)."""
    seen.size = (image.shape[1], image.shape[0])
    seen.image_digest = digest(image)
    lowest, highest = int(image.min()), int(image.max())
    flat = image.reshape(-1, 3)
    seen.is_constant = bool((np.ptp(flat, axis=0) <= _EVEN).all())
    if seen.is_constant:
        colour = tuple(int(v) for v in flat[0])
        message = f"all pixels have the colour {colour}{' (black)' if highest <= _EVEN else ''}"
        remedy = "export the image again, or remove the sample"
        seen.findings.append(Finding("constant-image", "warning", "", seen.image_file, message, remedy))
        return
    if highest <= _DARK:
        message = f"levels {lowest}..{highest} of 255: almost black"
        remedy = "if it was saved with 10 or 12 of 16 bits, scale it to the full range and save it with 8"
        seen.findings.append(Finding("dark-image", "warning", "", seen.image_file, message, remedy))
    seen.look = signature(image)
    seen.is_grey = bool((image[..., 0] == image[..., 1]).all() and (image[..., 0] == image[..., 2]).all())


def _see_labels(seen: Observation, image: NDArray[np.uint8], labels: NDArray[Any], taxonomy: Taxonomy) -> None:
    """Notes counts, fingerprint and faults of labels (H, W)."""
    ignore = taxonomy.ignore_index
    valid = labels != ignore
    if found := _wrong_of_reader(labels, valid, image, taxonomy, seen.mask_file):
        seen.findings.append(found)
        seen.raw_ids = frozenset(np.unique(labels)[:1024].tolist())
        return
    seen.counts = np.bincount(labels[valid].ravel(), minlength=taxonomy.num_classes).astype(np.int64)
    seen.ignored = int(labels.size - valid.sum())
    small = labels.astype(np.int16)  # ids of classes are far below 32768, an ignore label may wrap to another one
    ignore = int(np.int64(ignore).astype(np.int16))

    def add(kind: str, message: str, remedy: str, place: Place | None = None) -> None:
        seen.findings.append(Finding(kind, "warning", "", seen.mask_file, message, remedy, place))

    if seen.ignored == labels.size:
        message = "no pixel has a class; the image is kept, but teaches nothing"
        add("all-ignored", message, "label it, or remove the sample")
        return
    alone = specks(small)
    if (share := float(alone.mean())) > MAX_SPECKS:
        message = f"{int(alone.sum())} single pixels ({100 * share:.2f} %) differ from all eight neighbours"
        remedy = "resize masks with nearest neighbour, do not dither, and clean them with a 3x3 majority filter"
        add("specks", message, remedy, densest(alone))
    between, runs, borders = blends(small, ignore)
    blended = int(between.sum())
    if runs >= 16 and blended >= _BLEND_SHARE * runs and blended >= _BLENDS_PER_BORDER * borders:
        message = f"{blended} pixels at borders have an id between the two sides', as smooth resizing makes it"
        add("smoothed-mask", message, "resize masks with nearest neighbour, from the originals", densest(between))
    if has_shape(small):
        seen.mask_digest = digest(small)
        seen.alignment = alignment(image, small) if image.shape[:2] == small.shape else None


def _wrong_of_reader(
    labels: NDArray[Any], valid: NDArray[np.bool_], image: NDArray[np.uint8], taxonomy: Taxonomy, file: str
) -> Finding | None:
    """What a reader should have refused: labels (H, W) of another size than the image (h, w, 3), or unknown ids."""
    if labels.shape != image.shape[:2]:
        message = f"labels of shape {labels.shape} for an image of {image.shape[:2]} (height, width)"
        return Finding("size-mismatch", "error", "", file, message, "correct the reader, or the files")
    unknown = valid & ((labels < 0) | (labels >= taxonomy.num_classes))
    if not unknown.any():
        return None
    y, x = (int(v) for v in np.argwhere(unknown)[0])
    message = f"label {labels[y, x]} at x={x}, y={y} ({int(unknown.sum())} such pixels) is no class"
    remedy = f"let the reader give 0..{taxonomy.num_classes - 1} and {taxonomy.ignore_index} only"
    return Finding("unknown-id", "error", "", file, message, remedy, bounds(labels == labels[y, x]))


def _doubts_of_mask(path: Path, head: Header, sample: Sample, taxonomy: Taxonomy) -> list[Finding]:
    """What the file of a mask that could be read makes doubtful."""
    findings = []
    file = str(path)
    if head.lossy:
        message = f"is saved as {head.lossy}, which changes labels at borders"
        findings.append(Finding("lossy-mask", "warning", "", file, message, "save it again from its source as PNG"))
    if head.frames > 1:
        findings.append(_several(file, head.frames))
    if head.transparent or head.mode == "P":
        with Image.open(path) as picture:
            if head.transparent:
                findings.append(transparency(np.asarray(picture.getchannel(len(picture.getbands()) - 1)), path))
            else:
                palette = np.array(picture.getpalette("RGB") or [], np.uint8).reshape(-1, 3)
                mask = ReadMask(np.asarray(picture), sample.mask.as_subclass(Tensor).numpy(), palette)
                findings += oddities(mask, taxonomy, path)
    return findings


def _doubts_of_image(path: Path, head: Header, known: set[str]) -> list[Finding]:
    """What the header of an image makes doubtful."""
    findings = []
    if head.orientation != 1 and "exif-rotated" not in known:
        message = f"EXIF orientation {head.orientation}: viewers turn it, so the mask may have been drawn on it turned"
        remedy = "see whether the mask fits; write the pixels upright and remove the tag"
        findings.append(Finding("exif-rotated", "warning", "", str(path), message, remedy))
    if head.frames > 1:
        findings.append(_several(str(path), head.frames))
    if head.transparent:
        with Image.open(path) as picture:
            through = np.asarray(picture.getchannel(len(picture.getbands()) - 1)) < 255
        if through.any():
            message = f"{100 * float(through.mean()):.1f} % of the pixels are transparent; the colours below are used"
            remedy = "paste it on a background and save without alpha"
            findings.append(Finding("transparent-image", "note", "", str(path), message, remedy, densest(through)))
    return findings


def _several(file: str, frames: int) -> Finding:
    message = f"holds {frames} pictures; only the first is used"
    return Finding("several-frames", "warning", "", file, message, "save one picture per file")
