"""The official nyu_depth_v2_labeled.mat: a MATLAB v7.3 file, i.e. HDF5, whose axes stand in MATLAB's order reversed.

`images` is (N, 3, W, H) uint8, `depths` and `rawDepths` (N, W, H) metres, `labels` (N, W, H) object ids 0..894, `names`
the 894 object names as references to character arrays.
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hs3seg.data.depth import to_channel
from hs3seg.data.nyuv2_labels import LabelReader
from hs3seg.errors import DataError
from hs3seg.taxonomies.nyuv2 import NUM_FRAMES, NUM_OBJECTS, OBJECT_IDS, OFFICIAL_SPLITS, Classes

FILE_NAME = "nyu_depth_v2_labeled.mat"


def find_mat(root: Path) -> Path | None:
    """The .mat file that `root` is or holds; None where it is a folder without one."""
    if root.suffix.lower() == ".mat":
        return root
    return root / FILE_NAME if (root / FILE_NAME).is_file() else None


class MatSource:
    """Frames of the official file, numbered from 1 as in the official lists.

    The file is opened for each reading: an open HDF5 file must not pass into a forked process.

    Args:
        path: The file.
        split: train or test.
        depth: What is to be read; `raw` are the depths as measured, all else the in-filled ones.
        classes: 40, 13 or 4.

    Attributes:
        names: 0001, 0002, ...
        notes: What was found, in sentences.

    Raises:
        DataError: h5py is not installed, or the file is missing, not v7.3, damaged, or without a needed variable.
    """

    def __init__(self, path: Path, split: str, depth: str, classes: Classes) -> None:
        if split not in OFFICIAL_SPLITS:
            raise DataError(
                f"NYU-Depth-v2 has no split '{split}' in '{path}'; official splits: train, test (there is no val)"
            )
        self._path = path
        self._depth = "rawDepths" if depth == "raw" else "depths"
        self._labels = LabelReader("894", classes)
        with self._open() as file:
            for name in ("images", "labels", *([] if depth == "none" else [self._depth])):
                self._check(file, name)
            count = int(file["images"].shape[0])
            _check_names(path, file)
        self._numbers = tuple(number for number in OFFICIAL_SPLITS[split] if number <= count)
        if not self._numbers:
            raise DataError(f"{path}: none of its {count} frames belongs to the split '{split}'")
        self.names = [f"{number:04}" for number in self._numbers]
        whole = "" if count == NUM_FRAMES else f", not {NUM_FRAMES} as the official file"
        notes = [f"Frames are those of the official split in '{path}', which holds {count}{whole}."]
        notes += ["HHA is computed from the in-filled depth."] if depth == "hha" else []
        self.notes = tuple(notes)

    def image(self, index: int) -> Tensor:
        """RGB (3, H, W) uint8."""
        return torch.from_numpy(np.ascontiguousarray(self._read("images", index).transpose(0, 2, 1)))

    def mask(self, index: int, _image: Tensor) -> Tensor:
        """Classes (H, W) int64, 255 for void."""
        place = f"{self._path}, frame {self.names[index]}"
        return torch.from_numpy(self._labels.map(np.ascontiguousarray(self._read("labels", index).T), place))

    def channel(self, index: int, image: Tensor) -> Tensor:
        """Depth (1, H, W) uint8."""
        return torch.from_numpy(to_channel(self.metres(index, image)))[None]

    def metres(self, index: int, _image: Tensor) -> NDArray[np.float32]:
        """Depth (H, W) in metres; 0 = none."""
        values = self._read(self._depth, index).T
        return np.ascontiguousarray(np.where(np.isfinite(values), values, 0), np.float32)

    def picture(self, _index: int, _image: Tensor) -> None:
        """None: the file has no HHA."""

    def files(self, index: int) -> tuple[str, ...]:
        """The file with the frame's number."""
        return (f"{self._path}, frame {self.names[index]}",)

    def _read(self, name: str, index: int) -> NDArray[Any]:
        try:
            with self._open() as file:
                return np.asarray(file[name][self._numbers[index] - 1])
        except (OSError, KeyError, ValueError) as error:
            raise DataError(
                f"{self._path}: frame {self.names[index]} of '{name}' cannot be read ({error}); copy the file again"
            ) from None

    def _check(self, file: Any, name: str) -> None:
        ranks = {"images": 4}
        found = file.get(name)
        if found is None or getattr(found, "ndim", None) != ranks.get(name, 3):
            what = "is missing" if found is None else f"has shape {getattr(found, 'shape', '?')}"
            raise DataError(
                f"{self._path}: variable '{name}' {what}; the official file holds images, depths, rawDepths, labels and"
                f" names; variables found: {', '.join(key for key in sorted(file) if not key.startswith('#'))}"
            )
        frames, *_, width, height = found.shape
        expected = file["images"].shape[:1] + file["images"].shape[2:]
        if (frames, width, height) != expected or (name == "images" and found.shape[1] != 3):
            raise DataError(
                f"{self._path}: variable '{name}' has shape {found.shape}; images are (N, 3, W, H), the others"
                f" (N, W, H), here {expected}"
            )

    def _open(self) -> Any:
        try:
            import h5py
        except ImportError:
            raise DataError(
                f"reading '{self._path}' needs h5py, which is not installed; pip install '.[nyuv2]' in a checkout of"
                " hs3seg"
            ) from None
        if not self._path.is_file():
            raise DataError(f"file '{self._path}' does not exist; {FILE_NAME} (2.8 GB) is on the data set's site")
        if not h5py.is_hdf5(self._path):
            with self._path.open("rb") as file:
                head = file.read(19)
            old = head.startswith(b"MATLAB 5.0 MAT-file")
            raise DataError(
                f"{self._path}: {'a MATLAB file of version 5' if old else 'not a MATLAB file'}, but only version 7.3 is"
                " read, as the official file has it; "
                + ("save it in MATLAB with save(..., '-v7.3')" if old else "download it again")
            )
        try:
            return h5py.File(self._path, "r")
        except OSError as error:
            raise DataError(f"{self._path}: cannot be read ({error}); it may be truncated, download it again") from None


def _check_names(path: Path, file: Any) -> None:
    """The map to 40 classes goes by object id, so the file's ids must be those of the official one."""
    references = file.get("names")
    if references is None:
        return
    names = [_text(file[reference]) for reference in np.asarray(references).ravel()]
    wrong = next((n for n, i in OBJECT_IDS.items() if len(names) != NUM_OBJECTS or names[i - 1] != n), None)
    if wrong is not None:
        found = f"{len(names)} names" if len(names) != NUM_OBJECTS else f"'{names[OBJECT_IDS[wrong] - 1]}'"
        raise DataError(
            f"{path}: object {OBJECT_IDS[wrong]} is to be '{wrong}', 'names' has {found}; the map to 40 classes is for"
            f" the official list of {NUM_OBJECTS} names"
        )


def _text(characters: Any) -> str:
    return "".join(chr(int(code)) for code in np.asarray(characters).ravel())
