import pytest
import torch
from torch.nn import functional as F

from hs3seg.nn.resize import concatenate, resize


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("align_corners", [False, True])
def test_concatenation_has_torchs_values_and_gradients(memory_format: torch.memory_format, align_corners: bool) -> None:
    torch.manual_seed(0)
    maps = [torch.randn(2, c, h, w) for c, h, w in ((3, 9, 12), (4, 5, 6), (1, 2, 3))]
    maps = [m.contiguous(memory_format=memory_format).requires_grad_() for m in maps]
    options = {"size": (9, 12), "mode": "bilinear", "align_corners": align_corners}
    oracle = torch.cat([maps[0], *(F.interpolate(m, **options) for m in maps[1:])], 1)
    found = concatenate(maps, (9, 12), align_corners)
    assert torch.equal(found, oracle)
    weights = torch.randn_like(oracle)
    for a, b in zip(
        torch.autograd.grad((found * weights).sum(), maps),
        torch.autograd.grad((oracle * weights).sum(), maps),
        strict=True,
    ):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("count", [1, 2])
def test_the_gradient_of_an_enlarged_map_arrives_dense_and_channels_last(count: int) -> None:
    """torch's channels-last kernel is 10 times slower on a slice of a larger map."""
    layouts: list[bool] = []
    small = torch.randn(count, 4, 3, 4).contiguous(memory_format=torch.channels_last).requires_grad_()
    large = torch.randn(count, 4, 6, 8).contiguous(memory_format=torch.channels_last)
    seen = resize(small, (6, 8))
    found = concatenate([large, small], (6, 8))
    assert found.stride() == torch.empty(count, 8, 6, 8).to(memory_format=torch.channels_last).stride()
    (node,) = [n for n, _ in found.grad_fn.next_functions if n is not None]

    def look(gradients: tuple[torch.Tensor, ...], _outputs: object) -> None:
        layouts.append(gradients[0].is_contiguous(memory_format=torch.channels_last))

    node.register_hook(look)
    found.contiguous(memory_format=torch.channels_last).square().sum().backward()
    assert layouts == [True]
    assert torch.equal(found[:, 4:], seen)


def test_nothing_is_resized_that_fits() -> None:
    maps = torch.randn(1, 2, 3, 4)
    assert resize(maps, (3, 4)) is maps
