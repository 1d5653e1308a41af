"""COCO's files: run lengths, polygons, panoptic PNGs, pixel maps, and what is wrong in them."""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from matplotlib.path import Path as Outline
from PIL import Image

from hs3seg.data import DiskCache
from hs3seg.data.coco import Coco
from hs3seg.data.coco_masks import decode_runs, fill_polygon, parse_region, region_mask, unpack_runs
from hs3seg.data.sample import SegmentationDataset
from hs3seg.errors import DataError

H, W = 6, 8
CATEGORIES = [
    {"id": 7, "name": "train", "supercategory": "vehicle", "isthing": 1},
    {"id": 1, "name": "person", "supercategory": "person", "isthing": 1},
    {"id": 200, "name": "rug-merged", "supercategory": "floor", "isthing": 0},
]


def runs(mask: np.ndarray) -> list[int]:
    """Run lengths, pixel by pixel."""
    counts, inside = [0], False
    for value in mask.T.ravel().tolist():
        if value != inside:
            counts.append(0)
            inside = value
        counts[-1] += 1
    return counts


def packed(counts: list[int]) -> str:
    """The characters of run lengths, digit by digit in base 32."""
    text = ""
    for index, count in enumerate(counts):
        value = count - counts[index - 2] if index > 2 else count
        digits = 1
        while not -(1 << (5 * digits - 1)) <= value < 1 << (5 * digits - 1):
            digits += 1
        value %= 1 << (5 * digits)
        for place in range(digits):
            text += chr(48 + (value >> (5 * place) & 31) + (32 if place + 1 < digits else 0))
    return text


def box(left: int, top: int, right: int, bottom: int) -> list[float]:
    return [left, top, right, top, right, bottom, left, bottom]


def write_file(root: Path, kind: str, content: list[Any], split: str = "val2017", /, **values: Any) -> Path:
    images = [{"id": 30 + i, "file_name": f"{i:012}.jpg", "height": H, "width": W} for i in range(2)]
    path = root / "annotations" / f"{kind}_{split}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    (root / split).mkdir(exist_ok=True)
    for image in images:
        Image.new("RGB", (W, H), (10, 20, 30)).save(root / split / str(image["file_name"]))
    path.write_text(
        json.dumps({"images": images, "annotations": content, "categories": CATEGORIES, "info": {}} | values)
    )
    return path


def instance(category: int, segmentation: Any, image: int = 30, number: int = 1) -> dict[str, Any]:
    return {"id": number, "image_id": image, "category_id": category, "segmentation": segmentation, "iscrowd": 0}


