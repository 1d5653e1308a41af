"""Cityscapes in the format of its archives: street scenes of a road, houses, a sky, people and vehicles."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from hs3seg.taxonomies.cityscapes import LABELS, TRAIN_ID_OF_ID

CITIES = {
    "train": ("aachen", "bochum", "bremen", "cologne"),
    "val": ("frankfurt", "lindau", "munster"),
    "test": ("berlin", "bonn"),
    "train_extra": ("augsburg", "bad-honnef"),
}
_COLOURS = np.array([label.colour for label in LABELS[:34]], np.uint8)


@dataclass(frozen=True)
class Scene:
    """One frame.

    Args:
        rgb: (H, W, 3) uint8.
        ids: (H, W) uint8 label ids.
        instances: (H, W) uint16, as in *_instanceIds.png.
        coarse: (H, W) uint8 label ids: whole objects, 0 around their edges.
        auto: (H, W) uint8 label ids, right in three of four columns.
        probability: (H, W) uint8, 255 = sure.
        disparity: (H, W) uint16, 0 = none.
    """

    rgb: NDArray[np.uint8]
    ids: NDArray[np.uint8]
    instances: NDArray[np.uint16]
    coarse: NDArray[np.uint8]
    auto: NDArray[np.uint8]
    probability: NDArray[np.uint8]
    disparity: NDArray[np.uint16]


def make_scene(seed: int, size: tuple[int, int] = (64, 128)) -> Scene:
    """A scene that shows each of the 19 classes, four void labels and a group of cars, as far as the size allows."""
    rng = np.random.default_rng(seed)
    height, width = size
    ids = np.empty(size, np.uint8)
    bands = ((0.0, 23), (0.2, 11), (0.35, 21), (0.5, 22), (0.6, 8), (0.7, 7))  # sky, building, vegetation, ... road
    for start, label in bands:
        ids[round(start * height) :] = label
    instances = ids.astype(np.uint16)
    objects = [12, 13, 17, 19, 20, 9, *(label for label in range(24, 34) for _ in range(2))]
    for number, label in enumerate(rng.permutation(objects)):
        h, w = rng.integers(2, max(3, height // 5)), rng.integers(2, max(3, width // 7))
        top, left = rng.integers(0, height - h), rng.integers(0, width - w)
        box = (slice(top, top + h), slice(left, left + w))
        ids[box] = label
        instances[box] = 1000 * int(label) + number if label >= 24 else label
    group = (slice(height // 2, height // 2 + 2), slice(0, width // 6))
    ids[group] = instances[group] = 26
    ids[-max(1, height // 16) :] = instances[-max(1, height // 16) :] = 1  # ego vehicle
    for edge, label in (((slice(None), 0), 3), ((slice(None), -1), 2), ((0, slice(None)), 4)):
        ids[edge] = instances[edge] = label
    inner = np.ones(size, bool)
    inner[1:-1, 1:-1] = (
        (ids[1:-1, 1:-1] == ids[:-2, 1:-1])
        & (ids[1:-1, 1:-1] == ids[2:, 1:-1])
        & (ids[1:-1, 1:-1] == ids[1:-1, :-2])
        & (ids[1:-1, 1:-1] == ids[1:-1, 2:])
    )
    rgb = np.clip(_COLOURS[ids] + rng.integers(-12, 13, (*size, 1)), 0, 255).astype(np.uint8)
    doubtful = np.arange(width) % 4 == 3
    disparity = rng.integers(1, 126 * 256, size).astype(np.uint16)
    disparity[rng.random(size) < 0.2] = 0
    return Scene(
        rgb,
        ids,
        instances,
        coarse=np.where(inner, ids, 0).astype(np.uint8),
        auto=np.where(doubtful, np.roll(ids, 3, 0), ids).astype(np.uint8),
        probability=np.where(doubtful, rng.integers(0, 128, size), rng.integers(128, 256, size)).astype(np.uint8),
        disparity=disparity,
    )


def names_of(split: str, count: int) -> list[str]:
    """Names of a split's frames: cities in turn, sorted as the reader gives them."""
    cities = CITIES[split]
    return sorted(f"{cities[i % len(cities)]}_{i // len(cities):06}_{19 + 7 * i:06}" for i in range(count))


def make_cityscapes(
    root: Path,
    splits: Mapping[str, int] | None = None,
    size: tuple[int, int] = (64, 128),
    coarse: bool = False,
    autolabelled: bool = False,
    disparity: bool = False,
    seed: int = 0,
) -> Path:
    """Writes a small data set.

    Frame i of all, in the order of `splits` and `names_of`, is `make_scene(seed + i)`.

    Args:
        root: Where; its folders are made.
        splits: Number of frames of train, val, test, train_extra; default: 4, 2, 1, 0.
        size: Height and width.
        coarse: Whether to write gtCoarse, too; train_extra has nothing else.
        autolabelled: Whether to write refinement_final, too, for train_extra.
        disparity: Whether to write disparity, too.
        seed: Of the first scene.
    """
    number = seed
    for split, count in ({"train": 4, "val": 2, "test": 1} if splits is None else splits).items():
        for name in names_of(split, count):
            scene = make_scene(number, size)
            number += 1
            place = f"{split}/{name.split('_')[0]}/{name}"
            _save(root / f"leftImg8bit/{place}_leftImg8bit.png", scene.rgb)
            if split in ("train", "val"):
                _write_labels(root / f"gtFine/{place}_gtFine", scene.ids, scene.instances)
            if split == "test":  # as in the archive: what is around the scene, and else nothing
                void = np.where(scene.ids < 4, scene.ids, 0).astype(np.uint8)
                _write_labels(root / f"gtFine/{place}_gtFine", void, void.astype(np.uint16))
            elif coarse or (split == "train_extra" and autolabelled):
                instances = np.where(scene.coarse > 0, scene.instances, 0).astype(np.uint16)
                _write_labels(root / f"gtCoarse/{place}_gtCoarse", scene.coarse, instances)
            if autolabelled and split == "train_extra":
                _save(root / f"refinement_final/{place}_leftImg8bit.png", scene.auto)
                _save(root / f"refinement_final/{place}_leftImg8bit_prob.png", scene.probability)
            if disparity:
                _save(root / f"disparity/{place}_disparity.png", scene.disparity)
    return root


def write_train_ids(root: Path) -> None:
    """Writes *_labelTrainIds.png beside every *_labelIds.png, as the official script does."""
    for path in root.rglob("*_labelIds.png"):
        ids = TRAIN_ID_OF_ID[np.array(Image.open(path))]
        _save(path.with_name(path.name.replace("labelIds", "labelTrainIds")), ids)


def _write_labels(stem: Path, ids: NDArray[np.uint8], instances: NDArray[np.uint16]) -> None:
    _save(stem.with_name(f"{stem.name}_labelIds.png"), ids)
    _save(stem.with_name(f"{stem.name}_instanceIds.png"), instances)
    _save(stem.with_name(f"{stem.name}_color.png"), _COLOURS[ids])
    stem.with_name(f"{stem.name}_polygons.json").write_text("{}")


def _save(path: Path, pixels: NDArray[Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
