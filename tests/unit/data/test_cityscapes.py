"""Cityscapes: the format, splits by city, other label sources, and what is refused."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from hs3seg.data import SegmentationDataset, analysis_split, channels_of
from hs3seg.data.cityscapes import Cityscapes, read_disparity
from hs3seg.data.cityscapes_layout import parts_of
from hs3seg.data.doctor import examine
from hs3seg.errors import DataError
from hs3seg.taxonomies.cityscapes import CITYSCAPES, ID_OF_TRAIN_ID, TRAIN_ID_OF_ID
from tests.fabricate.cityscapes import CITIES, make_cityscapes, make_scene, names_of, write_train_ids

OFFICIAL_TRAIN = (
    *("aachen", "bochum", "bremen", "cologne", "darmstadt", "dusseldorf", "erfurt", "hamburg", "hanover", "jena"),
    *("krefeld", "monchengladbach", "strasbourg", "stuttgart", "tubingen", "ulm", "weimar", "zurich"),
)


def rewrite(path: Path, value: int, rows: int = 1) -> None:
    pixels = np.array(Image.open(path))
    pixels[:rows] = value
    Image.fromarray(pixels).save(path)


def label_file(root: Path, split: str = "train", kind: str = "gtFine") -> Path:
    return min((root / kind / split).rglob(f"*_{kind}_labelIds.png"))


def test_images_and_labels_are_those_of_the_files(tmp_path: Path) -> None:
    make_cityscapes(tmp_path)
    for split, count, first in (("train", 4, 0), ("val", 2, 4)):
        dataset = Cityscapes(tmp_path, split)
        assert isinstance(dataset, SegmentationDataset)
        assert (len(dataset), dataset.names) == (count, names_of(split, count))
        assert channels_of(dataset) == 3
        for index in range(count):
            scene, sample = make_scene(first + index), dataset.read(index)
            assert sample.name == dataset.names[index]
            assert np.array_equal(sample.image.permute(1, 2, 0).numpy(), scene.rgb)
            assert sample.mask.dtype == torch.int64
            assert np.array_equal(sample.mask.numpy(), TRAIN_ID_OF_ID[scene.ids])
            assert torch.equal(dataset.read_mask(index), sample.mask.as_subclass(torch.Tensor))
            assert np.array_equal(dataset.read_label_ids(index).numpy(), scene.ids)
            instances = dataset.read_instances(index)
            assert instances.dtype == torch.int64
            assert np.array_equal(instances.numpy(), scene.instances)
    assert dataset.taxonomy is CITYSCAPES
    assert [Path(file).name for file in dataset.files(0)] == [
        f"{dataset.names[0]}_leftImg8bit.png",
        f"{dataset.names[0]}_gtFine_labelIds.png",
    ]
    assert dataset.notes == (f"Labels of '{tmp_path}/gtFine/val' are label ids (*_labelIds.png).",)


def test_every_label_id_becomes_its_train_id(tmp_path: Path) -> None:
    make_cityscapes(tmp_path, {"train": 1})
    every = np.zeros((64, 128), np.uint8)
    every[0, :34] = np.arange(34)
    Image.fromarray(every).save(label_file(tmp_path))
    mask = Cityscapes(tmp_path, "train").read(0).mask
    expected = [list(ID_OF_TRAIN_ID).index(i) if i in ID_OF_TRAIN_ID else 255 for i in range(34)]
    assert mask[0, :34].tolist() == expected
    assert (mask[1:] == 255).all()


def test_the_check_of_the_data_finds_nothing_wrong(tmp_path: Path) -> None:
    make_cityscapes(tmp_path)
    report = examine({split: Cityscapes(tmp_path, split) for split in ("train", "val")})
    assert not report.has_errors


def test_any_image_suffix_is_taken(tmp_path: Path) -> None:
    make_cityscapes(tmp_path, {"train": 2})
    for path in (tmp_path / "leftImg8bit").rglob("*.png"):
        Image.open(path).save(path.with_suffix(".webp"), lossless=True)
        path.unlink()
    dataset = Cityscapes(tmp_path, "train")
    assert dataset.names == names_of("train", 2)
    assert np.array_equal(dataset.read(0).image.permute(1, 2, 0).numpy(), make_scene(0).rgb)


def test_the_folders_of_the_archives_are_found(tmp_path: Path) -> None:
    make_cityscapes(tmp_path / "flat", {"train": 2, "train_extra": 1}, coarse=True, autolabelled=True, disparity=True)
    for name, place in (
        ("leftImg8bit/train_extra", "leftImg8bit_trainextra/leftImg8bit"),
        ("leftImg8bit/train", "leftImg8bit_trainvaltest/leftImg8bit"),
        ("gtFine", "gtFine_trainvaltest"),
        ("gtCoarse", "gtCoarse"),
        ("refinement_final", "refinement_final_v0"),
        ("disparity/train", "disparity_trainvaltest/disparity"),
        ("disparity/train_extra", "disparity_trainextra/disparity"),
    ):
        (tmp_path / "deep" / place).mkdir(parents=True)
        shutil.move(tmp_path / "flat" / name, tmp_path / "deep" / place)
    dataset = Cityscapes(
        *(tmp_path / "deep", "train+train_extra"),
        labels="autolabelled",
        depth="disparity",
        coarse_classes=["bus"],
    )
    assert [dataset.read(index).image.shape for index in range(3)] == [(4, 64, 128)] * 3


def test_ready_made_train_ids_are_taken_where_label_ids_are_missing(tmp_path: Path) -> None:
    make_cityscapes(tmp_path, {"train": 2})
    plain = Cityscapes(tmp_path, "train")
    expected = [plain.read(index).mask for index in range(2)]
    write_train_ids(tmp_path)
    assert "label ids (*_labelIds.png)" in Cityscapes(tmp_path, "train").notes[0]
    label_file(tmp_path).unlink()
    some = Cityscapes(tmp_path, "train")
    assert "label ids, and train ids where these are missing (1 files)" in some.notes[0]
    assert all(torch.equal(some.read(index).mask, expected[index]) for index in range(2))
    label_file(tmp_path).unlink()
    ready = Cityscapes(tmp_path, "train")
    assert "ready-made train ids (*_labelTrainIds.png)" in ready.notes[0]
    assert all(torch.equal(ready.read(index).mask, expected[index]) for index in range(2))
    ids = make_scene(0).ids
    counted = np.where(np.isin(ids, ID_OF_TRAIN_ID), ids, 0)
    assert np.array_equal(ready.read_label_ids(0).numpy(), counted)
    assert np.array_equal(ready.read_instances(0).numpy(), make_scene(0).instances)


def test_train_ids_under_the_name_of_label_ids_are_told(tmp_path: Path) -> None:
    make_cityscapes(tmp_path, {"train": 1})
    write_train_ids(tmp_path)
    path = label_file(tmp_path)
    shutil.copy(path.with_name(path.name.replace("labelIds", "labelTrainIds")), path)
    with pytest.raises(DataError, match=r"value 255 at x=0, y=0 .* these may be train ids: .* _labelTrainIds.png"):
        Cityscapes(tmp_path, "train").read(0)


def test_label_ids_under_the_name_of_train_ids_are_told(tmp_path: Path) -> None:
    make_cityscapes(tmp_path, {"train": 1})
    path = label_file(tmp_path)
    path.rename(path.with_name(path.name.replace("labelIds", "labelTrainIds")))
    with pytest.raises(DataError, match=r"train ids are 0..18 and 255; these may be label ids: .* _labelIds.png"):
        Cityscapes(tmp_path, "train").read(0)


def test_what_is_no_label_is_refused(tmp_path: Path) -> None:
    make_cityscapes(tmp_path, {"train": 1})
    path = label_file(tmp_path)
    rewrite(path, 34)
    with pytest.raises(DataError, match=r"value 34 at x=0, y=0 \(128 such pixels\); label ids are 0..33; copy"):
        Cityscapes(tmp_path, "train").read(0)
    shutil.copy(path.with_name(path.name.replace("labelIds", "color")), path)
    with pytest.raises(DataError, match=r"has 3 channels, but labels have one"):
        Cityscapes(tmp_path, "train").read(0)
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(path)
    with pytest.raises(DataError, match=r"is 8x8 pixels, its image .* is 128x64"):
        Cityscapes(tmp_path, "train").read(0)


def test_test_needs_no_labels_and_is_all_ignored(tmp_path: Path) -> None:
    make_cityscapes(tmp_path, {"test": 2}, disparity=True)
    shutil.rmtree(tmp_path / "gtFine")
    dataset = Cityscapes(tmp_path, "test", depth="disparity")
    sample = dataset.read(1)
    assert sample.image.shape == (4, 64, 128)
    assert (sample.mask == 255).all()
    assert sample.mask.shape == (64, 128)
    assert [Path(file).parts[-4] for file in dataset.files(0)] == ["leftImg8bit", "disparity"]
    assert "no public labels" in dataset.notes[0]
    for read in (dataset.read_instances, dataset.read_label_ids, dataset.read_mask):
        with pytest.raises(DataError, match=r"of split 'test' has no public label"):
            read(0)


def test_trainval_is_train_then_val(tmp_path: Path) -> None:
    make_cityscapes(tmp_path)
    assert Cityscapes(tmp_path, "trainval").names == names_of("train", 4) + names_of("val", 2)


def make_cities(root: Path) -> None:
    for split, cities in (("train", OFFICIAL_TRAIN), ("val", CITIES["val"])):
        for city in cities:
            (root / "leftImg8bit" / split / city).mkdir(parents=True)


def cities_of(root: Path, split: str, cv: int) -> list[str]:
    return [city for _, city in parts_of(root, split, cv)]


def test_folds_of_the_official_cities(tmp_path: Path) -> None:
    make_cities(tmp_path)
    assert cities_of(tmp_path, "val", 0) == ["frankfurt", "lindau", "munster"]
    assert cities_of(tmp_path, "train", 0) == list(OFFICIAL_TRAIN)
    assert cities_of(tmp_path, "val", 1) == ["darmstadt", "dusseldorf", "erfurt"]
    assert cities_of(tmp_path, "val", 2) == ["monchengladbach", "strasbourg", "stuttgart"]
    for cv in (0, 1, 2):
        train, val = (parts_of(tmp_path, split, cv) for split in ("train", "val"))
        assert len(val) == 3
        assert len(set(train + val)) == len(train + val) == 21
        assert set(parts_of(tmp_path, "trainval", cv)) == set(train + val)
    assert len(parts_of(tmp_path, "train", 3)) == len(parts_of(tmp_path, "trainval", 3)) == 21
    assert parts_of(tmp_path, "val", 3) == parts_of(tmp_path, "val", 0)


def test_folds_read_labels_from_the_folder_of_their_images(tmp_path: Path) -> None:
    make_cityscapes(tmp_path, {"train": 4, "val": 3})
    # 7 cities: frankfurt lindau munster aachen bochum bremen cologne; the window of fold 1 starts at 7 // 3.
    val, train = Cityscapes(tmp_path, "val", cv=1), Cityscapes(tmp_path, "train", cv=1)
    assert {name.split("_")[0] for name in val.names} == {"munster", "aachen", "bochum"}
    assert {name.split("_")[0] for name in train.names} == {"frankfurt", "lindau", "bremen", "cologne"}
    every = names_of("train", 4) + names_of("val", 3)
    for dataset in (val, train):
        for index, name in enumerate(dataset.names):
            expected = TRAIN_ID_OF_ID[make_scene(every.index(name)).ids]
            assert np.array_equal(dataset.read(index).mask.numpy(), expected)
    assert sorted(Cityscapes(tmp_path, "train", cv=3).names) == sorted(every)


def test_the_analysis_split_of_the_paper() -> None:
    reduced, analysis = analysis_split(2975, fraction=0.1, seed=0, count=300)
    assert (len(reduced), len(analysis)) == (2675, 300)


def test_coarse_labels(tmp_path: Path) -> None:
    make_cityscapes(tmp_path, {"train": 2, "train_extra": 2}, coarse=True)
    for split, first in (("train", 0), ("train_extra", 2)):
        dataset = Cityscapes(tmp_path, split, labels="coarse")
        assert dataset.names == names_of(split, 2)
        for index in range(2):
            scene = make_scene(first + index)
            assert np.array_equal(dataset.read(index).mask.numpy(), TRAIN_ID_OF_ID[scene.coarse])
            expected = np.where(scene.coarse > 0, scene.instances, 0)
            assert np.array_equal(dataset.read_instances(index).numpy(), expected)
    with pytest.raises(DataError, match=r"gtFine/train_extra', which does not exist; .* train_extra has none"):
        Cityscapes(tmp_path, "train_extra")


def test_autolabelled_pixels_below_the_threshold_are_ignored(tmp_path: Path) -> None:
    make_cityscapes(tmp_path, {"train_extra": 1}, autolabelled=True)
    scene = make_scene(0)
    expected = TRAIN_ID_OF_ID[scene.auto]
    for threshold in (0.0, 0.5, 0.9, 1.0):
        dataset = Cityscapes(tmp_path, "train_extra", labels="autolabelled", coarse_threshold=threshold)
        believed = scene.probability / 255 >= threshold
        assert np.array_equal(dataset.read(0).mask.numpy(), np.where(believed, expected, 255))
    assert (dataset.read(0).mask == 255).any()
    assert [Path(file).name.split("_", 3)[3] for file in dataset.files(0)] == [
        *("leftImg8bit.png", "leftImg8bit_prob.png", "leftImg8bit.png"),
    ]
    with pytest.raises(DataError, match=r"is autolabelled, which knows no instances"):
        dataset.read_instances(0)


def test_classes_that_are_taken_from_the_coarse_labels(tmp_path: Path) -> None:
    make_cityscapes(tmp_path, {"train_extra": 1}, autolabelled=True)
    scene, names = make_scene(0), ("truck", "bus", "train")
    dataset = Cityscapes(tmp_path, "train_extra", labels="autolabelled", coarse_classes=names)
    mask = dataset.read(0).mask.numpy()
    own = [CITYSCAPES.index(name) for name in names]
    coarse = TRAIN_ID_OF_ID[scene.coarse]
    automatic = np.where(scene.probability / 255 >= 0.5, TRAIN_ID_OF_ID[scene.auto], 255)
    assert np.isin(coarse, own).any()
    for class_ in own:
        assert np.array_equal(mask == class_, coarse == class_)
    others = ~np.isin(automatic, own) & ~np.isin(coarse, own)
    assert np.array_equal(mask[others], automatic[others])
    assert len(dataset.files(0)) == 4
    shutil.rmtree(tmp_path / "gtCoarse")
    with pytest.raises(DataError, match=r"gtCoarse/train_extra', which does not exist"):
        Cityscapes(tmp_path, "train_extra", labels="autolabelled", coarse_classes=names)
    assert len(Cityscapes(tmp_path, "train_extra", labels="autolabelled")) == 1


def test_the_border_of_autolabelled_frames_can_be_cut_off(tmp_path: Path) -> None:
    make_cityscapes(tmp_path, {"train_extra": 1}, size=(1024, 2048), autolabelled=True)
    options = {"labels": "autolabelled", "coarse_threshold": 0.0}
    whole = Cityscapes(tmp_path, "train_extra", **options).read(0).mask
    cut = Cityscapes(tmp_path, "train_extra", coarse_cut_border=True, **options).read(0).mask
    expected = torch.full((1024, 2048), 255)
    expected[15:840, 14:2030] = whole[15:840, 14:2030]
    assert torch.equal(cut.as_subclass(torch.Tensor), expected)


def test_fine_labels_beside_autolabelled_ones(tmp_path: Path) -> None:
    make_cityscapes(tmp_path, {"train": 2, "train_extra": 2}, autolabelled=True)
    dataset = Cityscapes(tmp_path, "train+train_extra", labels="autolabelled", coarse_threshold=0.0)
    assert dataset.names == names_of("train", 2) + names_of("train_extra", 2)
    for index in range(4):
        scene = make_scene(index)
        ids = scene.ids if index < 2 else scene.auto
        assert np.array_equal(dataset.read(index).mask.numpy(), TRAIN_ID_OF_ID[ids])


def test_autolabelled_files_without_an_image_do_not_matter(tmp_path: Path) -> None:
    make_cityscapes(tmp_path, {"train_extra": 3}, coarse=True, autolabelled=True)
    next((tmp_path / "leftImg8bit" / "train_extra" / "augsburg").iterdir()).unlink()
    dataset = Cityscapes(tmp_path, "train_extra", labels="autolabelled", coarse_classes=["bus"])
    assert len(dataset) == 2
    assert "1 labels in" in dataset.notes[-1]


def test_disparity_is_the_fourth_channel(tmp_path: Path) -> None:
    make_cityscapes(tmp_path, {"train": 1}, disparity=True)
    plain, deep = Cityscapes(tmp_path, "train"), Cityscapes(tmp_path, "train", depth="disparity")
    image = deep.read(0).image
    assert channels_of(deep) == 4
    assert torch.equal(image[:3], plain.read(0).image)
    stored, codes = make_scene(0).disparity.astype(float), image[3].numpy().astype(float)
    known = stored > 0
    assert np.array_equal(codes > 0, known)
    assert np.abs((codes - 1) / 2 - (stored - 1) / 256)[known].max() <= 0.25
    assert [Path(file).parts[-4] for file in deep.files(0)] == ["leftImg8bit", "disparity", "gtFine"]


def test_codes_of_disparity(tmp_path: Path) -> None:
    stored = np.array([[0, 1, 65, 66, 129, 257, 32257, 32641, 65535]], np.uint16)
    Image.fromarray(stored).save(tmp_path / "d.png")
    assert read_disparity(tmp_path / "d.png").tolist() == [[[0, 1, 1, 2, 2, 3, 253, 255, 255]]]
    Image.fromarray(np.zeros((2, 2), np.uint8)).save(tmp_path / "d.png")
    with pytest.raises(DataError, match=r"is no 16-bit disparity \(shape \(2, 2\), uint8\)"):
        read_disparity(tmp_path / "d.png")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"split": "valid"}, r"no split 'valid'; allowed: trainval, train, val, test, train_extra.*nearest: 'val'"),
        ({"cv": 4}, r"cv = 4; allowed: 0 \(official\), 1, 2"),
        ({"labels": "soft"}, r"labels = 'soft'; allowed: fine, coarse, autolabelled"),
        ({"depth": "raw"}, r"depth = 'raw'; allowed: none, disparity"),
        ({"depth": "disparity"}, r"disparity/train', which does not exist; .*; it is in disparity_trainvaltest.zip"),
        ({"coarse_threshold": 128}, r"coarse_threshold = 128 is no probability; allowed: 0..1"),
        ({"coarse_classes": ["lorry"]}, r"unknown class 'lorry'"),
        ({"split": "train_extra"}, r"leftImg8bit/train_extra', which does not exist; found in .*: gtFine, leftImg8bit"),
        ({"labels": "coarse"}, r"gtCoarse/train', which does not exist; .*; coarse labels are in gtCoarse.zip"),
    ],
)
def test_what_does_not_exist_is_refused(tmp_path: Path, options: dict[str, object], message: str) -> None:
    make_cityscapes(tmp_path, {"train": 1, "val": 1})
    with pytest.raises(DataError, match=message):
        Cityscapes(tmp_path, **{"split": "train", **options})


def test_files_without_their_partner_are_named(tmp_path: Path) -> None:
    make_cityscapes(tmp_path, {"train": 4, "val": 1}, disparity=True)
    label_file(tmp_path).unlink()
    with pytest.raises(DataError, match=r"image 'aachen_000000_000019' has no file .*_gtFine_labelIds.png.*1 such"):
        Cityscapes(tmp_path, "train")
    next((tmp_path / "disparity" / "val").rglob("*.png")).unlink()
    with pytest.raises(DataError, match=r"image 'frankfurt_000000_000019' has no file .*_disparity.png"):
        Cityscapes(tmp_path, "val", depth="disparity")
    next((tmp_path / "gtFine" / "val").rglob("*_instanceIds.png")).unlink()
    with pytest.raises(DataError, match=r"_gtFine_instanceIds.png' does not exist; iIoU needs it"):
        Cityscapes(tmp_path, "val").read_instances(0)
    next((tmp_path / "leftImg8bit" / "val").rglob("*.png")).unlink()
    with pytest.raises(DataError, match=r"no image in .*val'; images are CITY/\*_leftImg8bit.png"):
        Cityscapes(tmp_path, "val")


def test_labels_without_an_image_are_named(tmp_path: Path) -> None:
    make_cityscapes(tmp_path, {"train": 5})
    next((tmp_path / "leftImg8bit" / "train" / "aachen").iterdir()).unlink()
    with pytest.raises(DataError, match=r"label .*aachen_000000_000019.* has no image .* \(1 such labels\)"):
        Cityscapes(tmp_path, "train")
    shutil.rmtree(tmp_path / "leftImg8bit" / "train" / "bochum")
    shutil.rmtree(tmp_path / "leftImg8bit" / "train" / "aachen")
    with pytest.raises(DataError, match=r"has the city 'aachen', .* has not \(2 such cities\)"):
        Cityscapes(tmp_path, "train")


def test_a_frame_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    make_cityscapes(tmp_path, {"train": 1})
    path = next((tmp_path / "leftImg8bit").rglob("*.png"))
    Image.open(path).save(path.with_suffix(".jpg"))
    with pytest.raises(DataError, match=r"are the same frame twice"):
        Cityscapes(tmp_path, "train")
