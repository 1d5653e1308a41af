import os
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from hs3seg.data import FolderDataset, PascalVOC, infer_taxonomy
from hs3seg.data.doctor import open_folder
from hs3seg.data.patterns import Pattern, files_below, pair_by_pattern, picture_paths
from hs3seg.data.splits import fraction_split
from hs3seg.errors import DataError
from hs3seg.taxonomy import Taxonomy

TAXONOMY = Taxonomy.from_names(("a", "b", "c"))


def put(root: Path, *paths: str) -> None:
    """Images have three channels; masks, whose names say so, have ids."""
    for path in paths:
        file = root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        is_mask = "mask" in path or "label" in path
        Image.fromarray(np.zeros((4, 6) if is_mask else (4, 6, 3), np.uint8)).save(file)


def opened(root: Path, split: str = "train", **options: object) -> FolderDataset:
    return FolderDataset(root, split, TAXONOMY, **options)  # type: ignore[arg-type]


def names_of(root: Path, split: str, **options: object) -> list[str]:
    return list(opened(root, split, **options).names)


@pytest.mark.parametrize(
    ("pattern", "path", "key"),
    [
        ("**/*_img.png", "a/b/x_img.png", ("a/b/", "x")),
        ("**/*_img.png", "x_img.png", ("", "x")),
        ("*.png", "a/x.png", None),
        ("images/*.*", "images/a.b.jpg", ("a.b",)),
        ("images/*.{jpg,png}", "images/a.png", ("a",)),
        ("images/*.{jpg,png}", "images/a.tif", None),
        ("im_?.png", "im_1.png", ("1",)),
        ("im_[ab].png", "im_b.png", ("b",)),
        ("im_[!ab].png", "im_b.png", None),
        ("im_[^^].png", "im_a.png", ("a",)),
        ("a(1)+.png", "a(1)+.png", ()),
    ],
)
def test_what_wildcards_stand_for_is_the_key(pattern: str, path: str, key: tuple[str, ...] | None) -> None:
    assert Pattern(pattern).match(path) == key


@given(st.lists(st.text("ab .é_[", min_size=1, max_size=4), min_size=1, max_size=3))
def test_a_key_gives_its_path_back(parts: list[str]) -> None:
    path = "/".join(parts) + "_img.png"
    key = Pattern("**/*_img.png").match(path)
    assert key is not None
    assert Pattern("**/*_img.png").path_of(key) == unicodedata.normalize("NFC", path)


@pytest.mark.parametrize("text", ["", "/data/*.png", "../*.png", "a/../../*.png", "C:/x/*.png", "a\\*.png"])
def test_patterns_stay_below_the_folder(text: str) -> None:
    with pytest.raises(DataError, match=r"data.image_pattern is '.*below the data folder"):
        Pattern(text, "data.image_pattern")


def test_pairs_of_one_folder_by_suffix(tmp_path: Path) -> None:
    put(tmp_path, "p/x_img.png", "p/x_mask.png", "q/x_img.png", "q/x_mask.png", "readme.png")
    pairs = pair_by_pattern(tmp_path, Pattern("**/*_img.png"), Pattern("**/*_mask.png"))
    assert [tuple(p.relative_to(tmp_path).as_posix() for p in pair) for pair in pairs] == [
        ("p/x_img.png", "p/x_mask.png"),
        ("q/x_img.png", "q/x_mask.png"),
    ]


def test_a_file_that_fits_both_patterns_belongs_to_the_more_exact_one(tmp_path: Path) -> None:
    put(tmp_path, "x.png", "x_mask.png", "y.png", "y_mask.png")
    pairs = pair_by_pattern(tmp_path, Pattern("*.png"), Pattern("*_mask.png"))
    assert [(a.name, b.name) for a, b in pairs] == [("x.png", "x_mask.png"), ("y.png", "y_mask.png")]


