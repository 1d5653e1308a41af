"""What must hold for every grouping, confusion matrix and plan."""

import json
import warnings

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sklearn.cluster import SpectralClustering
from sklearn.metrics import jaccard_score

from hs3seg.analysis import (
    StagePlan,
    SupervisionPlan,
    analyze,
    class_affinity,
    confusion_matrix,
    iou_per_class,
    mean_iou,
    pixel_accuracy,
    random_control,
    reversed_order,
    spectral_groupings,
)
from hs3seg.taxonomy import Grouping


@st.composite
def labelled(draw: st.DrawFn) -> tuple[int, np.ndarray, np.ndarray, Grouping]:
    count = draw(st.integers(2, 12))
    shape = draw(st.integers(1, 60))
    truth = draw(hnp.arrays(np.int64, shape, elements=st.one_of(st.integers(0, count - 1), st.just(255))))
    prediction = draw(hnp.arrays(np.int64, shape, elements=st.integers(0, count - 1)))
    grouping = Grouping.from_labels(draw(st.lists(st.integers(0, count - 1), min_size=count, max_size=count)))
    return count, truth, prediction, grouping


@given(labelled())
def test_counting_remapped_labels_equals_merging_counts(case: tuple[int, np.ndarray, np.ndarray, Grouping]) -> None:
    count, truth, prediction, grouping = case
    merged = grouping.merge(confusion_matrix(truth, prediction, count))
    direct = confusion_matrix(grouping.remap(truth), grouping.remap(prediction), grouping.num_groups)
    assert (merged == direct).all()
    assert merged.sum() == (truth != 255).sum()


@given(labelled())
def test_scores_equal_scikit_learn(case: tuple[int, np.ndarray, np.ndarray, Grouping]) -> None:
    count, truth, prediction, _ = case
    matrix = confusion_matrix(truth, prediction, count)
    valid = truth != 255
    ours = iou_per_class(matrix)
    if valid.any():
        oracle = jaccard_score(truth[valid], prediction[valid], labels=range(count), average=None, zero_division=0.0)
        present = np.unique(truth[valid])
        np.testing.assert_allclose(ours[present], oracle[present])
        assert np.isnan(np.delete(ours, present)).all()
        np.testing.assert_allclose(mean_iou(matrix), oracle[present].mean())
        np.testing.assert_allclose(pixel_accuracy(matrix), (truth == prediction)[valid].mean())
    else:
        assert np.isnan(ours).all()
        assert np.isnan(mean_iou(matrix))


@given(labelled())
def test_merging_in_two_steps_equals_merging_in_one(case: tuple[int, np.ndarray, np.ndarray, Grouping]) -> None:
    count, truth, prediction, grouping = case
    matrix = confusion_matrix(truth, prediction, count)
    all_in_one = Grouping.from_labels([0] * grouping.num_groups)
    assert all_in_one.merge(grouping.merge(matrix)) == matrix.sum()


@given(st.integers(3, 14), st.integers(0, 2**32 - 1))
def test_order_of_the_classes_does_not_matter_to_clustering(count: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    counts = np.round(rng.gamma(0.4, size=(count, count)) * 1e5).astype(np.int64) + 1
    order = rng.permutation(count)
    straight = spectral_groupings(class_affinity(counts))
    permuted = spectral_groupings(class_affinity(counts[np.ix_(order, order)]))
    for k, grouping in straight.items():
        assert Grouping.from_labels(np.array(grouping.assignment)[order]) == permuted[k]


@settings(deadline=None)
@given(st.integers(3, 24), st.floats(0.05, 2), st.floats(0, 3), st.integers(0, 2**32 - 1))
def test_partitions_are_scikit_learns_at_every_size(count: int, shape: float, skew: float, seed: int) -> None:
    """Full and mostly empty affinities, of classes of like and of very unlike degree."""
    rng = np.random.default_rng(seed)
    values = rng.gamma(shape, size=(count, count)) + 1e-6
    roots = 10 ** rng.uniform(-skew / 2, skew / 2, count)
    affinity = (values + values.T) * np.outer(roots, roots)
    for k, grouping in spectral_groupings(affinity).items():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            oracle = SpectralClustering(k, affinity="precomputed", assign_labels="cluster_qr", random_state=0)
            assert Grouping.from_labels(oracle.fit_predict(affinity)) == grouping


@settings(deadline=None, max_examples=50)
@given(st.data())
def test_any_counts_give_a_plan_that_holds_every_class_once(data: st.DataObject) -> None:
    """Mostly empty matrices, absent classes and classes that are only predicted included; no warning, no nan."""
    count = data.draw(st.integers(2, 9))
    counts = hnp.arrays(np.int64, (count, count), elements=st.sampled_from([0, 0, 0, 1, 7, 10**6, 10**12]))
    confusions = {name: data.draw(counts.filter(np.any)) for name in ("early", "late", "final")}
    theta = data.draw(st.one_of(st.none(), st.floats(0, 90)))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        study = analyze(confusions, theta_degrees=theta, normalize=data.draw(st.sampled_from(["true", "none"])))
    values = study.to_dict()
    json.dumps(values, allow_nan=False)
    for found in values["stages"].values():
        assert sorted(c for group in found["groups"] for c in group) == list(range(count))
        assert found["num_groups"] == len(found["groups"]) >= 2
    assert SupervisionPlan.from_toml(study.plan.to_toml()) == study.plan


NAMES = st.text(st.characters(codec="utf-8", exclude_categories=("Cs",)), min_size=1, max_size=8)


@settings(deadline=None)
@given(st.data())
def test_every_plan_reads_back_equal(data: st.DataObject) -> None:
    names = data.draw(st.lists(NAMES, min_size=2, max_size=8, unique=True))
    stages = data.draw(st.lists(NAMES.filter(lambda n: n != "final"), max_size=3, unique=True))
    labels = st.lists(st.integers(0, len(names) - 1), min_size=len(names), max_size=len(names)).filter(
        lambda found: len(set(found)) > 1
    )
    plan = SupervisionPlan(
        tuple(names),
        tuple(StagePlan(s, Grouping.from_labels(data.draw(labels)), data.draw(st.floats(0, 10))) for s in stages),
        "any",
        {"seed": 3, "absent_classes": []},
    )
    again = SupervisionPlan.from_toml(plan.to_toml())
    assert again == plan
    controls = (random_control(plan, seed=1), reversed_order(plan))
    for stage in plan.stages:
        random_sizes = sorted(len(g) for g in controls[0].stage(stage.stage).grouping.groups)
        assert random_sizes == sorted(len(g) for g in stage.grouping.groups)
    assert [s.grouping for s in controls[1].stages] == [s.grouping for s in reversed(plan.stages)]
