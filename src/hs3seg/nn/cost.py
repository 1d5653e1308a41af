"""Multiply-accumulates and parameters of a network, where possible without computing anything."""

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

_ATTENTION = ("bmm", "baddbmm", "_scaled_dot_product")


@dataclass(frozen=True, slots=True)
class Cost:
    """Of one forward pass.

    Args:
        conv_macs: Of convolutions and linear layers.
        matmul_macs: Of products of activations (attention).
        parameters: Number of parameters.
    """

    conv_macs: int
    matmul_macs: int
    parameters: int

    @property
    def gmacs(self) -> float:
        """Convolution and linear multiply-accumulates in 10^9, as the paper counts."""
        return self.conv_macs / 1e9


class _Outputs(nn.Module):
    """A network whose `outputs` is its forward pass."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, images: Tensor) -> Any:
        return cast("Any", self.net).outputs(images)


def count_outputs(module: nn.Module, shape: tuple[int, ...]) -> Cost:
    """As `count_cost`, of `module.outputs(images)`: with the auxiliary heads that only training needs."""
    return count_cost(_Outputs(module), shape)


def count_cost(module: nn.Module, shape: tuple[int, ...]) -> Cost:
    """Counts one forward pass in evaluation mode.

    Args:
        module: Left as it is; a copy is run, without values (on the meta device) where the network allows it.
        shape: Of the input, e.g. (1, 3, 1024, 2048).
    """
    parameters = sum(p.numel() for p in module.parameters())
    try:
        flops = _flops(copy.deepcopy(module).to("meta"), torch.empty(shape, device="meta"))
    except (RuntimeError, NotImplementedError):  # raised where a network looks at values: meta has none
        flops = _flops(copy.deepcopy(module).cpu().float(), torch.zeros(shape))
    return _cost(flops, parameters)


def count_parts(module: nn.Module, shape: tuple[int, ...], inside: tuple[str, ...] = ()) -> dict[str, Cost]:
    """Cost of each part, in the order of the module's children; their sum is `count_cost`.

    Args:
        module: As for `count_cost`.
        shape: Of the input.
        inside: Children that are opened: their own children are listed as `child.part`.
    """
    copied = copy.deepcopy(module).to("meta").eval()
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        copied(torch.empty(shape, device="meta"))
    counts = counter.get_flop_counts()
    root = type(copied).__name__
    parts: dict[str, nn.Module] = {}
    for name, part in module.named_children():
        opened = {f"{name}.{inner}": child for inner, child in part.named_children()} if name in inside else {}
        parts |= opened or {name: part}
    found = {}
    for path, part in parts.items():
        cost = _cost(_sum_within(counts, f"{root}.{path}", part), sum(p.numel() for p in part.parameters()))
        if cost.parameters or cost.conv_macs or cost.matmul_macs:
            found[path] = cost
    return found


def _sum_within(counts: Mapping[str, Mapping[Any, int]], path: str, part: nn.Module) -> dict[str, int]:
    """Operator -> count of a part; one that never runs itself, such as a list, is the sum of what is in it."""
    if path in counts:
        return {str(op): count for op, count in counts[path].items()}
    total: dict[str, int] = {}
    for name, child in part.named_children():
        for op, count in _sum_within(counts, f"{path}.{name}", child).items():
            total[op] = total.get(op, 0) + count
    return total


def _cost(flops: dict[str, int], parameters: int) -> Cost:
    matmul = sum(count for op, count in flops.items() if any(name in op for name in _ATTENTION))
    return Cost((sum(flops.values()) - matmul) // 2, matmul // 2, parameters)


def _flops(module: nn.Module, images: Tensor) -> dict[str, int]:
    """Operator -> twice its multiply-accumulates."""
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        module.eval()(images)
    return {str(op): count for op, count in counter.get_flop_counts().get("Global", {}).items()}
