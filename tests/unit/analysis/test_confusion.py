from pathlib import Path

import numpy as np
import pytest

from hs3seg.analysis import (
    absent_classes,
    confusion_matrix,
    iou_per_class,
    load_confusions,
    mean_iou,
    pixel_accuracy,
    save_confusions,
)
from hs3seg.errors import PlanError

COUNTS = np.array([[90, 5, 5], [10, 80, 10], [0, 20, 80]])


def test_a_hand_counted_picture() -> None:
    truth = np.array([[0, 0, 1], [2, 255, 1]], np.uint8)
    prediction = np.array([[0, 1, 1], [2, 0, 0]], np.uint8)
    matrix = confusion_matrix(truth, prediction, 4)
    assert matrix.tolist() == [[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 0]]
    assert matrix.dtype == np.int64
    np.testing.assert_allclose(iou_per_class(matrix), [1 / 3, 1 / 3, 1, np.nan])
    assert mean_iou(matrix) == pytest.approx(5 / 9)
    assert pixel_accuracy(matrix) == pytest.approx(3 / 5)
    assert absent_classes(matrix) == (3,)


def test_an_absent_class_that_is_predicted_costs_the_others_but_has_no_iou_itself() -> None:
    matrix = np.array([[8, 2], [0, 0]])
    np.testing.assert_allclose(iou_per_class(matrix), [0.8, np.nan])
    assert mean_iou(matrix) == 0.8


def test_without_labelled_pixels_scores_are_nan() -> None:
    matrix = confusion_matrix([255, 255], [0, 1], 2)
    assert matrix.sum() == 0
    assert np.isnan(mean_iou(matrix))
    assert np.isnan(pixel_accuracy(matrix))


@pytest.mark.parametrize(
    ("truth", "prediction", "message"),
    [
        ([0, 3], [0, 0], r"truth holds label 3; allowed: 0\.\.2"),
        ([0, 1], [0, 255], "prediction holds label 255"),
        ([0, -1], [0, 0], "truth holds label -1"),
        ([0], [0, 1], r"shape \(1,\), prediction \(2,\)"),
        ([0.5], [0], "truth has type float64"),
        ([0], [1.5], "prediction has type float64"),
    ],
)
def test_wrong_labels_are_named(truth: list[float], prediction: list[float], message: str) -> None:
    with pytest.raises(PlanError, match=message):
        confusion_matrix(truth, prediction, 3)


@pytest.mark.parametrize("name", ["file", "allow_pickle", "encoder.layer2", "a/b", "\u00fc \u6f22"])
def test_any_stage_name_can_be_saved(tmp_path: Path, name: str) -> None:
    path = tmp_path / "confusion.npz"
    save_confusions(path, {name: COUNTS, "final": COUNTS * 2})
    found = load_confusions(path)
    assert list(found) == [name, "final"]
    assert (found[name] == COUNTS).all()
    assert (found["final"] == COUNTS * 2).all()
    with np.load(path) as plain:  # numpy alone reads it, too
        assert (plain[name] == COUNTS).all()


def test_equal_matrices_make_equal_files(tmp_path: Path) -> None:
    for place in ("a.npz", "b.npz"):
        save_confusions(tmp_path / place, {"final": COUNTS})
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()


def test_counts_too_large_for_64_bits_are_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "huge.npz", final=COUNTS * 1e300)
    with pytest.raises(PlanError, match="do not fit 64 bits"):
        load_confusions(tmp_path / "huge.npz")


@pytest.mark.filterwarnings("error")
def test_a_damaged_file_is_refused_or_read_right(tmp_path: Path) -> None:
    """Truncations and a flipped bit in every byte: never a traceback, an open file or a wrong number."""
    path = tmp_path / "confusion.npz"
    save_confusions(path, {"s": COUNTS * 1000, "final": COUNTS})
    whole = path.read_bytes()
    for length in range(0, len(whole), 7):
        path.write_bytes(whole[:length])
        with pytest.raises(PlanError, match="not a readable"):
            load_confusions(path)
    refused = 0
    for i in range(len(whole)):
        path.write_bytes(whole[:i] + bytes([whole[i] ^ 64]) + whole[i + 1 :])
        try:
            found = load_confusions(path)
        except PlanError:
            refused += 1
            continue
        assert (found["final"] == COUNTS).all()
        assert all((matrix == COUNTS * 1000).all() for name, matrix in found.items() if name != "final")
    assert refused > len(whole) // 2
