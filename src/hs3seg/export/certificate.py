"""The zero-cost certificate: after training with supervised stages, inference costs what it did before.

Shapes: N images, C channels, H x W the image, K classes, h x w the logits' size.
"""

import copy
import math
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from hs3seg.errors import NetworkError
from hs3seg.export.runners import Runner
from hs3seg.nn import Cost, count_cost, final_logits
from hs3seg.nn.taps import like_weights


@dataclass(frozen=True, slots=True)
class Certificate:
    """What a network costs at inference, before and after.

    Args:
        before: Parameters and multiply-accumulates (of one image) of the plain network.
        after: Of the network that is deployed.
        idle: Modules that `after` runs though its final logits do not need them -> their multiply-accumulates.
        max_difference: Largest absolute difference of a final logit; NaN if the shapes differ.
        latency_ratio: Time after / before, median over interleaved repeats; reported, not judged.
        latency_seconds: Medians (before, after).
        weight_bytes: Of the exported weights (before, after): parameters and buffers.
        tolerance: Difference that was allowed.
        reasons: Why it failed; empty = passed.
    """

    before: Cost
    after: Cost
    idle: dict[str, int]
    max_difference: float
    latency_ratio: float
    latency_seconds: tuple[float, float]
    weight_bytes: tuple[int, int]
    tolerance: float
    reasons: tuple[str, ...]

    @property
    def passed(self) -> bool:
        """Whether nothing is left of the training."""
        return not self.reasons

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        values = asdict(self) | {"passed": self.passed}
        if math.isnan(self.max_difference):  # JSON has none
            values["max_difference"] = None
        return values


def certify(
    before: nn.Module, after: nn.Module, example: Tensor, *, repeats: int = 5, tolerance: float = 0.0
) -> Certificate:
    """Compares the network that is deployed with the plain one.

    It fails if `after` has more parameters or multiply-accumulates, gives other final logits, or runs modules that its
    final logits do not need (an auxiliary head that leaks into inference).

    Args:
        before: The plain network with the trained weights, e.g. a copy taken before `supervise` and filled with them.
        after: What is deployed, e.g. `model.strip()`, or `load_runner(folder)` of what `save_pretrained` wrote.
        example: Images (N, C, H, W), normalised.
        repeats: Timed runs of each, in turn.
        tolerance: Largest difference of a logit; 0 = bit-equal.

    Raises:
        NetworkError: a network's parameters are not known (an exported file), or no final logits are found.
    """
    before, after = network_of(before, "before"), network_of(after, "after")
    shape = (1, *example.shape[1:])
    with _evaluation(before, after):
        costs = count_cost(before, shape), count_cost(after, shape)
        idle = find_idle(after, example)
        difference = _difference(before, after, example)
        times = _latency(before, after, example, repeats)
    return Certificate(
        *costs,
        idle,
        difference,
        statistics.median(b / a for a, b in zip(*times, strict=True)),
        (statistics.median(times[0]), statistics.median(times[1])),
        (_weight_bytes(before), _weight_bytes(after)),
        tolerance,
        tuple(_reasons(*costs, idle, difference, tolerance)),
    )


def network_of(net: nn.Module, name: str) -> nn.Module:
    """The network whose cost can be counted: of the runner of a folder the one inside.

    Args:
        net: Network, or what `load_runner` gave.
        name: What the error calls it.

    Raises:
        NetworkError: there is none, since an exported file holds a graph.
    """
    found = net.network if isinstance(net, Runner) else net
    if found is None or not any(True for _ in found.parameters()):
        raise NetworkError(f"'{name}' has no parameters to count; certify networks of torch, not exported files")
    return found


def find_idle(net: nn.Module, example: Tensor) -> dict[str, int]:
    """Modules that run at inference though the final logits depend on none of their parameters.

    Args:
        net: Any network that gives logits.
        example: Images (N, C, H, W).

    Returns:
        Name of the outermost such module -> its multiply-accumulates; empty = nothing leaks.
    """
    copied = copy.deepcopy(net).eval().requires_grad_()
    images = like_weights(example[:1], copied)
    with torch.enable_grad(), FlopCounterMode(display=False) as counter:
        logits = final_logits(copied(images))
    names = [name for name, _ in copied.named_parameters()]
    gradients = torch.autograd.grad(logits.sum(), list(copied.parameters()), allow_unused=True)
    needed = {name for name, gradient in zip(names, gradients, strict=True) if gradient is not None}
    counts = counter.get_flop_counts()
    idle: dict[str, int] = {}
    for name, module in copied.named_modules():
        if not name or any(name.startswith(f"{outer}.") for outer in idle):
            continue
        own = [f"{name}.{inner}" for inner, _ in module.named_parameters()]
        macs = sum(counts.get(f"{type(copied).__name__}.{name}", {}).values()) // 2
        if own and macs and not needed.intersection(own):
            idle[name] = macs
    return idle


def _reasons(before: Cost, after: Cost, idle: dict[str, int], difference: float, tolerance: float) -> list[str]:
    found = []
    for what, old, new in (
        ("parameters", before.parameters, after.parameters),
        ("convolution and linear MACs", before.conv_macs, after.conv_macs),
        ("attention MACs", before.matmul_macs, after.matmul_macs),
    ):
        if new > old:
            share = f" (+{new / old - 1:.2%})" if old else ""
            found.append(f"{new - old:,} {what} more than before{share}")
    for name, macs in idle.items():
        found.append(
            f"'{name}' runs at inference ({macs:,} MACs per image) though the final logits do not need it; remove it"
        )
    if math.isnan(difference):
        found.append("the final logits have another shape, or are not numbers")
    elif difference > tolerance:
        found.append(f"the final logits differ by {difference:.3g}, allowed is {tolerance:g}")
    return found


def _difference(before: nn.Module, after: nn.Module, example: Tensor) -> float:
    # In one memory layout: kernels of another one round otherwise.
    before, after, example = _contiguous(before), _contiguous(after), example.contiguous()
    with torch.inference_mode():
        one = final_logits(before(like_weights(example, before))).float().cpu()
        two = final_logits(after(like_weights(example, after))).float().cpu()
    return math.nan if one.shape != two.shape else (one - two).abs().max().item()


def _contiguous(net: nn.Module) -> nn.Module:
    """The network itself, or a copy of one whose convolutions lie channels last."""
    if all(parameter.is_contiguous() for parameter in net.parameters()):
        return net
    return copy.deepcopy(net).to(memory_format=torch.contiguous_format)


def _latency(before: nn.Module, after: nn.Module, example: Tensor, repeats: int) -> tuple[list[float], list[float]]:
    """Seconds of each run; the two take turns, so that a busy machine is equally busy for both."""
    nets = (before, after)
    images = [like_weights(example, net) for net in nets]
    times: tuple[list[float], list[float]] = ([], [])
    with torch.inference_mode():
        for repeat in range(-1, max(1, repeats)):  # the first round only warms up
            for which in (0, 1) if repeat % 2 else (1, 0):
                _wait(images[which])
                start = time.perf_counter()
                nets[which](images[which])
                _wait(images[which])
                if repeat >= 0:
                    times[which].append(time.perf_counter() - start)
    return times


def _wait(images: Tensor) -> None:
    if images.is_cuda:
        torch.cuda.synchronize(images.device)


def _weight_bytes(net: nn.Module) -> int:
    return sum(value.numel() * value.element_size() for value in net.state_dict().values())


@contextmanager
def _evaluation(*nets: nn.Module) -> Iterator[None]:
    modes = {module: module.training for net in nets for module in net.modules()}
    for net in nets:
        net.eval()
    try:
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode
