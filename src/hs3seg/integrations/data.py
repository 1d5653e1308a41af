"""Our data sets for other people's loaders: normalised images and labels of one size."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from hs3seg.config import data_of_folder
from hs3seg.data import DigitScenes, EvaluationTransform, FolderDataset, Subset, analysis_split, taxonomy_of_folder
from hs3seg.data.loader import Transform
from hs3seg.data.sample import SegmentationDataset
from hs3seg.data.transforms import resize_labels
from hs3seg.errors import DataError
from hs3seg.taxonomy import Taxonomy

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class TorchDataset(Dataset[Any]):
    """Any of our data sets as a map-style data set of torch.

    Items are (image, labels): float32 (3, H, W), normalised, and int64 (H, W), 255 or the taxonomy's own label =
    ignore; with `as_dict` {"pixel_values": image, "labels": labels}, as transformers has them.

    Args:
        dataset: `CamVid`, `FolderDataset`, `DigitScenes`, ...
        size: (height, width) that images (bilinear) and labels (nearest) are brought to; None = as they are.
        transform: Instead of `size`: makes uint8 image and labels of a sample, e.g. `TrainTransform`.
        as_dict: Whether items are dictionaries.
        mean: Per channel, for pixels 0..1.
        std: Likewise.
    """

    def __init__(
        self,
        dataset: SegmentationDataset,
        size: tuple[int, int] | None = None,
        *,
        transform: Transform | None = None,
        as_dict: bool = False,
        mean: tuple[float, float, float] = IMAGENET_MEAN,
        std: tuple[float, float, float] = IMAGENET_STD,
    ) -> None:
        self.dataset, self.size, self.as_dict = dataset, size, as_dict
        self._transform = transform or EvaluationTransform(size)
        self._mean, self._std = (torch.tensor(values).view(3, 1, 1) for values in (mean, std))

    @property
    def taxonomy(self) -> Taxonomy:
        """Classes of the labels."""
        return self.dataset.taxonomy

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor] | dict[str, Tensor]:
        pixels, mask = self._transform(self.dataset.read(index))
        image = (pixels[:3].float() / 255 - self._mean) / self._std
        labels = resize_labels(mask, image.shape[-2:])
        return {"pixel_values": image, "labels": labels} if self.as_dict else (image, labels)


@dataclass(frozen=True)
class Parts:
    """Data of the two phases.

    Attributes:
        reduced: Phase one trains on it.
        analysis: Phase one is measured on it; not in `reduced`.
        train: Phase two trains on it: both of them.
        val: Neither phase sees it.
    """

    reduced: TorchDataset
    analysis: TorchDataset
    train: TorchDataset
    val: TorchDataset

    @property
    def taxonomy(self) -> Taxonomy:
        """Classes of the labels."""
        return self.train.taxonomy


def open_parts(
    source: str | Path = "digits",
    size: tuple[int, int] = (96, 128),
    *,
    num_images: int = 240,
    fraction: float = 0.25,
    seed: int = 0,
    as_dict: bool = False,
) -> Parts:
    """Opens a folder of images and masks, or digit scenes, and cuts the train split for the two phases (Sec. 3.1.1).

    Args:
        source: `digits`, or a folder in one of the layouts of `FolderDataset`, with the splits `train` and `val`; its
            classes are those of taxonomy.toml inside, or what the masks hold. Splits and how masks are read are those
            of hs3.toml inside, if `hs3 data init` wrote one.
        size: (height, width) of all images.
        num_images: Training scenes, for digits; a quarter as many for `val`.
        fraction: Share of the analysis part.
        seed: Of scenes and cuts.
        as_dict: See `TorchDataset`.

    Raises:
        DataError: no such folder, or its files cannot be used.
        ConfigError: its hs3.toml cannot be read.
    """
    train: SegmentationDataset
    val: SegmentationDataset
    if source == "digits":
        train = DigitScenes("train", num_images, size, seed)
        val = DigitScenes("val", max(1, num_images // 4), size, seed)
    else:
        root = Path(source)
        if not root.is_dir():
            raise DataError(f"data folder '{root}' does not exist; give a folder of images and masks, or 'digits'")
        data = data_of_folder(root)
        taxonomy = taxonomy_of_folder(root, data.taxonomy, data.masks, data.mask_pattern)
        others = [split for split in data.evaluate_splits if split != data.train_split]
        held_out = "val" if "val" in others or not others else others[0]
        train, val = (
            FolderDataset(root, split, taxonomy, seed=seed, **data.reading) for split in (data.train_split, held_out)
        )
    return cut_parts(train, val, size, fraction=fraction, seed=seed, as_dict=as_dict)


def cut_parts(
    train: SegmentationDataset,
    val: SegmentationDataset,
    size: tuple[int, int] | None = None,
    *,
    augment: Transform | None = None,
    fraction: float = 0.25,
    seed: int = 0,
    as_dict: bool = False,
) -> Parts:
    """Cuts any train split for the two phases (Sec. 3.1.1).

    Args:
        train: The whole train split, e.g. `CamVid(root, "train")`.
        val: Held out of both phases.
        size: (height, width) of all images; None = as they are.
        augment: For `reduced` and `train`, e.g. `TrainTransform`; None = resized alone.
        fraction: Share of the analysis part.
        seed: Of the cut.
        as_dict: See `TorchDataset`.

    Raises:
        DataError: fewer than two training images.
    """
    reduced, analysis = analysis_split(len(train), fraction, seed)
    return Parts(
        TorchDataset(Subset(train, reduced, "reduced"), size, transform=augment, as_dict=as_dict),
        TorchDataset(Subset(train, analysis, "analysis"), size, as_dict=as_dict),
        TorchDataset(train, size, transform=augment, as_dict=as_dict),
        TorchDataset(val, size, as_dict=as_dict),
    )
