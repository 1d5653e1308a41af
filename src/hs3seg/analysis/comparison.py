"""Arms against a reference, paired by seed: how large is the difference, and how sure is it.

Equal seeds share initial weights, data order and augmentation, so differences are taken seed by seed.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

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
        p: Two-sided, of no difference: the interval at confidence 1 - p ends at zero. None with fewer than two pairs.
        adjusted_p: `p` after Holm (1979), for all arms of the comparison together.
    """

    arm: str
    seeds: tuple[int, ...]
    values: tuple[float, ...]
    differences: tuple[float, ...]
    interval: tuple[float, float] | None
    method: str
    sign_p: float
    confidence: float
    p: float | None = None
    adjusted_p: float | None = None

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

    @property
    def holds_among_all(self) -> bool:
        """Whether it is significant still where all arms that were compared are allowed for."""
        return self.is_significant and self.adjusted_p is not None and self.adjusted_p <= 1 - self.confidence


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
        confidence: Of the intervals. They are of one comparison each; `adjusted_p` allows for all of them.
        resamples: Of the bootstrap.
        seed: Of the bootstrap.

    Returns:
        Arm -> comparison, the reference among them (its differences are 0); an arm without a common seed is left out.

    Raises:
        PlanError: the reference has no score, a score is not finite, or a confidence outside 0..1.
    """
    if not scores.get(reference):
        raise PlanError(f"no score of the reference arm '{reference}'; there are: {', '.join(scores) or 'none'}")
    if not 0 < confidence < 1:
        raise PlanError(f"confidence = {confidence}; give a share between 0 and 1, e.g. 0.95")
    for arm, values in scores.items():
        for number, value in values.items():
            if not math.isfinite(value):
                raise PlanError(f"the score of arm '{arm}', seed {number} is {value}; leave out what has no score")
    base = scores[reference]
    found: dict[str, Comparison] = {}
    for arm, values in scores.items():
        seeds = tuple(sorted(set(values) & set(base)))
        if not seeds:
            continue
        own = tuple(float(values[s]) for s in seeds)
        differences = tuple(float(values[s]) - float(base[s]) for s in seeds)
        interval, method, p = _interval(np.array(differences), confidence, resamples, seed)
        if arm == reference:
            interval, p = None, None
        found[arm] = Comparison(arm, seeds, own, differences, interval, method, sign_test(differences), confidence, p)
    told = {arm: c.p for arm, c in found.items() if c.p is not None}
    adjusted = dict(zip(told, holm(list(told.values())), strict=True))
    return {arm: replace(c, adjusted_p=adjusted.get(arm)) for arm, c in found.items()}


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjusted p of several tests: at most a share p of families without any difference has a smaller one (Holm, 1979).

    Args:
        p_values: One per test, 0..1.

    Returns:
        In the same order, 0..1, never below its own p.
    """
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    adjusted, largest = [0.0] * len(p_values), 0.0
    for rank, i in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[i]))
        adjusted[i] = largest
    return adjusted


def smallest_sign_p(pairs: int) -> float:
    """The smallest two-sided p that a sign test of so many pairs can give: 0.25 for three, below 0.05 from six on."""
    return min(1.0, 2 * 0.5**pairs)


def sign_test(differences: tuple[float, ...]) -> float:
    """Two-sided p of as many or more differences of one sign; ties are left out."""
    from scipy.stats import binomtest

    signs = [d > 0 for d in differences if d != 0]
    return float(binomtest(sum(signs), len(signs)).pvalue) if signs else 1.0


def _interval(
    differences: NDArray[np.float64], confidence: float, resamples: int, seed: int
) -> tuple[tuple[float, float] | None, str, float | None]:
    """Interval, its method, and the p at which it would end at zero."""
    from scipy.stats import norm, t

    n = len(differences)
    if n < 2:
        return None, "t", None
    mean, quantile = float(differences.mean()), float(t.ppf(0.5 + confidence / 2, n - 1))
    error = float(differences.std(ddof=1)) / math.sqrt(n)
    # Without any spread every difference is sure, but for no difference at all.
    student = 2 * float(t.sf(abs(mean) / error, n - 1)) if error else float(mean == 0)
    if n < MIN_FOR_BOOTSTRAP:
        return (mean - quantile * error, mean + quantile * error), "t", student
    means = np.random.default_rng(seed).choice(differences, (resamples, n)).mean(axis=1)
    # The bootstrap's spread is sqrt((n - 1) / n) too small, and its tails are the normal law's, not Student's.
    widening = math.sqrt(n / (n - 1))
    tail = float(norm.cdf(-quantile * widening))
    low, high = np.quantile(means, [tail, 1 - tail])
    beyond = min(float((means <= 0).mean()), float((means >= 0).mean()))
    # No resample beyond zero says no more than that it is rarer than one of them: further out Student's law must do,
    # or no difference of 8 pairs could hold among six arms.
    p = 2 * float(t.cdf(norm.ppf(max(beyond, 1 / resamples)) / widening, n - 1))
    return (float(low), float(high)), "bootstrap", min(1.0, p) if beyond else min(p, student)
