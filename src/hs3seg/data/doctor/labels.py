"""What label maps show by themselves: single pixels, blended ids, and whether they lie on the image's edges."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from hs3seg.data.doctor.findings import Place

_MAX_PIXELS = 1_000_000  # above it, edges are compared at a coarser grid
_FLIPS: dict[str, tuple[slice, slice]] = {
    "left to right": (slice(None), slice(None, None, -1)),
    "upside down": (slice(None, None, -1), slice(None)),
    "by half a turn": (slice(None, None, -1), slice(None, None, -1)),
}
FLIPS = tuple(_FLIPS)


def bounds(where: NDArray[np.bool_]) -> Place | None:
    """The smallest box that holds all that is true of (H, W)."""
    rows, columns = np.flatnonzero(where.any(1)), np.flatnonzero(where.any(0))
    if not len(rows):
        return None
    x, y = int(columns[0]), int(rows[0])
    return Place(x, y, int(columns[-1]) - x + 1, int(rows[-1]) - y + 1)


def densest(where: NDArray[np.bool_], side: int = 32) -> Place | None:
    """The `side` x `side` box of a grid with most that is true of (H, W), cut to what is true in it."""
    if not where.any():
        return None
    height, width = where.shape
    rows, columns = np.arange(0, height, side), np.arange(0, width, side)
    sums = np.add.reduceat(np.add.reduceat(where.astype(np.int64), rows, 0), columns, 1)
    r, c = np.unravel_index(int(sums.argmax()), sums.shape)
    y, x = int(rows[r]), int(columns[c])
    inner = bounds(where[y : y + side, x : x + side])
    assert inner is not None, "the box with most has some"
    return Place(x + inner.x, y + inner.y, inner.width, inner.height)


def specks(labels: NDArray[Any]) -> NDArray[np.bool_]:
    """Pixels (H, W) that differ from all eight neighbours; the outermost ones never count."""
    found = np.zeros(labels.shape, np.bool_)
    if min(labels.shape) < 3:
        return found
    height, width = labels.shape
    inner = labels[1:-1, 1:-1]
    alone = np.ones(inner.shape, np.bool_)
    for dy in range(3):
        for dx in range(3):
            if (dy, dx) != (1, 1):
                alone &= labels[dy : height - 2 + dy, dx : width - 2 + dx] != inner
    found[1:-1, 1:-1] = alone
    return found


def blends(labels: NDArray[Any], ignore_index: int) -> tuple[NDArray[np.bool_], int, int]:
    """Runs of one pixel between two classes, as a smooth resize of ids makes them.

    Returns:
        Pixels whose id lies between those of their two neighbours, left and right or above and below, (H, W); the
        number of one-pixel runs between two classes; the number of borders without one. Only ids that differ by two or
        more count, as nothing lies between others.
    """
    between = np.zeros(labels.shape, np.bool_)
    thin_runs = borders = 0
    for values, marked in ((labels, between), (labels.T, between.T)):
        a, b = values[:, :-1], values[:, 1:]
        step = (np.abs(a - b) >= 2) & (a != ignore_index) & (b != ignore_index)
        borders += int(step.sum())
        left, middle, right = values[:, :-2], values[:, 1:-1], values[:, 2:]
        thin = (np.abs(left - right) >= 2) & (left != middle) & (middle != right)
        thin &= (left != ignore_index) & (right != ignore_index)
        thin_runs += int(thin.sum())
        marked[:, 1:-1] |= thin & (np.minimum(left, right) < middle) & (middle < np.maximum(left, right))
    return between, thin_runs, borders


def has_shape(labels: NDArray[Any]) -> bool:
    """Whether a label map (H, W) has borders enough that no other image has the same by chance."""
    return int(_borders(labels).sum()) >= 64


def alignment(image: NDArray[np.uint8], labels: NDArray[Any]) -> NDArray[np.float32] | None:
    """How strong the image's edges are at the borders of the labels, relative to their mean.

    Args:
        image: (H, W, 3).
        labels: (H, W).

    Returns:
        (4,): as it is, then with the labels turned as in `FLIPS`; None without borders or without edges.
    """
    stride = 2 if labels.size > _MAX_PIXELS else 1
    grey = image[::stride, ::stride].astype(np.int16).sum(2, dtype=np.int16)
    edges = np.abs(np.diff(grey, axis=0))[:, :-1] + np.abs(np.diff(grey, axis=1))[:-1]
    borders = _borders(labels[::stride, ::stride])
    mean = float(edges.mean()) if edges.size else 0.0
    if mean == 0 or borders.sum() < 64:
        return None
    turned = [borders, *(borders[flip] for flip in _FLIPS.values())]
    return np.array([edges[where].mean() / mean for where in turned], np.float32)


def _borders(labels: NDArray[Any]) -> NDArray[np.bool_]:
    """(H - 1, W - 1): where a label differs from the one below or to the right."""
    return np.asarray((labels[1:, :-1] != labels[:-1, :-1]) | (labels[:-1, 1:] != labels[:-1, :-1]))
