"""Finding and reading the places in a network that are supervised.

A tap's output may be one map (N, C, H, W) or a list or tuple of maps, as HRNet's stages have.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn

from hs3seg.errors import NetworkError, nearest
from hs3seg.nn.resize import concatenate

Size = tuple[int, int]


def merge_maps(output: Any, stage: str) -> Tensor:
    """One map from a tap's output: lists are brought to the largest map's size and concatenated.

    Args:
        output: (N, C, H, W), or a list or tuple of such maps.
        stage: Named in errors.

    Returns:
        (N, sum of C, H, W).

    Raises:
        NetworkError: the output holds no spatial map.
    """
    maps = _maps(output)
    if not maps:
        raise NetworkError(
            f"stage '{stage}' gives no spatial map (N, C, H, W) but {_kind(output)}; choose another module"
        )
    if len(maps) == 1:
        return maps[0]
    size = max(_sizes(maps), key=lambda s: s[0] * s[1])
    return concatenate(maps, size)


def find_stages(
    net: nn.Module,
    example: Tensor,
    stages: Literal["auto"] | int | Sequence[str] = "auto",
    max_stages: int = 2,
) -> tuple[str, ...]:
    """Names of the modules to supervise, shallow to deep, found by a dry run in evaluation mode.

    `auto` takes the scale transitions (Sec. 3 and 4.1): where a coarser scale appears for the first time, the outermost
    module that made the input of that step ends a stage. The deepest `max_stages` are kept, the paper has two. The part
    that makes the final output is no stage. On HRNets this gives stage2 and stage3.

    Args:
        net: Any network; training flags and buffers are left as they were.
        example: (N, 3, H, W); its values do not matter, its size should be that of training.
        stages: `auto`; a number of stages spaced evenly by depth (counted in convolutions and linear layers); or names.
        max_stages: For `auto`.

    Raises:
        NetworkError: a name is not in the net (near ones are listed), never runs, runs twice or has no spatial map;
            or nothing was found.
    """
    stages = getattr(net, "default_stages", "auto") if stages == "auto" else stages
    if not isinstance(stages, (str, int)):
        for name in stages:
            _check_name(net, name)
    calls = _dry_run(net, example)
    if isinstance(stages, int):
        return _by_depth(calls, stages)
    if isinstance(stages, str):
        if stages != "auto":
            raise NetworkError(f"stages = '{stages}'; give 'auto', a number, or a list of module names")
        return _by_scale(calls, max_stages)
    for name in stages:
        runs = [call for call in calls if call.name == name]
        passes = getattr(net, "passes", 1)
        if len(runs) != passes:
            times = "never runs" if not runs else f"runs {len(runs)} times"
            raise NetworkError(f"stage '{name}' {times} in a forward pass; a stage must run exactly once")
        if not runs[0].sizes:
            raise NetworkError(f"stage '{name}' gives no spatial map (N, C, H, W); choose another module")
    ends = {call.name: call.end for call in calls}
    return tuple(sorted(stages, key=lambda name: ends[name]))


def like_weights(example: Tensor, net: nn.Module) -> Tensor:
    """The example on the device and in the precision of a network's first weight."""
    weight = next(net.parameters(), example)
    return example.to(weight.device, weight.dtype if weight.is_floating_point() else example.dtype)


@dataclass
class _Call:
    """One run of a module in the dry run; start, end count events, depth the weighted layers that have run."""

    name: str
    start: int
    weighted: bool
    inputs: tuple[int, ...] = ()
    input_sizes: tuple[Size, ...] = ()
    outputs: tuple[int, ...] = ()
    sizes: tuple[Size, ...] = ()
    end: int = -1
    depth: int = 0


@dataclass
class _Recorder:
    calls: list[_Call] = field(default_factory=list)
    open: list[_Call] = field(default_factory=list)
    events: int = 0
    depth: int = 0
    kept: list[Any] = field(default_factory=list)  # so that no tensor's id is used twice

    def before(self, name: str, weighted: bool, _module: nn.Module, inputs: tuple[Any, ...]) -> None:
        self.events += 1
        maps = [m for value in inputs for m in _maps(value)]
        self.kept += maps
        call = _Call(name, self.events, weighted, tuple(id(m) for m in maps), _sizes(maps))
        self.calls.append(call)
        self.open.append(call)

    def after(self, _module: nn.Module, _inputs: tuple[Any, ...], output: Any) -> None:
        self.events += 1
        call = self.open.pop()
        self.depth += call.weighted
        maps = _maps(output)
        self.kept += maps
        call.end, call.depth = self.events, self.depth
        call.outputs = tuple(id(m) for m in maps)
        call.sizes = _sizes(maps)


