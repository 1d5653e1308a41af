"""IoU and iIoU against the golden values and against the official script itself."""

import json
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from hs3seg.analysis.instances import CityscapesResult, CityscapesScores, official_pixel_counts
from hs3seg.errors import DataError
from hs3seg.files import write_json
from tests.conftest import shared

Triplet = tuple[NDArray[np.uint8], NDArray[np.uint16], NDArray[np.uint8]]

STUFF = [0, 1, 3, 4, 5, 6, 7, 8, 9, 10, 11, 13, 14, 15, 17, 18, 19, 20, 21, 22, 23]
THINGS = [24, 25, 26, 27, 28, 29, 30, 31, 32, 33]
AVERAGES = {
    "averageScoreClasses": "miou",
    "averageScoreInstClasses": "miiou",
    "averageScoreCategories": "category_miou",
    "averageScoreInstCategories": "category_miiou",
}


def golden_triplets() -> list[Triplet]:
    folder = shared("reference", "golden", "cityscapes_png")
    triplets = []
    for path in sorted(folder.glob("*_gtFine_labelIds.png")):
        files = (path.name, path.name.replace("labelIds", "instanceIds"), path.name.replace("gtFine", "pred"))
        truth, instances, predicted = (np.array(Image.open(folder / name)) for name in files)
        triplets.append((truth, instances, predicted))
    return triplets


def scored(*triplets: Triplet) -> CityscapesResult:
    scores = CityscapesScores()
    for triplet in triplets:
        scores.add(*triplet)
    return scores.result()


def assert_equal_scores(ours: dict[str, float], theirs: dict[str, float | None]) -> None:
    assert list(ours) == list(theirs)
    for name, value in theirs.items():
        if value is None or math.isnan(value):
            assert math.isnan(ours[name]), name
        else:
            assert ours[name] == pytest.approx(value, rel=0, abs=1e-12), name


def test_golden_scores() -> None:
    golden = json.loads(shared("reference", "golden", "08_cityscapes_eval.json").read_text())["outputs"]
    triplets = golden_triplets()
    result = scored(*triplets)
    assert result.confusion.tolist() == golden["confusion_matrix"]
    assert_equal_scores(result.iou, golden["iou_classes"])
    assert_equal_scores(result.iiou, golden["iiou_classes"])
    assert_equal_scores(result.category_iou, golden["iou_categories"])
    assert_equal_scores(result.category_iiou, golden["iiou_categories"])
    means = ("iou_classes", "iiou_classes", "iou_categories", "iiou_categories")
    for name, key in zip(AVERAGES.values(), means, strict=True):
        assert getattr(result, name) == pytest.approx(golden[f"average_{key}"], rel=0, abs=1e-12)
    for triplet, averages in zip(triplets, golden["per_image_averages"], strict=True):
        one = scored(triplet)
        for key, value in averages.items():
            assert getattr(one, AVERAGES[key]) == pytest.approx(value, rel=0, abs=1e-12)


