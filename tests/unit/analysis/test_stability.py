from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import adjusted_rand_score

from hs3seg.analysis import class_affinity, cluster_classes
from hs3seg.analysis.clustering import spectral_groupings
from hs3seg.analysis.per_image import Cells, PerImage, PerImageCounter
from hs3seg.analysis.stability import MANY_CLASSES, group_stability
from hs3seg.errors import PlanError
from hs3seg.taxonomy import Grouping

K = 6
PAIRS = Grouping.from_groups([[0, 1], [2, 3], [4, 5]], K)


def measured(within: float, across: float, *, count: int = 40, seed: int = 0, classes: int = K) -> PerImage:
    """Images of a network that mixes up the two classes of a pair, and all classes."""
    rng = np.random.default_rng(seed)
    counter = PerImageCounter({"stage2": Grouping.identity(classes), "final": Grouping.identity(classes)})
    for index in range(count):
        truth = rng.integers(0, classes, (12, 25))
        found = {}
        for output, factor in (("stage2", 1.0), ("final", 0.3)):
            said, lucky = truth.copy(), rng.random(truth.shape)
            said = np.where(lucky < within * factor, truth ^ 1, said)
            anywhere = rng.integers(0, classes, truth.shape)
            said = np.where(lucky > 1 - across * factor, anywhere, said)
            found[output] = said
        counter.add(index, f"image{index}", truth, found)
    return counter.result()


def test_a_clear_grouping_is_found_in_every_draw() -> None:
    (found,) = group_stability(measured(0.3, 0.05), {"stage2": 3}, bootstraps=30)
    assert found.grouping == PAIRS
    assert found.mean == 1
    assert found.interval() == (1, 1)
    labels = np.array(PAIRS.assignment)
    np.testing.assert_array_equal(found.together, labels[:, None] == labels)
    np.testing.assert_array_equal(found.agreements, 1)


def test_chance_groups_are_unstable() -> None:
    (clear,) = group_stability(measured(0.3, 0.05), {"stage2": 3}, bootstraps=30)
    (found,) = group_stability(measured(0.0, 0.3), {"stage2": 3}, bootstraps=30)
    assert found.mean < 0.6 < clear.mean
    low, high = found.interval()
    assert low < found.mean < high
    off = ~np.eye(K, dtype=bool)
    assert 0.05 < found.together[off].max() < 1


def test_draws_are_those_of_the_bootstrap_and_agreement_is_scikit_learns() -> None:
    counts = measured(0.0, 0.3)
    (found,) = group_stability(counts, {"stage2": 3}, bootstraps=5, seed=11)
    generator = np.random.default_rng(11)
    together = np.zeros((K, K))
    for agreement in found.agreements:
        drawn = counts.resample(generator)["stage2"]
        labels = cluster_classes(class_affinity(drawn), 3).assignment
        assert agreement == pytest.approx(adjusted_rand_score(found.grouping.assignment, labels))
        together += np.equal.outer(labels, labels)
    np.testing.assert_allclose(found.together, together / 5)


def test_the_choice_of_the_number_of_groups_is_repeated_too() -> None:
    counts = measured(0.3, 0.05)
    (found,) = group_stability(counts, {"stage2": 3}, bootstraps=30)
    assert len(found.sizes) == len(found.chosen_agreements) == 30
    same = found.sizes == 3
    np.testing.assert_array_equal(found.chosen_agreements[same], found.agreements[same])
    values = found.to_dict()
    assert sum(values["choice"]["num_groups"].values()) == 30
    assert values["adjusted_rand"] == {"mean": 1.0, "interval": [1.0, 1.0]}


def test_the_seed_decides() -> None:
    counts = measured(0.0, 0.3)
    runs = [group_stability(counts, {"stage2": 3}, bootstraps=10, seed=seed)[0].agreements for seed in (1, 1, 2)]
    np.testing.assert_array_equal(runs[0], runs[1])
    assert not np.array_equal(runs[0], runs[2])


def test_many_classes_choose_their_number_less_often() -> None:
    classes = MANY_CLASSES + 2
    counts = measured(0.3, 0.05, count=3, classes=classes)
    (found,) = group_stability(counts, {"stage2": classes // 2}, bootstraps=25)
    assert (len(found.agreements), len(found.sizes)) == (25, 20)


def test_what_cannot_be_drawn_is_refused() -> None:
    with pytest.raises(PlanError, match="1 draw of 2 images at least"):
        group_stability(measured(0.3, 0.05, count=1), {"stage2": 3})
    with pytest.raises(PlanError, match="stage 'stage9' was not measured with all 6 classes"):
        group_stability(measured(0.3, 0.05, count=2), {"stage9": 3})


def test_images_without_a_label_are_not_drawn() -> None:
    full = measured(0.3, 0.05, count=2)
    empty = PerImage(("empty", *full.names), np.array([0, *full.pixels]), moved(full), full.agreed)
    for seed in range(5):
        (found,) = group_stability(empty, {"stage2": 3}, bootstraps=4, seed=seed)
        (expected,) = group_stability(full, {"stage2": 3}, bootstraps=4, seed=seed)
        np.testing.assert_array_equal(found.together, expected.together)
    one = PerImage(("empty", "full"), np.array([0, 300]), moved(measured(0.3, 0.05, count=1)), full.agreed)
    with pytest.raises(PlanError, match="draws of 1 labelled images"):
        group_stability(one, {"stage2": 3})


def moved(counts: PerImage) -> dict[str, Cells]:
    """The same matrices, each image's one place later."""
    return {name: replace(cells, image=cells.image + 1) for name, cells in counts.outputs.items()}


def test_the_diagonal_is_left_or_kept_as_it_was_for_the_plan() -> None:
    counts = measured(0.0, 0.3)
    total = counts.total()["stage2"]
    for diagonal in ("drop", "keep"):
        (found,) = group_stability(counts, {"stage2": 3}, bootstraps=2, diagonal=diagonal)
        assert found.grouping == spectral_groupings(class_affinity(total), [3], diagonal=diagonal)[3]


def test_the_choice_is_repeated_by_the_rule_that_made_the_plan() -> None:
    counts = measured(0.5, 0.02)
    (knee,) = group_stability(counts, {"stage2": 3}, bootstraps=20, rule="knee")
    (line,) = group_stability(counts, {"stage2": 3}, bootstraps=20)
    assert set(knee.sizes.tolist()) == {3}
    assert set(line.sizes.tolist()) != {3}
