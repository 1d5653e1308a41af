"""What a number of seeds can find: the power of the paired t-test.

Fractions of mIoU throughout. A comparison that found nothing says little where it could have found nothing.
"""

import math
from collections.abc import Iterable, Sequence

import numpy as np

from hs3seg.errors import PlanError

USUAL_POWER = 0.8
"""Chance of finding a real difference that is commonly asked for (Cohen, 1988)."""
_MOST_PAIRS = 1 << 20


def pooled_spread(differences: Iterable[Sequence[float]]) -> float:
    """Standard deviation of differences over seeds (n - 1), pooled over arms that differ by their mean only.

    Args:
        differences: Of each arm to the reference, by seed; arms with fewer than two say nothing.

    Returns:
        nan where no arm has two.
    """
    squares, freedom = 0.0, 0
    for own in differences:
        if len(own) > 1:
            squares += float(np.var(own, ddof=1)) * (len(own) - 1)
            freedom += len(own) - 1
    return math.sqrt(squares / freedom) if freedom else math.nan


def power(difference: float, spread: float, pairs: int, confidence: float = 0.95) -> float:
    """Chance that the interval of so many pairs leaves out zero, where the mean difference really is `difference`.

    Args:
        difference: Real mean of the differences.
        spread: Their standard deviation, above 0.
        pairs: Seeds, at least 2.
        confidence: Of the two-sided interval (Student).

    Raises:
        PlanError: a spread or a number of pairs below that.
    """
    from scipy.stats import nct, t

    if pairs < 2 or not spread > 0:
        raise PlanError(f"pairs = {pairs}, spread = {spread}; the power needs two pairs at least and a spread above 0")
    quantile = float(t.ppf(0.5 + confidence / 2, pairs - 1))
    shift = abs(difference) / spread * math.sqrt(pairs)
    # The second is the tail of the wrong sign; as cdf(-quantile, ..., shift) scipy gives nan for some shifts.
    return float(nct.sf(quantile, pairs - 1, shift) + nct.sf(quantile, pairs - 1, -shift))


def detectable_difference(spread: float, pairs: int, confidence: float = 0.95, chance: float = USUAL_POWER) -> float:
    """The real mean difference that so many pairs find with this chance.

    Args:
        spread: Standard deviation of the differences over seeds, above 0.
        pairs: Seeds, at least 2.
        confidence: Of the two-sided interval.
        chance: Power, above 1 - confidence and below 1.

    Raises:
        PlanError: as `power`, or a chance outside that range.
    """
    from scipy.optimize import brentq

    if not 1 - confidence < chance < 1:
        raise PlanError(f"chance = {chance}; give a share above {1 - confidence:.3g} and below 1, e.g. {USUAL_POWER}")
    most = spread
    while power(most, spread, pairs, confidence) < chance:
        most *= 2
    return float(brentq(lambda d: power(d, spread, pairs, confidence) - chance, 0.0, most))


def pairs_needed(difference: float, spread: float, confidence: float = 0.95, chance: float = USUAL_POWER) -> int | None:
    """The fewest seeds that find this difference with this chance; None where a million do not.

    Raises:
        PlanError: as `power`.
    """

    def enough(pairs: int) -> bool:
        return power(difference, spread, pairs, confidence) >= chance

    if enough(2):
        return 2
    low = 2
    while not enough(2 * low):
        low *= 2
        if low >= _MOST_PAIRS:
            return None
    high = 2 * low
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high
