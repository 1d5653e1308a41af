import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from hs3seg.nn import ClassHead, ProbedHead, group_logits
from hs3seg.taxonomy import Grouping

GROUPING = Grouping.from_labels([0, 1, 0, 2, 1])


@settings(deadline=None, max_examples=40)
@given(labels=st.lists(st.integers(0, 3), min_size=2, max_size=7), seed=st.integers(0, 99))
def test_a_group_has_the_probability_of_its_classes(labels: list[int], seed: int) -> None:
    grouping = Grouping.from_labels(labels)
    logits = (
        5
        * torch.randn(
            2, len(labels), 3, 4, generator=torch.Generator().manual_seed(seed), dtype=torch.float64
        ).requires_grad_()
    )
    groups = torch.tensor(grouping.assignment)
    found = group_logits(logits, groups, grouping.num_groups)
    classes = logits.softmax(1)
    oracle = torch.stack([classes[:, groups == g].sum(1) for g in range(grouping.num_groups)], 1)
    torch.testing.assert_close(found.softmax(1), oracle)
    upstream = torch.randn(oracle.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    (one,) = torch.autograd.grad(found.log_softmax(1), logits, upstream, retain_graph=True)
    (other,) = torch.autograd.grad(oracle.log(), logits, upstream)
    torch.testing.assert_close(one, other)


def test_a_group_far_behind_keeps_its_value_and_gradient() -> None:
    logits = torch.tensor([0.0, -300.0, -301.0]).view(1, 3, 1, 1).requires_grad_()
    found = group_logits(logits, torch.tensor([0, 1, 1]), 2)
    torch.testing.assert_close(found.flatten()[1], torch.tensor([-300.0, -301.0]).logsumexp(0))
    (gradient,) = torch.autograd.grad(found[0, 1, 0, 0], logits)
    torch.testing.assert_close(gradient.flatten(), torch.tensor([0.0, 0.7310586, 0.2689414]))


def test_half_precision_is_taken_in_single() -> None:
    assert group_logits(torch.zeros(1, 5, 2, 2, dtype=torch.bfloat16), torch.tensor([0, 1, 0, 2, 1]), 3).dtype == (
        torch.float32
    )


def test_a_class_head_gives_groups_and_its_state_has_all_classes() -> None:
    head = ClassHead(4, GROUPING).eval()
    features = torch.randn(2, 4, 3, 3)
    classes: Tensor = features
    for layer in head:
        classes = layer(classes)
    assert classes.shape[1] == 5
    assert head(features).shape[1] == 3
    torch.testing.assert_close(head(features)[:, 2], classes[:, 3])
    assert set(head.state_dict()) == set(ProbedHead(4, 5).state_dict())


def test_a_probe_teaches_the_last_layer_alone_and_the_other_logits_all_but_it() -> None:
    head = ProbedHead(4, 5)
    features = torch.randn(2, 4, 3, 3, requires_grad=True)
    labels = torch.randint(0, 5, (2, 3, 3))
    taught, probe = head(features)
    torch.testing.assert_close(taught, probe)
    assert head.eval()(features).shape == taught.shape
    head.train()
    F.cross_entropy(probe, labels).backward()
    assert features.grad is None
    assert head[0].weight.grad is None
    assert head[3].weight.grad is not None
    head.zero_grad()
    F.cross_entropy(head(features)[0], labels).backward()
    assert features.grad is not None
    assert head[0].weight.grad is not None
    assert head[3].weight.grad is None
