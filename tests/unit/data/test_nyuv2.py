"""NYU-Depth-v2: the format, what is refused, and the real data."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from hs3seg.data import CachedDataset, NYUv2, SegmentationDataset, Subset, channels_of, check_dataset
from hs3seg.errors import DataError
from tests.conftest import shared


def write_nyuv2(root: Path, train: int = 2, test: int = 1, size: tuple[int, int] = (8, 10)) -> Path:
    """The data set's format with noise in it; every fourth pixel is void."""
    rng = np.random.default_rng(0)
    for folder in ("rgb", "depth", "label40"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    names = [f"{number:04}" for number in range(1, train + test + 1)]
    for name in names:
        labels = rng.integers(1, 41, size, np.uint8)
        labels.ravel()[::4] = 0
        Image.fromarray(rng.integers(0, 256, (*size, 3), np.uint8)).save(root / "rgb" / f"{name}.jpg")
        Image.fromarray(rng.integers(0, 256, size, np.uint8)).save(root / "depth" / f"{name}.png")
        Image.fromarray(labels).save(root / "label40" / f"{name}.png")
    for split, part in (("train", names[:train]), ("test", names[train:])):
        lines = [f"rgb/{name}.jpg depth/{name}.png label40/{name}.png\n" for name in part]
        (root / f"{split}.txt").write_text("".join(lines))
    return root


def test_depth_is_the_fourth_channel(tmp_path: Path) -> None:
    write_nyuv2(tmp_path)
    plain, deep = NYUv2(tmp_path, "train"), NYUv2(tmp_path, "train", depth="raw")
    assert (len(plain), plain.names) == (2, ["0001", "0002"])
    assert (plain.channels, deep.channels) == (3, 4)
    for index, name in enumerate(deep.names):
        sample = deep.read(index)
        stored = np.array(Image.open(tmp_path / "depth" / f"{name}.png"))
        assert sample.image.shape == (4, 8, 10)
        assert sample.image.dtype == torch.uint8
        assert np.array_equal(sample.image[3].numpy(), stored)
        assert torch.equal(sample.image[:3], plain.read(index).image)
        assert torch.equal(sample.mask, plain.read(index).mask)
    assert [Path(file).parent.name for file in deep.files(0)] == ["rgb", "depth", "label40"]
    assert [Path(file).parent.name for file in plain.files(0)] == ["rgb", "label40"]


def test_void_is_ignored_and_labels_begin_at_zero(tmp_path: Path) -> None:
    write_nyuv2(tmp_path)
    stored = np.array(Image.open(tmp_path / "label40" / "0001.png")).astype(int)
    mask = NYUv2(tmp_path, "train").read(0).mask.numpy()
    assert (mask[stored == 0] == 255).all()
    assert np.array_equal(mask[stored > 0], stored[stored > 0] - 1)


def test_wrappers_keep_the_channels(tmp_path: Path) -> None:
    data = NYUv2(write_nyuv2(tmp_path), "train", depth="raw")
    cached = CachedDataset(data)
    part = Subset(cached, [1], "part")
    assert isinstance(cached, SegmentationDataset)
    assert channels_of(data) == channels_of(cached) == channels_of(part) == 4
    for _ in range(2):  # read, then from memory
        assert torch.equal(part.read(0).image, data.read(1).image)
    assert not check_dataset({"train": cached}).has_errors


def test_without_depth_its_files_are_not_needed(tmp_path: Path) -> None:
    write_nyuv2(tmp_path)
    (tmp_path / "depth" / "0002.png").unlink()
    assert NYUv2(tmp_path, "train").read(1).image.shape == (3, 8, 10)
    with pytest.raises(DataError, match=r"train.txt:2: file '.*depth/0002.png' does not exist"):
        NYUv2(tmp_path, "train", depth="raw")


def test_class_names_of_the_file_or_built_in(tmp_path: Path) -> None:
    names = NYUv2(write_nyuv2(tmp_path), "train").taxonomy.names
    assert (len(names), names[0], names[19], names[39]) == (40, "wall", "floor mat", "otherprop")
    lines = ["0 void", *(f"{i} thing {i}" for i in range(1, 41))]
    (tmp_path / "classes40.txt").write_text("\n".join(lines))
    taxonomy = NYUv2(tmp_path, "train").taxonomy
    assert (taxonomy.names[0], taxonomy.names[39]) == ("thing 1", "thing 40")
    assert len(set(taxonomy.colours)) == 40


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1 wall\n", r"classes40.txt: id 2 has no name"),
        ("1 wall\nfloor\n", r"classes40.txt:2: 'floor' is no class"),
        ("1 wall\n1 floor\n", r"classes40.txt:2: '1 floor' is no class"),
        ("41 moon\n", r"classes40.txt:1: '41 moon' is no class"),
    ],
)
def test_wrong_class_files(tmp_path: Path, text: str, message: str) -> None:
    write_nyuv2(tmp_path)
    (tmp_path / "classes40.txt").write_text(text)
    with pytest.raises(DataError, match=message):
        NYUv2(tmp_path, "train")


