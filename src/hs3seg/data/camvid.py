"""CamVid: SegNet's frames of 360x480, or the original ones of 720x960; 367 train, 101 val, 233 test.

In SegNet's layout, labels are ids 0..10 and 11 for void. The original one has a colour for each of 32 labels; its
frames are not split, so the official splits are told by their names.
"""

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, from_numpy
from torchvision import tv_tensors

from hs3seg.data.images import IMAGE_SUFFIXES, raw_mask, read_mask, read_stored_image
from hs3seg.data.pairs import check_size, pair_files, read_pair, upright
from hs3seg.data.sample import Sample
from hs3seg.errors import DataError
from hs3seg.taxonomies.camvid import CAMVID32, FROM_32, TAXONOMIES, Classes

VOID = 11
FRAMES, LABELS = "701_StillsRaw_full", "LabeledApproved_full"
OFFICIAL_SIZES = {"train": 367, "val": 101, "test": 233}
"""Frames of each official split."""

Layout = Literal["auto", "segnet", "original"]

_NAME = re.compile(r"(0001TP|0006R0|0016E5|Seq05VD)_f?(\d{5,6})")
_SUFFIX = "_L"  # of the stem of an original label


class CamVid:
    """One split.

    Layouts:

    - `segnet`: ROOT/SPLIT holds images, ROOT/SPLITannot label PNGs of the same stems;
    - `original`: ROOT/701_StillsRaw_full holds images, ROOT/LabeledApproved_full colour labels STEM_L.png; either may
      have other sizes and formats, and frames may be missing, which `notes` says.

    Args:
        root: ROOT.
        split: train, val or test; `trainval` and `all`, too, in the original layout.
        classes: 11 (SegNet's), or 32: all labels, of which Void is ignored, so 31 are learned; needs the original
            layout.
        layout: `auto` takes SegNet's where the split has its folder.

    Attributes:
        notes: What is to be known about the files, in sentences.

    Raises:
        DataError: a folder is missing or empty, an image has no mask or a mask no image, or a frame's name is unknown.
    """

    def __init__(self, root: Path | str, split: str, classes: Classes = 11, layout: Layout = "auto") -> None:
        if classes not in TAXONOMIES:
            raise DataError(f"CamVid has 11 or 32 classes, not {classes}")
        self.split, self.taxonomy = split, TAXONOMIES[classes]
        self.notes: tuple[str, ...] = ()
        root = Path(root)
        if layout == "auto":
            layout = "segnet" if (root / split).is_dir() or not (root / FRAMES).is_dir() else "original"
        self._classes: Classes = classes
        self._original = layout == "original"
        if self._original:
            self._pairs, self.notes = _find_original(root, split)
        elif classes == 32:
            raise DataError(
                f"'{root}' has CamVid in SegNet's layout, whose labels are 11 classes; set classes = 11, or give the"
                f" folder that holds {FRAMES} and {LABELS}"
            )
        else:
            self._pairs = _find_segnet(root, split)

    @property
    def names(self) -> Sequence[str]:
        """File stems."""
        return [image.stem for image, _ in self._pairs]

    def __len__(self) -> int:
        return len(self._pairs)

    def read(self, index: int) -> Sample:
        """One frame with its labels."""
        image, mask = self._pairs[index]
        if not self._original:
            return read_pair(image, mask, self.taxonomy, ignore_ids=(VOID,))
        pixels, labels = upright(image, *read_stored_image(image), _classes_of_colours(mask, self._classes))
        check_size(mask, labels, image, pixels)
        return Sample(tv_tensors.Image(pixels), tv_tensors.Mask(labels), image.stem)

    def files(self, index: int) -> tuple[str, ...]:
        """Image and mask."""
        image, mask = self._pairs[index]
        return str(image), str(mask)


def official_split(name: str) -> str:
    """The official split of a frame, e.g. `0016E5_07961` -> `val`.

    Two of the videos were cut: the second half of 0001TP is tested, and of 0016E5 the part labelled at 15 Hz, which has
    odd numbers from 07959 to 08159, is val.

    Raises:
        DataError: no name of a CamVid frame.
    """
    found = _NAME.fullmatch(name)
    if not found:
        raise DataError(
            f"'{name}' is no name of a CamVid frame, such as 0001TP_006690, 0006R0_f00930, 0016E5_00390 or"
            " Seq05VD_f00000, so its split is unknown; rename or remove it"
        )
    video, number = found[1], int(found[2])
    if video == "Seq05VD" or (video == "0001TP" and number >= 8550):
        return "test"
    if video == "0016E5" and 7959 <= number <= 8159 and number % 2:
        return "val"
    return "train"


