"""Predictions on disk, scored against the labels of any data set."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hs3seg.analysis import (
    confusion_matrix,
    frequency_weighted_iou,
    iou_per_class,
    mean_accuracy,
    mean_iou,
    pixel_accuracy,
)
from hs3seg.data.images import raw_mask
from hs3seg.data.parallel import in_order
from hs3seg.data.sample import SegmentationDataset
from hs3seg.errors import DataError

ENDINGS = (".png", "-index.png")
"""What follows a sample's name in the files that count, as `hs3 predict` writes them: palette or plain ids."""


def score_folder(
    folder: Path, dataset: SegmentationDataset, progress: Callable[[], None] | None = None, *, num_workers: int = 0
) -> dict[str, Any]:
    """Scores one prediction per sample: `NAME.png` or `NAME-index.png`, class ids (H, W) of the label's size.

    Args:
        folder: Of the predictions; the sample's name without folders counts.
        dataset: With labels.
        progress: Called after each sample.
        num_workers: Processes; 0 = this one.

    Returns:
        Fractions, None where there is no score: miou, pixel_accuracy, mean_accuracy, frequency_weighted_iou, iou by
        class; num_images.

    Raises:
        DataError: a sample without prediction, or a file that cannot be used.
    """
    paths = [_find(Path(folder), name) for name in dataset.names]
    k = dataset.taxonomy.num_classes
    confusion = np.zeros((k, k), np.int64)
    for counts in in_order(partial(_count, dataset, paths), len(dataset), num_workers):
        confusion += counts
        if progress:
            progress()
    iou = dict(zip(dataset.taxonomy.names, iou_per_class(confusion).tolist(), strict=True))
    scores = {
        "miou": mean_iou(confusion),
        "pixel_accuracy": pixel_accuracy(confusion),
        "mean_accuracy": mean_accuracy(confusion),
        "frequency_weighted_iou": frequency_weighted_iou(confusion),
    }
    return {
        **{name: _number(value) for name, value in scores.items()},
        "iou": {name: _number(value) for name, value in iou.items()},
        "num_images": len(dataset),
    }


def _find(folder: Path, name: str) -> Path:
    if not folder.is_dir():
        raise DataError(f"predictions '{folder}' are no folder; give the one that holds NAME.png files")
    stem = Path(name).name
    found = [folder / f"{stem}{ending}" for ending in ENDINGS if (folder / f"{stem}{ending}").is_file()]
    if not found:
        count = len(list(folder.glob("*.png")))
        raise DataError(
            f"sample '{name}' has no prediction in '{folder}' ({count} PNG files there); it is"
            f" {' or '.join(stem + ending for ending in ENDINGS)}, as `hs3 predict` writes it"
        )
    return found[0]


def _count(dataset: SegmentationDataset, paths: list[Path], index: int) -> NDArray[np.int64]:
    truth = dataset.read(index).mask.numpy()
    values = raw_mask(paths[index])
    k = dataset.taxonomy.num_classes
    if values.ndim != 2:
        raise DataError(
            f"{paths[index]}: has {values.shape[2]} channels; a prediction has one, of class ids, not colours"
        )
    if values.shape != truth.shape:
        raise DataError(
            f"{paths[index]}: is {values.shape[1]}x{values.shape[0]} pixels, its label {truth.shape[1]}x"
            f"{truth.shape[0]}; enlarge the logits to the label's size before the classes are chosen"
        )
    wrong = (values < 0) | (values >= k)
    if wrong.any():
        y, x = (int(v) for v in np.argwhere(wrong)[0])
        raise DataError(
            f"{paths[index]}: value {values[y, x]} at x={x}, y={y} ({int(wrong.sum())} such pixels); allowed: class ids"
            f" 0..{k - 1}"
        )
    return confusion_matrix(truth, values.astype(np.int64), k, dataset.taxonomy.ignore_index)


def _number(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
