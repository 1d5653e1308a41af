"""Planted scenes: objects of which a small window tells some classes apart and others not, so that groups are known.

Crossed scenes have a class for each pair of surface and shape, and the background is ignored. In mixed ones red, blue
and green objects have a class per shape; yellow, striped and checked ones have one class each, and so has the
background. Inside, a red disc looks like a red ring: what sees no more than a window smaller than an object can find
one group per surface, no more. A scene depends on (seed, split, index) alone.
"""

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torchvision import tv_tensors

from hs3seg.data.sample import Sample
from hs3seg.errors import DataError
from hs3seg.taxonomy import Grouping, Taxonomy

SHAPES = ("disc", "ring", "triangle")
SURFACES = ("red", "blue", "green", "yellow", "striped", "checked")
_SHAPED = SURFACES[:3]
_COLOURS = {"red": (170, 60, 60), "blue": (60, 75, 175), "green": (60, 150, 65), "yellow": (170, 160, 60)}  # mean RGB
_MAP = {
    "red": (240, 70, 60),
    "blue": (80, 120, 255),
    "green": (60, 210, 90),
    "yellow": (235, 215, 50),
    "striped": (190, 100, 220),
    "checked": (60, 200, 210),
}  # colours of drawn label maps
_SPLITS = ("train", "val", "test")
_LARGEST = 0.44  # circumscribed radius of an object, as a share of the scene's shorter side
_SMALLEST = 0.36
_ROUND = 0.85  # radius of a disc, as a share of what is kept free for it
_HOLE = 0.38  # of a ring, as a share of its radius: a small window fits between hole and outside
_TRIES = 40  # places tried for an object that must touch no other

StageKind = Literal["local", "global"]


class PlantedScenes:
    """Scenes of 1 to 3 whole objects on grey clouds, with uneven light and noise.

    Args:
        split: train, val or test.
        num_images: Number of scenes.
        size: (height, width) in pixels, at least 64.
        seed: Of all scenes.
        num_shapes: Shapes of an object, 2 (disc and ring) or 3 (triangle too), also classes of a shaped surface.
        mixed: Whether some groups have one class only: half of the surfaces, and the background.

    Raises:
        DataError: another split or number of shapes, or too small a size.
    """

    def __init__(
        self,
        split: str,
        num_images: int,
        size: tuple[int, int] = (80, 96),
        seed: int = 0,
        num_shapes: int = 2,
        mixed: bool = False,
    ) -> None:
        if split not in _SPLITS:
            raise DataError(f"planted scenes have no split '{split}'; allowed: {', '.join(_SPLITS)}")
        if min(size) < 64:
            raise DataError(
                f"planted scenes of {size[0]}x{size[1]} pixels are too small for objects that a small window sees only"
                " a part of; give at least 64x64"
            )
        self.split, self.size, self.seed = split, size, seed
        self.taxonomy = planted_taxonomy(num_shapes, mixed=mixed)
        self._shapes = SHAPES[:num_shapes]
        self._num_images = num_images

    @property
    def names(self) -> Sequence[str]:
        """Names such as train-00012."""
        return [f"{self.split}-{index:05}" for index in range(self._num_images)]

    def __len__(self) -> int:
        return self._num_images

    def files(self, index: int) -> tuple[str, ...]:
        """Scenes have no files; the name stands for them."""
        return (f"planted scene {self.split}-{index:05}",)

    def read(self, index: int) -> Sample:
        """A scene with its labels."""
        if not 0 <= index < self._num_images:
            raise IndexError(f"scene {index} of {self._num_images}")
        image, mask = self._compose(index)
        pixels = torch.from_numpy(image).permute(2, 0, 1).contiguous()
        return Sample(tv_tensors.Image(pixels), tv_tensors.Mask(torch.from_numpy(mask)), f"{self.split}-{index:05}")

    def _compose(self, index: int) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
        random = np.random.default_rng([self.seed, _SPLITS.index(self.split), index])
        height, width = self.size
        side = min(self.size)
        scene = _clouds(random, height, width)
        names = self.taxonomy.names
        background = 0 if names[0] == "background" else self.taxonomy.ignore_index
        mask = np.full((height, width), background, np.int64)
        taken: list[tuple[float, float, float]] = []
        for _ in range(int(random.integers(2, 4))):
            radius = side * random.uniform(_SMALLEST, _LARGEST)
            place = _place(random, radius, height, width, taken)
            label = int(random.integers(names[0] == "background", len(names)))
            if place is None:
                continue
            taken.append((*place, radius))
            surface, *own = names[label].split("_")
            shape = own[0] if own else self._shapes[int(random.integers(len(self._shapes)))]
            distance = _distance(shape, height, width, place, radius, random.uniform(0, 2 * np.pi))
            alpha = np.clip(0.5 - distance, 0, 1)[..., None]  # an edge is one pixel wide
            scene += alpha * (_paint(random, surface, height, width) - scene)
            mask[distance < 0] = label
        scene *= _light(random, height, width)
        scene += random.standard_normal(scene.shape, np.float32) * 9
        return np.clip(scene, 0, 255).astype(np.uint8), mask


