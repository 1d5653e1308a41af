"""Any network with supervised stages, and the way back to the plain one."""

import warnings
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from hs3seg.analysis import SupervisionPlan, deep_supervision
from hs3seg.errors import NetworkError
from hs3seg.nn.heads import ClassHead, ProbedHead, StageHead, probe_name
from hs3seg.nn.losses import PlanLike, as_plan
from hs3seg.nn.maps import Layout, Size, either_order, final_logits, layouts_of, merge_maps, tensors_of
from hs3seg.nn.resize import aligns_corners
from hs3seg.nn.taps import Stages, check_example, dry_run, examination_images, find_stages, like_weights
from hs3seg.taxonomy import Grouping


def supervise(
    net: nn.Module,
    stages: Stages = "auto",
    plan: PlanLike | None = None,
    num_classes: int | None = None,
    example: Tensor | None = None,
) -> "Supervised":
    """Puts a head on every stage of a network.

    Args:
        net: Any network that gives logits; it is tapped in place, not copied. A model that was made of it before
            is of no use afterwards: its hooks are taken off.
        stages: `auto`, a number, or module names, patterns and indices, see `find_stages`; beside a plan, which names
            them, they may only say the same.
        plan: Groups per stage, or the path of a plan.toml; None = deep supervision, every stage has all classes.
        num_classes: K; None = as many as the network's logits have, or the plan.
        example: Images (N, 3, H, W) for the dry run that sizes the heads; default one of 128x128 pixels, with the
            network's `in_channels` or 3 channels.

    Raises:
        NetworkError: a stage cannot be tapped, no logits can be told in the network's output, these have one channel
            or another number of classes than the plan; stages or num_classes say another thing than the plan; or the
            example is no batch of images.
        PlanError: no such plan.
    """
    example = torch.zeros(1, getattr(net, "in_channels", 3), 128, 128) if example is None else example
    check_example(example)
    example = example[:1]
    if plan is None:
        if num_classes is None or num_classes < 2:
            found = _num_classes(dry_run(net, example).logits)
            if num_classes is not None:
                raise NetworkError(
                    f"num_classes = {num_classes}, and the network's logits have {found} classes; leave it out"
                )
            num_classes = found
        names = tuple(f"class_{c}" for c in range(num_classes))
        plan = deep_supervision(names, find_stages(net, example, stages))
    else:
        plan = as_plan(plan)
        _check_beside(plan, net, stages, num_classes, example)
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
        self._early = False
        self._learns = False
        self._image: Size = (0, 0)
        inside = _stages_inside(net, plan)
        self._tapped = tuple(stage for stage in plan.stage_names if stage not in inside)
        modules = dict(net.named_modules())
        # A partial of a bound method, not a closure: it survives deepcopy, pickle and torch.compile.
        self._handles = [modules[stage].register_forward_hook(partial(self._catch, stage)) for stage in self._tapped]
        try:
            widths, self._layouts = self._examine(example)
        except Exception:
            self.strip()  # a network that is refused is as it was
            raise
        self._take_over()
        self._probed = plan.online is not None and plan.online.probe
        groupings = {stage.stage: stage.grouping for stage in plan.stages}
        self.heads = nn.ModuleDict({_key(stage): self._head(widths[stage], groupings[stage]) for stage in self._tapped})
        weight = like_weights(example, net)
        self.heads.to(weight.device, weight.dtype)
        self._changed_later: set[str] = set()  # stages whose outputs the network writes to after they ran
        self._last_versions: tuple[list[int], list[int]] | None = None  # of the network's and the heads' parameters
        self._moves_without_heads = 0
        self._heads_learn = not self.heads  # or it is known that they do not, and was said
        self._said_without_gradient = False

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
        return self._forward(images, with_features=False)[0]

    def forward_with_features(self, images: Tensor) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """As `forward`, and the merged features (N, C_i, h_i, w_i) of every tapped stage (of its last pass).

        Raises:
            NetworkError: a stage did not run, or the network was stripped.
        """
        return self._forward(images, with_features=True)

    def _forward(self, images: Tensor, *, with_features: bool) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        if getattr(self, "_is_replica", False):
            raise NetworkError(
                "nn.DataParallel copies the network without what catches its stages; use one process per GPU, with"
                " torchrun or accelerate launch"
            )
        # Only in this very pass: activation checkpointing runs stages again during the backward pass.
        self._caught.clear()
        self._image = (images.shape[-2], images.shape[-1])
        self._catching = True
        self._learns = self.training and torch.is_grad_enabled() and not _compiling()
        if self._learns and not self._heads_learn:
            self._look_whether_heads_learn()
        self._early = not with_features and self._learns
        try:
            given = self._run(images)
        except BaseException:
            self._caught.clear()  # else its graph would be held, and copying would fail
            raise
        finally:
            self._catching = False
        missed = [stage for stage in self._tapped if stage not in self._caught]
        if missed:
            raise NetworkError(
                f"stage '{missed[0]}' was not caught: after strip() call the network itself, after supervising it again"
                " the newer model; choose stages that every forward pass runs, and compile the network after it was"
                " supervised, not before"
            )
        # Nothing is kept: features would hold on to the graph and break deepcopy.
        caught = {stage: self._caught[stage] for stage in self._tapped}
        self._caught.clear()
        features: dict[str, Tensor] = {}
        tapped: dict[str, Tensor] = {}
        probes: dict[str, Tensor] = {}
        for stage, passes in caught.items():
            found = [self._late(stage, one, features) for one in passes]
            tapped[stage] = self._joined([logits for logits, _ in found], given)
            if found[-1][1] is not None:
                probes[probe_name(stage)] = found[-1][1]
        names = [*self.stages, "final", *(self.auxiliary if self.training else ())]
        outputs = {name: value for name in names if (value := tapped.get(name, given.get(name))) is not None}
        return outputs | probes, features

    @property
    def align_corners(self) -> bool:
        """How its logits are to be enlarged, as in `F.interpolate`; see `aligns_corners`."""
        return aligns_corners(self.net)

    @property
    def auxiliary(self) -> Mapping[str, float]:
        """Loss weights of the network's own auxiliary outputs."""
        weights: Mapping[str, float] = getattr(self.net, "auxiliary", {})
        return weights

    def gradient_checkpointing_enable(self, *args: Any, **options: Any) -> None:
        """Passed on to the network, as the Trainer of transformers asks for it.

        Raises:
            NetworkError: the network has no such method.
        """
        enable = getattr(self.net, "gradient_checkpointing_enable", None)
        if enable is None:
            raise NetworkError(f"{type(self.net).__name__} has no gradient_checkpointing_enable(); train without it")
        enable(*args, **options)

    def strip(self) -> nn.Module:
        """Removes hooks and heads; returns the very network that was given, with the same names and outputs."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        self._caught.clear()
        return self.net

    def _take_over(self) -> None:
        """Removes the hooks of models made of this network before: copies and files of it would carry them along."""
        parts = set(self.net.modules())  # a supervised network inside this one is a part of it and stays
        for module in parts:
            for key, hook in list(module._forward_hooks.items()):
                owner = getattr(hook.func, "__self__", None) if isinstance(hook, partial) else None
                if isinstance(owner, Supervised) and owner is not self and owner not in parts:
                    del module._forward_hooks[key]

    def _look_whether_heads_learn(self) -> None:
        """Warns where an optimizer moves the network and not the heads: it was made before these were.

        Twice, for weights may be loaded into the network once.
        """
        now = _versions(self.net), _versions(self.heads)
        last, self._last_versions = self._last_versions, now
        if last is None:
            return
        net_moves, heads_move = (have != had for have, had in zip(now, last, strict=True))
        if heads_move or not any(parameter.requires_grad for parameter in self.heads.parameters()):
            self._heads_learn = True
            return
        self._moves_without_heads += net_moves
        if self._moves_without_heads == 2:
            self._heads_learn = True  # nobody is told twice
            warnings.warn(
                "the network's weights change from step to step, those of its stages' heads do not: give the optimizer"
                " the parameters of the supervised model, which have both, as in AdamW(model.parameters())",
                stacklevel=6,
            )

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

    def _joined(self, logits: Sequence[Tensor], given: Mapping[str, Tensor]) -> Tensor:
        if len(logits) == 1:
            return logits[0]
        if len(logits) != getattr(self.net, "passes", 1):
            raise NetworkError(
                f"a stage ran {len(logits)} times in one forward pass, once in the dry run; choose a module around it"
            )
        joint: Tensor = cast("Any", self.net).join(*logits, given)
        return joint

    def _catch(self, stage: str, _module: nn.Module, _inputs: tuple[Any, ...], output: Any) -> None:
        if not self._catching:
            return
        if self._learns and not torch.is_grad_enabled() and not self._said_without_gradient:
            self._said_without_gradient = True
            warnings.warn(
                f"stage '{stage}' runs without gradients in a training pass, so that its loss trains its head and"
                " nothing of the network: give torch.utils.checkpoint use_reentrant=False, and take stages that are not"
                " frozen",
                stacklevel=2,
            )
        # Where a part of the network is compiled by itself, and inside somebody's own checkpoint, which runs the
        # stage again without us, the head has to wait.
        lean = self._early and not _compiling() and torch.is_grad_enabled() and not _saving_is_hooked()
        lean = lean and stage not in self._changed_later
        self._caught.setdefault(stage, []).append(self._lean(stage, output) if lean else output)

    def _lean(self, stage: str, output: Any) -> "_Early":
        """Runs a stage's head at once, and again in the backward pass, so that none of its activations is kept.

        They are made again when the backward pass reaches the stage, and by then those of all later stages are gone:
        supervision costs no memory at the peak, and the head's forward pass once more.
        """
        tensors = tuple(tensors_of(output))
        contexts = partial(_contexts, self.heads[_key(stage)])
        image = self._image  # of this pass; the next may come before the backward one
        found = checkpoint(
            lambda *_: self._through_head(stage, output, image),
            *tensors,
            use_reentrant=False,
            preserve_rng_state=False,  # heads draw nothing
            context_fn=contexts,
        )
        return _Early(output, tuple((tensor, tensor._version) for tensor in tensors), found)

    def _late(self, stage: str, caught: Any, features: dict[str, Tensor]) -> tuple[Tensor, Tensor | None]:
        """Logits and probe of one pass; fills in the merged features where the head had not been run yet."""
        if not isinstance(caught, _Early):
            features[stage] = self._merged(stage, caught, self._image)
            return self._head_outputs(stage, features[stage])
        if all(tensor._version == version for tensor, version in caught.tensors):
            return caught.found
        # The network has written to the stage's output since: what a second run would see is not what the first saw.
        self._changed_later.add(stage)
        with _FrozenStatistics(self.heads[_key(stage)]):
            return self._through_head(stage, caught.output, self._image)

    def _through_head(self, stage: str, output: Any, image: Size) -> tuple[Tensor, Tensor | None]:
        return self._head_outputs(stage, self._merged(stage, output, image))

    def _merged(self, stage: str, output: Any, image: Size) -> Tensor:
        return merge_maps(output, stage, image, self._layouts[stage], self.align_corners)

    def _head_outputs(self, stage: str, merged: Tensor) -> tuple[Tensor, Tensor | None]:
        # By its call, not by a method: FSDP gathers a module's parameters when it is called.
        found = self.heads[_key(stage)](merged)
        return found if isinstance(found, tuple) else (found, None)

    def _examine(self, example: Tensor) -> tuple[dict[str, int], dict[str, tuple[Layout, ...]]]:
        """Channels and layouts of every tapped stage, by a dry run."""
        if not self._tapped:
            return {}, {}
        images = examination_images(self.net, example)
        logits, outputs = self._outputs_of_stages(images)
        if (found := _num_classes(logits)) != self.plan.num_classes:
            raise NetworkError(
                f"the network's logits have {found} classes, the plan has {self.plan.num_classes}; make the"
                f" network with {self.plan.num_classes} classes, or the plan for this network's data"
            )
        size = (example.shape[-2], example.shape[-1])
        batch = None if len(images) == 1 else len(images)
        layouts = {stage: layouts_of(output, size, batch) for stage, output in outputs.items()}
        if unsure := [stage for stage, output in outputs.items() if either_order(output, size)]:
            layouts |= self._layouts_of_wide(images, batch, unsure)
        widths = {s: merge_maps(output, s, size, layouts[s]).shape[1] for s, output in outputs.items()}
        return widths, layouts

    def _layouts_of_wide(
        self, images: Tensor, batch: int | None, stages: Sequence[str]
    ) -> dict[str, tuple[Layout, ...]]:
        """Layouts by an image twice as wide, for stages of which a map has as many channels as rows and columns.

        None where the network takes no such image: channels come first then.
        """
        size = (images.shape[-2], 2 * images.shape[-1])
        try:
            _, outputs = self._outputs_of_stages(images.repeat(1, 1, 1, 2))
        except Exception:  # whatever a network of one size raises
            return {}
        return {stage: found for stage in stages if (found := layouts_of(outputs[stage], size, batch))}

    def _outputs_of_stages(self, images: Tensor) -> tuple[Tensor, dict[str, Any]]:
        """Logits, and what every tapped stage gave in its first pass; nothing of the network is changed."""
        modes = {module: module.training for module in self.net.modules()}
        self.net.eval()
        self._catching, self._early = True, False
        self._caught.clear()
        try:
            with torch.no_grad():
                logits = final_logits(self.net(like_weights(images, self.net)))
            return logits, {stage: self._caught[stage][0] for stage in self._tapped}
        finally:
            self._catching = False
            self._caught.clear()
            for module, mode in modes.items():
                module.training = mode


def _num_classes(logits: Tensor) -> int:
    """Channels of logits (N, K, h, w)."""
    if logits.shape[1] == 1:
        raise NetworkError(
            "the network has one logit (a sigmoid); make it with two classes, background and foreground, e.g. classes=2"
        )
    return logits.shape[1]


def _check_beside(
    plan: SupervisionPlan, net: nn.Module, stages: Stages, num_classes: int | None, example: Tensor
) -> None:
    """Refuses arguments that say another thing than the plan."""
    if num_classes is not None and num_classes != plan.num_classes:
        raise NetworkError(
            f"num_classes = {num_classes} beside a plan of {plan.num_classes} classes; leave it out, or give the plan"
            " for this network's data"
        )
    if isinstance(stages, str) and stages == "auto":
        return
    if not isinstance(stages, (str, int)) and tuple(stages) == plan.stage_names:
        return
    found = find_stages(net, example, stages)
    if found != plan.stage_names:
        raise NetworkError(
            f"stages are {', '.join(found)} beside a plan of {', '.join(plan.stage_names) or 'none'}; leave them out:"
            " the plan names them"
        )


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


@dataclass(frozen=True)
class _Early:
    """A stage whose head ran as soon as the stage had: its output, its tensors as they were, logits and probe."""

    output: Any
    tensors: tuple[tuple[Tensor, int], ...]
    found: tuple[Tensor, Tensor | None]


class _FrozenStatistics(AbstractContextManager[None]):
    """A head's second run: BatchNorm's running statistics do not move again, and the same tensors are saved.

    It can be entered again: a graph that is retained makes the activations anew each time it is walked.
    """

    def __init__(self, head: nn.Module) -> None:
        self._norms = [module for module in head.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
        self._before: list[tuple[float | None, Tensor | None]] = []

    def __enter__(self) -> None:
        self._before = [(norm.momentum, norm.num_batches_tracked) for norm in self._norms]
        for norm in self._norms:
            # A copy to count in: SyncBatchNorm wants one where there was one.
            tracked = norm.num_batches_tracked
            norm.momentum, norm.num_batches_tracked = 0.0, None if tracked is None else tracked.clone()

    def __exit__(self, *_: object) -> None:
        for norm, (momentum, tracked) in zip(self._norms, self._before, strict=True):
            norm.momentum, norm.num_batches_tracked = momentum, tracked


def _contexts(head: nn.Module) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
    """Of a head's first run and of the second."""
    return nullcontext(), _FrozenStatistics(head)


def _saving_is_hooked() -> bool:
    """Whether somebody watches what autograd saves: activation checkpointing around the stage, or moving to the CPU."""
    hooks = getattr(torch._C._autograd, "_top_saved_tensors_default_hooks", None)
    return hooks is None or hooks(True) is not None


def _compiling() -> bool:
    """torch.compile chooses by itself what is made again."""
    return torch.compiler.is_compiling()


def _versions(module: nn.Module) -> list[int]:
    """How often each parameter was written to."""
    return [parameter._version for parameter in module.parameters()]


def _key(stage: str) -> str:
    return stage.replace(".", "/")
