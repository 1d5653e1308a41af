"""Predictions on disk: found by name, checked, and scored as the official script scores them."""

import json
import math
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from hs3seg.data.cityscapes import Cityscapes
from hs3seg.data.cityscapes_predictions import find_predictions
from hs3seg.data.cityscapes_scores import evaluate_predictions, official_json, score_predictions
from hs3seg.errors import DataError, Hs3Warning
from hs3seg.taxonomies.cityscapes import CITYSCAPES, INSTANCE_CLASSES, TRAIN_ID_OF_ID
from tests.conftest import shared
from tests.fabricate.cityscapes import make_cityscapes, make_scene, names_of

KEYS = ["miou", "iiou", "iou", "iiou_per_class"]


def predict(seed: int, size: tuple[int, int] = (64, 128)) -> NDArray[np.uint8]:
    """The labels of a scene, moved, with a box of any label and noise."""
    rng = np.random.default_rng(seed)
    ids = np.roll(make_scene(seed, size).ids, tuple(rng.integers(-4, 5, 2)), (0, 1))
    ids[: size[0] // 4, : size[1] // 4] = rng.integers(0, 34)
    noise = rng.random(size) < 0.1
    return np.where(noise, rng.integers(0, 34, size), ids).astype(np.uint8)


def write(path: Path, ids: NDArray[Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(ids).save(path)
    return path


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return make_cityscapes(tmp_path / "data", {"val": 3})


@pytest.fixture
def predictions(tmp_path: Path) -> Path:
    for number, name in enumerate(names_of("val", 3)):
        write(tmp_path / "pred" / name.split("_")[0] / f"{name}_pred_labelIds.png", predict(number))
    return tmp_path / "pred"


def official(folder: Path, root: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the official script says when it looks for the predictions itself."""
    monkeypatch.setattr(np, "in1d", np.isin, raising=False)  # numpy 2.4 has dropped the name the script uses
    script = pytest.importorskip("cityscapesscripts.evaluation.evalPixelLevelSemanticLabeling")
    monkeypatch.setattr(script, "CSUPPORT", False)
    monkeypatch.setenv("CITYSCAPES_RESULTS", str(folder))
    given_ = {**vars(script.args), "quiet": True, "JSONOutput": False, "evalPixelAccuracy": True}
    args = SimpleNamespace(**given_ | {"predictionPath": None, "predictionWalk": None})
    truths = [str(path) for path in sorted((root / "gtFine" / "val").rglob("*_gtFine_labelIds.png"))]
    scores: dict[str, Any] = script.evaluateImgLists([script.getPrediction(args, t) for t in truths], truths, args)
    return scores


def assert_equal(ours: Any, theirs: Any) -> None:
    if isinstance(theirs, dict):
        assert list(ours) == list(theirs)
        for key, value in theirs.items():
            assert_equal(ours[key], value)
    elif isinstance(theirs, float):
        assert ours == pytest.approx(theirs, rel=0, abs=1e-12, nan_ok=True)
    else:
        assert ours == theirs


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")
def test_the_official_script_finds_the_same_files_and_has_the_same_json(
    root: Path, predictions: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = Cityscapes(root, "val")
    theirs = official(predictions, root, monkeypatch)
    scores = evaluate_predictions(predictions, dataset, per_image=True)
    assert_equal(official_json(scores, math.nan), theirs)
    ours = score_predictions(predictions, dataset)
    assert list(ours)[:4] == KEYS
    assert ours["miou"] == pytest.approx(theirs["averageScoreClasses"], rel=0, abs=1e-12)
    assert ours["iiou"] == pytest.approx(theirs["averageScoreInstClasses"], rel=0, abs=1e-12)
    assert ours["category_miou"] == pytest.approx(theirs["averageScoreCategories"], rel=0, abs=1e-12)
    assert ours["category_iiou"] == pytest.approx(theirs["averageScoreInstCategories"], rel=0, abs=1e-12)
    assert tuple(ours["iou"]) == CITYSCAPES.names
    assert tuple(ours["iiou_per_class"]) == INSTANCE_CLASSES
    for key, classes in (("iou", theirs["classScores"]), ("iiou_per_class", theirs["classInstScores"])):
        assert_equal(ours[key], {name: classes[name] for name in ours[key]})


@settings(max_examples=25, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seeds=st.lists(st.integers(0, 2**32 - 1), min_size=2, max_size=2), height=st.sampled_from([16, 33, 64]))
@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")
def test_random_predictions_equal_the_official_script(
    seeds: list[int], height: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for folder in ("data", "pred"):
        shutil.rmtree(tmp_path / folder, ignore_errors=True)
    size = (height, 2 * height)
    make_cityscapes(tmp_path / "data", {"val": 2}, size, seed=seeds[0])
    for name, seed in zip(names_of("val", 2), seeds, strict=True):
        write(tmp_path / "pred" / f"{name}.png", predict(seed, size))
    scores = evaluate_predictions(tmp_path / "pred", Cityscapes(tmp_path / "data", "val"), per_image=True)
    assert_equal(official_json(scores, math.nan), official(tmp_path / "pred", tmp_path / "data", monkeypatch))


def test_golden_triplets(tmp_path: Path) -> None:
    golden = json.loads(shared("reference", "golden", "08_cityscapes_eval.json").read_text())["outputs"]
    for path in shared("reference", "golden", "cityscapes_png").iterdir():
        place = tmp_path / ("pred" if "_pred_" in path.name else "data/gtFine/val/golden") / path.name
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, place)
        image = path.name.split("_gtFine_")[0].split("_pred_")[0] + "_leftImg8bit.png"
        write(tmp_path / "data/leftImg8bit/val/golden" / image, np.zeros((128, 256, 3), np.uint8))
    scores = evaluate_predictions(tmp_path / "pred", Cityscapes(tmp_path / "data", "val"))
    result = scores.result
    assert result.confusion.tolist() == golden["confusion_matrix"]
    assert result.miou == pytest.approx(golden["average_iou_classes"], rel=0, abs=1e-12)
    assert result.miiou == pytest.approx(golden["average_iiou_classes"], rel=0, abs=1e-12)
    json_ = official_json(scores)
    assert_equal(json_["classScores"], golden["iou_classes"])
    assert_equal(json_["categoryInstScores"], golden["iiou_categories"])
    assert "perImageScores" not in json_


def test_the_truth_itself_is_perfect_as_label_ids_and_as_train_ids(root: Path, tmp_path: Path) -> None:
    dataset = Cityscapes(root, "val")
    for number, name in enumerate(dataset.names):
        ids = make_scene(number).ids
        write(tmp_path / "label" / f"{name}.png", ids)
        write(tmp_path / "train" / f"{name}_leftImg8bit-index.png", TRAIN_ID_OF_ID[ids])
    for ids in ("label", "train"):
        scores = score_predictions(tmp_path / ids, dataset, ids=ids)
        assert (scores["miou"], scores["iiou"]) == (1, 1)
        assert set(scores["iou"].values()) == {1}
    with pytest.raises(DataError, match=r"000019.png: value \d+ at .*; train ids are 0..18 and 255; .* ids = 'label'"):
        score_predictions(tmp_path / "label", dataset, ids="train")
    with pytest.raises(DataError, match=r"value 255 at x=0, y=0 .*; label ids are 0..33; .* say so: ids = 'train'"):
        score_predictions(tmp_path / "train", dataset)


def test_train_ids_without_void_are_suspected(root: Path, tmp_path: Path) -> None:
    dataset = Cityscapes(root, "val")
    for number, name in enumerate(dataset.names):
        write(tmp_path / "pred" / f"{name}.png", TRAIN_ID_OF_ID[make_scene(number).ids] % 19)
    with pytest.warns(Hs3Warning, match=r"ids 0..18 alone: they look like train ids"):
        scores = score_predictions(tmp_path / "pred", dataset)
    assert scores["miou"] < 0.05


def test_workers_and_progress_change_no_bit(root: Path, predictions: Path) -> None:
    dataset, calls = Cityscapes(root, "val"), list[None]()
    one = evaluate_predictions(predictions, dataset, per_image=True, progress=lambda: calls.append(None))
    two = evaluate_predictions(predictions, dataset, per_image=True, num_workers=2)
    assert len(calls) == 3
    assert one.per_image == two.per_image
    assert official_json(one) == official_json(two)
    assert json.dumps(official_json(one), allow_nan=False)


def test_palette_and_sixteen_bits_hold_ids_too(root: Path, predictions: Path) -> None:
    dataset = Cityscapes(root, "val")
    expected = score_predictions(predictions, dataset)
    first, second, _ = sorted(predictions.rglob("*.png"))
    palette = Image.fromarray(np.array(Image.open(first)), "P")
    palette.putpalette(bytes(range(255, -1, -1)) * 3)
    palette.save(first)
    write(second, np.array(Image.open(second)).astype(np.uint16))
    assert score_predictions(predictions, dataset) == expected


def test_files_are_found_anywhere_below_by_the_beginning_of_their_names(tmp_path: Path) -> None:
    names = ["bad-honnef_000000_000019", "berlin_000000_000019"]
    for file in (
        *("deep/er/berlin_000000_000019_leftImg8bit.png", "bad-honnef_000000_000019.png"),
        *("berlin_000000_000020.png", "berlin_000000_000019.json", "berlin_000000_000019.PNG", "x.png"),
    ):
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).touch()
    assert find_predictions(tmp_path, names) == [
        tmp_path / "bad-honnef_000000_000019.png",
        tmp_path / "deep/er/berlin_000000_000019_leftImg8bit.png",
    ]
    assert find_predictions(tmp_path, names[::-1])[0].name == "berlin_000000_000019_leftImg8bit.png"


def test_missing_and_double_predictions_are_named(root: Path, predictions: Path, tmp_path: Path) -> None:
    dataset = Cityscapes(root, "val")
    first = min(predictions.rglob("*.png"))
    shutil.copy(first, predictions / first.name.replace("labelIds", "color"))
    with pytest.raises(DataError, match=r"frame 'frankfurt_000000_000019' has 2 predictions .* keep one of them"):
        score_predictions(predictions, dataset)
    for path in predictions.rglob("frankfurt*"):
        if path.is_file():
            path.unlink()
    with pytest.raises(DataError, match=r"1 of 3 frames have no prediction .*2 PNG files there.*'frankfurt_000000_0"):
        score_predictions(predictions, dataset)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"3 of 3 frames have no prediction .* \(no PNG file there\)"):
        score_predictions(tmp_path / "empty", dataset)
    with pytest.raises(DataError, match=r"nowhere' are no folder; give the one that holds CITY_SEQUENCE_FRAME"):
        score_predictions(tmp_path / "nowhere", dataset)


@pytest.mark.parametrize(
    ("pixels", "message"),
    [
        (np.zeros((32, 64), np.uint8), r"is 64x32 pixels, its frame 128x64; enlarge the logits"),
        (np.zeros((64, 128, 3), np.uint8), r"has 3 channels; a prediction has one, of ids, not colours"),
        (np.full((64, 128), 34, np.uint8), r"value 34 at x=0, y=0 \(8192 such pixels\); label ids are 0..33; every"),
        (np.full((64, 128), 1000, np.uint16), r"value 1000 at x=0, y=0"),
    ],
)
@pytest.mark.parametrize("num_workers", [0, 1])
def test_what_is_no_prediction_is_refused(
    root: Path, predictions: Path, pixels: NDArray[Any], message: str, num_workers: int
) -> None:
    path = write(max(predictions.rglob("*.png")), pixels)
    with pytest.raises(DataError, match=rf"{path.name}: {message}"):
        score_predictions(predictions, Cityscapes(root, "val"), num_workers=num_workers)


def test_broken_files_are_refused(root: Path, predictions: Path) -> None:
    path = min(predictions.rglob("*.png"))
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(DataError, match=rf"{path.name}: cannot be read"):
        score_predictions(predictions, Cityscapes(root, "val"))
    path.write_text("no image")
    with pytest.raises(DataError, match=rf"{path.name}: cannot be read"):
        score_predictions(predictions, Cityscapes(root, "val"))


def test_without_labels_or_instances_there_is_no_score(root: Path, predictions: Path, tmp_path: Path) -> None:
    make_cityscapes(tmp_path / "other", {"test": 1})
    with pytest.raises(DataError, match=r"split 'test' has no public labels to score against"):
        score_predictions(predictions, Cityscapes(tmp_path / "other", "test"))
    path = min((root / "gtFine").rglob("*_instanceIds.png"))
    write(path, np.full((64, 128), 7001, np.uint16))
    with pytest.raises(DataError, match=r"frame 'frankfurt_000000_000019': the instance map has instances of 'road'"):
        score_predictions(predictions, Cityscapes(root, "val"))
    path.unlink()
    with pytest.raises(DataError, match=r"_instanceIds.png' does not exist; iIoU needs it"):
        score_predictions(predictions, Cityscapes(root, "val"))
