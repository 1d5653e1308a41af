"""Every shipped config takes one step and one evaluation on fabricated data in its data set's real format."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hs3seg.cli import main
from hs3seg.config import load_config
from tests.fabricate.cityscapes import make_cityscapes
from tests.fabricate.nyuv2 import make_nyuv2

CONFIGS = sorted((Path(__file__).parents[2] / "configs").glob("*.toml"))
BIG = ("w48", "sagate", "hms", "wrn38")


def _pair(image: Path, mask: Path, classes: int, rng: np.random.Generator) -> None:
    for path in (image, mask):
        path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(rng.integers(0, 256, (96, 96, 3), np.uint8)).save(image)
    Image.fromarray(rng.integers(0, classes, (96, 96), np.uint8)).save(mask)


def fabricate(kind: str, root: Path) -> Path:
    """Two images per split in the layout of a kind of data."""
    rng = np.random.default_rng(0)
    if kind == "cityscapes":
        return make_cityscapes(root, {"train": 2, "val": 1}, size=(96, 192))
    if kind == "nyuv2":
        return make_nyuv2(root, train=2, test=1, size=(96, 128), layout="sagate")  # 480x640 frames, HHA beside them
    for split in ("train", "val", "test"):
        for number in range(2):
            if kind == "camvid":  # 11 classes and void
                _pair(root / split / f"{number}.png", root / f"{split}annot" / f"{number}.png", 12, rng)
            else:
                _pair(root / f"images/{split}/{number}.png", root / f"masks/{split}/{number}.png", 4, rng)
    return root


@pytest.mark.parametrize(
    "path",
    [pytest.param(p, id=p.stem, marks=[pytest.mark.slow] if any(b in p.stem for b in BIG) else []) for p in CONFIGS],
)
def test_one_step_of_the_recipe(path: Path, tmp_path: Path) -> None:
    config = load_config(path)
    root = fabricate(config.data.kind, tmp_path / "data")
    small = ["--augment.crop", "96,96", "--train.epochs", "1", "--train.batch_size", "2", "--train.warmup_epochs", "0"]
    place = ["--data.root", str(root), "--data.num_workers", "0", "--train.threads", "1"]
    untrained = ["--network.pretrained", "false"]  # ImageNet weights cannot be fetched in a test
    out = tmp_path / "out"
    for arm in ("none", "deep_supervision"):
        words = ["train", str(path), "--arm", arm, "--out", str(out / arm), *small, *place, *untrained]
        assert main(words) == 0
    split = config.data.evaluate_splits[0]
    assert main(["evaluate", str(out / "deep_supervision"), "--split", split]) == 0
    shutil.rmtree(out)  # pytest keeps its folders, and weights are large
