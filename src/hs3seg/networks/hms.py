"""Hierarchical multi-scale attention (HMS): one network at several scales, joined pixel by pixel.

Shapes: N images, K classes, H x W the image. A pair of scales is joined with the attention of the LOWER one: where
it is 1, the lower scale's logits count. The same attention joins every other output, stages included.
"""

from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any, cast

from torch import Tensor, nn

from hs3seg.errors import NetworkError
from hs3seg.nn.ocr import set_bn_momentum
from hs3seg.nn.resize import resize

PER_SCALE_WEIGHT = 0.05
"""Loss weight of each scale's own logits, as the official recipes have it (supervised_mscale_loss_wt)."""


class MultiScale(nn.Module):
    """A network with OCR (or HS3-Fuse) that weighs its own results at several scales.

    Args:
        net: Gives `parts(images)` -> (logits by name, enhanced features); an HRNetOCR or a FusedSegmenter.
        mid: Channels of the enhanced features.
        bottleneck: Channels inside the attention.
        low_scale: The lower of the two scales in training.
    """

    auxiliary: Mapping[str, float] = {"aux": 0.4, "pred_0.5x": PER_SCALE_WEIGHT, "pred_1.0x": PER_SCALE_WEIGHT}
    full_size = True
    passes = 2  # how often a stage runs in one forward pass

    def __init__(
        self, net: nn.Module, mid: int, *, bottleneck: int = 256, low_scale: float = 0.5, bn_momentum: float = 0.1
    ) -> None:
        super().__init__()
        source = cast("Any", net)
        self.num_classes: int = source.num_classes
        self.in_channels: int = source.in_channels
        self.align_corners: bool = source.align_corners
        self.mean, self.std = source.mean, source.std
        self.low_scale = low_scale
        self.net = net
        self.scale_attn = ScaleAttention(mid, bottleneck)
        set_bn_momentum(self.scale_attn, bn_momentum)

    @property
    def default_stages(self) -> tuple[str, ...]:
        """Stages of the inner network."""
        return tuple(f"net.{stage}" for stage in ("stage2", "stage3"))

    @property
    def stage_outputs(self) -> dict[str, int]:
        """Stages that `outputs` has logits of (HS3-Fuse inside), with their numbers of groups."""
        inside: Mapping[str, int] = getattr(self.net, "stage_outputs", {})
        return {f"net.{stage}": groups for stage, groups in inside.items()}

    @property
    def widths(self) -> tuple[int, int]:
        """Mid and key channels of the final OCR block, with HS3-Fuse inside."""
        widths: tuple[int, int] = cast("Any", self.net).widths
        return widths

    def fit_attention(self, mid: int) -> None:
        """A new attention where the enhanced features have another width than before."""
        old = self.scale_attn.conv0
        if old.in_channels != mid:
            new = ScaleAttention(mid, old.out_channels)
            set_bn_momentum(new, self.scale_attn.bn0.momentum or 0.1)
            self.scale_attn = new.to(old.weight.device, old.weight.dtype)

    def forward(self, images: Tensor) -> Tensor:
        """Joint logits (N, K, H, W) of the training's two scales."""
        return self.outputs(images)["final"]

    def outputs(self, images: Tensor) -> dict[str, Tensor]:
        """The two scales joined, as in training.

        Returns:
            `final`, `aux` and, with HS3-Fuse inside, each stage: joint, (N, k, H, W). `pred_0.5x` and `pred_1.0x`: the
            logits of each scale alone, at the image's size. `attention` (N, 1, low H, low W): of the lower scale, at
            its own size.
        """
        low, attention = self._run(resize_by(images, self.low_scale))
        high, _ = self._run(images, with_attention=False)
        assert attention is not None
        size = (images.shape[-2], images.shape[-1])
        own = {stage.removeprefix("net."): stage for stage in self.stage_outputs}
        joint = {own.get(name, name): self._join(low[name], high[name], attention) for name in high}
        return joint | {
            "pred_0.5x": self._resize(low["final"], size),
            "pred_1.0x": high["final"],
            "attention": attention,
        }

    def join(self, low: Tensor, high: Tensor, outputs: Mapping[str, Tensor]) -> Tensor:
        """Joins another pair of logits, such as a supervised stage's, with the attention of a pass.

        Args:
            low: (N, k, h, w), of the lower scale.
            high: (N, k, h', w'), of the image's own.
            outputs: What `outputs` gave.

        Returns:
            (N, k, h', w').
        """
        attention = outputs["attention"]
        return self._join(self._resize(low, (attention.shape[-2], attention.shape[-1])), high, attention)

    def multi_scale(self, images: Tensor, scales: Sequence[float] = (0.5, 1.0, 2.0)) -> Tensor:
        """Inference at any number of scales: joint logits (N, K, H, W), see `multi_scale_outputs`."""
        return self.multi_scale_outputs(images, scales)["final"]

    def multi_scale_outputs(self, images: Tensor, scales: Sequence[float]) -> dict[str, Tensor]:
        """Scales are joined from the highest to the lowest, two at a time.

        Args:
            images: (N, 3, H, W), normalised.
            scales: Must hold 1.0, since the result has the image's size.

        Returns:
            `final`, `aux`: joint (N, K, H, W). `pred_Sx` (and `attn_Sx` of all but the highest): of scale S, at S times
            the image's size.

        Raises:
            NetworkError: no 1.0 among the scales, one is not positive or comes twice.
        """
        if 1.0 not in scales or min(scales) <= 0 or len(set(scales)) != len(scales):
            raise NetworkError(
                f"scales = {list(scales)}; give different positive scales with 1.0 among them, e.g. [0.5, 1.0, 2.0]"
            )
        parts: dict[str, Tensor] = {}
        joint: dict[str, Tensor] = {}
        for scale in sorted(scales, reverse=True):
            logits, attention = self._run(resize_by(images, scale), with_attention=bool(joint))
            logits = {name: logits[name] for name in ("final", "aux")}
            parts[f"pred_{scale}x"] = logits["final"]
            if attention is None:
                joint = logits
                continue
            parts[f"attn_{scale}x"] = attention
            if scale >= 1:
                size = (attention.shape[-2], attention.shape[-1])
                joint = {
                    name: attention * logits[name] + (1 - attention) * self._resize(joint[name], size) for name in joint
                }
            else:
                joint = {name: self._join(logits[name], joint[name], attention) for name in joint}
        return joint | parts

    def _join(self, low: Tensor, high: Tensor, attention: Tensor) -> Tensor:
        """The lower scale is weighed at its own size, then enlarged."""
        size = (high.shape[-2], high.shape[-1])
        return self._resize(attention * low, size) + (1 - self._resize(attention, size)) * high

    def _run(self, images: Tensor, with_attention: bool = True) -> tuple[dict[str, Tensor], Tensor | None]:
        """All logits at the images' size, and the attention (N, 1, H, W) from the same features."""
        logits, enhanced = cast("Any", self.net).parts(images)
        size = (images.shape[-2], images.shape[-1])
        logits = {name: self._resize(value, size) for name, value in logits.items()}
        attention = self._resize(self.scale_attn(enhanced), size) if with_attention else None
        return logits, attention

    def _resize(self, maps: Tensor, size: tuple[int, int]) -> Tensor:
        return resize(maps, size, self.align_corners)


