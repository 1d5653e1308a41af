"""Seeded splits and subsets."""

from collections.abc import Sequence

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
    chosen = np.random.default_rng(seed).permutation(num_items)[:count]
    analysis = tuple(sorted(int(i) for i in chosen))
    inside = set(analysis)
    return tuple(i for i in range(num_items) if i not in inside), analysis


class Subset:
    """Some samples of a data set, under a split name of their own."""

    def __init__(self, dataset: SegmentationDataset, indices: Sequence[int], split: str) -> None:
        self.taxonomy = dataset.taxonomy
        self.split = split
        self.channels = channels_of(dataset)
        self._dataset = dataset
        self._indices = tuple(indices)

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