def _dry_run(net: nn.Module, example: Tensor) -> list[_Call]:
    recorder = _Recorder()
    handles = []
    modes = {module: module.training for module in net.modules()}
    for name, module in net.named_modules():
        weighted = isinstance(module, (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose2d, nn.Linear))
        handles.append(module.register_forward_pre_hook(partial(recorder.before, name, weighted)))
        handles.append(module.register_forward_hook(recorder.after))
    try:
        net.eval()
        with torch.no_grad():
            net(like_weights(example, net))
    except (RuntimeError, ValueError, TypeError, AssertionError) as error:
        raise NetworkError(
            f"the network cannot take an image of size {tuple(example.shape[-2:])}: {str(error).splitlines()[0]}"
        ) from error
    finally:
        for handle in handles:
            handle.remove()
        for module, mode in modes.items():
            module.training = mode
    return [call for call in recorder.calls if call.name]


def _by_scale(calls: list[_Call], max_stages: int) -> tuple[str, ...]:
    once = {call.name for call in calls if sum(c.name == call.name for c in calls) == 1}
    coarsest: Size | None = None
    found: list[str] = []
    for call in sorted(calls, key=lambda c: c.end):
        for size in call.sizes:
            if size == (1, 1):
                continue  # global pooling, e.g. squeeze-and-excitation, is no scale
            if coarsest is None:
                coarsest = size
            elif _is_coarser(size, coarsest):
                name = _producer(_step(call, calls, coarsest, size), calls, once)
                coarsest = size
                if name and name not in found:
                    found.append(name)
    if not found:
        raise NetworkError(
            "no scale transition was found in this network; give a number of stages spaced by depth, e.g. stages = 2,"
            " or module names"
        )
    return tuple(found[-max_stages:])


def _is_coarser(size: Size, coarsest: Size) -> bool:
    """Whether a map is a step of 2 or 4 below the coarsest so far; odd pyramid-pooling grids are not."""
    steps = [
        any(abs(old / factor - new) < 1 for factor in (2, 4)) and new < old
        for new, old in zip(size, coarsest, strict=True)
    ]
    return all(steps)


def _step(call: _Call, calls: list[_Call], old: Size, new: Size) -> _Call:
    """The outermost block around a call that still takes the old scale in and gives the new one, such as a `layer2`."""
    around = [c for c in calls if c.start <= call.start and c.end >= call.end]
    steps = [c for c in around if new in c.sizes and c.input_sizes and min(c.input_sizes) == old]
    return min([call, *steps], key=lambda c: c.start)


def _producer(call: _Call, calls: list[_Call], once: set[str]) -> str | None:
    """The outermost module that made what the scale-changing call takes in.

    Where an operation outside any module lies between, the module that ended last before it.
    """
    before = [c for c in calls if c.end < call.start and c.sizes and c.name in once]
    makers = [c for c in before if set(c.outputs) & set(call.inputs)]
    if makers:
        return max(makers, key=lambda c: c.end).name
    return max(before, key=lambda c: c.end).name if before else None


def _by_depth(calls: list[_Call], number: int) -> tuple[str, ...]:
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


def _check_name(net: nn.Module, name: str) -> None:
    names = [n for n, _ in net.named_modules() if n]
    if name in names:
        return
    stem = name.rstrip("0123456789")
    alike = [n for n in names if n.rstrip("0123456789") == stem]
    hint = f"modules that begin with '{stem}': {', '.join(alike)}" if alike else nearest(name, names)
    raise NetworkError(f"stage '{name}' is not in the net; {hint}")


def _maps(value: Any) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value] if value.ndim == 4 else []
    if isinstance(value, (list, tuple)):
        maps = [_maps(item) for item in value]
        return [m for inner in maps for m in inner] if all(maps) else []
    return []


def _sizes(maps: Sequence[Tensor]) -> tuple[Size, ...]:
    return tuple((m.shape[-2], m.shape[-1]) for m in maps)


def _kind(value: Any) -> str:
    return f"a tensor of shape {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
