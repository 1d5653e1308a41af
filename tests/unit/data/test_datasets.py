"""The contract of every data set, and what is special to each."""

import os
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from hs3seg.data import (
    CamVid,
    DigitScenes,
    FolderDataset,
    NYUv2,
    SegmentationDataset,
    Subset,
    analysis_split,
    channels_of,
    class_frequencies,
    infer_taxonomy,
)
from hs3seg.data.doctor import examine
from hs3seg.data.images import raw_mask
from hs3seg.errors import DataError, Hs3Warning
from hs3seg.taxonomy import Taxonomy
from tests.conftest import shared
from tests.unit.data.test_nyuv2 import write_nyuv2

TAXONOMY = Taxonomy.from_names(["a", "b", "c"])


def write_pairs(images: Path, masks: Path, stems: list[str], size: tuple[int, int] = (8, 10), seed: int = 0) -> None:
    rng = np.random.default_rng(seed)
    for folder in (images, masks):
        folder.mkdir(parents=True, exist_ok=True)
    for stem in stems:
        Image.fromarray(rng.integers(0, 255, (*size, 3)).astype(np.uint8)).save(images / f"{stem}.png")
        Image.fromarray(rng.choice([0, 1, 2, 255], size).astype(np.uint8)).save(masks / f"{stem}.png")


def camvid(root: Path) -> CamVid:
    write_pairs(root / "train", root / "trainannot", ["x", "y"])
    for path in (root / "trainannot").iterdir():
        Image.fromarray(np.array([[0, 11], [10, 3]], np.uint8).repeat(4, 0).repeat(5, 1)).save(path)
    return CamVid(root, "train")


def folder(root: Path) -> FolderDataset:
    write_pairs(root / "images" / "train", root / "masks" / "train", ["ü name", "b"])
    return FolderDataset(root, "train", TAXONOMY)


def listed(root: Path) -> FolderDataset:
    write_pairs(root / "i", root / "m", ["a", "b", "c"])
    (root / "train.txt").write_text("i/c.png m/c.png\n\ni/a.png m/a.png\n")
    return FolderDataset(root, "train", TAXONOMY)


def subset(root: Path) -> Subset:
    return Subset(folder(root), [1], "part")


MAKERS = {
    "camvid": camvid,
    "folder": folder,
    "listed": listed,
    "subset": subset,
    "nyuv2": lambda root: NYUv2(write_nyuv2(root), "train"),
    "nyuv2 with depth": lambda root: NYUv2(write_nyuv2(root), "train", depth="raw"),
    "digits": lambda _root: DigitScenes("train", 5),
}


@pytest.fixture(params=MAKERS)
def dataset(request: pytest.FixtureRequest, tmp_path: Path) -> SegmentationDataset:
    return MAKERS[request.param](tmp_path)


def test_contract(dataset: SegmentationDataset) -> None:
    assert isinstance(dataset, SegmentationDataset)
    assert len(dataset) == len(dataset.names) == len(set(dataset.names)) > 0
    for index, name in enumerate(dataset.names):
        sample = dataset.read(index)
        assert sample.name == name
        assert sample.image.dtype == torch.uint8
        assert sample.image.shape == (channels_of(dataset), *sample.mask.shape)
        assert sample.mask.dtype == torch.int64
        labels = set(sample.mask.unique().tolist())
        assert labels <= {*range(dataset.taxonomy.num_classes), dataset.taxonomy.ignore_index}
        assert dataset.files(index)
        again = dataset.read(index)
        assert torch.equal(again.image, sample.image)
        assert torch.equal(again.mask, sample.mask)


def test_camvid_maps_void_and_keeps_the_rest(tmp_path: Path) -> None:
    assert camvid(tmp_path).read(0).mask[::4, ::5].tolist() == [[0, 255], [10, 3]]


def test_real_camvid_has_its_official_sizes() -> None:
    root = shared("camvid")
    counts = {split: len(CamVid(root, split)) for split in ("train", "val", "test")}
    assert counts == {"train": 367, "val": 101, "test": 233}
    sample = CamVid(root, "val").read(0)
    assert sample.image.shape == (3, 360, 480)


