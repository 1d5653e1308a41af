"""HS3-Fuse: the stages' features, enhanced by what their groups say, go back into the final segmentation (Sec. 3.2).

Shapes: N images, K classes, k_i groups of stage i, C channels, h x w the size of the final features.
"""

import copy
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn

from hs3seg.analysis import SupervisionPlan
from hs3seg.errors import NetworkError
from hs3seg.networks.hms import MultiScale
from hs3seg.nn import count_cost
from hs3seg.nn.maps import Layout, layouts_of, merge_maps
from hs3seg.nn.ocr import AUX_WEIGHT, OCRBlock, set_bn_momentum
from hs3seg.nn.resize import concatenate, resize
from hs3seg.nn.taps import find_stages, like_weights

_DROPOUT = 0.05  # of the official OCR block


class FusedSegmenter(nn.Module):
    """A network whose stages and final features are enhanced by OCR blocks (Fig. 3).

    Each stage has a block of half the next stage's width; its region logits have the stage's groups and are supervised
    with them. The enhanced maps are concatenated with the network's own features, deepest first, and the final block
    and classifier take them all. Which features are concatenated where is not in the paper's text: this is the design
    whose cost meets its 224 and 154 GMACs.

    Auxiliary outputs that the network has beside its classifier (SA-Gate's) stay, as `backbone_NAME` with their own
    weight, and run in training only.

    Args:
        backbone: Gives `features(images)` of `feature_channels` channels; its own classifier is not used and should
            be gone. One whose auxiliary outputs do without the classifier also gives
            `features_and_auxiliary(images)`. `fuse` makes one from any network of ours.
        num_classes: K.
        num_groups: Stage -> k_i, shallow to deep; names of modules in the backbone.
        mid: Channels of the final block; the deepest stage has half of it, the one before a quarter, ...
        key: Channels of the final block's attention, halved likewise.
        dropout: Of every block's enhanced features, in training.
        bn_momentum: Of the blocks' BatchNorms.
    """

    auxiliary: Mapping[str, float]

    def __init__(
        self,
        backbone: nn.Module,
        num_classes: int,
        num_groups: Mapping[str, int],
        *,
        mid: int,
        key: int,
        dropout: float = _DROPOUT,
        bn_momentum: float = 0.1,
    ) -> None:
        super().__init__()
        smallest = 2 ** len(num_groups)
        if min(mid, key) < smallest:
            raise NetworkError(
                f"mid = {mid}, key = {key}: they are halved for each of {len(num_groups)} stages, so give both at least"
                f" {smallest}"
            )
        source = cast("Any", backbone)
        self.num_classes, self.num_groups = num_classes, dict(num_groups)
        self.in_channels: int = source.in_channels
        self.mean, self.std = source.mean, source.std
        self.align_corners: bool = source.align_corners
        self.full_size: bool = source.full_size
        self.widths = (mid, key)
        # HRNet-OCR's own went with its classifier: the final block's takes its place. SA-Gate's is another head.
        own: Mapping[str, float] = source.auxiliary if hasattr(source, "features_and_auxiliary") else {}
        self.auxiliary = {"aux": AUX_WEIGHT} | {_of_backbone(name): weight for name, weight in own.items()}
        self.backbone = backbone
        self._caught: dict[str, Any] = {}
        self._catching = False
        modules = dict(backbone.named_modules())
        for stage in num_groups:
            modules[stage].register_forward_hook(partial(self._catch, stage))
        channels, self._layouts = self._examine()
        # mid and key are halved per earlier stage: with two stages by 4 and by 2
        self.blocks = nn.ModuleDict(
            {
                _key(stage): OCRBlock(channels[stage], mid // part, key // part, groups, dropout)
                for (stage, groups), part in zip(num_groups.items(), self._parts(), strict=True)
            }
        )
        extra = sum(mid // part for part in self._parts())
        self.ocr = OCRBlock(source.feature_channels + extra, mid, key, num_classes, dropout)
        self.cls_head = nn.Conv2d(mid, num_classes, 1)
        weight = like_weights(torch.zeros(1), backbone)
        for part in (self.blocks, self.ocr, self.cls_head):
            set_bn_momentum(part, bn_momentum)
            part.to(weight.device, weight.dtype)

    @property
    def stage_outputs(self) -> dict[str, int]:
        """Stages that `outputs` has logits of, with their numbers of groups."""
        return dict(self.num_groups)

    def parts(self, images: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """All logits, and the enhanced features (N, mid, h, w) that `final` was made from.

        Args:
            images: (N, channels, H, W), normalised.

        Returns:
            Stage -> (N, k_i, h_i, w_i) at the tap's size; `aux` and `final` (N, K, h, w).
        """
        return self._fused(self._caught_in(cast("Any", self.backbone).features, images), images)

    def _caught_in(self, run: Callable[[Tensor], Any], images: Tensor) -> Any:
        """Runs the backbone and catches its stages.

        In this pass alone: activation checkpointing runs them again during the backward pass, and others may call the
        backbone by itself; what was caught then would be held.
        """
        self._caught.clear()
        self._catching = True
        try:
            return run(images)
        except BaseException:
            self._caught.clear()
            raise
        finally:
            self._catching = False

    def _fused(self, features: Tensor, images: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """See `parts`; the backbone's stages were caught while it made the features."""
        logits: dict[str, Tensor] = {}
        enhanced: list[Tensor] = []
        for stage in self.num_groups:
            size = (images.shape[-2], images.shape[-1])
            own = merge_maps(self._caught.pop(stage), stage, size, self._layouts[stage], self.align_corners)
            logits[stage], stage_map = self.blocks[_key(stage)](own)
            enhanced.append(stage_map)
        size = (features.shape[-2], features.shape[-1])
        fused = concatenate([features, *reversed(enhanced)], size, self.align_corners)
        logits["aux"], final = self.ocr(fused)
        logits["final"] = self.cls_head(final)
        return logits, final

    def forward(self, images: Tensor) -> Tensor:
        """Final logits (N, K, ...) at the resolution of the plain network."""
        return self._finish(self.parts(images)[0]["final"], images)

    def outputs(self, images: Tensor) -> dict[str, Tensor]:
        """Logits of every stage's groups, `aux` of the final block and `final`; in training also the backbone's own."""
        source = cast("Any", self.backbone)
        own: Mapping[str, Tensor] = {}
        if self.training and len(self.auxiliary) > 1:
            features, own = self._caught_in(source.features_and_auxiliary, images)
        else:
            features = self._caught_in(source.features, images)
        logits, _ = self._fused(features, images)
        logits |= {name: self._finish(logits[name], images) for name in ("aux", "final")}
        return logits | {_of_backbone(name): value for name, value in own.items()}

    def _finish(self, logits: Tensor, images: Tensor) -> Tensor:
        if not self.full_size:
            return logits
        return resize(logits, (images.shape[-2], images.shape[-1]), self.align_corners)

    def _parts(self) -> list[int]:
        return [2 ** (len(self.num_groups) - i) for i in range(len(self.num_groups))]

    def _catch(self, stage: str, _module: nn.Module, _inputs: tuple[Any, ...], output: Any) -> None:
        if self._catching:
            self._caught[stage] = output

    def _examine(self) -> tuple[dict[str, int], dict[str, tuple[Layout, ...]]]:
        """Channels and layouts of every stage, by a dry run."""
        size = (64, 64)
        modes = {module: module.training for module in self.backbone.modules()}
        self.backbone.eval()
        try:
            with torch.no_grad():
                images = like_weights(torch.zeros(1, self.in_channels, *size), self.backbone)
                self._caught_in(cast("Any", self.backbone).features, images)
        finally:
            for module, mode in modes.items():
                module.training = mode
        layouts = {s: layouts_of(self._caught[s], size) for s in self.num_groups}
        channels = {s: merge_maps(self._caught[s], s, size, layouts[s]).shape[1] for s in self.num_groups}
        self._caught.clear()
        return channels, layouts


def fuse(
    net: nn.Module,
    groups: SupervisionPlan | Mapping[str, int],
    *,
    mid: int | None = None,
    key: int | None = None,
    gmacs: float | None = None,
    size: tuple[int, int] = (1024, 2048),
    dropout: float | None = None,
    bn_momentum: float | None = None,
) -> FusedSegmenter | MultiScale:
    """HS3-Fuse on a network of ours: its trunk is kept, values included, its classifier is replaced.

    A network that is refused is left as it was. An auxiliary head of its own (SA-Gate's) is kept as well and learns on.
    HMS is fused inside and stays HMS.

    Args:
        net: From `create`; taken over, not copied.
        groups: A plan, or stage -> number of groups.
        mid: Channels of the final OCR block; default those of the network's OCR variant.
        key: Channels of its attention; default half of mid.
        gmacs: Instead of mid: the inference cost to come nearest to (the paper's Lighter: 154), see `solve_widths`.
        size: Height and width of the image that `gmacs` is counted for.
        dropout: Of every block; default that of the network's own OCR block, 0.05 where it has none.
        bn_momentum: Of the blocks' BatchNorms; default that of the classifier which they replace.

    Returns:
        The network; `widths` says what was chosen.

    Raises:
        NetworkError: a stage is not in the network, the network cannot be fused or was before, or the budget cannot be
            met.
    """
    if isinstance(net, MultiScale):
        return _fuse_inside(
            net, groups, mid=mid, key=key, gmacs=gmacs, size=size, dropout=dropout, bn_momentum=bn_momentum
        )
    if isinstance(net, FusedSegmenter) or getattr(net, "is_fused", False):
        raise NetworkError(
            "the network was fused before, and its classifier is gone; make another one with hs3seg.networks.create,"
            " or fuse copies that were made before"
        )
    if not hasattr(net, "features") or not hasattr(net, "num_classes"):
        raise NetworkError(
            f"HS3-Fuse needs a network of hs3seg.networks.create, which can give its features; {type(net).__name__}"
            " cannot"
        )
    if isinstance(groups, SupervisionPlan):
        groups = {stage.stage: stage.grouping.num_groups for stage in groups.stages}
    if not groups:
        raise NetworkError("HS3-Fuse needs at least one stage; the plan has none")
    if gmacs is not None and (mid is not None or key is not None):
        raise NetworkError("give gmacs or widths (mid, key), not both: a budget chooses the widths")
    source = cast("Any", net)
    example = torch.zeros(1, source.in_channels, 64, 64)
    order = find_stages(net, example, tuple(groups))
    groups = {stage: groups[stage] for stage in order}
    if mid is None:
        mid, usual = source.ocr_widths
        key = usual if key is None else key
    if key is None:
        key = mid // 2
    before = [(module, dict(module._modules)) for module in net.modules()]
    source.drop_classifier()
    try:
        left = set(net.modules())
        gone = [module for module, _ in before if module not in left]
        own_dropout, own_momentum = _of_classifier(net, gone)
        if gmacs is not None:
            mid, key = solve_widths(net, source.num_classes, groups, gmacs, size)
        fused = FusedSegmenter(
            net,
            source.num_classes,
            groups,
            mid=mid,
            key=key,
            dropout=own_dropout if dropout is None else dropout,
            bn_momentum=own_momentum if bn_momentum is None else bn_momentum,
        )
    except Exception:
        for module, children in before:
            module._modules.clear()
            module._modules.update(children)
        raise
    source.is_fused = True
    return fused


def _of_classifier(net: nn.Module, parts: Sequence[nn.Module]) -> tuple[float, float]:
    """Dropout and momentum of what HS3-Fuse's blocks replace; of the network where the classifier has none."""
    dropout = next((part.p for part in parts if isinstance(part, nn.Dropout2d)), _DROPOUT)
    norms = [part for part in (*parts, *net.modules()) if isinstance(part, nn.modules.batchnorm._BatchNorm)]
    return dropout, next((norm.momentum for norm in norms if norm.momentum is not None), 0.1)


def _fuse_inside(
    net: MultiScale, groups: SupervisionPlan | Mapping[str, int], *, gmacs: float | None, **options: Any
) -> MultiScale:
    if gmacs is not None:
        raise NetworkError("a budget for HMS is not solved; give widths (mid, key)")
    if isinstance(groups, SupervisionPlan):
        groups = {stage.stage: stage.grouping.num_groups for stage in groups.stages}
    wrong = [stage for stage in groups if not stage.startswith("net.")]
    if wrong:
        raise NetworkError(f"stage '{wrong[0]}' of HMS is called 'net.{wrong[0]}': its network runs once per scale")
    if isinstance(net.net, FusedSegmenter):
        raise NetworkError("HMS was fused before; make another one with hs3seg.networks.create")
    inner = fuse(net.net, {stage.removeprefix("net."): k for stage, k in groups.items()}, **options)
    net.net = inner
    net.fit_attention(inner.widths[0])
    return net


def solve_widths(
    backbone: nn.Module, num_classes: int, groups: Mapping[str, int], gmacs: float, size: tuple[int, int]
) -> tuple[int, int]:
    """The even mid, and key = mid / 2, whose inference cost is nearest to a budget.

    Args:
        backbone: See `FusedSegmenter`.
        num_classes: K.
        groups: Stage -> k_i.
        gmacs: Convolution and linear multiply-accumulates / 1e9.
        size: Height and width of the image.

    Raises:
        NetworkError: even the narrowest blocks cost more.
    """
    taken: dict[int, float] = {}
    blank = copy.deepcopy(backbone).to("meta")

    def cost(mid: int) -> float:
        if mid not in taken:
            with torch.device("meta"):
                network = FusedSegmenter(copy.deepcopy(blank), num_classes, groups, mid=mid, key=mid // 2)
            taken[mid] = count_cost(network, (1, network.in_channels, *size)).gmacs
        return taken[mid]

    low = 2 ** (len(groups) + 1)  # key = mid / 2 still has a channel at the shallowest stage
    if cost(low) > gmacs:
        raise NetworkError(
            f"gmacs = {gmacs:g} cannot be met: with the narrowest blocks (mid {low}, key {low // 2}) the network costs"
            f" {cost(low):.2f} GMACs at {size[0]}x{size[1]}; give more"
        )
    high = 2 * low
    while cost(high) < gmacs:
        low, high = high, 2 * high
    while high - low > 2:
        middle = (low + high) // 4 * 2
        low, high = (middle, high) if cost(middle) <= gmacs else (low, middle)
    mid = min(low, high, key=lambda m: abs(cost(m) - gmacs))
    return mid, mid // 2


def _of_backbone(name: str) -> str:
    """Name of an auxiliary output of the backbone, since the final block's is `aux`."""
    return f"backbone_{name}"


def _key(stage: str) -> str:
    return stage.replace(".", "/")
