"""Predictions on disk are scored by one command, for Cityscapes and for any other data."""

import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hs3seg.taxonomies.cityscapes import CITYSCAPES, ID_OF_TRAIN_ID
from hs3seg.taxonomy import Taxonomy
from tests.conftest import shared
from tests.fabricate.cityscapes import make_cityscapes, names_of
from tests.integration.conftest import Call, Fails

DIGITS = ("--data.kind", "digits", "--data.num_images", "[24, 8, 6]", "--data.size", "32,48")


def test_golden_triplets_through_the_command(tmp_path: Path, hs3: Call) -> None:
    golden = shared("reference/golden")
    expected = json.loads((golden / "08_cityscapes_eval.json").read_text())["outputs"]
    for number in range(3):
        name = f"aachen_{number:06}_000019"
        for kind, place in (
            ("gtFine_labelIds", f"gtFine/val/aachen/{name}_gtFine_labelIds.png"),
            ("gtFine_instanceIds", f"gtFine/val/aachen/{name}_gtFine_instanceIds.png"),
            ("pred_labelIds", f"predictions/{name}.png"),
        ):
            source = next((golden / "cityscapes_png").glob(f"*_{number:06}_{kind}.png"))
            (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / place).write_bytes(source.read_bytes())
        image = tmp_path / f"leftImg8bit/val/aachen/{name}_leftImg8bit.png"
        image.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (256, 128)).save(image)
    data = ["--data.kind", "cityscapes", "--data.root", tmp_path, "--split", "val"]
    official = tmp_path / "official.json"
    found = hs3("evaluate", "--predictions", tmp_path / "predictions", *data, "--official_json", official)
    written = json.loads(official.read_text())
    assert written["averageScoreInstClasses"] == pytest.approx(expected["average_iiou_classes"], abs=1e-12)
    assert len(written["perImageScores"]) == 3
    assert found["miou"] == pytest.approx(expected["average_iou_classes"], abs=1e-12)
    assert found["iiou"] == pytest.approx(expected["average_iiou_classes"], abs=1e-12)
    assert set(found["iou"]) == set(CITYSCAPES.names)
    for ours, official in (("iou", "iou_classes"), ("iiou_per_class", "iiou_classes")):
        for name, value in found[ours].items():
            assert value == (None if expected[official][name] is None else pytest.approx(expected[official][name]))


def test_perfect_predictions_score_one_by_either_ids(tmp_path: Path, hs3: Call) -> None:
    root = make_cityscapes(tmp_path / "cityscapes", {"val": 2})
    data = ["--data.kind", "cityscapes", "--data.root", root, "--split", "val"]
    truth = {p.name.split("_gtFine")[0]: np.array(Image.open(p)) for p in root.rglob("*_labelIds.png")}
    assert set(truth) == set(names_of("val", 2))
    table = np.full(256, 255, np.uint8)
    table[ID_OF_TRAIN_ID] = np.arange(19)
    for kind in ("label", "train"):
        folder = tmp_path / kind
        folder.mkdir()
        for name, ids in truth.items():
            Image.fromarray(ids if kind == "label" else table[ids]).save(folder / f"{name}.png")
        found = hs3("evaluate", "--predictions", folder, "--prediction_ids", kind, *data, "--out", folder / "s.json")
        assert found["miou"] == found["iiou"] == 1
        assert json.loads((folder / "s.json").read_text()) == found


def test_predictions_of_a_network_score_as_its_evaluation(finished_run: Path, tmp_path: Path, hs3: Call) -> None:
    weights = finished_run / "arms" / "hs3"
    expected = json.loads((weights / "evaluation-val.json").read_text())
    data = [*DIGITS, "--seed", 3, "--split", "val"]
    folder = tmp_path / "predictions"
    folder.mkdir()
    found = hs3("evaluate", weights, "--split", "val", "--evaluation.num_samples", 8, "--out", tmp_path / "all")
    assert found["miou"] == expected["miou"]
    samples = np.load(tmp_path / "all" / "samples-val.npz")
    for number, name in enumerate(samples["names"]):
        Image.fromarray(samples[f"{number}/final"]).save(folder / f"{name}-index.png")
    scores = hs3("evaluate", "--predictions", folder, *data)
    for key in ("miou", "pixel_accuracy", "mean_accuracy", "frequency_weighted_iou", "iou", "num_images"):
        assert scores[key] == expected[key], key


def test_what_is_missing_is_said(finished_run: Path, tmp_path: Path, fails: Fails) -> None:
    assert "needs the folder of a training, or --predictions DIR" in fails("evaluate")
    assert "not both" in fails("evaluate", finished_run, "--predictions", tmp_path)
    assert "give --data.kind KIND" in fails("evaluate", "--predictions", tmp_path)
    assert "has no prediction in" in fails("evaluate", "--predictions", tmp_path, *DIGITS)
    assert "are no folder" in fails("evaluate", "--predictions", tmp_path / "no", *DIGITS)


