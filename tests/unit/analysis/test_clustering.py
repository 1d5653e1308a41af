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
    for row in golden["outputs"]:
        assert list(found[row["k"]].assignment) == row["cluster_qr"]["canonical"], row["k"]


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
