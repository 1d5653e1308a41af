import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from hs3seg.nn import count_cost


class Attention(nn.Module):
    """Tokens of an image attend to each other; one linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.values = nn.Linear(3, 5)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        tokens = images.flatten(2).transpose(1, 2)  # (N, H W, 3)
        return F.softmax(tokens @ tokens.transpose(1, 2), -1) @ self.values(tokens)


class LooksAtValues(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.conv(images) * (2.0 if images.abs().sum().item() > 1 else 1.0)


def test_convolutions_linear_layers_and_attention_are_counted_apart() -> None:
    cost = count_cost(Attention(), (1, 3, 4, 6))
    assert (cost.conv_macs, cost.matmul_macs, cost.parameters) == (24 * 3 * 5, 24 * 24 * (3 + 5), 20)
    assert cost.gmacs == pytest.approx(360e-9)


def test_grouped_strided_and_transposed_convolutions() -> None:
    net = nn.Sequential(nn.Conv2d(4, 8, 3, 2, 1, groups=2), nn.ConvTranspose2d(8, 2, 2, 2, bias=False))
    cost = count_cost(net, (1, 4, 8, 8))
    assert cost.conv_macs == 16 * 8 * 2 * 9 + 16 * 8 * 2 * 4
    assert cost.parameters == 8 * 2 * 9 + 8 + 8 * 2 * 4


def test_a_network_that_looks_at_values_is_counted_too() -> None:
    assert count_cost(LooksAtValues(), (1, 3, 4, 6)).conv_macs == 24 * 3 * 4 * 9


def test_the_module_is_left_as_it_is() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)).train()
    before = copy.deepcopy(net.state_dict())
    count_cost(net, (1, 3, 4, 6))
    assert net.training
    assert all(torch.equal(a, b) for a, b in zip(before.values(), net.state_dict().values(), strict=True))
