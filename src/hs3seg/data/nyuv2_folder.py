"""NYU-Depth-v2 from picture files: what they mean is told, or found out and said."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hs3seg.data.depth import DepthReader, DepthUnit, find_depth_reader
from hs3seg.data.images import read_image
from hs3seg.data.nyuv2_labels import LabelReader, Labels, find_labels
from hs3seg.data.nyuv2_layout import Frame, find_frames
from hs3seg.data.pairs import check_size
from hs3seg.errors import DataError
from hs3seg.taxonomies.nyuv2 import Classes

Depth = Literal["none", "raw", "filled", "hha"]
HHASource = Literal["auto", "files", "depth"]

_LOOKED_AT = 24  # files, evenly over the split, that say what labels and depth are
_HOLES = 0.02  # share of pixels without depth above which it is not in-filled
_ROLES: dict[Depth, tuple[str, ...]] = {"raw": ("raw", "filled"), "filled": ("filled",), "hha": ("filled", "raw")}


class FolderSource:
    """Frames of a folder; see `hs3seg.data.nyuv2.NYUv2` for the arguments and `hs3seg.data.nyuv2_layout` for layouts.

    Attributes:
        names: Of the frames.
        notes: What was found out, in sentences.

    Raises:
        DataError: files are missing, or unclear in their meaning.
    """

    def __init__(
        self, root: Path, split: str, depth: Depth, classes: Classes, labels: Labels, unit: DepthUnit, hha: HHASource
    ) -> None:
        needed = {"none": (), "hha": ()}.get(depth, (depth,))
        self._frames, note = find_frames(root, split, classes, needed)
        self.names: Sequence[str] = [frame.name for frame in self._frames]
        notes = [note]
        kind: str = labels
        if labels == "auto":
            kind, note = find_labels(_spread([frame.label for frame in self._frames]))
            notes.append(note)
        self._labels = LabelReader(kind, classes)
        self._pictures: list[Path] = []
        self._depth: list[Path] = []
        self._reader: DepthReader
        if depth == "hha" and hha != "depth":
            self._pictures = self._paths("hha")
            if not self._pictures and hha == "files":
                raise DataError(f"'{root}' has no folder of HHA pictures; set hha_source = 'depth' to compute them")
        if self._pictures:
            notes.append(f"HHA is read from '{self._pictures[0].parent}'.")
        elif depth != "none":
            found = next((role for role in _ROLES[depth] if self._has(role)), None)
            if found is None:
                raise DataError(f"'{root}' has no folder of {depth} depth beside its images; {_ADVICE[depth]}")
            self._depth = self._paths(found)
            self._reader, note = find_depth_reader(_spread(self._depth), unit)
            notes += [note, *self._look_for_holes(depth, found)]
            if depth == "hha":
                coarse = "; steps of 39 mm show in its angle" if self._reader.kind == "8-bit" else ""
                notes.append(f"HHA is computed from it{coarse}.")
        self.notes = tuple(notes)

    def image(self, index: int) -> Tensor:
        """RGB (3, H, W) uint8."""
        return read_image(self._frames[index].rgb)

    def mask(self, index: int, image: Tensor) -> Tensor:
        """Classes (H, W) int64, 255 for void; `image` is that of the frame, here and below."""
        return self._checked(self._frames[index].label, self._labels.read, index, image)

    def channel(self, index: int, image: Tensor) -> Tensor:
        """Depth (1, H, W) uint8."""
        return self._checked(self._depth[index], self._reader.channel, index, image)

    def metres(self, index: int, image: Tensor) -> NDArray[np.float32]:
        """Depth (H, W) in metres; 0 = none."""

        def read(path: Path) -> Tensor:
            return torch.from_numpy(self._reader.metres(path))

        return np.asarray(self._checked(self._depth[index], read, index, image).numpy())

    def picture(self, index: int, image: Tensor) -> Tensor | None:
        """HHA (3, H, W) uint8 as a file has it; None where it is to be computed."""
        return self._checked(self._pictures[index], read_image, index, image) if self._pictures else None

    def files(self, index: int) -> tuple[str, ...]:
        """RGB image, depth or HHA where it is read, and label."""
        frame, deep = self._frames[index], self._pictures or self._depth
        return (str(frame.rgb), *([str(deep[index])] if deep else []), str(frame.label))

    def _checked(self, path: Path, read: Callable[[Path], Tensor], index: int, image: Tensor) -> Tensor:
        pixels = read(path)
        check_size(path, pixels, self._frames[index].rgb, image)
        return pixels

    def _has(self, role: str) -> bool:
        return any(_file(frame, role) for frame in self._frames)

    def _paths(self, role: str) -> list[Path]:
        """The files of a role, one for each frame; none where the layout has no such files."""
        if not self._has(role):
            return []
        paths = []
        for frame in self._frames:
            path = _file(frame, role)
            if path is None:
                beside = next(p for f in self._frames if (p := _file(f, role))).parent
                raise DataError(f"frame '{frame.name}' has no file '{beside / frame.rgb.stem}.*'; add it")
            paths.append(path)
        return paths

    def _look_for_holes(self, depth: Depth, found: str) -> list[str]:
        """What is to be said of pixels without depth, and of the kind of depth that was found."""
        if depth == "raw" and self._frames[0].raw == self._frames[0].filled:
            return ["There is one kind of depth; it is taken as it is."]
        if depth == "raw" and found == "filled":
            return ["There is no raw depth; the in-filled one is taken."]
        if self._reader.unit == "relative" or depth == "raw":
            return []
        shares = []
        for path in _spread(self._depth):
            try:
                shares.append(float((self._reader.metres(path) == 0).mean()))
            except DataError:
                continue  # the check of the data reports it with its place
        holes = float(np.mean(shares)) if shares else 0.0
        if holes <= _HOLES:
            return []
        if depth == "filled":
            raise DataError(
                f"depth files in '{self._depth[0].parent}' have no depth at {100 * holes:.0f} % of their pixels, so"
                " they are not in-filled; set depth = 'raw', or add in-filled files"
            )
        return [f"{100 * holes:.0f} % of the pixels have no depth; they take no part in the normals of HHA."]


_ADVICE: dict[Depth, str] = {
    "raw": "its name is to be depth_raw or depth",
    "filled": "its name is to be depth; depth = 'raw' reads the folder depth_raw",
    "hha": "add depth (named depth or depth_raw), or HHA pictures (named HHA)",
}


def _file(frame: Frame, role: str) -> Path | None:
    return {"filled": frame.filled, "raw": frame.raw, "hha": frame.hha}[role]


def _spread(paths: Sequence[Path]) -> list[Path]:
    """Some of the files, evenly over all."""
    return list(paths[:: max(1, -(-len(paths) // _LOOKED_AT))])
