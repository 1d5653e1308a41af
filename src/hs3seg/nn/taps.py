"""Finding the places in a network that are supervised, by a dry run."""

import fnmatch
import math
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn

from hs3seg.errors import NetworkError, nearest, reason_of
from hs3seg.nn.maps import Size, final_logits, kind, layouts_of, tensors_of

Stages = Literal["auto"] | int | Sequence[str | int]
"""`auto`; a number of stages by depth; or names, patterns and indices."""
_LEAST_SIDE = 128  # pixels of an example: below, the scales of stride 16 and 32 cannot be told from global pooling


def find_stages(net: nn.Module, example: Tensor, stages: Stages = "auto", max_stages: int = 2) -> tuple[str, ...]:
    """Names of the modules to supervise, shallow to deep, found by a dry run in evaluation mode.

    `auto` takes the scale transitions (Sec. 3 and 4.1): where a coarser scale appears for the first time, the outermost
    module that made the input of that step ends a stage. The deepest `max_stages` are kept, the paper has two. The part
    that makes the final output is no stage. On HRNets this gives stage2 and stage3. Where all features have one scale,
    as in a plain ViT, `max_stages` places spaced evenly by depth are taken.

    Args:
        net: Any network; training flags and buffers are left as they were.
        example: (N, 3, H, W); its values do not matter, its size should be that of training. One with a side below 128
            pixels is taken several times as large, where the network takes that: small maps hide the scales.
        stages: `auto`; a number of stages spaced evenly by depth (counted in convolutions and linear layers); or a list
            of module names, patterns such as `encoder.layer[23]`, and indices into the scale transitions (0 = the
            shallowest, -1 = the deepest).
        max_stages: For `auto`.

    Raises:
        NetworkError: a name is not in the net (near ones are listed), never runs, runs twice, has no spatial map or
            comes after the logits; nothing was found; no logits are in what the network gives; or the example is none.
    """
    check_example(example)
    stages = getattr(net, "default_stages", "auto") if isinstance(stages, str) and stages == "auto" else stages
    given: object = stages
    if (isinstance(given, str) and given != "auto") or not isinstance(given, (int, Iterable)):
        what = f"stages = '{given}'" if isinstance(given, str) else f"stages is a {type(given).__name__}"
        raise NetworkError(f"{what}; give 'auto', a number, or a list of module names, and a plan as plan=")
    wanted = [] if isinstance(stages, (str, int)) else [word for word in stages if isinstance(word, str)]
    named = {word: _matching(net, word) for word in wanted}
    by_name = not isinstance(stages, (str, int)) and len(wanted) == len(stages)
    run = dry_run(net, example) if by_name else _large_run(net, example)
    if isinstance(stages, int):
        return _by_depth(run.before_logits, stages)
    if isinstance(stages, str):
        found = _by_scale(run.before_logits)
        return tuple(found[-max_stages:]) if found else _by_depth(run.before_logits, max_stages)
    names: list[str] = []
    for word in stages:
        names += named[word] if isinstance(word, str) else [_at(_by_scale(run.before_logits), word)]
    for name in dict.fromkeys(names):
        run.check(name, getattr(net, "passes", 1))
    ends = {call.name: call.end for call in run.calls}
    return tuple(sorted(dict.fromkeys(names), key=lambda name: ends[name]))


def check_example(example: object) -> None:
    """Makes sure that an example is a batch of images.

    Args:
        example: What was given.

    Raises:
        NetworkError: it is none.
    """
    if not isinstance(example, Tensor):
        raise NetworkError(
            f"the example is of type {type(example).__name__}; give a tensor of images (N, C, H, W), of a batch"
            " [images, labels] the first"
        )
    if example.ndim != 4 or not example.numel():
        raise NetworkError(
            f"the example has shape {tuple(example.shape)}; give images (N, C, H, W), one at least, e.g."
            " torch.zeros(1, 3, 512, 512)"
        )


