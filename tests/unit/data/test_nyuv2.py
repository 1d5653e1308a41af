"""NYU-Depth-v2: the format, what is refused, and the real data."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from hs3seg.data import CachedDataset, NYUv2, SegmentationDataset, Subset, channels_of
from hs3seg.data.doctor import examine
from hs3seg.data.hha import NYU_CAMERA, Camera, hha
from hs3seg.errors import DataError
from hs3seg.taxonomies.nyuv2 import FROM_40, OFFICIAL_SPLITS, check_classes
from tests.conftest import shared
from tests.fabricate.nyuv2 import encode_depth, make_nyuv2, make_room


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
    assert not examine({"train": cached}).has_errors


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
        (root / "train.txt").write_text("rgb/0001.jpg depth/0001.png label40/0001.png 1\n")
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
        ("short line", r"train.txt:1: .* has 4 parts; write `rgb depth label`"),
        ("outside", r"train.txt:1: .* lies outside"),
        ("label size", r"label40/0002.png: is 5x4 pixels, its image '.*rgb/0002.jpg' is 10x8; they must be equal"),
        ("depth size", r"depth/0002.png: is 5x4 pixels, its image '.*rgb/0002.jpg' is 10x8; they must be equal"),
        ("16-bit depth", r"depth/0002.png: has 16-bit values, other depth files 8-bit ones; write all alike"),
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


VARIANTS = [
    *((layout, "40", "8-bit") for layout in ("lists", "sagate", "esanet", "folders", "inside")),
    *(("lists", labels, "8-bit") for labels in ("40-from-0", "13", "13-from-0", "4", "4-from-0", "894")),
    *(("sagate", "40", depth) for depth in ("mm", "npy", "tiff", "grey", "tenth-mm", "16-bit-10m")),
    *(("esanet", labels, "mm") for labels in ("40", "894", "40-from-0", "13")),
    *(("folders", labels, depth) for labels, depth in (("894", "mm"), ("40-from-0", "npy"), ("4", "tiff"))),
    *(("inside", "13-from-0", depth) for depth in ("mm", "npy")),
]


@pytest.mark.parametrize(("layout", "labels", "depth"), VARIANTS)
def test_every_public_form_gives_the_same_frames(tmp_path: Path, layout: str, labels: str, depth: str) -> None:
    make_nyuv2(tmp_path, layout=layout, labels=labels, depth=depth, label_folder="labels")
    size = labels.removesuffix("-from-0")
    classes = int(size) if size in ("13", "4") else 40
    unit = {"tenth-mm": "tenth_millimetres", "16-bit-10m": "ten_metres"}.get(depth, "auto")
    for split, first, count in (("train", 0, 3), ("test", 3, 2)):
        data = NYUv2(tmp_path, split, depth="filled", classes=classes, depth_unit=unit)
        assert len(data) == count
        begin = 0 if labels.endswith("-from-0") else 1
        assert ("894 object ids" if size == "894" else f"{size} classes from {begin}") in data.notes[1]
        for index in range(count):
            room = make_room(first + index)
            sample = data.read(index)
            expected = np.array([255, *FROM_40[check_classes(classes)]])[room.labels]
            assert np.array_equal(sample.mask.numpy(), expected)
            codes = encode_depth(room.metres, "8-bit").astype(int)
            assert np.abs(sample.image[3].numpy().astype(int) - codes).max() <= 1


def test_there_are_at_least_25_forms() -> None:
    assert len(set(VARIANTS)) == len(VARIANTS) >= 25


@pytest.mark.parametrize("labels", ["40", "894"])
@pytest.mark.parametrize("classes", [13, 4])
def test_fewer_classes_than_the_files_have(tmp_path: Path, labels: str, classes: int) -> None:
    make_nyuv2(tmp_path, labels=labels)
    data = NYUv2(tmp_path, "train", classes=classes)
    assert data.taxonomy.num_classes == classes
    expected = np.array([255, *FROM_40[check_classes(classes)]])[make_room(1).labels]
    assert np.array_equal(data.read(1).mask.numpy(), expected)


def test_files_of_fewer_classes_than_are_wanted(tmp_path: Path) -> None:
    make_nyuv2(tmp_path, labels="13", label_folder="labels")
    with pytest.raises(DataError, match=r"labels of 13 classes cannot be turned into 40; .* or classes = 13"):
        NYUv2(tmp_path, "train")
    with pytest.raises(DataError, match=r"classes = 37; allowed: 40, 13, 4"):
        NYUv2(tmp_path, "train", classes=37)
    with pytest.raises(DataError, match=r"labels = '41'; allowed: auto, 40, 40-from-0"):
        NYUv2(tmp_path, "train", labels="41")
    with pytest.raises(DataError, match=r"depth = 'hah'; allowed: none, raw, filled, hha"):
        NYUv2(tmp_path, "train", depth="hah")


def test_what_is_told_is_not_looked_for(tmp_path: Path) -> None:
    make_nyuv2(tmp_path, labels="13-from-0", depth="tenth-mm")
    with pytest.raises(DataError, match="set depth_unit to one of: millimetres, tenth_millimetres"):
        NYUv2(tmp_path, "train", depth="raw", classes=13)
    told = NYUv2(tmp_path, "train", depth="raw", classes=13, labels="13-from-0", depth_unit="tenth_millimetres")
    assert not any("classes from" in note for note in told.notes)
    assert np.array_equal(told.read(0).image[3].numpy(), encode_depth(make_room(0).metres, "8-bit"))


def test_hha_is_computed_from_depth_and_kept(tmp_path: Path) -> None:
    make_nyuv2(tmp_path / "data", depth="npy")
    cache = tmp_path / "cache"
    plain, kept = (NYUv2(tmp_path / "data", "train", depth="hha", hha_cache=c) for c in (None, cache))
    assert (plain.channels, channels_of(kept)) == (6, 6)
    assert "HHA is computed from it." in plain.notes
    sample = plain.read(1)
    assert np.array_equal(sample.image[3:].numpy(), hha(make_room(1).metres).transpose(2, 0, 1))
    for _ in range(2):  # made, then read
        assert torch.equal(kept.read(1).image, sample.image)
        (file,) = cache.iterdir()
    picture = np.array(Image.open(file))
    assert np.array_equal(picture, sample.image[3:].numpy().transpose(1, 2, 0))
    Image.fromarray(picture[::-1].copy()).save(file)
    assert torch.equal(kept.read(1).image[3:].flip(1), sample.image[3:])  # it is the file that is read
    file.write_bytes(b"half a file")
    assert torch.equal(kept.read(1).image, sample.image)
    assert np.array_equal(np.array(Image.open(file)), picture)


def test_cached_hha_is_not_taken_for_other_depth_or_another_camera(tmp_path: Path) -> None:
    make_nyuv2(tmp_path / "data", depth="npy")
    cache = tmp_path / "cache"
    first = NYUv2(tmp_path / "data", "train", depth="hha", hha_cache=cache).read(0).image
    camera = Camera(30.0, 30.0, 32.0, 24.0, 48, 64)
    other = NYUv2(tmp_path / "data", "train", depth="hha", hha_cache=cache, camera=camera).read(0).image
    assert not torch.equal(first, other)
    path = tmp_path / "data" / "depth" / "0001.npy"
    np.save(path, np.load(path) * 1.1)
    assert not torch.equal(NYUv2(tmp_path / "data", "train", depth="hha", hha_cache=cache).read(0).image, first)
    assert len(list(cache.iterdir())) == 3


def test_frames_of_another_shape_than_the_cameras(tmp_path: Path) -> None:
    make_nyuv2(tmp_path, size=(48, 48), depth="npy")
    assert NYUv2(tmp_path, "train", depth="hha").notes[-1].startswith("Frames of 48x48 have another shape")
    told = NYUv2(tmp_path, "train", depth="hha", camera=Camera(39.0, 39.0, 16.4, 25.4, 48, 48))
    assert told.notes[-1] == "HHA is computed from it."
    with pytest.raises(DataError, match="48x48 depth image with a camera for 640x480"):
        NYUv2(tmp_path, "train", depth="hha", camera=NYU_CAMERA).read(0)


def test_hha_pictures_of_the_data_set(tmp_path: Path) -> None:
    make_nyuv2(tmp_path, layout="sagate")
    with pytest.raises(DataError, match=r"has no folder of HHA pictures; set hha_source = 'depth'"):
        NYUv2(tmp_path, "train", depth="hha", hha_source="files")
    (tmp_path / "HHA").mkdir()
    pictures = np.random.default_rng(0).integers(0, 256, (5, 48, 64, 3), np.uint8)
    for number, pixels in enumerate(pictures):
        Image.fromarray(pixels).save(tmp_path / "HHA" / f"{number}.png")
    data = NYUv2(tmp_path, "test", depth="hha")
    assert any("HHA is read from" in note for note in data.notes)
    assert np.array_equal(data.read(1).image[3:].numpy(), pictures[4].transpose(2, 0, 1))
    assert [Path(file).parent.name for file in data.files(1)] == ["RGB", "HHA", "Label"]
    computed = NYUv2(tmp_path, "test", depth="hha", hha_source="depth")
    assert not np.array_equal(computed.read(1).image[3:].numpy(), pictures[4].transpose(2, 0, 1))
    (tmp_path / "HHA" / "4.png").unlink()
    with pytest.raises(DataError, match=r"frame '4' has no file '.*HHA/4\.\*'; add it"):
        NYUv2(tmp_path, "test", depth="hha")


def test_relative_depth_gives_no_hha(tmp_path: Path) -> None:
    make_nyuv2(tmp_path, depth="relative")
    assert any("not in metres" in note for note in NYUv2(tmp_path, "train", depth="raw").notes)
    with pytest.raises(DataError, match="HHA needs metres"):
        NYUv2(tmp_path, "train", depth="hha").read(0)


def test_raw_and_filled_depth_are_told_apart(tmp_path: Path) -> None:
    make_nyuv2(tmp_path, layout="esanet", depth="mm", holes=True)
    with pytest.raises(DataError, match=r"no folder of filled depth .* depth = 'raw' reads the folder depth_raw"):
        NYUv2(tmp_path, "train", depth="filled")
    assert any("10 % of the pixels have no depth" in n for n in NYUv2(tmp_path, "train", depth="hha").notes)
    make_nyuv2(tmp_path, layout="esanet", depth="mm")
    for depth, metres in (("raw", make_room(1).raw), ("filled", make_room(1).metres)):
        codes = NYUv2(tmp_path, "train", depth=depth).read(1).image[3].numpy().astype(int)
        assert np.abs(codes - encode_depth(metres, "8-bit")).max() <= 1


def test_depth_with_holes_is_not_in_filled(tmp_path: Path) -> None:
    make_nyuv2(tmp_path, holes=True)
    with pytest.raises(
        DataError, match=r"depth files in '.*depth' have no depth at 10 % of their pixels, .*depth = 'raw'"
    ):
        NYUv2(tmp_path, "train", depth="filled")
    assert (NYUv2(tmp_path, "train", depth="raw").read(0).image[3] == 0).any()


def test_the_real_lists() -> None:
    root = shared("nyuv2")
    splits = {split: NYUv2(root, split, depth="filled") for split in ("train", "test")}
    for split, data in splits.items():
        assert [int(name) for name in data.names] == list(OFFICIAL_SPLITS[split])
        assert "Labels are 40 classes from 1, 0 is void" in data.notes[1]
        assert data.notes[2].startswith("Depth files have 8-bit values")
    assert splits["train"].taxonomy.names == NYUv2.class_names


def test_real_frames_of_each_split() -> None:
    """Frames here and there; the whole set takes 15 s."""
    root = shared("nyuv2")
    for split, last in (("train", 794), ("test", 653)):
        data, thirteen = NYUv2(root, split, depth="hha"), NYUv2(root, split, classes=13)
        for index in (0, 400, last):
            sample = data.read(index)
            assert sample.image.shape == (6, 240, 320)
            assert sample.mask.shape == (240, 320)
            labels = set(sample.mask.unique().tolist())
            assert 255 in labels  # the white frame
            assert labels <= {*range(40), 255}
            table = torch.tensor([*FROM_40[13], *[0] * 215, 255])
            assert torch.equal(thirteen.read(index).mask.as_subclass(torch.Tensor), table[sample.mask])
            disparity, height, angle = sample.image[3:].float()
            assert float(disparity.min()) >= 31  # 10 m
            assert float(height.min()) < 70
            floor = sample.mask == 1
            if floor.float().mean() > 0.05:
                assert abs(float(angle[floor].median()) - 38) < 15
