"""What the labels of a whole split show: classes that are absent, rare or dominant, and ids that are shifted."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from hs3seg.data.doctor.across import frequencies
from hs3seg.data.doctor.findings import Finding
from hs3seg.data.doctor.observe import Observation
from hs3seg.data.statistics import LabelStatistics
from hs3seg.taxonomy import Taxonomy

_RARE_SHARE, _RARE_IMAGES = 1e-4, 3
_DOMINANT = 0.98
_ALIKE, _GAIN = 0.9, 0.3  # cosine between the class frequencies of two splits after a shift, and how much it grows


def statistics(observations: Sequence[Observation], taxonomy: Taxonomy) -> LabelStatistics:
    """Class counts of the samples that could be read."""
    read = [seen for seen in observations if seen.counts is not None]
    images = np.zeros(taxonomy.num_classes, np.int64)
    for seen in read:
        assert seen.counts is not None
        images += seen.counts > 0
    pixels = frequencies(read, taxonomy.num_classes)
    empty = tuple(seen.name for seen in read if seen.counts is not None and not seen.counts.any())
    ignored = sum(seen.ignored for seen in read)
    return LabelStatistics(tuple(pixels.tolist()), tuple(images.tolist()), ignored, len(read), empty)


def shifted(split: str, observations: Sequence[Observation], taxonomy: Taxonomy) -> Finding | None:
    """Whether the ids of a split's masks run from 1 to K instead of 0 to K - 1."""
    classes = taxonomy.num_classes
    of_masks = [(seen, _ids(seen) - {taxonomy.ignore_index}) for seen in observations]
    ids: set[int] = set().union(*(found for _, found in of_masks))
    if not ids or min(ids) != 1 or max(ids) != classes:
        return None
    with_highest = [seen for seen, found in of_masks if classes in found]
    several = sum(bool(found) for _, found in of_masks)
    message = (
        f"ids run from 1 to {classes} in all {several} masks of {split}, and 0 never occurs: they start at 1, but the"
        f" {classes} classes are 0..{classes - 1} ({len(with_highest)} masks hold {classes})"
    )
    remedy = "subtract 1 from every id (not from the ignore label), or put the class of id 0 first in taxonomy.toml"
    first = with_highest[0]
    return Finding("off-by-one", "error", split, first.mask_file, message, remedy, None, first.index)


def silently_shifted(observations: Mapping[str, Sequence[Observation]], taxonomy: Taxonomy) -> list[Finding]:
    """Splits whose class frequencies equal those of the first split only after a shift by one."""
    own = {split: frequencies(several, taxonomy.num_classes) for split, several in observations.items()}
    findings = []
    (_, reference), *rest = own.items()
    if taxonomy.num_classes < 4 or not reference.any():
        return []
    for split, counts in rest:
        if not counts.any():
            continue
        needed = max(_ALIKE, _cosine(reference, counts) + _GAIN)
        up, down = _cosine(reference[:-1], counts[1:]), _cosine(reference[1:], counts[:-1])
        # What was shifted cannot hold the class at the end that it left.
        by = 1 if up >= needed and not counts[0] else -1 if down >= needed and not counts[-1] else 0
        if not by:
            continue
        lost = taxonomy.names[0 if by > 0 else -1]
        message = (
            f"class frequencies of {split} equal those of {next(iter(own))} only if each id is one"
            f" {'lower' if by > 0 else 'higher'} (cosine {max(up, down):.2f} instead of"
            f" {_cosine(reference, counts):.2f}); '{lost}' never occurs"
        )
        remedy = f"look at a mask of {split}: {'subtract 1 from' if by > 0 else 'add 1 to'} every id if it is so"
        holds = next(seen for seen in observations[split] if seen.counts is not None and seen.counts.any())
        findings.append(Finding("off-by-one", "warning", split, holds.mask_file, message, remedy, None, holds.index))
    return findings


def class_findings(
    values: Mapping[str, LabelStatistics], observations: Mapping[str, Sequence[Observation]], taxonomy: Taxonomy
) -> list[Finding]:
    """Absent, rare and dominant classes of each split; the first is the training split."""
    findings: list[Finding] = []
    training = next(iter(values), None)
    if training is not None and taxonomy.num_classes < 2:
        message = f"'{taxonomy.names[0]}' is the only class, and a network needs two to tell apart"
        remedy = "list the others in taxonomy.toml, e.g. the background, also where it is black or was ignored so far"
        findings.append(Finding("one-class", "error", training, training, message, remedy))
    for split, found in values.items():
        if not found.num_images:
            continue
        total = sum(found.frequencies)
        if found.num_images == 1:
            message = f"{split} has one image that can be used"
            findings.append(Finding("single-image-split", "note", split, split, message, "add images"))
        for index, (name, pixels) in enumerate(zip(taxonomy.names, found.frequencies, strict=True)):
            images = found.images_with[index]
            if not pixels and (split == training or any(v.frequencies[index] for v in values.values())):
                findings.append(_absent(split, training, index, values, taxonomy))
            elif not pixels:
                continue  # it is absent everywhere, which is said once
            elif pixels >= _DOMINANT * total:
                message = f"{100 * pixels / total:.1f} % of the labelled pixels are '{name}'"
                remedy = "nothing, if it is so; watch the IoU of the other classes, and think of class weights"
                findings.append(Finding("dominant-class", "note", split, split, message, remedy))
            elif split == training and (pixels < _RARE_SHARE * total or images < _RARE_IMAGES):
                share = f"{100 * pixels / total:.4f} % of the pixels"
                message = f"'{name}' has {pixels} pixels ({share}) in {images} of {found.num_images} images"
                remedy = "label more of it, sample its images more often, or merge it with a class like it"
                holds = next(s for s in observations[split] if s.counts is not None and s.counts[index])
                findings.append(
                    Finding("rare-class", "note", split, holds.mask_file, message, remedy, None, holds.index)
                )
    return findings


def _absent(
    split: str, training: str | None, index: int, values: Mapping[str, LabelStatistics], taxonomy: Taxonomy
) -> Finding:
    name = taxonomy.names[index]
    elsewhere = [other for other, found in values.items() if found.frequencies[index]]
    if split != training:
        message = f"'{name}' never occurs in {split}"
        return Finding("absent-class", "note", split, split, message, "nothing: it is left out of every mean")
    if elsewhere:
        message = f"'{name}' never occurs in {split}, but in {', '.join(elsewhere)}: it is asked for, but not taught"
        remedy = f"move images with it to {split}, or make it void"
        return Finding("untrained-class", "warning", split, split, message, remedy)
    hint = ", or the ids are not those of the masks: do they start at 1?" if index == 0 else ""
    message = f"'{name}' never occurs in any split: it cannot be learned"
    remedy = f"take it out of taxonomy.toml if it is not needed{hint}"
    return Finding("absent-class", "warning", split, split, message, remedy)


def _ids(seen: Observation) -> set[int]:
    if seen.raw_ids:
        return set(seen.raw_ids)
    return set() if seen.counts is None else set(np.flatnonzero(seen.counts).tolist())


def _cosine(first: NDArray[np.int64], second: NDArray[np.int64]) -> float:
    a, b = first.astype(np.float64), second.astype(np.float64)
    length = float(np.linalg.norm(a) * np.linalg.norm(b))
    return float(a @ b) / length if length else 0.0
