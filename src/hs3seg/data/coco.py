"""COCO: panoptic JSON with PNGs, JSON of instances (polygons, run lengths), and pixel maps of stuff."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torchvision import tv_tensors

from hs3seg.data.coco_files import CocoFile, CocoImage, Labels, find_split
from hs3seg.data.coco_masks import region_mask
from hs3seg.data.images import raw_mask, read_stored_image
from hs3seg.data.pairs import check_size, unique_names, upright
from hs3seg.data.sample import Sample
from hs3seg.errors import DataError

BACKGROUND = "background"


class Coco:
    """One split; classes are the file's categories in the order of their ids.

    Labels, by the JSON file's kind:

    - `panoptic`: ROOT/annotations/panoptic_SPLIT.json, PNGs in the folder of the same name: R + 256 G + 65536 B is the
      segment's id, 0 is ignored;
    - `instances`: ROOT/annotations/instances_SPLIT.json, else stuff_SPLIT.json, SPLIT.json or
      ROOT/SPLIT/_annotations.coco.json, with polygons or run lengths. Where several overlap, the smallest is on top.
      Regions marked as crowd count as their class;
    - `pixelmaps`: ROOT/annotations/stuff_SPLIT.json with PNGs of category ids in the folder
      stuff_SPLIT_pixelmaps beside it; 0 is ignored.

    Images lie in ROOT/SPLIT, ROOT/images/SPLIT or ROOT/images. SPLIT may lack the year, `val` for
    `val2017`, where one such folder is there.

    Args:
        root: ROOT.
        split: Name of the split.
        labels: See above.
        annotations: JSON file relative to ROOT; empty = by the names above.
        images: Folder of the images relative to ROOT; empty = by the names above.
        background: Whether pixels of no instance are a class of their own, the first, unless a category has the name
            background already; otherwise they are ignored. Only for `instances`, where None means True unless the
            file's name begins with `stuff`.

    Raises:
        DataError: files are missing, or wrong inside.
    """

    def __init__(
        self,
        root: Path | str,
        split: str,
        labels: Labels = "panoptic",
        annotations: str = "",
        images: str = "",
        background: bool | None = None,
    ) -> None:
        self.split = split
        self._labels = labels
        path, folder = find_split(Path(root), split, labels, annotations, images)
        self._annotations = path
        file = CocoFile(path, folder, labels)
        if background is None:
            background = labels == "instances" and not path.name.startswith("stuff")
        if background and labels != "instances":
            raise DataError(f"background is for labels = 'instances'; '{labels}' has its own unlabelled pixels")
        first = int(background and BACKGROUND not in file.names)
        self.taxonomy = file.taxonomy(BACKGROUND if first else None)
        self._class_of = {number: index + first for index, number in enumerate(file.category_ids)}
        self._empty = self.taxonomy.index(BACKGROUND) if background else self.taxonomy.ignore_index
        self._images: Sequence[CocoImage] = file.images
        self._maps = path.with_name(f"{path.stem}_pixelmaps")
        if labels == "pixelmaps" and not self._maps.is_dir():
            raise DataError(f"'{path}' needs the folder '{self._maps}' of PNGs; unpack it, or set labels = 'instances'")
        self._names = unique_names(folder, [image.path for image in self._images])

    @property
    def names(self) -> Sequence[str]:
        """File stems, or paths where two stems are equal."""
        return self._names

    def __len__(self) -> int:
        return len(self._images)

    def read(self, index: int) -> Sample:
        """One image with its labels, both upright."""
        image = self._images[index]
        stored, orientation = read_stored_image(image.path)
        make = {"instances": self._paint, "panoptic": self._panoptic, "pixelmaps": self._pixelmap}[self._labels]
        pixels, mask = upright(image.path, stored, orientation, torch.from_numpy(make(image)))
        if self._labels == "instances" and pixels.shape[-2:] != mask.shape:
            raise DataError(
                f"{image.path}: is {stored.shape[-1]}x{stored.shape[-2]} pixels, but its JSON file says"
                f" {image.width}x{image.height}; copy the image again, or correct the file"
            )
        check_size(self._mask_path(image) or image.path, mask, image.path, pixels)
        return Sample(tv_tensors.Image(pixels), tv_tensors.Mask(mask), self._names[index])

    def files(self, index: int) -> tuple[str, ...]:
        """Image, and where its labels come from: a mask, or the JSON file of all."""
        image = self._images[index]
        return str(image.path), str(self._mask_path(image) or self._annotations)

    def _mask_path(self, image: CocoImage) -> Path | None:
        if self._labels == "pixelmaps":
            return self._maps / f"{image.path.stem}.png"
        return image.mask

    def _paint(self, image: CocoImage) -> NDArray[np.int64]:
        labels = np.full((image.height, image.width), self._empty, np.int64)
        painted = []
        for category, region in image.regions:
            try:
                mask = region_mask(region, image.height, image.width)
            except ValueError as error:
                raise DataError(f"an annotation of '{image.path}' has {error}; correct the JSON file") from None
            painted.append((int(mask.sum()), self._class_of[category], mask))
        for _, class_, mask in sorted(painted, key=lambda entry: -entry[0]):  # stable: of equal ones, the later
            labels[mask] = class_
        return labels

    def _panoptic(self, image: CocoImage) -> NDArray[np.int64]:
        assert image.mask is not None
        raw = raw_mask(image.mask)
        if raw.ndim != 3:
            raise DataError(f"{image.mask}: has one channel; panoptic PNGs have R, G and B of the segment's id")
        values = raw[..., :3].astype(np.int64)
        ids = values[..., 0] | values[..., 1] << 8 | values[..., 2] << 16
        classes = {number: self._class_of[category] for number, category in image.segments.items()}
        return self._look_up(ids, classes, image.mask, "segment")

    def _pixelmap(self, image: CocoImage) -> NDArray[np.int64]:
        path = self._maps / f"{image.path.stem}.png"
        raw = raw_mask(path)
        if raw.ndim != 2:
            raise DataError(f"{path}: has {raw.shape[2]} channels; pixel maps have one, of category ids")
        return self._look_up(raw.astype(np.int64), self._class_of, path, "category")

    def _look_up(self, ids: NDArray[np.int64], classes: dict[int, int], path: Path, what: str) -> NDArray[np.int64]:
        """Class of each id; 0 is ignored unless it is one."""
        values, inverse = np.unique(ids, return_inverse=True)
        table = np.empty(len(values), np.int64)
        for position, value in enumerate(values.tolist()):
            if value not in classes and value != 0:
                y, x = (int(v) for v in np.argwhere(ids == value)[0])
                raise DataError(
                    f"{path}: {what} id {value} at x={x}, y={y} ({int((ids == value).sum())} such pixels) is not in"
                    " the JSON file; the two are not of one version, copy both again"
                )
            table[position] = classes.get(value, self.taxonomy.ignore_index)
        return np.asarray(table[inverse].reshape(ids.shape))
