"""Pascal VOC's layout: palette masks, lists, and what cannot be used."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hs3seg.data.sample import SegmentationDataset
from hs3seg.data.voc import IMAGES, LISTS, MASKS, PascalVOC
from hs3seg.errors import DataError
from hs3seg.taxonomies.voc import VOC, voc_colour
from hs3seg.taxonomy import Taxonomy

NAMES = ("2007_000032", "2008_000039", "2009_ü 1")
LABELS = np.array([[*range(21), 255]] * 3, np.uint8)


def save_mask(path: Path, labels: np.ndarray = LABELS) -> None:
    picture = Image.fromarray(labels.astype(np.uint8))
    picture.putpalette([value for index in range(256) for value in voc_colour(index)])
    picture.save(path)


def make_voc(root: Path, masks: str = MASKS) -> Path:
    for folder in (IMAGES, masks, LISTS):
        (root / folder).mkdir(parents=True)
    for number, name in enumerate(NAMES):
        Image.new("RGB", LABELS.shape[::-1], (number, 0, 0)).save(root / IMAGES / f"{name}.jpg")
        save_mask(root / masks / f"{name}.png")
    (root / LISTS / "train.txt").write_text(f"{NAMES[2]}\n{NAMES[0]}\n", encoding="utf-8")
    (root / LISTS / "val.txt").write_text(f"{NAMES[1]}\n")
    return root


def test_the_palette_is_the_official_one() -> None:
    # The first lines and the border, from the colour map of the development kit.
    table = "0 000000, 1 800000, 2 008000, 3 808000, 4 000080, 5 800080, 6 008080, 7 808080, 8 400000, 15 c08080"
    official = {}
    for entry in f"{table}, 20 004080, 255 e0e0c0".split(", "):
        index, colour = entry.split()
        official[int(index)] = tuple(bytes.fromhex(colour))
    assert {index: voc_colour(index) for index in official} == official
    assert len({voc_colour(index) for index in range(256)}) == 256
    assert VOC.num_classes == 21
    assert VOC.names[0] == "background"
    assert VOC.names[15] == "person"
    assert VOC.names[1:] == tuple(sorted(VOC.names[1:]))


@pytest.mark.parametrize("above", ["", "VOC2012", "VOCdevkit/VOC2012"])
def test_a_split_is_a_list_of_names(tmp_path: Path, above: str) -> None:
    root = make_voc(tmp_path / above)
    dataset = PascalVOC(tmp_path, "train")
    assert isinstance(dataset, SegmentationDataset)
    assert dataset.names == [NAMES[2], NAMES[0]]
    assert dataset.files(1) == (str(root / IMAGES / f"{NAMES[0]}.jpg"), str(root / MASKS / f"{NAMES[0]}.png"))
    assert len(PascalVOC(tmp_path, "val")) == 1
    sample = dataset.read(0)
    assert sample.name == NAMES[2]
    assert np.array_equal(sample.mask.numpy(), LABELS)


def test_masks_saved_as_colours(tmp_path: Path) -> None:
    make_voc(tmp_path)
    path = tmp_path / MASKS / f"{NAMES[1]}.png"
    Image.open(path).convert("RGB").save(path)
    assert np.array_equal(PascalVOC(tmp_path, "val").read(0).mask.numpy(), LABELS)


def test_labels_of_no_class(tmp_path: Path) -> None:
    make_voc(tmp_path)
    path = tmp_path / MASKS / f"{NAMES[1]}.png"
    for value in (21, 22):
        save_mask(path, np.where(LABELS == 3, value, LABELS))
        with pytest.raises(
            DataError, match=rf"{NAMES[1]}.png: label {value} at x=3, y=0 \(3 such pixels\) is no class"
        ):
            PascalVOC(tmp_path, "val").read(0)


def test_other_masks_and_other_classes(tmp_path: Path) -> None:
    make_voc(tmp_path, "SegmentationClassAug")
    with pytest.raises(DataError, match="has no folder 'SegmentationClass' of masks"):
        PascalVOC(tmp_path, "val")
    assert len(PascalVOC(tmp_path, "val", "SegmentationClassAug")) == 1
    many = Taxonomy.from_names([f"c{i}" for i in range(22)])
    save_mask(tmp_path / "SegmentationClassAug" / f"{NAMES[1]}.png", np.full(LABELS.shape, 21))
    assert (PascalVOC(tmp_path, "val", "SegmentationClassAug", many).read(0).mask == 21).all()


def test_an_image_of_another_size(tmp_path: Path) -> None:
    make_voc(tmp_path)
    save_mask(tmp_path / MASKS / f"{NAMES[1]}.png", LABELS[:2])
    with pytest.raises(DataError, match="is 22x2 pixels, its image .* is 22x3"):
        PascalVOC(tmp_path, "val").read(0)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("2007_000033\n", r"'2007_000033' of .*val.txt has no file '.*2007_000033\.\*' \(1 of 1 such names\)"),
        ("../x\n", r"val.txt:1: '../x' lies outside 'JPEGImages'"),
        ("/x\n", r"val.txt:1: '/x' lies outside"),
        ("\n2007_000032\n2007_000032\n", "val.txt:3: '2007_000032' already stands in line 2"),
        ("\n", "the list is empty"),
        ("\xff", "not UTF-8 text"),
    ],
)
def test_lists_that_cannot_be_used(tmp_path: Path, text: str, message: str) -> None:
    make_voc(tmp_path)
    (tmp_path / LISTS / "val.txt").write_bytes(text.encode("latin-1"))
    with pytest.raises(DataError, match=message):
        PascalVOC(tmp_path, "val")


def test_files_and_folders_that_are_missing(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="VOC folder '.*none' does not exist"):
        PascalVOC(tmp_path / "none", "val")
    with pytest.raises(DataError, match="has no folder JPEGImages; give the folder that holds it"):
        PascalVOC(tmp_path, "val")
    for year in ("VOC2007", "VOC2012"):
        make_voc(tmp_path / "VOCdevkit" / year)
    with pytest.raises(DataError, match="no folder JPEGImages, but VOCdevkit/VOC2007, VOCdevkit/VOC2012; give one"):
        PascalVOC(tmp_path, "val")
    root = tmp_path / "VOCdevkit" / "VOC2012"
    with pytest.raises(DataError, match=r"split 'test' needs the list '.*test.txt', .*; found: train, val"):
        PascalVOC(root, "test")
    (root / MASKS / f"{NAMES[1]}.png").unlink()
    with pytest.raises(DataError, match=rf"'{NAMES[1]}' of .* has no file '.*{MASKS}/{NAMES[1]}\.\*'"):
        PascalVOC(root, "val")
    Image.new("RGB", (22, 3)).save(root / IMAGES / f"{NAMES[1]}.png")
    with pytest.raises(DataError, match=f"'.*{NAMES[1]}.jpg' and '{NAMES[1]}.png' have one name"):
        PascalVOC(root, "val")
