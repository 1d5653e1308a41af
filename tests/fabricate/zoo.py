"""A small clean data set of drawn scenes, for faults to be planted in.

ROOT/images/SPLIT and ROOT/masks/SPLIT hold 12 train and 6 val scenes of 96x128 with 5 classes, as JPEG images and index
PNGs.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import gaussian_filter

from hs3seg.taxonomy import Taxonomy

NAMES = ("ground", "wall", "box", "ball", "pole")
COLOURS = ((110, 80, 60), (200, 190, 150), (30, 90, 200), (220, 60, 40), (40, 160, 70))
CLEAN = {"train": 12, "val": 6}
HEIGHT, WIDTH = 96, 128


@dataclass
class Zoo:
    """The data set that a fault is planted in.

    Args:
        root: Top folder.
        taxonomy: Classes; a fault may add one.
    """

    root: Path
    taxonomy: Taxonomy = field(default_factory=lambda: Taxonomy(NAMES, COLOURS))

    def image(self, name: str, split: str = "train") -> Path:
        """File of an image."""
        return self.root / "images" / split / f"{name}.jpg"

    def mask(self, name: str, split: str = "train") -> Path:
        """File of a mask."""
        return self.root / "masks" / split / f"{name}.png"

    def labels(self, name: str, split: str = "train") -> NDArray[np.uint8]:
        """Ids (96, 128) of a mask; after `colour`, its colours (96, 128, 3)."""
        return np.array(Image.open(self.mask(name, split)))

    def pixels(self, name: str, split: str = "train") -> NDArray[np.uint8]:
        """Image (96, 128, 3)."""
        return np.array(Image.open(self.image(name, split)).convert("RGB"))

    def names(self, split: str) -> list[str]:
        """Stems of the images of a split."""
        return sorted(path.stem for path in (self.root / "images" / split).iterdir())

    def colour(self) -> None:
        """Writes all masks as colours."""
        for split in CLEAN:
            for name in self.names(split):
                save(painted(self.labels(name, split)), self.mask(name, split))

    def to_lists(self) -> None:
        """Writes train.txt and val.txt."""
        for split in CLEAN:
            lines = [f"images/{split}/{name}.jpg masks/{split}/{name}.png" for name in self.names(split)]
            (self.root / f"{split}.txt").write_text("\n".join(lines) + "\n")


def write_clean(root: Path) -> Zoo:
    """A data set without a fault."""
    zoo = Zoo(root)
    for first, (split, count) in zip((0, 100), CLEAN.items(), strict=True):
        for number in range(count):
            image, labels = scene(first + number)
            name = f"scene {first + number:03}"
            save(image, zoo.image(name, split))
            save(labels, zoo.mask(name, split))
    return zoo


def scene(seed: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Ground, wall, and things of three classes that stand at random; image (96, 128, 3) and ids (96, 128)."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    labels = np.where(rows > rng.uniform(45, 65) + columns * rng.uniform(-0.15, 0.15), 0, 1).astype(np.uint8)
    for _ in range(3):
        top, left = rng.integers(5, 60), rng.integers(2, 90)
        labels[top : top + rng.integers(14, 32), left : left + rng.integers(14, 34)] = 2
        y, x, radius = rng.integers(10, 86), rng.integers(10, 118), rng.integers(7, 14)
        labels[(rows - y) ** 2 + (columns - x) ** 2 < radius**2] = 3
    left = rng.integers(6, 116)
    labels[rng.integers(0, 30) : rng.integers(60, 95), left : left + 5] = 4
    labels[:2, : rng.integers(20, 90)] = 255
    tint = np.array([*COLOURS, (90, 90, 90)]) + rng.integers(-25, 26, (6, 3))
    image = tint[np.where(labels == 255, 5, labels)] + gaussian_filter(rng.normal(0, 60, (HEIGHT, WIDTH, 1)), (6, 6, 0))
    return np.clip(image + rng.normal(0, 4, image.shape), 0, 255).astype(np.uint8), labels


def painted(labels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Ids in the colours of their classes, void in black."""
    return np.array([*COLOURS, (0, 0, 0)], np.uint8)[np.where(labels == 255, 5, labels)]


def save(pixels: NDArray[Any], path: Path, **options: Any) -> Path:
    """Writes an array as an image file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".jpg":
        options = {"quality": 95, "subsampling": 0} | options
    Image.fromarray(pixels).save(path, **options)
    return path
