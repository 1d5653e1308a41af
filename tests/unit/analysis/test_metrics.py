import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hs3seg.analysis import (
    frequency_weighted_iou,
    level_miou,
    mean_accuracy,
    mean_iou,
    share_of_errors_inside,
)
from hs3seg.taxonomy import Grouping

CONFUSION = np.array([[6, 2, 0], [1, 3, 0], [0, 4, 4]])


def test_by_hand() -> None:
    assert mean_accuracy(CONFUSION) == pytest.approx((6 / 8 + 3 / 4 + 4 / 8) / 3)
    iou = np.array([6 / 9, 3 / 10, 4 / 8])
    assert frequency_weighted_iou(CONFUSION) == pytest.approx((iou * [8, 4, 8]).sum() / 20)
    grouping = Grouping.from_labels([0, 0, 1])
    assert level_miou(CONFUSION, grouping) == pytest.approx((12 / 16 + 4 / 8) / 2)
    assert share_of_errors_inside(CONFUSION, grouping) == pytest.approx(3 / 7)


def test_absent_classes_do_not_count() -> None:
    confusion = np.array([[5, 0, 5], [0, 0, 0], [0, 0, 10]])
    assert mean_accuracy(confusion) == pytest.approx(0.75)
    assert frequency_weighted_iou(confusion) == pytest.approx((0.5 * 10 + 10 / 15 * 10) / 20)


def test_nothing_to_score_is_no_number() -> None:
    empty = np.zeros((3, 3))
    grouping = Grouping.from_labels([0, 1, 1])
    assert np.isnan([mean_accuracy(empty), frequency_weighted_iou(empty)]).all()
    assert np.isnan(share_of_errors_inside(np.diag([1, 2, 3]), grouping))


@given(st.lists(st.integers(0, 50), min_size=16, max_size=16), st.lists(st.integers(0, 3), min_size=4, max_size=4))
def test_levels_lie_between_the_extremes(counts: list[int], labels: list[int]) -> None:
    confusion = np.array(counts).reshape(4, 4) + np.eye(4, dtype=int)
    every, one = Grouping.from_labels([0, 1, 2, 3]), Grouping.from_labels([0, 0, 0, 0])
    assert level_miou(confusion, every) == pytest.approx(mean_iou(confusion))
    assert level_miou(confusion, one) == 1
    if confusion.sum() > np.trace(confusion):
        assert share_of_errors_inside(confusion, every) == 0
        assert share_of_errors_inside(confusion, one) == 1
        assert 0 <= share_of_errors_inside(confusion, Grouping.from_labels(labels)) <= 1
