"""Depth files beside the images, read as the network's training read its own."""

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from hs3seg.config import CityscapesData, DataConfig, NYUv2Data
from hs3seg.data import IMAGE_SUFFIXES, read_image
from hs3seg.data.cityscapes import disparity_channel
from hs3seg.data.depth import DEPTH_SUFFIXES, find_depth_reader, kind_of, read_depth_values
from hs3seg.data.patterns import same_letters
from hs3seg.errors import DataError
from hs3seg.pipeline.predict.inputs import Item

_LOOKED_AT = 24  # files, evenly over all, that say what depth is; as many as training looks at


class DepthFolder:
    """The further channels of images, from one file per image.

    Depth files mean what those of the training meant: disparities of Cityscapes; for NYU-Depth-v2 `data.depth_unit`,
    whose `auto` is found out once for all files. Of other networks only the channel itself is known, in 8 bits.

    Args:
        folder: Where the files are: of the image's stem, in the same place below it or in it.
        channels: Of the network: 4 = depth, 6 = HHA pictures.
        data: The config's section on the data that the network was trained on.
        items: The images.

    Attributes:
        note: What was found out, in a sentence; empty where there was nothing to find out.

    Raises:
        DataError: what depth files hold cannot be found out, or does not fit `data`.
    """

    def __init__(self, folder: Path, channels: int, data: DataConfig, items: Sequence[Item]) -> None:
        self._folder = folder
        self._suffixes = frozenset(DEPTH_SUFFIXES) if channels == 4 else IMAGE_SUFFIXES
        self._files: dict[Path, dict[str, list[Path]]] = {}
        self._kind = data.kind
        self.note = ""
        self._read: Callable[[Path], Tensor] = self._plain
        match data:
            case _ if channels != 4:
                self._read = _hha
            case CityscapesData():
                self._read = self._disparity
            case NYUv2Data():
                paths = [path for item in items for path in self._fitting(item)]
                if paths:
                    reader, self.note = find_depth_reader(paths[:: -(-len(paths) // _LOOKED_AT)], data.depth_unit)
                    self._read = reader.channel

    def read(self, item: Item) -> tuple[Path, Tensor]:
        """The file of an image and its channels (C, H, W) uint8.

        Raises:
            DataError: there is none, or two; it cannot be read, or its values cannot be understood.
        """
        found = self._fitting(item)
        if len(found) > 1:
            raise DataError(f"'{found[0]}' and '{found[1].name}' both fit '{item.path}'; remove or rename one")
        if not found:
            inside = self._inside(item) / item.path.stem
            raise DataError(f"image '{item.path}' has no depth '{inside}.*'; add it or leave the image out")
        return found[0], self._read(found[0])

    def _inside(self, item: Item) -> Path:
        return self._folder / item.path.relative_to(item.root).parent

    def _fitting(self, item: Item) -> list[Path]:
        """Files of an image's stem, in the same folder below ours or, if there is none, in ours itself."""
        for folder in (self._inside(item), self._folder):
            if found := self._by_stem(folder).get(same_letters(item.path.stem)):
                return found
        return []

    def _by_stem(self, folder: Path) -> dict[str, list[Path]]:
        if folder not in self._files:
            stems: dict[str, list[Path]] = {}
            for path in sorted(folder.iterdir()) if folder.is_dir() else ():
                if path.suffix.lower() in self._suffixes:
                    stems.setdefault(same_letters(path.stem), []).append(path)
            self._files[folder] = stems
        return self._files[folder]

    def _disparity(self, path: Path) -> Tensor:
        values = read_depth_values(path)
        return disparity_channel(values) if kind_of(values) == "16-bit" else self._plain(path)

    def _plain(self, path: Path) -> Tensor:
        values = read_depth_values(path)
        if kind_of(values) != "8-bit":
            allowed = "the 16 bits of a disparity, or " if self._kind == "cityscapes" else ""
            raise DataError(
                f"{path}: has {kind_of(values)} values, and nothing says what they mean to a network trained on"
                f" data.kind = '{self._kind}'; allowed: {allowed}8 bits, the channel as the network saw it in training"
            )
        return torch.from_numpy(values)[None]


def _hha(path: Path) -> Tensor:
    return read_image(path, upright=True)
