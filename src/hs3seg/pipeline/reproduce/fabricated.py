"""Made-up data in the formats of the paper's data sets, for dry runs: patches of random classes in their colours."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from hs3seg.errors import ConfigError
from hs3seg.taxonomies.cityscapes import ID_OF_TRAIN_ID, LABELS

TRAIN, OTHERS = 6, 2
"""Frames of the training split and of each other: enough for a batch, an analysis split of two, and an evaluation."""

Pixels = NDArray[np.uint8] | NDArray[np.uint16]


def make_data(kind: str, root: Path) -> Path:
    """Writes a data set, unless it is there.

    Args:
        kind: As `data.kind`: cityscapes, nyuv2 or camvid.
        root: Its folder.

    Raises:
        ConfigError: another kind.
    """
    if kind not in _MAKERS:
        raise ConfigError(f"a dry run has made-up data of the kinds {', '.join(_MAKERS)}, not of '{kind}'")
    done = root / "made-up"
    if not done.exists():
        _MAKERS[kind](root)
        done.write_text("Random patches, for dry runs.\n", encoding="utf-8")
    return root


def _cityscapes(root: Path) -> None:
    with_instances = np.array([label.id for label in LABELS if label.has_instances])
    for split, city, count in (("train", "aachen", TRAIN), ("val", "frankfurt", OTHERS), ("test", "berlin", OTHERS)):
        for number in range(count):
            name = f"{city}_000000_{number:06}"
            classes = _patches((96, 192), 19, _seed(split, number))
            ids = ID_OF_TRAIN_ID[classes].astype(np.uint8)
            place = f"{split}/{city}/{name}"
            _save(root / f"leftImg8bit/{place}_leftImg8bit.png", _colours(classes, number))
            instances = np.where(np.isin(ids, with_instances), ids.astype(np.uint16) * 1000, ids)
            _save(root / f"gtFine/{place}_gtFine_labelIds.png", ids)
            _save(root / f"gtFine/{place}_gtFine_instanceIds.png", instances.astype(np.uint16))


def _nyuv2(root: Path) -> None:
    number = 0
    for split, count in (("train", TRAIN), ("test", OTHERS)):
        lines = []
        for _ in range(count):
            labels = _patches((96, 128), 41, _seed(split, number))  # 0 is void
            depth = (1000 + 100 * labels.astype(np.uint16)).astype(np.uint16)
            _save(root / f"RGB/{number}.png", _colours(labels, number))
            _save(root / f"HHA/{number}.png", _colours(labels, 100 + number))
            _save(root / f"Depth/{number}.png", depth)
            _save(root / f"Label/{number}.png", labels)
            lines.append(f"RGB/{number}.png\tLabel/{number}.png\n")
            number += 1
        (root / f"{split}.txt").write_text("".join(lines), encoding="utf-8")


def _camvid(root: Path) -> None:
    for split, count in (("train", TRAIN), ("val", OTHERS), ("test", OTHERS)):
        for number in range(count):
            labels = _patches((96, 128), 12, _seed(split, number))  # 11 is void
            _save(root / split / f"{number}.png", _colours(labels, number))
            _save(root / f"{split}annot" / f"{number}.png", labels)


_MAKERS: dict[str, Callable[[Path], None]] = {"cityscapes": _cityscapes, "nyuv2": _nyuv2, "camvid": _camvid}


def _seed(split: str, number: int) -> int:
    return 1000 * ("train", "val", "test").index(split) + number


def _patches(size: tuple[int, int], classes: int, seed: int) -> NDArray[np.uint8]:
    """(H, W) uint8: squares of 8 pixels, each of one class."""
    grid = np.random.default_rng(seed).integers(0, classes, (size[0] // 8, size[1] // 8), np.uint8)
    return grid.repeat(8, axis=0).repeat(8, axis=1)


def _colours(labels: NDArray[np.uint8], seed: int) -> NDArray[np.uint8]:
    """(H, W, 3) uint8: a colour per class, and noise."""
    palette = np.random.default_rng(0).integers(40, 216, (256, 3))
    noise = np.random.default_rng(seed).integers(-30, 31, (*labels.shape, 3))
    return (palette[labels] + noise).clip(0, 255).astype(np.uint8)


def _save(path: Path, pixels: Pixels) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