def test_images_in_folders_and_masks_in_one(tmp_path: Path) -> None:
    put(tmp_path, "images/a/x.png", "images/b/y.png", "labels/x.png", "labels/y.png")
    pairs = pair_by_pattern(tmp_path, Pattern("images/**/*.*"), Pattern("labels/*.*"))
    assert [(a.name, b.name) for a, b in pairs] == [("x.png", "x.png"), ("y.png", "y.png")]
    put(tmp_path, "images/b/x.png")
    with pytest.raises(DataError, match=r"have one name by pattern = 'images/\*\*/\*\.\*'"):
        pair_by_pattern(tmp_path, Pattern("images/**/*.*"), Pattern("labels/*.*"))


def test_splits_by_folder_in_a_pattern(tmp_path: Path) -> None:
    put(tmp_path, "data/train/rgb/x 1.png", "data/train/label/x 1.png", "data/val/rgb/é.png", "data/val/label/é.png")
    options = {"image_pattern": "data/{split}/rgb/*.*", "mask_pattern": "data/{split}/label/*.*"}
    assert names_of(tmp_path, "train", **options) == ["x 1"]
    assert names_of(tmp_path, "val", **options) == ["é"]
    assert opened(tmp_path, "val", **options).read(0).image.shape == (3, 4, 6)
    with pytest.raises(DataError, match=r"no image below .* fits data.image_pattern = 'data/test/rgb.*empty"):
        opened(tmp_path, "test", **options)
    with pytest.raises(DataError, match=r"into both or none"):
        opened(tmp_path, "train", image_pattern="{split}/*.*", mask_pattern="label/*.*")
    with pytest.raises(DataError, match=r"data.mask_pattern is ''"):
        opened(tmp_path, "train", image_pattern="{split}/*.*")


@pytest.mark.parametrize(
    ("gone", "message"),
    [
        ("y_mask.png", r"image '.*y_img.png' has no mask by data.mask_pattern.*i.e. 'y_mask.png' \(1 such images\)"),
        ("y_img.png", r"mask '.*y_mask.png' has no image by data.image_pattern.*i.e. 'y_img.png' \(1 such masks\)"),
    ],
)
def test_a_file_without_its_partner_is_named_and_what_is_missing(tmp_path: Path, gone: str, message: str) -> None:
    put(tmp_path, "x_img.png", "x_mask.png", "y_img.png", "y_mask.png")
    (tmp_path / gone).unlink()
    with pytest.raises(DataError, match=message):
        opened(tmp_path, image_pattern="**/*_img.png", mask_pattern="**/*_mask.png")


def test_two_suffixes_of_one_key_are_refused(tmp_path: Path) -> None:
    put(tmp_path, "images/x.png", "images/x.jpg", "masks/x.png")
    with pytest.raises(DataError, match=r"both fit data.image_pattern.*with one key 'x'"):
        opened(tmp_path, image_pattern="images/*.*", mask_pattern="masks/*.*")


def test_accents_may_be_written_in_two_ways(tmp_path: Path) -> None:
    one, two = unicodedata.normalize("NFC", "zoë é"), unicodedata.normalize("NFD", "zoë é")
    assert one != two
    put(tmp_path, f"images/{one}.png", f"masks/{two}.png")
    assert len(pair_by_pattern(tmp_path, Pattern("images/*.*"), Pattern("masks/*.*"))) == 1
    put(tmp_path, f"images/train/{one}.png", f"masks/train/{two}.png")
    assert len(opened(tmp_path)) == 1


