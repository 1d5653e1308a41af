import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from hs3seg.analysis import BoundaryCounter

Labels = NDArray[np.int64]


def slow_edge(labels: Labels, valid: NDArray[np.bool_], c: int) -> list[tuple[int, int]]:
    height, width = labels.shape
    found = []
    for y in range(height):
        for x in range(width):
            around = [(y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)]
            if labels[y, x] == c and valid[y, x]:
                inside = [(v, u) for v, u in around if 0 <= v < height and 0 <= u < width]
                if any(valid[p] and labels[p] != c for p in inside):
                    found.append((y, x))
    return found


def slow_band(labels: Labels, valid: NDArray[np.bool_], c: int, reach: int) -> set[tuple[int, int]]:
    height, width = labels.shape
    found = set()
    for y in range(height):
        for x in range(width):
            if labels[y, x] != c or not valid[y, x]:
                continue
            for v in range(y - reach, y + reach + 1):
                for u in range(x - reach, x + reach + 1):
                    outside = not (0 <= v < height and 0 <= u < width)
                    if outside or (valid[v, u] and labels[v, u] != c):
                        found.add((y, x))
    return found


def slow_scores(pairs: list[tuple[Labels, Labels]], k: int, tolerance: int, reach: int) -> dict[str, list[float]]:
    f, iou = [], []
    for c in range(k):
        count = dict.fromkeys(("predicted", "predicted_hit", "true", "true_hit", "and", "or"), 0)
        for truth, prediction in pairs:
            valid = truth != 255
            true, predicted = slow_edge(truth, valid, c), slow_edge(prediction, valid, c)
            for name, one, other in (("true", true, predicted), ("predicted", predicted, true)):
                count[name] += len(one)
                count[f"{name}_hit"] += sum(any(math.dist(p, q) <= tolerance for q in other) for p in one)
            a, b = slow_band(truth, valid, c, reach), slow_band(prediction, valid, c, reach)
            count["and"] += len(a & b)
            count["or"] += len(a | b)
        if count["true"] == 0:
            f.append(math.nan)
            iou.append(math.nan)
            continue
        precision = count["predicted_hit"] / count["predicted"] if count["predicted"] else 0
        recall = count["true_hit"] / count["true"]
        f.append(2 * precision * recall / (precision + recall) if precision + recall else 0)
        iou.append(count["and"] / count["or"])
    return {"f": f, "iou": iou}


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 3), st.integers(1, 2))
def test_counts_equal_a_slow_oracle(seed: int, tolerance: int, reach: int) -> None:
    rng = np.random.default_rng(seed)
    pairs: list[tuple[Labels, Labels]] = []
    counter = BoundaryCounter(3, 255, tolerance=tolerance / math.hypot(12, 14), width=reach / math.hypot(12, 14))
    for _ in range(2):
        truth = np.kron(rng.integers(0, 3, (4, 7)), np.ones((3, 2), np.int64))
        prediction = np.where(rng.random((12, 14)) < 0.8, np.roll(truth, 1, 1), rng.integers(0, 3, (12, 14)))
        truth[rng.random((12, 14)) < 0.1] = 255
        pairs.append((truth, prediction))
        counter.add(truth, prediction)
    found, expected = counter.scores(), slow_scores(pairs, 3, tolerance, reach)
    np.testing.assert_allclose(found["f"], expected["f"])
    np.testing.assert_allclose(found["iou"], expected["iou"])


def squares(shift: int) -> Labels:
    labels = np.zeros((40, 40), np.int64)
    labels[10:30, 10 + shift : 30 + shift] = 1
    return labels


def test_a_perfect_prediction_scores_one_and_a_shifted_one_falls() -> None:
    def score(shift: int) -> dict[str, NDArray[Any]]:
        counter = BoundaryCounter(2, tolerance=1 / 57, width=1 / 57)
        counter.add(squares(0), squares(shift))
        return counter.scores()

    assert score(0)["f"].tolist() == score(0)["iou"].tolist() == [1, 1]
    assert score(1)["f"].tolist() == [1, 1]  # within the tolerance
    assert score(1)["iou"][1] < 1
    # Two of four sides lie three pixels away; the others still meet but for their ends.
    assert 0.4 < score(3)["f"][1] < 0.6


def test_ignored_pixels_make_no_boundary() -> None:
    truth = squares(0)
    truth[:, 20:] = 255
    counter = BoundaryCounter(2)
    counter.add(truth, squares(0))
    other = squares(0)
    other[:, 20:] = 1  # whatever is said there
    second = BoundaryCounter(2)
    second.add(truth, other)
    assert all((counter.counts[name] == second.counts[name]).all() for name in counter.counts)
    assert counter.scores()["f"].tolist() == pytest.approx([1, 1])


def test_a_class_without_a_true_boundary_has_no_score() -> None:
    counter = BoundaryCounter(3)
    counter.add(np.zeros((8, 8), np.int64), squares(0)[8:16, 8:16])
    scores = counter.scores()
    assert np.isnan(scores["f"]).all()
    assert np.isnan(scores["iou"]).all()
