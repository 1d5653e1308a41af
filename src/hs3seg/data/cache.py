"""Decoded samples kept in memory."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torchvision import tv_tensors

from hs3seg.data.sample import Sample, SegmentationDataset, channels_of, notes_of


class CachedDataset:
    """Keeps every decoded sample in memory, labels as uint8 where they allow it; for sets smaller than the memory."""

    def __init__(self, dataset: SegmentationDataset) -> None:
        self.taxonomy, self.split = dataset.taxonomy, dataset.split
        self.channels, self.notes = channels_of(dataset), notes_of(dataset)
        self._dataset = dataset
        self._kept: dict[int, tuple[Tensor, Tensor, str]] = {}

    @property
    def source(self) -> SegmentationDataset:
        """The data set that is kept."""
        return self._dataset

    @property
    def names(self) -> Sequence[str]:
        """Names of the samples."""
        return self._dataset.names

    def __len__(self) -> int:
        return len(self._dataset)

    def files(self, index: int) -> tuple[str, ...]:
        """Files of a sample."""
        return self._dataset.files(index)

    def fill(self) -> None:
        """Reads everything now, so that worker processes made later share it instead of reading it once each."""
        for index in range(len(self)):
            self.read(index)

    def read(self, index: int) -> Sample:
        """A sample, from memory after the first time."""
        if index not in self._kept:
            sample = self._dataset.read(index)
            mask = sample.mask.as_subclass(Tensor)
            small = mask.to(torch.uint8) if int(mask.min()) >= 0 and int(mask.max()) <= 255 else mask
            self._kept[index] = (sample.image.as_subclass(Tensor), small, sample.name)
        image, mask, name = self._kept[index]
        return Sample(tv_tensors.Image(image), tv_tensors.Mask(mask.to(torch.int64)), name)
