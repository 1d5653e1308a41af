"""Oracle: simulated comparisons, and figures of Cohen's and other tables."""

import math

import numpy as np
import pytest

from hs3seg.analysis import detectable_difference, pairs_needed, pooled_spread, power
from hs3seg.analysis.comparison import compare_arms
from hs3seg.errors import PlanError


@pytest.mark.parametrize(("effect", "pairs"), [(0.2, 199), (0.5, 34), (0.8, 15), (1.0, 10)])
def test_pairs_are_those_of_the_tables_of_the_paired_t_test(effect: float, pairs: int) -> None:
    # Power 0.80, two-sided 0.05: G*Power's and pwr.t.test's figures for d of 0.2, 0.5, 0.8 and 1.
    assert pairs_needed(effect * 0.01, 0.01) == pairs


@pytest.mark.parametrize("pairs", [3, 6])
@pytest.mark.parametrize("difference", [0.005, 0.02])
def test_power_is_the_share_of_simulated_comparisons_that_find_it(pairs: int, difference: float) -> None:
    rng, trials = np.random.default_rng(1), 1500
    found = 0
    for _ in range(trials):
        gains = rng.normal(difference, 0.01, pairs)
        found += compare_arms({"a": dict.fromkeys(range(pairs), 0.0), "b": dict(enumerate(gains))}, "a")[
            "b"
        ].is_significant
    expected = power(difference, 0.01, pairs)
    assert abs(found / trials - expected) < 4 * math.sqrt(expected * (1 - expected) / trials)


@pytest.mark.parametrize("pairs", [2, 3, 8, 50])
def test_what_can_be_found_has_the_chance_that_was_asked_for(pairs: int) -> None:
    found = detectable_difference(0.012, pairs, chance=0.8)
    assert power(found, 0.012, pairs) == pytest.approx(0.8)
    needed = pairs_needed(found * 1.001, 0.012)
    assert needed is not None
    assert needed <= pairs


def test_more_seeds_find_smaller_differences() -> None:
    found = [detectable_difference(0.01, pairs) for pairs in (2, 3, 5, 10, 40)]
    assert found == sorted(found, reverse=True)
    assert found[-1] == pytest.approx(2.8 * 0.01 / math.sqrt(40), rel=0.05)  # of the normal law


def test_the_spread_is_pooled_over_arms_of_different_means() -> None:
    first, second = [0.01, 0.03], [0.5, 0.52, 0.54]
    assert pooled_spread([first, second, [0.7]]) == pytest.approx(
        math.sqrt((np.var(first, ddof=1) + 2 * np.var(second, ddof=1)) / 3)
    )
    assert math.isnan(pooled_spread([[0.1], []]))


def test_wrong_questions_are_refused() -> None:
    with pytest.raises(PlanError, match="two pairs at least"):
        power(0.01, 0.01, 1)
    with pytest.raises(PlanError, match="spread above 0"):
        pairs_needed(0.01, 0.0)
    with pytest.raises(PlanError, match="chance = 1"):
        detectable_difference(0.01, 3, chance=1.0)
    assert pairs_needed(0.0, 0.01) is None
