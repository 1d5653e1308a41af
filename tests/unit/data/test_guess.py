import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hs3seg.data.guess import guess_layout, pairs_of
from hs3seg.errors import DataError
from tests.conftest import shared

RNG = np.random.default_rng(0)


def image(root: Path, path: str) -> None:
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(RNG.integers(0, 255, (8, 8, 3)).astype(np.uint8)).save(root / path)


def mask(root: Path, path: str) -> None:
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(RNG.integers(0, 3, (8, 8)).astype(np.uint8)).save(root / path)


LAYOUTS = {
    "folders of splits": ("images/{s}/{n}.jpg", "masks/{s}/{n}.png", {"images": "images", "masks": "masks"}),
    "splits of folders": ("{s}/img/{n}.png", "{s}/label/{n}.png", {"images": "img", "masks": "label"}),
    "other words": ("data/JPEGImages/{s}/{n}.jpg", "data/Annotations/{s}/{n}.png", None),
    "SegNet": ("{s}/{n}.png", "{s}annot/{n}.png", None),
    "suffix": ("{s}/{n}.jpg", "{s}/{n}_mask.png", None),
    "both suffixes": ("all/{s}/{n}_img.png", "all/{s}/{n}_mask.png", None),
    "suffix in folders": ("images/{s}/{n}.png", "labels/{s}/{n}_L.png", None),
    "prefix": ("{s}/img_{n}.png", "{s}/mask_{n}.png", None),
    "deep": ("images/{s}/city{n}/{n}.png", "gt/{s}/city{n}/{n}.png", None),
    "numbers": ("rgb/{s}/{n}.jpg", "label40/{s}/{n}.png", {"images": "rgb", "masks": "label40"}),
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_layouts_with_splits(tmp_path: Path, name: str) -> None:
    of_image, of_mask, keys = LAYOUTS[name]
    splits = {"train": ["a b", "é"], "valid": ["c"], "test": ["d"]}
    for split, names in splits.items():
        for stem in names:
            image(tmp_path, of_image.format(s=split, n=stem))
            mask(tmp_path, of_mask.format(s=split, n=stem))
    found = guess_layout(tmp_path)
    assert found.splits == tuple(splits)
    assert keys is None or found.data == keys
    assert not any(note.startswith("WRONG") for note in found.notes)
    for split, names in splits.items():
        expected = {(tmp_path / of_image.format(s=split, n=n), tmp_path / of_mask.format(s=split, n=n)) for n in names}
        assert set(pairs_of(tmp_path, split, found.data)) == expected


@pytest.mark.parametrize(
    ("of_image", "of_mask"),
    [
        ("images/{}.jpg", "masks/{}.png"),
        ("{}.jpg", "{}_mask.png"),
        ("x/{0}/photo.jpg", "x/{0}/label.png"),
        ("seq{0}/rgb/{0}.png", "seq{0}/gt/{0}.png"),
        ("one/{}.png", "two/{}.png"),
        ("two/{}.png", "one/{}.png"),
    ],
)
def test_layouts_without_splits_are_cut(tmp_path: Path, of_image: str, of_mask: str) -> None:
    for number in range(10):
        image(tmp_path, of_image.format(number))
        mask(tmp_path, of_mask.format(number))
    found = guess_layout(tmp_path)
    assert found.splits == ("train", "val")
    pairs = {split: pairs_of(tmp_path, split, found.data) for split in found.splits}
    assert [len(part) for part in pairs.values()] == [8, 2]
    expected = {(tmp_path / of_image.format(n), tmp_path / of_mask.format(n)) for n in range(10)}
    assert set(pairs["train"]) | set(pairs["val"]) == expected == set(found.pairs)


def test_lists_of_names_as_pascal_voc_has_them(tmp_path: Path) -> None:
    for number in range(6):
        image(tmp_path, f"JPEGImages/{number}.jpg")
        if number < 4:
            mask(tmp_path, f"SegmentationClass/{number}.png")
    lists = tmp_path / "ImageSets" / "Segmentation"
    lists.mkdir(parents=True)
    (lists / "train.txt").write_text("0\n1\n2\n")
    (lists / "val.txt").write_text("3\n")
    found = guess_layout(tmp_path)
    assert found.data["split_list"] == "ImageSets/Segmentation/{split}.txt"
    assert found.splits == ("train", "val")
    assert [a.stem for a, _ in pairs_of(tmp_path, "train", found.data)] == ["0", "1", "2"]
    assert len(found.pairs) == 4
    assert any("data.kind = 'voc'" in note for note in found.notes)


def test_lists_of_pairs_need_no_equal_names(tmp_path: Path) -> None:
    image(tmp_path, "a/x.png")
    mask(tmp_path, "b/other.png")
    (tmp_path / "train.txt").write_text("a/x.png\tb/other.png\n")
    found = guess_layout(tmp_path)
    assert found.pairs == [(tmp_path / "a/x.png", tmp_path / "b/other.png")]


def test_lists_that_cannot_be_used_are_said(tmp_path: Path) -> None:
    for number in range(5):
        image(tmp_path, f"images/{number}.jpg")
        mask(tmp_path, f"masks/{number}.png")
    (tmp_path / "train.txt").write_text("images/0.jpg depth/0.png masks/0.png\n")
    found = guess_layout(tmp_path)
    assert any(note.startswith("WRONG: lists {split}.txt") for note in found.notes)
    assert len(pairs_of(tmp_path, "train", found.data)) == 4


def splits_of_folders(root: Path) -> dict[str, set[tuple[Path, Path]]]:
    """Three images of `train`, one of `val`, and their pairs."""
    pairs: dict[str, set[tuple[Path, Path]]] = {}
    for split, names in {"train": "abc", "val": "d"}.items():
        for name in names:
            paths = f"images/{split}/{name}.jpg", f"masks/{split}/{name}.png"
            image(root, paths[0])
            mask(root, paths[1])
            pairs.setdefault(split, set()).add((root / paths[0], root / paths[1]))
    return pairs


def test_lists_of_images_beside_folders(tmp_path: Path) -> None:
    pairs = splits_of_folders(tmp_path)
    for split, names in {"train": "abc", "val": "d"}.items():
        (tmp_path / f"{split}.txt").write_text("".join(f"./images/{split}/{name}.jpg\n" for name in names))
    found = guess_layout(tmp_path)
    assert found.data == {"images": "images", "masks": "masks"}
    assert any("the lists {split}.txt are not used" in note for note in found.notes)
    assert {split: set(pairs_of(tmp_path, split, found.data)) for split in found.splits} == pairs


@pytest.mark.parametrize("line", ["images/train/a.jpg", "images/train/a.jpg 0", "images/train/gone.jpg gone.png"])
def test_lists_that_spoil_folders_are_outdone_by_patterns(tmp_path: Path, line: str) -> None:
    pairs = splits_of_folders(tmp_path)
    (tmp_path / "train.txt").write_text(f"{line}\n")
    found = guess_layout(tmp_path)
    assert found.data == {"image_pattern": "images/{split}/*.*", "mask_pattern": "masks/{split}/*.*"}
    assert any("train.txt:1" in note for note in found.notes)
    assert any("the lists {split}.txt are not used" in note for note in found.notes)
    assert {split: set(pairs_of(tmp_path, split, found.data)) for split in found.splits} == pairs
    assert set(found.pairs) == set.union(*pairs.values())


def test_lists_of_pairs_beside_folders_are_what_is_read(tmp_path: Path) -> None:
    splits_of_folders(tmp_path)
    (tmp_path / "train.txt").write_text("images/train/a.jpg masks/train/a.png\n")
    found = guess_layout(tmp_path)
    assert sorted(path.stem for path, _ in found.pairs) == ["a", "d"]
    assert not any("not used" in note for note in found.notes)


def test_files_without_partners_beside_lists_are_said(tmp_path: Path) -> None:
    splits_of_folders(tmp_path)
    image(tmp_path, "images/train/alone.jpg")
    (tmp_path / "train.txt").write_text("images/train/a.jpg\n")
    notes = guess_layout(tmp_path).notes
    assert any(note.startswith("WRONG: 1 images have no partner, e.g. images/train/alone.jpg") for note in notes)


@pytest.mark.skipif(os.name == "nt", reason="needs symbolic links")
def test_linked_folders_and_lists(tmp_path: Path) -> None:
    root, store = tmp_path / "root", tmp_path / "store"
    root.mkdir()
    for number in range(4):
        image(store, f"images/{number}.jpg")
        mask(store, f"masks/{number}.png")
    (store / "lists").mkdir()
    (store / "lists" / "train.txt").write_text("0\n1\n2\n")
    (store / "lists" / "val.txt").write_text("3\n")
    for name in ("images", "masks", "lists"):
        (root / name).symlink_to(store / name)
    found = guess_layout(root)
    assert found.data == {"images": "images", "masks": "masks", "split_list": "lists/{split}.txt"}
    assert len(found.pairs) == 4


def test_files_without_partners_are_said(tmp_path: Path) -> None:
    for number in range(5):
        image(tmp_path, f"images/{number}.jpg")
        mask(tmp_path, f"masks/{number}.png")
    image(tmp_path, "images/alone.jpg")
    notes = guess_layout(tmp_path).notes
    assert any(note.startswith("WRONG: 1 images have no partner, e.g. images/alone.jpg") for note in notes)


def test_pictures_that_are_neither_do_not_matter(tmp_path: Path) -> None:
    for number in range(5):
        image(tmp_path, f"rgb/{number}.jpg")
        image(tmp_path, f"depth/{number}.png")
        mask(tmp_path, f"label40/{number}.png")
    image(tmp_path, "logo.png")
    assert guess_layout(tmp_path).data["masks"] == "label40"


def test_what_cannot_be_understood_says_what_is_there(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist"):
        guess_layout(tmp_path / "none")
    with pytest.raises(DataError, match="holds no pictures"):
        guess_layout(tmp_path)
    image(tmp_path, "a/x.png")
    image(tmp_path, "b/y.png")
    with pytest.raises(DataError, match=r"no images and masks that belong together in .*2 pictures in a, b"):
        guess_layout(tmp_path)


def test_real_folders() -> None:
    camvid = guess_layout(shared("camvid"))
    assert [len(pairs_of(shared("camvid"), split, camvid.data)) for split in camvid.splits] == [367, 101, 233]
    nyuv2 = guess_layout(shared("nyuv2"))
    assert (nyuv2.data["images"], nyuv2.data["masks"], len(nyuv2.pairs)) == ("rgb", "label40", 1449)