def test_folder_layouts_and_seeded_cut(tmp_path: Path) -> None:
    write_pairs(tmp_path / "a" / "val" / "images", tmp_path / "a" / "val" / "masks", ["x"])
    assert FolderDataset(tmp_path / "a", "val", TAXONOMY).names == ["x"]
    stems = [f"n{i}" for i in range(10)]
    write_pairs(tmp_path / "b" / "images", tmp_path / "b" / "masks", stems)
    train, val = (FolderDataset(tmp_path / "b", split, TAXONOMY) for split in ("train", "val"))
    assert len(val) == 2
    assert sorted([*train.names, *val.names]) == sorted(stems)
    assert FolderDataset(tmp_path / "b", "val", TAXONOMY).names == val.names


def broken(tmp_path: Path, fault: str) -> FolderDataset:
    images, masks = tmp_path / "images" / "train", tmp_path / "masks" / "train"
    write_pairs(images, masks, ["x", "y"])
    if fault == "no mask":
        (masks / "y.png").unlink()
    elif fault == "no image":
        (images / "y.png").unlink()
    elif fault == "size":
        Image.fromarray(np.zeros((3, 4), np.uint8)).save(masks / "y.png")
    elif fault == "no folder":
        return FolderDataset(tmp_path, "val", TAXONOMY)
    elif fault == "half a split":
        (tmp_path / "images" / "val").mkdir()
        return FolderDataset(tmp_path, "val", TAXONOMY)
    elif fault == "outside":
        (tmp_path / "train.txt").write_text("../secret.png masks/train/x.png\n")
    elif fault == "missing entry":
        (tmp_path / "train.txt").write_text("images/train/z.png masks/train/x.png\n")
    elif fault == "bad line":
        (tmp_path / "train.txt").write_text("images/train/x.png\n")
    elif fault == "empty list":
        (tmp_path / "train.txt").write_text("\n")
    elif fault == "empty folder":
        for path in images.iterdir():
            path.unlink()
    return FolderDataset(tmp_path, "train", TAXONOMY)


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("no mask", r"image '.*y.png' has no mask"),
        ("no image", r"mask '.*y.png' has no image"),
        ("size", r"y.png: is 4x3 pixels, its image '.*y.png' is 10x8"),
        ("no folder", r"split 'val' was not found.*expected val.txt.*holds: images, masks"),
        ("half a split", r"images/val' exists, but '.*masks/val' does not"),
        ("outside", r"train.txt:1: '.*secret.png' lies outside"),
        ("missing entry", r"train.txt:1: file '.*z.png' does not exist"),
        ("bad line", r"train.txt:1: .*has 1 parts"),
        ("empty list", "the list is empty"),
        ("empty folder", "no image in"),
    ],
)
def test_broken_folders(tmp_path: Path, fault: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        broken(tmp_path, fault).read(1)


def test_two_files_of_one_stem_are_refused(tmp_path: Path) -> None:
    write_pairs(tmp_path / "images" / "train", tmp_path / "masks" / "train", ["x", "y"])
    Image.fromarray(np.zeros((8, 10, 3), np.uint8)).save(tmp_path / "images" / "train" / "x.jpg")
    with pytest.raises(DataError, match=r"x.jpg' and 'x.png' have one stem"):
        FolderDataset(tmp_path, "train", TAXONOMY)


def test_a_missing_root_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nowhere' does not exist"):
        FolderDataset(tmp_path / "nowhere", "train", TAXONOMY)


def test_lists_of_windows_editors_and_of_one_image_twice(tmp_path: Path) -> None:
    write_pairs(tmp_path / "i", tmp_path / "m", ["a", "b"])
    lists = tmp_path / "train.txt"
    lists.write_bytes("i/a.png m/a.png\r\ni/b.png m/b.png\r\n".encode("utf-8-sig"))
    assert FolderDataset(tmp_path, "train", TAXONOMY).names == ["a", "b"]
    lists.write_bytes("i/a.png m/a.png\n".encode("utf-16"))
    with pytest.raises(DataError, match=r"train.txt: not UTF-8"):
        FolderDataset(tmp_path, "train", TAXONOMY)
    lists.write_text("i/a.png m/a.png\ni/../i/a.png m/b.png\n")
    with pytest.raises(DataError, match=r"train.txt:2: .*already stands in line 1"):
        FolderDataset(tmp_path, "train", TAXONOMY)


def test_names_grow_until_they_differ(tmp_path: Path) -> None:
    for place in ("p", "q"):
        write_pairs(tmp_path / place, tmp_path / "m" / place, ["a"])
    Image.open(tmp_path / "p" / "a.png").save(tmp_path / "p" / "a.bmp")
    lists = tmp_path / "train.txt"
    lists.write_text("p/a.png m/p/a.png\nq/a.png m/q/a.png\n")
    assert FolderDataset(tmp_path, "train", TAXONOMY).names == ["p/a", "q/a"]
    lists.write_text("p/a.png m/p/a.png\np/a.bmp m/q/a.png\n")
    assert FolderDataset(tmp_path, "train", TAXONOMY).names == ["p/a.png", "p/a.bmp"]


@pytest.mark.parametrize(("ids", "message"), [((0, 255), "one class.*255 as 1"), ((0, 1000), "1001 classes")])
def test_ids_that_are_no_classes_are_not_taken_for_some(tmp_path: Path, ids: tuple[int, ...], message: str) -> None:
    (tmp_path / "masks").mkdir()
    Image.fromarray(np.array([ids], np.uint16)).save(tmp_path / "masks" / "x.png")
    with pytest.raises(DataError, match=message):
        infer_taxonomy(tmp_path)


def test_missing_camvid_folder_names_what_is_there(tmp_path: Path) -> None:
    camvid(tmp_path)
    with pytest.raises(DataError, match=r"'.*val'.*does not exist; found in .*: train, trainannot"):
        CamVid(tmp_path, "val")


def test_inferred_taxonomies(tmp_path: Path) -> None:
    write_pairs(tmp_path / "images", tmp_path / "masks", ["x"])
    assert infer_taxonomy(tmp_path).num_classes == 3
    colours = np.zeros((4, 4, 3), np.uint8)
    colours[:2] = (10, 20, 30)
    colours[2] = (200, 0, 0)
    Image.fromarray(colours).save(tmp_path / "masks" / "x.png")
    assert infer_taxonomy(tmp_path).colours == ((10, 20, 30), (0, 0, 0), (200, 0, 0))
    write_pairs(tmp_path / "images", tmp_path / "masks", ["z"])
    with pytest.raises(DataError, match="mixed"):
        infer_taxonomy(tmp_path)
    noise = np.random.default_rng(0).integers(0, 255, (40, 40, 3)).astype(np.uint8)
    (tmp_path / "masks" / "z.png").unlink()
    Image.fromarray(noise).save(tmp_path / "masks" / "x.png")
    with pytest.raises(DataError, match="no clean masks"):
        infer_taxonomy(tmp_path)
    with pytest.raises(DataError, match="no mask files"):
        infer_taxonomy(tmp_path, "labels")


def test_masks_are_read_once_for_their_classes_and_again_where_they_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_pairs(tmp_path / "images", tmp_path / "masks", ["x", "y"])
    read: list[str] = []
    monkeypatch.setattr("hs3seg.data.folder.raw_mask", lambda file: (read.append(file.stem), raw_mask(file))[1])
    masks, old = tmp_path / "masks", time.time() - 3600
    for age, expected in ((0, 2), (0, 4), (60, 6), (60, 6), (30, 8), (30, 8)):  # what was written just now is not kept
        for file in masks.iterdir():
            os.utime(file, (old, old + age if age else time.time()))
        assert infer_taxonomy(tmp_path).num_classes == 3
        assert len(read) == expected
    (masks / "y.png").unlink()
    infer_taxonomy(tmp_path)
    assert read[8:] == ["x"]
    monkeypatch.setattr("hs3seg.data.folder._LONG", -1.0)
    with pytest.warns(Hs3Warning, match="reading all 1 masks .* took 0 s, .* `hs3 data init` writes them"):
        infer_taxonomy(tmp_path / ".." / tmp_path.name)


def test_black_is_a_class_unless_it_is_rare_beside_others(tmp_path: Path) -> None:
    (tmp_path / "masks").mkdir()

    def inferred(*shares: tuple[int, int]) -> tuple[tuple[int, int, int], ...]:
        """Of masks with so many grey levels on so many of 100 pixels."""
        levels = np.concatenate([np.full(count, level, np.uint8) for level, count in shares]).reshape(10, 10)
        Image.fromarray(np.stack([levels, levels, 0 * levels], axis=-1)).save(tmp_path / "masks" / "x.png")
        return infer_taxonomy(tmp_path).colours

    assert inferred((0, 60), (255, 40)) == ((0, 0, 0), (255, 255, 0))
    assert inferred((0, 5), (255, 95)) == ((255, 255, 0), (0, 0, 0))
    assert inferred((0, 10), (50, 40), (100, 30), (150, 20))[-1] == (0, 0, 0)
    assert inferred((0, 9), (50, 41), (100, 30), (150, 20)) == ((50, 50, 0), (100, 100, 0), (150, 150, 0))
    for level, text in ((0, "(0, 0, 0)"), (255, "(255, 255, 0)")):
        with pytest.raises(DataError) as caught:
            inferred((level, 100))
        assert f"masks in '{tmp_path}' have no colour but {text}; that makes one class" in str(caught.value)
        assert "taxonomy.toml (`hs3 data init`" in str(caught.value)


def test_analysis_split_is_a_seeded_partition() -> None:
    reduced, analysis = analysis_split(2975, 300 / 2975, seed=1)
    assert (len(reduced), len(analysis)) == (2675, 300)
    assert sorted(reduced + analysis) == list(range(2975))
    assert analysis_split(2975, 300 / 2975, seed=1) == (reduced, analysis)
    assert analysis_split(2975, 300 / 2975, seed=2)[1] != analysis
    assert [len(part) for part in analysis_split(2, 0.01, 0)] == [1, 1]
    with pytest.raises(DataError, match="at least 2"):
        analysis_split(1, 0.1, 0)


def test_digit_scenes_are_deterministic_disjoint_and_use_every_digit() -> None:
    train = DigitScenes("train", 60)
    seen: Counter[int] = Counter()
    for index in range(60):
        seen.update(train.read(index).mask.flatten().tolist())
    assert set(seen) == set(range(11))
    assert 0.5 < seen[0] / sum(seen.values()) < 0.9
    other = DigitScenes("train", 60, seed=1)
    assert not torch.equal(train.read(0).image, other.read(0).image)
    assert not torch.equal(train.read(0).image, DigitScenes("val", 60).read(0).image)
    depth = train.depth(0)
    assert (depth[train.read(0).mask.numpy() == 0] == 1).all()
    assert (depth[train.read(0).mask.numpy() > 0] < 1).all()
    with pytest.raises(DataError, match="allowed: train, val, test"):
        DigitScenes("trian", 3)
    with pytest.raises(DataError, match="32x32"):
        DigitScenes("train", 3, size=(16, 64))


def test_statistics_count_every_pixel_once(tmp_path: Path) -> None:
    data = folder(tmp_path)
    Image.fromarray(np.full((8, 10), 255, np.uint8)).save(tmp_path / "masks" / "train" / "b.png")
    calls = []
    found = class_frequencies(data, progress=lambda: calls.append(1))
    assert len(calls) == found.num_images == 2
    assert sum(found.frequencies) + found.num_ignored == 2 * 80
    assert found.all_ignored == ("b",)


def test_clean_data_has_no_error() -> None:
    assert not examine({"train": DigitScenes("train", 8)}).has_errors


@pytest.mark.parametrize(
    ("last", "classes", "options", "is_refused"),
    [
        ((0, 255), 2, {}, True),
        ((0, 255), 19, {}, True),
        ((0, 0), 2, {}, True),
        ((0, 1), 2, {}, False),
        ((0, 255), 2, {"ids": (0, 255)}, False),
        ((0, 255), 2, {"ignore_ids": (255,)}, False),
        ((0, 255), 2, {"ignore_ids": (-1,)}, False),
    ],
)
def test_masks_of_0_and_255_are_refused_unless_it_is_said_what_255_is(
    tmp_path: Path, last: tuple[int, int], classes: int, options: dict[str, Any], is_refused: bool
) -> None:
    for name, values in (("a", (0, 0)), ("b", (0, 255)), ("c", last)):
        for kind in ("images", "masks"):
            (tmp_path / kind / "train").mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (6, 4)).save(tmp_path / "images" / "train" / f"{name}.png")
        mask = np.repeat(np.array([values], np.uint8), 3, 1).repeat(4, 0)
        Image.fromarray(mask).save(tmp_path / "masks" / "train" / f"{name}.png")
    taxonomy = Taxonomy.from_names([f"class {number}" for number in range(classes)])
    if is_refused:
        with pytest.raises(
            DataError, match=rf"which leaves one of the {classes} classes; .*data\.ignore_ids = \[255\]"
        ):
            FolderDataset(tmp_path, "train", taxonomy, **options)
    else:
        labels = FolderDataset(tmp_path, "train", taxonomy, **options).read(1).mask
        assert set(labels.unique().tolist()) == ({0, 1} if options.get("ids") else {0, 255})
