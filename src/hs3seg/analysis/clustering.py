"""Groupings of classes: spectral for all sizes at once, k-means on embeddings, random and fixed sizes."""

from collections.abc import Iterable, Sequence
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hs3seg.errors import PlanError
from hs3seg.taxonomy import Grouping

Diagonal = Literal["drop", "keep"]

# Of k-means; the best is kept. With scikit-learn's usual 10, on a planted 19-class affinity, the seed decided at two of
# 17 sizes; with 50 at none of them (8 seeds), for a third of a second in all.
_STARTS = 50

_DEPENDENT = 1e-8  # smallest part of the largest eigenvalue of a squared matrix that leaves eight correct digits


def spectral_groupings(
    affinity: ArrayLike,
    sizes: Iterable[int] | None = None,
    *,
    assign: Literal["cluster_qr", "kmeans"] = "cluster_qr",
    diagonal: Diagonal = "drop",
    seed: int = 0,
) -> dict[int, Grouping]:
    """Spectral clustering of one affinity for every number of groups, from one eigendecomposition (Sec. 3.1.1).

    The clusterings of different sizes need not be nested. The partitions are those of scikit-learn's
    `SpectralClustering(affinity="precomputed", assign_labels="cluster_qr")`, which decomposes anew for each size.

    Args:
        affinity: (K, K) symmetric, not negative.
        sizes: Numbers of groups; default 2..K-1.
        assign: `cluster_qr` needs no seed; `kmeans` is the classic choice.
        diagonal: `drop`, as scikit-learn does, makes a class that hardly anything is confused with as costly to cut off
            as a member of a block; with `keep` a class is also near to itself, by its own accuracy, and may stand
            alone.
        seed: Of `kmeans`.

    Returns:
        Number of groups -> grouping. A size at which fewer groups come out (identical classes) is left out.

    Raises:
        PlanError: affinity not square, not symmetric or negative; a size outside 1..K; an unknown `assign` or
            `diagonal`.
    """
    matrix = np.array(affinity, dtype=np.float64)
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1]:
        raise PlanError(f"affinity of shape {matrix.shape}; it must be square, (K, K)")
    if not np.isfinite(matrix).all() or (matrix < 0).any() or not np.allclose(matrix, matrix.T, rtol=1e-9, atol=0):
        raise PlanError("affinity must be finite, not negative and symmetric; `class_affinity` makes one")
    if assign not in ("cluster_qr", "kmeans"):
        raise PlanError(f"assign = {assign!r}; allowed: 'cluster_qr', 'kmeans'")
    if diagonal not in ("drop", "keep"):
        raise PlanError(f"diagonal = {diagonal!r}; allowed: 'drop', 'keep'")
    count = len(matrix)
    wanted = _sizes(sizes, count)
    if diagonal == "drop":
        np.fill_diagonal(matrix, 0.0)
    vectors = _spectral_vectors(matrix)
    found: dict[int, Grouping] = {}
    for size in wanted:
        if size == count:
            grouping = Grouping.identity(count)
        elif assign == "cluster_qr":
            grouping = Grouping.from_labels(_cluster_qr(vectors[:, :size]))
        else:
            grouping = Grouping.from_labels(_kmeans(vectors[:, :size], size, seed))
        if grouping.num_groups == size:
            found[size] = grouping
    return found


def cluster_classes(
    affinity: ArrayLike, num_groups: int, *, assign: Literal["cluster_qr", "kmeans"] = "cluster_qr", seed: int = 0
) -> Grouping:
    """Spectral clustering into one number of groups; see `spectral_groupings`.

    Raises:
        PlanError: the affinity cannot be cut into so many groups.
    """
    found = spectral_groupings(affinity, [num_groups], assign=assign, seed=seed)
    if num_groups not in found:
        raise PlanError(f"the affinity has fewer than {num_groups} distinct groups; ask for fewer")
    return found[num_groups]


