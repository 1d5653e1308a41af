"""Segmentation networks by name, with the figures of method and paper pinned in tests."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from torch import nn

from hs3seg.errors import NetworkError, nearest
from hs3seg.networks.hrnet import HRNetV2
from hs3seg.networks.pretrained import load_trunk

__all__ = ["HRNetV2", "create", "names"]

_NETWORKS: dict[str, Callable[..., nn.Module]] = {
    "hrnet_w18_small": partial(HRNetV2, "hrnet_w18_small"),
    "hrnet_w18": partial(HRNetV2, "hrnet_w18_small_v2"),  # the paper's w18: its GMACs are those of small-v2
    "hrnet_w18_full": partial(HRNetV2, "hrnet_w18"),
    "hrnet_w48": partial(HRNetV2, "hrnet_w48"),
}


def names() -> tuple[str, ...]:
    """Names that `create` takes."""
    return tuple(_NETWORKS)


def create(
    name: str,
    num_classes: int,
    *,
    pretrained: bool | str | Path = False,
    in_channels: int = 3,
    align_corners: bool = False,
    bn_momentum: float = 0.1,
) -> nn.Module:
    """Builds a segmentation network; its initial weights depend on torch's generator alone.

    Args:
        name: One of `names()`.
        num_classes: K, at least 2.
        pretrained: True = ImageNet weights of the trunk through timm; a path = a local file with trunk weights
            (.safetensors, or .pth without code in it) under timm's or the official names.
        in_channels: Channels of the image.
        align_corners: Bilinear convention inside the network.
        bn_momentum: Of every BatchNorm.

    Returns:
        A module with `mean` and `std` (RGB, 0..1) that takes (N, 3, H, W) and gives (N, K, H/4, W/4) logits.

    Raises:
        NetworkError: unknown name (the nearest is named), weights that cannot be had or do not fit.
    """
    if name not in _NETWORKS:
        raise NetworkError(f"unknown network '{name}'; {nearest(name, _NETWORKS)}")
    if num_classes < 2:
        raise NetworkError(f"num_classes = {num_classes}; a segmentation network needs at least 2")
    options = {"in_channels": in_channels, "align_corners": align_corners, "bn_momentum": bn_momentum}
    if pretrained is True:
        state = torch.get_rng_state()
        try:
            network = _NETWORKS[name](num_classes, pretrained=True, **options)
        except Exception as error:
            torch.set_rng_state(state)
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise NetworkError(
                f"ImageNet weights of '{name}' could not be fetched ({reason}); without a network connection give a"
                ' file that you have: network.pretrained = "path/to/weights.safetensors"'
            ) from None
        return network
    network = _NETWORKS[name](num_classes, **options)
    if pretrained:
        load_trunk(network, Path(pretrained))
    return network
