"""Groupings of classes: spectral for all sizes at once, k-means on embeddings, random and fixed sizes."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hs3seg.errors import PlanError
from hs3seg.taxonomy import Grouping

Diagonal = Literal["drop", "keep"]

# Of k-means; the best is kept. With scikit-learn's usual 10, on a planted 19-class affinity, the seed decided at two of
# 17 sizes; with 50 at none of them (8 seeds), for a third of a second in all.
_STARTS = 50

# Where products of rows are no longer trusted: the smallest part of the largest squared length that a pivot may have
# left, and the condition number of the pivots' rows. Classes without a pixel, of degrees near 1e-7, still pass; on the
# harshest of the test's affinities nine digits are correct.
_DEPENDENT, _CONDITION = 1e-10, 1e7

_STEEP = 8.0  # condition number above which an inverse is cheaper than the products that it saves
_EXACT = 1e-10  # distance of singular values from 1 at which a matrix counts as orthogonal


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
    cut = [size for size in wanted if size < count]
    with _one_thread():
        vectors = _spectral_vectors(matrix)
        if assign == "cluster_qr":
            labels = dict(_cluster_qr(vectors, cut))
        else:
            labels = {size: _kmeans(vectors[:, :size], size, seed) for size in cut}
    groupings = {size: Grouping.from_labels(found) for size, found in labels.items()}
    groupings[count] = Grouping.identity(count)
    return {size: groupings[size] for size in wanted if groupings[size].num_groups == size}


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


def _one_thread() -> AbstractContextManager[object]:
    """Linear algebra of matrices this small in one thread: several wait for each other most of the time.

    On a machine with other work on its cores, all clusterings of 150 classes took two threads 7 s and one 0.15 s.
    """
    import scipy.linalg  # noqa: F401  # has a BLAS of its own, and what is loaded later is not limited
    from threadpoolctl import threadpool_limits

    limits: AbstractContextManager[object] = threadpool_limits(1, user_api="blas")
    return limits


def _spectral_vectors(affinity: NDArray[np.float64]) -> NDArray[np.float64]:
    """All eigenvectors of the normalised Laplacian, smallest eigenvalue first, scaled back by degree^-1/2. (K, K)."""
    degrees = affinity.sum(axis=1)
    roots = np.sqrt(np.where(degrees > 0, degrees, 1.0))
    laplacian = np.eye(len(affinity)) - affinity / np.outer(roots, roots)
    _, vectors = np.linalg.eigh(laplacian)
    return np.asarray(vectors / roots[:, None], dtype=np.float64)


def _cluster_qr(vectors: NDArray[np.float64], sizes: Iterable[int]) -> Iterator[tuple[int, NDArray[np.int64]]]:
    """Partitions nearest to spectral embeddings (Damle, Minden, Ying 2019): no start, no seed.

    Pivoted QR of V_k^T, V_k the first k columns, finds k representative rows; the orthogonal factor of their polar
    decomposition turns the basis so that every row points along one axis, which is its group. Here pivoted Cholesky of
    V_k V_k^T = L L^T finds the same rows: its trailing diagonal holds the squared lengths by which QR chooses. It takes
    a fifth of the time, and from k to k + 1 the products change by one column's. L is V_k in a basis in which the
    pivots' rows are a triangle; as bases do not matter to labels, V_k is not needed any more.

    Yields:
        k and the label of every class, smallest k first.
    """
    from scipy.linalg.blas import dsyrk
    from scipy.linalg.lapack import dpstrf

    count = len(vectors)
    columns = np.asfortranarray(vectors)
    products = np.zeros((count, count), order="F")  # V_k V_k^T below the diagonal; above, it and its factor stay 0
    done = 0
    for size in sorted(set(sizes)):
        products = dsyrk(1.0, columns[:, done:size], beta=1.0, c=products, lower=1, overwrite_c=1)
        done = size
        factor, pivots, rank, _ = dpstrf(products, tol=_DEPENDENT * products.diagonal().max(), lower=1)
        turn = _orthogonal_factor(factor[:size, :size].T) if rank >= size else None
        if turn is None:
            yield size, _cluster_qr_dependent(vectors[:, :size])
            continue
        labels = np.empty(count, np.int64)
        labels[pivots - 1] = np.abs(factor[:, :size] @ turn).argmax(axis=1)
        yield size, labels


def _cluster_qr_dependent(vectors: NDArray[np.float64]) -> NDArray[np.int64]:
    """The same for one k, by QR and singular values of the rows themselves: slow, but loses no digits to products."""
    from scipy.linalg import qr

    size = vectors.shape[1]
    _, pivots = qr(vectors.T, mode="r", pivoting=True, check_finite=False)
    left, _, right = np.linalg.svd(vectors[pivots[:size]].T)
    return np.asarray(np.abs(vectors @ (left @ right)).argmax(axis=1), dtype=np.int64)


def _orthogonal_factor(triangle: NDArray[np.float64]) -> NDArray[np.float64] | None:
    """U of the polar decomposition U H of an upper triangular matrix; None where its condition is too bad.

    First a step of Newton, X <- (X + X^-T) / 2 on a scaled X (Higham 1986): a triangle's inverse is cheap, the
    condition number falls to half its root, and no singular value is below 1. Then steps of Newton and Schulz, which
    are matrix products only; each is scaled to take the lowest and the highest singular value that there may be to the
    same one (Chen, Chow 2014). In all less than half of what the eigenvectors of the square cost.
    """
    from scipy.linalg.lapack import dtrtri

    size = len(triangle)
    lower = np.asfortranarray(triangle.T)
    inverse = dtrtri(lower, lower=1)[0]
    above, below = _norm_bound(lower), _norm_bound(inverse)
    if above * below > _CONDITION:
        return None
    scale = np.sqrt(below / above)
    turn = (0.5 * scale) * lower.T + (0.5 / scale) * inverse
    gram = turn.T @ turn
    low, high = 1.0, np.sqrt(_norm_bound(gram.T))
    while high > _STEEP:
        turn *= high**-0.5
        turn = 0.5 * (turn + np.linalg.inv(turn).T)
        gram = turn.T @ turn
        high = np.sqrt(_norm_bound(gram.T))
    while True:
        scale = np.sqrt(3 / (low * low + low * high + high * high))
        gram *= -0.5 * scale**3
        gram.reshape(-1)[:: size + 1] += 1.5 * scale  # the diagonal
        turn = turn @ gram  # scale X (3 - scale^2 X^T X) / 2
        low, high = 0.5 * scale * low * (3 - (scale * low) ** 2), 1.0
        if high - low <= _EXACT:
            return np.asarray(turn)
        gram = turn.T @ turn


def _norm_bound(matrix: NDArray[np.float64]) -> float:
    """At least the largest singular value; close to it where the matrix is near to a diagonal one. Fortran order."""
    from scipy.linalg.lapack import dlange

    columns, rows = (dlange(norm, matrix) for norm in "1i")  # type: ignore[call-arg]  # its stub takes no arguments
    return float(np.sqrt(columns * rows))


def _kmeans(points: NDArray[np.float64], size: int, seed: int) -> NDArray[np.int64]:
    import warnings

    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # fewer distinct points than groups: the caller drops it
        return np.asarray(KMeans(size, n_init=_STARTS, random_state=seed).fit_predict(points), dtype=np.int64)
