"""Any network with supervised stages, and the way back to the plain one."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn

from hs3seg.analysis import SupervisionPlan, deep_supervision
from hs3seg.errors import NetworkError
from hs3seg.nn.heads import ClassHead, ProbedHead, StageHead
from hs3seg.nn.maps import Layout, final_logits, layouts_of, merge_maps
from hs3seg.nn.taps import Stages, dry_run, examination_images, find_stages, like_weights
from hs3seg.taxonomy import Grouping


def supervise(
    net: nn.Module,
    stages: Stages = "auto",
    plan: SupervisionPlan | None = None,
    num_classes: int | None = None,
    example: Tensor | None = None,
) -> "Supervised":
    """Puts a head on every stage of a network.

    Args:
        net: Any network that gives logits; it is tapped in place, not copied.
        stages: `auto`, a number, or module names, patterns and indices, see `find_stages`; not used when a plan names
            them.
        plan: Groups per stage; None = deep supervision, every stage has all classes.
        num_classes: K; None = as many as the network's logits have.
        example: Images (N, 3, H, W) for the dry run that sizes the heads; default one of 128x128 pixels, with the
            network's `in_channels` or 3 channels.

    Raises:
        NetworkError: a stage cannot be tapped, no logits can be told in the network's output, or these have another
            number of classes than the plan.
    """
    example = torch.zeros(1, getattr(net, "in_channels", 3), 128, 128) if example is None else example[:1]
    if plan is None:
        num_classes = num_classes or dry_run(net, example).logits.shape[1]
        names = tuple(f"class_{c}" for c in range(num_classes))
        plan = deep_supervision(names, find_stages(net, example, stages))
    if plan.online is not None and plan.online.probe and getattr(net, "passes", 1) > 1:
        raise NetworkError(
            f"{type(net).__name__} runs its stages several times; set probe = false in the plan's [online] table"
        )
    tapped = tuple(stage for stage in plan.stage_names if stage not in _stages_inside(net, plan))
    if tapped:
        order = find_stages(net, example, tapped)
        if order != tapped:
            raise NetworkError(f"the plan's stages run in the order {', '.join(order)}; list them shallow to deep")
    return Supervised(net, plan, example)


class Supervised(nn.Module):
    """A network and the heads of its stages; `strip()` gives the network back untouched.

    Use `supervise` to make one. State-dict names are `net.*` and `heads.*`; a dot in a stage's name becomes a slash.

    A network may help: `outputs(images)`, used in training, gives `final` and its own auxiliary logits by name, whose
    loss weights are in `auxiliary`; `stage_outputs` names stages (with their numbers of groups) whose logits are among
    them, so that they need no head (HS3-Fuse); `passes` is how often its stages run, and `join` makes one map of
    each stage's logits of two passes (HMS).

    Args:
        net: The network; hooks are put on its stages.
        plan: Groups per stage.
        example: (1, 3, H, W) for the dry run that sizes the heads.
    """

    def __init__(self, net: nn.Module, plan: SupervisionPlan, example: Tensor) -> None:
        super().__init__()
        self.net = net
        self.plan = plan
        self._caught: dict[str, list[Any]] = {}
        self._catching = False
        inside = _stages_inside(net, plan)
        self._tapped = tuple(stage for stage in plan.stage_names if stage not in inside)
        modules = dict(net.named_modules())
        # A partial of a bound method, not a closure: it survives deepcopy, pickle and torch.compile.
        self._handles = [modules[stage].register_forward_hook(partial(self._catch, stage)) for stage in self._tapped]
        widths, self._layouts = self._examine(example)
        self._probed = plan.online is not None and plan.online.probe
        groupings = {stage.stage: stage.grouping for stage in plan.stages}
        self.heads = nn.ModuleDict({_key(stage): self._head(widths[stage], groupings[stage]) for stage in self._tapped})
        weight = like_weights(example, net)
        self.heads.to(weight.device, weight.dtype)

    @property
    def stages(self) -> tuple[str, ...]:
        """Names of the supervised stages, shallow to deep."""
        return self.plan.stage_names

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Logits of every stage, shallow to deep, then `final`, then the network's auxiliary outputs in training.

        Args:
            images: (N, 3, H, W), normalised.

        Returns:
            stage -> (N, k_i, h_i, w_i) at the stage's own resolution; `final` -> (N, K, h, w). In training with an
            online plan also `probe_name(stage)` -> (N, K, h_i, w_i).
        """
        return self.forward_with_features(images)[0]

    def forward_with_features(self, images: Tensor) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """As `forward`, and the merged features (N, C_i, h_i, w_i) of every tapped stage (of its last pass).

        Raises:
            NetworkError: a stage did not run, or the network was stripped.
        """
        # Only in this very pass: activation checkpointing runs stages again during the backward pass.
        self._caught.clear()
        self._catching = True
        given = self._run(images)
        self._catching = False
        missed = [stage for stage in self._tapped if stage not in self._caught]
        if missed:
            raise NetworkError(
                f"stage '{missed[0]}' was not caught: after strip() call the network itself, and choose stages that"
                " every forward pass runs"
            )
        size = (images.shape[-2], images.shape[-1])
        maps = {
            stage: [merge_maps(caught, stage, size, self._layouts[stage]) for caught in self._caught[stage]]
            for stage in self._tapped
        }
        # Nothing is kept: features would hold on to the graph and break deepcopy.
        self._caught.clear()
        probes: dict[str, Tensor] = {}
        if self._probed and self.training:
            tapped = {}
            for stage in self._tapped:
                tapped[stage], probes[probe_name(stage)] = self._probed_head(stage).twice(maps[stage][-1])
        else:
            tapped = {stage: self._logits(stage, maps[stage], given) for stage in self._tapped}
        names = [*self.stages, "final", *(self.auxiliary if self.training else ())]
        outputs = {name: value for name in names if (value := tapped.get(name, given.get(name))) is not None}
        return outputs | probes, {stage: found[-1] for stage, found in maps.items()}

    @property
    def auxiliary(self) -> Mapping[str, float]:
        """Loss weights of the network's own auxiliary outputs."""
        weights: Mapping[str, float] = getattr(self.net, "auxiliary", {})
        return weights

    def strip(self) -> nn.Module:
        """Removes hooks and heads; returns the very network that was given, with the same names and outputs."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        self._caught.clear()
        return self.net

    def _run(self, images: Tensor) -> Mapping[str, Tensor]:
        """What the network gives by name; without its auxiliary outputs where nobody needs them."""
        inside = len(self._tapped) < len(self.stages)
        joins = getattr(self.net, "passes", 1) > 1 and bool(self._tapped)
        if inside or joins or (self.training and self.auxiliary):
            given: Mapping[str, Tensor] = cast("Any", self.net).outputs(images)
            return given
        return {"final": final_logits(self.net(images))}

    def _head(self, width: int, grouping: Grouping) -> StageHead:
        if self._probed:
            return ProbedHead(width, grouping.num_classes)
        return ClassHead(width, grouping) if self.plan.heads == "classes" else StageHead(width, grouping.num_groups)

    def _probed_head(self, stage: str) -> ProbedHead:
        head = self.heads[_key(stage)]
        assert isinstance(head, ProbedHead)
        return head

    def _logits(self, stage: str, maps: Sequence[Tensor], given: Mapping[str, Tensor]) -> Tensor:
        logits = [self.heads[_key(stage)](m) for m in maps]
        if len(logits) == 1:
            single: Tensor = logits[0]
            return single
        joint: Tensor = cast("Any", self.net).join(*logits, given)
        return joint

    def _catch(self, stage: str, _module: nn.Module, _inputs: tuple[Any, ...], output: Any) -> None:
        if self._catching:
            self._caught.setdefault(stage, []).append(output)

    def _examine(self, example: Tensor) -> tuple[dict[str, int], dict[str, tuple[Layout, ...]]]:
        """Channels and layouts of every tapped stage, by a dry run."""
        if not self._tapped:
            return {}, {}
        images = examination_images(self.net, example)
        modes = {module: module.training for module in self.net.modules()}
        self.net.eval()
        self._catching = True
        try:
            with torch.no_grad():
                logits = final_logits(self.net(like_weights(images, self.net)))
        finally:
            self._catching = False
            for module, mode in modes.items():
                module.training = mode
        if logits.shape[1] != self.plan.num_classes:
            raise NetworkError(
                f"the network's logits have {logits.shape[1]} classes, the plan has {self.plan.num_classes}; make the"
                f" network with {self.plan.num_classes} classes, or the plan for this network's data"
            )
        size = (example.shape[-2], example.shape[-1])
        widths, layouts = {}, {}
        for stage in self._tapped:
            output = self._caught[stage][0]
            layouts[stage] = layouts_of(output, size, None if len(images) == 1 else len(images))
            widths[stage] = merge_maps(output, stage, size, layouts[stage]).shape[1]
        self._caught.clear()
        return widths, layouts


def _stages_inside(net: nn.Module, plan: SupervisionPlan) -> Mapping[str, int]:
    """Stages whose logits the network makes itself; the plan must have them with the same numbers of groups."""
    inside: Mapping[str, int] = getattr(net, "stage_outputs", {})
    sizes = {stage.stage: stage.grouping.num_groups for stage in plan.stages}
    for stage, groups in inside.items():
        if sizes.get(stage) != groups:
            found = f"{sizes[stage]} groups" if stage in sizes else "no such stage"
            raise NetworkError(
                f"the network was fused with {groups} groups on stage '{stage}', the plan has {found}; fuse it with"
                " this plan"
            )
    return inside


def probe_name(stage: str) -> str:
    """Name of the output that teaches the last layer of a stage's head, see `ProbedHead`."""
    return f"{stage}/probe"


def _key(stage: str) -> str:
    return stage.replace(".", "/")
