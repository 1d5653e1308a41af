"""Where files lie, and lists and folders that do not fit."""

from pathlib import Path

import pytest
from PIL import Image

from hs3seg.data import NYUv2
from hs3seg.data.nyuv2_layout import find_frames
from hs3seg.errors import DataError
from hs3seg.taxonomies.nyuv2 import OFFICIAL_SPLITS
from tests.fabricate.nyuv2 import make_nyuv2


@pytest.mark.parametrize("first", [0, 1])
def test_the_official_split_of_a_folder_of_all_frames(tmp_path: Path, first: int) -> None:
    for folder, name in (("images", "img_{:05}.jpg"), ("seg40", "nyu40_{:05}.png"), ("depth", "{}.npy")):
        (tmp_path / folder).mkdir()
        for number in range(first, first + 1449):
            (tmp_path / folder / name.format(number)).touch()
    for split, numbers in OFFICIAL_SPLITS.items():
        frames, note = find_frames(tmp_path, split)
        assert f"numbers begin at {first}" in note
        assert [int(frame.rgb.stem[4:]) - first + 1 for frame in frames] == list(numbers)
        for frame in frames:
            assert frame.label.stem[6:] == frame.rgb.stem[4:]
            assert frame.filled is not None
            assert int(frame.filled.stem) == int(frame.rgb.stem[4:])
            assert frame.hha is None
    (tmp_path / "images" / f"img_{first:05}.jpg").unlink()
    with pytest.raises(DataError, match=r"needs the list .* or folders of all 1449 frames"):
        find_frames(tmp_path, "train")


def test_label_folders_with_the_wanted_number_come_first(tmp_path: Path) -> None:
    make_nyuv2(tmp_path, layout="esanet")
    for folder in ("labels_13", "labels_894"):
        (tmp_path / "train" / folder).mkdir()
        for number in (1, 2, 3):
            (tmp_path / "train" / folder / f"{number:04}.png").touch()
    for classes, folder in ((40, "labels_40"), (13, "labels_13"), (4, "labels_40")):
        frames, _ = find_frames(tmp_path, "train", classes)
        assert {frame.label.parent.name for frame in frames} == {folder}


def test_lists_in_a_folder_of_their_own(tmp_path: Path) -> None:
    make_nyuv2(tmp_path)
    (tmp_path / "gt_sets").mkdir()
    for split in ("train", "test"):
        (tmp_path / f"{split}.txt").rename(tmp_path / "gt_sets" / f"{split}.txt")
    assert [frame.name for frame in find_frames(tmp_path, "test")[0]] == ["0004", "0005"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("RGB/0.jpg\tLabel/9.png\n", r"train.txt:1: file '.*Label/9.png' does not exist"),
        ("RGB/0.jpg\t../Label/0.png\n", "lies outside"),
        ("RGB/0.jpg\tLabel/0.png\nRGB/0.jpg\tLabel/1.png\n", "already stands in line 1"),
        ("RGB/0.jpg\n", "train.txt:1: 'RGB/0.jpg' is a path; a list of one name per line holds file names"),
        ("0\n7\n", r"frame '7' of '.*' has no image '.*RGB/7\.\*'"),
        ("0\n0.jpg\n", "train.txt:2: frame '0' stands in the list twice"),
        ("\n \n", "the list is empty"),
        ("\xff", "train.txt: not UTF-8 text"),
    ],
)
def test_lines_that_cannot_be_used(tmp_path: Path, text: str, message: str) -> None:
    make_nyuv2(tmp_path, layout="sagate")
    (tmp_path / "train.txt").write_bytes(text.encode("latin-1"))
    with pytest.raises(DataError, match=message):
        find_frames(tmp_path, "train")


def test_names_in_lists_may_have_a_suffix(tmp_path: Path) -> None:
    make_nyuv2(tmp_path, layout="sagate")
    (tmp_path / "train.txt").write_text("2.jpg\n0.jpg\n")
    assert NYUv2(tmp_path, "train").names == ["2", "0"]


def test_folders_that_do_not_fit(tmp_path: Path) -> None:
    make_nyuv2(tmp_path, layout="folders")
    labels = tmp_path / "train" / "label"
    (labels / "0002.png").rename(labels / "0009.png")
    with pytest.raises(DataError, match=r"frame '0002' .* has no label '.*label/0002\.\*'"):
        find_frames(tmp_path, "train")
    (labels / "0009.png").rename(labels / "0002.png")
    Image.new("L", (64, 48)).save(labels / "0002.tif")
    with pytest.raises(DataError, match="have one stem"):
        find_frames(tmp_path, "train")
    (labels / "0002.tif").unlink()
    labels.rename(tmp_path / "train" / "truth")
    with pytest.raises(DataError, match="have no folder of labels beside them"):
        find_frames(tmp_path, "train")
    for path in (tmp_path / "test" / "rgb").iterdir():
        path.unlink()
    with pytest.raises(DataError, match="no image in"):
        find_frames(tmp_path, "test")


def test_depth_that_is_missing_is_named(tmp_path: Path) -> None:
    make_nyuv2(tmp_path, layout="sagate")
    (tmp_path / "Depth" / "1.png").unlink()
    assert len(NYUv2(tmp_path, "train")) == 3
    with pytest.raises(DataError, match=r"frame '1' has no file '.*Depth/1\.\*'; add it"):
        NYUv2(tmp_path, "train", depth="raw")
    for path in (tmp_path / "Depth").iterdir():
        path.unlink()
    with pytest.raises(DataError, match="has no folder of hha depth beside its images; add depth"):
        NYUv2(tmp_path, "train", depth="hha")