def kmeans_groupings(embeddings: ArrayLike, sizes: Iterable[int] | None = None, seed: int = 0) -> dict[int, Grouping]:
    """k-means on class embeddings for every number of groups (Sec. 3.1.3).

    Args:
        embeddings: (K, C), e.g. a stage's mean feature per class. Classes without a value (nan rows) are put at the
            mean of the others: nothing is known of them.
        sizes: Numbers of groups; default 2..K-1.
        seed: Of the starts.

    Returns:
        Number of groups -> grouping; a size at which fewer groups come out is left out.

    Raises:
        PlanError: not a matrix, no class has an embedding, or a size outside 1..K.
    """
    points = np.array(embeddings, dtype=np.float64)
    if points.ndim != 2:
        raise PlanError(f"embeddings of shape {points.shape}; must be (classes, features)")
    known = np.isfinite(points).all(axis=1)
    if not known.any():
        raise PlanError("no class has an embedding; measure them on images that hold labelled pixels")
    points[~known] = points[known].mean(axis=0)
    wanted = _sizes(sizes, len(points))
    groupings = {size: Grouping.from_labels(_kmeans(points, size, seed)) for size in wanted}
    return {size: grouping for size, grouping in groupings.items() if grouping.num_groups == size}


def random_grouping(num_classes: int, group_sizes: Sequence[int], seed: int) -> Grouping:
    """Groups of given sizes with members drawn at random.

    Raises:
        PlanError: the sizes do not add up to K.
    """
    if sum(group_sizes) != num_classes or min(group_sizes, default=0) < 1:
        raise PlanError(f"group sizes {list(group_sizes)} do not add up to {num_classes} classes")
    order = np.random.default_rng(seed).permutation(num_classes)
    labels = np.empty(num_classes, np.int64)
    labels[order] = np.repeat(np.arange(len(group_sizes)), group_sizes)
    return Grouping.from_labels(labels)


def halved_sizes(num_classes: int, num_stages: int) -> tuple[int, ...]:
    """Constant ratio 1/2: K_i = round(K_{i+1} / 2), shallow to deep, at least 2 (Sec. 3.1.3); 19 -> (5, 10)."""
    sizes: list[int] = []
    size = num_classes
    for _ in range(num_stages):
        size = max(2, (size + 1) // 2)  # halves go up, as in 19 -> 10 -> 5
        sizes.append(min(size, num_classes))
    return tuple(reversed(sizes))


def _sizes(sizes: Iterable[int] | None, count: int) -> list[int]:
    wanted = list(range(2, count)) if sizes is None else list(sizes)
    for size in wanted:
        if not 1 <= size <= count:
            raise PlanError(f"{size} groups of {count} classes; allowed: 1..{count}")
    return wanted


def _spectral_vectors(affinity: NDArray[np.float64]) -> NDArray[np.float64]:
    """All eigenvectors of the normalised Laplacian, smallest eigenvalue first, scaled back by degree^-1/2. (K, K)."""
    degrees = affinity.sum(axis=1)
    roots = np.sqrt(np.where(degrees > 0, degrees, 1.0))
    laplacian = np.eye(len(affinity)) - affinity / np.outer(roots, roots)
    _, vectors = np.linalg.eigh(laplacian)
    return np.asarray(vectors / roots[:, None], dtype=np.float64)


def _cluster_qr(vectors: NDArray[np.float64]) -> NDArray[np.int64]:
    """Partition nearest to a spectral embedding (Damle, Minden, Ying 2019): no start, no seed.

    Pivoted QR finds k representative rows; the orthogonal factor of their polar decomposition turns the basis so that
    every row points along one axis, which is its group.
    """
    from scipy.linalg import qr

    size = vectors.shape[1]
    _, pivots = qr(vectors.T, mode="r", pivoting=True, check_finite=False)
    turn = _orthogonal_factor(vectors[pivots[:size]].T)
    return np.asarray(np.abs(vectors @ turn).argmax(axis=1), dtype=np.int64)


def _orthogonal_factor(matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    """U of the polar decomposition U H of a square matrix.

    Through the eigenvectors of its square, at half the price of singular vectors; rows chosen by pivots are far from
    dependent, and where they are not, singular vectors it is.
    """
    values, vectors = np.linalg.eigh(matrix.T @ matrix)
    if values[0] > _DEPENDENT * values[-1]:
        return np.asarray(matrix @ (vectors * values**-0.5) @ vectors.T)
    left, _, right = np.linalg.svd(matrix)
    return np.asarray(left @ right)


def _kmeans(points: NDArray[np.float64], size: int, seed: int) -> NDArray[np.int64]:
    import warnings

    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # fewer distinct points than groups: the caller drops it
        return np.asarray(KMeans(size, n_init=_STARTS, random_state=seed).fit_predict(points), dtype=np.int64)