def test_lists_of_names(tmp_path: Path) -> None:
    put(tmp_path, "images/a/x 1.png", "images/b/y.png", "images/b/z.png", "masks/a/x 1.png", "masks/b/y.png")
    (tmp_path / "lists").mkdir()
    listed = tmp_path / "lists" / "train.txt"
    for text in ("x 1\ny\n", "images/a/x 1.png\r\nimages/b/y\r\n", "a/x 1\nb/y\n", "x 1.png\ny.png"):
        listed.write_bytes(text.encode("utf-8-sig"))
        assert names_of(tmp_path, "train", split_list="lists/{split}.txt") == ["x 1", "y"]
    listed.write_text("images/b/y.png masks/b/y.png\n")
    assert names_of(tmp_path, "train", split_list="lists/{split}.txt") == ["y"]
    with pytest.raises(DataError, match=r"val.txt' of split 'val' does not exist.*data.split_list"):
        opened(tmp_path, "val", split_list="lists/{split}.txt")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("../secret", r"train.txt:1: '../secret' lies outside"),
        ("x\n/etc/passwd", r"train.txt:2: '/etc/passwd' lies outside"),
        ("C:\\secret", r"train.txt:1: .* lies outside"),
        ("a/../../y", r"lies outside"),
        ("xx", r"train.txt:1: 'xx' is no image by data.images = .*nearest: '.*x"),
        ("x\nimages/x.png", r"train.txt:2: 'images/x.png' already stands in line 1"),
        ("x\nz", r"image '.*z.png' has no mask"),
        ("\n\n", r"train.txt: the list is empty"),
    ],
)
def test_wrong_lists_of_names(tmp_path: Path, text: str, message: str) -> None:
    put(tmp_path, "images/x.png", "images/y.png", "images/z.png", "masks/x.png", "masks/y.png")
    (tmp_path / "train.txt").write_text(text)
    with pytest.raises(DataError, match=message):
        opened(tmp_path, split_list="{split}.txt")


def test_a_name_of_two_images_is_refused(tmp_path: Path) -> None:
    put(tmp_path, "images/a/x.png", "images/b/x.png", "masks/a/x.png", "masks/b/x.png")
    (tmp_path / "l.txt").write_text("x\n")
    with pytest.raises(DataError, match=r"l.txt:1: 'x' is the name of several images, 'images/a/x.png'"):
        opened(tmp_path, split_list="l.txt")
    (tmp_path / "l.txt").write_text("b/x\n")
    assert opened(tmp_path, split_list="l.txt").files(0)[0].endswith("b/x.png")


def test_seeded_fractions_part_a_folder(tmp_path: Path) -> None:
    put(tmp_path, *(f"{kind}/{i:02}.png" for kind in ("images", "masks") for i in range(20)))
    shares = {"train": 0.7, "val": 0.2, "test": 0.1}
    parts = {split: names_of(tmp_path, split, split_fractions=shares) for split in shares}
    assert [len(part) for part in parts.values()] == [14, 4, 2]
    assert sorted(name for part in parts.values() for name in part) == [f"{i:02}" for i in range(20)]
    assert names_of(tmp_path, "val", split_fractions=shares) == parts["val"]
    assert names_of(tmp_path, "val", split_fractions=shares, seed=1) != parts["val"]
    by_pattern = {"image_pattern": "images/*.*", "mask_pattern": "masks/*.*", "split_fractions": shares}
    assert names_of(tmp_path, "val", **by_pattern) == parts["val"]
    with pytest.raises(DataError, match=r"split 'holdout' has no share.*train, val, test"):
        opened(tmp_path, "holdout", split_fractions=shares)
    with pytest.raises(DataError, match=r"split_fractions cuts.*data.split_list says"):
        opened(tmp_path, "val", split_fractions=shares, split_list="a.txt")


@given(st.integers(1, 60), st.lists(st.floats(0.01, 1), min_size=1, max_size=4), st.integers(0, 3))
def test_fractions_partition(count: int, weights: list[float], seed: int) -> None:
    shares = {str(i): weight / sum(weights) for i, weight in enumerate(weights)}
    seen: list[int] = []
    for split, share in shares.items():
        try:
            part = fraction_split(count, shares, split, seed)
        except DataError:
            assert share * count < 1
            continue
        assert abs(len(part) - share * count) < 1.001
        seen += part
    assert sorted(seen) == list(range(count))


