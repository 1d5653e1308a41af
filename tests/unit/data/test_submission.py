"""Submissions to the test server: names, sizes, ids, and what is refused."""

import io
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from hs3seg.data.cityscapes import Cityscapes
from hs3seg.data.cityscapes_scores import score_predictions
from hs3seg.data.submission import write_submission
from hs3seg.errors import DataError
from hs3seg.taxonomies.cityscapes import CITYSCAPES, ID_OF_TRAIN_ID, TRAIN_ID_OF_ID
from tests.fabricate.cityscapes import make_cityscapes, make_scene, names_of

NAMES = names_of("test", 3)


def train_ids(seed: int) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 19, (64, 128)).astype(np.uint8)


@pytest.fixture
def dataset(tmp_path: Path) -> Cityscapes:
    return Cityscapes(make_cityscapes(tmp_path / "data", {"test": 3}), "test")


@pytest.fixture
def predictions(tmp_path: Path) -> Path:
    (tmp_path / "pred").mkdir()
    for number, name in enumerate(NAMES):
        Image.fromarray(train_ids(number)).save(tmp_path / "pred" / f"{name}_leftImg8bit-index.png")
    return tmp_path / "pred"


def unpack(path: Path) -> dict[str, Image.Image]:
    with zipfile.ZipFile(path) as archive:
        return {name: Image.open(io.BytesIO(archive.read(name))) for name in archive.namelist()}


def test_train_ids_become_label_ids_under_the_right_names(
    dataset: Cityscapes, predictions: Path, tmp_path: Path
) -> None:
    target, calls = tmp_path / "new folder" / "submission.zip", list[None]()
    summary = write_submission(predictions, dataset, target, progress=lambda: calls.append(None))
    images = unpack(target)
    assert list(images) == [f"{name}_pred_labelIds.png" for name in NAMES]
    for number, image in enumerate(images.values()):
        assert (image.mode, image.size, image.format) == ("L", (128, 64), "PNG")
        assert np.array_equal(np.array(image), ID_OF_TRAIN_ID[train_ids(number)])
    assert (summary.path, summary.num_frames, summary.num_bytes) == (target, 3, target.stat().st_size)
    counts = np.bincount(np.concatenate([train_ids(number).ravel() for number in range(3)]), minlength=19)
    assert summary.pixels == dict(zip(CITYSCAPES.names, counts.tolist(), strict=True))
    assert summary.num_unlabelled == 0
    assert summary.notes == ("The test server wants 1525 frames, split test has 3 here.",)
    assert len(calls) == 3
    assert [path.name for path in target.parent.iterdir()] == ["submission.zip"]


def test_label_ids_are_taken_as_they_are(dataset: Cityscapes, predictions: Path, tmp_path: Path) -> None:
    write_submission(predictions, dataset, tmp_path / "a.zip")
    for path in predictions.iterdir():
        Image.fromarray(ID_OF_TRAIN_ID[np.array(Image.open(path))]).save(path)
    write_submission(predictions, dataset, tmp_path / "b.zip", ids="label", num_workers=2)
    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "b.zip").read_bytes()


def test_the_ignore_label_becomes_unlabelled(dataset: Cityscapes, predictions: Path, tmp_path: Path) -> None:
    path = predictions / f"{NAMES[1]}_leftImg8bit-index.png"
    ids = np.array(Image.open(path))
    ids[:2] = 255
    Image.fromarray(ids).save(path)
    summary = write_submission(predictions, dataset, tmp_path / "a.zip")
    assert summary.num_unlabelled == 256
    assert "256 pixels have none of the 19 classes" in summary.notes[1]
    image = np.array(unpack(tmp_path / "a.zip")[f"{NAMES[1]}_pred_labelIds.png"])
    assert np.array_equal(image == 0, ids == 255)


