"""Predictions for Cityscapes on disk: found by name as the official script does, checked, read as label ids."""

import bisect
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from hs3seg.data.cityscapes import Cityscapes
from hs3seg.data.images import raw_mask
from hs3seg.errors import DataError
from hs3seg.taxonomies.cityscapes import ID_OF_TRAIN_ID, IGNORED, LABELS, NUM_IDS

Ids = Literal["label", "train"]

_NUM_CLASSES = len(ID_OF_TRAIN_ID)
_VOID = [label.id for label in LABELS if label.category == "void"]


def find_predictions(folder: Path, names: Sequence[str]) -> list[Path]:
    """The one prediction of each frame: a file anywhere below the folder whose name fits `NAME*.png`.

    As in the official script, links to folders are not followed and the suffix is in small letters.

    Args:
        folder: Of the predictions.
        names: `city_sequence_frame` of each frame.

    Returns:
        A file per name, in the order of names. Further files are left alone.

    Raises:
        DataError: no such folder, or a frame without prediction or with several.
    """
    if not folder.is_dir():
        raise DataError(f"predictions '{folder}' are no folder; give the one that holds CITY_SEQUENCE_FRAME*.png files")
    found = sorted(
        (file, where) for where, _, files in os.walk(folder) for file in files if Path(file).suffix == ".png"
    )
    files = [file for file, _ in found]
    paths: list[Path] = []
    missing: list[str] = []
    for name in names:
        first = bisect.bisect_left(files, name)
        own = first
        while own < len(files) and files[own].startswith(name):
            own += 1
        matches = [Path(where) / file for file, where in found[first:own]]
        if len(matches) > 1:
            raise DataError(
                f"frame '{name}' has {len(matches)} predictions in '{folder}', e.g. '{matches[0]}' and '{matches[1]}';"
                " keep one of them (pictures and colours belong elsewhere)"
            )
        missing += [] if matches else [name]
        paths += matches
    if missing:
        there = f"{len(files)} PNG files there, e.g. '{files[0]}'" if files else "no PNG file there"
        raise DataError(
            f"{len(missing)} of {len(names)} frames have no prediction in '{folder}' ({there}), the first is"
            f" '{missing[0]}'; a prediction is a PNG whose name begins with it, e.g. '{missing[0]}_pred.png'"
        )
    return paths


def read_prediction(path: Path, size: tuple[int, int], ids: Ids) -> NDArray[np.uint8]:
    """Label ids of a prediction.

    Args:
        path: One channel, or a palette image, whose indices count.
        size: (height, width) of the frame.
        ids: What the file holds: label = label ids, 0..33; train = train ids, 0..18, and 255, which becomes 0.

    Returns:
        (H, W) uint8, 0..33.

    Raises:
        DataError: unreadable, of another size, several channels, or a value that is no such id.
    """
    _check_size(path, size)  # before it is decoded, which may need much memory
    values = raw_mask(path)
    if values.ndim != 2:
        raise DataError(
            f"{path}: has {values.shape[2]} channels; a prediction has one, of ids, not colours (output 'index' of hs3"
            " predict)"
        )
    wrong = (values < 0) | (values >= (_NUM_CLASSES if ids == "train" else NUM_IDS))
    if ids == "train":
        wrong &= values != IGNORED
    if wrong.any():
        y, x = (int(v) for v in np.argwhere(wrong)[0])
        kind, limits = ("train ids", "0..18 and 255") if ids == "train" else ("label ids", f"0..{NUM_IDS - 1}")
        raise DataError(
            f"{path}: value {values[y, x]} at x={x}, y={y} ({int(wrong.sum())} such pixels); {kind} are"
            f" {limits}{_hint(values[wrong], ids)}"
        )
    return _label_ids(values, ids)


def look_like_train_ids(present: NDArray[np.bool_]) -> bool:
    """Whether the ids of all predictions together look like train ids taken for label ids.

    Train ids end at 18 and begin with road, 0, where label ids have void; the largest of these are sky and vehicles.

    Args:
        present: (34,) whether a label id was found anywhere.
    """
    return bool(present[_VOID].any() and not present[_NUM_CLASSES:].any())


def frame_size(dataset: Cityscapes, index: int) -> tuple[int, int]:
    """(height, width) of a frame's image, which is not decoded.

    Raises:
        DataError: unreadable.
    """
    return _size(Path(dataset.files(index)[0]))


def _label_ids(values: NDArray[Any], ids: Ids) -> NDArray[np.uint8]:
    if ids == "label":
        return values.astype(np.uint8)
    table = np.zeros(256, np.uint8)
    table[:_NUM_CLASSES] = ID_OF_TRAIN_ID
    return np.asarray(table[values])


def _hint(wrong: NDArray[Any], ids: Ids) -> str:
    if ids == "train" and (wrong < NUM_IDS).all():
        return "; if these are label ids, say so: ids = 'label'"
    if ids == "label" and (wrong == IGNORED).all():
        return "; if these are train ids, say so: ids = 'train'"
    return "; every pixel needs the id of a class"


def _check_size(path: Path, size: tuple[int, int]) -> None:
    height, width = _size(path)
    if (height, width) != size:
        raise DataError(
            f"{path}: is {width}x{height} pixels, its frame {size[1]}x{size[0]}; enlarge the logits to the frame's size"
            " before the classes are chosen"
        )


def _size(path: Path) -> tuple[int, int]:
    try:
        with Image.open(path) as image:
            return image.height, image.width
    except FileNotFoundError:
        raise DataError(f"image file '{path}' does not exist") from None
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise DataError(f"{path}: cannot be read ({error}); write it again") from None
