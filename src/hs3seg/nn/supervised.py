"""Any network with supervised stages, and the way back to the plain one."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn

from hs3seg.analysis import SupervisionPlan, deep_supervision
from hs3seg.errors import NetworkError
from hs3seg.nn.heads import StageHead
from hs3seg.nn.taps import find_stages, like_weights, merge_maps


def supervise(
    net: nn.Module,
    stages: Literal["auto"] | int | Sequence[str] = "auto",
    plan: SupervisionPlan | None = None,
    num_classes: int | None = None,
    example: Tensor | None = None,
) -> "Supervised":
    """Puts a head on every stage of a network.

    Args:
        net: Any network that gives logits; it is tapped in place, not copied.
        stages: See `find_stages`; not used when a plan names them.
        plan: Groups per stage; None = deep supervision, every stage has all classes.
        num_classes: K, needed without a plan.
        example: Images (N, 3, H, W) for the dry run that sizes the heads; default one of 128x128 pixels, with the
            network's `in_channels` or 3 channels.

    Raises:
        NetworkError: a stage cannot be tapped, or neither plan nor num_classes is given.
    """
    example = torch.zeros(1, getattr(net, "in_channels", 3), 128, 128) if example is None else example[:1]
    if plan is None:
        if num_classes is None:
            raise NetworkError("supervise() needs a plan, or num_classes for deep supervision")
        names = tuple(f"class_{c}" for c in range(num_classes))
        plan = deep_supervision(names, find_stages(net, example, stages))
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
        inside = _stages_inside(net, plan)
        self._tapped = tuple(stage for stage in plan.stage_names if stage not in inside)
        modules = dict(net.named_modules())
        # A partial of a bound method, not a closure: it survives deepcopy, pickle and torch.compile.
        self._handles = [modules[stage].register_forward_hook(partial(self._catch, stage)) for stage in self._tapped]
        widths = self._widths(example)
        sizes = {stage.stage: stage.grouping.num_groups for stage in plan.stages}
        self.heads = nn.ModuleDict({_key(stage): StageHead(widths[stage], sizes[stage]) for stage in self._tapped})
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
            stage -> (N, k_i, h_i, w_i) at the stage's own resolution; `final` -> (N, K, h, w).
        """
        return self.forward_with_features(images)[0]

    def forward_with_features(self, images: Tensor) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """As `forward`, and the merged features (N, C_i, h_i, w_i) of every tapped stage (of its last pass).

        Raises:
            NetworkError: a stage did not run, or the network was stripped.
        """
        given = self._run(images)
        missed = [stage for stage in self._tapped if stage not in self._caught]
        if missed:
            raise NetworkError(
                f"stage '{missed[0]}' was not caught: after strip() call the network itself, and choose stages that"
                " every forward pass runs"
            )
        maps = {stage: [merge_maps(caught, stage) for caught in self._caught[stage]] for stage in self._tapped}
        # Nothing is kept: features would hold on to the graph and break deepcopy.
        self._caught.clear()
        tapped = {stage: self._logits(stage, maps[stage], given) for stage in self._tapped}
        names = [*self.stages, "final", *(self.auxiliary if self.training else ())]
        outputs = {name: value for name in names if (value := tapped.get(name, given.get(name))) is not None}
        return outputs, {stage: found[-1] for stage, found in maps.items()}

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

    def _logits(self, stage: str, maps: Sequence[Tensor], given: Mapping[str, Tensor]) -> Tensor:
        logits = [self.heads[_key(stage)](m) for m in maps]
        if len(logits) == 1:
            single: Tensor = logits[0]
            return single
        joint: Tensor = cast("Any", self.net).join(*logits, given)
        return joint

    def _catch(self, stage: str, _module: nn.Module, _inputs: tuple[Any, ...], output: Any) -> None:
        self._caught.setdefault(stage, []).append(output)

    def _widths(self, example: Tensor) -> dict[str, int]:
        if not self._tapped:
            return {}
        modes = {module: module.training for module in self.net.modules()}
        self.net.eval()
        try:
            with torch.no_grad():
                self.net(like_weights(example, self.net))
        finally:
            for module, mode in modes.items():
                module.training = mode
        widths = {stage: merge_maps(self._caught[stage][0], stage).shape[1] for stage in self._tapped}
        self._caught.clear()
        return widths


def final_logits(output: Any) -> Tensor:
    """The final logits (N, K, H, W) in a network's output: a tensor, `["out"]`, `.logits`, or the first of a list.

    Raises:
        NetworkError: none of these.
    """
    found = output
    if isinstance(found, Mapping):
        found = next((found[name] for name in ("out", "logits", "final") if name in found), None)
    elif not isinstance(found, Tensor) and hasattr(found, "logits"):
        found = found.logits
    elif isinstance(found, (list, tuple)) and found:
        found = found[0]
    if not isinstance(found, Tensor) or found.ndim != 4:
        raise NetworkError(
            f"no logits (N, K, H, W) in the network's output of type {type(output).__name__}; it must be a tensor, have"
            " 'out' or 'logits', or be a list that begins with them"
        )
    return found


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


def _key(stage: str) -> str:
    return stage.replace(".", "/")
