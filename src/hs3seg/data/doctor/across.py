"""What only several samples show together: doubles, leaks between splits, images and masks of another kind."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from hs3seg.data.doctor.findings import Finding
from hs3seg.data.doctor.hashes import SAME_VIEW_BITS, near_pairs
from hs3seg.data.doctor.labels import FLIPS
from hs3seg.data.doctor.observe import Observation

# Measured on CamVid (701 masks) and NYU-Depth-v2 (1449), all of them as they should be: where the gain by a turn is
# over 1.3, its logarithm lies at most 5.1 spreads above the median of the split, and no gain is above 2.1. A turned
# mask of CamVid stands out by 5.5 spreads in 84 to 100 % of the cases, one of NYU-Depth-v2, whose rooms are symmetric
# and have a frame of void, in 5 to 30 %.
_FLIP_GAIN, _FLIP_SPREADS, _FLIP_GAIN_ALONE, _FLIP_GAIN_OF_ALL = 1.3, 5.5, 2.5, 1.2
_USUAL, _UNUSUAL = 0.9, 0.02  # shares of the images
_FEW = 10  # images below which nothing is unusual

Sample = tuple[str, Observation]


def compare(observations: Mapping[str, Sequence[Observation]]) -> list[Finding]:
    """Findings of samples against each other, over all splits."""
    samples = [(split, seen) for split, several in observations.items() for seen in several]
    near = list(_near(samples))
    exact = list(_equal(samples))
    findings = [_double(samples[a], samples[b], None) for a, b in exact]
    closest: dict[int, tuple[int, int]] = {}  # image -> (differing bits, the image of another split that is nearest)
    for a, b, bits in near:
        if samples[a][0] != samples[b][0]:
            closest[b] = min(closest.get(b, (bits, a)), (bits, a))
    findings += [_double(samples[a], samples[b], bits) for b, (bits, a) in closest.items()]
    findings += _look_alikes(samples, near)
    findings += _masks_used_twice(samples, {*exact, *((a, b) for a, b, _ in near)})
    for split, several in observations.items():
        findings += mirrored(split, several)
        findings += _unusual_sizes(split, several)
        findings += _grey_ones(split, several)
    return findings


def mirrored(split: str, several: Sequence[Observation]) -> list[Finding]:
    """Masks whose borders lie on their image's edges only after they are turned, against what is usual in the split."""
    measured = [(seen, seen.alignment) for seen in several if seen.alignment is not None]
    if not measured:
        return []
    strengths = np.stack([strength for _, strength in measured]).astype(np.float64)
    gains = np.log(np.maximum(strengths[:, 1:], 1e-3) / np.maximum(strengths[:, :1], 1e-3))  # (N, turns)
    usual = np.median(gains, axis=0)
    if len(measured) < _FEW:
        stands_out = gains >= np.log(_FLIP_GAIN_ALONE)
    else:
        turn = int(usual.argmax())
        if usual[turn] >= np.log(_FLIP_GAIN_OF_ALL):
            message = (
                f"the masks of {split} fit their images better after they are turned {FLIPS[turn]}: edges at their"
                f" borders are then {np.exp(usual[turn]):.1f} times as strong"
            )
            return [_turned(split, measured[int(gains[:, turn].argmax())][0], message)]
        spread = np.maximum(1.4826 * np.median(np.abs(gains - usual), axis=0), 0.05)
        stands_out = (gains >= np.log(_FLIP_GAIN)) & (gains - usual >= _FLIP_SPREADS * spread)
    findings = []
    for number in np.flatnonzero(stands_out.any(1)):
        turn = int(np.where(stands_out[number], gains[number], -np.inf).argmax())
        seen, strength = measured[number]
        message = (
            f"fits its image better after it is turned {FLIPS[turn]}: edges at its borders are {strength[turn + 1]:.1f}"
            f" times the mean then, and {strength[0]:.1f} times as it is"
        )
        findings.append(_turned(split, seen, message))
    return findings


def _turned(split: str, seen: Observation, message: str) -> Finding:
    remedy = "look at image and mask; turn the mask, or export it again together with its image"
    return Finding("mirrored-mask", "warning", split, seen.mask_file, message, remedy, index=seen.index)


def _equal(samples: Sequence[Sample]) -> Iterator[tuple[int, int]]:
    """Pairs of equal images: each one with the first of its kind."""
    first: dict[tuple[tuple[int, int] | None, bytes], int] = {}
    for number, (_, seen) in enumerate(samples):
        if seen.image_digest and not seen.is_constant:
            earlier = first.setdefault((seen.size, seen.image_digest), number)
            if earlier != number:
                yield earlier, number


def _near(samples: Sequence[Sample]) -> Iterator[tuple[int, int, int]]:
    """Pairs of images that look alike, but are not equal."""
    looks = [(number, seen.look) for number, (_, seen) in enumerate(samples) if seen.look is not None]
    if len(looks) < 2:
        return
    words = np.stack([look[0] for _, look in looks])
    thumbnails = np.stack([look[1] for _, look in looks])
    for a, b, bits in near_pairs(words, thumbnails):
        first, second = looks[a][0], looks[b][0]
        if samples[first][1].image_digest != samples[second][1].image_digest:
            yield first, second, bits


