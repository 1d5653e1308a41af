"""Confusion counts image by image: what bootstraps over images and hints about labels are made from.

Most pairs of classes never meet in an image, so only the cells with a pixel are kept. Rows are truth, columns
prediction.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hs3seg.analysis.confusion import Counts, _load, save_arrays
from hs3seg.errors import PlanError
from hs3seg.taxonomy import Grouping

_PARTS = ("image", "row", "column", "count")
_BLOCK = 2**16  # pixels that are counted at once, so that they stay in the processor's cache
_AGREED = ""  # no output is called so


@dataclass(frozen=True)
class Cells:
    """The filled cells of one matrix per image.

    Args:
        size: Rows and columns of each matrix, k.
        image: (M,) position of the image.
        row: (M,) truth.
        column: (M,) prediction.
        count: (M,) pixels, above 0.
    """

    size: int
    image: NDArray[np.int64]
    row: NDArray[np.int64]
    column: NDArray[np.int64]
    count: NDArray[np.int64]

    def weighted(self, weights: ArrayLike) -> Counts:
        """The sum of the images' matrices, each times its weight.

        Args:
            weights: (N,) whole numbers, such as how often a bootstrap drew each image.

        Returns:
            (k, k) int64.
        """
        values = np.asarray(weights)[self.image] * self.count
        # Sums in float64 are exact up to 2^53 pixels.
        sums = np.bincount(self.row * self.size + self.column, values, self.size**2)
        return np.rint(sums).astype(np.int64).reshape(self.size, self.size)

    def of_truth(self, num_images: int) -> Counts:
        """Pixels of every truth class in every image, (N, k) int64."""
        sums = np.bincount(self.image * self.size + self.row, self.count, num_images * self.size)
        return np.rint(sums).astype(np.int64).reshape(num_images, self.size)


@dataclass(frozen=True)
class PerImage:
    """What one pass counted in every image.

    Args:
        names: Of the N images.
        pixels: (N,) labelled pixels.
        outputs: Stage -> its matrices in its own groups, shallow to deep, and `final`.
        agreed: Truth x final prediction, only of pixels where every output is wrong and all say the same: the final
            prediction's group is each stage's prediction, and is not the truth's group.
    """

    names: tuple[str, ...]
    pixels: NDArray[np.int64]
    outputs: Mapping[str, Cells]
    agreed: Cells

    @property
    def num_images(self) -> int:
        """N."""
        return len(self.names)

    @property
    def labelled(self) -> NDArray[np.int64]:
        """Positions of the images that have a labelled pixel."""
        return np.flatnonzero(self.pixels)

    def total(self) -> dict[str, Counts]:
        """The matrices summed over all images: output -> (k, k), as `hs3seg.engine.evaluate` counts them."""
        return self.weighted(np.ones(self.num_images, np.int64))

    def weighted(self, weights: ArrayLike) -> dict[str, Counts]:
        """Output -> the sum of the images' matrices, each times its weight (N,)."""
        return {name: cells.weighted(weights) for name, cells in self.outputs.items()}

    def resample(self, generator: np.random.Generator) -> dict[str, Counts]:
        """Output -> summed matrix of a bootstrap sample: as many labelled images as there are, with replacement."""
        labelled = self.labelled
        drawn = labelled[generator.integers(0, len(labelled), len(labelled))]
        return self.weighted(np.bincount(drawn, minlength=self.num_images))


