"""CamVid's original frames: colour labels, official splits by name, and what cannot be used."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hs3seg.data.camvid import FRAMES, LABELS, OFFICIAL_SIZES, CamVid, official_split
from hs3seg.errors import DataError
from hs3seg.taxonomies import camvid
from tests.conftest import shared

TRAIN, VAL, TEST = "0016E5_07920", "0016E5_07961", "Seq05VD_f00030"


def make_camvid(root: Path, names: tuple[str, ...] = (TRAIN, VAL, TEST), size: tuple[int, int] = (8, 16)) -> None:
    """Frames in the layout of the official archives; labels hold all 32 colours in turn."""
    (root / FRAMES).mkdir(parents=True)
    (root / LABELS).mkdir()
    colours = np.array(list(camvid.LABELS.values()), np.uint8)
    pixels = np.arange(size[0] * size[1]).reshape(size) % 32
    for number, name in enumerate(names):
        Image.fromarray(np.full((*size, 3), number, np.uint8)).save(root / FRAMES / f"{name}.png")
        Image.fromarray(colours[pixels]).save(root / LABELS / f"{name}_L.png")
    (root / LABELS / "Thumbs.db").touch()


def save_label(root: Path, pixels: np.ndarray) -> None:
    Image.fromarray(pixels.astype(np.uint8)).save(root / LABELS / f"{TRAIN}_L.png")


@pytest.mark.parametrize(("split", "name"), [("train", TRAIN), ("val", VAL), ("test", TEST)])
def test_each_split_has_its_frames(tmp_path: Path, split: str, name: str) -> None:
    make_camvid(tmp_path)
    dataset = CamVid(tmp_path, split)
    assert dataset.names == [name]
    assert dataset.files(0) == (str(tmp_path / FRAMES / f"{name}.png"), str(tmp_path / LABELS / f"{name}_L.png"))
    assert dataset.notes == (f"1 of the {OFFICIAL_SIZES[split]} frames of the official split '{split}' are there.",)
    sample = dataset.read(0)
    assert sample.image.shape == (3, 8, 16)
    assert sample.image.unique().tolist() == [(TRAIN, VAL, TEST).index(name)]


def test_joined_splits(tmp_path: Path) -> None:
    make_camvid(tmp_path)
    assert CamVid(tmp_path, "trainval").names == [TRAIN, VAL]
    assert CamVid(tmp_path, "all").names == [TRAIN, VAL, TEST]


def test_every_colour_has_its_class(tmp_path: Path) -> None:
    make_camvid(tmp_path)
    fine, coarse = (CamVid(tmp_path, "train", classes) for classes in (32, 11))
    assert (fine.taxonomy, coarse.taxonomy) == (camvid.CAMVID32, camvid.CAMVID11)
    fine_ids, coarse_ids = (dataset.read(0).mask.flatten().tolist() for dataset in (fine, coarse))
    for position, label in enumerate([*camvid.LABELS] * 4):
        if label == camvid.VOID:
            assert fine_ids[position] == coarse_ids[position] == 255
        else:
            assert camvid.CAMVID32.names[fine_ids[position]] == label
            assert coarse_ids[position] == camvid.FROM_32[11][fine_ids[position]]


def test_official_splits_by_name() -> None:
    root = shared("camvid")
    for split, size in OFFICIAL_SIZES.items():
        listed = [Path(line.split()[0]).stem for line in (root / f"{split}.txt").read_text().splitlines() if line]
        assert len(listed) == size
        assert {official_split(name) for name in listed} == {split}


def test_the_splits_have_their_official_sizes() -> None:
    names = [
        *(f"0001TP_{n:06}" for n in range(6690, 10381, 30)),
        *(f"0006R0_f{n:05}" for n in range(930, 3931, 30)),
        *(f"0016E5_{n:05}" for n in (*range(390, 871, 30), 901, *range(930, 2401, 30), *range(4350, 7921, 30))),
        *(f"0016E5_{n:05}" for n in (*range(7959, 8160, 2), *range(8190, 8641, 30))),
        *(f"Seq05VD_f{n:05}" for n in range(0, 5101, 30)),
    ]
    assert len(names) == 701
    assert Counter(map(official_split, names)) == OFFICIAL_SIZES


@pytest.mark.parametrize("name", ["0001TP", "0001TP_006690_L", "frame_00390", "0016E5_390", ""])
def test_names_of_no_frame(name: str) -> None:
    with pytest.raises(DataError, match=f"'{name}' is no name of a CamVid frame, such as 0001TP_006690"):
        official_split(name)


def test_a_foreign_frame_in_the_folder(tmp_path: Path) -> None:
    make_camvid(tmp_path, (TRAIN, "holiday"))
    with pytest.raises(DataError, match="'holiday' is no name of a CamVid frame"):
        CamVid(tmp_path, "train")


def test_a_colour_of_no_label(tmp_path: Path) -> None:
    make_camvid(tmp_path)
    pixels = np.full((8, 16, 3), (128, 64, 128))
    pixels[3, 5] = (128, 66, 128)
    save_label(tmp_path, pixels)
    with pytest.raises(DataError, match=rf"{TRAIN}_L.png: colour \(128, 66, 128\) at x=5, y=3 .* nearest: 'Road'"):
        CamVid(tmp_path, "train").read(0)
    pixels[3, 5] = (0, 192, 192)  # of quarters, but no label's
    save_label(tmp_path, pixels)
    with pytest.raises(DataError, match=r"colour \(0, 192, 192\) at x=5, y=3 \(1 such pixels\)"):
        CamVid(tmp_path, "train").read(0)


def test_labels_of_another_kind_or_size(tmp_path: Path) -> None:
    make_camvid(tmp_path)
    save_label(tmp_path, np.zeros((8, 16)))
    with pytest.raises(DataError, match="has one channel"):
        CamVid(tmp_path, "train").read(0)
    save_label(tmp_path, np.zeros((4, 16, 3)))
    with pytest.raises(DataError, match="is 16x4 pixels, its image .* is 16x8"):
        CamVid(tmp_path, "train").read(0)


def test_files_without_a_partner(tmp_path: Path) -> None:
    make_camvid(tmp_path)
    (tmp_path / LABELS / f"{TRAIN}_L.png").unlink()
    with pytest.raises(DataError, match=rf"frame '.*{TRAIN}.png' has no label '.*{TRAIN}_L\.\*'"):
        CamVid(tmp_path, "train")
    assert len(CamVid(tmp_path, "val")) == 1
    (tmp_path / FRAMES / f"{TRAIN}.png").unlink()
    with pytest.raises(DataError, match=r"has no frame of CamVid's official split 'train'"):
        CamVid(tmp_path, "train")
    (tmp_path / FRAMES / f"{VAL}.png").unlink()
    with pytest.raises(DataError, match=rf"label '.*{VAL}_L.png' has no frame"):
        CamVid(tmp_path, "test")


def test_two_files_of_one_frame(tmp_path: Path) -> None:
    make_camvid(tmp_path)
    Image.new("RGB", (16, 8)).save(tmp_path / FRAMES / f"{TRAIN}.webp")
    with pytest.raises(DataError, match=rf"has two files named '{TRAIN}\.\*'"):
        CamVid(tmp_path, "train")


def test_wrong_splits_classes_and_folders(tmp_path: Path) -> None:
    make_camvid(tmp_path)
    with pytest.raises(DataError, match="no split 'valid'; allowed: train, val, test, trainval, all"):
        CamVid(tmp_path, "valid")
    with pytest.raises(DataError, match="11 or 32 classes, not 12"):
        CamVid(tmp_path, "train", 12)  # type: ignore[arg-type]
    with pytest.raises(DataError, match="SegNet's layout, whose labels are 11 classes"):
        CamVid(tmp_path / "none", "train", 32)
    with pytest.raises(DataError, match=f"need the folder '.*{FRAMES}', which does not exist; found in .*: no folder"):
        CamVid(tmp_path / "none", "train", 32, layout="original")
    (tmp_path / LABELS).rename(tmp_path / "labels")
    with pytest.raises(DataError, match=f"need the folder '.*{LABELS}', .* {FRAMES}, labels"):
        CamVid(tmp_path, "train")


def test_both_layouts_in_one_folder(tmp_path: Path) -> None:
    make_camvid(tmp_path)
    for folder in ("val", "valannot"):
        (tmp_path / folder).mkdir()
        Image.new("RGB" if folder == "val" else "L", (16, 8)).save(tmp_path / folder / "x.png")
    assert CamVid(tmp_path, "val").names == ["x"]
    assert CamVid(tmp_path, "val", layout="original").names == [VAL]


def test_real_frames_in_both_layouts(tmp_path: Path) -> None:
    segnet = CamVid(shared("camvid"), "val")
    (tmp_path / FRAMES).mkdir()
    (tmp_path / LABELS).mkdir()
    palette = np.array([*camvid.CAMVID11.colours, (0, 0, 0)], np.uint8)
    for index in (0, 50, 100):
        image, mask = map(Path, segnet.files(index))
        (tmp_path / FRAMES / image.name).symlink_to(image.resolve())
        ids = np.array(Image.open(mask))
        Image.fromarray(palette[np.minimum(ids, 11)]).save(tmp_path / LABELS / f"{image.stem}_L.png")
    original = CamVid(tmp_path, "val")
    assert original.names == [segnet.names[index] for index in (0, 50, 100)]
    for position, index in enumerate((0, 50, 100)):
        ours, theirs = original.read(position), segnet.read(index)
        assert ours.image.equal(theirs.image)
        assert ours.mask.equal(theirs.mask)
