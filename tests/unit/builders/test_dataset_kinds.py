"""Every `data.kind` of the config opens its reader with its keys."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from hs3seg.builders import make_dataset
from hs3seg.config import config_from_dict
from hs3seg.config.data import KINDS
from hs3seg.data import CachedDataset, SegmentationDataset, notes_of
from hs3seg.errors import ConfigError
from hs3seg.taxonomy import Taxonomy
from tests.fabricate.cityscapes import make_cityscapes
from tests.fabricate.nyuv2 import make_nyuv2
from tests.unit.data.test_ade20k import make_ade20k
from tests.unit.data.test_camvid_original import make_camvid
from tests.unit.data.test_coco import write_panoptic
from tests.unit.data.test_voc import make_voc


def opened(split: str, **data: object) -> SegmentationDataset:
    config = config_from_dict({"name": "x", "data": data, "augment": {"crop": [8, 8]}}, "test")
    return make_dataset(config, split)


def test_cityscapes_with_its_keys(tmp_path: Path) -> None:
    root = make_cityscapes(tmp_path, {"train": 2, "train_extra": 1}, coarse=True, autolabelled=True, disparity=True)
    plain = opened("train", kind="cityscapes", root=str(root))
    assert plain.read(0).image.shape[0] == 3
    assert "label ids" in " ".join(notes_of(plain))
    deep = opened("train", kind="cityscapes", root=str(root), depth="disparity")
    assert deep.read(0).image.shape[0] == 4
    sure, unsure = (
        opened("train_extra", kind="cityscapes", root=str(root), labels="autolabelled", coarse_threshold=threshold)
        for threshold in (0.0, 1.0)
    )
    assert (sure.read(0).mask != 255).sum() > (unsure.read(0).mask != 255).sum()


def test_original_camvid(tmp_path: Path) -> None:
    make_camvid(tmp_path)
    assert opened("val", kind="camvid", root=str(tmp_path)).taxonomy.num_classes == 11
    assert opened("val", kind="camvid", root=str(tmp_path), classes=32).taxonomy.num_classes == 31


def test_nyuv2(tmp_path: Path) -> None:
    make_nyuv2(tmp_path, train=2, test=1, size=(48, 64), layout="sagate")
    assert opened("test", kind="nyuv2", root=str(tmp_path), classes=13).taxonomy.num_classes == 13


def test_coco(tmp_path: Path) -> None:
    ids = np.zeros((4, 6), np.int64)
    ids[:, 3:] = 7
    write_panoptic(tmp_path, ids, [{"id": 7, "category_id": 1}])
    assert len(opened("val2017", kind="coco", root=str(tmp_path), labels="panoptic")) == 2


def test_voc_and_ade20k(tmp_path: Path) -> None:
    make_voc(tmp_path / "voc")
    assert opened("train", kind="voc", root=str(tmp_path / "voc")).taxonomy.num_classes == 21
    other = Taxonomy(tuple(f"class {i}" for i in range(21)), tuple((i, 0, 0) for i in range(21)))
    other.save(tmp_path / "other.toml")
    named = opened("train", kind="voc", root=str(tmp_path / "voc"), taxonomy=str(tmp_path / "other.toml"))
    assert named.taxonomy.names[3] == "class 3"
    make_ade20k(tmp_path / "ade")
    assert opened("train", kind="ade20k", root=str(tmp_path / "ade")).taxonomy.num_classes == 150


def test_huggingface(tmp_path: Path) -> None:
    pytest.importorskip("datasets")
    from tests.unit.data.test_huggingface import TAXONOMY, saved_splits

    source = saved_splits(tmp_path / "hub")
    TAXONOMY.save(tmp_path / "taxonomy.toml")
    found = opened("train", kind="huggingface", source=str(source), taxonomy=str(tmp_path / "taxonomy.toml"))
    labels = found.read(0).mask
    assert labels[labels != TAXONOMY.ignore_index].max() < TAXONOMY.num_classes


def with_seed(seed: int, split: str, **data: object) -> SegmentationDataset:
    config = config_from_dict({"name": "x", "seed": seed, "data": data, "augment": {"crop": [8, 8]}}, "test")
    return make_dataset(config, split)


@pytest.mark.parametrize("kind", ["digits", "planted"])
def test_a_disk_cache_keeps_the_seeds_of_made_up_images_apart(tmp_path: Path, kind: str) -> None:
    data = {"kind": kind, "num_images": [3, 2, 2]}
    plain = [with_seed(seed, "train", **data).read(0).image for seed in (0, 1)]
    assert not torch.equal(*plain)
    for seed in (0, 1, 0):
        kept = with_seed(seed, "train", **data, disk_cache=str(tmp_path)).read(0).image
        assert torch.equal(kept, plain[seed])


def test_a_disk_cache_keeps_seeded_splits_apart(tmp_path: Path) -> None:
    root = tmp_path / "data"
    for number in range(12):
        for folder, pixels in (("images", np.full((8, 8, 3), 20 * number)), ("masks", np.eye(8))):
            (root / folder).mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels.astype(np.uint8)).save(root / folder / f"{number}.png")
    data = {"kind": "folder", "root": str(root), "split_fractions": {"train": 0.5, "val": 0.5}}
    names = [tuple(with_seed(seed, "val", **data).names) for seed in (0, 1)]
    assert names[0] != names[1]
    for seed in (0, 1, 0):
        kept = with_seed(seed, "val", **data, disk_cache=str(tmp_path / "cache"))
        assert tuple(kept.names) == names[seed]
        assert torch.equal(kept.read(0).image, with_seed(seed, "val", **data).read(0).image)


def test_caches_wrap_any_kind(tmp_path: Path) -> None:
    root = make_cityscapes(tmp_path / "data", {"train": 4, "val": 3})
    cache = tmp_path / "cache"
    first = opened("train", kind="cityscapes", root=str(root), disk_cache=str(cache))
    sample = first.read(1)
    assert len(list(cache.iterdir())) == 1
    both = opened("train", kind="cityscapes", root=str(root), disk_cache=str(cache), cache=True)
    assert isinstance(both, CachedDataset)
    assert (both.read(1).image == sample.image).all()
    assert notes_of(both) == notes_of(first) != ()
    opened("train", kind="cityscapes", root=str(root), disk_cache=str(cache), labels="fine", cv=1).read(0)
    assert len(list(cache.iterdir())) == 2  # other options are another data set


@pytest.mark.parametrize("kind", sorted(set(KINDS) - {"digits", "planted", "huggingface"}))
def test_a_missing_root_is_said(kind: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"data.root is empty; say where"):
        opened("train", kind=kind)
    with pytest.raises(ConfigError, match="is not a folder"):
        opened("train", kind=kind, root=str(tmp_path / "nowhere"))


def test_every_kind_survives_the_weight_file() -> None:
    required = {"huggingface": {"source": "x", "taxonomy": "y"}}
    for kind in KINDS:
        values = {"name": "x", "data": {"kind": kind, **required.get(kind, {})}, "augment": {"crop": [8, 8]}}
        config = config_from_dict(values, "test")
        again = config_from_dict(json.loads(json.dumps(config.model_dump(mode="json"))), "test")
        assert again == config
        assert len(config.fingerprint()) == 16