@dataclass
class PerImageCounter:
    """Counts every image by itself while a network is evaluated.

    Args:
        groupings: Output -> its groups; `final` has all classes.
        ignore_index: Truth label that does not count.
    """

    groupings: Mapping[str, Grouping]
    ignore_index: int = 255
    images: list[tuple[int, str, int, dict[str, NDArray[np.int64]]]] = field(default_factory=list)
    """One entry per image: position, name, labelled pixels, and per matrix its cells (M, 3): row, column, count.
    Plain values, so that those of several processes can be gathered."""

    def __post_init__(self) -> None:
        """Keeps the groups as arrays."""
        self._groups = {name: np.array(grouping.assignment) for name, grouping in self.groupings.items()}

    def add(
        self, index: int, name: str, truth: NDArray[Any], predictions: Mapping[str, NDArray[np.integer[Any]]]
    ) -> None:
        """Counts one image.

        Args:
            index: Its position in the split.
            name: Of the image.
            truth: (H, W) classes or the ignore label.
            predictions: Output -> (H, W) predicted groups.
        """
        found = {output: predictions[output].ravel() for output in self.groupings}
        counts = {output: np.zeros((grouping.num_groups,) * 2, np.int64) for output, grouping in self.groupings.items()}
        agreed = np.zeros_like(counts["final"])
        step = max(_BLOCK, agreed.size)  # with very many classes the matrices are what costs
        for start in range(0, truth.size, step):
            block = slice(start, start + step)
            self._count(truth.ravel()[block], {output: of[block] for output, of in found.items()}, counts, agreed)
        cells = {output: _filled(matrix) for output, matrix in counts.items()} | {_AGREED: _filled(agreed)}
        self.images.append((index, name, int(counts["final"].sum()), cells))

    def _count(
        self,
        truth: NDArray[Any],
        found: Mapping[str, NDArray[Any]],
        counts: Mapping[str, NDArray[np.int64]],
        agreed: NDArray[np.int64],
    ) -> None:
        """Adds a block of pixels to the matrices."""
        classes = len(agreed)
        valid = truth != self.ignore_index
        # Ignored pixels get a row of their own: that moves no pixels.
        rows = np.where(valid, truth, classes).astype(np.intp)
        for output, groups in self._groups.items():
            size = self.groupings[output].num_groups
            cells = np.bincount(rows * size + found[output], minlength=(classes + 1) * size).reshape(-1, size)
            np.add.at(counts[output], groups, cells[:classes])
        wrong = np.flatnonzero((found["final"] != rows) & valid)
        labels, final = rows[wrong], found["final"][wrong]
        agree = np.ones(len(wrong), bool)
        for output, groups in self._groups.items():
            said = groups[final]
            agree &= (found[output][wrong] == said) & (groups[labels] != said)
        agreed += np.bincount(labels[agree] * classes + final[agree], minlength=agreed.size).reshape(agreed.shape)

    def result(self) -> PerImage:
        """All images in the order of their positions."""
        images = sorted(self.images, key=lambda image: image[0])
        sizes = {output: grouping.num_groups for output, grouping in self.groupings.items()}
        return PerImage(
            names=tuple(name for _, name, _, _ in images),
            pixels=np.array([pixels for _, _, pixels, _ in images], np.int64),
            outputs={output: _joined([cells[output] for *_, cells in images], size) for output, size in sizes.items()},
            agreed=_joined([cells[_AGREED] for *_, cells in images], sizes["final"]),
        )


def save_per_image(path: Path | str, counts: PerImage) -> None:
    """Writes the counts to an .npz file, atomically: names, pixels, and four arrays and a size per output."""
    arrays: dict[str, NDArray[Any]] = {"names": np.array(counts.names, np.str_), "pixels": counts.pixels}
    for name, cells in {**{f"output/{o}": c for o, c in counts.outputs.items()}, "agreed": counts.agreed}.items():
        arrays[f"{name}/size"] = np.array(cells.size)
        for part in _PARTS:
            values = getattr(cells, part)
            arrays[f"{name}/{part}"] = values.astype(np.min_scalar_type(int(values.max(initial=0))))
    save_arrays(path, arrays)


def load_per_image(path: Path | str) -> PerImage:
    """Reads what `save_per_image` wrote.

    Raises:
        PlanError: file missing or damaged, an array missing or not as the others ask, or no output `final`.
    """
    arrays = _load(path)
    try:
        names = tuple(map(str, arrays["names"]))
        prefixes = [name.removesuffix("/size") for name in arrays if name.endswith("/size")]
        cells = {prefix: _checked(path, prefix, arrays, len(names)) for prefix in prefixes}
        outputs = {name.removeprefix("output/"): value for name, value in cells.items() if name.startswith("output/")}
        pixels, agreed = arrays["pixels"].astype(np.int64), cells["agreed"]
        if outputs["final"].size != agreed.size or pixels.shape != (len(names),):
            raise PlanError(f"{path}: arrays of different sizes; `hs3 analyze` or `hs3 evaluate` writes it anew")
    except KeyError as error:
        raise PlanError(
            f"{path}: no array {error}; it holds counts per image as `hs3 analyze` and `hs3 evaluate` write them"
        ) from None
    return PerImage(names, pixels, outputs, agreed)


def _checked(path: Path | str, prefix: str, arrays: Mapping[str, NDArray[Any]], num_images: int) -> Cells:
    size = int(arrays[f"{prefix}/size"])
    parts = [arrays[f"{prefix}/{part}"] for part in _PARTS]
    limits = (num_images, size, size, None)
    for part, values, limit in zip(_PARTS, parts, limits, strict=True):
        wrong = values.dtype.kind not in "iu" or values.shape != parts[0].shape or values.ndim != 1
        if wrong or (values.size and (values.min() < 0 or (limit is not None and values.max() >= limit))):
            raise PlanError(
                f"{path}: array '{prefix}/{part}' is damaged; `hs3 analyze` or `hs3 evaluate` writes it anew"
            )
    return Cells(size, *(values.astype(np.int64) for values in parts))


def _filled(counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """The filled cells of a matrix of pixels: (M, 3) of row, column and count."""
    rows, columns = np.nonzero(counts)
    return np.stack([rows, columns, counts[rows, columns]], axis=1)


def _joined(images: Sequence[NDArray[np.int64]], size: int) -> Cells:
    image = np.repeat(np.arange(len(images)), [len(cells) for cells in images]) if images else np.zeros(0, np.int64)
    row, column, count = np.concatenate([*images, np.zeros((0, 3), np.int64)]).T
    return Cells(size, image, row, column, count)
