"""Several looks at an image: scales, mirrored, through a sliding window; and how they become one.

Shapes: N images, K classes or groups, H x W the image, s*H x s*W at scale s.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hs3seg.data.windows import windows
from hs3seg.errors import ConfigError, nearest
from hs3seg.nn import final_logits
from hs3seg.nn.resize import aligns_corners

Merge = Literal["auto", "probabilities", "logits", "mean_exp", "sum_exp", "hms"]
MERGES: tuple[Merge, ...] = ("auto", "probabilities", "logits", "mean_exp", "sum_exp", "hms")
Size = tuple[int, int]
Run = Callable[[Tensor], Mapping[str, Tensor]]
"""Images (N, C, h, w) -> logits (N, k, h', w') by name."""


@dataclass(frozen=True, slots=True)
class Protocol:
    """How images are looked at; the default is once, as they are.

    Every look gives logits, enlarged to its own size and turned back where it was mirrored. They become one image by
    `merge`: probabilities = mean of the softmax; logits = mean of the logits; mean_exp = sum over scales of the
    exponential of the logits' mean over mirrored and not, divided by how many windows cover a pixel, and an image no
    larger than the window is seen whole and unpadded (HRNet's code);
    sum_exp = the same with sums instead of means and without the division (SA-Gate's code); hms = the network's own
    attention joins the scales, and mirrored logits are averaged; auto = hms where the network has it and there are
    several scales, else probabilities.

    Args:
        scales: Factors of the image's size.
        flip: Also mirrored.
        crop: (height, width) of the window; None = the whole image at once. A smaller image is padded with zeros on
            all sides, as in SA-Gate's code, so that the network always sees this size; not with mean_exp.
        stride: (down, right) from window to window; None = two thirds of the window, rounded up.
        merge: One of the above.
    """

    scales: tuple[float, ...] = (1.0,)
    flip: bool = False
    crop: Size | None = None
    stride: Size | None = None
    merge: Merge = "auto"

    def __post_init__(self) -> None:
        if not self.scales or min(self.scales) <= 0:
            raise ConfigError(f"evaluation scales {list(self.scales)}; give at least one, all above 0")
        if len(set(self.scales)) != len(self.scales):
            raise ConfigError(f"evaluation scales {list(self.scales)} hold one twice; give each once")
        if self.merge not in MERGES:
            raise ConfigError(f"unknown merge '{self.merge}'; {nearest(self.merge, MERGES)}")
        if self.stride is not None and self.crop is None:
            raise ConfigError(f"evaluation stride {list(self.stride)} without a crop; give the window's size as crop")
        if self.crop is not None and any(not 1 <= s <= c for s, c in zip(self.steps, self.crop, strict=True)):
            raise ConfigError(
                f"evaluation stride {list(self.steps)} with windows of {list(self.crop)} leaves gaps; allowed: 1 to the"
                " window's size"
            )
        if self.merge == "hms" and self.crop is not None:
            raise ConfigError(
                "merge = 'hms' looks at whole images; leave out the crop, or take merge = 'probabilities'"
            )

    @property
    def is_single(self) -> bool:
        """Whether it is one look at the whole image, whose logits are taken as they are."""
        return self.scales == (1.0,) and not self.flip and self.crop is None

    @property
    def steps(self) -> Size:
        """(down, right) from window to window."""
        crop = self.crop or (1, 1)
        return self.stride or (-(-2 * crop[0] // 3), -(-2 * crop[1] // 3))


PRESETS = {
    "single": Protocol(),
    "hrnet": Protocol((0.5, 0.75, 1.0, 1.25, 1.5, 1.75), True, (1024, 2048), (1024, 2048), "mean_exp"),
    "hms": Protocol((0.5, 1.0, 2.0), True, merge="hms"),
    "sagate": Protocol((1.0,), False, (480, 480), (320, 320), "sum_exp"),
    "sagate_multi_scale": Protocol((1.0, 0.75, 1.25), True, (480, 480), (320, 320), "sum_exp"),
}
"""The protocols of published numbers: HRNet's and HMS's on Cityscapes, SA-Gate's on NYUD-v2."""


def segment(model: nn.Module, images: Tensor, protocol: Protocol) -> dict[str, Tensor]:
    """What a network says by a protocol.

    Args:
        model: A `Supervised` network, or any that gives logits, in evaluation mode; autocast is the caller's.
        images: (N, C, H, W), normalised.
        protocol: How to look.

    Returns:
        `final`, and a supervised network's stages: scores whose argmax is the prediction. Logits at the network's own
        resolution for a single look, else (N, k, H, W) float32.
    """
    if protocol.is_single:
        return dict(_outputs(model, images))
    merge = protocol.merge
    # A network with attention may itself hold a trunk called `net`, so it is asked first.
    both: tuple[Any, Any] = (model, getattr(model, "net", None))
    attention = next((network.multi_scale for network in both if hasattr(network, "multi_scale")), None)
    if merge == "auto":
        merge = "hms" if attention is not None and len(protocol.scales) > 1 and not protocol.crop else "probabilities"
    if merge == "hms":
        if attention is None:
            raise ConfigError("merge = 'hms' needs a network with hierarchical attention, such as hrnet_w48_ocr_hms")
        return _by_attention(model, attention, images, protocol)
    size = (images.shape[-2], images.shape[-1])
    total: dict[str, Tensor] = {}
    for scale in protocol.scales:
        scaled = _resized(images, (max(1, int(size[0] * scale)), max(1, int(size[1] * scale))))
        for name, scores in _look(_run(model), scaled, protocol, merge).items():
            scores = _resized(scores, size, aligns_corners(model))
            total[name] = total[name].add_(scores) if name in total else scores
    weight = 1.0 if merge == "sum_exp" else 1 / len(protocol.scales)
    return {name: scores.mul_(weight) for name, scores in total.items()}


def forward_by(protocol: Protocol) -> Callable[[nn.Module], Callable[[Tensor], Tensor]]:
    """For prediction: makes a network's forward pass by a protocol.

    Returns:
        network -> (images (N, C, H, W) -> scores (N, K, h, w) whose softmax over the classes gives probabilities).
    """

    def make(net: nn.Module) -> Callable[[Tensor], Tensor]:
        attends = hasattr(net, "multi_scale") and len(protocol.scales) > 1 and protocol.crop is None
        are_logits = protocol.is_single or protocol.merge in ("logits", "hms") or (protocol.merge == "auto" and attends)

        def run(images: Tensor) -> Tensor:
            scores = segment(net, images, protocol)["final"]
            return scores if are_logits else scores.float().clamp(min=torch.finfo(torch.float32).tiny).log()

        return run

    return make


def _run(model: nn.Module) -> Run:
    """Gives logits at the images' size."""

    def run(images: Tensor) -> Mapping[str, Tensor]:
        size = (images.shape[-2], images.shape[-1])
        return {n: _resized(v.float(), size, aligns_corners(model)) for n, v in _outputs(model, images).items()}

    return run


def _outputs(model: nn.Module, images: Tensor) -> Mapping[str, Tensor]:
    output: Any = model(images)
    return output if isinstance(output, dict) and "final" in output else {"final": final_logits(output)}


def _by_attention(model: nn.Module, attention: Any, images: Tensor, protocol: Protocol) -> dict[str, Tensor]:
    """The stages are seen once, at scale 1: they are not joined by n scales."""
    size = (images.shape[-2], images.shape[-1])

    def run(given: Tensor) -> dict[str, Tensor]:
        stages = {name: value for name, value in _run(model)(given).items() if name != "final"}
        return {**stages, "final": attention(given, protocol.scales)}

    found = _mirrored(run, images, protocol.flip, "mean")
    return {name: _resized(value.float(), size) for name, value in found.items()}


def _look(run: Run, images: Tensor, protocol: Protocol, merge: Merge) -> dict[str, Tensor]:
    """Scores (N, k, h, w) of images at one scale."""
    size = (images.shape[-2], images.shape[-1])
    fits = protocol.crop is not None and size[0] <= protocol.crop[0] and size[1] <= protocol.crop[1]
    if protocol.crop is None or (fits and merge == "mean_exp"):
        return _scores(run, images, protocol, merge)
    total: dict[str, Tensor] = {}
    covered = images.new_zeros(size, dtype=torch.float32)
    for (top, left, bottom, right), padded, inside in _windows(images, protocol):
        for name, scores in _scores(run, padded, protocol, merge).items():
            if name not in total:
                total[name] = images.new_zeros(len(images), scores.shape[1], *size, dtype=torch.float32)
            total[name][..., top:bottom, left:right] += scores[..., inside[0], inside[1]]
        covered[top:bottom, left:right] += 1
    if merge == "sum_exp":
        return total
    return {name: scores.div_(covered) for name, scores in total.items()}


def _windows(
    images: Tensor, protocol: Protocol
) -> Iterator[tuple[tuple[int, int, int, int], Tensor, tuple[slice, slice]]]:
    """Place in the image, the window's content padded to its full size, and the image's part in it."""
    crop = protocol.crop or (1, 1)
    height, width = images.shape[-2:]
    before = [max(0, want - have) // 2 for want, have in zip(crop, (height, width), strict=True)]
    for top, left, bottom, right in windows((height, width), crop, protocol.steps):
        bottom, right = min(bottom, height), min(right, width)
        content = images[..., top:bottom, left:right]
        after = [crop[0] - before[0] - (bottom - top), crop[1] - before[1] - (right - left)]
        padded = F.pad(content, (before[1], after[1], before[0], after[0]))
        rows = slice(before[0], before[0] + bottom - top)
        yield (top, left, bottom, right), padded, (rows, slice(before[1], before[1] + right - left))


def _scores(run: Run, images: Tensor, protocol: Protocol, merge: Merge) -> dict[str, Tensor]:
    """Of one forward pass, or of two with the mirrored one, at the images' size, ready to be added up."""
    if merge == "probabilities":
        return _mirrored(lambda x: {n: v.softmax(1) for n, v in run(x).items()}, images, protocol.flip, "mean")
    logits = _mirrored(run, images, protocol.flip, "sum" if merge == "sum_exp" else "mean")
    return logits if merge == "logits" else {name: value.exp() for name, value in logits.items()}


def _mirrored(run: Run, images: Tensor, flip: bool, how: Literal["mean", "sum"]) -> dict[str, Tensor]:
    outputs = dict(run(images))
    if not flip:
        return outputs
    other = run(images.flip(-1))
    weight = 0.5 if how == "mean" else 1.0
    return {name: (value.float() + other[name].float().flip(-1)) * weight for name, value in outputs.items()}


def _resized(maps: Tensor, size: Size, align_corners: bool = False) -> Tensor:
    if tuple(maps.shape[-2:]) == size:
        return maps
    return F.interpolate(maps, size=size, mode="bilinear", align_corners=align_corners)