def planted_taxonomy(num_shapes: int = 2, *, mixed: bool = False) -> Taxonomy:
    """The classes, see `PlantedScenes`.

    Raises:
        DataError: not 2 or 3 shapes.
    """
    if num_shapes not in (2, 3):
        raise DataError(f"planted scenes of {num_shapes} shapes; allowed: 2, 3")
    names, colours = (["background"], [(60, 60, 66)]) if mixed else ([], [])
    for surface in SURFACES:
        shaped = not mixed or surface in _SHAPED
        for shape, shade in zip(SHAPES[: num_shapes if shaped else 1], (1.0, 0.6, 0.35), strict=False):
            names.append(f"{surface}_{shape}" if shaped else surface)
            red, green, blue = (round(shade * value) for value in _MAP[surface])
            colours.append((red, green, blue))
    return Taxonomy(tuple(names), tuple(colours))


def planted_grouping(stage_kind: StageKind, num_shapes: int = 2, *, mixed: bool = False) -> Grouping:
    """The truth: what a stage can tell apart.

    Args:
        stage_kind: `local` = it sees a window smaller than an object: a group per surface, 6, and in mixed scenes the
            background; `global` = it sees whole objects: every class on its own.
        num_shapes: As of the scenes.
        mixed: As of the scenes.

    Raises:
        DataError: another kind or number of shapes.
    """
    names = planted_taxonomy(num_shapes, mixed=mixed).names
    if stage_kind == "global":
        return Grouping.identity(len(names))
    if stage_kind == "local":
        return Grouping.from_labels([("background", *SURFACES).index(name.split("_")[0]) for name in names])
    raise DataError(f"unknown kind of stage '{stage_kind}'; allowed: local, global")


def _place(
    random: np.random.Generator, radius: float, height: int, width: int, taken: Sequence[tuple[float, float, float]]
) -> tuple[float, float] | None:
    """Centre (y, x) of a whole object that touches no other one; None where none was found."""
    for _ in range(_TRIES):
        y, x = random.uniform(radius, height - radius), random.uniform(radius, width - radius)
        if all((y - other_y) ** 2 + (x - other_x) ** 2 > (radius + other) ** 2 for other_y, other_x, other in taken):
            return y, x
    return None


def _distance(
    shape: str, height: int, width: int, centre: tuple[float, float], radius: float, angle: float
) -> NDArray[np.float32]:
    """Pixels from the outline of a turned shape (H, W), below 0 inside."""
    y = np.arange(height, dtype=np.float32)[:, None] - centre[0]
    x = np.arange(width, dtype=np.float32) - centre[1]
    if shape == "triangle":
        turns = angle + 2 * np.pi * np.arange(3) / 3
        return np.asarray(np.max([np.cos(t) * x + np.sin(t) * y for t in turns], axis=0) - radius / 2, np.float32)
    outer = _ROUND * radius
    away = np.sqrt(y**2 + x**2)
    distance = away - outer
    return np.asarray(np.maximum(distance, _HOLE * outer - away) if shape == "ring" else distance, np.float32)


def _paint(random: np.random.Generator, surface: str, height: int, width: int) -> NDArray[np.float32]:
    """A surface without end, (H, W, 3) in 0..255: a colour, or grey with a fine pattern."""
    if surface in _COLOURS:
        paint = np.asarray(_COLOURS[surface], np.float32) + random.normal(0, 12, 3).astype(np.float32)
        return np.broadcast_to(paint, (height, width, 3)) + 0.5 * (_clouds(random, height, width) - 110)
    y, x = np.arange(height, dtype=np.float32)[:, None], np.arange(width, dtype=np.float32)
    angle, period = random.uniform(0, np.pi), random.uniform(5, 6.5)
    along = np.sin(2 * np.pi / period * (np.cos(angle) * x + np.sin(angle) * y) + random.uniform(0, 2 * np.pi))
    across = np.sin(2 * np.pi / period * (np.cos(angle) * y - np.sin(angle) * x) + random.uniform(0, 2 * np.pi))
    pattern = along if surface == "striped" else 1.4 * along * across
    return np.asarray(random.uniform(85, 135) + 45 * pattern[..., None] + np.zeros(3), np.float32)


def _clouds(random: np.random.Generator, height: int, width: int) -> NDArray[np.float32]:
    """Grey clouds of three sizes with a little colour. (H, W, 3), about 110."""
    scene = np.full((height, width, 3), random.uniform(95, 125), np.float32)
    for cell, strength in ((32, 22), (12, 14), (4, 12)):
        shape = (height // cell + 2, width // cell + 2)
        for channel, grey in enumerate(random.normal(0, strength, shape) + random.normal(0, 4, (3, *shape))):
            cloud = Image.fromarray(grey.astype(np.float32)).resize((width, height), Image.Resampling.BICUBIC)
            scene[..., channel] += np.asarray(cloud)
    return scene


def _light(random: np.random.Generator, height: int, width: int) -> NDArray[np.float32]:
    """Brightness that changes across the scene, (H, W, 1), about 0.6..1.4."""
    y, x = np.linspace(-1, 1, height)[:, None], np.linspace(-1, 1, width)
    angle = random.uniform(0, 2 * np.pi)
    slope = random.uniform(0, 0.2) * (np.cos(angle) * x + np.sin(angle) * y)
    return np.asarray((random.uniform(0.8, 1.2) + slope)[..., None], np.float32)
