import pickle
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hs3seg.analysis import OnlinePlan, SupervisionPlan, single_phase
from hs3seg.errors import NetworkError, PlanError
from hs3seg.nn import HierarchicalLoss, OnlineLoss, group_logits, make_criteria, supervise
from hs3seg.nn.heads import probe_name
from hs3seg.taxonomy import Grouping

NAMES = ("a", "b", "c", "d")
PAIRS = Grouping.from_groups([[0, 1], [2, 3]], 4)
SETTINGS = OnlinePlan(warmup=0.2, interval=0.2, momentum=0.0, patience=1, theta_degrees=90.0)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.early = nn.Sequential(nn.Conv2d(3, 6, 3, 1, 1), nn.ReLU())
        self.last = nn.Conv2d(6, 4, 1)

    def forward(self, images: Tensor) -> Tensor:
        return self.last(self.early(images))


def plan_of(settings: OnlinePlan = SETTINGS) -> SupervisionPlan:
    return single_phase(NAMES, ["early"], 0.5, settings)


def logits_of(labels: Tensor, classes: int = 4) -> Tensor:
    """Logits that predict exactly these labels."""
    return 9 * F.one_hot(labels, classes).permute(0, 3, 1, 2).float()


def batch(seed: int = 0) -> tuple[dict[str, Tensor], Tensor]:
    """The early stage takes b for a and d for c; the final output knows all."""
    labels = torch.randint(0, 4, (2, 12, 16), generator=torch.Generator().manual_seed(seed))
    labels = labels.repeat_interleave(2, 1).repeat_interleave(2, 2)
    truth = labels[:, ::2, ::2]
    outputs = {"early": logits_of(truth // 2 * 2).requires_grad_(), "final": logits_of(truth).requires_grad_()}
    return outputs, labels


def test_with_all_classes_it_is_the_hierarchical_loss() -> None:
    outputs, labels = batch()
    plain = replace(plan_of(), online=None)
    torch.testing.assert_close(OnlineLoss(plan_of())(outputs, labels), HierarchicalLoss(plain)(outputs, labels))


def test_groups_follow_the_confusion_and_a_group_has_the_probability_of_its_classes() -> None:
    loss = OnlineLoss(plan_of())
    outputs, labels = batch()
    assert loss.start_epoch(0, 10) is None
    loss(outputs, labels)
    entry = loss.start_epoch(2, 10)
    assert entry is not None
    assert entry["changed"] == ["early"]
    assert loss.running.groupings["early"] == PAIRS
    probability = outputs["early"].softmax(1)
    early = torch.stack([probability[:, :2].sum(1), probability[:, 2:].sum(1)], 1).log()
    expected = F.cross_entropy(F.interpolate(early, size=labels.shape[-2:], mode="bilinear"), labels // 2)
    merged = group_logits(outputs["early"], torch.tensor(PAIRS.assignment), 2)
    terms = loss.terms(outputs, labels)
    oracle = F.cross_entropy(F.interpolate(merged, size=labels.shape[-2:], mode="bilinear"), labels // 2)
    torch.testing.assert_close(terms["early"], oracle)
    torch.testing.assert_close(terms["early"], expected, rtol=0.2, atol=1e-3)  # moved by what enlarging does in between
    assert loss.plan_now().stage("early").grouping == PAIRS
    assert loss.plan_now().online is None


def test_it_counts_labelled_cells_in_training_only() -> None:
    loss = OnlineLoss(plan_of())
    outputs, labels = batch()
    labels[0] = 255
    loss(outputs, labels)
    counts = loss.get_buffer("counts")
    truth = labels[1, ::2, ::2]
    assert torch.equal(counts[1], torch.diag(torch.bincount(truth.flatten(), minlength=4)))
    assert int(counts[0].sum()) == truth.numel()
    assert counts[0][:, [1, 3]].sum() == 0
    before = counts.clone()
    with torch.no_grad():
        loss(outputs, labels)
    loss.eval()(outputs, labels)
    assert torch.equal(counts, before)


def test_small_integers_are_counted_as_what_they_are() -> None:
    names = tuple(f"class {number}" for number in range(20))
    targets = torch.full((1, 8, 8), 19)
    right = F.one_hot(targets[:, ::2, ::2], 20).permute(0, 3, 1, 2).float()
    outputs = {name: right.clone().requires_grad_() for name in ("early", "final")}
    loss = OnlineLoss(single_phase(names, ("early",)))
    loss(outputs, targets.to(torch.uint8))
    assert int(loss.get_buffer("counts")[0, 19, 19]) == 16


def test_it_can_be_pickled() -> None:
    loss = pickle.loads(pickle.dumps(OnlineLoss(plan_of())))
    outputs, labels = batch()
    torch.testing.assert_close(loss(outputs, labels), OnlineLoss(plan_of())(outputs, labels))


def test_counts_of_the_first_steps_are_dropped() -> None:
    loss = OnlineLoss(plan_of(OnlinePlan(warmup=0.5, interval=0.2)))
    outputs, labels = batch()
    for epoch in range(3):
        loss.start_epoch(epoch, 10)
        loss(outputs, labels)
    assert int(loss.get_buffer("counts")[1].sum()) == labels.numel() // 4 * 1 * 1
    loss.start_epoch(3, 10)
    assert int(loss.get_buffer("counts").sum()) == 0
    loss(outputs, labels)
    loss.start_epoch(4, 10)
    assert int(loss.get_buffer("counts").sum()) > 0


def test_where_nothing_was_labelled_groups_stay() -> None:
    loss = OnlineLoss(plan_of(OnlinePlan(momentum=0.0)))
    outputs, labels = batch()
    loss(outputs, labels)
    assert loss.start_epoch(2, 10) is not None
    groupings = dict(loss.running.groupings)
    loss(outputs, torch.full_like(labels, 255))
    assert loss.start_epoch(4, 10) is None
    assert loss.running.groupings == groupings
    loss(outputs, labels)
    assert loss.start_epoch(5, 10) is not None


def test_class_weights_are_made_anew_for_new_groups() -> None:
    def criteria(plan: SupervisionPlan) -> dict[str, nn.Module]:
        return make_criteria(plan, class_weights="inverse_log", frequencies=[10, 20, 30, 1000])

    loss = OnlineLoss(plan_of(), criteria=criteria)
    outputs, labels = batch()
    loss(outputs, labels)
    loss.start_epoch(2, 10)
    oracle = make_criteria(loss.plan_now(), class_weights="inverse_log", frequencies=[10, 20, 30, 1000])["early"]
    merged = group_logits(outputs["early"], torch.tensor(PAIRS.assignment), 2)
    torch.testing.assert_close(loss.terms(outputs, labels)["early"], oracle(merged, labels // 2))


def test_it_goes_on_from_its_memory(tmp_path: Path) -> None:
    whole, half, rest = (OnlineLoss(plan_of()) for _ in range(3))
    for epoch in range(10):
        outputs, labels = batch(epoch)
        for loss in (whole, half if epoch < 5 else rest):
            loss.start_epoch(epoch, 10)
            loss(outputs, labels)
        if epoch == 4:
            torch.save(half.memory(), tmp_path / "state.pt")
            rest.restore(torch.load(tmp_path / "state.pt", weights_only=True))
            torch.testing.assert_close(rest(outputs, labels), half(outputs, labels))
            rest.restore(torch.load(tmp_path / "state.pt", weights_only=True))
    assert rest.running.history == whole.running.history
    assert torch.equal(rest.get_buffer("counts"), whole.get_buffer("counts"))
    whole.save_decisions(tmp_path)
    assert SupervisionPlan.load(tmp_path / "groups.toml").stages == whole.plan_now().stages
    assert (tmp_path / "groups.json").read_text().count('"progress"') == len(whole.running.history)


def test_the_probe_teaches_classes_to_the_last_layer_and_groups_to_everything_below() -> None:
    torch.manual_seed(0)
    model = supervise(Net(), plan=plan_of())
    loss = OnlineLoss(model.plan)
    loss.running.groupings["early"] = PAIRS
    loss._regroup()
    images, labels = torch.randn(2, 3, 8, 8), torch.randint(0, 4, (2, 8, 8))
    outputs = model(images)
    assert list(outputs) == ["early", "final", probe_name("early")]
    terms = loss.terms(outputs, labels)
    below = [model.net.early[0].weight, model.heads["early"][0].weight]
    own = model.heads["early"][3].weight
    found = torch.autograd.grad(terms["early"], [*below, own], retain_graph=True)
    value = F.cross_entropy(group_logits(outputs["early"], torch.tensor(PAIRS.assignment), 2), labels // 2)
    torch.testing.assert_close(terms["early"], value)
    for gradient, oracle in zip(found, torch.autograd.grad(value, below, retain_graph=True), strict=False):
        torch.testing.assert_close(gradient, oracle)
    probe = F.cross_entropy(outputs[probe_name("early")], labels)
    torch.testing.assert_close(found[2], torch.autograd.grad(probe, own)[0])
    model.eval()
    assert list(model(images)) == ["early", "final"]


def test_without_the_probe_there_is_no_such_output() -> None:
    model = supervise(Net(), plan=plan_of(replace(SETTINGS, probe=False)))
    assert list(model(torch.randn(2, 3, 8, 8))) == ["early", "final"]


def test_a_network_that_runs_its_stages_twice_cannot_have_probes() -> None:
    net = Net()
    net.passes = 2
    with pytest.raises(NetworkError, match="Net runs its stages several times; set probe = false"):
        supervise(net, plan=plan_of())


def test_a_held_out_split_is_measured_where_the_plan_wants_it() -> None:
    loss = OnlineLoss(plan_of(replace(SETTINGS, source="held_out")))
    outputs, labels = batch()
    loss(outputs, labels)
    assert int(loss.get_buffer("counts").sum()) == 0
    for epoch in (0, 2):  # long before it is due, too
        with pytest.raises(PlanError, match="held_out' needs `measure`"):
            loss.start_epoch(epoch, 10)
    early = np.kron(np.eye(2, dtype=np.int64), np.full((2, 2), 50))
    loss.start_epoch(2, 10, lambda: {"early": early, "final": 100 * np.eye(4, dtype=np.int64)})
    assert loss.running.groupings["early"] == PAIRS


def test_every_parameter_of_a_single_phase_learns_and_another_loss_is_refused() -> None:
    model = supervise(Net(), plan=plan_of(), example=torch.zeros(1, 3, 12, 16)).train()
    for plan in (model, model.plan):
        with pytest.raises(PlanError, match=r"single-phase HS3 needs OnlineLoss\(model\)"):
            HierarchicalLoss(plan)
    OnlineLoss(model)(model(torch.randn(2, 3, 12, 16)), torch.randint(0, 4, (2, 12, 16))).backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_a_plan_without_the_online_table_is_not_taken() -> None:
    with pytest.raises(PlanError, match=r"no \[online\] table"):
        OnlineLoss(replace(plan_of(), online=None))


PROCESS = """
import sys
import torch
import hs3seg
from hs3seg.analysis import single_phase
from hs3seg.nn import OnlineLoss

rank = int(sys.argv[1])
torch.distributed.init_process_group("gloo", init_method="file://" + sys.argv[2], rank=rank, world_size=2)
loss = OnlineLoss(single_phase(tuple("abcd"), ["early"]))
generator = torch.Generator().manual_seed(0)
outputs = {name: torch.randn(4, 4, 8, 8, generator=generator, requires_grad=True) for name in ("early", "final")}
labels = torch.randint(0, 4, (4, 16, 16), generator=generator)
share = slice(2 * rank, 2 * rank + 2)
loss({name: value[share] for name, value in outputs.items()}, labels[share])
torch.save(loss.get_buffer("counts"), sys.argv[3] + f"/{rank}.pt")
if rank == 0:
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()
    whole = OnlineLoss(single_phase(tuple("abcd"), ["early"]))
    whole(outputs, labels)
    torch.save(whole.get_buffer("counts"), sys.argv[3] + "/whole.pt")
else:
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()
"""


def test_two_processes_count_together_what_one_counts(tmp_path: Path) -> None:
    words = [sys.executable, "-c", PROCESS]
    running = [
        subprocess.Popen([*words, str(rank), str(tmp_path / "store"), str(tmp_path)], stderr=subprocess.PIPE)
        for rank in (0, 1)
    ]
    for process in running:
        _, told = process.communicate(timeout=120)
        assert process.returncode == 0, told.decode()[-2000:]
    first, second, whole = (torch.load(tmp_path / f"{name}.pt") for name in ("0", "1", "whole"))
    assert int(whole.sum()) == 2 * 4 * 8 * 8
    assert torch.equal(first, whole)
    assert torch.equal(second, whole)
