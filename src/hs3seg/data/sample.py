"""What every data set gives: samples of one image and its labels. Shapes: C channels, the first three are RGB."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from torch import Tensor
from torchvision import tv_tensors

from hs3seg.taxonomy import Taxonomy


@dataclass(frozen=True, slots=True)
class Sample:
    """One image with labels.

    Args:
        image: (C, H, W) uint8: RGB, then depth where the data set has it.
        mask: (H, W) int64 class ids, or the taxonomy's ignore label.
        name: Unique in its split.
    """

    image: tv_tensors.Image
    mask: tv_tensors.Mask
    name: str


@dataclass(frozen=True, slots=True)
class Batch:
    """Samples of one size.

    Args:
        images: (N, C, H, W) uint8.
        masks: (N, H', W') int64; in evaluation at label resolution.
        names: N names.
        indices: N positions in the data set.
    """

    images: Tensor
    masks: Tensor
    names: list[str]
    indices: list[int]

    def pin_memory(self) -> "Batch":
        """The same in page-locked memory, from which a GPU copies while it computes; torch's loader calls it."""
        return Batch(self.images.pin_memory(), self.masks.pin_memory(), self.names, self.indices)


@runtime_checkable
class SegmentationDataset(Protocol):
    """A split of labelled images.

    `names` are unique; `read(i)` may be called in any order and from several processes; `files(i)` names the sample's
    files in errors. One whose images have more than three channels says so: `channels`, see `channels_of`.
    """

    taxonomy: Taxonomy
    split: str

    @property
    def names(self) -> Sequence[str]:
        """Unique name of every sample, in order."""

    def __len__(self) -> int: ...

    def read(self, index: int) -> Sample:
        """Sample at a position.

        Raises:
            DataError: the files cannot be used; they are named.
        """

    def files(self, index: int) -> tuple[str, ...]:
        """What to look at when something is wrong with a sample."""


def channels_of(dataset: SegmentationDataset) -> int:
    """Channels of a data set's images; 3 where it says nothing."""
    return int(getattr(dataset, "channels", 3))


def notes_of(dataset: SegmentationDataset) -> tuple[str, ...]:
    """What a data set found out about its files, in sentences; none where it says nothing."""
    return tuple(getattr(dataset, "notes", ()))


def source_of(dataset: SegmentationDataset) -> SegmentationDataset:
    """The data set behind caches, which keep its order."""
    while hasattr(dataset, "source"):
        dataset = dataset.source
    return dataset
