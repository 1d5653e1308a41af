from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from hs3seg.errors import NetworkError
from hs3seg.export import export_onnx, export_openvino, export_program, load_runner
from hs3seg.nn import supervise
from hs3seg.taxonomy import Taxonomy

pytest.importorskip("onnxruntime")

K = 3


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU())
        self.body = nn.Sequential(nn.Conv2d(8, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU())
        self.last = nn.Conv2d(8, K, 1)

    def forward(self, images: Tensor) -> Tensor:
        x = self.last(self.body(self.stem(images)))
        return nn.functional.interpolate(x, size=images.shape[-2:], mode="bilinear", align_corners=False)


class Wrapped(nn.Module):
    def __init__(self, form: str) -> None:
        super().__init__()
        self.net, self.form = Small(), form

    def forward(self, images: Tensor) -> object:
        logits = self.net(images)
        return {"aux": logits * 0, "out": logits} if self.form == "dict" else [logits, logits * 0]


class ByValue(Small):
    def forward(self, images: Tensor) -> Tensor:
        x = super().forward(images)
        if x.mean() > 0:
            x = x * 2
        return x


class FixedSize(Small):
    def __init__(self) -> None:
        super().__init__()
        self.place = nn.Parameter(torch.randn(1, 3, 32, 48))

    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images + self.place)


@pytest.fixture
def example() -> Tensor:
    return torch.randn(1, 3, 32, 48, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("ending", ["onnx", "pt2"])
def test_a_file_takes_any_batch_and_size_and_gives_eagers_logits(tmp_path: Path, example: Tensor, ending: str) -> None:
    net = Small().eval()
    export = export_onnx if ending == "onnx" else export_program
    report = export(net, tmp_path / f"a.{ending}", example)
    assert report.max_difference <= 1e-5
    assert report.agreement == 1
    assert len({shape[0] for shape in report.shapes}) > 1
    assert len({shape[2:] for shape in report.shapes}) == 3
    assert report.size_bytes == report.path.stat().st_size
    runner = load_runner(report.path)
    images = torch.randn(3, 3, 37, 61)
    torch.testing.assert_close(runner(images), net(images), atol=1e-5, rtol=0)


@pytest.mark.parametrize("form", ["dict", "list"])
def test_only_the_final_logits_are_exported(tmp_path: Path, example: Tensor, form: str) -> None:
    net = Wrapped(form).eval()
    runner = load_runner(export_onnx(net, tmp_path / "a.onnx", example, dynamic=False).path)
    torch.testing.assert_close(runner(example), net.net(example), atol=1e-5, rtol=0)


def test_a_networks_modes_are_restored(tmp_path: Path, example: Tensor) -> None:
    net = Small().train()
    net.body.eval()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    export_onnx(net, tmp_path / "a.onnx", example, dynamic=False)
    assert net.training
    assert net.stem.training
    assert not net.body.training
    assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())


def test_stage_heads_must_be_stripped_first(tmp_path: Path, example: Tensor) -> None:
    net = Small()
    model = supervise(net, ["stem"], num_classes=K, example=example)
    with pytest.raises(NetworkError, match=r"model\.strip\(\)"):
        export_onnx(model, tmp_path / "a.onnx", example)
    export_onnx(model.strip(), tmp_path / "a.onnx", example, dynamic=False)


def test_a_network_that_looks_at_values_says_the_way_out(tmp_path: Path, example: Tensor) -> None:
    with pytest.raises(NetworkError, match=r"torch\.where"):
        export_onnx(ByValue(), tmp_path / "a.onnx", example)
    assert not list(tmp_path.iterdir())


def test_a_network_of_one_size_is_exported_without_free_sizes(tmp_path: Path, example: Tensor) -> None:
    with pytest.raises(NetworkError, match="dynamic=False"):
        export_onnx(FixedSize(), tmp_path / "a.onnx", example)
    assert export_onnx(FixedSize(), tmp_path / "a.onnx", example, dynamic=False).shapes == ((1, 3, 32, 48),)


def test_a_file_that_is_not_the_network_is_not_kept(tmp_path: Path, example: Tensor) -> None:
    path = tmp_path / "a.onnx"
    path.write_bytes(b"old")
    with pytest.raises(NetworkError, match="tolerance"):
        export_onnx(Small(), path, example, tolerance=0.0, dynamic=False)
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.onnx"]


def test_a_file_that_is_right_at_one_size_only_is_not_kept(tmp_path: Path, example: Tensor) -> None:
    class Pooled(Small):
        def forward(self, images: Tensor) -> Tensor:
            x = self.stem(images)
            return self.last(x + nn.functional.interpolate(nn.functional.adaptive_avg_pool2d(x, 3), size=x.shape[-2:]))

    # Pooling to a fixed number of cells has no form in ONNX that is right for every size.
    with pytest.raises(NetworkError, match="dynamic=False"):
        export_onnx(Pooled(), tmp_path / "a.onnx", example)
    assert not list(tmp_path.iterdir())
    export_onnx(Pooled(), tmp_path / "a.onnx", example, dynamic=False)


def test_the_description_comes_back(tmp_path: Path, example: Tensor) -> None:
    about = {"mean": [0.5, 0.5, 0.5], "taxonomy": {"ignore_index": 255}}
    for export, name in ((export_onnx, "a.onnx"), (export_program, "a.pt2")):
        report = export(Small(), tmp_path / name, example, dynamic=False, description=about)
        assert load_runner(report.path).description == about


def test_a_description_may_hold_a_taxonomy_tensors_and_arrays(tmp_path: Path, example: Tensor) -> None:
    taxonomy = Taxonomy.from_names(("a", "b", "c"))
    about = {"taxonomy": taxonomy, "mean": torch.tensor([0.5, 0.25]), "std": np.ones(2), "more": {"n": np.int64(3)}}
    for export, name in ((export_onnx, "a.onnx"), (export_program, "a.pt2"), (export_openvino, "a.xml")):
        if name == "a.xml":
            pytest.importorskip("openvino")
        report = export(Small(), tmp_path / name, example, dynamic=False, description=about)  # type: ignore[operator]
        found = load_runner(report.path).description
        assert Taxonomy.from_dict(found.pop("taxonomy")) == taxonomy
        assert found == {"mean": [0.5, 0.25], "std": [1, 1], "more": {"n": 3}}
    with pytest.raises(
        NetworkError, match=r"description\['more\.net'\] is a Small, which an exported file cannot hold"
    ):
        export_program(Small(), tmp_path / "b.pt2", example, description={"more": {"net": Small()}})
    assert not (tmp_path / "b.pt2").exists()


def test_half_precision_is_refused(tmp_path: Path, example: Tensor) -> None:
    with pytest.raises(NetworkError, match=r"net\.float\(\)"):
        export_onnx(Small().bfloat16(), tmp_path / "a.onnx", example)
