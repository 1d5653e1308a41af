import math

import numpy as np
import pytest
from scipy.stats import ttest_rel

from hs3seg.analysis.comparison import compare_arms, holm, sign_test, smallest_sign_p
from hs3seg.errors import PlanError

SCORES = {
    "deep_supervision": {0: 0.50, 1: 0.52, 2: 0.48, 3: 0.51},
    "hs3": {0: 0.53, 1: 0.53, 2: 0.50, 4: 0.60},
    "online": {7: 0.4},
}


def test_arms_are_paired_by_the_seeds_that_both_have() -> None:
    found = compare_arms(SCORES)
    assert set(found) == {"deep_supervision", "hs3"}
    hs3 = found["hs3"]
    assert hs3.seeds == (0, 1, 2)
    assert hs3.differences == pytest.approx((0.03, 0.01, 0.02))
    assert hs3.difference == pytest.approx(0.02)
    assert hs3.mean == pytest.approx(0.52)
    assert hs3.spread == pytest.approx(np.std([0.53, 0.53, 0.50], ddof=1))
    assert hs3.sign_p == pytest.approx(0.25)
    assert found["deep_supervision"].interval is None


def test_few_pairs_get_students_interval() -> None:
    hs3 = compare_arms(SCORES)["hs3"]
    oracle = ttest_rel([0.53, 0.53, 0.50], [0.50, 0.52, 0.48]).confidence_interval(0.95)
    assert hs3.method == "t"
    assert hs3.interval == pytest.approx((oracle.low, oracle.high))
    assert hs3.p == pytest.approx(ttest_rel([0.53, 0.53, 0.50], [0.50, 0.52, 0.48]).pvalue)
    assert hs3.adjusted_p == hs3.p  # alone


def test_one_pair_has_no_interval() -> None:
    found = compare_arms({"a": {0: 0.5}, "b": {0: 0.6}}, "a")["b"]
    assert found.interval is None
    assert not found.is_significant
    assert math.isnan(found.spread)


def test_the_sign_test_leaves_ties_out() -> None:
    assert sign_test((0.1, 0.2, 0.0, 0.3)) == pytest.approx(0.25)
    assert sign_test((0.0, 0.0)) == 1
    assert sign_test((1.0,) * 6) == pytest.approx(2 / 64)


@pytest.mark.parametrize("pairs", [3, 5, 8, 12])
def test_identical_arms_differ_significantly_in_about_one_of_twenty(pairs: int) -> None:
    rng = np.random.default_rng(pairs)
    trials = 800
    wrong = 0
    for _ in range(trials):
        both = rng.normal(0.5, 0.01, pairs)  # what a seed does to both arms
        scores = {arm: dict(enumerate(both + rng.normal(0, 0.008, pairs))) for arm in ("deep_supervision", "hs3")}
        wrong += compare_arms(scores, resamples=2000)["hs3"].is_significant
    # Four standard deviations of the count around 5 %; the bootstrap is a little off at eight pairs.
    assert abs(wrong / trials - 0.05) < 4 * math.sqrt(0.05 * 0.95 / trials)


@pytest.mark.parametrize("pairs", [3, 10])
def test_a_real_difference_is_found(pairs: int) -> None:
    rng = np.random.default_rng(0)
    both = rng.normal(0.5, 0.01, pairs)
    scores = {
        "deep_supervision": dict(enumerate(both)),
        "hs3": dict(enumerate(both + 0.02 + rng.normal(0, 1e-3, pairs))),
    }
    found = compare_arms(scores)["hs3"]
    assert found.is_significant
    assert found.interval is not None
    assert found.interval[0] < 0.02 < found.interval[1] + 1e-3
    assert found.method == ("t" if pairs == 3 else "bootstrap")


def test_wrong_questions_are_refused() -> None:
    with pytest.raises(PlanError, match="no score of the reference arm 'none'"):
        compare_arms(SCORES, "none")
    with pytest.raises(PlanError, match="confidence"):
        compare_arms(SCORES, confidence=95)


def test_holm_multiplies_the_smallest_by_all_and_never_falls() -> None:
    assert holm([0.04, 0.01, 0.03, 0.9]) == pytest.approx([0.09, 0.04, 0.09, 0.9])
    assert holm([0.6, 0.5]) == [1.0, 1.0]
    assert holm([]) == []


@pytest.mark.parametrize("pairs", [4, 8, 9])
@pytest.mark.parametrize("confidence", [0.8, 0.9, 0.95, 0.99])
def test_the_interval_leaves_out_zero_where_p_is_small(pairs: int, confidence: float) -> None:
    rng = np.random.default_rng(pairs)
    told = []
    for shift in np.tile(np.linspace(0, 0.06, 13), 8):
        scores = {"none": dict.fromkeys(range(pairs), 0.5)}
        scores["hs3"] = dict(enumerate(0.5 + shift + rng.normal(0, 0.008, pairs)))
        found = compare_arms(scores, "none", confidence=confidence)["hs3"]
        assert found.p is not None
        if abs(found.p / (1 - confidence) - 1) > 0.15:  # resampled tails are counted, not exact
            assert found.is_significant == (found.p < 1 - confidence)
            told.append(found.is_significant)
    assert set(told) == {False, True}


@pytest.mark.parametrize("pairs", [7, 8, 12])
def test_a_large_difference_holds_among_twenty_arms_whatever_the_method(pairs: int) -> None:
    rng = np.random.default_rng(0)
    scores = {f"arm-{i}": dict(enumerate(0.5 + rng.normal(0, 1e-3, pairs))) for i in range(20)}
    scores["hs3"] = dict(enumerate(0.6 + rng.normal(0, 1e-3, pairs)))
    assert compare_arms(scores, "arm-0")["hs3"].holds_among_all


def test_a_difference_of_no_spread_is_sure_and_equal_arms_are_not() -> None:
    scores = {"none": {0: 0.5, 1: 0.25}, "same": {0: 0.5, 1: 0.25}, "more": {0: 0.75, 1: 0.5}}
    found = compare_arms(scores, "none")
    assert (found["same"].p, found["more"].p) == (1.0, 0.0)
    assert found["none"].p is None


def test_one_of_five_identical_arms_rarely_stands_out_after_the_correction() -> None:
    rng = np.random.default_rng(5)
    trials, alone, together = 400, 0, 0
    for _ in range(trials):
        names = ("deep_supervision", "a", "b", "c", "d", "e")
        found = compare_arms({name: dict(enumerate(rng.normal(0.5, 0.01, 4))) for name in names})
        alone += any(c.is_significant for c in found.values())
        together += any(c.holds_among_all for c in found.values())
    assert alone / trials > 0.1  # what the correction is for
    assert together / trials < 0.05 + 4 * math.sqrt(0.05 * 0.95 / trials)


@pytest.mark.parametrize("pairs", range(1, 9))
def test_no_sign_test_goes_below_its_floor(pairs: int) -> None:
    assert sign_test((1.0,) * pairs) == pytest.approx(smallest_sign_p(pairs))
    assert (smallest_sign_p(pairs) < 0.05) == (pairs >= 6)


@pytest.mark.parametrize("wrong", [math.nan, math.inf])
def test_a_score_that_is_no_number_is_refused(wrong: float) -> None:
    scores = {"deep_supervision": {0: 0.5, 1: 0.6}, "hs3": {0: 0.5, 1: wrong}}
    with pytest.raises(PlanError, match=f"score of arm 'hs3', seed 1 is {wrong}"):
        compare_arms(scores)