def _find_segnet(root: Path, split: str) -> list[tuple[Path, Path]]:
    images, masks = root / split, root / f"{split}annot"
    for folder in (images, masks):
        if not folder.is_dir():
            raise DataError(
                f"CamVid split '{split}' needs the folder '{folder}', which does not exist; found in {root}:"
                f" {_folders(root)}; SegNet's layout has train, trainannot, val, valannot, test, testannot, the"
                f" original one {FRAMES} and {LABELS}"
            )
    return pair_files(images, masks)


def _find_original(root: Path, split: str) -> tuple[list[tuple[Path, Path]], tuple[str, ...]]:
    """Frames of a split with their labels, and notes."""
    for folder in (root / FRAMES, root / LABELS):
        if not folder.is_dir():
            raise DataError(
                f"CamVid's original frames need the folder '{folder}', which does not exist; found in {root}:"
                f" {_folders(root)}"
            )
    wanted = {"trainval": ("train", "val"), "all": tuple(OFFICIAL_SIZES)}.get(split, (split,))
    if not set(wanted) <= set(OFFICIAL_SIZES):
        raise DataError(f"CamVid has no split '{split}'; allowed: {', '.join(OFFICIAL_SIZES)}, trainval, all")
    frames, labels = _stems(root / FRAMES), _stems(root / LABELS)
    if not frames:
        raise DataError(f"no image in '{root / FRAMES}'; frames are named as 0001TP_006690.png")
    for stem, path in labels.items():
        if not stem.endswith(_SUFFIX) or stem.removesuffix(_SUFFIX) not in frames:
            raise DataError(f"label '{path}' has no frame '{root / FRAMES / stem.removesuffix(_SUFFIX)}.*'; add it")
    chosen = sorted(stem for stem in frames if official_split(stem) in wanted)
    for stem in chosen:
        if stem + _SUFFIX not in labels:
            raise DataError(f"frame '{frames[stem]}' has no label '{root / LABELS / stem}{_SUFFIX}.*'; add it")
    if not chosen:
        raise DataError(f"'{root / FRAMES}' has no frame of CamVid's official split '{split}'; copy all 701 frames")
    expected = sum(OFFICIAL_SIZES[name] for name in wanted)
    note = f"{len(chosen)} of the {expected} frames of the official split '{split}' are there."
    return [(frames[stem], labels[stem + _SUFFIX]) for stem in chosen], (() if len(chosen) == expected else (note,))


def _stems(folder: Path) -> dict[str, Path]:
    """Image files of a folder; others, such as Thumbs.db of the official archives, are left out."""
    paths = [path for path in sorted(folder.iterdir()) if path.suffix.lower() in IMAGE_SUFFIXES]
    doubled = [stem for stem, count in Counter(path.stem for path in paths).items() if count > 1]
    if doubled:
        raise DataError(f"'{folder}' has two files named '{doubled[0]}.*', so it is unclear which to take; remove one")
    return {path.stem: path for path in paths}


def _quarter_codes(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """One number 0..63 for each colour (..., 3): CamVid's are made of 0, 64, 128 and 192."""
    quarters = pixels >> 6
    return np.asarray(quarters[..., 0] << 4 | quarters[..., 1] << 2 | quarters[..., 2], np.uint8)


# Looking colours up by their codes takes less than half the time of finding the distinct ones. Codes that are no label
# have a colour of another code, so they never fit.
_COLOURS = np.ones((64, 3), np.uint8)
_CODES = _quarter_codes(np.array(CAMVID32.colours, np.uint8))
_COLOURS[_CODES] = CAMVID32.colours
_COLOURS[0] = 0  # Void


def _classes_of_colours(path: Path, classes: Classes) -> Tensor:
    """Classes (H, W) int64 of a colour label, 255 for Void."""
    raw = raw_mask(path)
    table = np.full(256, CAMVID32.ignore_index, np.int64)
    if raw.ndim == 3 and raw.dtype == np.uint8:
        codes = _quarter_codes(raw[..., :3])
        if np.array_equal(_COLOURS[codes], raw[..., :3]):
            table[_CODES] = FROM_32[classes]
            return from_numpy(table[codes])
    table[: CAMVID32.num_classes] = FROM_32[classes]
    return from_numpy(table[read_mask(path, CAMVID32, "rgb").numpy()])  # says which colour is wrong, and where


def _folders(root: Path) -> str:
    found = sorted(path.name for path in root.iterdir() if path.is_dir()) if root.is_dir() else []
    return ", ".join(found[:12]) or "no folder"
