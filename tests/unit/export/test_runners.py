import importlib
from collections.abc import Callable  # noqa: TC003  # annotates a local
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from hs3seg.errors import CheckpointError, NetworkError
from hs3seg.export import Runner, export_onnx, export_openvino, load_runner, quantize
from hs3seg.nn.resize import aligns_corners


@pytest.mark.parametrize(
    ("name", "message"), [("none.onnx", "does not exist"), ("weights.pth", r"\.onnx, \.xml, \.pt2")]
)
def test_files_of_other_kinds_are_refused(tmp_path: Path, name: str, message: str) -> None:
    (tmp_path / "weights.pth").touch()
    with pytest.raises(CheckpointError, match=message):
        load_runner(tmp_path / name)


@pytest.mark.parametrize("name", ["a.onnx", "a.pt2"])
def test_a_damaged_file_says_so(tmp_path: Path, name: str) -> None:
    pytest.importorskip("onnxruntime")
    (tmp_path / name).write_bytes(b"not a network")
    with pytest.raises(NetworkError, match="export it again"):
        load_runner(tmp_path / name)


def test_a_runner_stays_in_evaluation_mode_without_gradients(tmp_path: Path) -> None:
    seen: list[tuple[torch.dtype, bool]] = []

    def run(images: torch.Tensor) -> torch.Tensor:
        seen.append((images.dtype, torch.is_grad_enabled()))
        return images

    runner = Runner(tmp_path, run, {})
    assert not runner.train().training
    assert not nn.Sequential(runner).train()[0].training
    runner(torch.zeros(1, 3, 4, 4, dtype=torch.float64))
    assert seen == [(torch.float32, False)]


@pytest.mark.parametrize("library", ["onnx", "onnxscript", "onnxruntime", "openvino", "nncf"])
def test_a_missing_library_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, library: str) -> None:
    def find(name: str) -> Any:
        if name == library:
            raise ImportError(f"No module named '{name}'", name=name)
        return importlib.import_module(name)

    monkeypatch.setattr("hs3seg.export.optional.import_module", find)
    net, example = nn.Conv2d(3, 3, 1), torch.zeros(1, 3, 8, 8)
    if library == "nncf":
        pytest.importorskip("openvino")
    calls: dict[str, Callable[[], object]] = {
        "openvino": lambda: export_openvino(net, tmp_path / "a.xml", example),
        "nncf": lambda: quantize(tmp_path / "a.xml", tmp_path / "b.xml", [example]),
    }
    call = calls.get(library, lambda: export_onnx(net, tmp_path / "a.onnx", example))
    with pytest.raises(NetworkError, match=rf"'{library}'.*'\.\[export\]'"):
        call()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("path", ["a.pt", "a.xml", "a"])
def test_a_path_ends_as_the_format_wants(tmp_path: Path, path: str) -> None:
    pytest.importorskip("onnxruntime")
    with pytest.raises(NetworkError, match=r"'\.onnx'"):
        export_onnx(nn.Conv2d(3, 3, 1), tmp_path / path, torch.zeros(1, 3, 8, 8))


def test_logits_are_enlarged_as_those_of_the_network_are(tmp_path: Path) -> None:
    assert not aligns_corners(Runner(tmp_path, torch.sin, {}))
    assert aligns_corners(Runner(tmp_path, torch.sin, {"align_corners": True}))
