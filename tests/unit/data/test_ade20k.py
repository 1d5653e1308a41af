"""ADE20K's layout: labels from 1, 0 ignored, and names from its table."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hs3seg.data.ade20k import ADE20K, FOLDER, NAMES, read_names
from hs3seg.data.sample import SegmentationDataset
from hs3seg.errors import DataError

NUM_CLASSES = 150
HEAD = "Idx\tRatio\tTrain\tVal\tStuff\tName\n"


def make_ade20k(root: Path) -> Path:
    root.mkdir(exist_ok=True)
    rows = [f"{i}\t0.01 \t10\t1 \t1\tthing {i}, object of kind {i}" for i in range(1, NUM_CLASSES + 1)]
    (root / NAMES).write_text(HEAD + "\n".join(rows) + "\n")
    labels = np.arange(NUM_CLASSES + 2, dtype=np.uint8).reshape(8, 19) % (NUM_CLASSES + 1)
    for number, split in enumerate(("training", "validation")):
        images, masks = root / "images" / split, root / "annotations" / split
        images.mkdir(parents=True)
        masks.mkdir(parents=True)
        for index in range(1, 3 - number):
            stem = f"ADE_{split[:5]}_{index:08}"
            Image.new("RGB", (19, 8), (index, 0, 0)).save(images / f"{stem}.jpg")
            Image.fromarray(labels).save(masks / f"{stem}.png")
    return root


@pytest.mark.parametrize("above", ["", FOLDER])
def test_labels_count_from_one(tmp_path: Path, above: str) -> None:
    root = make_ade20k(tmp_path / above)
    dataset = ADE20K(tmp_path, "train")
    assert isinstance(dataset, SegmentationDataset)
    assert dataset.names == ["ADE_train_00000001", "ADE_train_00000002"]
    assert dataset.files(0) == (
        str(root / "images" / "training" / "ADE_train_00000001.jpg"),
        str(root / "annotations" / "training" / "ADE_train_00000001.png"),
    )
    assert dataset.taxonomy.num_classes == NUM_CLASSES
    assert dataset.taxonomy.names[4] == "thing 5"
    assert dataset.read(1).mask.flatten().tolist() == [255, *range(150), 255]


def test_splits_have_two_names(tmp_path: Path) -> None:
    make_ade20k(tmp_path)
    assert ADE20K(tmp_path, "val").names == ADE20K(tmp_path, "validation").names == ["ADE_valid_00000001"]


def test_grey_images_have_three_channels(tmp_path: Path) -> None:
    make_ade20k(tmp_path)
    Image.new("L", (19, 8), 7).save(tmp_path / "images" / "validation" / "ADE_valid_00000001.jpg")
    assert ADE20K(tmp_path, "val").read(0).image.shape == (3, 8, 19)


def test_the_first_name_is_taken_unless_two_classes_have_it(tmp_path: Path) -> None:
    path = tmp_path / NAMES
    rows = [
        "1 \t0\t0\t0\t0\twall",
        "2\t0\t0\t0\t0\tdoor, double door",
        "3\t0\t0\t0\t0\tdoor, gate",
        "4\t0\t0\t0\t0\tbed ",
    ]
    path.write_text(HEAD + "\n".join(rows))
    assert read_names(path) == ["wall", "door, double door", "door, gate", "bed"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "does not name the columns Idx and Name"),
        ("1,0,0,0,0,wall\n", "does not name the columns Idx and Name"),
        (HEAD + "1\t0\t0\t0\t0\twall\n3\t0\t0\t0\t0\tsky\n", "class 2 has Idx '3' and Name 'sky'"),
        (HEAD + "1\t0\t0\t0\n", "class 1 has Idx '1' and Name ''"),
        (HEAD + "1\t0\t0\t0\t0\twall\n2\t0\t0\t0\t0\twall\n", "class 'wall' stands twice"),
        ("\xff", "not UTF-8 text"),
    ],
)
def test_tables_that_cannot_be_used(tmp_path: Path, text: str, message: str) -> None:
    make_ade20k(tmp_path)
    (tmp_path / NAMES).write_bytes(text.encode("latin-1"))
    with pytest.raises(DataError, match=message):
        ADE20K(tmp_path, "val")


def test_files_that_cannot_be_used(tmp_path: Path) -> None:
    make_ade20k(tmp_path)
    mask = tmp_path / "annotations" / "validation" / "ADE_valid_00000001.png"
    labels = np.ones((8, 19), np.uint8)
    labels[2, 4:6] = 151
    Image.fromarray(labels).save(mask)
    with pytest.raises(DataError, match=r"label 151 at x=4, y=2 \(2 such pixels\) is no class; allowed: 1\.\.150"):
        ADE20K(tmp_path, "val").read(0)
    Image.fromarray(np.ones((8, 19, 3), np.uint8)).save(mask)
    with pytest.raises(DataError, match="has 3 channels, but labels of ADEChallengeData2016 have one"):
        ADE20K(tmp_path, "val").read(0)
    Image.fromarray(labels[:5] % 2).save(mask)
    with pytest.raises(DataError, match="is 19x5 pixels, its image .* is 19x8"):
        ADE20K(tmp_path, "val").read(0)
    mask.unlink()
    with pytest.raises(DataError, match="image '.*ADE_valid_00000001.jpg' has no mask"):
        ADE20K(tmp_path, "val")
    with pytest.raises(DataError, match=r"needs the folder '.*images/test', .*; found in .*: training, validation"):
        ADE20K(tmp_path, "test")
    (tmp_path / NAMES).unlink()
    with pytest.raises(DataError, match="'.*objectInfo150.txt' does not exist; it is part of ADEChallengeData2016.zip"):
        ADE20K(tmp_path, "train")
