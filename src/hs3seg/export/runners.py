"""Any exported file as a network: images in, logits out.

Shapes: N images, C channels, H x W the image, K classes, h x w the logits' size.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from hs3seg.errors import CheckpointError, NetworkError, reason_of
from hs3seg.nn.resize import aligns_corners

SUFFIXES = (".onnx", ".xml", ".pt2")


class Runner(nn.Module):
    """An exported file in the place of a network; inference only.

    A module without parameters, so that whatever evaluates a network takes it.

    Args:
        path: The file or folder.
        run: Images (N, C, H, W) float32 -> logits (N, K, h, w).
        description: What the file says about itself (taxonomy, mean, std); empty if it says nothing.
    """

    def __init__(self, path: Path, run: Callable[[Tensor], Tensor], description: Mapping[str, Any]) -> None:
        super().__init__()
        self.path = path
        self.description = dict(description)
        self._run = run
        self.training = False
        # How the logits are to be enlarged; files from before this was written were read without.
        self.align_corners = bool(self.description.get("align_corners", aligns_corners(self.network)))

    @property
    def network(self) -> nn.Module | None:
        """The network itself, whose parameters can be counted, where a folder holds one; None for graphs."""
        from hs3seg.export.pretrained import PretrainedSegmenter

        return self._run.net if isinstance(self._run, PretrainedSegmenter) else None

    def train(self, mode: bool = True) -> "Runner":  # noqa: ARG002
        """Stays in evaluation mode: a graph has no other."""
        return self

    def forward(self, images: Tensor) -> Tensor:
        """Logits (N, K, h, w) of normalised images (N, C, H, W).

        Raises:
            NetworkError: the file's graph cannot take images of this size.
        """
        with torch.inference_mode():
            try:
                return self._run(images.float())
            except (AssertionError, RuntimeError, ValueError) as error:
                reason = reason_of(error)
                raise NetworkError(
                    f"{self.path}: does not take images of {tuple(images.shape)} ({reason}); give other sizes, or"
                    " export for this one (--fixed_size)"
                ) from None


def load_runner(path: Path | str, threads: int | None = None) -> Runner:
    """Makes a network of an exported file.

    Args:
        path: `.onnx`, `.xml` (OpenVINO), `.pt2` (torch.export), or a folder with model.safetensors and config.json.
        threads: For ONNX Runtime and OpenVINO; None = as they like. torch has `torch.set_num_threads`.

    Raises:
        CheckpointError: no such file, or of another kind.
        NetworkError: the file's library is missing, or it cannot read the file.
    """
    path = Path(path)
    if not path.exists():
        raise CheckpointError(f"'{path}' does not exist; `hs3 export` writes {', '.join(SUFFIXES)} and folders")
    if path.is_dir() or path.name == "model.safetensors":
        from hs3seg.export.pretrained import PretrainedSegmenter

        folder = path if path.is_dir() else path.parent
        network = PretrainedSegmenter.from_pretrained(folder).eval()
        return Runner(folder, network, network.description)
    if path.suffix == ".onnx":
        from hs3seg.export.onnx import OnnxSession

        session = OnnxSession(path, threads)
        return Runner(path, session, session.description)
    if path.suffix == ".xml":
        from hs3seg.export.openvino import OpenvinoSession

        compiled = OpenvinoSession(path, threads)
        return Runner(path, compiled, compiled.description)
    if path.suffix == ".pt2":
        from hs3seg.export.program import load_program

        module, description = load_program(path)
        return Runner(path, module, description)
    raise CheckpointError(
        f"'{path}' is no exported network; known are {', '.join(SUFFIXES)} and a folder with model.safetensors and"
        " config.json"
    )
