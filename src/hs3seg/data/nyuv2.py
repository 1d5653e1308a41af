"""NYU-Depth-v2's labelled frames with 40 classes: 795 train, 654 test, RGB with depth (Silberman et al., 2012)."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torchvision import tv_tensors

from hs3seg.data.images import raw_mask, read_depth, read_image
from hs3seg.data.pairs import check_size, read_list, unique_names
from hs3seg.data.sample import Sample
from hs3seg.errors import DataError
from hs3seg.taxonomy import Taxonomy

# In the order of the label ids 1..40 (Gupta, Arbelaez, Malik, 2013); the names as ROOT/classes40.txt writes them.
_CLASSES = (
    *("wall", "floor", "cabinet", "bed", "chair", "sofa", "table", "door", "window", "bookshelf"),
    *("picture", "counter", "blinds", "desk", "shelves", "curtain", "dresser", "pillow", "mirror", "floor mat"),
    *("clothes", "ceiling", "books", "refridgerator", "television", "paper", "towel", "shower curtain", "box"),
    *("whiteboard", "person", "night stand", "toilet", "sink", "lamp", "bathtub", "bag"),
    *("otherstructure", "otherfurniture", "otherprop"),
)
VOID = 0
Depth = Literal["none", "raw"]


class NYUv2:
    """One split: ROOT/SPLIT.txt lists `rgb depth label` files per line, relative to ROOT.

    Labels 1..40 become the classes 0..39; void, 0, is ignored. Depth is 8-bit and in-filled: metres = (v + 0.5) / 25.5.

    Args:
        root: Folder of train.txt and test.txt. Class names come from its classes40.txt (`ID NAME` per line), if there.
        split: train or test; there is no official val, but any list that is there is read.
        depth: none = images are RGB; raw = the depth as it is stored is their fourth channel.

    Raises:
        DataError: no such list, a line of it that cannot be used, or a classes40.txt without exactly 40 classes.
    """

    class_names = _CLASSES

    def __init__(self, root: Path, split: str, depth: Depth = "none") -> None:
        root = Path(root)
        listed = root / f"{split}.txt"
        if not listed.is_file():
            found = [name for name in ("train", "test") if (root / f"{name}.txt").is_file()]
            raise DataError(
                f"NYU-Depth-v2 split '{split}' needs the list '{listed}', which does not exist; official splits: train,"
                f" test (there is no val); lists found: {', '.join(f'{name}.txt' for name in found) or 'none'}"
            )
        self.split, self._depth = split, depth
        self.taxonomy = Taxonomy.from_names(_class_names(root / "classes40.txt"))
        unread = ("depth",) if depth == "none" else ()
        self._files = read_list(root, listed, ("rgb", "depth", "label"), unread)
        self._names = unique_names(root, [rgb for rgb, _, _ in self._files])

    @property
    def channels(self) -> int:
        """Channels of the images: RGB, and depth where it is asked for."""
        return {"none": 3, "raw": 4}[self._depth]

    @property
    def names(self) -> Sequence[str]:
        """File stems of the RGB images."""
        return self._names

    def __len__(self) -> int:
        return len(self._files)

    def read(self, index: int) -> Sample:
        """One frame, (3, H, W) or with depth (4, H, W), and its labels."""
        rgb, depth, label = self._files[index]
        image = read_image(rgb)
        mask = _read_label(label)
        if self._depth == "raw":
            fourth = read_depth(depth)  # (1, H, W)
            check_size(depth, fourth, rgb, image)
            image = torch.cat([image, fourth])
        check_size(label, mask, rgb, image)
        return Sample(tv_tensors.Image(image), tv_tensors.Mask(mask), self._names[index])

    def files(self, index: int) -> tuple[str, ...]:
        """RGB image, depth where it is read, and label."""
        rgb, depth, label = self._files[index]
        return (str(rgb), *([str(depth)] if self._depth == "raw" else []), str(label))


def _read_label(path: Path) -> Tensor:
    """Classes (H, W) int64 of a label file, 0..39 or 255."""
    raw = raw_mask(path)
    if raw.ndim != 2:
        raise DataError(f"{path}: has {raw.shape[2]} channels; labels of NYU-Depth-v2 have one, with ids 0..40")
    wrong = (raw < 0) | (raw > len(_CLASSES))
    if wrong.any():
        y, x = (int(v) for v in np.argwhere(wrong)[0])
        raise DataError(
            f"{path}: label {raw[y, x]} at x={x}, y={y} ({int(wrong.sum())} such pixels) is no class; allowed: 0 = void"
            " and 1..40; labels that count classes from 0, with 255 for void, are to be raised by 1, 255 to 0"
        )
    ids = raw.astype(np.int64) - 1
    ids[raw == VOID] = 255
    return torch.from_numpy(ids)


def _class_names(path: Path) -> tuple[str, ...]:
    """Names of ids 1..40 from lines `ID NAME`; the built-in ones where there is no file."""
    if not path.is_file():
        return _CLASSES
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise DataError(f"{path}: not UTF-8 text; save it as UTF-8, or remove it") from None
    names: dict[int, str] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        word, _, name = line.strip().partition(" ")
        if not word.isdecimal() or not name.strip() or int(word) > len(_CLASSES) or int(word) in names:
            raise DataError(f"{path}:{number}: '{line}' is no class; write one line `ID NAME` for each id 0..40")
        names[int(word)] = name.strip()
    missing = [i for i in range(1, len(_CLASSES) + 1) if i not in names]
    if missing:
        raise DataError(
            f"{path}: id {missing[0]} has no name; write one line `ID NAME` for each id 1..40, or remove it"
        )
    return tuple(names[i] for i in range(1, len(_CLASSES) + 1))