def make_triplet(seed: int, size: tuple[int, int] = (24, 40), stuff: list[int] = STUFF) -> Triplet:
    """Cells of stuff, rectangles of things (one in five a group), and a prediction: the same, moved, with noise."""
    rng = np.random.default_rng(seed)
    height, width = size
    truth = np.kron(rng.choice(stuff, (height // 4, width // 4)), np.ones((4, 4), int))
    instances = truth.copy()
    for number in range(rng.integers(0, 9)):
        label = int(rng.choice(THINGS))
        top, left = rng.integers(0, height - 2), rng.integers(0, width - 2)
        box = (slice(top, top + rng.integers(1, 12)), slice(left, left + rng.integers(1, 16)))
        truth[box] = label
        instances[box] = label if rng.random() < 0.2 else 1000 * label + number
    predicted = np.roll(truth, tuple(rng.integers(-2, 3, 2)), (0, 1))
    for _ in range(rng.integers(0, 4)):
        top, left = rng.integers(0, height - 2), rng.integers(0, width - 2)
        predicted[top : top + 5, left : left + 9] = rng.integers(0, 34)
    noise = rng.random(size) < rng.choice([0, 0.05, 1])
    predicted = np.where(noise, rng.integers(0, 34, size), predicted)
    return truth.astype(np.uint8), instances.astype(np.uint16), predicted.astype(np.uint8)


def official_scores(folder: Path, triplets: list[Triplet], monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.setattr(np, "in1d", np.isin, raising=False)  # numpy 2.4 has dropped the name the script uses
    script = pytest.importorskip("cityscapesscripts.evaluation.evalPixelLevelSemanticLabeling")
    monkeypatch.setattr(script, "CSUPPORT", False)
    predictions, truths = [], []
    for index, (truth, instances, predicted) in enumerate(triplets):
        stem = f"{folder}/city_000000_{index:06}"
        for name, pixels in (("gtFine_labelIds", truth), ("gtFine_instanceIds", instances), ("pred", predicted)):
            Image.fromarray(pixels).save(f"{stem}_{name}.png", compress_level=0)
        predictions.append(f"{stem}_pred.png")
        truths.append(f"{stem}_gtFine_labelIds.png")
    settings_ = {**vars(script.args), "quiet": True, "JSONOutput": False, "evalPixelAccuracy": True}
    official: dict[str, Any] = script.evaluateImgLists(predictions, truths, SimpleNamespace(**settings_))
    return official


@settings(
    max_examples=200,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    seeds=st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=3),
    stuff=st.lists(st.sampled_from(STUFF), min_size=1, max_size=len(STUFF)),
)
@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")
def test_random_triplets_equal_the_official_script(
    seeds: list[int], stuff: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    triplets = [make_triplet(seed, stuff=stuff) for seed in seeds]
    official = official_scores(tmp_path, triplets, monkeypatch)
    per_image = {
        f"{tmp_path}/city_000000_{index:06}_pred.png": official_pixel_counts(truth, predicted)
        for index, (truth, _, predicted) in enumerate(triplets)
    }
    ours = scored(*triplets).to_official_dict(math.nan, per_image)
    assert list(ours) == list(official)
    for key, theirs in official.items():
        if key in ("confMatrix", "labels", "perImageScores"):
            assert ours[key] == theirs
        elif isinstance(theirs, dict):
            assert_equal_scores(ours[key], theirs)
        else:
            assert ours[key] == pytest.approx(theirs, rel=0, abs=1e-12, nan_ok=True)


def test_counts_of_several_processes_add_up_to_the_same_bits() -> None:
    triplets = [make_triplet(seed) for seed in range(12)]
    whole = CityscapesScores()
    for triplet in triplets:
        whole.add(*triplet)
    merged = CityscapesScores()
    for start in (2, 0, 1):
        part = CityscapesScores()
        for triplet in triplets[start::3]:
            part.add(*triplet)
        merged.merge(part.counts)
    for name, counts in whole.counts.items():
        assert counts.dtype == np.int64
        assert np.array_equal(merged.counts[name], counts)
    assert merged.result().to_official_dict() == whole.result().to_official_dict()


def one_row(*pixels: tuple[int, int, int]) -> Triplet:
    truth, instances, predicted = np.array(pixels).T[:, None]
    return truth, instances, predicted


def test_every_instance_counts_as_one_of_mean_size() -> None:
    # A car of 3 pixels, all found, one of 1 pixel, missed, and a road pixel taken for a car.
    row = one_row(*[(26, 26000, 26)] * 3, (26, 26001, 7), (7, 7, 26), (7, 7, 7))
    mean = 12794.0202738185
    result = scored(row)
    assert result.iou["car"] == pytest.approx(3 / 5)
    assert result.iiou["car"] == pytest.approx(mean / (2 * mean + 1), abs=1e-12)


def test_groups_and_ignored_labels_are_no_instances() -> None:
    row = one_row((26, 26, 26), (29, 29001, 26), (24, 24000, 24))
    result = scored(row)
    assert math.isnan(result.iiou["car"])
    assert result.iou["car"] == 1
    assert result.iiou["person"] == 1


def test_json_has_null_where_there_is_no_score(tmp_path: Path) -> None:
    result = scored(one_row((7, 7, 7), (24, 24000, 25)))
    write_json(tmp_path / "official.json", result.to_official_dict())
    official = json.loads((tmp_path / "official.json").read_text())
    assert official["classScores"]["wall"] is None
    assert official["classScores"]["road"] == 1
    assert "perImageScores" not in official
    write_json(tmp_path / "scores.json", result.to_dict())
    scores = json.loads((tmp_path / "scores.json").read_text())
    assert len(scores["iou"]) == 19
    assert list(scores["iiou_per_class"]) == [
        *("person", "rider", "car", "truck", "bus", "train", "motorcycle", "bicycle")
    ]
    assert scores["miou"] == pytest.approx((1 + 0 + 0) / 3)
    assert scores["iiou"] == 0
    assert list(scores["category_iou"]) == ["flat", "construction", "object", "nature", "sky", "human", "vehicle"]
    assert scores["category_iiou_per_category"] == {"human": 1, "vehicle": None}


def test_nothing_counted_has_no_scores() -> None:
    result = CityscapesScores().result()
    assert result.to_dict()["miou"] is None
    assert result.to_official_dict()["priors"]["road"] is None


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ((7, 7, 255), r"the prediction has id 255 at x=0, y=0 \(1 such pixels\); allowed: 0..33"),
        ((34, 34, 7), r"the truth has id 34"),
        ((-1, 7, 7), r"the truth has id -1"),
        ((26, 34000, 26), r"the instance map has id 34000 .* allowed: 0..33999"),
        ((7, 7001, 7), r"instances of 'road' \(ids 7000 and above\), which has none"),
    ],
)
def test_ids_that_are_none(row: tuple[int, int, int], message: str) -> None:
    with pytest.raises(DataError, match=message):
        CityscapesScores().add(*one_row(row))


def test_shapes_must_be_equal() -> None:
    truth = np.zeros((2, 3), int)
    with pytest.raises(DataError, match=r"prediction has shape \(3, 2\), the truth \(2, 3\)"):
        CityscapesScores().add(truth, truth, truth.T)
    with pytest.raises(DataError, match=r"the instance map has shape \(3, 2\), the truth \(2, 3\)"):
        CityscapesScores().add(truth, truth.T, truth)
    with pytest.raises(DataError, match=r"type float64; must be \(height, width\) integers"):
        CityscapesScores().add(truth, truth, truth * 0.5)


def test_a_refused_image_leaves_the_counts_as_they_were() -> None:
    scores = CityscapesScores()
    with pytest.raises(DataError):
        scores.add(*one_row((7, 7001, 7)))
    assert not any(counts.any() for counts in scores.counts.values())


def test_only_counts_of_the_right_form_are_merged() -> None:
    scores = CityscapesScores()
    with pytest.raises(DataError, match=r"'found' has shape \(3,\), type int64; must be \(34,\), integers"):
        scores.merge(CityscapesScores().counts | {"found": np.zeros(3, np.int64)})
