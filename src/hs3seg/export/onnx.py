"""ONNX through torch.export, kept only if ONNX Runtime gives eager's logits.

Shapes: N images, C channels, H x W the image, K classes, h x w the logits' size.
"""

import contextlib
import io
import json
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from hs3seg.errors import NetworkError
from hs3seg.export.description import described
from hs3seg.export.optional import quiet, require
from hs3seg.export.parity import TOLERANCE, ExportReport, Parity, check_parity, deployed
from hs3seg.export.program import DESCRIPTION, file_path, trace
from hs3seg.files import write_atomically

OPSET = 18
"""torch's exporter writes it without a conversion."""


def export_onnx(
    net: nn.Module,
    path: Path | str,
    example: Tensor,
    *,
    dynamic: bool = True,
    opset: int = OPSET,
    tolerance: float = TOLERANCE,
    description: Mapping[str, Any] | None = None,
) -> ExportReport:
    """Writes a network as ONNX: input `images` (N, C, H, W), output `logits` (N, K, h, w).

    Args:
        net: The network, evaluated with its final logits alone; its modes are restored.
        path: Ends in `.onnx`; written only if it gives eager's logits on the example, another batch, other sizes.
        example: Images (N, C, H, W), float32, normalised: the file does not normalise.
        dynamic: Batch, height and width are free; False = they are the example's.
        opset: ONNX version of the operators, 18 or later.
        tolerance: Largest difference of a logit from eager.
        description: Stored in the file's metadata: a `Taxonomy`, mean and std as lists, tensors or arrays, anything
            JSON takes.

    Raises:
        NetworkError: a library is missing, the network cannot be traced, stage heads are still on it, or the file is
            not the network.
    """
    path = file_path(path, ".onnx")
    require("onnx", "onnxscript", "onnxruntime", use="ONNX export")
    if opset < OPSET:
        raise NetworkError(f"opset = {opset}; torch's exporter writes {OPSET} or later")
    found: list[Parity] = []
    with deployed(net) as plain, torch.no_grad():
        program = _convert(plain, example, dynamic, opset)
        program.model.metadata_props[DESCRIPTION] = described(description)

        def write(temporary: Path) -> None:
            program.save(str(temporary), external_data=False)
            run = OnnxSession(temporary)
            found.append(check_parity(run, plain, example, dynamic=dynamic, tolerance=tolerance))

        write_atomically(path, write)
    parity = found[0]
    return ExportReport(path, "onnx", parity.max_difference, parity.agreement, parity.shapes, path.stat().st_size)


class OnnxSession:
    """An ONNX file as a function of images.

    Args:
        path: The file.
        threads: Of one run; None = as many as ONNX Runtime likes.

    Raises:
        NetworkError: not an ONNX file, or its inputs are others than one batch of images.
    """

    def __init__(self, path: Path, threads: int | None = None) -> None:
        runtime = require("onnxruntime", use="running an ONNX file")
        options = runtime.SessionOptions()
        options.log_severity_level = 3
        if threads is not None:
            options.intra_op_num_threads = threads
            options.inter_op_num_threads = 1
        try:
            self._session = runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime's own kinds have no common class
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise NetworkError(f"{path}: ONNX Runtime cannot read it ({reason}); export it again") from None
        inputs = self._session.get_inputs()
        if len(inputs) != 1 or len(inputs[0].shape) != 4:
            raise NetworkError(
                f"{path}: takes {', '.join(f'{i.name} {i.shape}' for i in inputs)}; needed is one input (N, C, H, W)"
            )
        self._input = inputs[0].name
        text = self._session.get_modelmeta().custom_metadata_map.get(DESCRIPTION, "")
        self.description: dict[str, Any] = json.loads(text or "{}")

    def __call__(self, images: Tensor) -> Tensor:
        """Logits (N, K, h, w) of images (N, C, H, W), on the CPU."""
        feed = {self._input: images.detach().float().cpu().contiguous().numpy()}
        return torch.from_numpy(self._session.run(None, feed)[0])


def _convert(net: nn.Module, example: Tensor, dynamic: bool, opset: int) -> Any:
    graph = trace(net, example, dynamic)
    # The exporter prints its progress, and warns of its own deprecations.
    with warnings.catch_warnings(), quiet("torch.onnx", "onnxscript"), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        try:
            return torch.onnx.export(
                graph, dynamo=True, input_names=["images"], output_names=["logits"], opset_version=opset, verbose=False
            )
        except Exception as error:
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise NetworkError(
                f"ONNX has no form for a part of this network ({reason}); replace that operator, or use torch.export"
            ) from error
