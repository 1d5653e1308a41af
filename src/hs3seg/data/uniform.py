"""Class-uniform sampling: a share of the crops is drawn class by class, so rare classes are seen as often as roads.

Source: class-uniform sampling of HMS (Tao et al., 2020): every image is cut into tiles, the centroid of each class in
each tile is kept, and in an epoch a share of the samples is centroids, as many of each class; the crop covers its
centroid. Unlike there, the places are not rounded to pixels, what the number of classes does not divide goes to
classes drawn by lot, and classes that are nowhere leave their part to the others.
"""

import contextlib
import hashlib
import os
import warnings
import zipfile
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from hs3seg.data.loader import Center, Order
from hs3seg.data.parallel import in_order
from hs3seg.data.sample import SegmentationDataset
from hs3seg.errors import DataError, Hs3Warning
from hs3seg.files import write_atomically

Centroids = Sequence[Sequence[tuple[int, Center]]]
"""Per class: pairs of position in the data set and place (y, x) in the sample's pixels."""

_VERSION = 1
_ARRAYS = {"classes": "i", "indices": "i", "centres": "f"}  # name in the cache -> kind of type


def find_centroids(
    dataset: SegmentationDataset,
    num_classes: int,
    tile: int = 1024,
    *,
    min_pixels: int = 1,
    cache: Path | None = None,
    key: str = "",
    num_workers: int = 0,
    progress: Callable[[], None] | None = None,
) -> list[list[tuple[int, Center]]]:
    """Where each class is: its centre of mass in every tile of every sample.

    Args:
        dataset: Every mask is read once; where the data set offers `read_mask(index)`, without the image.
        num_classes: Labels 0..num_classes-1 are looked for; all others are left out, as the ignore label is.
        tile: Side of the square tiles in pixels; those at the right and lower edge may be smaller.
        min_pixels: A class with fewer in a tile has no centroid there; HMS: 1.
        cache: .npz file that keeps the result. It is made anew where it is damaged, or where names, sizes or times of
            the samples' files, the classes or an argument have changed. Of several processes, let one make it first.
        key: Anything else on which the labels depend and which files and taxonomy do not show: options of the data
            set. Its `label_source`, where it has one, needs not be repeated.
        num_workers: Processes; 0 = this one.
        progress: Called after each sample; not at all where the cache is taken.

    Returns:
        Per class, by sample and then by tile: (position in the data set, (y, x)), where (0, 0) is the middle of the
        first pixel. The list of a class that is nowhere is empty.

    Raises:
        DataError: an argument out of range, or the first sample that cannot be read.
    """
    for name, value in (("num_classes", num_classes), ("tile", tile), ("min_pixels", min_pixels)):
        if value < 1:
            raise DataError(f"centroids with {name} = {value}; allowed: 1 or more")
    fingerprint = _fingerprint(dataset, (num_classes, tile, min_pixels, key)) if cache else ""
    found = _load(cache, fingerprint, num_classes, len(dataset)) if cache else None
    if found is None:
        rows: list[NDArray[np.float64]] = []
        centroids = partial(_centroids, dataset, num_classes, tile, min_pixels)
        for index, of_sample in enumerate(in_order(centroids, len(dataset), num_workers)):
            rows.append(np.insert(of_sample, 1, index, axis=1))
            if progress:
                progress()
        found = np.concatenate([np.empty((0, 4)), *rows])
        if cache:
            _save(cache, fingerprint, found)
    per_class: list[list[tuple[int, Center]]] = [[] for _ in range(num_classes)]
    for class_, sample, y, x in found.tolist():
        per_class[int(class_)].append((int(sample), (y, x)))
    return per_class


def uniform_order(centroids: Centroids, share: float, size: int, seed: int) -> Order:
    """An order of samples for `TrainingLoader`, of which a share is drawn class by class.

    In an epoch, round(share * size) samples are centroids, as many of each class, give or take one: none of a class
    twice before all others of it. The rest is the beginning of a random permutation of the data set, without places.
    All are shuffled.

    Args:
        centroids: Of `find_centroids`.
        share: Of the class-uniform samples, 0..1; HMS: 0.5.
        size: Samples in the data set, and in an epoch.
        seed: Of the choice; the order depends on it and the epoch alone.

    Raises:
        DataError: a share that is none, centroids that are no samples of the data set, or none at all.
    """
    if not 0 <= share <= 1:
        raise DataError(f"the class-uniform share {share} is no share; allowed: 0..1, e.g. 0.5")
    classes = [tuple(places) for places in centroids if len(places)]
    if share > 0 and not classes:
        raise DataError("no label has a class, so there is nothing to sample class-uniformly; set the share to 0")
    last = max((index for places in classes for index, _ in places), default=-1)
    if last >= size:
        raise DataError(f"a centroid is in sample {last}, but the data set has {size}; find the centroids again")
    return partial(_order, classes, round(share * size), size, seed)


