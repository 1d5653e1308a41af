"""Predictions on disk, scored against the labels of any data set."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path, PurePosixPath
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
from hs3seg.data.patterns import files_below
from hs3seg.data.sample import SegmentationDataset
from hs3seg.errors import DataError

ENDINGS = (".png", "-index.png")
"""What follows a sample's name in the files that count, as `hs3 predict` writes them: palette or plain ids."""


def score_folder(
    folder: Path, dataset: SegmentationDataset, progress: Callable[[], None] | None = None, *, num_workers: int = 0
) -> dict[str, Any]:
    """Scores one prediction per sample: `NAME.png` or `NAME-index.png`, class ids (H, W) of the label's size.

    Args:
        folder: Of the predictions, with as many folders of the sample's name as they have: of `images/a/0001`,
            images/a/0001.png counts, else a/0001.png, else 0001.png.
        dataset: With labels.
        progress: Called after each sample.
        num_workers: Processes; 0 = this one.

    Returns:
        Fractions, None where there is no score: miou, pixel_accuracy, mean_accuracy, frequency_weighted_iou, iou by
        class; num_images.

    Raises:
        DataError: a sample without prediction, two with the same one, or a file that cannot be used.
    """
    paths = _find_all(Path(folder), dataset.names)
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


def _find_all(folder: Path, names: Sequence[str]) -> list[Path]:
    if not folder.is_dir():
        raise DataError(f"predictions '{folder}' are no folder; give the one that holds NAME.png files")
    owners: dict[Path, str] = {}
    for name in names:
        path = _find(folder, name)
        if path in owners:
            raise DataError(
                f"samples '{owners[path]}' and '{name}' would both be scored by '{path}'; predict them into folders"
                f" that tell them apart, i.e. '{folder / name}{ENDINGS[0]}'"
            )
        owners[path] = name
    return list(owners)


def _find(folder: Path, name: str) -> Path:
    """`hs3 predict` keeps folders where stems are equal, but counts them from the folder that it was given."""
    parts = PurePosixPath(name).parts
    tails = ["/".join(parts[start:]) for start in range(len(parts))]
    for tail in tails:
        for ending in ENDINGS:
            if (path := folder / f"{tail}{ending}").is_file():
                return path
    count = sum(path.suffix == ".png" for path in files_below(folder))
    wanted = [tail + ending for tail in reversed(tails) for ending in ENDINGS]
    raise DataError(
        f"sample '{name}' has no prediction in '{folder}' ({count} PNG files there); it is"
        f" {' or '.join(wanted)}, as `hs3 predict` writes it"
    )


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
