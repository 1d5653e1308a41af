"""Depth files in the usual encodings, as metres or as one channel of 8 bits.

The channel that networks get means metres = (v + 0.5) / 25.5, 0..10 m; 0 stands for no depth, which no sensor confuses
with 0.02 m. Files in 8 bits already have that form; others are rounded to it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from hs3seg.errors import DataError

DepthUnit = Literal["auto", "metres", "millimetres", "tenth_millimetres", "ten_metres", "relative"]
Kind = Literal["8-bit", "16-bit", "floating-point"]

_PER_METRE = {"metres": 1.0, "millimetres": 1000.0, "tenth_millimetres": 10000.0}
_CODES_PER_METRE = 25.5
_FARTHEST_METRES = 10.5  # the sensor ends at 10
_ALLOWED: dict[Kind, tuple[DepthUnit, ...]] = {
    "8-bit": ("ten_metres", "relative"),
    "16-bit": ("millimetres", "tenth_millimetres", "ten_metres", "relative"),
    "floating-point": ("metres", "millimetres"),
}
_WORDS: dict[DepthUnit, str] = {
    "metres": "metres",
    "millimetres": "millimetres",
    "tenth_millimetres": "tenths of a millimetre",
    "ten_metres": "the whole range of values stands for 10 metres, in 8 bits metres = (v + 0.5) / 25.5",
    "relative": "stretched to the whole range in every frame, so not in metres",
}
DEPTH_SUFFIXES = (".png", ".npy", ".tiff", ".tif", ".jpg", ".jpeg", ".bmp", ".webp")


@dataclass(frozen=True, slots=True)
class DepthReader:
    """Reads depth files of one encoding.

    Args:
        kind: Type of the values in the files.
        unit: What they mean: metres; millimetres; tenth_millimetres (metres x 10000); ten_metres: 8-bit values are
            metres = (v + 0.5) / 25.5, 16-bit ones v / 6553.5; relative: the nearest and farthest of each frame are its
            smallest and largest values, so there are no metres.
    """

    kind: Kind
    unit: DepthUnit

    def channel(self, path: Path) -> Tensor:
        """A depth file as a channel of 8 bits; files of 8 bits as they are stored.

        Returns:
            (1, H, W) uint8; relative depth: 0..255 as in the file, not metres.

        Raises:
            DataError: unreadable, no depth image, or of another type than the others.
        """
        values = self._values(path)
        if self.kind == "8-bit":
            return torch.from_numpy(values)[None]
        if self.unit == "relative":
            return torch.from_numpy((values >> 8).astype(np.uint8))[None]
        return torch.from_numpy(to_channel(self._metres(values)))[None]

    def metres(self, path: Path) -> NDArray[np.float32]:
        """A depth file in metres.

        Returns:
            (H, W) float32; 0 = no depth.

        Raises:
            DataError: as `channel`, or the depth is relative.
        """
        if self.unit == "relative":
            raise DataError(
                f"{path}: depth is {_WORDS['relative']}, and HHA needs metres; use depth = 'raw', files in metres, or"
                " depth_unit = 'ten_metres' if they are"
            )
        return self._metres(self._values(path))

    def _values(self, path: Path) -> NDArray[Any]:
        values = read_depth_values(path)
        if kind_of(values) != self.kind:
            raise DataError(
                f"{path}: has {kind_of(values)} values, other depth files {self.kind} ones; write all alike"
            )
        return values

    def _metres(self, values: NDArray[Any]) -> NDArray[np.float32]:
        if self.unit == "ten_metres":
            metres = (values + 0.5) / _CODES_PER_METRE if self.kind == "8-bit" else values / 6553.5
        else:
            metres = values / _PER_METRE[self.unit]
        known = np.isfinite(metres) & (values > 0)
        return np.where(known, metres, 0).astype(np.float32)


def to_channel(metres: NDArray[Any]) -> NDArray[np.uint8]:
    """Metres (H, W) as 8-bit codes v, metres = (v + 0.5) / 25.5; 1..255 for depth, 0 where there is none."""
    known = np.isfinite(metres) & (metres > 0)
    codes = np.rint(np.where(known, metres, 0) * _CODES_PER_METRE - 0.5)
    return np.where(known, np.clip(codes, 1, 255), 0).astype(np.uint8)


def read_depth(path: Path, unit: DepthUnit = "auto") -> Tensor:
    """One depth file as a channel; see `DepthReader.channel` and `find_depth_reader`.

    Returns:
        (1, H, W) uint8.

    Raises:
        DataError: unreadable, no depth image, or its unit cannot be known from this file alone.
    """
    return find_depth_reader([path], unit)[0].channel(path)


def find_depth_reader(paths: Sequence[Path], unit: DepthUnit = "auto") -> tuple[DepthReader, str]:
    """Finds out what depth files hold.

    8-bit values count as ten_metres, or as relative where each of several frames reaches from 0 to 255. 16-bit values
    count as millimetres where none is above 10500 and their median is at least 300; above, tenths of a millimetre and
    ten metres look alike. Floating-point values up to 10.5 are metres.

    Args:
        paths: Some files of the set; those that cannot be read are passed over here.
        unit: What they hold, if it is known.

    Returns:
        The reader, and a sentence that says what was found.

    Raises:
        DataError: it cannot be found out, `unit` does not fit the files, or none of them can be read.
    """
    frames: list[NDArray[Any]] = []
    failure: DataError | None = None
    for path in paths:
        try:
            frames.append(read_depth_values(path))
        except DataError as error:
            failure = failure or error
    if not frames:
        raise failure or DataError("no depth file was given")
    kinds = [kind_of(values) for values in frames]
    kind = max(dict.fromkeys(kinds), key=kinds.count)
    same = [values for values, own in zip(frames, kinds, strict=True) if own == kind]
    if unit == "auto":
        found, reason = _guess(kind, same, paths[0].parent), "found by looking at the files"
    else:
        found, reason = unit, "as told"
    if found not in _ALLOWED[kind]:
        raise DataError(
            f"depth files in '{paths[0].parent}' have {kind} values, but depth_unit is '{found}'; allowed for them:"
            f" {', '.join(_ALLOWED[kind])}"
        )
    return DepthReader(kind, found), f"Depth files have {kind} values: {_WORDS[found]} ({reason})."


def read_depth_values(path: Path) -> NDArray[Any]:
    """A depth file as it is stored: (H, W), uint8, uint16 or float32.

    Raises:
        DataError: unreadable, or not one channel of such values.
    """
    values = _load(path)
    if values.ndim == 3 and values.shape[2] == 1:
        values = values[..., 0]
    if values.ndim == 3 and values.shape[2] in (3, 4) and (values[..., :1] == values[..., :3]).all():
        values = values[..., 0]  # grey, saved as colours
    if values.ndim != 2:
        raise DataError(
            f"{path}: is no depth image: it has colours, or shape {values.shape}; depth files have one channel"
        )
    if values.dtype.kind == "f":
        return values.astype(np.float32)
    if values.dtype == np.uint8:
        return values
    if values.size and (values.min() < 0 or values.max() > 65535):
        raise DataError(f"{path}: depth of {values.min()}..{values.max()}; integers are to be 0..65535")
    return values.astype(np.uint16)


def kind_of(values: NDArray[Any]) -> Kind:
    """The type of depth values in words."""
    return {"u1": "8-bit", "u2": "16-bit"}.get(values.dtype.str[1:], "floating-point")  # type: ignore[return-value]


def _load(path: Path) -> NDArray[Any]:
    try:
        if path.suffix.lower() == ".npy":
            values: NDArray[Any] = np.load(path, allow_pickle=False)
            if values.dtype.kind not in "fiu":
                raise DataError(f"{path}: holds values of type {values.dtype}; depth is a number of 8, 16 or 32 bits")
            return values
        with Image.open(path) as image:
            image.load()
            if image.mode in ("P", "PA"):
                return np.array(image.convert("RGB"))  # a grey palette stays grey; other ones are colours
            return np.array(image.getchannel(0) if image.mode == "LA" else image)
    except FileNotFoundError:
        raise DataError(f"depth file '{path}' does not exist") from None
    except UnidentifiedImageError:
        raise DataError(f"{path}: not an image file; replace it or remove its frame from the split") from None
    except (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError) as error:
        raise DataError(f"{path}: cannot be read ({error}); the file may be truncated, copy it again") from None


def _guess(kind: Kind, frames: Sequence[NDArray[Any]], folder: Path) -> DepthUnit:
    if kind == "8-bit":
        stretched = len(frames) > 1 and all(int(v.min()) == 0 and int(v.max()) == 255 for v in frames)
        return "relative" if stretched else "ten_metres"
    known = np.concatenate([v[np.isfinite(v) & (v > 0)].ravel() for v in frames])
    if known.size:
        highest, median = float(known.max()), float(np.median(known))
        if kind == "floating-point" and highest <= _FARTHEST_METRES:
            return "metres"
        if highest <= 1000 * _FARTHEST_METRES and median >= 300:
            return "millimetres"
        found = f"values up to {highest:g}, median {median:g}"
    else:
        found = "no value above 0"
    raise DataError(
        f"depth files in '{folder}' have {kind} values of a unit that cannot be found out ({found}); set depth_unit to"
        f" one of: {', '.join(_ALLOWED[kind])}"
    )
