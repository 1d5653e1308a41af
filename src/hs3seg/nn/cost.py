"""Multiply-accumulates and parameters of a network, where possible without computing anything."""

import copy
from dataclasses import dataclass

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


def count_cost(module: nn.Module, shape: tuple[int, ...]) -> Cost:
    """Counts one forward pass in evaluation mode.

    Args:
        module: Left as it is; a copy is run, without values (on the meta device) where the network allows it.
        shape: Of the input, e.g. (1, 3, 1024, 2048).
    """
    parameters = sum(p.numel() for p in module.parameters())
    try:
        flops = _flops(copy.deepcopy(module).to("meta"), torch.empty(shape, device="meta"))
    except (RuntimeError, NotImplementedError):  # a network that looks at values cannot run without them
        flops = _flops(copy.deepcopy(module).cpu().float(), torch.zeros(shape))
    matmul = sum(count for op, count in flops.items() if any(name in op for name in _ATTENTION))
    return Cost((sum(flops.values()) - matmul) // 2, matmul // 2, parameters)


def _flops(module: nn.Module, images: Tensor) -> dict[str, int]:
    """Operator -> twice its multiply-accumulates."""
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        module.eval()(images)
    return {str(op): count for op, count in counter.get_flop_counts().get("Global", {}).items()}
