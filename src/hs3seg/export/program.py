"""The network as one graph (torch.export): the start of every other format, and a format of its own (.pt2).

Shapes: N images, C channels, H x W the image, K classes, h x w the logits' size.
"""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from hs3seg.errors import NetworkError
from hs3seg.export.description import described
from hs3seg.export.optional import quiet
from hs3seg.export.parity import TOLERANCE, ExportReport, Parity, check_parity, deployed
from hs3seg.files import write_atomically
from hs3seg.nn.taps import like_weights

DESCRIPTION = "hs3seg"
"""Name under which a file holds what is said about it, as JSON."""
_VALUE_DEPENDENT = ("data-dependent", "GuardOnDataDependent", "unbacked", "Dynamic control flow", "aten._local_scalar")


def export_program(
    net: nn.Module,
    path: Path | str,
    example: Tensor,
    *,
    dynamic: bool = True,
    tolerance: float = TOLERANCE,
    description: Mapping[str, Any] | None = None,
) -> ExportReport:
    """Writes a .pt2 file that torch alone runs, without the network's code.

    Args:
        net: The network; its modes are restored.
        path: Ends in `.pt2`; written only if it gives eager's logits.
        example: Images (N, C, H, W), normalised.
        dynamic: Batch, height and width are free; False = they are the example's.
        tolerance: Largest difference of a logit.
        description: Stored with it: a `Taxonomy`, mean and std as lists, tensors or arrays, anything JSON takes.

    Raises:
        NetworkError: the network cannot be traced, or the file is not the network.
    """
    path = file_path(path, ".pt2")

    def write(temporary: Path) -> None:
        # A file, not its name: torch wants names that end in .pt2.
        with temporary.open("wb") as file:
            about = {DESCRIPTION: described(description)}
            torch.export.save(program, cast("Any", file), extra_files=about)
        run, _ = load_program(temporary)
        found.append(check_parity(run, plain, example, dynamic=dynamic, tolerance=tolerance))

    found: list[Parity] = []
    with deployed(net) as plain, torch.no_grad():
        program = trace(plain, example, dynamic)
        write_atomically(path, write)
    parity = found[0]
    return ExportReport(
        path, "torch.export", parity.max_difference, parity.agreement, parity.shapes, path.stat().st_size
    )


def trace(net: nn.Module, example: Tensor, dynamic: bool) -> ExportedProgram:
    """The network's graph.

    Args:
        net: From `deployed`.
        example: (N, C, H, W).
        dynamic: Batch, height and width are free.

    Raises:
        NetworkError: the forward pass looks at values, or ties sizes to the example's.
    """
    if example.ndim != 4 or not example.is_floating_point():
        raise NetworkError(
            f"example has shape {tuple(example.shape)} and {example.dtype}; give (N, C, H, W) of float32"
        )
    images = like_weights(example, net)
    shapes = None
    if dynamic:
        # An axis of length 1 becomes a constant when it is traced.
        images = images if len(images) > 1 else images.repeat(2, 1, 1, 1)
        shapes = ({0: Dim.DYNAMIC, 2: Dim.DYNAMIC, 3: Dim.DYNAMIC},)
    try:
        with quiet("torch.export", "torch.fx", "torch._dynamo", "torch._export"):
            return torch.export.export(net, (images,), dynamic_shapes=shapes, strict=False)
    except NetworkError:
        raise
    except Exception as error:  # torch raises many kinds, some private
        raise _explained(error, net, images) from error


def file_path(path: Path | str, suffix: str) -> Path:
    """The path, if it ends as the format wants.

    Raises:
        NetworkError: it ends otherwise.
    """
    path = Path(path)
    if path.suffix != suffix:
        raise NetworkError(f"'{path.name}' must end in '{suffix}'")
    return path


def _explained(error: Exception, net: nn.Module, images: Tensor) -> Exception:
    with torch.no_grad():
        try:
            net(images)
        except Exception as own:  # the network itself fails: nothing to do with exporting
            return NetworkError(f"the network fails on the example {tuple(images.shape)}: {_first_line(own)}")
    text = f"{type(error).__name__}: {error}"
    if any(sign in text for sign in _VALUE_DEPENDENT):
        return NetworkError(
            f"the network looks at values while it runs ({_first_line(error)}); a graph cannot. Write `if` on tensors"
            " as torch.where or torch.cond, take .item(), int(tensor) and boolean masks out of forward, or export the"
            " part that has none of them"
        )
    if "specialized" in text or "Constraints violated" in text:
        return NetworkError(
            f"the network ties batch, height or width to the example's {tuple(images.shape)} ({_reason(error)}); export"
            " with dynamic=False for this very shape, or take sizes from tensor.shape in forward"
        )
    return NetworkError(
        f"the network cannot be traced: {_first_line(error)}; torch.export.draft_export(net, (example,)) lists every"
        " place that has to be changed"
    )


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[0][:300]}"


def _reason(error: Exception) -> str:
    lines = [line.strip(" -") for line in str(error).splitlines() if line.strip().startswith("- ")]
    return lines[0][:300] if lines else _first_line(error)


def load_program(path: Path) -> tuple[Callable[[Tensor], Tensor], dict[str, Any]]:
    """Reads a .pt2 file: what it computes, and its description.

    Raises:
        NetworkError: not a .pt2 file, or of a torch that this one does not read.
    """
    extra = {DESCRIPTION: ""}
    try:
        with path.open("rb") as file:
            program = torch.export.load(cast("Any", file), extra_files=extra)
        return program.module(), json.loads(extra[DESCRIPTION] or "{}")
    except Exception as error:  # torch raises many kinds
        raise NetworkError(
            f"{path}: torch {torch.__version__} cannot read it ({_first_line(error)}); export it again"
        ) from None
