"""Arms against a reference, paired by seed: how large is the difference, and how sure is it.

Equal seeds share initial weights, data order and augmentation, so differences are taken seed by seed.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hs3seg.errors import PlanError

MIN_FOR_BOOTSTRAP = 8
"""Pairs below which resampling them cannot give a 95 % interval: of n pairs, [smallest, largest] covers the mean of a
symmetric law with probability 1 - 2 * 0.5**n at most, 75 % for three."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """An arm against the reference.

    Args:
        arm: Name.
        seeds: Those that both have.
        values: Scores of the arm by those seeds.
        differences: Arm minus reference by those seeds.
        interval: Of the mean difference, at `confidence`; None with fewer than two pairs.
        method: What the interval is: `t` (Student, below 8 pairs) or `bootstrap` (percentiles of resampled pairs,
            widened for small samples after Hesterberg, 2015).
        sign_p: Two-sided p of the sign test, without ties; 1 where all are ties.
        confidence: Of the interval, 0..1.
    """

    arm: str
    seeds: tuple[int, ...]
    values: tuple[float, ...]
    differences: tuple[float, ...]
    interval: tuple[float, float] | None
    method: str
    sign_p: float
    confidence: float

    @property
    def mean(self) -> float:
        """Of the arm."""
        return float(np.mean(self.values))

    @property
    def spread(self) -> float:
        """Standard deviation of the arm over seeds (n - 1); nan with one."""
        return float(np.std(self.values, ddof=1)) if len(self.values) > 1 else math.nan

    @property
    def difference(self) -> float:
        """Mean of the differences."""
        return float(np.mean(self.differences))

    @property
    def is_significant(self) -> bool:
        """Whether the interval leaves out zero."""
        return self.interval is not None and not self.interval[0] <= 0 <= self.interval[1]


def compare_arms(
    scores: Mapping[str, Mapping[int, float]],
    reference: str = "deep_supervision",
    *,
    confidence: float = 0.95,
    resamples: int = 10_000,
    seed: int = 0,
) -> dict[str, Comparison]:
    """Every arm against the reference, on the seeds that both have.

    Args:
        scores: Arm -> seed -> score, e.g. mIoU as a fraction.
        reference: The arm that the others are compared with.
        confidence: Of the intervals. They are of one comparison each, not corrected for several.
        resamples: Of the bootstrap.
        seed: Of the bootstrap.

    Returns:
        Arm -> comparison, the reference among them (its differences are 0); an arm without a common seed is left out.

    Raises:
        PlanError: the reference has no score, or a confidence outside 0..1.
    """
    if not scores.get(reference):
        raise PlanError(f"no score of the reference arm '{reference}'; there are: {', '.join(scores) or 'none'}")
    if not 0 < confidence < 1:
        raise PlanError(f"confidence = {confidence}; give a share between 0 and 1, e.g. 0.95")
    base = scores[reference]
    found: dict[str, Comparison] = {}
    for arm, values in scores.items():
        seeds = tuple(sorted(set(values) & set(base)))
        if not seeds:
            continue
        own = tuple(float(values[s]) for s in seeds)
        differences = tuple(float(values[s]) - float(base[s]) for s in seeds)
        interval, method = _interval(np.array(differences), confidence, resamples, seed)
        if arm == reference:
            interval = None
        found[arm] = Comparison(arm, seeds, own, differences, interval, method, sign_test(differences), confidence)
    return found


def sign_test(differences: tuple[float, ...]) -> float:
    """Two-sided p of as many or more differences of one sign; ties are left out."""
    from scipy.stats import binomtest

    signs = [d > 0 for d in differences if d != 0]
    return float(binomtest(sum(signs), len(signs)).pvalue) if signs else 1.0


def _interval(
    differences: NDArray[np.float64], confidence: float, resamples: int, seed: int
) -> tuple[tuple[float, float] | None, str]:
    from scipy.stats import norm, t

    n = len(differences)
    if n < 2:
        return None, "t"
    quantile = float(t.ppf(0.5 + confidence / 2, n - 1))
    if n < MIN_FOR_BOOTSTRAP:
        half = quantile * float(differences.std(ddof=1)) / math.sqrt(n)
        return (float(differences.mean()) - half, float(differences.mean()) + half), "t"
    means = np.random.default_rng(seed).choice(differences, (resamples, n)).mean(axis=1)
    # The bootstrap's spread is sqrt((n - 1) / n) too small, and its tails are the normal law's, not Student's.
    tail = float(norm.cdf(-quantile * math.sqrt(n / (n - 1))))
    low, high = np.quantile(means, [tail, 1 - tail])
    return (float(low), float(high)), "bootstrap"
