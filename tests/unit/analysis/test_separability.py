import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from hs3seg.analysis import confusion_matrix
from hs3seg.analysis.separability import pairwise_accuracy, separability
from hs3seg.errors import PlanError

counts = arrays(np.int64, (4, 4), elements=st.integers(0, 50))


@given(matrix=counts)
def test_it_is_the_mean_recall_of_the_two_classes_among_themselves(matrix: np.ndarray) -> None:
    found = pairwise_accuracy(matrix)
    for a in range(4):
        for b in range(4):
            pair = matrix[np.ix_([a, b], [a, b])]
            if a == b or (pair.sum(1) == 0).any():
                assert np.isnan(found[a, b])
            else:
                assert found[a, b] == pytest.approx((pair[0, 0] / pair[0].sum() + pair[1, 1] / pair[1].sum()) / 2)


@given(matrix=counts.filter(lambda m: (np.diagonal(m) > 0).all()), factor=st.integers(1, 1000))
def test_a_rare_class_counts_as_much_as_a_frequent_one(matrix: np.ndarray, factor: int) -> None:
    more = matrix * np.array([factor, 1, 1, 1])[:, None]
    np.testing.assert_allclose(pairwise_accuracy(more), pairwise_accuracy(matrix))


def test_guessing_is_one_half_and_a_perfect_output_is_one() -> None:
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 3, 60_000)
    guessed = pairwise_accuracy(confusion_matrix(truth, rng.integers(0, 3, 60_000), 3))
    right = pairwise_accuracy(confusion_matrix(truth, truth, 3))
    off = ~np.eye(3, dtype=bool)
    np.testing.assert_allclose(guessed[off], 0.5, atol=0.02)
    np.testing.assert_array_equal(right[off], 1)


def example() -> dict[str, np.ndarray]:
    """Classes 0 and 1 are told apart by all, 2 and 3 by none, the others from stage3 on; 4 is absent."""
    early = np.array([[98, 2, 30, 0, 0], [2, 98, 0, 30, 0], [30, 0, 60, 60, 0], [0, 30, 60, 60, 0], [0] * 5])
    late = np.array([[98, 2, 2, 0, 0], [2, 98, 0, 2, 0], [2, 0, 60, 60, 0], [0, 2, 60, 60, 0], [0] * 5])
    final = np.array([[99, 1, 1, 0, 0], [1, 99, 0, 1, 0], [1, 0, 80, 40, 0], [0, 1, 40, 80, 0], [0] * 5])
    return {"stage2": early, "stage3": late, "final": final}


def test_the_earliest_output_that_tells_a_pair_apart_is_named() -> None:
    found = separability(example())
    assert found.outputs == ("stage2", "stage3", "final")
    assert found.first_stage(0, 1) == "stage2"
    assert found.first_stage(0, 2) == found.first_stage(2, 0) == "stage3"
    assert found.first_stage(2, 3) is None
    assert found.first_stage(2, 3, threshold=0.6) == "final"
    assert found.counts() == {"stage2": 3, "stage3": 2, "final": 0, None: 1}
    numbers = found.numbers()
    assert numbers[0, 1] == 0
    assert numbers[0, 2] == 1
    assert numbers[2, 3] == 3
    assert (numbers[4] == -1).all()
    assert (np.diagonal(numbers) == -1).all()


def test_pairs_that_are_confused_most_come_first() -> None:
    pairs = separability(example()).hardest()
    assert (pairs[0].first, pairs[0].second, pairs[0].first_stage) == (2, 3, None)
    assert pairs[0].accuracies == pytest.approx({"stage2": 0.5, "stage3": 0.5, "final": 2 / 3})
    assert pairs[0].confused == pytest.approx(40 / 121)
    shares = [pair.confused for pair in pairs]
    assert shares == sorted(shares, reverse=True)
    assert {(pair.first, pair.second) for pair in pairs} == {(2, 3), (0, 1), (0, 2), (1, 3)}  # what has a count
    assert len(separability(example()).hardest(2)) == 2


def test_what_cannot_be_measured_is_refused() -> None:
    matrices = example()
    with pytest.raises(PlanError, match=r"threshold = 0.3; a pairwise accuracy from 0.5"):
        separability(matrices, 0.3)
    with pytest.raises(PlanError, match="no matrix named 'final'"):
        separability({"stage2": matrices["stage2"]})
    with pytest.raises(PlanError, match="matrix 'stage2' has shape"):
        separability({"stage2": np.ones((3, 3), int), "final": matrices["final"]})
