"""How often each class occurs."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from hs3seg.data.sample import SegmentationDataset


@dataclass(frozen=True)
class LabelStatistics:
    """Pixel counts of a split.

    Args:
        frequencies: (K,) pixels per class.
        images_with: (K,) images in which the class occurs.
        num_ignored: Pixels without a class.
        num_images: Images read.
        all_ignored: Names of images in which no pixel has a class.
    """

    frequencies: tuple[int, ...]
    images_with: tuple[int, ...]
    num_ignored: int
    num_images: int
    all_ignored: tuple[str, ...]

    def to_dict(self, names: Sequence[str]) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "num_images": self.num_images,
            "num_ignored_pixels": self.num_ignored,
            "all_ignored_images": list(self.all_ignored),
            "classes": {
                name: {"pixels": pixels, "images": images}
                for name, pixels, images in zip(names, self.frequencies, self.images_with, strict=True)
            },
        }


def class_frequencies(dataset: SegmentationDataset, progress: Callable[[], None] | None = None) -> LabelStatistics:
    """Reads every mask once.

    Raises:
        DataError: of the first sample that cannot be used.
    """
    counter = LabelCounter(dataset.taxonomy.num_classes, dataset.taxonomy.ignore_index)
    for index in range(len(dataset)):
        sample = dataset.read(index)
        counter.add(sample.mask.as_subclass(Tensor), sample.name)
        if progress:
            progress()
    return counter.result()


class LabelCounter:
    """Counts labels image by image."""

    def __init__(self, num_classes: int, ignore_index: int) -> None:
        self._num_classes, self._ignore_index = num_classes, ignore_index
        self._counts = torch.zeros(num_classes, dtype=torch.int64)
        self._images = torch.zeros(num_classes, dtype=torch.int64)
        self._ignored = self._seen = 0
        self._all_ignored: list[str] = []

    def add(self, mask: Tensor, name: str) -> None:
        """Adds one mask (H, W) int64."""
        labels = mask[mask != self._ignore_index]
        counts = torch.bincount(labels, minlength=self._num_classes)
        self._counts += counts
        self._images += counts > 0
        self._ignored += mask.numel() - labels.numel()
        self._seen += 1
        if labels.numel() == 0:
            self._all_ignored.append(name)

    def result(self) -> LabelStatistics:
        """What was counted so far."""
        return LabelStatistics(
            tuple(self._counts.tolist()),
            tuple(self._images.tolist()),
            self._ignored,
            self._seen,
            tuple(self._all_ignored),
        )
