"""IoU and iIoU of Cityscapes predictions on disk, as the official script computes them.

Source: evalPixelLevelSemanticLabeling.py of github mcordts/cityscapesScripts, commit 0bcc4a7.
"""

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from hs3seg.analysis.instances import CityscapesResult, CityscapesScores, Counts, official_pixel_counts
from hs3seg.data.cityscapes import Cityscapes
from hs3seg.data.cityscapes_predictions import Ids, find_predictions, look_like_train_ids, read_prediction
from hs3seg.data.parallel import in_order
from hs3seg.errors import DataError, Hs3Warning
from hs3seg.taxonomies.cityscapes import ID_OF_TRAIN_ID


@dataclass(frozen=True)
class PredictionScores:
    """What predictions on disk are worth.

    Args:
        result: Scores of all frames together.
        per_image: Prediction file -> `official_pixel_counts`; empty unless asked for.
    """

    result: CityscapesResult
    per_image: Mapping[str, Mapping[str, int]] = field(default_factory=dict)


def evaluate_predictions(
    folder: Path,
    dataset: Cityscapes,
    *,
    ids: Ids = "label",
    per_image: bool = False,
    num_workers: int = 0,
    progress: Callable[[], None] | None = None,
) -> PredictionScores:
    """Scores one prediction per frame.

    Args:
        folder: Where they are, at any depth: `city_sequence_frame*.png`, of the frame's size.
        dataset: With fine labels and *_instanceIds.png; not test.
        ids: What the predictions hold: label = label ids, as the official script wants; train = train ids, of which
            255 counts as wrong wherever the truth has a class.
        per_image: Whether to count pixels of each image, too, for the official JSON.
        num_workers: Processes; 0 = this one.
        progress: Called after each frame.

    Raises:
        DataError: a frame without prediction or with several, a file that cannot be used, or no labels.
    """
    folder = Path(folder)
    if len(dataset) == 0 or dataset.split == "test":
        raise DataError(
            f"split '{dataset.split}' has no public labels to score against; write a submission for the test server"
        )
    paths = find_predictions(folder, dataset.names)
    scores = CityscapesScores()
    pixels: dict[str, Mapping[str, int]] = {}
    count = partial(_count, dataset, paths, ids, per_image)
    for path, (counts, of_image) in zip(paths, in_order(count, len(dataset), num_workers), strict=True):
        scores.merge(counts)
        if per_image:
            pixels[str(path)] = of_image
        if progress:
            progress()
    if look_like_train_ids(scores.counts["confusion"].sum(axis=0) > 0):
        warnings.warn(
            f"predictions in '{folder}' hold ids 0..18 alone: they look like train ids, but count as label ids; if they"
            " are train ids, say so: ids = 'train'",
            Hs3Warning,
            stacklevel=2,
        )
    return PredictionScores(scores.result(), pixels)


def score_predictions(
    folder: Path,
    dataset: Cityscapes,
    progress: Callable[[], None] | None = None,
    *,
    ids: Ids = "label",
    num_workers: int = 0,
) -> dict[str, Any]:
    """Scores as plain values for JSON, see `evaluate_predictions`.

    Returns:
        Fractions, None where there is no score: miou, iiou (their means); iou, of 19 class names; iiou_per_class, of
        the 8 with instances; category_miou, category_iiou, category_iou, category_iiou_per_category.

    Raises:
        DataError: as in `evaluate_predictions`.
    """
    return evaluate_predictions(folder, dataset, ids=ids, num_workers=num_workers, progress=progress).result.to_dict()


class InstanceCounter:
    """Counts iIoU and categories while a network is evaluated, see `hs3seg.engine.Counter`.

    Args:
        dataset: With fine labels and *_instanceIds.png.
    """

    def __init__(self, dataset: Cityscapes) -> None:
        self._dataset, self._scores = dataset, CityscapesScores()

    @property
    def counts(self) -> dict[str, Counts]:
        """Of `CityscapesScores`."""
        return self._scores.counts

    @counts.setter
    def counts(self, counts: dict[str, Counts]) -> None:
        self._scores.counts = counts

    def add(self, index: int, truth: Counts, prediction: Counts) -> None:  # noqa: ARG002 - label ids tell more
        """Adds one frame: its position and predicted train ids (H, W) of the label's size."""
        self._scores.add(
            self._dataset.read_label_ids(index), self._dataset.read_instances(index), ID_OF_TRAIN_ID[prediction]
        )

    def scores(self) -> dict[str, Any]:
        """IIoU of the 8 classes with instances, and the categories' scores."""
        values = self._scores.result().to_dict()
        return {name: value for name, value in values.items() if name not in ("miou", "iou")}


def instance_counter(dataset: Cityscapes) -> InstanceCounter | None:
    """A counter for a split whose frames have instance files; None for others."""
    try:
        dataset.read_instances(0)
    except DataError:
        return None
    return InstanceCounter(dataset)


def official_json(scores: PredictionScores, no_score: float | None = None) -> dict[str, Any]:
    """The official result file, resultPixelLevelSemanticLabeling.json, key by key.

    Args:
        scores: With `per_image`, the file has `perImageScores`, too, as the official script when told to.
        no_score: What stands for a missing score: None makes valid JSON; `math.nan` is what the official script writes.
    """
    return scores.result.to_official_dict(no_score, scores.per_image)


def _count(
    dataset: Cityscapes, paths: list[Path], ids: Ids, per_image: bool, index: int
) -> tuple[dict[str, Counts], dict[str, int]]:
    """Counts of one frame."""
    truth = dataset.read_label_ids(index).numpy()
    instances = dataset.read_instances(index).numpy()
    height, width = truth.shape
    predicted = read_prediction(paths[index], (height, width), ids).astype(np.int64)
    scores = CityscapesScores()
    try:
        scores.add(truth, instances, predicted)
    except DataError as error:
        raise DataError(f"frame '{dataset.names[index]}': {error}") from None
    return scores.counts, official_pixel_counts(truth, predicted) if per_image else {}
