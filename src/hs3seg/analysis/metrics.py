"""Scores from a confusion matrix, beyond those in `confusion`: rows truth, columns prediction, (K, K) pixel counts."""

import numpy as np
from numpy.typing import ArrayLike

from hs3seg.analysis.confusion import iou_per_class, mean_iou
from hs3seg.taxonomy import Grouping


def mean_accuracy(confusion: ArrayLike) -> float:
    """Class mean of the share of a class's pixels that are right, absent classes left out; nan without pixels."""
    counts = np.asarray(confusion, dtype=np.float64)
    truth = counts.sum(axis=1)
    present = truth > 0
    return float((np.diagonal(counts)[present] / truth[present]).mean()) if present.any() else float("nan")


def frequency_weighted_iou(confusion: ArrayLike) -> float:
    """Mean of IoU weighted by the classes' share of truth pixels; nan without pixels."""
    truth = np.asarray(confusion, dtype=np.float64).sum(axis=1)
    present = truth > 0
    return (
        float(np.average(iou_per_class(confusion)[present], weights=truth[present])) if present.any() else float("nan")
    )


def level_miou(confusion: ArrayLike, grouping: Grouping) -> float:
    """Mean IoU of predictions and truth merged to groups: how good the result is for who needs only these."""
    return mean_iou(grouping.merge(np.asarray(confusion)))


def share_of_errors_inside(confusion: ArrayLike, grouping: Grouping) -> float:
    """Share of the wrong pixels that confuse two classes of one group, 0..1; nan where nothing is wrong.

    It says how much of what is left wrong a stage with these groups was never asked to tell apart.
    """
    counts = np.asarray(confusion, dtype=np.float64)
    merged = grouping.merge(counts)
    wrong = counts.sum() - np.trace(counts)
    between = merged.sum() - np.trace(merged)
    return float((wrong - between) / wrong) if wrong > 0 else float("nan")
