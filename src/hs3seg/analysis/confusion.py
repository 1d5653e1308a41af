"""Confusion matrices: counting, scores, and the file that holds one per stage.

Rows are truth, columns prediction, values raw pixel counts (int64).
"""

import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hs3seg.errors import PlanError
from hs3seg.files import write_atomically

Counts = NDArray[np.int64]

# What numpy and zipfile raise on a damaged archive, found by flipping every byte of one (RuntimeError: "is encrypted";
# NotImplementedError is a kind of it: zipfile raises that for a compression that it cannot read).
_BROKEN_ARCHIVE = (ValueError, OSError, EOFError, KeyError, MemoryError, RuntimeError, zipfile.BadZipFile, zlib.error)


def confusion_matrix(truth: ArrayLike, prediction: ArrayLike, num_classes: int, ignore_index: int = 255) -> Counts:
    """Counts pixels by (truth, prediction).

    Args:
        truth: Integer labels of any shape; `ignore_index` is left out.
        prediction: Same shape, 0..K-1 wherever truth counts.
        num_classes: K.
        ignore_index: Label without a class.

    Returns:
        (K, K) int64.

    Raises:
        PlanError: shapes differ, labels are not integers, or a label is outside 0..K-1.
    """
    truth, prediction = np.asarray(truth), np.asarray(prediction)
    for name, labels in (("truth", truth), ("prediction", prediction)):
        if labels.size and labels.dtype.kind not in "iu":
            raise PlanError(f"{name} has type {labels.dtype}; labels are integers")
    if truth.shape != prediction.shape:
        raise PlanError(f"truth has shape {truth.shape}, prediction {prediction.shape}; they must be equal")
    valid = truth != ignore_index
    rows, columns = truth[valid].astype(np.int64), prediction[valid].astype(np.int64)
    for name, values in (("truth", rows), ("prediction", columns)):
        if values.size and not 0 <= values.min() <= values.max() < num_classes:
            wrong = values[(values < 0) | (values >= num_classes)][0]
            raise PlanError(f"{name} holds label {wrong}; allowed: 0..{num_classes - 1} (ignore label {ignore_index})")
    counts = np.bincount(rows * num_classes + columns, minlength=num_classes * num_classes)
    return counts.reshape(num_classes, num_classes).astype(np.int64)


def iou_per_class(confusion: ArrayLike) -> NDArray[np.float64]:
    """Intersection over union of each class over the whole set.

    Args:
        confusion: (K, K).

    Returns:
        (K,) fractions; nan for a class without a truth pixel (absent), which every mean leaves out.
    """
    counts = np.asarray(confusion, dtype=np.float64)
    hits = np.diagonal(counts)
    truth = counts.sum(axis=1)
    union = truth + counts.sum(axis=0) - hits
    return np.where(truth > 0, hits / np.where(union > 0, union, 1), np.nan)


def mean_iou(confusion: ArrayLike) -> float:
    """Class mean of IoU as a fraction, absent classes left out; nan if every class is absent."""
    values = iou_per_class(confusion)
    present = values[~np.isnan(values)]
    return float(present.mean()) if present.size else float("nan")


def pixel_accuracy(confusion: ArrayLike) -> float:
    """Share of labelled pixels that are right, a fraction; nan without pixels."""
    counts = np.asarray(confusion, dtype=np.float64)
    total = counts.sum()
    return float(np.trace(counts) / total) if total else float("nan")


def absent_classes(confusion: ArrayLike) -> tuple[int, ...]:
    """Classes without a truth pixel."""
    return tuple(int(c) for c in np.flatnonzero(np.asarray(confusion).sum(axis=1) == 0))


def save_confusions(path: Path | str, confusions: Mapping[str, NDArray[Any]]) -> None:
    """Writes one (K, K) matrix per stage and `final` to an .npz file, atomically."""
    arrays = {name: np.asarray(matrix, dtype=np.int64) for name, matrix in confusions.items()}
    save_arrays(path, arrays)


