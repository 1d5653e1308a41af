"""From a training to other runtimes by the command line, and the certificate."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from hs3seg.cli import main
from hs3seg.pipeline import load_trained
from tests.integration.conftest import Call, Fails


@pytest.fixture(scope="module")
def weights(finished_run: Path) -> Path:
    return finished_run / "arms" / "hs3"


@pytest.mark.parametrize("kind", ["onnx", "openvino", "pt2", "folder"])
def test_exported_files_take_the_place_of_weights(kind: str, weights: Path, tmp_path: Path, hs3: Call) -> None:
    if kind in ("onnx", "openvino"):
        pytest.importorskip("onnxruntime" if kind == "onnx" else "openvino")
    names = {"onnx": "net.onnx", "openvino": "net.xml", "pt2": "net.pt2", "folder": "net"}
    file = tmp_path / names[kind]
    done = hs3("export", weights, "--format", kind, "--out", file)
    assert done["path"] == str(file)
    if kind != "folder":
        assert done["max_difference"] <= 1e-4
    expected = json.loads((weights / "evaluation-val.json").read_text())
    data = (
        [] if kind != "folder" else ["--data.kind", "digits", "--data.num_images", "[24, 8, 6]", "--data.size", "32,48"]
    )
    seen = ["--train.precision", "float32", "--augment.resize", "64,96"]  # a .pt2 of HRNet wants sides above 32
    options = [*data, *seen, "--seed", "3"]
    found = hs3("evaluate", file, "--split", "val", "--out", tmp_path / "scores", *options)
    own = hs3("evaluate", weights, "--split", "val", "--out", tmp_path / "own", *seen)
    assert found["num_pixels"] == expected["num_pixels"]
    assert found["miou"] == pytest.approx(own["miou"], abs=0.01)
    image = np.random.default_rng(0).integers(0, 256, (70, 90, 3), np.uint8)
    Image.fromarray(image).save(tmp_path / "photo.png")
    for source, folder in ((file, "out"), (weights, "own")):
        hs3("predict", tmp_path / "photo.png", "--weights", source, "--out", tmp_path / folder, "--output", "index")
    one, two = (np.array(Image.open(tmp_path / folder / "photo-index.png")) for folder in ("out", "own"))
    assert one.shape == (70, 90)
    assert (one == two).mean() > 0.98


def test_int8_has_its_own_file(weights: Path, tmp_path: Path, hs3: Call) -> None:
    pytest.importorskip("nncf")
    done = hs3("export", weights, "--format", "openvino", "--out", tmp_path / "net.xml", "--int8", "6")
    assert (tmp_path / "net-int8.xml").is_file()
    assert done["int8"]["size_bytes"] < done["size_bytes"]
    found = hs3("evaluate", tmp_path / "net-int8.xml", "--split", "val", "--out", tmp_path / "scores")
    assert 0 <= found["miou"] <= 1


def test_the_certificate_passes_what_is_stripped(weights: Path, hs3: Call) -> None:
    classes = len(load_trained(weights).taxonomy.names)
    found = hs3("certify", "hrnet_w18_small", weights, "--classes", classes, "--size", 64, 64, "--repeats", 1)
    assert found["passed"]
    assert found["max_difference"] == 0
    assert found["before"] == found["after"]
    assert found["weights"].startswith("copied")
    assert found["latency_ratio"] > 0


def test_the_certificate_takes_an_exported_folder_and_refuses_a_graph(
    weights: Path, tmp_path: Path, hs3: Call, fails: Fails
) -> None:
    for kind, name in (("folder", "net"), ("pt2", "net.pt2")):
        hs3("export", weights, "--format", kind, "--out", tmp_path / name)
    words = ["--classes", len(load_trained(weights).taxonomy.names), "--size", 64, 64, "--repeats", 1]
    found = hs3("certify", "hrnet_w18_small", tmp_path / "net", *words)
    assert found["passed"]
    assert found["max_difference"] == 0
    assert found["weights"].startswith("copied")
    message = fails("certify", "hrnet_w18_small", tmp_path / "net.pt2", *words)
    assert "net.pt2' has no parameters to count; certify networks of torch, not exported files" in message


def test_the_certificate_fails_torchvisions_auxiliary_head(hs3: Call) -> None:
    name = "torchvision.models.segmentation:fcn_resnet50"
    plain, leaking = (f"{name}(weights_backbone=None, num_classes=5{aux})" for aux in ("", ", aux_loss=True"))
    found = hs3("certify", plain, leaking, "--size", 64, 64, "--repeats", 1, code=2)
    assert not found["passed"]
    assert "aux_classifier" in found["idle"]
    assert found["after"]["conv_macs"] > found["before"]["conv_macs"]
    assert found["max_difference"] == 0


def test_any_callable_may_be_certified(
    tmp_path: Path, hs3: Call, fails: Fails, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine.py").write_text(
        "from torch import nn\n"
        "def net(width=4):\n"
        "    return nn.Sequential(nn.Conv2d(3, width, 3), nn.Conv2d(width, 5, 1))\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    assert hs3("certify", "mine:net", "mine:net(width=4)", "--size", 32, 32, "--repeats", 1)["passed"]
    assert not hs3("certify", "mine:net", "mine:net(width=8)", "--size", 32, 32, "--repeats", 1, code=2)["passed"]
    assert "by name" in fails("certify", "mine:net(4)", "mine:net")
    assert "cannot be called" in fails("certify", "mine:nett", "mine:net")
    assert "hrnet_w18_small" in fails("certify", "hrnet_w18_smal", "mine:net")
    sys.modules.pop("mine")


def test_what_cannot_be_exported_is_said(weights: Path, tmp_path: Path, fails: Fails) -> None:
    assert "'onnx'" in fails("export", weights, "--format", "onx")
    assert "int8 is made for OpenVINO" in fails("export", weights, "--int8", "5")
    hs3_file = tmp_path / "net.pt2"
    assert main(["export", str(weights), "--format", "pt2", "--out", str(hs3_file)]) == 0
    assert "does not take images of" in fails("evaluate", hs3_file, "--split", "val", "--out", tmp_path)
    torch.save({}, tmp_path / "other.onnx")
    assert "other.onnx" in fails("evaluate", tmp_path / "other.onnx")
