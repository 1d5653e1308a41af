"""RGB-D from the config file to the report, and data and networks that do not fit."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from hs3seg.cli import main
from tests.integration.conftest import Call, Fails
from tests.unit.data.test_nyuv2 import write_nyuv2

CONFIG = Path(__file__).parents[2] / "configs" / "nyuv2-sagate-small.toml"


@pytest.fixture(scope="module")
def nyuv2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_nyuv2(tmp_path_factory.mktemp("nyuv2"), train=4, test=2, size=(64, 64))


@pytest.fixture(scope="module")
def rgbd_run(nyuv2: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Two steps of the shipped config, at the smallest size."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    words = ["--augment.crop", "64,64", "--train.epochs", "1", "--train.batch_size", "2", "--train.threads", "1"]
    words += ["--data.root", str(nyuv2), "--data.num_workers", "0", "--run_dir", str(folder)]
    assert main(["run", str(CONFIG), *words]) == 0
    yield folder
    shutil.rmtree(folder)  # pytest keeps its folders, and this one has 440 MB of weights


def test_a_run_with_depth(nyuv2: Path, rgbd_run: Path, tmp_path: Path, hs3: Call, fails: Fails) -> None:
    weights = rgbd_run / "arms" / "none"
    with np.load(weights / "samples-test.npz") as samples:
        assert samples["0/image"].shape == (64, 64, 3)
    assert (rgbd_run / "report" / "samples-test.png").exists()
    again = hs3("evaluate", weights, "--split", "test", "--out", tmp_path)
    assert again["num_images"] == 2
    assert (tmp_path / "evaluation-test.json").read_bytes() == (weights / "evaluation-test.json").read_bytes()
    message = fails("predict", nyuv2 / "rgb", "--weights", weights, "--out", tmp_path)
    assert "'sagate_resnet101' takes 4 channels, an image file has 3; RGB-D prediction needs a data set" in message
    assert "hs3 evaluate" in message


def test_data_check_reads_depth(nyuv2: Path, tmp_path: Path, hs3: Call) -> None:
    assert hs3("data", "check", CONFIG, "--out", "none", "--data.root", nyuv2)["splits"]["test"]["num_images"] == 2
    spoilt = shutil.copytree(nyuv2, tmp_path / "spoilt")
    (spoilt / "depth" / "0003.png").write_bytes(b"no picture")
    found = hs3("data", "check", CONFIG, "--out", "none", "--data.root", spoilt, code=2)["findings"]
    assert [f["file"] for f in found if f["severity"] == "error"] == [str(spoilt / "depth" / "0003.png")]
    plain = hs3("data", "check", CONFIG, "--out", "none", "--data.root", spoilt, "--data.depth", "none")
    assert plain["counts"]["error"] == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["--network.name", "hrnet_w18"],
            "data.depth = 'raw' gives 4 channels, network 'hrnet_w18' takes 3; set data.depth = 'none', or"
            " network.name = 'sagate_resnet101'",
        ),
        (
            ["--data.depth", "none"],
            "data.depth = 'none' gives 3 channels, network 'sagate_resnet101' takes 4; set data.depth = 'raw', or a"
            " network for RGB, e.g. network.name = 'hrnet_w18'",
        ),
        (
            ["--data.kind", "digits", "--data.evaluate_splits", '["val"]'],
            "gives 3 channels, network 'sagate_resnet101' takes 4; digits data has no depth: set a network for RGB",
        ),
        (
            ["--data.kind", "camvid", "--data.depth", "raw"],
            "key 'data.depth' is for data.kind = 'nyuv2' or 'cityscapes', not for 'camvid'; leave it out",
        ),
        (["--data.depth", "metric"], "'data.depth' = 'metric'; must be 'none', 'raw', 'filled' or 'hha'"),
        (["--data.evaluate_splits", '["val"]'], "official splits: train, test (there is no val)"),
    ],
)
def test_what_does_not_fit_is_said_before_training(
    words: list[str], message: str, nyuv2: Path, tmp_path: Path, fails: Fails
) -> None:
    common = ["--data.root", nyuv2, "--augment.crop", "64,64", "--run_dir", tmp_path / "run"]
    assert message in fails("run", CONFIG, *common, *words)
    assert not (tmp_path / "run").exists()
