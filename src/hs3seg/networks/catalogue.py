"""Networks by name: how each is built, and what of it can be set."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from hs3seg.errors import NetworkError, nearest
from hs3seg.networks.checkpoints import load_public_checkpoint
from hs3seg.networks.deeplab import DeepLabV3Plus
from hs3seg.networks.hms import MultiScale
from hs3seg.networks.hrnet import HRNetOCR, HRNetV2
from hs3seg.networks.sagate import SAGate


@dataclass(frozen=True)
class Entry:
    """One network: its builder, and where it comes from."""

    build: Callable[..., nn.Module]
    source: str


def _hms(num_classes: int, *, mid: int, key: int, bn_momentum: float = 0.1, **options: Any) -> MultiScale:
    options = {"align_corners": False} | options  # as NVIDIA's code; HRNet-OCR's own is True
    net = HRNetOCR("hrnet_w48", num_classes, mid=mid, key=key, bn_momentum=bn_momentum, **options)
    return MultiScale(net, mid, bn_momentum=bn_momentum)


_HRNET = "HRNetV2 (Wang et al., 2019), trunk of timm"
_OCR = "HRNet-OCR (Yuan et al., 2020), trunk of timm"

NETWORKS: dict[str, Entry] = {
    "hrnet_w18_small": Entry(partial(HRNetV2, "hrnet_w18_small"), f"{_HRNET}, small-v1"),
    "hrnet_w18": Entry(partial(HRNetV2, "hrnet_w18_small_v2"), f"{_HRNET}, small-v2: the paper's w18 by its GMACs"),
    "hrnet_w18_full": Entry(partial(HRNetV2, "hrnet_w18"), f"{_HRNET}, not the paper's w18"),
    "hrnet_w48": Entry(partial(HRNetV2, "hrnet_w48"), _HRNET),
    "hrnet_w18_small_ocr": Entry(partial(HRNetOCR, "hrnet_w18_small", mid=192, key=96), f"{_OCR}, small-v1"),
    "hrnet_w18_ocr": Entry(partial(HRNetOCR, "hrnet_w18_small_v2", mid=192, key=96), f"{_OCR}, small-v2"),
    "hrnet_w18_full_ocr": Entry(partial(HRNetOCR, "hrnet_w18", mid=192, key=96), _OCR),
    "hrnet_w48_ocr": Entry(partial(HRNetOCR, "hrnet_w48", mid=512, key=256), _OCR),
    "hrnet_w48_ocr_hms": Entry(
        partial(_hms, mid=512, key=256), "hierarchical multi-scale attention (Tao et al., 2020) on HRNet-OCR w48"
    ),
    "deeplabv3plus_wrn38": Entry(DeepLabV3Plus, "DeepLabV3+ (Chen et al., 2018) on WideResNet-38, as NVIDIA has it"),
    "sagate_resnet101": Entry(SAGate, "SA-Gate (Chen et al., 2020): RGB and HHA or raw depth"),
}

_SETTABLE = ("in_channels", "depth_channels", "align_corners", "bn_momentum", "dropout", "mid", "key")


def names() -> tuple[str, ...]:
    """Names that `create` takes."""
    return tuple(NETWORKS)


def create(
    name: str,
    num_classes: int,
    *,
    pretrained: bool | str | Path = False,
    in_channels: int | None = None,
    depth_channels: int | None = None,
    align_corners: bool | None = None,
    bn_momentum: float | None = None,
    dropout: float | None = None,
    mid: int | None = None,
    key: int | None = None,
) -> nn.Module:
    """Builds a segmentation network; its initial weights depend on torch's generator alone.

    None = as the official code of that network has it.

    Args:
        name: One of `names()`.
        num_classes: K, at least 2.
        pretrained: True = ImageNet weights of the trunk through timm; a path = a local file with trunk weights
            (.safetensors, or .pth without code in it) under timm's or the official names.
        in_channels: Channels of the image (3); networks of one input.
        depth_channels: SA-Gate: 3 = HHA, 1 = raw depth.
        align_corners: Bilinear convention inside the network.
        bn_momentum: Of every BatchNorm.
        dropout: Of the decoder, in training.
        mid: OCR: channels of the block (w18: 192, w48: 512).
        key: OCR: channels of its attention (w18: 96, w48: 256).

    Returns:
        A module with `mean` and `std` per input channel (0..1). `net(images)` gives the final logits at the resolution
        of the official code, `net.outputs(images)` a dict with `final` and the official auxiliary outputs, whose loss
        weights are `net.auxiliary`.

    Raises:
        NetworkError: unknown name (the nearest is named), an option that this network does not have, weights that
            cannot be had or do not fit.
    """
    if name not in NETWORKS:
        raise NetworkError(f"unknown network '{name}'; {nearest(name, NETWORKS)}")
    if num_classes < 2:
        raise NetworkError(f"num_classes = {num_classes}; a segmentation network needs at least 2")
    given = locals()
    options = {option: given[option] for option in _SETTABLE if given[option] is not None}
    build = NETWORKS[name].build
    allowed = options_of(name)
    for option in options:
        if option not in allowed:
            raise NetworkError(f"network '{name}' has no option '{option}'; it has {', '.join(allowed)}")
    if pretrained is True:
        if "pretrained" not in _parameters(build):
            raise NetworkError(
                f"timm has no ImageNet weights for the trunk of '{name}'; give a file that you have: network.pretrained"
                ' = "path/to/weights.pth"'
            )
        return _download(name, lambda: build(num_classes, pretrained=True, **options))
    network = build(num_classes, **options)
    if pretrained:
        load_public_checkpoint(network, Path(pretrained), parts="trunk")
    return network


def options_of(name: str) -> tuple[str, ...]:
    """Options of `create` that a network has."""
    parameters = _parameters(NETWORKS[name].build)
    return tuple(option for option in _SETTABLE if option in parameters)


def _parameters(build: Callable[..., nn.Module]) -> Mapping[str, inspect.Parameter]:
    target = build.func if isinstance(build, partial) else build
    parameters = dict(inspect.signature(target).parameters)
    if target is _hms:
        parameters |= inspect.signature(HRNetOCR).parameters
    return parameters


def _download(name: str, build: Callable[[], nn.Module]) -> nn.Module:
    state = torch.get_rng_state()
    try:
        return build()
    except Exception as error:
        torch.set_rng_state(state)
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise NetworkError(
            f"ImageNet weights of '{name}' could not be fetched ({reason}); without a network connection give a"
            ' file that you have: network.pretrained = "path/to/weights.safetensors"'
        ) from None
