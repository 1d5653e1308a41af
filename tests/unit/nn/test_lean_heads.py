"""Heads run as soon as their stage has, and again in the backward pass: nothing but memory may change."""

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from hs3seg.nn import HierarchicalLoss, Supervised, supervise

EXAMPLE = torch.zeros(1, 3, 32, 48)


class Net(nn.Module):
    """Two stages; `late` writes to the first one's output after it ran."""

    def __init__(self, late: bool = False) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(3, 6, 3, 2, 1), nn.BatchNorm2d(6))
        self.second = nn.Sequential(nn.Conv2d(6, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU())
        self.last = nn.Conv2d(8, 4, 1)
        self.late = late

    def forward(self, images: Tensor) -> Tensor:
        x = self.first(images)
        x = torch.relu_(x) if self.late else torch.relu(x)
        return self.last(self.second(x))


def made(late: bool = False) -> Supervised:
    torch.manual_seed(0)
    return supervise(Net(late), ["first", "second"], example=EXAMPLE).train()


def waiting(model: Supervised) -> Supervised:
    """The same, whose heads run after the network and keep their activations."""
    model._changed_later = {"first", "second"}
    return model


def step(model: Supervised) -> dict[str, Tensor]:
    torch.manual_seed(1)
    images, labels = torch.randn(2, 3, 32, 48), torch.randint(0, 4, (2, 32, 48))
    HierarchicalLoss(model.plan)(model(images), labels).backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def calls_of(head: nn.Module) -> list[int]:
    calls: list[int] = []
    head.register_forward_pre_hook(lambda *_: calls.append(1))
    return calls


def test_gradients_and_running_statistics_are_the_same_to_the_bit() -> None:
    lean, plain = made(), waiting(made())
    for _ in range(2):
        found, expected = step(lean), step(plain)
        assert set(found) == set(expected) == {name for name, _ in plain.named_parameters()}
        for name in expected:
            assert torch.equal(found[name], expected[name]), name
    one, other = lean.state_dict(), plain.state_dict()
    for name in other:
        assert torch.equal(one[name], other[name]), name
    assert int(one["heads.first.1.num_batches_tracked"]) == 2


def test_a_head_runs_again_in_the_backward_pass_and_only_there() -> None:
    model = made()
    calls = calls_of(model.heads["first"])
    step(model)
    assert len(calls) == 2
    model.eval()(EXAMPLE)
    assert len(calls) == 3
    with torch.no_grad():
        model.train()(EXAMPLE.repeat(2, 1, 1, 1))
    assert len(calls) == 4


def test_a_graph_that_is_kept_can_be_walked_twice() -> None:
    model = made()
    outputs = model(torch.randn(2, 3, 32, 48))
    weight = model.heads["first"][0].weight
    total = outputs["first"].square().sum()
    one, other = (torch.autograd.grad(total, weight, retain_graph=True)[0] for _ in range(2))
    assert torch.equal(one, other)
    assert int(model.heads["first"][1].num_batches_tracked) == 1


def test_a_stage_that_is_written_to_later_gives_what_is_there_then() -> None:
    lean, plain = made(late=True), waiting(made(late=True))
    for _ in range(2):
        found, expected = step(lean), step(plain)
        for name in expected:
            torch.testing.assert_close(found[name], expected[name], msg=name)
    assert lean._changed_later == {"first"}
    torch.testing.assert_close(lean.eval()(EXAMPLE)["first"], plain.eval()(EXAMPLE)["first"], rtol=0.2, atol=0.2)


@pytest.mark.parametrize(
    "around",
    [torch.autograd.graph.save_on_cpu, lambda: torch.autograd.graph.saved_tensors_hooks(lambda x: x, lambda x: x)],
)
def test_where_somebody_watches_what_is_saved_heads_wait(around: Callable[[], object]) -> None:
    model = made()
    calls = calls_of(model.heads["first"])
    with around():  # type: ignore[attr-defined]
        found = step(model)
    assert len(calls) == 1
    for name, gradient in step(waiting(made())).items():
        assert torch.equal(found[name], gradient), name


def test_a_model_that_has_trained_can_be_copied() -> None:
    model = made()
    step(model)
    again = copy.deepcopy(model)
    again.zero_grad()
    model.zero_grad()
    for name, gradient in step(model).items():
        assert torch.equal(step_of(again)[name], gradient), name


def step_of(model: Supervised) -> dict[str, Tensor]:
    model = copy.deepcopy(model)
    return step(model)