def spoil(root: Path, fault: str) -> None:
    path = root / "label40" / "0002.png"
    if fault == "missing file":
        path.unlink()
    elif fault == "short line":
        (root / "train.txt").write_text("rgb/0001.jpg label40/0001.png\n")
    elif fault == "outside":
        (root / "train.txt").write_text("../rgb/0001.jpg depth/0001.png label40/0001.png\n")
    elif fault == "label size":
        Image.fromarray(np.ones((4, 5), np.uint8)).save(path)
    elif fault == "depth size":
        Image.fromarray(np.ones((4, 5), np.uint8)).save(root / "depth" / "0002.png")
    elif fault == "16-bit depth":
        Image.fromarray(np.full((8, 10), 2500, np.uint16)).save(root / "depth" / "0002.png")
    elif fault == "label":
        labels = np.array(Image.open(path))
        labels[3, 5] = 41
        Image.fromarray(labels).save(path)
    elif fault == "colours":
        Image.fromarray(np.zeros((8, 10, 3), np.uint8)).save(path)


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("missing file", r"train.txt:2: file '.*label40/0002.png' does not exist"),
        ("short line", r"train.txt:1: .* has 2 parts; write `rgb depth label`"),
        ("outside", r"train.txt:1: .* lies outside"),
        ("label size", r"label40/0002.png: is 5x4 pixels, its image '.*rgb/0002.jpg' is 10x8; they must be equal"),
        ("depth size", r"depth/0002.png: is 5x4 pixels, its image '.*rgb/0002.jpg' is 10x8; they must be equal"),
        ("16-bit depth", r"depth/0002.png: is a depth image of mode I;16; only one channel of 8 bits"),
        ("label", r"label40/0002.png: label 41 at x=5, y=3 \(1 such pixels\) is no class; allowed: 0 = void and 1..40"),
        ("colours", r"label40/0002.png: has 3 channels"),
    ],
)
def test_what_cannot_be_used_is_named(tmp_path: Path, fault: str, message: str) -> None:
    write_nyuv2(tmp_path)
    spoil(tmp_path, fault)
    with pytest.raises(DataError, match=message):
        NYUv2(tmp_path, "train", depth="raw").read(1)


def test_a_missing_list_names_the_splits_that_exist(tmp_path: Path) -> None:
    write_nyuv2(tmp_path)
    with pytest.raises(
        DataError, match=r"val.txt', which does not exist; official splits: train, test .*no val.*found: train.txt, t"
    ):
        NYUv2(tmp_path, "val")
    with pytest.raises(DataError, match="lists found: none"):
        NYUv2(tmp_path / "rgb", "train")


def test_the_real_data() -> None:
    root = shared("nyuv2")
    splits = {split: NYUv2(root, split, depth="raw") for split in ("train", "test")}
    assert {split: len(data) for split, data in splits.items()} == {"train": 795, "test": 654}
    assert not set(splits["train"].names) & set(splits["test"].names)
    assert splits["train"].taxonomy.names == NYUv2.class_names
    for index in (0, 400, 653):
        sample = splits["test"].read(index)
        assert sample.image.shape == (4, 240, 320)
        assert sample.mask.shape == (240, 320)
        labels = set(sample.mask.unique().tolist())
        assert 255 in labels  # the white frame
        assert labels <= {*range(40), 255}
        metres = (sample.image[3].float() + 0.5) / 25.5
        assert 0.3 < float(metres.min()) < float(metres.max()) <= 10.1
