from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from hs3seg.errors import NetworkError
from hs3seg.export import ExportReport, export_onnx, export_openvino, load_runner, quantize

pytest.importorskip("openvino")

K = 3


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, 16, 3, 2, 1), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 16, 3, 2, 1), nn.ReLU()
        )
        self.last = nn.Conv2d(16, K, 1)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        x = self.last(self.body(images))
        return {"out": nn.functional.interpolate(x, size=images.shape[-2:], mode="bilinear")}


@pytest.fixture(scope="module")
def example() -> Tensor:
    return torch.randn(1, 3, 32, 48, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def net() -> nn.Module:
    torch.manual_seed(0)
    return Small().eval()


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory, net: nn.Module, example: Tensor) -> ExportReport:
    path = tmp_path_factory.mktemp("exported") / "a.xml"
    return export_openvino(net, path, example, description={"mean": [0.5]})


def test_a_file_takes_any_batch_and_size_and_gives_eagers_logits(exported: ExportReport, net: nn.Module) -> None:
    assert exported.max_difference <= 1e-5
    assert exported.agreement == 1
    files = list(exported.path.parent.iterdir())
    assert {path.name for path in files} == {"a.xml", "a.bin"}
    assert exported.size_bytes == sum(path.stat().st_size for path in files)
    runner = load_runner(exported.path, threads=1)
    images = torch.randn(3, 3, 37, 61)
    torch.testing.assert_close(runner(images), net(images)["out"], atol=1e-5, rtol=0)
    assert runner.description == {"mean": [0.5]}


def test_weights_are_kept_in_full_precision(exported: ExportReport, net: nn.Module) -> None:
    weights = sum(m.weight.numel() for m in net.modules() if isinstance(m, nn.Conv2d))
    assert exported.path.with_suffix(".bin").stat().st_size >= 4 * weights


def test_results_are_not_overwritten_by_the_next_run(exported: ExportReport, example: Tensor) -> None:
    runner = load_runner(exported.path)
    first = runner(example)
    kept = first.clone()
    runner(-example)
    assert torch.equal(first, kept)


def test_an_onnx_file_can_be_the_source(tmp_path: Path, net: nn.Module, example: Tensor) -> None:
    pytest.importorskip("onnxruntime")
    source = export_onnx(net, tmp_path / "a.onnx", example).path
    report = export_openvino(net, tmp_path / "a.xml", example, source=source)
    assert report.max_difference <= 1e-5
    with pytest.raises(NetworkError, match="not kept"):
        export_openvino(Small(), tmp_path / "b.xml", example, source=source)
    assert {path.name for path in tmp_path.iterdir()} == {"a.onnx", "a.xml", "a.bin"}


def test_a_file_that_cannot_be_read_says_so(tmp_path: Path) -> None:
    path = tmp_path / "a.xml"
    path.write_text("<net>")
    with pytest.raises(NetworkError, match=r"needs its \.bin"):
        load_runner(path)


def test_int8_is_smaller_and_nearly_agrees(tmp_path: Path, exported: ExportReport) -> None:
    pytest.importorskip("nncf")
    images = [torch.randn(3, 32, 48, generator=torch.Generator().manual_seed(i)) for i in range(4)]
    report = quantize(exported.path, tmp_path / "int8.xml", images)
    assert report.format == "openvino-int8"
    assert report.path.with_suffix(".bin").stat().st_size < exported.path.with_suffix(".bin").stat().st_size
    assert 0.9 < report.agreement <= 1
    assert 0 < report.max_difference < 0.2
    runner = load_runner(report.path)
    assert runner(torch.randn(2, 3, 40, 56)).shape == (2, K, 40, 56)
    assert runner.description == {"mean": [0.5]}


def test_quantising_needs_images(tmp_path: Path, exported: ExportReport) -> None:
    pytest.importorskip("nncf")
    with pytest.raises(NetworkError, match="training split"):
        quantize(exported.path, tmp_path / "int8.xml", [])
