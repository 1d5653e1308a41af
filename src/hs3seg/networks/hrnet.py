"""HRNetV2 for segmentation on timm's trunks.

Shapes: N batch, K classes, C channels; H x W the image. `conv1 .. stage4` stand at the top level of the network, so
that state-dict names equal the official code's and a tap is called `stage2`.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import timm
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torch import Tensor, nn
from torch.nn import functional as F

from hs3seg.nn.resize import concatenate, resize


class HRNetV2(nn.Module):
    """Parallel branches at 1/4 .. 1/32; the last stage's maps, brought to 1/4 and concatenated, are classified.

    Any image size works: a map is resized to the size of its partner, not by a fixed factor.

    Args:
        trunk: timm's name: `hrnet_w18_small`, `hrnet_w18_small_v2`, `hrnet_w18`, `hrnet_w48`.
        num_classes: K.
        in_channels: Channels of the image.
        align_corners: Of every bilinear resize; the official HRNetV2 code has False, HRNet-OCR True.
        bn_momentum: The official code has 0.1 in HRNet-OCR and 0.01 in HRNetV2; 0.1 is torch's default and ours.
        pretrained: Load timm's ImageNet weights into the trunk.
    """

    mean: tuple[float, ...] = IMAGENET_DEFAULT_MEAN
    std: tuple[float, ...] = IMAGENET_DEFAULT_STD

    def __init__(
        self,
        trunk: str,
        num_classes: int,
        *,
        in_channels: int = 3,
        align_corners: bool = False,
        bn_momentum: float = 0.1,
        pretrained: bool = False,
    ) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.align_corners = align_corners
        source = timm.create_model(trunk, pretrained=pretrained, in_chans=in_channels, head="")
        self.conv1, self.bn1, self.act1 = source.conv1, source.bn1, source.act1
        self.conv2, self.bn2, self.act2 = source.conv2, source.bn2, source.act2
        self.layer1: nn.Module = source.layer1
        self.transition1: nn.ModuleList = source.transition1
        self.stage2: nn.Module = _stage(source.stage2, align_corners)
        self.transition2: nn.ModuleList = source.transition2
        self.stage3: nn.Module = _stage(source.stage3, align_corners)
        self.transition3: nn.ModuleList = source.transition3
        self.stage4: nn.Module = _stage(source.stage4, align_corners)
        channels = sum(source.stage4_cfg["num_channels"])
        self.last_layer = nn.Sequential(
            nn.Conv2d(channels, channels, 1),
            nn.BatchNorm2d(channels),
            nn.ReLU(inplace=True),
            nn.Conv2d(channels, num_classes, 1),
        )
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.momentum = bn_momentum

    def features(self, images: Tensor) -> Tensor:
        """Concatenated maps of stage 4.

        Args:
            images: (N, 3, H, W), normalised.

        Returns:
            (N, 15 C, H/4, W/4) with C channels in the finest branch.
        """
        x = self.act1(self.bn1(self.conv1(images)))  # (N, 64, H/2, W/2)
        x = self.layer1(self.act2(self.bn2(self.conv2(x))))  # (N, C1, H/4, W/4)
        maps = self.stage2([layer(x) for layer in self.transition1])
        maps = self.stage3(_widen(self.transition2, maps))
        maps = self.stage4(_widen(self.transition3, maps))
        return concatenate(maps, (maps[0].shape[-2], maps[0].shape[-1]), self.align_corners)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (N, K, H/4, W/4) of normalised images (N, 3, H, W)."""
        logits: Tensor = self.last_layer(self.features(images))
        return logits


class FusedBranches(nn.Module):
    """One HRNet module: every branch on its own, then each output sums all branches brought to its size.

    Holds timm's layers under timm's names. timm upsamples by nearest neighbour and by fixed factors where the official
    segmentation code is bilinear and goes by size; costs are equal, outputs are not.

    Args:
        branches: One per scale.
        fuse_layers: `fuse_layers[i][j]` takes branch j to output i.
        align_corners: Of the bilinear resize.
    """

    def __init__(self, branches: nn.ModuleList, fuse_layers: nn.ModuleList, align_corners: bool) -> None:
        super().__init__()
        self.branches = branches
        self.fuse_layers = nn.ModuleList(
            nn.ModuleList(_without_upsample(layer) if j > i else layer for j, layer in enumerate(row.children()))
            for i, row in enumerate(fuse_layers)
        )
        self.align_corners = align_corners

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Maps per branch, finest first -> as many maps of the same sizes."""
        maps = [branch(x) for branch, x in zip(self.branches, maps, strict=True)]
        return [self._fuse(i, row.children(), maps) for i, row in enumerate(self.fuse_layers)]

    def _fuse(self, i: int, row: Iterable[nn.Module], maps: Sequence[Tensor]) -> Tensor:
        total: Tensor | None = None
        for j, layer in enumerate(row):
            part = layer(maps[j])
            if j > i:
                part = resize(part, (maps[i].shape[-2], maps[i].shape[-1]), self.align_corners)
            total = part if total is None else total + part
        assert total is not None
        return F.relu(total)


def _stage(stage: nn.Sequential, align_corners: bool) -> nn.Sequential:
    """A trunk's stage with our way of fusing; it is called with a list of maps and gives one."""
    parts: Iterable[Any] = stage.children()
    return nn.Sequential(*(FusedBranches(m.branches, m.fuse_layers, align_corners) for m in parts))


def _without_upsample(layer: nn.Module) -> nn.Sequential:
    return nn.Sequential(*(part for part in layer.children() if not isinstance(part, nn.Upsample)))


def _widen(transition: nn.ModuleList, maps: Sequence[Tensor]) -> list[Tensor]:
    """Known branches go on as they are; a new, coarser one is made from the coarsest."""
    return [maps[i] if isinstance(layer, nn.Identity) else layer(maps[-1]) for i, layer in enumerate(transition)]
