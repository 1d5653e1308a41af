"""Bilinear resizing that trains fast on a CPU, too.

Shapes: N images, C channels or k groups, h x w the given size, H x W the wanted one. Times are of torch 2.14 on one
core.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F


def resize(maps: Tensor, size: tuple[int, int], align_corners: bool = False) -> Tensor:
    """A map (N, C, h, w) at another size: (N, C, H, W)."""
    if _has_size(maps, size):
        return maps
    return F.interpolate(maps, size=size, mode="bilinear", align_corners=align_corners)


def aligns_corners(network: object) -> bool:
    """Whether a network's small logits are enlarged with align_corners, in loss and predictions alike.

    That is a property of the network: the official HRNet-OCR code enlarges so everywhere. Networks say it as
    `align_corners`; those that give logits of the image's size (`full_size`) leave nothing to enlarge but the stages'.
    """
    return getattr(network, "align_corners", False) is True and not getattr(network, "full_size", False)


def _has_size(maps: Tensor, size: tuple[int, int]) -> bool:
    if not torch.compiler.is_exporting():
        return tuple(maps.shape[-2:]) == tuple(size)
    # Comparing symbolic sizes would tie the exported program to the example's; only what always holds may count.
    from torch.fx.experimental.symbolic_shapes import statically_known_true

    return all(statically_known_true(have == want) for have, want in zip(maps.shape[-2:], size, strict=True))


def concatenate(maps: Sequence[Tensor], size: tuple[int, int], align_corners: bool = False) -> Tensor:
    """Maps (N, C_i, h_i, w_i), each brought to one size, side by side: (N, sum of C_i, H, W)."""
    return torch.cat([dense_gradient(resize(m, size, align_corners)) for m in maps], 1)


def dense_gradient(maps: Tensor) -> Tensor:
    """The same map; its gradient is made dense in memory.

    The gradient of a concatenation is a slice of a larger map. Channels-last bilinear kernels take that for
    channels-first and run 10 to 20 times slower (26 of 334 ms for a step of HRNet-w18-small), and adding it to another
    gradient takes 8 ms where a dense one takes half.
    """
    tracing: bool = torch.jit.is_tracing()  # type: ignore[attr-defined, no-untyped-call]
    if not maps.requires_grad or torch.compiler.is_compiling() or tracing:
        return maps
    dense: Tensor = _DenseGradient.apply(maps)
    return dense


class _DenseGradient(torch.autograd.Function):
    @staticmethod
    def forward(_ctx: Any, maps: Tensor) -> Tensor:
        # Not view_as, which gives a single image other strides: it would no longer pass for channels-last.
        return torch.ops.aten.alias(maps)  # type: ignore[no-any-return]

    @staticmethod
    @once_differentiable
    def backward(_ctx: Any, gradient: Tensor) -> Tensor:
        channels_last = gradient.shape[1] > 1 and gradient.stride(1) == 1
        return gradient.contiguous(memory_format=torch.channels_last if channels_last else torch.contiguous_format)