def _large_run(net: nn.Module, example: Tensor) -> "DryRun":
    """A dry run on an example whose sides are `_LEAST_SIDE` at least; a network that refuses it has the given one."""
    factor = -(-_LEAST_SIDE // min(example.shape[-2:]))
    if factor > 1:
        with suppress(Exception):  # whatever a network made for one size raises
            return dry_run(net, example.repeat(1, 1, factor, factor))
    return dry_run(net, example)


def like_weights(example: Tensor, net: nn.Module) -> Tensor:
    """The example on the device and in the precision of a network's first weight."""
    weight = next(net.parameters(), example)
    return example.to(weight.device, weight.dtype if weight.is_floating_point() else example.dtype)


def examination_images(net: nn.Module, example: Tensor) -> Tensor:
    """Two images, which tell the first axis of a map from that of attention windows; our own networks need one."""
    return example[:1] if hasattr(net, "default_stages") else example[:1].repeat(2, 1, 1, 1)


@dataclass
class Call:
    """One run of a module in the dry run; start, end count events, depth the weighted layers that have run.

    Args:
        name: Of the module.
        start: Event of its beginning.
        weighted: Whether it is a convolution or a linear layer.
        inputs: Ids of the maps it took.
        input_sizes: Their (h, w).
        outputs: Ids of the maps it gave.
        sizes: Their (h, w).
        given: What it was seen to give, in words, for errors.
        before: Weighted layers that had run at its beginning.
        end: Event of its end.
        depth: Weighted layers that have run by then.
    """

    name: str
    start: int
    weighted: bool
    inputs: tuple[int, ...] = ()
    input_sizes: tuple[Size, ...] = ()
    outputs: tuple[int, ...] = ()
    sizes: tuple[Size, ...] = ()
    given: str = ""
    before: int = 0
    end: int = -1
    depth: int = 0


@dataclass(frozen=True)
class DryRun:
    """What ran, in order, and the final logits.

    Args:
        calls: Every run of every module.
        logits: (N, K, h, w).
    """

    calls: list[Call]
    logits: Tensor

    @property
    def before_logits(self) -> list[Call]:
        """Calls that can be stages: those that had ended when the module that gives the logits began or ended."""
        end = self._logits_end
        return [call for call in self.calls if call.end < end]

    @property
    def _logits_end(self) -> float:
        makers = [call for call in self.calls if id(self.logits) in call.outputs]
        return min((call.end for call in makers), default=math.inf)

    def check(self, name: str, passes: int) -> None:
        """Raises `NetworkError` unless a module can be a stage: it runs once per pass, gives a map, before the logits.

        Args:
            name: Of the module.
            passes: How often the network's stages run.
        """
        runs = [call for call in self.calls if call.name == name]
        if len(runs) != passes:
            times = "never runs" if not runs else f"runs {len(runs)} times"
            raise NetworkError(
                f"stage '{name}' {times} in a forward pass; a stage must run exactly once: choose a module inside or"
                " around it"
            )
        if not runs[0].sizes:
            raise NetworkError(
                f"stage '{name}' gives no spatial map (N, C, H, W) but {runs[0].given}; choose another module"
            )
        if runs[0].end >= self._logits_end:
            raise NetworkError(
                f"stage '{name}' comes after the final logits, or gives them; choose a module that runs before"
            )


@dataclass
class _Recorder:
    image: Size
    batch: int | None
    calls: list[Call] = field(default_factory=list)
    open: list[Call] = field(default_factory=list)
    events: int = 0
    depth: int = 0
    kept: list[Any] = field(default_factory=list)  # so that no tensor's id is used twice

    def before(
        self, name: str, weighted: bool, _module: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any]
    ) -> None:
        self.events += 1
        ids, sizes = self._maps([inputs, named])
        call = Call(name, self.events, weighted, ids, sizes, before=self.depth)
        self.calls.append(call)
        self.open.append(call)

    def after(self, _module: nn.Module, _inputs: tuple[Any, ...], output: Any) -> None:
        self.events += 1
        call = self.open.pop()
        self.depth += call.weighted
        call.end, call.depth = self.events, self.depth
        call.outputs, call.sizes = self._maps(output)
        call.given = kind(output)

    def _maps(self, value: Any) -> tuple[tuple[int, ...], tuple[Size, ...]]:
        tensors = list(tensors_of(value))
        self.kept += tensors
        layouts = layouts_of(value, self.image, self.batch)
        ids = tuple(id(tensors[layout.index]) for layout in layouts)
        return ids, tuple(layout.size(tensors[layout.index], self.image) for layout in layouts)


def dry_run(net: nn.Module, example: Tensor) -> DryRun:
    """Runs a network once in evaluation mode and records every module; nothing of it is changed.

    Args:
        net: Any network.
        example: (N, 3, H, W).

    Raises:
        NetworkError: the network fails, or gives nothing that can be told to be logits.
    """
    images = examination_images(net, example)
    recorder = _Recorder((example.shape[-2], example.shape[-1]), None if len(images) == 1 else len(images))
    handles = []
    modes = {module: module.training for module in net.modules()}
    for name, module in net.named_modules():
        weighted = isinstance(module, (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose2d, nn.Linear))
        handles.append(module.register_forward_pre_hook(partial(recorder.before, name, weighted), with_kwargs=True))
        handles.append(module.register_forward_hook(recorder.after))
    try:
        net.eval()
        with torch.no_grad():
            output = net(like_weights(images, net))
    except (RuntimeError, ValueError, TypeError, AssertionError) as error:
        raise NetworkError(
            f"the network cannot take an image of size {tuple(example.shape[-2:])}: {reason_of(error)}"
        ) from error
    finally:
        for handle in handles:
            handle.remove()
        for module, mode in modes.items():
            module.training = mode
    return DryRun([call for call in recorder.calls if call.name], final_logits(output))


