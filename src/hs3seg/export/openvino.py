"""OpenVINO, in float32 or quantised to int8, kept only if it gives the logits of what it was made from.

Shapes: N images, C channels, H x W the image, K classes, h x w the logits' size.
"""

import contextlib
import io
import json
import tempfile
import warnings
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from hs3seg.errors import NetworkError
from hs3seg.export.description import described
from hs3seg.export.optional import quiet, require
from hs3seg.export.parity import TOLERANCE, ExportReport, Parity, check_parity, deployed, measure_parity
from hs3seg.export.program import DESCRIPTION, file_path, trace


class OpenvinoSession:
    """An OpenVINO file (or an ONNX file run by OpenVINO) as a function of images.

    Computes in float32: by itself OpenVINO takes bfloat16 where the processor has it, and logits then differ by 1 %.

    Args:
        path: `.xml` with its `.bin` beside it, or `.onnx`.
        threads: Of one run; None = as many as OpenVINO likes.

    Raises:
        NetworkError: not readable, or its inputs are others than one batch of images.
    """

    def __init__(self, path: Path, threads: int | None = None) -> None:
        openvino = require("openvino", use="running an OpenVINO file")
        options: dict[str, Any] = {"INFERENCE_PRECISION_HINT": "f32"}
        if threads is not None:
            options["INFERENCE_NUM_THREADS"] = threads
        core = openvino.Core()
        model = _read(core, path)
        if len(model.inputs) != 1 or len(model.inputs[0].partial_shape) != 4:
            raise NetworkError(f"{path}: takes {len(model.inputs)} inputs; needed is one of shape (N, C, H, W)")
        self.description: dict[str, Any] = {}
        if model.has_rt_info(DESCRIPTION):
            self.description = json.loads(model.get_rt_info(DESCRIPTION).astype(str))
        self._compiled = core.compile_model(model, "CPU", options)

    def __call__(self, images: Tensor) -> Tensor:
        """Logits (N, K, h, w) of images (N, C, H, W), on the CPU."""
        found = self._compiled([images.detach().float().cpu().contiguous().numpy()])[0]
        return torch.from_numpy(found.copy())  # the next run writes into the same memory


def export_openvino(
    net: nn.Module,
    path: Path | str,
    example: Tensor,
    *,
    source: Path | str | None = None,
    dynamic: bool = True,
    tolerance: float = TOLERANCE,
    description: Mapping[str, Any] | None = None,
) -> ExportReport:
    """Writes a network as OpenVINO: `.xml`, and its weights in float32 as `.bin` beside it.

    Args:
        net: The network, evaluated with its final logits alone; its modes are restored.
        path: Ends in `.xml`; written only if it gives eager's logits on the example, another batch, other sizes.
        example: Images (N, C, H, W), float32, normalised: the file does not normalise.
        source: The network's `.onnx` file, which is then converted; None = converted from torch.
        dynamic: Batch, height and width are free; as in the source.
        tolerance: Largest difference of a logit from eager.
        description: Stored in the file: a `Taxonomy`, mean and std as lists, tensors or arrays, anything JSON takes.

    Raises:
        NetworkError: a library is missing, the network cannot be converted, or the file is not the network.
    """
    path = file_path(path, ".xml")
    openvino = require("openvino", use="OpenVINO export")
    with deployed(net) as plain, torch.no_grad():
        if source is None:
            model = _convert(openvino, trace(plain, example, dynamic))
        else:
            model = _read(openvino.Core(), Path(source))

        def check(run: OpenvinoSession) -> Parity:
            return check_parity(run, plain, example, dynamic=dynamic, tolerance=tolerance)

        return _save(openvino, model, path, "openvino", check, description)


def quantize(
    source: Path | str,
    path: Path | str,
    images: Iterable[Tensor],
    *,
    keep: Iterable[str] = (),
    description: Mapping[str, Any] | None = None,
) -> ExportReport:
    """Quantises a file to int8 after training, by nncf; no labels are needed.

    Differences are reported, not judged: measure mIoU of `load_runner(report.path)` on labelled images.

    Args:
        source: `.xml` or `.onnx` of a network.
        path: Ends in `.xml`.
        images: Calibration images, each (C, H, W) or (N, C, H, W), normalised: some 100 of the training split, and not
            of the split that the mIoU is measured on. Every one given is used.
        keep: Names of operators (regular expressions) that stay in float32.
        description: Stored in the file; default what the source has.

    Returns:
        `max_difference` and `agreement` are those from the source file on the first image.

    Raises:
        NetworkError: a library is missing, or there are no calibration images.
    """
    path = file_path(path, ".xml")
    openvino = require("openvino", use="int8 quantisation")
    with quiet("nncf"):
        nncf = require("nncf", use="int8 quantisation")
    batches = [batch[None] if batch.ndim == 3 else batch for batch in images]
    if not batches:
        raise NetworkError("no calibration images; give some 100 normalised images of the training split")
    float_run = OpenvinoSession(Path(source))
    ignored = nncf.IgnoredScope(patterns=list(keep)) if keep else None
    # nncf draws its progress on standard output, where a command's JSON may go.
    with quiet("nncf"), warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        model = nncf.quantize(
            _read(openvino.Core(), Path(source)),
            nncf.Dataset(batches, lambda batch: batch.float().cpu().numpy()),
            subset_size=len(batches),
            preset=nncf.QuantizationPreset.MIXED,
            ignored_scope=ignored,
        )

    def check(run: OpenvinoSession) -> Parity:
        return measure_parity(run, _Plain(float_run), batches[0], dynamic=False)

    about = float_run.description if description is None else description
    return _save(openvino, model, path, "openvino-int8", check, about)


class _Plain(nn.Module):
    def __init__(self, run: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self._run = run

    def forward(self, images: Tensor) -> Tensor:
        return self._run(images)


def _save(
    openvino: Any,
    model: Any,
    path: Path,
    kind: str,
    check: Callable[[OpenvinoSession], Parity],
    description: Mapping[str, Any] | None,
) -> ExportReport:
    """Writes both files beside their place, checks them, and moves them."""
    model.set_rt_info(described(description), DESCRIPTION)
    model.outputs[0].get_tensor().set_names({"logits"})
    path.parent.mkdir(parents=True, exist_ok=True)
    weights = path.with_suffix(".bin")
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as folder:
        temporary = Path(folder) / path.name
        # By itself OpenVINO halves the weights' precision: logits of an HRNet then differ by 4e-3.
        openvino.save_model(model, str(temporary), compress_to_fp16=False)
        parity = check(OpenvinoSession(temporary))
        # The two belong together: a process killed in between leaves no .xml rather than one with other weights.
        path.unlink(missing_ok=True)
        temporary.with_suffix(".bin").replace(weights)
        temporary.replace(path)
    size = path.stat().st_size + weights.stat().st_size
    return ExportReport(path, kind, parity.max_difference, parity.agreement, parity.shapes, size)


def _read(core: Any, path: Path) -> Any:
    try:
        return core.read_model(str(path))
    except RuntimeError as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        raise NetworkError(
            f"{path}: OpenVINO cannot read it ({lines[-1] if lines else 'no reason given'}); an .xml needs its .bin"
            " beside it"
        ) from None


def _convert(openvino: Any, graph: Any) -> Any:
    try:
        with quiet("openvino"), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return openvino.convert_model(graph)
    except Exception as error:  # openvino's own kinds have no common class
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        raise NetworkError(
            f"OpenVINO has no form for a part of this network ({lines[-1] if lines else type(error).__name__}); export"
            " it as ONNX and give that file as source"
        ) from error
