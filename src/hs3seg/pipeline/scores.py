"""Evaluations of several arms and seeds, as one comparison."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from hs3seg.analysis import compare_arms
from hs3seg.report.comparison_words import SplitComparison

REFERENCES = ("deep_supervision", "none")
"""Arms that the others are compared with, the first that is there."""

Evaluations = Mapping[str, Mapping[int, Mapping[str, Any]]]
"""Arm -> seed -> content of an evaluation's file."""


def compare_evaluations(evaluations: Evaluations, split: str, against: str = "") -> SplitComparison | None:
    """Scores all arms on a split against one of them, paired by seed, also class by class.

    Args:
        evaluations: On that split; those without an mIoU do not count.
        split: Its name.
        against: Arm that the others are compared with; where it is not there, the first of `REFERENCES`, or of all.

    Returns:
        None without any score.
    """
    known = {
        arm: {seed: found for seed, found in own.items() if found["miou"] is not None}
        for arm, own in evaluations.items()
    }
    known = {arm: own for arm, own in known.items() if own}
    reference = next((arm for arm in (against, *REFERENCES, *known) if arm in known), None)
    if reference is None:
        return None
    comparisons = compare_arms(
        {arm: {seed: found["miou"] for seed, found in own.items()} for arm, own in known.items()}, reference
    )
    per_class = {arm: {seed: _class_iou(found) for seed, found in own.items()} for arm, own in known.items()}
    base = per_class[reference]
    names = list(next(iter(base.values())))
    there = {name: [v for iou in base.values() if not np.isnan(v := iou[name])] for name in names}
    return SplitComparison(
        split,
        reference,
        comparisons,
        {
            arm: {name: [per_class[arm][s][name] - base[s][name] for s in c.seeds] for name in names}
            for arm, c in comparisons.items()
            if arm != reference
        },
        reference_iou={name: float(np.mean(values)) if values else np.nan for name, values in there.items()},
        without_pair={arm: sorted(own) for arm, own in known.items() if arm not in comparisons},
    )


def _class_iou(evaluation: Mapping[str, Any]) -> dict[str, float]:
    """Class -> IoU, nan where no such pixel is."""
    return {name: np.nan if value is None else float(value) for name, value in evaluation["iou"].items()}
