"""Object-contextual representations (OCR): pixels look at the classes, or groups, of their image.

Shapes: N images, k regions (classes or groups), C, mid and key channels, h x w the map's size. Layers are in the order
of the official HRNet-OCR code, under its names (`ocr_distri_head.object_context_block.f_pixel`, ...).
"""

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hs3seg.nn.heads import StageHead

AUX_WEIGHT = 0.4
"""Loss weight of the final block's region logits, as the official code has it."""


class OCRBlock(nn.Module):
    """Region logits, and features that each pixel has enhanced by what it has in common with the regions.

    Args:
        in_channels: C of the features.
        mid: Channels of the enhanced features.
        key: Channels in which pixels and regions are compared.
        num_regions: k: classes, or groups of a stage (HS3-Fuse).
        dropout: Share of channels dropped from the enhanced features in training.
    """

    def __init__(self, in_channels: int, mid: int, key: int, num_regions: int, dropout: float = 0.05) -> None:
        super().__init__()
        self.aux_head = StageHead(in_channels, num_regions)
        self.conv3x3_ocr = nn.Sequential(
            nn.Conv2d(in_channels, mid, 3, padding=1), nn.BatchNorm2d(mid), nn.ReLU(inplace=True)
        )
        self.ocr_distri_head = _ContextHead(mid, key, dropout)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Region logits (N, k, h, w) and enhanced features (N, mid, h, w) of features (N, C, h, w)."""
        logits = self.aux_head(features)
        pixels = self.conv3x3_ocr(features)
        return logits, self.ocr_distri_head(pixels, gather_regions(pixels, logits))


def gather_regions(pixels: Tensor, logits: Tensor) -> Tensor:
    """One vector per region: the mean of the pixels' features, weighted by a softmax over all pixels.

    In float32 at least: the softmax over 131,072 pixels of a Cityscapes frame lies below fp16's normal range.

    Args:
        pixels: (N, mid, h, w).
        logits: (N, k, h, w).

    Returns:
        (N, mid, k, 1), in the precision of `pixels`.
    """
    with _full_precision(pixels):
        wide = torch.promote_types(pixels.dtype, torch.float32)
        weights = F.softmax(logits.flatten(2).to(wide), dim=2)  # (N, k, hw)
        regions = torch.bmm(weights, pixels.flatten(2).to(wide).transpose(1, 2))  # (N, k, mid)
    return regions.transpose(1, 2)[..., None].to(pixels.dtype)


def _full_precision(maps: Tensor) -> AbstractContextManager[object]:
    """No autocast inside; the meta device, on which costs are counted, has none."""
    return nullcontext() if maps.is_meta else torch.autocast(maps.device.type, enabled=False)


class _Attention(nn.Module):
    """Each pixel's mixture of the regions, weighted by similarity."""

    def __init__(self, mid: int, key: int) -> None:
        super().__init__()
        self.f_pixel = nn.Sequential(*_norm_conv(mid, key), *_norm_conv(key, key))
        self.f_object = nn.Sequential(*_norm_conv(mid, key), *_norm_conv(key, key))
        self.f_down = nn.Sequential(*_norm_conv(mid, key))
        self.f_up = nn.Sequential(*_norm_conv(key, mid))
        self.scale = key**-0.5

    def forward(self, pixels: Tensor, regions: Tensor) -> Tensor:
        n, _, h, w = pixels.shape
        query = self.f_pixel(pixels).flatten(2).transpose(1, 2)  # (N, hw, key)
        keys = self.f_object(regions).flatten(2)  # (N, key, k)
        values = self.f_down(regions).flatten(2).transpose(1, 2)  # (N, k, key)
        attention = F.softmax(torch.bmm(query, keys) * self.scale, dim=2).to(values.dtype)  # (N, hw, k)
        context = torch.bmm(attention, values).transpose(1, 2)  # (N, key, hw)
        mixed: Tensor = self.f_up(context.reshape(n, -1, h, w))
        return mixed


class _ContextHead(nn.Module):
    def __init__(self, mid: int, key: int, dropout: float) -> None:
        super().__init__()
        self.object_context_block = _Attention(mid, key)
        self.conv_bn_dropout = nn.Sequential(*_norm_conv(2 * mid, mid), nn.Dropout2d(dropout))

    def forward(self, pixels: Tensor, regions: Tensor) -> Tensor:
        context = self.object_context_block(pixels, regions)
        enhanced: Tensor = self.conv_bn_dropout(torch.cat([context, pixels], dim=1))
        return enhanced


def _norm_conv(in_channels: int, out_channels: int) -> tuple[nn.Module, nn.Module]:
    """1x1 without bias, then BatchNorm and ReLU as one entry, as the official names want it."""
    norm = nn.Sequential(nn.BatchNorm2d(out_channels), nn.ReLU(inplace=True))
    return nn.Conv2d(in_channels, out_channels, 1, bias=False), norm


def set_bn_momentum(network: nn.Module, momentum: float) -> None:
    """Sets the momentum of every BatchNorm."""
    for module in network.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.momentum = momentum