def write_panoptic(root: Path, ids: np.ndarray, segments: list[dict[str, int]]) -> Path:
    """Two images with the same PNG."""
    names = [f"{i:012}.png" for i in range(2)]
    path = write_file(
        root,
        "panoptic",
        [{"image_id": 30 + i, "file_name": name, "segments_info": segments} for i, name in enumerate(names)],
    )
    path.with_suffix("").mkdir()
    colours = np.stack([ids % 256, ids // 256 % 256, ids // 65536], axis=-1).astype(np.uint8)
    for name in names:
        Image.fromarray(colours).save(path.with_suffix("") / name)
    return path


masks = hnp.arrays(np.bool_, hnp.array_shapes(min_dims=2, max_dims=2, max_side=12))


@given(masks)
def test_run_lengths_plain_and_packed(mask: np.ndarray) -> None:
    counts = runs(mask)
    assert np.array_equal(decode_runs(counts, *mask.shape), mask)
    for form in (counts, packed(counts)):
        region = parse_region({"size": list(mask.shape), "counts": form}, *mask.shape)
        assert np.array_equal(region_mask(region, *mask.shape), mask)


@given(st.lists(st.integers(0, 2**25), max_size=9))
def test_packed_numbers_of_any_size(counts: list[int]) -> None:
    assert unpack_runs(packed(counts).encode()).tolist() == counts


def test_packed_runs_of_the_official_encoder() -> None:
    # Strings made by pycocotools 2.0.
    small, large = np.zeros((4, 5), np.bool_), np.zeros((300, 200), np.bool_)
    small[1:3, 1:4] = True
    large[250:, 150], large[:, 151], large[7, 199] = True, True, True
    assert np.array_equal(region_mask(b"5220003", 4, 5), small)
    assert region_mask(b"0Pcj1", 300, 200).all()
    assert np.array_equal(region_mask(b"RV\\1n:kh=SEY`B", 300, 200), large)


@given(hnp.arrays(np.float64, (7, 2), elements=st.floats(-3, 12, allow_nan=False)))
def test_polygons_hold_the_centres_inside(points: np.ndarray) -> None:
    mask = fill_polygon(points, H, W)
    edges = list(zip(points, np.roll(points, -1, axis=0), strict=True))
    for y in range(H):
        crossings = [
            x0 + (y + 0.5 - y0) * (x1 - x0) / (y1 - y0)
            for (x0, y0), (x1, y1) in edges
            if (y0 < y + 0.5) != (y1 < y + 0.5)
        ]
        assert len(crossings) % 2 == 0
        for x in range(W):
            if min((abs(c - x - 0.5) for c in crossings), default=1.0) > 1e-6:
                assert mask[y, x] == sum(c < x + 0.5 for c in crossings) % 2


def test_a_star_is_filled_as_matplotlib_has_it() -> None:
    angles = np.arange(10) * np.pi / 5
    radius = np.tile([1.0, 0.45], 5)
    points = np.stack([20.3 + 19 * radius * np.cos(angles), 17.1 + 16 * radius * np.sin(angles)], axis=1)
    y, x = np.mgrid[:35, :41] + 0.5
    inside = Outline(points).contains_points(np.stack([x.ravel(), y.ravel()], axis=1)).reshape(35, 41)
    assert np.array_equal(fill_polygon(points, 35, 41), inside)


def test_neighbours_share_no_pixel() -> None:
    left, right = (fill_polygon(np.reshape(box(*b), (-1, 2)).astype(float), H, W) for b in ((0, 0, 3, 6), (3, 0, 8, 6)))
    assert (left ^ right).all()
    assert left.sum() == 3 * H


def test_polygons_of_one_instance_are_joined_and_cut_at_the_border() -> None:
    region = parse_region([box(-5, -5, 2, 2), box(1, 1, 20, 3)], H, W)
    expected = np.zeros((H, W), np.bool_)
    expected[:2, :2] = True
    expected[1:3, 1:] = True
    assert np.array_equal(region_mask(region, H, W), expected)


@pytest.mark.parametrize(
    ("segmentation", "message"),
    [
        ({"size": [H, W], "counts": [3, 4]}, "run lengths that make 7 pixels of 48"),
        ({"size": [H, W], "counts": [50, -2]}, "run lengths that make 48 pixels"),
        ({"size": [H, W], "counts": "PP"}, "end within a number"),
        ({"size": [H, W], "counts": "5 "}, "the character ' '"),
        ({"size": [W, H], "counts": [48]}, r"run lengths for the size \[8, 6\], but the image has \[6, 8\]"),
        ({"size": [H, W]}, "run lengths without `counts`"),
        ([[1, 2, 3, 4]], "a polygon of 4 numbers"),
        ([[1, 2, 3, 4, 5, 6, 7]], "a polygon of 7 numbers"),
        ([[1, 2, 3, 4, 5, "6"]], "no list of numbers"),
        ([[1, 2, 3, 4, 5, float("nan")]], "not finite"),
        (None, "neither polygons nor run lengths, but NoneType"),
    ],
)
def test_segmentations_that_cannot_be_used(tmp_path: Path, segmentation: Any, message: str) -> None:
    write_file(tmp_path, "instances", [instance(1, segmentation, number=17)])
    with pytest.raises(DataError, match=rf"(annotation 17|000\.jpg).*{message}"):
        Coco(tmp_path, "val2017", "instances").read(0)


def test_instances_with_background(tmp_path: Path) -> None:
    crowd = np.zeros((H, W), np.bool_)
    crowd[5] = True
    path = write_file(
        tmp_path,
        "instances",
        [
            instance(1, [box(2, 2, 4, 4)]),  # small, so it stays on top of what comes later
            instance(7, [box(1, 1, 6, 5)]),
            instance(200, {"size": [H, W], "counts": runs(crowd)}) | {"iscrowd": 1},
        ],
    )
    dataset = Coco(tmp_path, "val", "instances")
    assert isinstance(dataset, SegmentationDataset)
    assert dataset.taxonomy.names == ("background", "person", "train", "rug-merged")
    assert dataset.names == ["000000000000", "000000000001"]
    assert dataset.files(1) == (str(tmp_path / "val2017" / "000000000001.jpg"), str(path))
    expected = np.zeros((H, W), int)
    expected[1:5, 1:6] = 2
    expected[2:4, 2:4] = 1
    expected[5] = 3
    sample = dataset.read(0)
    assert sample.image.shape == (3, H, W)
    assert np.array_equal(sample.mask.numpy(), expected)
    assert (dataset.read(1).mask == 0).all()  # no instance at all


def test_instances_without_background(tmp_path: Path) -> None:
    write_file(tmp_path, "instances", [instance(200, [box(0, 0, 1, 1)])])
    dataset = Coco(tmp_path, "val2017", "instances", background=False)
    assert dataset.taxonomy.names == ("person", "train", "rug-merged")
    assert np.array_equal(dataset.read(0).mask.flatten().numpy(), [2] + [255] * (H * W - 1))


def test_a_category_that_is_the_background(tmp_path: Path) -> None:
    categories = [{"id": 3, "name": "cat"}, {"id": 9, "name": "background"}]
    write_file(tmp_path, "instances", [instance(3, [box(0, 0, 1, 1)])], categories=categories)
    dataset = Coco(tmp_path, "val", "instances")
    assert dataset.taxonomy.names == ("cat", "background")
    assert dataset.read(0).mask.flatten()[:2].tolist() == [0, 1]


def test_corrected_labels_are_seen_behind_the_disk_cache(tmp_path: Path) -> None:
    path = write_file(tmp_path, "instances", [instance(7, [box(0, 0, 3, 3)])])
    assert Coco(tmp_path, "val", "instances").files(0)[1] == str(path)
    before = DiskCache(Coco(tmp_path, "val", "instances"), tmp_path / "cache").read(0).mask
    path.write_text(path.read_text().replace('"category_id": 7', '"category_id": 200'))
    os.utime(path, ns=(1, 1))  # however fast the two were written
    data = Coco(tmp_path, "val", "instances")
    after = DiskCache(data, tmp_path / "cache").read(0).mask
    assert torch.equal(after, data.read(0).mask)
    assert not torch.equal(after, before)


def test_run_lengths_of_stuff(tmp_path: Path) -> None:
    mask = np.arange(H * W).reshape(H, W) % 3 == 0
    write_file(tmp_path, "stuff", [instance(7, {"size": [H, W], "counts": packed(runs(mask))})])
    dataset = Coco(tmp_path, "val", "instances")
    assert dataset.taxonomy.num_classes == 3
    assert np.array_equal(dataset.read(0).mask.numpy(), np.where(mask, 1, 255))


def test_a_file_of_another_place(tmp_path: Path) -> None:
    path = write_file(tmp_path, "instances", [instance(1, [box(0, 0, 8, 6)])])
    (tmp_path / "val2017").rename(tmp_path / "ü pictures")
    path.rename(tmp_path / "all.json")
    dataset = Coco(tmp_path, "mine", "instances", annotations="all.json", images="ü pictures")
    assert (dataset.split, len(dataset)) == ("mine", 2)
    assert (dataset.read(0).mask == 1).all()


def test_a_file_beside_its_images(tmp_path: Path) -> None:
    path = write_file(tmp_path, "instances", [instance(1, [box(0, 0, 8, 6)])], "train")
    path.rename(tmp_path / "train" / "_annotations.coco.json")
    assert (Coco(tmp_path, "train", "instances").read(0).mask == 1).all()


def test_panoptic_ids_have_the_class_of_their_segment(tmp_path: Path) -> None:
    ids = np.zeros((H, W), int)
    ids[1], ids[2], ids[3], ids[4] = 5, 256 + 5, 65536 * 200 + 5, 16777215
    path = write_panoptic(
        tmp_path,
        ids,
        [
            {"id": 5, "category_id": 200},
            {"id": 261, "category_id": 1},
            {"id": 65536 * 200 + 5, "category_id": 7},
            {"id": 16777215, "category_id": 1},
        ],
    )
    dataset = Coco(tmp_path, "val")
    assert isinstance(dataset, SegmentationDataset)
    assert dataset.taxonomy.names == ("person", "train", "rug-merged")
    assert dataset.read(1).mask[:, 0].tolist() == [255, 2, 0, 1, 0, 255]
    png = path.with_suffix("") / "000000000001.png"
    assert dataset.files(1) == (str(tmp_path / "val2017" / "000000000001.jpg"), str(png))
    Image.new("RGB", (W, H + 1)).save(png)
    with pytest.raises(DataError, match=r"000000000001.png: is 8x7 pixels, its image .* is 8x6"):
        dataset.read(1)
    Image.new("L", (W, H)).save(png)
    with pytest.raises(DataError, match="has one channel; panoptic PNGs have R, G and B"):
        dataset.read(1)


def test_a_segment_that_the_file_does_not_have(tmp_path: Path) -> None:
    ids = np.zeros((H, W), int)
    ids[2, 3:5] = 300
    write_panoptic(tmp_path, ids, [{"id": 299, "category_id": 1}])
    with pytest.raises(DataError, match=r"000.png: segment id 300 at x=3, y=2 \(2 such pixels\) is not in the JSON"):
        Coco(tmp_path, "val").read(0)


def test_categories_may_have_colours(tmp_path: Path) -> None:
    coloured = [entry | {"color": [10 * i, 7, 3]} for i, entry in enumerate(CATEGORIES)]
    path = write_panoptic(tmp_path, np.zeros((H, W), int), [])
    for categories, expected in (
        (coloured, ((10, 7, 3), (0, 7, 3), (20, 7, 3))),
        (coloured[:2] + CATEGORIES[2:], None),
    ):
        path.write_text(json.dumps(json.loads(path.read_text()) | {"categories": categories}))
        taxonomy = Coco(tmp_path, "val").taxonomy
        assert len(set(taxonomy.colours)) == 3
        assert expected is None or taxonomy.colours == expected


def test_pixel_maps_hold_ids_of_categories(tmp_path: Path) -> None:
    path = write_file(tmp_path, "stuff", [])
    maps = path.with_name("stuff_val2017_pixelmaps")
    with pytest.raises(DataError, match="needs the folder '.*stuff_val2017_pixelmaps'"):
        Coco(tmp_path, "val", "pixelmaps")
    maps.mkdir()
    ids = np.tile(np.array([0, 1, 7, 200], np.uint8), (H, 2))
    picture = Image.fromarray(ids)
    picture.putpalette(list(range(256)) * 3)
    picture.save(maps / "000000000000.png")
    dataset = Coco(tmp_path, "val", "pixelmaps")
    assert dataset.read(0).mask[0].tolist() == [255, 0, 1, 2] * 2
    assert dataset.files(0)[1] == str(maps / "000000000000.png")
    with pytest.raises(DataError, match="'.*000000000001.png' does not exist"):
        dataset.read(1)
    Image.fromarray(ids + 1).save(maps / "000000000001.png")
    with pytest.raises(DataError, match=r"001.png: category id 2 at x=1, y=0 \(12 such pixels\) is not in the JSON"):
        dataset.read(1)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"categories": []}, "has no categories"),
        ({"categories": [{"id": 1, "name": "a"}, {"id": 1, "name": "b"}]}, "two categories have the id 1"),
        ({"categories": [{"id": 1, "name": "a"}, {"id": 2, "name": "a"}]}, "two categories have the name 'a'"),
        ({"categories": [{"id": "1", "name": "a"}]}, "an entry of 'categories' has id = '1'; needed is one int"),
        ({"categories": [{"id": 1, "name": "a"}]}, "has the category_id 7, but no category has this id"),
        ({"categories": [{"id": i, "name": str(i)} for i in range(256)]}, "has 257 classes; at most 255"),
        ({"images": []}, "has no images"),
        ({"images": [{"id": 30, "file_name": "x.jpg", "height": H, "width": W}] * 2}, "two images have one id"),
        ({"images": [{"id": 31, "file_name": "x.jpg", "height": H, "width": W}]}, "has the image_id 30, but no image"),
        ({"images": [{"id": 30, "file_name": "x.jpg", "height": H, "width": W}]}, r"'.*x.jpg' does not exist \(1 of 1"),
        ({"images": [{"id": 30, "file_name": "../x.jpg", "height": H, "width": W}]}, "'../x.jpg' lies outside"),
        ({"images": [{"id": 30, "file_name": "/x.jpg", "height": H, "width": W}]}, "'/x.jpg' lies outside"),
        ({"images": [{"id": 30, "file_name": "x.jpg"}]}, "'images' has height = None"),
        ({"annotations": None}, "has no list 'annotations', so it is no COCO file"),
        ({"annotations": [3]}, "an entry of 'annotations' has image_id = None"),
    ],
)
def test_files_that_cannot_be_used(tmp_path: Path, values: dict[str, Any], message: str) -> None:
    write_file(tmp_path, "instances", [instance(7, [box(0, 0, 1, 1)])], **values)
    with pytest.raises(DataError, match=f"{message}"):
        Coco(tmp_path, "val2017", "instances")