@pytest.mark.parametrize(
    ("shares", "message"),
    [
        ({"train": 0.8, "val": 0.3}, "at most 1 together"),
        ({"train": 1.0, "val": 0.0}, "above 0"),
        ({"train": 0.99, "val": 0.01}, r"split 'val' is empty: a share of 0.01 of 10 images"),
    ],
)
def test_fractions_that_make_no_sense(shares: dict[str, float], message: str) -> None:
    with pytest.raises(DataError, match=message):
        fraction_split(10, shares, "val", 0)


def test_one_image_is_not_enough_for_two_splits(tmp_path: Path) -> None:
    put(tmp_path, "images/x.png", "masks/x.png")
    assert names_of(tmp_path, "val") == ["x"]
    with pytest.raises(DataError, match=r"split 'train' is empty.*1 image"):
        opened(tmp_path, "train")


def test_patterns_without_a_split_need_one_to_be_said(tmp_path: Path) -> None:
    put(tmp_path, *(f"{i}{end}.png" for i in range(10) for end in ("_img", "_mask")))
    options = {"image_pattern": "*_img.png", "mask_pattern": "*_mask.png"}
    assert (len(opened(tmp_path, "train", **options)), len(opened(tmp_path, "val", **options))) == (8, 2)
    with pytest.raises(DataError, match=r"in split 'test'; write '\{split\}'.*split_fractions"):
        opened(tmp_path, "test", **options)


def test_ids_of_the_files(tmp_path: Path) -> None:
    put(tmp_path, "images/train/x.png", "masks/train/x.png")
    Image.fromarray(np.full((4, 6), 255, np.uint8)).save(tmp_path / "masks/train/x.png")
    two = Taxonomy.from_names(("back", "front"))
    assert (FolderDataset(tmp_path, "train", two, ids=(0, 255)).read(0).mask == 1).all()
    with pytest.raises(DataError, match=r"data.ids has 2 ids, 2 of them different, for 3 classes"):
        opened(tmp_path, ids=(0, 255))


def test_classes_inferred_by_pattern(tmp_path: Path) -> None:
    put(tmp_path, "train/x.png", "train/x_mask.png", "val/y.png", "val/y_mask.png")
    Image.fromarray(np.full((4, 6), 4, np.uint8)).save(tmp_path / "val/y_mask.png")
    assert infer_taxonomy(tmp_path, mask_pattern="{split}/*_mask.png").num_classes == 5
    with pytest.raises(DataError, match=r"no file below .* fits data.mask_pattern"):
        infer_taxonomy(tmp_path, mask_pattern="*_seg.png")


def test_what_a_mac_leaves_in_zips_is_no_picture(tmp_path: Path) -> None:
    put(tmp_path, "images/train/x.png", "masks/train/x.png")
    for place in ("images/train/._x.png", "masks/train/._x.png", "__MACOSX/images/train/x.png"):
        (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / place).write_bytes(b"no picture")
    assert names_of(tmp_path, "train") == ["x"]
    by_pattern = {"image_pattern": "**/images/{split}/*.*", "mask_pattern": "**/masks/{split}/*.*"}
    assert names_of(tmp_path, "train", **by_pattern) == ["x"]


needs_links = pytest.mark.skipif(os.name == "nt", reason="needs symbolic links")