def _by_scale(calls: list[Call]) -> list[str]:
    """All scale transitions, shallow to deep."""
    once = {call.name for call in calls if sum(c.name == call.name for c in calls) == 1}
    coarsest: Size | None = None
    found: list[str] = []
    for call in sorted(calls, key=lambda c: c.end):
        for size in call.sizes:
            if size == (1, 1):
                continue  # global pooling, e.g. squeeze-and-excitation, is no scale
            if coarsest is None:
                coarsest = size
            elif _is_coarser(size, coarsest) and not _is_detour(call, calls, coarsest):
                name = _producer(_step(call, calls, coarsest, size), calls, once)
                coarsest = size
                if name and name not in found:
                    found.append(name)
    return found


def _at(found: list[str], index: int) -> str:
    if not -len(found) <= index < len(found):
        raise NetworkError(
            f"stage {index}: the network has {len(found)} scale transitions ({', '.join(found) or 'none'}); give an"
            " index into them, a number of stages instead of a list, or module names"
        )
    return found[index]


def _is_coarser(size: Size, coarsest: Size) -> bool:
    """Whether a map is a step of 2 or 4 below the coarsest so far; odd pyramid-pooling grids are not."""
    steps = [
        any(abs(old / factor - new) < 1 for factor in (2, 4)) and new < old
        for new, old in zip(size, coarsest, strict=True)
    ]
    return all(steps)


def _is_detour(call: Call, calls: list[Call], scale: Size) -> bool:
    """Whether a coarser map appears only inside a small module that takes the present scale and gives it back.

    Such are pyramid pooling and the reduced keys of attention; a U inside a U is larger than a sixth of the network.
    """
    total = max(c.depth for c in calls)
    around = [c for c in calls if c.start <= call.start and c.end >= call.end and c.input_sizes and c.sizes]
    return any(
        min(c.input_sizes) == scale and min(c.sizes) >= scale and 6 * (c.depth - c.before) <= total for c in around
    )


def _step(call: Call, calls: list[Call], old: Size, new: Size) -> Call:
    """The outermost block around a call that still takes the old scale in and gives the new one, such as a `layer2`."""
    around = [c for c in calls if c.start <= call.start and c.end >= call.end]
    steps = [c for c in around if new in c.sizes and c.input_sizes and min(c.input_sizes) == old]
    return min([call, *steps], key=lambda c: c.start)


def _producer(call: Call, calls: list[Call], once: set[str]) -> str | None:
    """The outermost module that made what the scale-changing call takes in.

    Where an operation outside any module lies between, the module that ended last before it.
    """
    before = [c for c in calls if c.end < call.start and c.sizes and c.name in once]
    makers = [c for c in before if set(c.outputs) & set(call.inputs)]
    if makers:
        return max(makers, key=lambda c: c.end).name
    return max(before, key=lambda c: c.end).name if before else None


def _by_depth(calls: list[Call], number: int) -> tuple[str, ...]:
    if number < 1:
        raise NetworkError(f"stages = {number}; give at least 1")
    total = max((call.depth for call in calls), default=0)
    once = [c for c in calls if c.sizes and c.depth and c.depth < total and sum(o.name == c.name for o in calls) == 1]
    if len({c.depth for c in once}) < number:
        raise NetworkError(
            f"stages = {number}, but only {len({c.depth for c in once})} places of this network can be tapped"
        )
    found: list[str] = []
    for i in range(1, number + 1):
        wanted = total * i / (number + 1)
        taken = [c.depth for c in once if c.name in found]
        free = [c for c in once if c.depth > max(taken, default=0)]
        if not free:
            raise NetworkError(f"stages = {number} are too many for this network's blocks; give fewer, or names")
        # A whole block is a better place than a layer inside one: each level of nesting counts as 5 % of the depth.
        found.append(min(free, key=lambda c: (abs(c.depth - wanted) / total + 0.05 * c.name.count("."), -c.end)).name)
    return tuple(found)


def _matching(net: nn.Module, word: str) -> list[str]:
    """Names of modules that a name or pattern stands for."""
    names = [n for n, _ in net.named_modules() if n]
    if word in names:
        return [word]
    if found := fnmatch.filter(names, word):
        return found
    stem = word.rstrip("0123456789")
    alike = [n for n in names if n.rstrip("0123456789") == stem]
    hint = f"modules that begin with '{stem}': {', '.join(alike)}" if alike else nearest(word, names)
    raise NetworkError(f"stage '{word}' is not in the net; {hint}")