def test_panoptic_files_with_too_few_annotations(tmp_path: Path) -> None:
    write_file(tmp_path, "panoptic", [])
    with pytest.raises(DataError, match="'000000000000.jpg' has 0 annotations; a panoptic file has one each"):
        Coco(tmp_path, "val")


def test_a_truncated_file(tmp_path: Path) -> None:
    path = write_file(tmp_path, "instances", [])
    path.write_text(path.read_text()[:-9])
    with pytest.raises(DataError, match="instances_val2017.json: not a JSON file .* truncated"):
        Coco(tmp_path, "val", "instances")


def test_folders_and_files_that_are_missing(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="COCO folder '.*none' does not exist"):
        Coco(tmp_path / "none", "val")
    path = write_file(tmp_path, "instances", [])
    with pytest.raises(DataError, match=r"no file 'annotations/panoptic_val.json' .* name another in data.annotations"):
        Coco(tmp_path, "val")
    with pytest.raises(DataError, match="no file 'a.json'"):
        Coco(tmp_path, "val", annotations="a.json")
    write_panoptic(tmp_path, np.zeros((H, W), int), [])
    with pytest.raises(DataError, match="background is for labels = 'instances'"):
        Coco(tmp_path, "val", background=True)
    (tmp_path / "val2017").rename(tmp_path / "elsewhere")
    with pytest.raises(DataError, match="has no folder of images: val2017, images/val2017, images; name it"):
        Coco(tmp_path, "val2017", "instances", annotations=str(path.relative_to(tmp_path)))


def test_an_image_of_another_size(tmp_path: Path) -> None:
    write_file(tmp_path, "instances", [])
    Image.new("RGB", (W, H + 2)).save(tmp_path / "val2017" / "000000000000.jpg")
    with pytest.raises(DataError, match=r"000.jpg: is 8x8 pixels, but its JSON file says 8x6"):
        Coco(tmp_path, "val", "instances").read(0)
