import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from hs3seg.errors import PlanError
from hs3seg.nn import strips as strips_module
from hs3seg.nn.fused_cross_entropy import enlarged_cross_entropy, hardest_cross_entropy
from hs3seg.nn.strips import Strips

IGNORE = 255
SIDES = st.tuples(st.integers(1, 9), st.integers(1, 9))
LABEL_SIDES = st.tuples(st.integers(1, 20), st.integers(1, 20))


@pytest.fixture(params=["strips", "whole"])
def strip_size(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Small strips and narrow products, so that small maps have many; or all images of the batch in one."""
    if request.param == "strips":
        monkeypatch.setattr(strips_module, "_CPU_STRIP", 100)
        monkeypatch.setattr(strips_module, "_LEAST_ROWS", 2)
        monkeypatch.setattr(strips_module, "_CPU_COLUMNS", 5)


def batch(groups: int, small: tuple[int, int], large: tuple[int, int], seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(3, groups, *small, generator=generator, dtype=torch.float64)
    labels = torch.randint(0, groups, (3, *large), generator=generator)
    labels[torch.rand(labels.shape, generator=generator) < 0.2] = IGNORE
    return logits.requires_grad_(), labels


def enlarged(logits: Tensor, labels: Tensor, align_corners: bool = False) -> Tensor:
    return F.interpolate(logits, size=labels.shape[-2:], mode="bilinear", align_corners=align_corners)


@settings(deadline=None, max_examples=60)
@given(
    small=SIDES,
    large=LABEL_SIDES,
    align_corners=st.booleans(),
    numbers=st.sampled_from([1, 30, 300, 10**6]),
    groups=st.integers(1, 4),
)
def test_strips_together_are_the_enlarged_map_and_their_reduction_is_its_transpose(
    small: tuple[int, int], large: tuple[int, int], align_corners: bool, numbers: int, groups: int
) -> None:
    logits, labels = batch(groups, small, large)
    moved = (logits - logits.amax(1, keepdim=True)).detach().requires_grad_()
    oracle = enlarged(moved, labels, align_corners)
    upstream = torch.randn(oracle.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    strips = Strips(logits, large, align_corners, numbers)
    found, back = torch.full_like(oracle, torch.nan), torch.empty_like(logits)
    for group in strips.groups():
        gradient = logits.new_zeros(small[0], group.stop - group.start, groups, small[1])
        for block in strips.rows:
            found[group, :, block.large] = strips.enlarge(group, block).permute(1, 2, 0, 3)
            strips.reduce(upstream[group, :, block.large].permute(2, 0, 1, 3), block, gradient)
        back[group] = gradient.permute(1, 2, 0, 3)
    torch.testing.assert_close(found, oracle)
    torch.testing.assert_close(back, torch.autograd.grad(oracle, moved, upstream)[0])


@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize("smoothing", [0.0, 0.1, 1.0])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize(
    ("small", "large"), [((5, 6), (20, 24)), ((4, 7), (11, 17)), ((6, 5), (6, 5)), ((9, 8), (5, 9))]
)
@pytest.mark.usefixtures("strip_size")
def test_sums_and_gradient_are_torchs_of_the_enlarged_logits(
    align_corners: bool, smoothing: float, weighted: bool, small: tuple[int, int], large: tuple[int, int]
) -> None:
    logits, labels = batch(4, small, large)
    weights = torch.tensor([0.5, 2.0, 0.0, 1.0], dtype=torch.float64) if weighted else None
    oracle = F.cross_entropy(
        enlarged(logits, labels, align_corners), labels, weights, None, IGNORE, None, "sum", smoothing
    )
    loss, total = enlarged_cross_entropy(logits, labels, weights, smoothing, IGNORE, align_corners)
    known = labels[labels != IGNORE]
    torch.testing.assert_close(loss, oracle)
    torch.testing.assert_close(total, weights[known].sum() if weighted else torch.tensor(len(known)).double())
    (expected,) = torch.autograd.grad(oracle, logits)
    torch.testing.assert_close(torch.autograd.grad(-2 * loss, logits)[0], -2 * expected)


def test_the_gradient_is_the_slope_of_the_loss() -> None:
    logits, labels = batch(3, (3, 4), (7, 8))
    weights = torch.tensor([0.5, 2.0, 1.0])

    def loss(values: Tensor) -> Tensor:
        return enlarged_cross_entropy(values, labels, weights, 0.2, IGNORE)[0]

    def hardest(values: Tensor) -> Tensor:
        return hardest_cross_entropy(values, labels, 0.5, 3, weights, IGNORE)[0]

    assert torch.autograd.gradcheck(loss, (logits,))
    assert torch.autograd.gradcheck(hardest, (logits,))


@pytest.mark.parametrize(("threshold", "kept"), [(0.3, 1), (0.3, 400), (1e-9, 17), (0.0, 1), (1.0, 1), (0.5, 10**6)])
@pytest.mark.usefixtures("strip_size")
def test_hardest_pixels_are_those_below_the_threshold_or_the_given_number(threshold: float, kept: int) -> None:
    logits, labels = batch(4, (5, 6), (20, 24))
    weights = torch.tensor([0.5, 2.0, 0.3, 1.0], dtype=torch.float64)
    losses = F.cross_entropy(enlarged(logits, labels), labels, weights, reduction="none", ignore_index=IGNORE)
    known = labels != IGNORE
    truth = enlarged(logits, labels).softmax(1).gather(1, labels.where(known, 0)[:, None])[:, 0][known]
    bound = max(threshold, float(truth.detach().sort().values[min(kept, truth.numel()) - 1]))
    chosen = losses[known][truth <= bound + 1e-12]
    loss, number = hardest_cross_entropy(logits, labels, threshold, kept, weights, IGNORE)
    assert int(number) == chosen.numel()
    torch.testing.assert_close(loss, chosen.sum())
    torch.testing.assert_close(torch.autograd.grad(loss, logits)[0], torch.autograd.grad(chosen.sum(), logits)[0])


def test_nothing_labelled_gives_zeros() -> None:
    logits, labels = batch(4, (5, 6), (20, 24))
    labels.fill_(IGNORE)
    for loss, number in (enlarged_cross_entropy(logits, labels), hardest_cross_entropy(logits, labels, 0.5, 100)):
        assert loss.item() == number.item() == 0
        assert not torch.autograd.grad(loss, logits)[0].any()


@pytest.mark.parametrize("offset", [0.0, 1e4, -1e4])
def test_float32_agrees_with_float64_however_large_the_logits_are(offset: float) -> None:
    logits, labels = batch(7, (6, 8), (24, 32))
    single = (logits.detach() + offset).float().requires_grad_()
    exact = single.detach().double().requires_grad_()
    for smoothing in (0.0, 0.1):
        loss = enlarged_cross_entropy(single, labels, None, smoothing)[0]
        oracle = F.cross_entropy(
            enlarged(exact, labels), labels, reduction="sum", ignore_index=IGNORE, label_smoothing=smoothing
        )
        torch.testing.assert_close(loss.double(), oracle, rtol=1e-5, atol=0)
        gradient, expected = torch.autograd.grad(loss, single)[0], torch.autograd.grad(oracle, exact)[0]
        torch.testing.assert_close(gradient.double(), expected, rtol=0, atol=1e-5 * float(expected.abs().max()))


def test_a_value_made_for_inference_does_not_spoil_later_training() -> None:
    strips_module.blocks.cache_clear()
    logits, labels = batch(4, (5, 6), (20, 24))
    with torch.inference_mode():
        value, total = enlarged_cross_entropy(logits, labels)
        assert hardest_cross_entropy(logits, labels, 1.0, 1)[1] == total
    loss, _ = enlarged_cross_entropy(logits, labels)
    assert torch.equal(loss.detach(), value.clone())
    assert torch.autograd.grad(loss, logits)[0].any()


def test_confident_logits_overflow_nowhere() -> None:
    logits, labels = batch(4, (5, 6), (20, 24))
    steep = (300 * logits.detach()).float().requires_grad_()
    loss, _ = enlarged_cross_entropy(steep, labels)
    oracle = F.cross_entropy(enlarged(steep, labels), labels, reduction="sum", ignore_index=IGNORE)
    torch.testing.assert_close(loss, oracle)
    torch.testing.assert_close(torch.autograd.grad(loss, steep), torch.autograd.grad(oracle, steep), atol=1e-3, rtol=0)


@pytest.mark.parametrize("largest", [1.0, 59.0, 61.0, 200.0])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("threshold", [None, 0.5])
def test_with_and_without_each_pixels_largest_logit_taken_off(
    largest: float, smoothing: float, threshold: float | None
) -> None:
    """From some range of logits on, their exponentials may be too small for float32."""
    logits, labels = batch(5, (5, 6), (20, 24))
    flat = logits.detach()
    moved = flat - flat.amax(1, keepdim=True)
    single = (moved * (largest / -moved.amin())).float().requires_grad_()
    exact = single.detach().double().requires_grad_()
    assert Strips(single, (20, 24)).exponentials_are_normal(slice(0, 3)) == (largest < 60)
    losses = []
    for values in (single, exact):
        if threshold is None:
            losses.append(enlarged_cross_entropy(values, labels, None, smoothing)[0])
        else:
            losses.append(hardest_cross_entropy(values, labels, threshold, 7)[0])
    oracle = F.cross_entropy(enlarged(exact, labels), labels, ignore_index=IGNORE, reduction="none")
    if threshold is None and not smoothing:
        torch.testing.assert_close(losses[1], oracle.sum())
    torch.testing.assert_close(losses[0].double(), losses[1], rtol=1e-5, atol=0)
    found, expected = torch.autograd.grad(losses[0], single)[0], torch.autograd.grad(losses[1], exact)[0]
    torch.testing.assert_close(found.double(), expected, rtol=0, atol=1e-5 * float(expected.abs().max()))


@pytest.mark.parametrize("setting", ["medium", "autocast"])
def test_nothing_is_rounded_to_half_precision(setting: str) -> None:
    logits, labels = batch(4, (40, 50), (160, 200))
    single = logits.detach().float().requires_grad_()
    expected = enlarged_cross_entropy(single, labels)[0]
    before = torch.get_float32_matmul_precision()
    try:
        if setting == "medium":
            torch.set_float32_matmul_precision("medium")
        with torch.autocast("cpu", torch.bfloat16, enabled=setting == "autocast"):
            found = enlarged_cross_entropy(single, labels)[0]
        assert torch.get_float32_matmul_precision() == ("medium" if setting == "medium" else before)
    finally:
        torch.set_float32_matmul_precision(before)
    assert torch.equal(found, expected)


def test_compiled_without_a_break_in_the_graph() -> None:
    logits, labels = batch(4, (5, 6), (20, 24))

    def losses(values: Tensor) -> Tensor:
        loss, total = enlarged_cross_entropy(2 * values, labels, None, 0.1)
        hardest, number = hardest_cross_entropy(2 * values, labels, 0.5, 100)
        return loss / total + hardest / number

    compiled = torch.compile(losses, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(logits), losses(logits))
    torch.testing.assert_close(
        torch.autograd.grad(compiled(logits), logits), torch.autograd.grad(losses(logits), logits)
    )


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_torchs_own_checks_of_an_operator(layout: torch.memory_format) -> None:
    logits, labels = batch(4, (5, 6), (20, 24))
    logits = logits.detach().to(memory_format=layout).requires_grad_()
    for threshold in (None, 0.5):
        torch.library.opcheck(
            torch.ops.hs3seg.enlarged_cross_entropy.default,
            (logits, labels, torch.ones(4), 0.1, IGNORE, False, threshold, 9, True),
            test_utils=("test_schema", "test_autograd_registration", "test_faketensor"),
        )


def test_a_second_derivative_is_refused() -> None:
    logits, labels = batch(4, (5, 6), (20, 24))
    (gradient,) = torch.autograd.grad(enlarged_cross_entropy(logits, labels)[0], logits, create_graph=True)
    with pytest.raises(PlanError, match=r"has no second derivative; for one, give F\.cross_entropy"):
        gradient.square().sum().backward()


def test_shapes_that_do_not_fit_are_named() -> None:
    logits, labels = batch(4, (5, 6), (20, 24))
    with pytest.raises(PlanError, match="3 class weights for logits of 4 groups"):
        enlarged_cross_entropy(logits, labels, torch.ones(3))
    with pytest.raises(PlanError, match=r"labels of shape \(2, 20, 24\) for logits of shape \(3, 4, 5, 6\)"):
        hardest_cross_entropy(logits, labels[:2], 0.5, 1)
