import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from hs3seg.errors import PlanError
from hs3seg.nn import CrossEntropy
from hs3seg.nn.fused_cross_entropy import enlarged_cross_entropy

IGNORE = 255


@settings(deadline=None, max_examples=80)
@given(
    groups=st.integers(2, 6),
    small=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    large=st.tuples(st.integers(1, 12), st.integers(1, 12)),
    ignored=st.sampled_from([0.0, 0.4, 1.0]),
    weighted=st.booleans(),
    smoothing=st.sampled_from([0.0, 0.2, 1.0]),
    seed=st.integers(0, 99),
)
def test_it_is_torchs_cross_entropy_of_the_enlarged_logits(
    groups: int,
    small: tuple[int, int],
    large: tuple[int, int],
    ignored: float,
    weighted: bool,
    smoothing: float,
    seed: int,
) -> None:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, groups, (3, *large), generator=generator)
    labels = torch.where(torch.rand(labels.shape, generator=generator) < ignored, IGNORE, labels)
    weights = torch.rand(groups, generator=generator) + 0.1 if weighted else None
    logits = (3 * torch.randn(3, groups, *small, generator=generator)).requires_grad_()
    oracle = F.cross_entropy(
        F.interpolate(logits, size=large, mode="bilinear", align_corners=False),
        labels,
        weights,
        ignore_index=IGNORE,
        label_smoothing=smoothing,
        reduction="sum",
    )
    found, total = enlarged_cross_entropy(logits, labels, weights, smoothing, IGNORE)
    torch.testing.assert_close(found, oracle, rtol=1e-4, atol=1e-4)
    valid = labels[labels != IGNORE]
    torch.testing.assert_close(total, weights[valid].sum() if weighted else torch.tensor(float(valid.numel())))
    (expected,) = torch.autograd.grad(oracle, logits)
    (gradient,) = torch.autograd.grad(0.3 * found, logits)
    torch.testing.assert_close(gradient, 0.3 * expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("size", [(12, 16), (13, 17)])
def test_precision_and_layout_of_the_logits_are_kept_and_nothing_is_rounded_in_between(size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    logits = torch.randn(2, 5, 3, 4).bfloat16().contiguous(memory_format=torch.channels_last).requires_grad_()
    labels = torch.randint(0, 5, (2, *size))
    plain = logits.detach().float().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        found = CrossEntropy(torch.rand(5), 0.1)(logits, labels)
    assert found.dtype == torch.float32
    torch.manual_seed(0)
    oracle = CrossEntropy()(plain, labels)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(CrossEntropy()(logits, labels), oracle)
    CrossEntropy()(logits, labels).backward()
    oracle.backward()
    assert logits.grad.dtype == torch.bfloat16
    assert logits.grad.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(logits.grad, plain.grad.bfloat16())


def test_without_gradients_only_the_value_is_made() -> None:
    logits, labels = torch.randn(2, 4, 3, 4), torch.randint(0, 4, (2, 12, 16))
    with torch.no_grad():
        value = CrossEntropy()(logits, labels)
    assert not value.requires_grad
    torch.testing.assert_close(value, CrossEntropy()(logits.requires_grad_(), labels).detach())


@pytest.mark.parametrize("size", [(12, 16), (13, 17)])
def test_wrong_weights_and_labels_are_not_taken(size: tuple[int, int]) -> None:
    logits, labels = torch.randn(2, 4, 3, 4), torch.randint(0, 4, (2, *size))
    with pytest.raises(PlanError, match="5 class weights for logits of 4 groups"):
        CrossEntropy(torch.ones(5))(logits, labels)
    for wrong in (4, 9, -1):
        labels[0, 0, 0] = wrong
        with pytest.raises((IndexError, RuntimeError), match="out of bounds|out of range"):
            CrossEntropy()(logits, labels)
