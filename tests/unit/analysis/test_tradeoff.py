import math
from collections.abc import Callable

import numpy as np
import pytest

from hs3seg.analysis import (
    Reference,
    TradeoffCurve,
    choose_num_groups,
    knee_of,
    line,
    theta_of_ratio,
    tradeoff_curve,
)
from hs3seg.errors import PlanError
from hs3seg.taxonomy import Grouping

# The paper's Table 5 (NYUD-v2, K = 40, m_f = 0.412), with the ratio rule at 76 degrees.
TABLE5 = {0: (40, 40), 50: (31, 34), 75: (20, 27), 80: (17, 25), 85: (10, 20), 90: (5, 16)}
PAPER = Reference(40, 0.412)


def falling(points: dict[int, float]) -> TradeoffCurve:
    sizes = sorted(points)
    return TradeoffCurve("s", {k: Grouping.identity(40) for k in sizes}, {k: points[k] for k in sizes})


def implied_curve(stage: int) -> TradeoffCurve:
    """The curve that Table 5 implies: each (theta, K_i) is a point of the stage's curve on theta's line."""
    known = {ks[stage]: line(PAPER, ks[stage], theta) for theta, ks in TABLE5.items() if theta}
    xs = sorted(known)
    return falling({k: float(np.interp(k, xs, [known[x] for x in xs])) for k in range(xs[0], xs[-1] + 1)})


def test_the_aspect_makes_the_papers_angle() -> None:
    assert theta_of_ratio(PAPER) == pytest.approx(76.0, abs=0.05)


def test_line_at_theta0_is_the_ratio_rule() -> None:
    theta0 = theta_of_ratio(PAPER)
    for k in range(2, 41):
        assert line(PAPER, k, theta0) == pytest.approx(line(PAPER, k)) == pytest.approx(PAPER.ratio * k)


def test_line_passes_through_the_reference_and_ends_level_and_vertical() -> None:
    for theta in (0, 10, 50, 76, 89, 90):
        assert line(PAPER, 40, theta) == pytest.approx(0.412)
    assert line(PAPER, 3, 90) == 0.412
    assert line(PAPER, 39, 0) == -math.inf


@pytest.mark.parametrize(("stage", "expected"), [(0, 19.5), (1, 26.6)])
def test_implied_curves_fall_and_meet_the_ratio_line_where_the_paper_says(stage: int, expected: float) -> None:
    curve = implied_curve(stage)
    values = list(curve.mious.values())
    assert values == sorted(values, reverse=True)
    assert choose_num_groups(curve, PAPER) == int(expected)


@pytest.mark.parametrize(("stage", "expected"), [(0, 19.5), (1, 26.6)])
def test_crossing_of_the_implied_curves_with_the_line_at_76_degrees(stage: int, expected: float) -> None:
    curve = implied_curve(stage)
    height = {k: curve.mious[k] - line(PAPER, k, 76.0) for k in curve.sizes}
    below = next(k for k in curve.sizes if height[k] < 0)
    above = below - 1
    crossing = above + height[above] / (height[above] - height[below])
    assert crossing == pytest.approx(expected, abs=0.1)


@pytest.mark.parametrize("theta", [20.0, 50.0, 76.0, 85.0])
def test_theta_is_the_angle_from_the_vertical_on_the_drawn_plot(theta: float) -> None:
    """Measured on paper: [0, K] is drawn `aspect` wide, [0, 1] is drawn 1 high."""
    for aspect in (1.0, 1.652):
        right = (40 - 12) / 40 * aspect
        up = line(PAPER, 40, theta, aspect) - line(PAPER, 12, theta, aspect)
        assert math.degrees(math.atan2(right, up)) == pytest.approx(theta)


def test_ninety_degrees_ask_for_the_final_outputs_miou() -> None:
    curve = falling({2: 0.9, 10: 0.5, 16: 0.412, 17: 0.411, 40: 0.2})
    assert choose_num_groups(curve, PAPER, 90) == 16


