import json
import warnings
from collections.abc import Callable

import numpy as np
import pytest
import scipy.linalg
from sklearn.cluster import SpectralClustering
from sklearn.metrics import adjusted_rand_score

from hs3seg.analysis import (
    class_affinity,
    cluster_classes,
    clustering,
    halved_sizes,
    kmeans_groupings,
    random_grouping,
    spectral_groupings,
)
from hs3seg.errors import PlanError
from hs3seg.taxonomy import Grouping
from tests.conftest import shared

BLOCKS = np.repeat([0, 1, 2, 3], [3, 2, 4, 1])


def planted(frequencies: np.ndarray) -> np.ndarray:
    """Counts of classes that are confused inside their block only, at skewed class frequencies."""
    same = BLOCKS[:, None] == BLOCKS[None, :]
    rates = np.where(same, 0.1, 0.002) + np.eye(len(BLOCKS)) * 0.5
    return np.round(rates / rates.sum(1, keepdims=True) * frequencies[:, None]).astype(np.int64)


def test_affinity_is_symmetric_and_follows_its_formula() -> None:
    counts = np.array([[8, 2, 0], [1, 3, 0], [0, 0, 0]])
    affinity = class_affinity(counts, epsilon=0.0)
    assert affinity[0, 1] == affinity[1, 0] == pytest.approx((2 / 10 + 1 / 4) / 2)
    assert class_affinity(counts, "none", epsilon=0.0)[0, 1] == 1.5
    assert (class_affinity(counts) > 0).all()


@pytest.mark.parametrize("seed", range(6))
def test_planted_groups_are_found_at_any_class_frequencies(seed: int) -> None:
    frequencies = 10 ** np.random.default_rng(seed).uniform(4, 7, len(BLOCKS))
    grouping = cluster_classes(class_affinity(planted(frequencies)), 4)
    assert adjusted_rand_score(BLOCKS, grouping.assignment) == 1.0


def mean_of_transposed(values: np.ndarray) -> np.ndarray:
    return (values + values.T) / 2


def noise(size: int, rng: np.random.Generator) -> np.ndarray:
    return mean_of_transposed(rng.gamma(0.3, size=(size, size)))


def mostly_empty(size: int, rng: np.random.Generator) -> np.ndarray:
    return mean_of_transposed(rng.gamma(0.03, size=(size, size))) + 1e-9


def skewed(size: int, rng: np.random.Generator) -> np.ndarray:
    """Degrees over six powers of ten."""
    roots = 10 ** rng.uniform(-1.5, 1.5, size)
    return noise(size, rng) * np.outer(roots, roots)