def save_arrays(path: Path | str, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Writes named arrays to an .npz file, atomically; names may be any text, such as module paths."""

    def write(temporary: Path) -> None:
        # numpy.savez_compressed takes the names as keywords, so that an array called `file` would fail.
        with zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, array in arrays.items():
                with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                    np.lib.format.write_array(member, np.asarray(array), allow_pickle=False)

    write_atomically(path, write)


def load_confusions(path: Path | str) -> dict[str, Counts]:
    """Reads the matrices of an .npz file: one per stage, shallow to deep, and `final`.

    Returns:
        Stage -> (K, K) int64 in the order of the file; `final` last.

    Raises:
        PlanError: file missing or not .npz; no `final`; a matrix that is not square; sizes differ; negative, infinite
            or fractional counts.
    """
    arrays = _load(path)
    if "final" not in arrays:
        raise PlanError(
            f"{path}: no array named 'final' (found {', '.join(map(repr, arrays)) or 'nothing'});"
            " the final output's matrix is the reference of every stage"
        )
    confusions = {name: checked_counts(value, f"{path}: array '{name}'") for name, value in arrays.items()}
    size = len(confusions["final"])
    for name, matrix in confusions.items():
        if len(matrix) != size:
            raise PlanError(
                f"{path}: array '{name}' has {len(matrix)} classes, 'final' has {size}; measure the stages of a"
                " deeply supervised network, in which each has all classes"
            )
    return {name: m for name, m in confusions.items() if name != "final"} | {"final": confusions["final"]}


def load_embeddings(path: Path | str) -> dict[str, NDArray[np.float64]]:
    """Reads (K, C) class embeddings per stage from an .npz file.

    Raises:
        PlanError: file missing or not .npz, or an array that is not a finite matrix.
    """
    arrays = {name: np.asarray(value) for name, value in _load(path).items()}
    for name, value in arrays.items():
        if value.ndim != 2 or value.dtype.kind not in "fiu":
            raise PlanError(
                f"{path}: array '{name}' has shape {value.shape}; embeddings are (classes, features) numbers"
            )
    return {name: value.astype(np.float64) for name, value in arrays.items()}


def _load(path: Path | str) -> dict[str, NDArray[Any]]:
    path = Path(path)
    if not path.is_file():
        raise PlanError(f"file '{path}' does not exist; `hs3 analyze` or numpy.savez writes it")
    try:
        with path.open("rb") as opened:  # ours to close: numpy leaves it open where the archive is truncated
            file = np.load(opened, allow_pickle=False)
            if not isinstance(file, np.lib.npyio.NpzFile):
                raise PlanError(f"{path}: a single array, not an .npz of named ones; write it with numpy.savez")
            with file:
                return {name: file[name] for name in file.files}
    except _BROKEN_ARCHIVE as error:
        raise PlanError(f"{path}: not a readable .npz file ({error}); write it with numpy.savez") from None


def checked_counts(matrix: ArrayLike, origin: str) -> Counts:
    """A confusion matrix as int64, if it is one.

    Args:
        matrix: (K, K) whole numbers of any numeric type, K >= 2.
        origin: Names it in errors.

    Raises:
        PlanError: not square, or not pixel counts.
    """
    value = np.asarray(matrix)
    if value.ndim != 2 or value.shape[0] != value.shape[1] or value.shape[0] < 2:
        raise PlanError(f"{origin} has shape {value.shape}; a confusion matrix is square, (K, K) with K >= 2")
    if value.dtype.kind not in "iuf":
        raise PlanError(f"{origin} has type {value.dtype}; a confusion matrix holds pixel counts")
    if not np.isfinite(value).all() or (value < 0).any():
        raise PlanError(f"{origin} holds negative, infinite or nan values; a confusion matrix holds pixel counts")
    if not (value == np.floor(value)).all():
        raise PlanError(f"{origin} holds fractions; give raw pixel counts, normalisation is an option of `hs3 plan`")
    if value.sum(dtype=np.float64) >= 2.0**62:
        raise PlanError(f"{origin} counts {value.sum(dtype=np.float64):.3g} pixels; its sums do not fit 64 bits")
    return value.astype(np.int64)