def _double(first: Sample, second: Sample, bits: int | None) -> Finding:
    """An image (the second) that was there before; `bits` of 512 differ where it is not exactly the same."""
    (split, seen), (other_split, other) = second, first
    what = "has the very same pixels as" if bits is None else f"looks the same as ({bits} of 512 hash bits differ)"
    labels = ""
    if seen.counts is not None and other.counts is not None and bits is None:
        same = seen.mask_digest == other.mask_digest and bool((seen.counts == other.counts).all())
        labels = "; their masks are equal" if same else "; but their masks differ"
    message = f"{what} '{other.image_file}' of {other_split}{labels}"
    if split == other_split:
        kind, remedy = "duplicate-image", "remove one of the two, or keep both if the repetition is meant"
    else:
        kind = "duplicate-across-splits" if bits is None else "near-duplicate-across-splits"
        remedy = (
            f"remove it from {split} or from {other_split}: scores on images that were trained on say nothing; put"
            " whole sequences into one split"
        )
    place = (other_split, other.index)
    return Finding(kind, "warning", split, seen.image_file, message, remedy, None, seen.index, place)


def _look_alikes(samples: Sequence[Sample], near: Sequence[tuple[int, int, int]]) -> Iterator[Finding]:
    """One note for each set of images of a split that look alike, e.g. of a camera that stands still."""
    group: dict[int, list[int]] = {}
    for a, b, bits in near:
        if samples[a][0] != samples[b][0] or bits > SAME_VIEW_BITS:
            continue
        first, second = group.get(a, [a]), group.get(b, [b])
        joined = first if first is second else first + second
        group.update(dict.fromkeys(joined, joined))
    done: set[int] = set()
    for members in group.values():
        if id(members) in done:
            continue
        done.add(id(members))
        (split, seen), *others = (samples[number] for number in sorted(members))
        names = ", ".join(other.name for _, other in others[:3]) + (", ..." if len(others) > 3 else "")
        message = f"looks the same as {len(others)} more of {split}: {names}"
        remedy = "nothing, if they are frames of a scene that stands still; thin them out to train on more of the rest"
        place = (split, others[0][1].index)
        yield Finding("near-duplicate", "note", split, seen.image_file, message, remedy, None, seen.index, place)


def _masks_used_twice(samples: Sequence[Sample], alike: set[tuple[int, int]]) -> Iterator[Finding]:
    """Equal masks of images that are not alike."""
    groups: defaultdict[bytes, list[int]] = defaultdict(list)
    for number, (_, seen) in enumerate(samples):
        if seen.mask_digest:
            groups[seen.mask_digest].append(number)
    for first, *rest in groups.values():
        for number in rest:
            (split, seen), (other_split, other) = samples[number], samples[first]
            if (first, number) in alike or seen.mask_file == other.mask_file:
                continue
            message = f"is equal to '{other.mask_file}' of {other_split}, but their images are not alike"
            remedy = "one of the two is a copy under a wrong name: put the right mask in its place"
            position = (other_split, other.index)
            yield Finding(
                "duplicate-mask", "warning", split, seen.mask_file, message, remedy, None, seen.index, position
            )


def _unusual_sizes(split: str, several: Sequence[Observation]) -> Iterator[Finding]:
    sizes = Counter(seen.size for seen in several if seen.size is not None)
    total = sizes.total()
    if total < _FEW:
        return
    usual, count = sizes.most_common(1)[0]
    if count < _USUAL * total:
        return
    for seen in several:
        if seen.size is not None and seen.size != usual and sizes[seen.size] <= max(1, _UNUSUAL * total):
            message = f"is {seen.size[0]}x{seen.size[1]}, while {count} of {total} images are {usual[0]}x{usual[1]}"
            remedy = "nothing, if it belongs there; reduced copies and thumbnails do not"
            yield Finding("unusual-size", "note", split, seen.image_file, message, remedy, None, seen.index)


def _grey_ones(split: str, several: Sequence[Observation]) -> Iterator[Finding]:
    read = [seen for seen in several if seen.size is not None and not seen.is_constant]
    grey = [seen for seen in read if seen.is_grey]
    if len(read) < _FEW or len(grey) > (1 - _USUAL) * len(read):
        return
    for seen in grey:
        message = f"has no colour, while {len(read) - len(grey)} of {len(read)} images have"
        remedy = "nothing, if it was taken so; else export it again in colour"
        yield Finding("grey-image", "note", split, seen.image_file, message, remedy, None, seen.index)


def frequencies(several: Sequence[Observation], num_classes: int) -> NDArray[np.int64]:
    """Pixels per class (K,) of what could be read."""
    counts = [seen.counts for seen in several if seen.counts is not None]
    return np.sum(counts, axis=0, dtype=np.int64) if counts else np.zeros(num_classes, np.int64)
