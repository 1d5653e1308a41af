"""SA-Gate: RGB and depth in two ResNet-101 streams that are filtered, weighed and merged after every layer.

Shapes: N images, K classes, D depth channels, C channels; H x W the image, h x w a map's size. Names in the state dict
are the official code's, where everything of the depth stream is called `hha`.
"""

from collections.abc import Iterable, Mapping, Sequence

import torch
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torch import Tensor, nn
from torch.nn import functional as F

from hs3seg.errors import NetworkError
from hs3seg.nn.ocr import set_bn_momentum
from hs3seg.nn.resize import concatenate, resize

AUX_WEIGHT = 0.2
"""Loss weight of the auxiliary logits, as the official recipe has it."""


class SAGate(nn.Module):
    """Two-stream ResNet-101, DeepLabV3+ decoder, and an auxiliary head that only `outputs` runs.

    At 480x640, HHA, 40 classes: 192.58 GMACs with the auxiliary head, which the official code always runs, and 181.23
    without, which is what `forward` costs; 110.88 M parameters with it. Sources: Chen et al., 2020, and the released
    code where the paper is silent.

    Supervise `backbone.merge1` .. `merge4`: the merged maps with 256, 512, 1024, 2048 channels at 1/4, 1/8, 1/16, 1/16.
    They have no weights of their own.

    Args:
        num_classes: K.
        depth_channels: D: 3 = HHA, 1 = raw depth. Only the depth stream's first convolution depends on it.
        align_corners: Of every bilinear resize.
        bn_momentum: Of every BatchNorm.
        dropout: In training: share of whole channels of the decoder, of single values of the auxiliary head.
        blocks: Bottlenecks per layer; the default is ResNet-101.
    """

    auxiliary: Mapping[str, float] = {"aux": AUX_WEIGHT}
    full_size = True
    counted_with_auxiliary = True  # published costs are: the official code runs the auxiliary head at inference
    feature_channels = 256  # of `features`
    ocr_widths = (512, 256)  # mid and key of an OCR block on the features; the official code has none
    # Where the scale changes for the last two times: layers 3 and 4 share one.
    default_stages = ("backbone.merge1", "backbone.merge2")

    def __init__(
        self,
        num_classes: int,
        *,
        depth_channels: int = 3,
        align_corners: bool = True,
        bn_momentum: float = 0.1,
        dropout: float = 0.1,
        blocks: Sequence[int] = (3, 4, 23, 3),
    ) -> None:
        super().__init__()
        if depth_channels not in (1, 3):
            raise NetworkError(f"depth_channels = {depth_channels}; SA-Gate takes 3 (HHA) or 1 (raw depth)")
        self.num_classes = num_classes
        self.depth_channels = depth_channels
        self.in_channels = 3 + depth_channels
        self.align_corners = align_corners
        self.mean: tuple[float, ...] = (*IMAGENET_DEFAULT_MEAN, *_of_depth(IMAGENET_DEFAULT_MEAN, depth_channels))
        self.std: tuple[float, ...] = (*IMAGENET_DEFAULT_STD, *_of_depth(IMAGENET_DEFAULT_STD, depth_channels))
        self.backbone = _DualResNet(depth_channels, blocks)
        self.head = _Head(num_classes, align_corners, dropout)
        set_bn_momentum(self, bn_momentum)

    def forward(self, images: Tensor, depth: Tensor | None = None) -> Tensor:
        """Logits (N, K, H, W).

        Args:
            images: (N, 3 + D, H, W), normalised: RGB, then HHA or depth; or RGB alone, with `depth` given.
            depth: (N, D, H, W).

        Raises:
            NetworkError: a modality is missing or has the wrong number of channels, or sizes differ.
        """
        images = self._join(images, depth)
        return self.classify(self.features(images), (images.shape[-2], images.shape[-1]))

    def outputs(self, images: Tensor, depth: Tensor | None = None) -> dict[str, Tensor]:
        """`final`, as `forward`, and `aux`, logits of the last merged map: both (N, K, H, W)."""
        images = self._join(images, depth)
        features, auxiliary = self.features_and_auxiliary(images)
        return {"final": self.classify(features, (images.shape[-2], images.shape[-1])), **auxiliary}

    def features(self, images: Tensor) -> Tensor:
        """What the classifier sees, (N, 256, H/4, W/4), of images (N, 3 + D, H, W)."""
        return self.decode(self.backbone(self._join(images)))

    def features_and_auxiliary(self, images: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """As `features`, and of the same pass `aux`, logits of the last merged map: (N, K, H, W)."""
        images = self._join(images)
        merges = self.backbone(images)
        aux = resize(self.head.auxlayer(merges[-1]), (images.shape[-2], images.shape[-1]), self.align_corners)
        return self.decode(merges), {"aux": aux}

    def decode(self, merges: Sequence[Tensor]) -> Tensor:
        """What the classifier sees, (N, 256, H/4, W/4), of the backbone's four merged maps."""
        features: Tensor = self.head(merges)
        return features

    def classify(self, features: Tensor, size: tuple[int, int]) -> Tensor:
        """Logits (N, K, *size) of decoded features (N, 256, h, w)."""
        return resize(self.head.classify(features), size, self.align_corners)

    def drop_classifier(self) -> None:
        """Removes what makes logits of the features; features and the auxiliary logits are left."""
        self.head._modules.pop("classify", None)

    def _join(self, images: Tensor, depth: Tensor | None = None) -> Tensor:
        """RGB and depth as one tensor (N, 3 + D, H, W)."""
        given = [images] if depth is None else [images, depth]
        channels = [self.in_channels] if depth is None else [3, self.depth_channels]
        if any(m.ndim != 4 or m.shape[1] != c for m, c in zip(given, channels, strict=True)):
            found = " and ".join(str(tuple(m.shape)) for m in given)
            second, count = ("HHA", "3 channels") if self.depth_channels == 3 else ("depth", "1 channel")
            missing = f"; one modality is missing ({second}?)" if depth is None and images.shape[1:2] == (3,) else ""
            raise NetworkError(
                f"SA-Gate was given input of shape {found}{missing}; it needs both RGB and {second}, in this order: one"
                f" tensor (N, {self.in_channels}, H, W) with 3 channels of RGB, then {count} of {second}, or"
                f" (N, 3, H, W) and (N, {self.depth_channels}, H, W)"
            )
        if depth is None:
            return images
        if images.shape[0] != depth.shape[0] or images.shape[2:] != depth.shape[2:]:
            raise NetworkError(
                f"RGB {tuple(images.shape)} and depth {tuple(depth.shape)} differ in number or size; give them pixel by"
                " pixel, resized alike"
            )
        return torch.cat([images, depth], dim=1)


class _DualResNet(nn.Module):
    """Two ResNets with a stem of three 3x3 convolutions ("v1c"); layer 4 is dilated, not strided.

    Args:
        depth_channels: D.
        blocks: Bottlenecks per layer.
    """

    def __init__(self, depth_channels: int, blocks: Sequence[int]) -> None:
        super().__init__()
        self.conv1, self.hha_conv1 = _stem(3), _stem(depth_channels)
        self.bn1, self.hha_bn1 = nn.BatchNorm2d(128), nn.BatchNorm2d(128)
        first, second, third, fourth = blocks
        self.layer1 = _layer(128, 64, 1, [1] * first)
        self.layer2 = _layer(256, 128, 2, [1] * second)
        self.layer3 = _layer(512, 256, 2, [1] * third)
        self.layer4 = _layer(1024, 512, 1, [2 << b for b in range(fourth)])
        self.sagates = nn.ModuleList(_Gate(channels) for channels in (256, 512, 1024, 2048))
        # Places for hooks: what a gate gives has the streams in it, too.
        self.merge1, self.merge2, self.merge3, self.merge4 = (nn.Identity() for _ in range(4))

    def forward(self, images: Tensor) -> list[Tensor]:
        """Merged maps after each layer, of RGB and depth (N, 3 + D, H, W).

        Returns:
            (N, 256, H/4, W/4), (N, 512, H/8, W/8), (N, 1024, H/16, W/16), (N, 2048, H/16, W/16).
        """
        rgb = F.relu(self.bn1(self.conv1(images[:, :3])), inplace=True)  # (N, 128, H/2, W/2)
        hha = F.relu(self.hha_bn1(self.hha_conv1(images[:, 3:])), inplace=True)
        streams = F.max_pool2d(rgb, 3, stride=2, padding=1), F.max_pool2d(hha, 3, stride=2, padding=1)
        layers = (self.layer1, self.layer2, self.layer3, self.layer4)
        places = (self.merge1, self.merge2, self.merge3, self.merge4)
        merges: list[Tensor] = []
        for layer, gate, place in zip(layers, self.sagates, places, strict=True):
            streams, merged = gate(layer(streams))
            merges.append(place(merged))
        return merges


class _Bottleneck(nn.Module):
    """1x1, 3x3, 1x1 convolutions around a shortcut, in both streams.

    Where the shortcut needs a convolution, the streams share it with its BatchNorm, as in the released code: one module
    of two names, trained on both.

    Args:
        in_channels: C of each stream.
        width: Channels of the 3x3 convolution.
        stride: Of the 3x3 convolution and of the shortcut.
        dilation: Of the 3x3 convolution.
    """

    def __init__(self, in_channels: int, width: int, stride: int, dilation: int) -> None:
        super().__init__()
        shortcut = nn.Sequential()
        if stride != 1 or in_channels != 4 * width:
            shortcut = nn.Sequential(
                nn.Conv2d(in_channels, 4 * width, 1, stride, bias=False), nn.BatchNorm2d(4 * width)
            )
        self.conv1, self.bn1 = nn.Conv2d(in_channels, width, 1, bias=False), nn.BatchNorm2d(width)
        self.conv2, self.bn2 = _conv3x3(width, width, stride, dilation), nn.BatchNorm2d(width)
        self.conv3, self.bn3 = nn.Conv2d(width, 4 * width, 1, bias=False), nn.BatchNorm2d(4 * width)
        self.downsample = shortcut
        self.hha_conv1, self.hha_bn1 = nn.Conv2d(in_channels, width, 1, bias=False), nn.BatchNorm2d(width)
        self.hha_conv2, self.hha_bn2 = _conv3x3(width, width, stride, dilation), nn.BatchNorm2d(width)
        self.hha_conv3, self.hha_bn3 = nn.Conv2d(width, 4 * width, 1, bias=False), nn.BatchNorm2d(4 * width)
        self.hha_downsample = shortcut

    def forward(self, streams: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """RGB and depth, (N, C, h, w) each -> (N, 4 width, h/stride, w/stride) each."""
        rgb, hha = streams
        x = F.relu(self.bn1(self.conv1(rgb)), inplace=True)
        x = F.relu(self.bn2(self.conv2(x)), inplace=True)
        x = F.relu(self.bn3(self.conv3(x)) + self.downsample(rgb), inplace=True)
        y = F.relu(self.hha_bn1(self.hha_conv1(hha)), inplace=True)
        y = F.relu(self.hha_bn2(self.hha_conv2(y)), inplace=True)
        y = F.relu(self.hha_bn3(self.hha_conv3(y)) + self.hha_downsample(hha), inplace=True)
        return x, y


class _Gate(nn.Module):
    """Separation and aggregation: what each stream lets in of the other decides, pixel by pixel, which one counts.

    Args:
        channels: C of each stream.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.fsp_rgb, self.fsp_hha = _Separation(channels), _Separation(channels)
        self.gate_rgb, self.gate_hha = nn.Conv2d(2 * channels, 1, 1), nn.Conv2d(2 * channels, 1, 1)

    def forward(self, streams: tuple[Tensor, Tensor]) -> tuple[tuple[Tensor, Tensor], Tensor]:
        """RGB and depth (N, C, h, w) -> both streams for the next layer, and the merged map, all (N, C, h, w)."""
        rgb, hha = streams
        both = torch.cat([self.fsp_rgb(rgb, hha), self.fsp_hha(hha, rgb)], dim=1)  # (N, 2 C, h, w)
        gates = torch.cat([self.gate_rgb(both), self.gate_hha(both)], dim=1)
        shares = F.softmax(gates, dim=1).to(rgb.dtype)  # (N, 2, h, w); autocast gives float32
        merged = rgb * shares[:, :1] + hha * shares[:, 1:]
        # Means of maps that come out of a ReLU: another one would change nothing.
        return ((rgb + merged) / 2, (hha + merged) / 2), merged


class _Separation(nn.Module):
    """A stream, and the other one's channels weighted by what both have on average.

    Args:
        channels: C of each stream.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.filter = _Filter(channels)

    def forward(self, own: Tensor, other: Tensor) -> Tensor:
        """Two maps (N, C, h, w) -> one."""
        means = torch.cat([other.mean((2, 3)), own.mean((2, 3))], dim=1)  # (N, 2 C)
        weights: Tensor = self.filter(means)
        return own + weights[..., None, None] * other


class _Filter(nn.Module):
    """Channel weights in 0..1, (N, C), of two streams' means (N, 2 C)."""

    def __init__(self, channels: int, reduction: int = 16) -> None:
        super().__init__()
        narrow = channels // reduction
        self.fc = nn.Sequential(
            nn.Linear(2 * channels, narrow), nn.ReLU(inplace=True), nn.Linear(narrow, channels), nn.Sigmoid()
        )

    def forward(self, means: Tensor) -> Tensor:
        weights: Tensor = self.fc(means)
        return weights


class _Head(nn.Module):
    """Decoder of DeepLabV3+; `classify` and `auxlayer` are left to the caller.

    Args:
        num_classes: K.
        align_corners: Of the resize.
        dropout: See `SAGate`.
    """

    def __init__(self, num_classes: int, align_corners: bool, dropout: float) -> None:
        super().__init__()
        self.align_corners = align_corners
        self.aspp = _Pyramid(2048, 256, (6, 12, 18))
        self.reduce = nn.Sequential(nn.Conv2d(256, 48, 1, bias=False), nn.BatchNorm2d(48), nn.ReLU(inplace=True))
        self.last_conv = nn.Sequential(
            *_norm_relu(_conv3x3(256 + 48, 256)), *_norm_relu(_conv3x3(256, 256)), nn.Dropout2d(dropout)
        )
        self.classify = nn.Conv2d(256, num_classes, 1)
        self.auxlayer = _AuxHead(2048, num_classes, dropout)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_in", nonlinearity="relu")

    def forward(self, merges: Sequence[Tensor]) -> Tensor:
        """Merged maps, finest first -> features (N, 256, H/4, W/4)."""
        deep, fine = self.aspp(merges[-1]), self.reduce(merges[0])
        size = (fine.shape[-2], fine.shape[-1])
        features: Tensor = self.last_conv(concatenate([deep, fine], size, self.align_corners))
        return features


class _Pyramid(nn.Module):
    """Atrous spatial pyramid pooling with one BatchNorm over all convolutions and leaky ReLUs.

    Args:
        in_channels: C.
        width: Channels of every branch and of the output.
        rates: Dilations of the 3x3 convolutions.
    """

    def __init__(self, in_channels: int, width: int, rates: Sequence[int]) -> None:
        super().__init__()
        self.map_convs = nn.ModuleList(
            [nn.Conv2d(in_channels, width, 1, bias=False), *(_conv3x3(in_channels, width, 1, rate) for rate in rates)]
        )
        self.map_bn = nn.BatchNorm2d(width * (1 + len(rates)))
        self.global_pooling_conv = nn.Conv2d(in_channels, width, 1, bias=False)
        self.global_pooling_bn = nn.BatchNorm2d(width)
        self.red_conv = nn.Conv2d(width * (1 + len(rates)), width, 1, bias=False)
        self.pool_red_conv = nn.Conv2d(width, width, 1, bias=False)
        self.red_bn = nn.BatchNorm2d(width)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, h, w) -> (N, width, h, w)."""
        if self.global_pooling_bn.training and len(x) == 1 and isinstance(self.global_pooling_bn, nn.BatchNorm2d):
            raise NetworkError(
                "SA-Gate was given 1 image to train on; its globally pooled features have no statistics then: give at"
                " least 2 images per batch"
            )
        maps = self.map_bn(torch.cat([conv(x) for conv in self.map_convs], dim=1))
        pooled = self.global_pooling_bn(self.global_pooling_conv(x.mean((2, 3), keepdim=True)))  # (N, width, 1, 1)
        total = self.red_conv(F.leaky_relu(maps, inplace=True))
        total = total + self.pool_red_conv(F.leaky_relu(pooled, inplace=True))
        return F.leaky_relu(self.red_bn(total), inplace=True)


class _AuxHead(nn.Module):
    """Logits (N, K, h, w) of a map (N, C, h, w)."""

    def __init__(self, in_channels: int, num_classes: int, dropout: float) -> None:
        super().__init__()
        width = in_channels // 4
        self.block = nn.Sequential(
            *_norm_relu(_conv3x3(in_channels, width)), nn.Dropout(dropout), nn.Conv2d(width, num_classes, 1)
        )

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.block(x)
        return logits


def _conv3x3(in_channels: int, out_channels: int, stride: int = 1, dilation: int = 1) -> nn.Conv2d:
    return nn.Conv2d(in_channels, out_channels, 3, stride, padding=dilation, dilation=dilation, bias=False)


def _norm_relu(conv: nn.Conv2d) -> tuple[nn.Module, nn.Module, nn.Module]:
    return conv, nn.BatchNorm2d(conv.out_channels), nn.ReLU(inplace=True)


def _stem(in_channels: int) -> nn.Sequential:
    """(N, C, H, W) -> (N, 128, H/2, W/2), without the last BatchNorm."""
    return nn.Sequential(
        *_norm_relu(_conv3x3(in_channels, 64, stride=2)), *_norm_relu(_conv3x3(64, 64)), _conv3x3(64, 128)
    )


def _layer(in_channels: int, width: int, stride: int, dilations: Iterable[int]) -> nn.Sequential:
    """Bottlenecks; the first has the stride and widens to 4 * width."""
    return nn.Sequential(
        *(
            _Bottleneck(4 * width if b else in_channels, width, 1 if b else stride, dilation)
            for b, dilation in enumerate(dilations)
        )
    )


def _of_depth(values: tuple[float, ...], depth_channels: int) -> tuple[float, ...]:
    """A statistic of ImageNet's RGB for HHA as it is, for raw depth the average of its channels."""
    return values if depth_channels == 3 else (sum(values) / len(values),)