def _order(
    classes: Sequence[Sequence[tuple[int, Center]]], num_uniform: int, size: int, seed: int, epoch: int
) -> list[tuple[int, Center | None]]:
    random = np.random.default_rng([seed % 2**64, epoch])
    order: list[tuple[int, Center | None]] = []
    for number, chosen in enumerate(random.permutation(len(classes))):
        places = classes[chosen]
        wanted = num_uniform // len(classes) + (number < num_uniform % len(classes))
        order += [places[i] for i in _drawn(len(places), wanted, random)]
    order += [(int(index), None) for index in random.permutation(size)[: size - num_uniform]]
    return [order[i] for i in random.permutation(len(order))]


def _drawn(count: int, wanted: int, random: np.random.Generator) -> Iterator[int]:
    """Positions below `count`, each as often as any other, give or take one."""
    while wanted > 0:
        yield from random.permutation(count)[:wanted].tolist()
        wanted -= count


def _centroids(
    dataset: SegmentationDataset, num_classes: int, tile: int, min_pixels: int, index: int
) -> NDArray[np.float64]:
    """(N, 3): class and (y, x) of the centroids of a sample, by tile and class."""
    read_mask = getattr(dataset, "read_mask", None)
    mask = read_mask(index) if read_mask else dataset.read(index).mask
    labels = mask.as_subclass(Tensor).numpy()
    height, width = labels.shape
    parts = [
        np.array((0, top, left)) + _of_tile(labels[top : top + tile, left : left + tile], num_classes, min_pixels)
        for top in range(0, height, tile)
        for left in range(0, width, tile)
    ]
    return np.concatenate([np.empty((0, 3)), *parts])


def _of_tile(labels: NDArray[np.integer], num_classes: int, min_pixels: int) -> NDArray[np.float64]:
    """(N, 3): class and (y, x) in the tile."""
    known = np.where((labels >= 0) & (labels < num_classes), labels, num_classes)
    totals: list[NDArray[np.int64]] = []
    counts = np.empty(0, np.int64)
    for axis, side in enumerate(labels.shape):
        places = np.arange(side).reshape(-1, 1) if axis == 0 else np.arange(side)
        # Pixels of each class in each row (column): whole numbers, so that nothing is rounded before the division.
        pixels = np.bincount((known * side + places).ravel(), minlength=(num_classes + 1) * side)
        pixels = pixels.reshape(num_classes + 1, side)[:num_classes]
        counts = pixels.sum(axis=1)
        totals.append(pixels @ np.arange(side))
    present = np.flatnonzero(counts >= min_pixels)
    return np.stack([present, *(total[present] / counts[present] for total in totals)], axis=1)


def _fingerprint(dataset: SegmentationDataset, settings: tuple[object, ...]) -> str:
    """Of everything on which the centroids depend; folders do not count, so that data may be moved."""
    taxonomy = dataset.taxonomy
    source = getattr(dataset, "label_source", "")
    digest = hashlib.blake2b(digest_size=16)
    digest.update(repr((_VERSION, settings, source, taxonomy.names, taxonomy.ignore_index)).encode())
    for index, name in enumerate(dataset.names):
        parts = [name]
        for file in dataset.files(index):
            with contextlib.suppress(OSError, ValueError):  # what is no file is known by its name
                state = os.stat(file)  # noqa: PTH116 - `Path` would cost more than the call
                file = f"{Path(file).name}:{state.st_size}:{state.st_mtime_ns}"
            parts.append(file)
        digest.update(repr(parts).encode())
    return digest.hexdigest()


def _load(path: Path, fingerprint: str, num_classes: int, num_samples: int) -> NDArray[np.float64] | None:
    """(N, 4) class, sample, y, x of a cache, or None where it is missing, damaged or of something else."""
    try:
        with zipfile.ZipFile(path) as file:
            if file.testzip() is not None:  # a checksum is wrong
                return None
        with np.load(path, allow_pickle=False) as arrays:
            if str(arrays["fingerprint"]) != fingerprint:
                return None
            values = {name: arrays[name] for name in _ARRAYS}
    except Exception:  # whatever it is that cannot be read: it is made anew
        return None
    if any(values[name].dtype.kind != kind for name, kind in _ARRAYS.items()):
        return None
    count = len(values["classes"])
    if values["indices"].shape != (count,) or values["centres"].shape != (count, 2):
        return None
    for name, limit in (("classes", num_classes), ("indices", num_samples)):
        if count and not 0 <= values[name].min() <= values[name].max() < limit:
            return None
    return np.column_stack([values["classes"], values["indices"], values["centres"]])


def _save(path: Path, fingerprint: str, found: NDArray[np.float64]) -> None:
    def write(temporary: Path) -> None:
        with temporary.open("wb") as file:  # a path would get the suffix .npz
            np.savez(
                file,
                fingerprint=np.array(fingerprint),
                classes=found[:, 0].astype(np.int64),
                indices=found[:, 1].astype(np.int64),
                centres=found[:, 2:],
            )

    try:
        write_atomically(path, write)
    except OSError as error:
        warnings.warn(
            f"centroids cannot be kept in '{path}' ({error}), so they will be sought again; give another place",
            Hs3Warning,
            stacklevel=3,
        )
