"""Cityscapes' pixel-level scores: IoU and instance-weighted iIoU, per class and category, as the official script's.

Source: evalPixelLevelSemanticLabeling.py of github mcordts/cityscapesScripts, commit 0bcc4a7. Everything is in label
ids, 0..33. A class has a score when it is in the truth, or predicted where the truth counts. In iIoU each instance
counts as if it had the mean size of its class; false positives have no instance and count as they are.

Counts are integers, so that their sums are the same bit for bit in any order and on any number of processes.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hs3seg.errors import DataError
from hs3seg.taxonomies.cityscapes import CATEGORIES, LABELS, MEAN_INSTANCE_PIXELS, NUM_IDS

Counts = NDArray[np.int64]

_LABELS = LABELS[:NUM_IDS]
_COUNTED = np.array([not label.ignored for label in _LABELS])
_IN_IIOU = np.array([label.has_instances and not label.ignored for label in _LABELS])
_MEAN_PIXELS = np.array([MEAN_INSTANCE_PIXELS.get(label.name, 0.0) for label in _LABELS])
_CATEGORY = np.array([list(CATEGORIES).index(label.category) for label in _LABELS])
_NAMES = tuple(label.name for label in _LABELS)

_FIRST_INSTANCE = 1001  # smaller ids are regions without instances: groups, and classes that have none
_PER_LABEL = 1000  # instance id = 1000 * label id + number
_FRACTION = 2.0**42  # share of an instance that was found, as an integer: good to 1e-13
_MOST_INSTANCES = 2**21  # of one class; above, the sums of shares would not fit 64 bits

_SHAPES = {
    "confusion": (NUM_IDS, NUM_IDS),
    "instances": (NUM_IDS,),
    "found": (NUM_IDS,),
    "found_as_category": (NUM_IDS,),
}


@dataclass(frozen=True, slots=True)
class CityscapesResult:
    """Scores as fractions; nan where there is none.

    Args:
        iou: Label name -> IoU; nan for labels that the evaluation ignores and classes that are nowhere.
        iiou: Label name -> iIoU; nan also for classes without instances.
        category_iou: Category -> IoU of its counted labels as one.
        category_iiou: Category -> iIoU; human and vehicle have one.
        confusion: (34, 34) int64 pixels; rows truth, columns prediction.
    """

    iou: dict[str, float]
    iiou: dict[str, float]
    category_iou: dict[str, float]
    category_iiou: dict[str, float]
    confusion: Counts

    @property
    def miou(self) -> float:
        """Mean IoU of the classes that have one."""
        return _mean(self.iou)

    @property
    def miiou(self) -> float:
        """Mean iIoU of the classes that have one."""
        return _mean(self.iiou)

    @property
    def category_miou(self) -> float:
        """Mean IoU of the categories that have one."""
        return _mean(self.category_iou)

    @property
    def category_miiou(self) -> float:
        """Mean iIoU of the categories that have one."""
        return _mean(self.category_iiou)

    def to_dict(self) -> dict[str, Any]:
        """Scores of the 19 classes, the 8 with instances and the 7 categories; None where there is no score."""
        categories = {label.category for label in _LABELS if not label.ignored}
        with_iiou = {label.category for label, is_in in zip(_LABELS, _IN_IIOU, strict=True) if is_in}
        return {
            "miou": _or(self.miou, None),
            "iiou": _or(self.miiou, None),
            "iou": {n: _or(v, None) for (n, v), is_in in zip(self.iou.items(), _COUNTED, strict=True) if is_in},
            "iiou_per_class": {
                n: _or(v, None) for (n, v), is_in in zip(self.iiou.items(), _IN_IIOU, strict=True) if is_in
            },
            "category_miou": _or(self.category_miou, None),
            "category_iiou": _or(self.category_miiou, None),
            "category_iou": {n: _or(v, None) for n, v in self.category_iou.items() if n in categories},
            "category_iiou_per_category": {n: _or(v, None) for n, v in self.category_iiou.items() if n in with_iiou},
        }

    def to_official_dict(
        self, no_score: float | None = None, per_image: Mapping[str, Mapping[str, int]] | None = None
    ) -> dict[str, Any]:
        """The official script's result file, key by key.

        Args:
            no_score: What stands for a missing score. The official script writes NaN, which is no JSON: pass `math.nan`
                to have just that.
            per_image: Prediction file -> `official_pixel_counts`; the official script has them when told to.
        """
        total = int(self.confusion.sum())
        priors = self.confusion.sum(axis=1) / total if total else np.full(NUM_IDS, math.nan)
        scores = {
            "classScores": self.iou,
            "classInstScores": self.iiou,
            "categoryScores": self.category_iou,
            "categoryInstScores": self.category_iiou,
        }
        averages = {
            "averageScoreClasses": self.miou,
            "averageScoreInstClasses": self.miiou,
            "averageScoreCategories": self.category_miou,
            "averageScoreInstCategories": self.category_miiou,
        }
        official: dict[str, Any] = {
            "confMatrix": self.confusion.tolist(),
            "priors": {name: _or(float(prior), no_score) for name, prior in zip(_NAMES, priors, strict=True)},
            "labels": {label.name: label.id for label in _LABELS},
        }
        for key, values in scores.items():
            official[key] = {name: _or(value, no_score) for name, value in values.items()}
        official |= {key: _or(value, no_score) for key, value in averages.items()}
        if per_image:
            official["perImageScores"] = {name: dict(values) for name, values in per_image.items()}
        return official


class CityscapesScores:
    """Counts images one by one; counters of several processes are merged.

    Attributes:
        counts: What was counted, int64: `confusion` (34, 34) pixels, rows truth; per label id (34,): `instances`;
            `found`, the sum over instances of the share of their pixels that has their class, times 2^42;
            `found_as_category`, the same for their category.
    """

    def __init__(self) -> None:
        self.counts: dict[str, Counts] = {name: np.zeros(shape, np.int64) for name, shape in _SHAPES.items()}

    def add(self, truth_ids: ArrayLike, instance_ids: ArrayLike, predicted_ids: ArrayLike) -> None:
        """Counts one image.

        Args:
            truth_ids: (H, W) label ids, *_labelIds.png.
            instance_ids: (H, W) as in *_instanceIds.png: 1000 * label id + number; up to 1000 = no instance.
            predicted_ids: (H, W) label ids, 0..33.

        Raises:
            DataError: shapes differ, or an id that is none.
        """
        truth = _checked(truth_ids, "the truth", NUM_IDS)
        predicted = _checked(predicted_ids, "the prediction", NUM_IDS)
        instances = _checked(instance_ids, "the instance map", NUM_IDS * _PER_LABEL)
        for name, ids in (("prediction", predicted), ("instance map", instances)):
            if ids.shape != truth.shape:
                raise DataError(f"the {name} has shape {ids.shape}, the truth {truth.shape}; they must be equal")
        truth, predicted, instances = truth.ravel(), predicted.ravel(), instances.ravel()
        inside = np.flatnonzero(instances >= _FIRST_INSTANCE)
        inside = inside[_counted_instances(instances[inside] // _PER_LABEL)]
        counts = _count_instances(instances[inside], predicted[inside])
        counts["confusion"] = np.bincount(truth * NUM_IDS + predicted, minlength=NUM_IDS**2).reshape(NUM_IDS, NUM_IDS)
        self.merge(counts)

    def merge(self, counts: Mapping[str, NDArray[Any]]) -> None:
        """Adds what another process counted, its `counts`.

        Raises:
            DataError: other names, shapes or types.
        """
        arrays = {name: np.asarray(counts.get(name)) for name in _SHAPES}
        for name, array in arrays.items():
            if array.shape != _SHAPES[name] or array.dtype.kind not in "iu":
                raise DataError(
                    f"counts to merge: '{name}' has shape {array.shape}, type {array.dtype}; must be {_SHAPES[name]},"
                    " integers"
                )
        for name, array in arrays.items():
            self.counts[name] += array.astype(np.int64)

    def result(self) -> CityscapesResult:
        """Scores of everything counted so far.

        Raises:
            DataError: more than 2 million instances of one class.
        """
        instances = self.counts["instances"]
        if (instances >= _MOST_INSTANCES).any():
            name = _NAMES[int(instances.argmax())]
            raise DataError(
                f"class '{name}' has {instances.max()} instances; sums are exact below {_MOST_INSTANCES}, so evaluate"
                " parts"
            )
        confusion = self.counts["confusion"]
        # Pixels of each class as if every instance had the mean size: all of them, and those that were found.
        weighted = _MEAN_PIXELS * instances
        found = _MEAN_PIXELS * (self.counts["found"] / _FRACTION)
        found_as_category = _MEAN_PIXELS * (self.counts["found_as_category"] / _FRACTION)
        iou, iiou = dict.fromkeys(_NAMES, math.nan), dict.fromkeys(_NAMES, math.nan)
        for label in _LABELS:
            if label.ignored:
                continue
            own = np.arange(NUM_IDS) == label.id
            false = _false_positives(confusion, own, own)
            iou[label.name] = _ratio(confusion[label.id, label.id], confusion[label.id].sum() + false)
            if label.has_instances:
                iiou[label.name] = _ratio(found[label.id], weighted[label.id] + false)
        category_iou, category_iiou = dict.fromkeys(CATEGORIES, math.nan), dict.fromkeys(CATEGORIES, math.nan)
        for number, category in enumerate(CATEGORIES):
            members = np.equal(_CATEGORY, number)
            own = members & _COUNTED
            if not own.any():
                continue
            false = _false_positives(confusion, members, own)
            category_iou[category] = _ratio(confusion[np.ix_(own, own)].sum(), confusion[own].sum() + false)
            if _IN_IIOU[own].all():
                # Here the official script takes ignored members as predictions of the category too: caravan, trailer.
                false = _false_positives(confusion, members, members)
                category_iiou[category] = _ratio(found_as_category[own].sum(), weighted[own].sum() + false)
        return CityscapesResult(iou, iiou, category_iou, category_iiou, confusion.copy())


def official_pixel_counts(truth_ids: ArrayLike, predicted_ids: ArrayLike) -> dict[str, int]:
    """Entry of one image in the official file's `perImageScores`, off by default there.

    The names say something else than the official script counts: `nbNotIgnoredPixels` are the pixels of ignored labels,
    `nbCorrectPixels` those of them where prediction and truth differ.
    """
    truth = _checked(truth_ids, "the truth", NUM_IDS)
    predicted = _checked(predicted_ids, "the prediction", NUM_IDS)
    ignored = ~_COUNTED[truth]
    return {
        "nbNotIgnoredPixels": int(ignored.sum()),
        "nbCorrectPixels": int((ignored & (truth != predicted)).sum()),
    }


def _false_positives(confusion: Counts, own_rows: NDArray[np.bool_], columns: NDArray[np.bool_]) -> int:
    """Pixels predicted as one of the columns, where the truth counts and is none of one's own rows."""
    return int(confusion[np.ix_(_COUNTED & ~own_rows, columns)].sum())