def families(size: int, rng: np.random.Generator) -> np.ndarray:
    """Blocks of about six classes under a little noise."""
    family = rng.permutation(size) % max(2, size // 6)
    return np.equal.outer(family, family) + 0.01 * mean_of_transposed(rng.random((size, size)))


def twins(size: int, rng: np.random.Generator) -> np.ndarray:
    """The second half of the classes are the first's, but for a millionth."""
    half = np.arange(size) % ((size + 1) // 2)
    return noise(size, rng)[np.ix_(half, half)] * (1 + 1e-6 * mean_of_transposed(rng.random((size, size))))


def nearly_equal(size: int, rng: np.random.Generator) -> np.ndarray:
    """Eigenvalues that nearly coincide."""
    return 1 + 1e-4 * mean_of_transposed(rng.random((size, size)))


def points(size: int, rng: np.random.Generator) -> np.ndarray:
    """Nearness of points in a square."""
    where = rng.random((size, 2))
    return np.asarray(np.exp(-20 * ((where[:, None] - where) ** 2).sum(axis=2)))


AFFINITIES = (noise, mostly_empty, skewed, families, twins, nearly_equal, points)


def same_partition_as_scikit_learn(affinity: np.ndarray, grouping: Grouping) -> bool:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        oracle = SpectralClustering(
            grouping.num_groups, affinity="precomputed", assign_labels="cluster_qr", random_state=0
        )
        return Grouping.from_labels(oracle.fit_predict(affinity)) == grouping


@pytest.mark.parametrize("kind", AFFINITIES)
@pytest.mark.parametrize("size", [3, 5, 12, 40])
def test_partitions_equal_scikit_learn(size: int, kind: Callable[..., np.ndarray]) -> None:
    affinity = kind(size, np.random.default_rng(size))
    found = spectral_groupings(affinity)
    assert list(found) == list(range(2, size))
    for k, grouping in found.items():
        assert same_partition_as_scikit_learn(affinity, grouping), k


@pytest.mark.parametrize("kind", AFFINITIES)
def test_some_partitions_of_150_classes_equal_scikit_learn(kind: Callable[..., np.ndarray]) -> None:
    affinity = kind(150, np.random.default_rng(150))
    sizes = [148, 2, 3, 30, 75, 30, 110]
    found = spectral_groupings(affinity, sizes)
    assert list(found) == list(dict.fromkeys(sizes))
    for k, grouping in found.items():
        assert same_partition_as_scikit_learn(affinity, grouping), k


def by_definition(vectors: np.ndarray) -> Grouping:
    """Damle, Minden, Ying 2019, algorithm 1, as it stands."""
    size = vectors.shape[1]
    _, pivots = scipy.linalg.qr(vectors.T, mode="r", pivoting=True)
    turn, _ = scipy.linalg.polar(vectors[pivots[:size]].T)
    return Grouping.from_labels(np.abs(vectors @ turn).argmax(axis=1))


@pytest.mark.parametrize("kind", AFFINITIES)
@pytest.mark.parametrize("size", [3, 4, 7, 19, 60, 150])
def test_partitions_are_those_of_the_definition(size: int, kind: Callable[..., np.ndarray]) -> None:
    for seed in range(max(1, 60 // size)):
        affinity = kind(size, np.random.default_rng([seed, size]))
        np.fill_diagonal(affinity, 0)
        vectors = clustering._spectral_vectors(affinity)
        found = spectral_groupings(affinity)
        assert list(found) == list(range(2, size))
        for k in range(2, size, 1 + size // 30):
            assert by_definition(vectors[:, :k]) == found[k], (seed, k)


@pytest.mark.parametrize("powers", [4, 7, 12])
def test_degrees_of_any_ratio_give_the_partitions_of_the_definition(
    powers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Over some powers of ten, products of rows lose digits, and another way takes over."""
    slow: list[int] = []
    dependent = clustering._cluster_qr_dependent
    monkeypatch.setattr(clustering, "_cluster_qr_dependent", lambda rows: (slow.append(1), dependent(rows))[1])
    for seed in range(10):
        rng = np.random.default_rng([seed, powers])
        roots = 10 ** rng.uniform(-powers / 2, powers / 2, 20)
        affinity = noise(20, rng) * np.outer(roots, roots)
        np.fill_diagonal(affinity, 0)
        vectors = clustering._spectral_vectors(affinity)
        for k in range(1, 20):
            expected = by_definition(vectors[:, :k])
            assert spectral_groupings(affinity, [k]) == ({k: expected} if expected.num_groups == k else {}), (seed, k)
    assert bool(slow) == (powers == 12)


@pytest.mark.parametrize("size", [1, 2, 5, 30, 150])
@pytest.mark.parametrize("condition", [1.0, 3.0, 1e2, 1e4, 1e5])
def test_the_orthogonal_factor_is_that_of_the_polar_decomposition(size: int, condition: float) -> None:
    for seed in range(5):
        rng = np.random.default_rng([seed, size])
        left, right = (np.linalg.qr(rng.standard_normal((size, size)))[0] for _ in range(2))
        triangle = np.linalg.qr(left * np.geomspace(1, 1 / condition, size) @ right, mode="r") * 10 ** rng.uniform(
            -5, 5
        )
        found = clustering._orthogonal_factor(triangle)
        assert found is not None
        np.testing.assert_allclose(found.T @ found, np.eye(size), atol=1e-9)
        np.testing.assert_allclose(found, scipy.linalg.polar(triangle)[0], atol=1e-9)


def test_nearly_dependent_rows_have_no_orthogonal_factor() -> None:
    assert clustering._orthogonal_factor(np.array([[1.0, 1.0], [0.0, 1e-8]])) is None


def test_golden_partitions() -> None:
    golden = json.loads(shared("reference", "golden", "10_spectral_clustering.json").read_text())
    affinity = np.array(golden["inputs"]["affinity"])
    np.testing.assert_allclose(class_affinity(golden["inputs"]["confusion"], epsilon=0.0), affinity, rtol=1e-12)
    found = spectral_groupings(affinity)
    kmeans = spectral_groupings(affinity, assign="kmeans")
    for row in golden["outputs"]:
        assert list(found[row["k"]].assignment) == row["cluster_qr"]["canonical"], row["k"]
        if row["kmeans"]["min_ari_over_random_state_1_to_5"] == 1:  # elsewhere the golden depends on its seed
            assert list(kmeans[row["k"]].assignment) == row["kmeans"]["canonical"], row["k"]
    assert adjusted_rand_score(golden["inputs"]["groups"], found[7].assignment) == 1.0


def test_absent_classes_neither_warn_nor_tear_the_graph() -> None:
    counts = planted(np.full(len(BLOCKS), 1e6))
    counts[[2, 9]] = 0
    counts[:, [2, 9]] = 0
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = spectral_groupings(class_affinity(counts))
    assert all(grouping.num_groups == k for k, grouping in found.items())
    keep = [c for c in range(len(BLOCKS)) if c not in (2, 9)]
    # Two isolated classes and three blocks of present ones.
    labels = [found[5].assignment[c] for c in keep]
    assert adjusted_rand_score(BLOCKS[keep], labels) == 1.0


@pytest.mark.parametrize("seed", range(4))
def test_isolated_classes_do_not_move_the_others(seed: int) -> None:
    """However many classes are absent, the present ones are grouped as if those did not exist."""
    rng = np.random.default_rng(seed)
    counts = planted(10 ** rng.uniform(4, 7, len(BLOCKS)))
    counts = np.round(counts * rng.uniform(0.5, 1.5, counts.shape)).astype(np.int64)
    absent = rng.choice(len(BLOCKS), 2, replace=False)
    counts[absent] = 0
    counts[:, absent] = 0
    present = np.setdiff1d(np.arange(len(BLOCKS)), absent)
    alone = spectral_groupings(class_affinity(counts[np.ix_(present, present)]))
    compared = 0
    for grouping in spectral_groupings(class_affinity(counts)).values():
        labels = np.array(grouping.assignment)[present]
        expected = alone.get(len(set(labels)))
        if expected is not None:
            assert adjusted_rand_score(expected.assignment, labels) == 1.0
            compared += 1
    assert compared >= 5


@pytest.mark.parametrize("epsilon", [0.0, 1e-9])
def test_classes_that_are_never_confused_can_be_grouped_all_the_same(epsilon: float) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = spectral_groupings(class_affinity(np.eye(11) * 100, epsilon=epsilon))
    assert all(grouping.num_groups == k for k, grouping in found.items())


def test_kmeans_finds_separated_embeddings_and_puts_unknown_classes_somewhere() -> None:
    rng = np.random.default_rng(0)
    embeddings = rng.normal(size=(4, 16))[BLOCKS] * 10 + rng.normal(size=(len(BLOCKS), 16)) * 0.1
    assert adjusted_rand_score(BLOCKS, kmeans_groupings(embeddings)[4].assignment) == 1.0
    embeddings[0] = np.nan
    assert kmeans_groupings(embeddings)[3].num_groups == 3


def test_random_grouping_has_its_sizes_and_seed() -> None:
    grouping = random_grouping(10, [5, 3, 2], seed=4)
    assert sorted(len(g) for g in grouping.groups) == [2, 3, 5]
    assert grouping == random_grouping(10, [5, 3, 2], seed=4)
    assert len({random_grouping(10, [5, 3, 2], seed=s) for s in range(20)}) > 15
    with pytest.raises(PlanError, match="add up"):
        random_grouping(10, [5, 3], seed=0)


def test_halved_sizes_are_the_papers() -> None:
    assert halved_sizes(19, 2) == (5, 10)
    assert halved_sizes(40, 2) == (10, 20)


def test_wrong_sizes_are_named() -> None:
    with pytest.raises(PlanError, match=r"9 groups of 3 classes; allowed: 1..3"):
        cluster_classes(np.ones((3, 3)), 9)
    with pytest.raises(PlanError, match="square"):
        spectral_groupings(np.ones((3, 4)))
    with pytest.raises(PlanError, match=r"9 groups of 3 classes"):
        kmeans_groupings(np.ones((3, 2)), [9])


@pytest.mark.parametrize("value", [np.nan, np.inf, -1.0, 2.0])
def test_matrices_that_are_no_affinity_are_refused(value: float) -> None:
    affinity = np.ones((4, 4))
    affinity[1, 2] = value  # 2.0: not symmetric
    with pytest.raises(PlanError, match="finite, not negative and symmetric"):
        spectral_groupings(affinity)
    with pytest.raises(PlanError, match="allowed: 'cluster_qr', 'kmeans'"):
        spectral_groupings(np.ones((4, 4)), assign="discretize")  # type: ignore[arg-type]
    with pytest.raises(PlanError, match="epsilon = -1"):
        class_affinity(np.ones((4, 4)), epsilon=-1)
    with pytest.raises(PlanError, match="negative or infinite"):
        class_affinity(np.full((4, 4), -1))


def blocks_and_single_classes(noise: float, seed: int) -> tuple[np.ndarray, Grouping]:
    """Two blocks of three classes, of which 60 % of a class's pixels are right, four classes that are known alone, and
    `noise` as its share of the pixels, most of it between few pairs of classes."""
    truth = Grouping.from_groups([[0, 1, 2], [3, 4, 5], [6], [7], [8], [9]], 10)
    same = np.equal.outer(truth.assignment, truth.assignment)
    share = np.where(same, 0.2, 0.0)
    np.fill_diagonal(share, np.where(same.sum(1) > 1, 0.6, 1.0))
    spread = np.random.default_rng(seed).random((10, 10)) ** 4
    share = (1 - noise) * share + noise * spread / spread.sum(1, keepdims=True)
    return np.rint(share * 100_000).astype(np.int64), truth


@pytest.mark.parametrize("noise", [0.02, 0.1, 0.25])
def test_with_the_diagonal_kept_a_class_that_is_hardly_confused_stands_alone(noise: float) -> None:
    for seed in range(20):
        counts, truth = blocks_and_single_classes(noise, seed)
        assert spectral_groupings(class_affinity(counts), [6], diagonal="keep")[6] == truth


def test_without_the_diagonal_it_is_mostly_missed_under_noise() -> None:
    """Why the option is there: the usual Laplacian forgets how well a class is known."""
    drawn = [blocks_and_single_classes(0.25, seed) for seed in range(20)]
    found = [spectral_groupings(class_affinity(counts), [6])[6] == truth for counts, truth in drawn]
    assert sum(found) < 10


def test_the_diagonal_counts_only_where_it_is_kept() -> None:
    affinity = class_affinity(blocks_and_single_classes(0.1, 0)[0])
    lifted = affinity + np.diag(np.arange(10.0))
    assert spectral_groupings(affinity) == spectral_groupings(lifted)
    assert spectral_groupings(affinity, diagonal="keep") != spectral_groupings(lifted, diagonal="keep")
    with pytest.raises(PlanError, match="diagonal = 'both'; allowed: 'drop', 'keep'"):
        spectral_groupings(affinity, diagonal="both")  # type: ignore[arg-type]