@needs_links
def test_linked_folders_are_searched(tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    put(tmp_path, "store/images/train/x.png", "store/images/val/y.png", "store/masks/val/y.png")
    put(tmp_path, "far/x.PNG", "root/images_of_mine/z.png")
    for place, target in (("images", "store/images"), ("masks", "store/masks"), ("store/masks/train", "far")):
        (tmp_path / (place if "/" in place else f"root/{place}")).symlink_to(tmp_path / target)
    Image.fromarray(np.full((4, 6), 2, np.uint8)).save(tmp_path / "far" / "x.PNG")
    expected = [
        "images/train/x.png",
        "images/val/y.png",
        "images_of_mine/z.png",
        "masks/train/x.PNG",
        "masks/val/y.png",
    ]
    assert picture_paths(root) == expected
    assert infer_taxonomy(root).num_classes == 3
    assert names_of(root, "train", image_pattern="images/{split}/*.*", mask_pattern="masks/{split}/*.*") == ["x"]
    assert names_of(root, "train") == ["x"]


@needs_links
def test_links_in_circles_and_to_the_same_folder(tmp_path: Path) -> None:
    put(tmp_path, "root/a/x.png", "root/z/y.png", "store/s.png")
    root, store = tmp_path / "root", tmp_path / "store"
    for link, target in (("a/up", root), ("b", root / "z"), ("c", store), ("d", store), ("gone", tmp_path / "none")):
        (root / link).symlink_to(target)
    (store / "back").symlink_to(root)
    # A folder counts where it lies itself, else by the first of its links.
    assert picture_paths(root) == ["a/x.png", "c/s.png", "z/y.png"]
    assert sorted(files_below(root / "b")) == [root / "b" / "y.png"]
    assert list(files_below(tmp_path / "none")) == []


@needs_links
def test_voc_with_linked_folders(tmp_path: Path) -> None:
    put(tmp_path, "images/sub/x.png", "masks/sub/x.png")
    names = {"images": "JPEGImages", "masks": "SegmentationClass"}
    (tmp_path / "ImageSets" / "Segmentation").mkdir(parents=True)
    (tmp_path / "ImageSets" / "Segmentation" / "train.txt").write_text("sub/x\n")
    for kind, folder in names.items():
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "sub").symlink_to(tmp_path / kind / "sub")
    assert len(PascalVOC(tmp_path, "train")) == 1


@needs_links
def test_lists_may_name_pairs_in_linked_folders(tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    put(tmp_path, "store/images/x.png", "store/masks/x.png")
    for name in ("images", "masks"):
        (root / name).symlink_to(tmp_path / "store" / name)
    (root / "train.txt").write_text("images/x.png masks/x.png\n")
    assert names_of(root, "train") == ["x"]
    (root / "train.txt").write_text("images/x.png masks/x.png\nimages/y.png masks/y.png\n")
    found = open_folder(root, ["train"], TAXONOMY)
    assert list(found.datasets["train"].names) == ["x"]
    assert [finding.kind for finding in found.findings] == ["missing-file"]
    for entry in ("images/../masks/x.png", "../store/images/x.png", str(tmp_path / "store" / "images" / "x.png")):
        (root / "train.txt").write_text(f"{entry} masks/x.png\n")
        with pytest.raises(DataError, match=r"train.txt:1: .*x.png' lies outside"):
            opened(root)


def test_lists_of_images_beside_the_folders_of_splits(tmp_path: Path) -> None:
    put(tmp_path, *(f"{kind}/train/{name}.png" for kind in ("images", "masks") for name in ("a b", "c", "é.x")))
    listed = tmp_path / "train.txt"
    for form in ("./images/train/{}.png", "images\\train\\{}.png", "{}", "{}.png"):
        listed.write_text("\n".join(form.format(unicodedata.normalize("NFD", n)) for n in ("c", "a b", "é.x")))
        assert sorted(names_of(tmp_path, "train")) == ["a b", "c", "é.x"]
    listed.write_text("/somewhere/else/c.png\n/somewhere/else/é.x.png\n")
    with pytest.raises(DataError, match=r"train.txt:1: '/somewhere/else/c.png' has 1 parts.*data.split_list"):
        opened(tmp_path)  # the list contradicts the folder
    listed.write_text("images/train/c.png\tmasks/train/c.png\n")
    assert names_of(tmp_path, "train") == ["c"]  # pairs win, as ever
    listed.write_text("images/train/c.png masks/train/c.png\nimages/train/é.x.png masks/train/é.x.png\n")
    assert names_of(tmp_path, "train") == ["c", "é.x"]


def test_names_in_lists_may_begin_with_the_folder_itself(tmp_path: Path) -> None:
    put(tmp_path, "images/a b.png", "images/c.png", "masks/a b.png", "masks/c.png")
    (tmp_path / "l.txt").write_text("./images/a b.png\n./images/c.png\n")
    assert names_of(tmp_path, "train", split_list="l.txt") == ["a b", "c"]