def _count_instances(instances: NDArray[np.int64], predicted: NDArray[np.int64]) -> dict[str, Counts]:
    """`CityscapesScores.counts` of the pixels (N,) of an image that lie in instances that count."""
    sizes = np.bincount(instances)
    ids = np.flatnonzero(sizes)
    labels, classes = instances // _PER_LABEL, ids // _PER_LABEL
    counts = {"instances": np.bincount(classes, minlength=NUM_IDS)}
    hits = {"found": predicted == labels, "found_as_category": _CATEGORY[predicted] == _CATEGORY[labels]}
    for name, hit in hits.items():
        pixels = np.bincount(instances[hit], minlength=len(sizes))[ids]
        counts[name] = np.zeros(NUM_IDS, np.int64)
        np.add.at(counts[name], classes, np.rint(pixels / sizes[ids] * _FRACTION).astype(np.int64))
    return counts


def _counted_instances(labels: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Which pixels of instances count: those of the 8 classes, not those of ignored labels."""
    present = np.flatnonzero(np.bincount(labels, minlength=NUM_IDS))
    wrong = [int(i) for i in present if _COUNTED[i] and not _IN_IIOU[i]]
    if wrong:
        raise DataError(
            f"the instance map has instances of '{_NAMES[wrong[0]]}' (ids {wrong[0]}000 and above), which has none;"
            " instance id = 1000 * label id + number, and the label id itself where there is no instance"
        )
    return np.asarray(_IN_IIOU[labels])


def _checked(ids: ArrayLike, name: str, limit: int) -> NDArray[np.int64]:
    values = np.asarray(ids)
    if values.ndim != 2 or values.dtype.kind not in "iu":
        raise DataError(f"{name} has shape {values.shape} and type {values.dtype}; must be (height, width) integers")
    wrong = (values < 0) | (values >= limit)
    if wrong.any():
        y, x = (int(v) for v in np.argwhere(wrong)[0])
        raise DataError(
            f"{name} has id {values[y, x]} at x={x}, y={y} ({int(wrong.sum())} such pixels); allowed: 0..{limit - 1}"
        )
    return values.astype(np.int64)


def _ratio(part: float, whole: float) -> float:
    return float(part) / float(whole) if whole else math.nan


def _mean(scores: Mapping[str, float]) -> float:
    values = [value for value in scores.values() if not math.isnan(value)]
    return sum(values) / len(values) if values else math.nan


def _or(score: float, no_score: float | None) -> float | None:
    return no_score if math.isnan(score) else score
