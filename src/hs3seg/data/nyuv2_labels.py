"""What label files of NYU-Depth-v2 hold: 40, 13 or 4 classes from 0 or 1, or the 894 object ids."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hs3seg.data.images import raw_mask
from hs3seg.errors import DataError
from hs3seg.taxonomies.nyuv2 import Classes, class_table

Labels = Literal["auto", "40", "40-from-0", "13", "13-from-0", "4", "4-from-0", "894"]
ALLOWED = ("40", "40-from-0", "13", "13-from-0", "4", "4-from-0", "894")
_SIZES: dict[str, Literal[894, 40, 13, 4]] = {"894": 894, "40": 40, "13": 13, "4": 4}
_VOIDS = (255, 65535)  # -1 in 8 and 16 bits
# The last class (otherprop, window, props) is missing from so many frames by chance less than once in 1000 times.
_ENOUGH_FRAMES = {40: 6, 13: 20, 4: 6}


class LabelReader:
    """Turns labels of one kind into classes.

    Args:
        kind: What the files hold, see `ALLOWED`; `-from-0` counts classes from 0 with 255 for void, the others from 1
            with 0 for void.
        classes: What is wanted.

    Raises:
        DataError: an unknown kind, or one that cannot be turned into these classes.
    """

    def __init__(self, kind: str, classes: Classes) -> None:
        if kind not in ALLOWED:
            raise DataError(f"labels = {kind!r}; allowed: auto, {', '.join(ALLOWED)}")
        self.kind = kind
        size = _SIZES[kind.removesuffix("-from-0")]
        self._first = 0 if kind.endswith("-from-0") else 1
        self._last = size - 1 + self._first
        self._table = np.full(65536, -1, np.int64)
        self._table[self._first : self._last + 1] = class_table(classes, size)
        if self._first:
            self._table[0] = 255
        if size < 255:
            self._table[list(_VOIDS)] = 255

    def read(self, path: Path) -> Tensor:
        """Classes (H, W) int64 of a label file, 0..K-1 or 255 for void.

        Raises:
            DataError: unreadable, not one channel, or a label that is no class; the place is named.
        """
        return torch.from_numpy(self.map(_read_ids(path), str(path)))

    def map(self, ids: NDArray[Any], place: str) -> NDArray[np.int64]:
        """Classes of labels (H, W); `place` names them in errors."""
        known = (ids >= 0) & (ids < len(self._table))
        classes = self._table[np.where(known, ids, 1)]
        wrong = (classes < 0) | ~known
        if wrong.any():
            y, x = (int(v) for v in np.argwhere(wrong)[0])
            void = 0 if self._first else 255
            raise DataError(
                f"{place}: label {ids[y, x]} at x={x}, y={y} ({int(wrong.sum())} such pixels) is no class; allowed:"
                f" {void} = void and {self._first}..{self._last}; if the labels are of another kind than"
                f" '{self.kind}', set labels to one of {', '.join(ALLOWED)}"
            )
        return np.asarray(classes)


def find_labels(paths: Sequence[Path]) -> tuple[str, str]:
    """Finds out what label files hold.

    Object ids are 16-bit files with ids above 40. Otherwise the folder's name (`label40`, `seg13`, ...) or, without a
    number in it, the highest id says how many classes there are, and the highest id and void say whether they begin at
    1 (void is 0) or at 0 (void is 255).

    Args:
        paths: Some files of the set; those that cannot be read are passed over here.

    Returns:
        One of `ALLOWED`, and a sentence that says what was found.

    Raises:
        DataError: both beginnings are possible.
    """
    present: set[int] = set()
    frames = wide = 0
    for path in paths:
        try:
            values = _read_ids(path)
        except DataError:
            continue  # the check of the data reports it with its place
        present.update(np.unique(values).tolist())
        frames += 1
        wide += values.dtype != np.uint8
    if wide and any(40 < value <= 894 and value not in _VOIDS for value in present):
        return "894", "Labels are the 894 object ids from 1, 0 is void (found by looking at the files)."
    void = any(value in present for value in _VOIDS)
    ids = {value for value in present if 0 <= value <= 40}
    highest = max(ids, default=0)
    size = _size_of(paths[0].parent.name, highest)
    first = _beginning(paths[0].parent, size, ids, void, frames)
    kind = f"{size}" if first else f"{size}-from-0"
    sentence = f"Labels are {size} classes from {first}, {0 if first else 255} is void"
    return kind, f"{sentence} (found by looking at {frames} files, highest id {highest})."


def _size_of(folder: str, highest: int) -> int:
    """Number of classes that a folder's name states, or else that the highest id needs."""
    digits = "".join(letter if letter.isdigit() else " " for letter in folder).split()
    for size in (40, 13, 4):
        if str(size) in digits and highest <= size:
            return size
    if not highest:
        return 40
    return next(size for size in (4, 13, 40) if highest <= size)


def _beginning(folder: Path, size: int, ids: set[int], void: bool, frames: int) -> int:
    """Whether classes begin at 0 or 1."""
    if size in ids:
        return 1
    if void and 0 in ids:
        return 0
    if not void and not (0 in ids and frames >= _ENOUGH_FRAMES[size]):
        return 1  # the usual form; few frames need not show every class
    if not ids:
        return 1
    raise DataError(
        f"label files in '{folder}' hold the ids {min(ids)}..{max(ids)}{' and 255' if void else ''}, so it is unclear"
        f" whether the {size} classes begin at 0 or 1; set labels = '{size}' (1..{size}, void 0) or '{size}-from-0'"
        f" (0..{size - 1}, void 255)"
    )


def _read_ids(path: Path) -> NDArray[Any]:
    ids = raw_mask(path)
    if ids.ndim != 2:
        raise DataError(f"{path}: has {ids.shape[2]} channels; labels of NYU-Depth-v2 have one, with ids of classes")
    return ids
