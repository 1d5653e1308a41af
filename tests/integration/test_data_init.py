"""The first hour with a folder: unpack, init, check, run."""

import json
import zipfile
from pathlib import Path

import numpy as np
from PIL import Image

from hs3seg.cli import main
from hs3seg.config import load_config
from hs3seg.taxonomy import Taxonomy
from tests.integration.conftest import Call, Fails


def odd_folder(root: Path) -> Path:
    """Images and masks side by side, ids 10, 20, 30 and 0 for nothing; no splits."""
    rng = np.random.default_rng(0)
    for number in range(12):
        ids = np.full((40, 48), 10, np.uint8)
        for value in (20, 30):
            y, x = rng.integers(0, 26), rng.integers(0, 30)
            ids[y : y + 14, x : x + 18] = value
        image = np.stack([ids * 4, ids * 2, 255 - ids * 3], axis=-1) + rng.integers(0, 20, (40, 48, 1)).astype(np.uint8)
        (root / "scans").mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(root / "scans" / f"ü {number}.png")
        Image.fromarray(ids).save(root / "scans" / f"ü {number}_mask.png")
    return root


def test_from_an_archive_to_a_trained_network(tmp_path: Path, hs3: Call) -> None:
    odd_folder(tmp_path / "made")
    with zipfile.ZipFile(tmp_path / "set.zip", "w") as packed:
        for file in (tmp_path / "made").rglob("*.png"):
            packed.write(file, file.relative_to(tmp_path / "made"))
    root = tmp_path / "my set"
    assert hs3("data", "unpack", tmp_path / "set.zip", root)["files"] == 24
    found = hs3("data", "init", root)
    assert [entry["value"] for entry in found["classes"]] == [10, 20, 30]
    assert set(found["splits"]) == {"train", "val"}
    config = load_config(root / "hs3.toml")
    assert config.data.model_dump()["ids"] == (10, 20, 30)
    checked = hs3("data", "check", root, "--out", tmp_path / "page")
    assert checked["counts"]["error"] == 0
    assert sum(split["num_images"] for split in checked["splits"].values()) == 12
    small = ["--train.epochs", "1", "--train.warmup_epochs", "0", "--augment.crop", "32,32", "--train.batch_size", "4"]
    words = [root / "hs3.toml", "--arms", '["deep_supervision"]', "--run_dir", tmp_path / "run", *small]
    hs3("run", *words)
    found = json.loads((tmp_path / "run" / "arms" / "deep_supervision" / "evaluation-val.json").read_text())
    assert found["num_images"] == checked["splits"]["val"]["num_images"]
    assert list(found["iou"]) == list(Taxonomy.load(root / "taxonomy.toml").names)
    assert (tmp_path / "page" / "index.html").exists()


def test_nothing_is_replaced_without_being_told(tmp_path: Path, hs3: Call, fails: Fails) -> None:
    root = odd_folder(tmp_path / "set")
    hs3("data", "init", root)
    text = (root / "taxonomy.toml").read_text().replace("class_0", "ground")
    (root / "taxonomy.toml").write_text(text)
    assert "overwrite" in fails("data", "init", root)
    assert (root / "taxonomy.toml").read_text() == text
    hs3("data", "init", root, "--overwrite")
    assert (root / "taxonomy.toml").read_text() != text


def test_archives_that_lead_out_are_refused(tmp_path: Path, fails: Fails) -> None:
    with zipfile.ZipFile(tmp_path / "bad.zip", "w") as packed:
        packed.writestr("../outside.txt", "x")
    message = fails("data", "unpack", tmp_path / "bad.zip", tmp_path / "in" / "here")
    assert "outside" in message
    assert not (tmp_path / "in" / "outside.txt").exists()
    assert "needs the folder" in fails("data", "unpack", tmp_path / "bad.zip")
    assert main(["data", "init", str(tmp_path / "nowhere")]) == 2


def test_lists_beside_the_folders_of_splits(tmp_path: Path, hs3: Call) -> None:
    root = odd_folder(tmp_path / "set")
    files = sorted((root / "scans").glob("*[0-9].png"))
    for number, image in enumerate(files):
        split = "val" if number % 4 == 0 else "train"
        for kind, file in (("images", image), ("masks", image.with_name(f"{image.stem}_mask.png"))):
            (root / kind / split).mkdir(parents=True, exist_ok=True)
            file.rename(root / kind / split / image.name)
        with (root / f"{split}.txt").open("a", encoding="utf-8") as listed:
            listed.write(f"./images/{split}/{image.name}\n")
    found = hs3("data", "init", root)
    assert found["splits"] == ["train", "val"]
    checked = hs3("data", "check", root / "hs3.toml", "--out", "none")
    assert checked["counts"]["error"] == 0
    assert {split: values["num_images"] for split, values in checked["splits"].items()} == {"train": 9, "val": 3}
    # A list that contradicts its folder: the config says which counts.
    (root / "val.txt").write_text("./images/val/other.png\n")
    found = hs3("data", "init", root, "--overwrite")
    assert found["data"]["image_pattern"] == "images/{split}/*.*"
    assert hs3("data", "check", root / "hs3.toml", "--out", "none")["counts"]["error"] == 0


def test_black_and_white_masks(tmp_path: Path, hs3: Call) -> None:
    rng = np.random.default_rng(0)
    for split, count in (("train", 4), ("val", 2)):
        for number in range(count):
            for kind in ("images", "masks"):
                (tmp_path / kind / split).mkdir(parents=True, exist_ok=True)
            image, mask = rng.integers(0, 256, (40, 48, 3)).astype(np.uint8), np.zeros((40, 48, 3), np.uint8)
            mask[10 + number : 30, 8:30] = 255
            Image.fromarray(image).save(tmp_path / "images" / split / f"{number}.png")
            Image.fromarray(mask).save(tmp_path / "masks" / split / f"{number}.png")
    checked = hs3("data", "check", tmp_path, "--out", "none")
    assert [entry["colour"] for entry in checked["classes"]] == [[0, 0, 0], [255, 255, 255]]
    assert checked["counts"]["error"] == 0
    for path in (tmp_path / "masks").rglob("*.png"):
        Image.fromarray(np.full((40, 48, 3), 255, np.uint8)).save(path)
    (finding,) = hs3("data", "check", tmp_path, "--out", "none", code=2)["findings"]
    assert finding["severity"] == "error"
    assert finding["file"] == str(tmp_path)
    assert "makes one class" in finding["message"]
