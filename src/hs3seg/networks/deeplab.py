"""DeepLabV3+ on WideResNet-38, as NVIDIA's segmentation code has it.

Shapes: N images, K classes, C channels; H x W the image. The trunk (WRN38-A2) keeps 1/8 of the image from `mod4` on and
dilates instead. State-dict names are the official ones.
"""

from collections import OrderedDict
from collections.abc import Mapping, Sequence

import torch
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torch import Tensor, nn

from hs3seg.errors import NetworkError
from hs3seg.nn.ocr import set_bn_momentum
from hs3seg.nn.resize import concatenate, resize

# Blocks, channels of their convolutions, dilation. mod6 and mod7 are bottlenecks (1x1, 3x3, 1x1) with dropout.
_MODULES: tuple[tuple[int, tuple[int, ...], int], ...] = (
    (3, (128, 128), 1),
    (3, (256, 256), 1),
    (6, (512, 512), 1),
    (3, (512, 1024), 2),
    (1, (512, 1024, 2048), 4),
    (1, (1024, 2048, 4096), 4),
)
_RATES = (12, 24, 36)  # of the pyramid's dilated convolutions, at 1/8


class DeepLabV3Plus(nn.Module):
    """Trunk, atrous spatial pyramid, and a decoder at half the image's size.

    Tap `backbone.mod2` (128 channels at 1/2), `backbone.mod3` (256 at 1/4), `backbone.mod4` (512 at 1/8) and so on.
    5824.8 GMACs at 1024x2048 with 19 classes, 137.1 M parameters. Sources: Chen et al., 2018; Wu et al., 2019 (trunk).

    Args:
        num_classes: K.
        in_channels: Channels of the image.
        align_corners: Of every bilinear resize.
        bn_momentum: Of every BatchNorm.
        dropout: Of whole channels in the trunk's last two blocks, in training; the official code has 0.3 and 0.5.
    """

    mean: tuple[float, ...] = IMAGENET_DEFAULT_MEAN
    std: tuple[float, ...] = IMAGENET_DEFAULT_STD
    auxiliary: Mapping[str, float] = {}
    full_size = True
    feature_channels = 256  # of `features`
    ocr_widths = (512, 256)  # mid and key of an OCR block on the features; the official code has none
    default_stages = ("backbone.mod2", "backbone.mod3")  # the trunk gives these to its decoder

    def __init__(
        self,
        num_classes: int,
        *,
        in_channels: int = 3,
        align_corners: bool = False,
        bn_momentum: float = 0.1,
        dropout: float | tuple[float, float] = (0.3, 0.5),
    ) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.in_channels = in_channels
        self.align_corners = align_corners
        self.backbone = WideResNet38(in_channels, (dropout, dropout) if isinstance(dropout, int | float) else dropout)
        self.aspp = _Pyramid(4096, 256, align_corners)
        self.bot_fine = nn.Conv2d(128, 48, 1, bias=False)
        self.bot_aspp = nn.Conv2d(5 * 256, 256, 1, bias=False)
        self.final = nn.Sequential(
            *_norm_conv(256 + 48, 256, 3), *_norm_conv(256, 256, 3), nn.Conv2d(256, num_classes, 1, bias=False)
        )
        for layer in self.final:
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight)  # the official code starts the decoder so, and nothing else
        set_bn_momentum(self, bn_momentum)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (N, K, H, W) of normalised images (N, 3, H, W)."""
        return self.classify(self.features(images), (images.shape[-2], images.shape[-1]))

    def outputs(self, images: Tensor) -> dict[str, Tensor]:
        """`final`, as `forward`; the official code has no auxiliary output here."""
        return {"final": self(images)}

    def features(self, images: Tensor) -> Tensor:
        """What the classifier sees: (N, 256, H/2, W/2)."""
        return self.decode(self.backbone(images))

    def decode(self, maps: Sequence[Tensor]) -> Tensor:
        """What the classifier sees, of the trunk's maps of mod2 (N, 128, H/2, W/2) and mod7 (N, 4096, H/8, W/8)."""
        fine, coarse = maps
        size = (fine.shape[-2], fine.shape[-1])
        context = self.bot_aspp(self.aspp(coarse))
        x = concatenate([self.bot_fine(fine), context], size, self.align_corners)
        for layer in self.final[:6]:
            x = layer(x)
        return x

    def classify(self, features: Tensor, size: tuple[int, int]) -> Tensor:
        """Logits (N, K, *size) of decoded features (N, 256, h, w)."""
        return resize(self.final[6](features), size, self.align_corners)

    def drop_classifier(self) -> None:
        """Removes what makes logits of the features; then only `features` and `decode` can be called."""
        self.final = self.final[:6]


