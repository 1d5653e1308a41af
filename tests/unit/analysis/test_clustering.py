import json
import warnings

import numpy as np
import pytest
from sklearn.cluster import SpectralClustering
from sklearn.metrics import adjusted_rand_score

from hs3seg.analysis import (
    class_affinity,
    cluster_classes,
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


@pytest.mark.parametrize("size", [5, 12, 40])
def test_partitions_equal_scikit_learn(size: int) -> None:
    values = np.random.default_rng(size).gamma(0.3, size=(size, size))
    affinity = (values + values.T) / 2
    found = spectral_groupings(affinity)
    assert list(found) == list(range(2, size))
    for k, grouping in found.items():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            oracle = SpectralClustering(k, affinity="precomputed", assign_labels="cluster_qr", random_state=0)
            labels = oracle.fit_predict(affinity)
        assert adjusted_rand_score(labels, grouping.assignment) == 1.0, k


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
