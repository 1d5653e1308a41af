"""Seeded splits and subsets."""

from collections.abc import Mapping, Sequence

import numpy as np

from hs3seg.data.cache import CachedDataset
from hs3seg.data.sample import Sample, SegmentationDataset, channels_of
from hs3seg.errors import DataError


def analysis_split(
    num_items: int, fraction: float, seed: int, count: int | None = None
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Cuts the train split into reduced and analysis parts (Sec. 3.1.1).

    Args:
        num_items: Size of the train split.
        fraction: Share of the analysis part, 0..1; at least one item goes to each part.
        seed: Of the choice.
        count: Size of the analysis part, instead of the fraction: the paper has 300 of Cityscapes' 2975 and 100 of
            NYUD-v2's 795.

    Returns:
        (reduced, analysis): sorted positions; together each of 0..num_items-1 once.

    Raises:
        DataError: fewer than two items, or a count that leaves nothing for one part.
    """
    if num_items < 2:
        raise DataError(
            f"{num_items} training images cannot be cut into a reduced and an analysis split; give at least 2"
        )
    if count is not None and not 1 <= count < num_items:
        raise DataError(
            f"an analysis split of {count} images cannot be cut from {num_items} training images; allowed:"
            f" 1..{num_items - 1} (data.analysis_images)"
        )
    count = count or min(max(1, round(num_items * fraction)), num_items - 1)
    analysis = drawn(num_items, count, seed)
    inside = set(analysis)
    return tuple(i for i in range(num_items) if i not in inside), analysis


def fraction_split(num_items: int, fractions: Mapping[str, float], split: str, seed: int) -> tuple[int, ...]:
    """Positions of one of several splits that are cut at random, e.g. {"train": 0.7, "val": 0.15, "test": 0.15}.

    Args:
        num_items: Of all splits together.
        fractions: Share of each split, above 0, together at most 1; what is then left belongs to none.
        split: One of them.
        seed: Of the cut; the splits of one seed never overlap.

    Returns:
        Sorted positions; sizes are the shares, rounded so that no item is lost.

    Raises:
        DataError: an unknown split, shares that make no sense, or a split that would be empty.
    """
    if split not in fractions:
        raise DataError(f"split '{split}' has no share in data.split_fractions; it names {', '.join(fractions)}")
    total = sum(fractions.values())
    if min(fractions.values()) <= 0 or total > 1 + 1e-6:
        shares = ", ".join(f"{name} = {share:g}" for name, share in fractions.items())
        raise DataError(f"data.split_fractions has {shares}; shares are above 0 and at most 1 together")
    # Rounded where each split ends, so that the parts fit together whatever their number.
    ends = [round(num_items * end) for end in np.cumsum(list(fractions.values()))]
    place = list(fractions).index(split)
    begin, end = ends[place - 1] if place else 0, ends[place]
    if begin == end:
        raise DataError(
            f"split '{split}' is empty: a share of {fractions[split]:g} of {num_items} images is less than one; raise"
            " it in data.split_fractions, or add images"
        )
    order = np.random.default_rng(seed).permutation(num_items)
    return tuple(sorted(order[begin:end].tolist()))


def drawn(num_items: int, count: int, seed: int) -> tuple[int, ...]:
    """Positions of so many items, sorted. Of one seed the fewer are among the more, as learning curves want them.

    Raises:
        DataError: more than there are.
    """
    if count > num_items:
        raise DataError(f"{count} images cannot be drawn from {num_items} training images (data.train_images)")
    return tuple(sorted(np.random.default_rng(seed).permutation(num_items)[:count].tolist()))


class Subset:
    """Some samples of a data set, under a split name of their own."""

    def __init__(self, dataset: SegmentationDataset, indices: Sequence[int], split: str) -> None:
        self.taxonomy = dataset.taxonomy
        self.split = split
        self.channels = channels_of(dataset)
        self._dataset: SegmentationDataset = dataset
        self._indices = tuple(indices)
        if isinstance(dataset, Subset):  # the set itself may be a cache, which `fill` has to see
            self._dataset = dataset._dataset
            self._indices = tuple(dataset._indices[i] for i in indices)

    @property
    def names(self) -> Sequence[str]:
        """Names of the chosen samples."""
        names = self._dataset.names
        return [names[i] for i in self._indices]

    def __len__(self) -> int:
        return len(self._indices)

    def fill(self) -> None:
        """Fills the cache of the whole set with these samples, if it has one."""
        if isinstance(self._dataset, CachedDataset):
            for index in self._indices:
                self._dataset.read(index)

    def read(self, index: int) -> Sample:
        """Sample at a position of the subset."""
        return self._dataset.read(self._indices[index])

    def files(self, index: int) -> tuple[str, ...]:
        """Files of a sample."""
        return self._dataset.files(self._indices[index])
