from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics import confusion_matrix as oracle
from torch.nn import functional as F

from hs3seg.analysis import StagePlan, SupervisionPlan, analyze, deep_supervision, load_confusions
from hs3seg.errors import DataError, PlanError
from hs3seg.nn.recorder import ConfusionRecorder
from hs3seg.taxonomy import Grouping

NAMES = tuple("abcd")


def batch(seed: int, groups: int = 4) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    outputs = {
        "early": torch.randn(3, groups, 4, 6, generator=generator),
        "final": torch.randn(3, 4, 8, 12, generator=generator),
        "aux": torch.zeros(1),
    }
    labels = torch.randint(0, 5, (3, 16, 24), generator=generator)
    return outputs, torch.where(labels == 4, 255, labels)


@pytest.mark.parametrize("assignment", [[0, 1, 2, 3], [0, 1, 0, 1]])
def test_counts_equal_those_of_scikit_learn_over_all_batches(assignment):
    grouping = Grouping.from_labels(assignment)
    recorder = ConfusionRecorder(SupervisionPlan(NAMES, (StagePlan("early", grouping),)))
    expected = {"early": 0, "final": 0}
    for seed in range(2):
        outputs, labels = batch(seed, grouping.num_groups)
        recorder.update(outputs, labels)
        valid = labels != 255
        for name, table in (("early", torch.tensor(assignment)), ("final", torch.arange(4))):
            logits = F.interpolate(outputs[name], size=(16, 24), mode="bilinear")
            k = logits.shape[1]
            expected[name] += oracle(table[labels[valid]], logits.argmax(1)[valid], labels=range(k))
    found = recorder.confusions()
    assert list(found) == ["early", "final"]
    for name, matrix in expected.items():
        np.testing.assert_array_equal(found[name], matrix)


def test_the_plan_is_that_of_the_command_on_the_saved_matrices(tmp_path: Path):
    recorder = ConfusionRecorder(deep_supervision(NAMES, ["early"]))
    recorder.update(*batch(0))
    recorder.save(tmp_path / "confusion.npz")
    saved = load_confusions(tmp_path / "confusion.npz")
    assert recorder.make_plan(theta_degrees=40) == analyze(saved, NAMES, theta_degrees=40).plan


def test_what_does_not_fit_is_told():
    plan = deep_supervision(NAMES, ["early"])
    outputs, labels = batch(0)
    with pytest.raises(PlanError, match="no output 'early'; the network gave final"):
        ConfusionRecorder(plan).update({"final": outputs["final"]}, labels)
    with pytest.raises(DataError, match="label 4 in a mask of 4 classes"):
        ConfusionRecorder(plan).update(outputs, torch.where(labels == 255, 4, labels))
    with pytest.raises(PlanError, match="'early' has 3 groups, its grouping 4"):
        ConfusionRecorder(plan).update(batch(0, 3)[0], labels)
    merged = SupervisionPlan(NAMES, (StagePlan("early", Grouping.from_labels([0, 0, 1, 1])),))
    with pytest.raises(PlanError, match="'early' was supervised with groups"):
        ConfusionRecorder(merged).make_plan()


def test_outputs_and_labels_of_the_wrong_kind_are_told():
    recorder = ConfusionRecorder(deep_supervision(NAMES, ["early"]))
    outputs, labels = batch(0)
    with pytest.raises(PlanError, match="the recorder was given one tensor; give it all that the supervised network"):
        recorder.update(outputs["final"], labels)
    with pytest.raises(PlanError, match="the recorder was given a tuple; give it all"):
        recorder.update((outputs["early"], outputs["final"]), labels)
    with pytest.raises(DataError, match="labels are float32, and must be whole class ids"):
        recorder.update(outputs, labels / 255)
    with pytest.raises(PlanError, match=r"labels of shape \(16, 24\) for logits"):
        recorder.update(outputs, labels[0])
    assert not any(matrix.any() for matrix in recorder.confusions().values())


def test_a_plan_may_be_a_file(tmp_path: Path):
    plan = deep_supervision(NAMES, ["early"])
    plan.save(tmp_path / "plan.toml")
    for path in (tmp_path / "plan.toml", str(tmp_path / "plan.toml")):
        assert ConfusionRecorder(path).plan == plan
    with pytest.raises(PlanError, match="does not exist"):
        ConfusionRecorder("no.toml")