def test_stage_two_lies_above_stage_one() -> None:
    one, two = implied_curve(0), implied_curve(1)
    assert all(two.mious[k] > one.mious[k] for k in one.sizes if k in two.sizes)


@pytest.mark.parametrize("stage", [0, 1])
def test_larger_theta_means_fewer_groups_as_in_table5(stage: int) -> None:
    curve = implied_curve(stage)
    found = [choose_num_groups(curve, PAPER, theta) for theta in (50, 75, 80, 85, 90)]
    wanted = [TABLE5[theta][stage] for theta in (50, 75, 80, 85, 90)]
    assert np.abs(np.subtract(found, wanted)).max() <= 1


def test_theta_zero_is_deep_supervision_and_an_unreached_line_gives_the_smallest() -> None:
    curve = falling({2: 0.1, 5: 0.05, 40: 0.01})
    assert choose_num_groups(curve, PAPER, 0) == 40
    assert choose_num_groups(curve, PAPER, 90) == 2
    assert choose_num_groups(falling({2: 0.9, 5: 0.01, 10: 0.2, 40: 0.01}), PAPER) == 10  # a wiggle: the largest k


def test_a_stage_as_good_as_the_output_keeps_all_classes() -> None:
    counts = np.diag([5, 6, 7]) + 1
    curve = tradeoff_curve("s", counts, {2: Grouping.from_labels([0, 0, 1])})
    assert curve.sizes == (2, 3)
    assert choose_num_groups(curve, Reference(3, curve.mious[3])) == 3


def test_angles_outside_the_quadrant_are_refused() -> None:
    with pytest.raises(PlanError, match="theta = 95"):
        line(PAPER, 3, 95)
    with pytest.raises(PlanError, match="aspect = 0"):
        line(PAPER, 3, aspect=0)


def test_the_knee_is_the_corner_of_a_curve_of_two_pieces() -> None:
    # Level to 6 groups, then a straight fall to 0.3 at 12: the line between the ends has 1 - 0.07 * 4 = 0.72 at 6.
    mious = {k: 1.0 if k <= 6 else 1.0 - 0.7 * (k - 6) / 6 for k in range(2, 13)}
    knee = knee_of(mious)
    assert knee.num_groups == 6
    assert knee.height == pytest.approx(0.28)
    assert knee.is_clear
    assert knee_of(dict(reversed(mious.items()))) == knee


@pytest.mark.parametrize(
    "shape", [lambda x: 1 - x, lambda x: (1 - x) ** 2, lambda x: 0.4 + 0 * x, lambda x: 1 / (1 + x)]
)
def test_curves_that_fall_straight_or_sag_have_no_knee_and_keep_all_classes(shape: Callable[[float], float]) -> None:
    curve = falling({k: shape((k - 2) / 10) for k in range(2, 13)})
    assert not curve.knee.is_clear
    assert curve.knee.height == pytest.approx(0, abs=1e-12)
    assert choose_num_groups(curve, PAPER, rule="knee") == 12


def test_a_small_bend_is_no_knee() -> None:
    mious = {k: 1 - (k - 2) / 10 for k in range(2, 13)}
    assert not knee_of(mious | {5: mious[5] + 0.049}).is_clear
    assert knee_of(mious | {5: mious[5] + 0.051}).num_groups == 5
    assert knee_of(mious | {5: mious[5] + 0.051}).is_clear


def test_the_knee_looks_at_the_curve_alone() -> None:
    curve = falling({k: 1.0 if k <= 6 else 0.2 for k in range(2, 13)})
    assert {choose_num_groups(curve, Reference(40, m), rule="knee") for m in (0.1, 0.5, 0.9)} == {6}
    assert choose_num_groups(curve, Reference(40, 0.1), theta_degrees=0, rule="knee") == 6
