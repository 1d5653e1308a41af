from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from hs3seg.data import DigitScenes, TrainTransform, write_init
from hs3seg.errors import ConfigError, DataError
from hs3seg.integrations.data import IMAGENET_MEAN, IMAGENET_STD, TorchDataset, cut_parts, open_parts
from hs3seg.taxonomy import Taxonomy


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    for split, count in (("train", 8), ("val", 2)):
        for kind in ("images", "masks"):
            (tmp_path / kind / split).mkdir(parents=True)
        for number in range(count):
            image = rng.integers(0, 256, (40, 60, 3), np.uint8)
            Image.fromarray(image).save(tmp_path / "images" / split / f"{number}.png")
            mask = rng.integers(0, 3, (40, 60), np.uint8)
            Image.fromarray(mask).save(tmp_path / "masks" / split / f"{number}.png")
    return tmp_path


def test_items_are_the_samples_normalised() -> None:
    scenes = DigitScenes("train", 2, (32, 48))
    image, labels = TorchDataset(scenes)[1]
    sample = scenes.read(1)
    assert (image.dtype, image.shape, labels.dtype) == (torch.float32, (3, 32, 48), torch.int64)
    back = image * torch.tensor(IMAGENET_STD).view(3, 1, 1) + torch.tensor(IMAGENET_MEAN).view(3, 1, 1)
    torch.testing.assert_close((back * 255).round().to(torch.uint8), torch.as_tensor(sample.image))
    assert torch.equal(labels, torch.as_tensor(sample.mask))
    item = TorchDataset(scenes, as_dict=True)[1]
    assert isinstance(item, dict)
    assert torch.equal(item["pixel_values"], image)
    assert torch.equal(item["labels"], labels)


def test_images_and_labels_get_one_size_and_labels_stay_classes(folder: Path) -> None:
    parts = open_parts(folder, (24, 32))
    for part in (parts.reduced, parts.analysis, parts.train, parts.val):
        image, labels = part[0]
        assert image.shape[-2:] == labels.shape == (24, 32)
        assert set(labels.unique().tolist()) <= {0, 1, 2}


def test_reduced_and_analysis_together_are_train() -> None:
    parts = open_parts("digits", (32, 32), num_images=12)
    names = [set(part.dataset.names) for part in (parts.reduced, parts.analysis, parts.train, parts.val)]
    assert names[0] | names[1] == names[2]
    assert not names[0] & names[1]
    assert len(names[1]) == 3
    assert not names[3] & names[2]
    assert parts.taxonomy is DigitScenes.taxonomy


def test_only_what_is_trained_on_is_augmented() -> None:
    train, val = DigitScenes("train", 4, (48, 48)), DigitScenes("val", 1, (48, 48))
    parts = cut_parts(train, val, (48, 48), augment=TrainTransform((32, 32)))
    shapes = [part[0][0].shape[-1] for part in (parts.reduced, parts.train, parts.analysis, parts.val)]
    assert shapes == [32, 32, 48, 48]


def test_folder_takes_its_taxonomy_file(folder: Path) -> None:
    assert open_parts(folder).taxonomy.num_classes == 3
    Taxonomy.from_names(("ground", "water", "sky")).save(folder / "taxonomy.toml")
    assert open_parts(folder).taxonomy.names == ("ground", "water", "sky")


def test_missing_folder_is_told(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist; give a folder of images and masks, or 'digits'"):
        open_parts(tmp_path / "missing")


def black_and_white(root: Path) -> Path:
    """Masks of 0 and 255: two classes, as many tools write them."""
    for split, count in (("training", 5), ("validation", 3)):
        for number in range(count):
            mask = np.zeros((40, 60), np.uint8)
            mask[10 : 20 + number, 5:30] = 255
            for kind, pixels in (("images", np.stack([mask // 2] * 3, -1)), ("masks", mask)):
                (root / kind / split).mkdir(parents=True, exist_ok=True)
                Image.fromarray(pixels).save(root / kind / split / f"{number}.png")
    return root


def test_folder_is_read_as_its_config_says(tmp_path: Path) -> None:
    root = black_and_white(tmp_path / "set")
    with pytest.raises(DataError, match=r"their ids in data\.ids \(`hs3 data init` writes both\)"):
        open_parts(root)
    assert write_init(root).proposal.data["ids"] == [0, 255]
    root = root.rename(tmp_path / "moved")  # the config says where the folder was
    parts = open_parts(root, (40, 60))
    for part, count in ((parts.train, 5), (parts.val, 3)):
        assert len(part) == count
        for index in range(count):
            mask = np.array(Image.open(part.dataset.files(index)[1]))
            assert np.array_equal(part[index][1].numpy(), mask // 255)
    (root / "hs3.toml").unlink()
    for split, own in (("training", "train"), ("validation", "val")):
        for kind in ("images", "masks"):
            (root / kind / split).rename(root / kind / own)
    with pytest.raises(DataError, match=r"nothing but 0 and 255.*set data\.ids = \[0, 255\]"):
        open_parts(root)


def test_a_config_that_cannot_be_read_is_told(folder: Path) -> None:
    (folder / "hs3.toml").write_text("[data]\nkind = 'folder'\nidz = [0, 255]\n")
    with pytest.raises(ConfigError, match=r"hs3\.toml: unknown key 'data\.idz'; nearest: 'data\.ids'"):
        open_parts(folder)
