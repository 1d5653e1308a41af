"""Digit scenes: real handwritten digits on cluttered backgrounds, composed on the fly.

The handwritings are those that ship inside scikit-learn (Alpaydin and Kaynak, 1797 scans of 8x8). A scene depends on
(seed, split, index) alone; the three splits draw from disjoint handwritings.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torchvision import tv_tensors

from hs3seg.data.sample import Sample
from hs3seg.errors import DataError
from hs3seg.taxonomy import Taxonomy, distinct_colours

_SPLITS = {"train": (0, 6), "val": (6, 8), "test": (8, 10)}  # tenths of the handwritings
NAMES = ("background", "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
_INK = 96  # stroke pixels at least this dark (0..255) carry the digit's label


class DigitScenes:
    """Scenes of 2 to 4 digits that may overlap; the label of a pixel is the digit whose stroke it shows, or background.

    Args:
        split: train, val or test.
        num_images: Number of scenes.
        size: (height, width) in pixels, at least 32.
        seed: Of all scenes.
    """

    taxonomy = Taxonomy(NAMES, ((40, 44, 52), *distinct_colours(10)))

    def __init__(self, split: str, num_images: int, size: tuple[int, int] = (96, 128), seed: int = 0) -> None:
        if split not in _SPLITS:
            raise DataError(f"digit scenes have no split '{split}'; allowed: {', '.join(_SPLITS)}")
        if min(size) < 32:
            raise DataError(f"digit scenes of {size[0]}x{size[1]} pixels are too small for digits; give at least 32x32")
        self.split, self.size, self.seed = split, size, seed
        self._num_images = num_images

    @property
    def names(self) -> Sequence[str]:
        """Names such as train-00012."""
        return [f"{self.split}-{index:05}" for index in range(self._num_images)]

    def __len__(self) -> int:
        return self._num_images

    def files(self, index: int) -> tuple[str, ...]:
        """Scenes have no files; the name stands for them."""
        return (f"digit scene {self.split}-{index:05}",)

    def read(self, index: int) -> Sample:
        """A scene with its labels."""
        if not 0 <= index < self._num_images:
            raise IndexError(f"scene {index} of {self._num_images}")
        image, mask, _ = self._compose(index)
        pixels = torch.from_numpy(image).permute(2, 0, 1).contiguous()
        return Sample(tv_tensors.Image(pixels), tv_tensors.Mask(torch.from_numpy(mask)), f"{self.split}-{index:05}")

    def depth(self, index: int) -> NDArray[np.float32]:
        """Depth (H, W) of a scene, 0 = nearest digit .. 1 = background, from the order of drawing."""
        return self._compose(index)[2]

    def _compose(self, index: int) -> tuple[NDArray[np.uint8], NDArray[np.int64], NDArray[np.float32]]:
        random = np.random.default_rng([self.seed, list(_SPLITS).index(self.split), index])
        height, width = self.size
        scene = _background(random, height, width)
        mask = np.zeros((height, width), np.int64)
        depth = np.ones((height, width), np.float32)
        scans, labels = _handwritings()
        first, last = (len(scans) * tenth // 10 for tenth in _SPLITS[self.split])
        count = int(random.integers(2, 5))
        for order in range(count):
            choice = int(random.integers(first, last))
            ink = _draw(scans[choice], random, min(height, width))  # (h, w) 0..255
            top = int(random.integers(-ink.shape[0] // 4, height - 3 * ink.shape[0] // 4))
            left = int(random.integers(-ink.shape[1] // 4, width - 3 * ink.shape[1] // 4))
            rows, columns, ink = _clip(ink, top, left, height, width)
            alpha = (ink / 255.0)[..., None] * random.uniform(0.85, 1.0)
            patch = scene[rows, columns]
            patch += alpha * (_colour(random, patch) - patch)
            stroke = ink >= _INK
            mask[rows, columns][stroke] = labels[choice] + 1
            depth[rows, columns][stroke] = 1 - (order + 1) / (count + 1)
        scene += random.standard_normal(scene.shape, np.float32) * 7
        return np.clip(scene, 0, 255).astype(np.uint8), mask, depth


@lru_cache(maxsize=1)
def _handwritings() -> tuple[list[Image.Image], NDArray[np.int64]]:
    from sklearn.datasets import load_digits

    values = load_digits()
    # Shuffled once, with a fixed seed: the file is ordered by writer.
    order = np.random.default_rng(1797).permutation(len(values.images))
    # Every scan touches its box; a margin keeps the strokes' ends round.
    scans = [Image.fromarray((np.pad(image, 1) * (255 / 16)).astype(np.uint8)) for image in values.images[order]]
    return scans, values.target[order].astype(np.int64)


def _background(random: np.random.Generator, height: int, width: int) -> NDArray[np.float32]:
    """Coloured clouds with lines and blobs on them. (H, W, 3), 0..255."""
    grey = random.uniform(30, 130, (4, 5, 1))
    cells = np.clip(grey + random.uniform(-35, 35, (4, 5, 3)), 0, 255).astype(np.uint8)
    scene = np.asarray(Image.fromarray(cells).resize((width, height), Image.Resampling.BICUBIC), np.float32).copy()
    fine = random.normal(0, 12, (height // 4, width // 4)).astype(np.float32)
    scene += np.asarray(Image.fromarray(fine).resize((width, height), Image.Resampling.BILINEAR))[..., None]
    y, x = np.arange(height, dtype=np.float32)[:, None], np.arange(width, dtype=np.float32)
    for _ in range(int(random.integers(3, 8))):
        angle, place = random.uniform(0, np.pi), random.uniform(-0.5, 0.5) * width
        distance = np.abs(np.cos(angle) * (x - width / 2) + np.sin(angle) * (y - height / 2) - place)
        along = -np.sin(angle) * (x - width / 2) + np.cos(angle) * (y - height / 2)
        start = random.uniform(-0.6, 0.4) * width
        inside = (distance < random.uniform(0.8, 2.2)) & (along > start) & (along < start + random.uniform(10, 45))
        scene[inside] += random.uniform(-110, 110, 3)
    for _ in range(int(random.integers(2, 6))):
        centre_y, centre_x = random.uniform(0, height), random.uniform(0, width)
        inside = (y - centre_y) ** 2 / random.uniform(6, 90) + (x - centre_x) ** 2 / random.uniform(6, 90) < 1
        scene[inside] += random.uniform(-90, 90, 3)
    return np.clip(scene, 0, 255)


def _draw(scan: Image.Image, random: np.random.Generator, side: int) -> NDArray[np.float32]:
    """A handwriting at random scale and rotation, as ink 0..255."""
    scale = int(1.25 * side * random.uniform(0.42, 0.75))  # 10/8: the margin
    narrow = max(6, int(scale * random.uniform(0.8, 1.1)))
    large = scan.resize((narrow, scale), Image.Resampling.BICUBIC)
    turned = large.rotate(float(random.uniform(-15, 15)), Image.Resampling.BILINEAR, expand=True)
    return np.asarray(turned, np.float32)


def _clip(
    ink: NDArray[np.float32], top: int, left: int, height: int, width: int
) -> tuple[slice, slice, NDArray[np.float32]]:
    """The part of a digit that lies inside the scene."""
    y0, x0 = max(top, 0), max(left, 0)
    y1, x1 = min(top + ink.shape[0], height), min(left + ink.shape[1], width)
    return slice(y0, y1), slice(x0, x1), ink[y0 - top : y1 - top, x0 - left : x1 - left]


def _colour(random: np.random.Generator, patch: NDArray[np.float32]) -> NDArray[Any]:
    """A stroke colour brighter by 60 to 150 grey levels than the place where it is drawn."""
    mean = patch.mean(axis=(0, 1)) if patch.size else np.full(3, 80.0)
    return np.clip(mean + random.uniform(60, 150) + random.uniform(-40, 40, 3), 0, 255)