def test_a_submission_of_val_scores_as_the_predictions_do(tmp_path: Path) -> None:
    dataset = Cityscapes(make_cityscapes(tmp_path / "data", {"val": 2}), "val")
    (tmp_path / "pred").mkdir()
    for number, name in enumerate(dataset.names):
        ids = np.roll(TRAIN_ID_OF_ID[make_scene(number).ids], 2, 0)
        Image.fromarray(np.where(ids == 255, 0, ids)).save(tmp_path / "pred" / f"{name}.png")
    summary = write_submission(tmp_path / "pred", dataset, tmp_path / "a.zip")
    assert summary.notes == ("These are frames of split 'val'; the test server scores split test.",)
    with zipfile.ZipFile(tmp_path / "a.zip") as archive:
        archive.extractall(tmp_path / "unpacked")
    scores = score_predictions(tmp_path / "unpacked", dataset)
    assert scores == score_predictions(tmp_path / "pred", dataset, ids="train")
    assert 0 < scores["miou"] < 1


def test_train_ids_are_no_label_ids(dataset: Cityscapes, predictions: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"hold ids 0..18 alone, void among them: these are train ids"):
        write_submission(predictions, dataset, tmp_path / "a.zip", ids="label")
    Image.fromarray(np.full((64, 128), 23, np.uint8)).save(predictions / f"{NAMES[0]}_leftImg8bit-index.png")
    with pytest.raises(DataError, match=r"value 23 at x=0, y=0 .*; if these are label ids, say so: ids = 'label'"):
        write_submission(predictions, dataset, tmp_path / "a.zip")
    assert not list(tmp_path.glob("*.zip*"))


def test_an_error_leaves_the_older_file(dataset: Cityscapes, predictions: Path, tmp_path: Path) -> None:
    target = tmp_path / "a.zip"
    write_submission(predictions, dataset, target)
    before = target.read_bytes()
    last = predictions / f"{NAMES[2]}_leftImg8bit-index.png"
    Image.fromarray(train_ids(0)[:32]).save(last)
    with pytest.raises(DataError, match=rf"{last.name}: is 128x32 pixels, its frame 128x64"):
        write_submission(predictions, dataset, target)
    assert target.read_bytes() == before
    assert not [path for path in tmp_path.iterdir() if path.name.endswith(".tmp")]
    last.unlink()
    with pytest.raises(DataError, match=rf"1 of 3 frames have no prediction .*'{NAMES[2]}'"):
        write_submission(predictions, dataset, target)
    for name in (f"{NAMES[2]}-colour.png", f"{NAMES[2]}.png"):
        Image.fromarray(train_ids(2)).save(predictions / name)
    with pytest.raises(DataError, match=rf"frame '{NAMES[2]}' has 2 predictions"):
        write_submission(predictions, dataset, target)


def test_a_truncated_prediction_is_refused(dataset: Cityscapes, predictions: Path, tmp_path: Path) -> None:
    path = min(predictions.iterdir())
    path.write_bytes(path.read_bytes()[:-2000])
    with pytest.raises(DataError, match=rf"{path.name}: cannot be read .*truncated"):
        write_submission(predictions, dataset, tmp_path / "a.zip")


def test_the_target_must_be_a_zip_file_in_a_place_that_can_be_written(
    dataset: Cityscapes, predictions: Path, tmp_path: Path
) -> None:
    (tmp_path / "folder.zip").mkdir()
    for name in ("a.tar", "folder.zip"):
        with pytest.raises(DataError, match=rf"takes a zip file, '.*{name}' is none; give a name that ends in .zip"):
            write_submission(predictions, dataset, tmp_path / name)
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match=r"file/a.zip' cannot be written .*; give another place"):
        write_submission(predictions, dataset, tmp_path / "file" / "a.zip")


def test_further_files_stay_out(dataset: Cityscapes, predictions: Path, tmp_path: Path) -> None:
    shutil.copy(min(predictions.iterdir()), predictions / "mainz_000000_000019.png")
    (predictions / "notes.txt").touch()
    assert write_submission(predictions, dataset, tmp_path / "a.zip").num_frames == 3