def test_a_network_is_scored_in_the_classes_of_other_data(
    finished_run: Path, folder_data: Path, tmp_path: Path, hs3: Call, fails: Fails
) -> None:
    weights = finished_run / "arms" / "hs3_fuse"
    names = list(json.loads((weights / "evaluation-val.json").read_text())["iou"])
    taxonomy = Taxonomy(("red", "green", "blue"), ((200, 30, 30), (30, 200, 30), (30, 30, 200)))
    taxonomy.save(folder_data / "taxonomy.toml")
    bridge = tmp_path / "bridge.toml"
    parts = {"red": names[:1], "green": names[1:5], "blue": names[5:-1]}
    lines = "".join(f"{name} = {json.dumps(of)}\n" for name, of in parts.items())
    bridge.write_text(f"unmapped = {json.dumps(names[-1:])}\n[classes]\n{lines}")
    data = ["--data.kind", "folder", "--data.root", folder_data, "--split", "val"]
    found = hs3("evaluate", weights, "--bridge", bridge, *data)
    assert tuple(found["iou"]) == taxonomy.names
    assert found["num_images"] == 3
    assert (weights / "bridge-bridge" / "evaluation-val.json").exists()
    message = fails("evaluate", weights, *data)
    assert "classes" in message
    bridge.write_text(bridge.read_text().replace("unmapped = ", "unmaped = "))
    assert "unmapped" in fails("evaluate", weights, "--bridge", bridge, *data)


def test_a_submission_is_packed(tmp_path: Path, hs3: Call, fails: Fails) -> None:
    root = make_cityscapes(tmp_path / "cityscapes", {"test": 2})
    folder = tmp_path / "predictions"
    folder.mkdir()
    words = ["submit", folder, "--data.root", root, "--out", tmp_path / "out.zip"]
    assert "2 of 2 frames have no prediction" in fails(*words)
    for name in names_of("test", 2):
        Image.fromarray(np.full((64, 128), 13, np.uint8)).save(folder / f"{name}_leftImg8bit-index.png")
    found = hs3(*words)
    assert found["num_frames"] == 2
    assert found["pixels"]["car"] == 2 * 64 * 128
    assert "1525" in " ".join(found["notes"])
    with zipfile.ZipFile(tmp_path / "out.zip") as packed:
        assert len(packed.namelist()) == 2
        with packed.open(packed.namelist()[0]) as file:
            assert np.unique(Image.open(file)).tolist() == [26]


def test_a_network_on_cityscapes_has_the_iiou_of_its_predictions(tmp_path: Path, hs3: Call) -> None:
    root = make_cityscapes(tmp_path / "cityscapes", {"train": 2, "val": 2})
    recipe = Path(__file__).parents[2] / "configs" / "cityscapes-hrnet-w18.toml"
    data = ["--data.root", root, "--data.num_workers", "0", "--train.threads", "1"]
    small = ["--augment.crop", "64,64", "--train.epochs", "1", "--train.batch_size", "2", "--train.warmup_epochs", "0"]
    options = ["--network.pretrained", "false", "--network.name", "hrnet_w18_small", "--arm", "none"]
    weights = tmp_path / "arms" / "none"
    hs3("train", recipe, "--out", weights, *data, *small, *options)
    found = hs3("evaluate", weights, "--split", "val", "--evaluation.num_samples", "2", "--train.precision", "float32")
    samples = np.load(weights / "samples-val.npz")
    folder = tmp_path / "predictions"
    folder.mkdir()
    for number, name in enumerate(samples["names"]):
        Image.fromarray(samples[f"{number}/final"]).save(folder / f"{name}.png")
    where = ["--data.kind", "cityscapes", "--data.root", root, "--split", "val", "--prediction_ids", "train"]
    scores = hs3("evaluate", "--predictions", folder, *where)
    for key in ("miou", "iou", "iiou", "iiou_per_class", "category_miou", "category_iiou"):
        assert found[key] == scores[key], key


def test_predictions_are_scored_by_the_ids_that_init_found(tmp_path: Path, hs3: Call, fails: Fails) -> None:
    root = tmp_path / "set"
    for split, count in (("train", 3), ("val", 2)):
        for number in range(count):
            mask = np.zeros((20, 30), np.uint8)
            mask[:10] = 255
            for kind, pixels in (("images", np.stack([mask] * 3, -1)), ("masks", mask)):
                (root / kind / split).mkdir(parents=True, exist_ok=True)
                Image.fromarray(pixels).save(root / kind / split / f"{number}.png")
    folder = tmp_path / "predictions"
    folder.mkdir()
    for number in range(2):
        Image.fromarray(np.zeros((20, 30), np.uint8)).save(folder / f"{number}.png")
    hs3("data", "init", root)
    words = ["evaluate", "--predictions", folder, "--data.root", root, "--split", "val"]
    for kind in ([], ["--data.kind", "folder"]):
        assert hs3(*words, *kind)["iou"] == {"class_0": 0.5, "class_1": 0.0}
    # What is given counts more than the file.
    assert hs3(*words, "--data.ids", "255,0")["iou"] == {"class_0": 0.5, "class_1": 0.0}
    assert hs3(*words, "--data.ids", "[]", "--data.ignore_ids", "255")["iou"]["class_1"] is None
    (root / "hs3.toml").unlink()
    assert "nothing but 0 and 255" in fails(*words, "--data.kind", "folder")
    checked = hs3("data", "check", root, "--out", "none", code=2)
    assert {finding["kind"] for finding in checked["findings"]} >= {"binary-255"}