class WideResNet38(nn.Module):
    """The trunk: (N, 3, H, W) -> maps of mod2 (N, 128, H/2, W/2) and mod7 (N, 4096, H/8, W/8).

    Args:
        in_channels: Channels of the image.
        dropout: Of mod6 and mod7.
    """

    def __init__(self, in_channels: int, dropout: tuple[float, float]) -> None:
        super().__init__()
        self.mod1 = nn.Sequential(OrderedDict(conv1=nn.Conv2d(in_channels, 64, 3, padding=1, bias=False)))
        width = 64
        for number, (blocks, channels, dilation) in enumerate(_MODULES, start=2):
            rate = dropout[number - 6] if number >= 6 else 0.0
            parts: OrderedDict[str, nn.Module] = OrderedDict()
            for b in range(blocks):
                stride = 2 if number == 4 and b == 0 else 1
                parts[f"block{b + 1}"] = _Block(width, channels, stride, dilation, rate)
                width = channels[-1]
            setattr(self, f"mod{number}", nn.Sequential(parts))
        self.pool2 = nn.MaxPool2d(3, stride=2, padding=1)
        self.pool3 = nn.MaxPool2d(3, stride=2, padding=1)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Maps of mod2 and mod7."""
        modules = dict(self.named_children())
        fine: Tensor = modules["mod2"](self.pool2(self.mod1(images)))
        x: Tensor = modules["mod3"](self.pool3(fine))
        for number in range(4, 8):
            x = modules[f"mod{number}"](x)
        return fine, x


class _Block(nn.Module):
    """Residual block with BatchNorm and ReLU first; the shortcut branches off behind them where widths differ."""

    def __init__(self, in_channels: int, channels: tuple[int, ...], stride: int, dilation: int, dropout: float) -> None:
        super().__init__()
        self.bn1 = _norm(in_channels)
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        bottleneck = len(channels) == 3
        width = in_channels
        for number, out in enumerate(channels, start=1):
            if number > 1:
                layers[f"bn{number}"] = _norm(width)
            if number == len(channels) and dropout:
                layers["dropout"] = nn.Dropout2d(dropout)  # whole channels, as the official trunk
            kernel = 1 if bottleneck and number != 2 else 3
            spread = dilation if kernel == 3 else 1
            layers[f"conv{number}"] = nn.Conv2d(
                width,
                out,
                kernel,
                stride=stride if number == 1 else 1,
                padding=spread * (kernel // 2),
                dilation=spread,
                bias=False,
            )
            width = out
        self.convs = nn.Sequential(layers)
        if stride != 1 or in_channels != width:
            self.proj_conv = nn.Conv2d(in_channels, width, 1, stride=stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, h, w) -> (N, C', h / stride, w / stride)."""
        activated = self.bn1(x)
        shortcut = self.proj_conv(activated) if hasattr(self, "proj_conv") else x
        out: Tensor = self.convs(activated) + shortcut
        return out


class _Pyramid(nn.Module):
    """(N, C, h, w) -> (N, 5 C', h, w): the image's mean, a 1x1 and three dilated 3x3 convolutions, in this order."""

    def __init__(self, in_channels: int, channels: int, align_corners: bool) -> None:
        super().__init__()
        self.align_corners = align_corners
        self.features = nn.ModuleList(
            [
                nn.Sequential(*_norm_conv(in_channels, channels, 1)),
                *(nn.Sequential(*_norm_conv(in_channels, channels, 3, rate)) for rate in _RATES),
            ]
        )
        self.img_conv = nn.Sequential(*_norm_conv(in_channels, channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Context of five sizes."""
        # Never `len`: an exported program would be tied to the example's number of images.
        learns = any(isinstance(layer, nn.BatchNorm2d) and layer.training for layer in self.img_conv)
        if learns and x.shape[0] == 1:
            raise NetworkError(
                "DeepLabV3+ was given 1 image to train on; its mean over the image has no statistics then: give at"
                " least 2 images per batch"
            )
        size = (x.shape[-2], x.shape[-1])
        mean = resize(self.img_conv(x.mean((2, 3), keepdim=True)), size, self.align_corners)
        return torch.cat([mean, *(layer(x) for layer in self.features)], dim=1)


def _norm(channels: int) -> nn.Sequential:
    return nn.Sequential(nn.BatchNorm2d(channels), nn.ReLU(inplace=True))


def _norm_conv(in_channels: int, channels: int, kernel: int, dilation: int = 1) -> tuple[nn.Module, ...]:
    conv = nn.Conv2d(in_channels, channels, kernel, padding=dilation * (kernel // 2), dilation=dilation, bias=False)
    return conv, nn.BatchNorm2d(channels), nn.ReLU(inplace=True)