class ScaleAttention(nn.Module):
    """How much the lower scale counts, per pixel: (N, mid, h, w) -> (N, 1, h, w) in 0..1. Official names."""

    def __init__(self, mid: int, bottleneck: int) -> None:
        super().__init__()
        self.conv0 = nn.Conv2d(mid, bottleneck, 3, padding=1, bias=False)
        self.bn0 = nn.BatchNorm2d(bottleneck)
        self.re0 = nn.ReLU(inplace=True)
        self.conv1 = nn.Conv2d(bottleneck, bottleneck, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(bottleneck)
        self.re1 = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(bottleneck, 1, 1, bias=False)

    def forward(self, enhanced: Tensor) -> Tensor:
        """Attention (N, 1, h, w) of enhanced features (N, mid, h, w)."""
        x = self.re0(self.bn0(self.conv0(enhanced)))
        x = self.re1(self.bn1(self.conv1(x)))
        attention: Tensor = self.conv2(x).sigmoid()
        return attention


def resize_by(images: Tensor, scale: float) -> Tensor:
    """Images at `scale` times their size, rounded down."""
    height, width = images.shape[-2:]
    exact = Fraction(scale)
    if exact.denominator <= 16:  # whole numbers throughout, so that an exported program takes other sizes
        up, down = exact.numerator, exact.denominator
        return resize(images, (height * up // down, width * up // down))
    return resize(images, (int(height * scale), int(width * scale)))
