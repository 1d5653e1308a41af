"""From a confusion matrix to the symmetric affinity that clustering sees."""

from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hs3seg.errors import PlanError

DEFAULT_EPSILON = 1e-9
"""Relative to the mean affinity; links classes that nothing links, so small that no measured confusion notices."""


def class_affinity(
    confusion: ArrayLike, normalize: Literal["true", "none"] = "true", epsilon: float = DEFAULT_EPSILON
) -> NDArray[np.float64]:
    """A = (C + C^T) / 2 (Sec. 3.1.1).

    Whether C is normalised the paper does not say. Raw counts make clusters that follow pixel frequency and,
    measured on CamVid, a trade-off curve that does not fall; rows divided by their sums are our default.

    Args:
        confusion: (K, K) pixel counts, rows truth.
        normalize: `true` divides each row by its sum first (absent classes keep a row of zeros); `none` is raw.
        epsilon: Share of the mean off-diagonal affinity added everywhere, so that classes without any confusion
            (absent ones, or perfectly separated ones) do not tear the graph apart.

    Returns:
        (K, K) symmetric, not negative; positive off the diagonal where `epsilon` is.

    Raises:
        PlanError: the matrix is not square or has negative or infinite values, `normalize` is unknown, or `epsilon`
            is not 0 or more.
    """
    counts = np.asarray(confusion, dtype=np.float64)
    if counts.ndim != 2 or counts.shape[0] != counts.shape[1]:
        raise PlanError(f"confusion matrix of shape {counts.shape}; it must be square, (K, K)")
    if not np.isfinite(counts).all() or (counts < 0).any():
        raise PlanError("confusion matrix with negative or infinite values; it holds pixel counts")
    if not 0 <= epsilon < np.inf:
        raise PlanError(f"epsilon = {epsilon}; it is a small share of the mean affinity, 0 or more, such as 1e-9")
    if normalize == "true":
        sums = counts.sum(axis=1, keepdims=True)
        counts = counts / np.where(sums > 0, sums, 1)
    elif normalize != "none":
        raise PlanError(f"normalize = {normalize!r}; allowed: 'true' (rows divided by their sums), 'none' (raw counts)")
    affinity: NDArray[np.float64] = (counts + counts.T) / 2
    off_diagonal = affinity[~np.eye(len(affinity), dtype=bool)]
    mean = float(off_diagonal.mean()) if off_diagonal.size else 0.0
    return affinity + epsilon * (mean or 1.0)
