"""The network as it is deployed, and whether a file gives the same logits as it.

Shapes: N images, C channels, H x W the image, K classes, h x w the logits' size.
"""

import copy
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from hs3seg.errors import NetworkError
from hs3seg.nn import Supervised, final_logits
from hs3seg.nn.taps import like_weights

TOLERANCE = 1e-4
"""Largest difference of a logit that a file may have from eager."""
_DYNAMIC = "Export with dynamic=False for one size, or to another format; a small excess: give a larger tolerance"
_VALUES = "Give normalised images as example, or a larger tolerance"
_STEP = 32  # the usual stride of the deepest stage: networks that ask for whole multiples take it, too


@dataclass(frozen=True, slots=True)
class ExportReport:
    """What was written, and how near it is to the network.

    Args:
        path: The file.
        format: `torch.export`, `onnx`, `openvino` or `openvino-int8`.
        max_difference: Largest absolute difference of a logit from eager (int8: from the source file).
        agreement: Share of pixels with the same class as in eager, 0..1.
        shapes: Shapes (N, C, H, W) that were compared.
        size_bytes: Of the file, with its weights.
    """

    path: Path
    format: str
    max_difference: float
    agreement: float
    shapes: tuple[tuple[int, ...], ...]
    size_bytes: int


class FinalLogits(nn.Module):
    """A network whose output is the final logits alone, whatever else it gives.

    Args:
        net: Gives a tensor, `["out"]`, `.logits` or the like, see `hs3seg.nn.final_logits`.
    """

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, images: Tensor) -> Tensor:
        """Logits (N, K, h, w) of images (N, C, H, W)."""
        return final_logits(self.net(images))


@contextmanager
def deployed(net: nn.Module) -> Iterator[FinalLogits]:
    """The network in evaluation mode on the CPU, giving its final logits; every module's mode is restored afterwards.

    A network on another device is copied: a traced graph would hold that device, and files are compared on the CPU.

    Raises:
        NetworkError: stage heads are still on it, or it is not in float32.
    """
    if any(isinstance(module, Supervised) for module in net.modules()):
        raise NetworkError("the network still has the heads of its stages; export model.strip(), the network alone")
    kinds = {p.dtype for p in net.parameters() if p.is_floating_point()} - {torch.float32}
    if kinds:
        raise NetworkError(
            f"the network has weights in {kinds.pop()}; export net.float(): files are compared in float32"
        )
    if any(value.device.type != "cpu" for value in (*net.parameters(), *net.buffers())):
        net = copy.deepcopy(net).cpu()
    modes = {module: module.training for module in net.modules()}
    try:
        yield FinalLogits(net).eval()
    finally:
        for module, mode in modes.items():
            module.training = mode


@dataclass(frozen=True, slots=True)
class Parity:
    """Of two ways to run a network: see `ExportReport`."""

    max_difference: float
    agreement: float
    shapes: tuple[tuple[int, ...], ...]


def measure_parity(run: Callable[[Tensor], Tensor], net: nn.Module, example: Tensor, dynamic: bool = True) -> Parity:
    """Compares a file with eager on the example and, if sizes are free, on another batch and two other sizes.

    Args:
        run: The file: images (N, C, H, W) -> logits.
        net: From `deployed`.
        example: (N, C, H, W), float32, normalised.
        dynamic: Whether batch, height and width are free.

    Raises:
        NetworkError: the file cannot run these images, or logits are not finite or have another shape than eager's.
    """
    example = example.cpu()
    differences, same, total = [], 0, 0
    shapes = []
    for images in [example, *_others(example, dynamic)]:
        shape = tuple(images.shape)
        with torch.inference_mode():
            try:
                expected = net(like_weights(images, net)).float().cpu()
            except Exception:
                if shape[2] % _STEP and images is not example:
                    continue  # the network itself takes whole multiples only
                raise
        if not expected.isfinite().all():
            raise NetworkError(f"the network gives logits that are not finite on images {shape}; nothing was written")
        found = _attempt(run, images)
        if found.shape != expected.shape:
            raise NetworkError(
                f"the exported file gives {tuple(found.shape)} on images {shape}, eager {tuple(expected.shape)}; it was"
                " not kept"
            )
        differences.append((found - expected).abs().max().item())
        same += int((found.argmax(1) == expected.argmax(1)).sum())
        total += expected[:, 0].numel()
        shapes.append(shape)
    worst = max(differences, key=lambda d: math.inf if math.isnan(d) else d)
    return Parity(worst, same / total, tuple(shapes))


def check_parity(
    run: Callable[[Tensor], Tensor], net: nn.Module, example: Tensor, dynamic: bool, tolerance: float
) -> Parity:
    """As `measure_parity`; refuses a difference above `tolerance`.

    Raises:
        NetworkError: the file is not the network.
    """
    parity = measure_parity(run, net, example, dynamic)
    if not parity.max_difference <= tolerance:  # so that NaN is refused, too
        raise NetworkError(
            f"the exported file's logits differ from the network's by {parity.max_difference:.2g}, allowed is tolerance"
            f" = {tolerance:g} ({parity.agreement:.2%} of the pixels have the same class); it was not kept."
            f" {_DYNAMIC if dynamic else _VALUES}"
        )
    return parity


def _attempt(run: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
    try:
        return run(images)
    except Exception as error:  # every runtime has kinds of its own
        reason = (str(error).strip().splitlines() or [type(error).__name__])[-1][-300:]
        raise NetworkError(
            f"the exported file fails on images {tuple(images.shape)} ({reason}); it was not kept. Export with"
            " dynamic=False for one size, or to another format"
        ) from error


def _others(example: Tensor, dynamic: bool) -> list[Tensor]:
    """The example tiled to another batch and size, and to one with odd sides: values stay those of real images."""
    if not dynamic:
        return []
    n, channels, height, width = example.shape
    odd = (height + 1 + height % 2, width + 3 + width % 2)
    found = []
    for shape in [(n + 1, channels, height + _STEP, width + 2 * _STEP), (1, channels, *odd)]:
        repeats = [-(-wanted // have) for wanted, have in zip(shape, example.shape, strict=True)]
        found.append(example.repeat(repeats)[: shape[0], :, : shape[2], : shape[3]].contiguous())
    return found
