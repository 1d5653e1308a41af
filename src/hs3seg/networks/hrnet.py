"""HRNetV2 for segmentation on timm's trunks, plain and with OCR.

Shapes: N batch, K classes, C channels; H x W the image. `conv1 .. stage4` stand at the top level of the network, so
that state-dict names equal the official code's and a tap is called `stage2`.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import timm
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torch import Tensor, nn
from torch.nn import functional as F

from hs3seg.nn.heads import StageHead
from hs3seg.nn.ocr import AUX_WEIGHT, OCRBlock, set_bn_momentum
from hs3seg.nn.resize import concatenate, resize


class HRNetTrunk(nn.Module):
    """Parallel branches at 1/4 .. 1/32; the last stage's maps, brought to 1/4 and concatenated, are the features.

    Any image size works: a map is resized to the size of its partner, not by a fixed factor.

    Args:
        trunk: timm's name: `hrnet_w18_small`, `hrnet_w18_small_v2`, `hrnet_w18`, `hrnet_w48`.
        in_channels: Channels of the image.
        align_corners: Of every bilinear resize.
        pretrained: Load timm's ImageNet weights.
    """

    mean: tuple[float, ...] = IMAGENET_DEFAULT_MEAN
    std: tuple[float, ...] = IMAGENET_DEFAULT_STD
    full_size = False  # the official code gives logits at 1/4

    def __init__(
        self, trunk: str, *, in_channels: int = 3, align_corners: bool = False, pretrained: bool = False
    ) -> None:
        super().__init__()
        self.in_channels = in_channels
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
        self.feature_channels: int = sum(source.stage4_cfg["num_channels"])

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

    @property
    def ocr_widths(self) -> tuple[int, int]:
        """Mid and key channels of an OCR block: 512 and 256 on w48, in proportion (192 and 96) on w18."""
        return (512, 256) if self.feature_channels >= 720 else (192, 96)

    def drop_classifier(self) -> None:
        """Removes what makes logits of the features; then only `features` can be called."""
        for name in ("last_layer", "ocr", "cls_head"):
            self._modules.pop(name, None)

    def forward(self, images: Tensor) -> Tensor:
        """Features, see `features`."""
        return self.features(images)


class HRNetV2(HRNetTrunk):
    """The trunk and its classifier: 1x1, BatchNorm, ReLU, 1x1.

    Args:
        trunk: timm's name, see `HRNetTrunk`.
        num_classes: K.
        in_channels: Channels of the image.
        align_corners: The official HRNetV2 code has False.
        bn_momentum: The official HRNetV2 code has 0.01.
        pretrained: Load timm's ImageNet weights into the trunk.
    """

    auxiliary: Mapping[str, float] = {}

    def __init__(
        self,
        trunk: str,
        num_classes: int,
        *,
        in_channels: int = 3,
        align_corners: bool = False,
        bn_momentum: float = 0.01,
        pretrained: bool = False,
    ) -> None:
        super().__init__(trunk, in_channels=in_channels, align_corners=align_corners, pretrained=pretrained)
        self.num_classes = num_classes
        self.last_layer = StageHead(self.feature_channels, num_classes)
        set_bn_momentum(self, bn_momentum)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (N, K, H/4, W/4) of normalised images (N, 3, H, W)."""
        logits: Tensor = self.last_layer(self.features(images))
        return logits

    def outputs(self, images: Tensor) -> dict[str, Tensor]:
        """`final`, as `forward`."""
        return {"final": self(images)}


class HRNetOCR(HRNetTrunk):
    """The trunk, an OCR block and a 1x1 classifier.

    Args:
        trunk: timm's name, see `HRNetTrunk`.
        num_classes: K.
        mid: Channels of the OCR block.
        key: Channels of its attention.
        in_channels: Channels of the image.
        align_corners: The official HRNet-OCR code has True, HMS False.
        bn_momentum: The official code has 0.1.
        dropout: Of the block's output, in training.
        pretrained: Load timm's ImageNet weights into the trunk.
    """

    auxiliary: Mapping[str, float] = {"aux": AUX_WEIGHT}

    def __init__(
        self,
        trunk: str,
        num_classes: int,
        *,
        mid: int,
        key: int,
        in_channels: int = 3,
        align_corners: bool = True,
        bn_momentum: float = 0.1,
        dropout: float = 0.05,
        pretrained: bool = False,
    ) -> None:
        super().__init__(trunk, in_channels=in_channels, align_corners=align_corners, pretrained=pretrained)
        self.num_classes = num_classes
        self._widths = (mid, key)
        self.ocr = OCRBlock(self.feature_channels, mid, key, num_classes, dropout)
        self.cls_head = nn.Conv2d(mid, num_classes, 1)
        set_bn_momentum(self, bn_momentum)

    @property
    def ocr_widths(self) -> tuple[int, int]:
        """Mid and key channels that it was made with."""
        return self._widths

    def parts(self, images: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """All logits at 1/4, and the enhanced features (N, mid, H/4, W/4) that `final` was made from."""
        regions, enhanced = self.ocr(self.features(images))
        return {"aux": regions, "final": self.cls_head(enhanced)}, enhanced

    def forward(self, images: Tensor) -> Tensor:
        """Logits (N, K, H/4, W/4) of normalised images (N, 3, H, W)."""
        return self.parts(images)[0]["final"]

    def outputs(self, images: Tensor) -> dict[str, Tensor]:
        """`aux`, the logits of the object regions, and `final`: both (N, K, H/4, W/4)."""
        return self.parts(images)[0]


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
