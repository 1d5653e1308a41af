"""A zip file for the Cityscapes test server: one PNG of label ids per frame, of the frame's size."""

import io
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from hs3seg.data.cityscapes import Cityscapes
from hs3seg.data.cityscapes_predictions import (
    Ids,
    find_predictions,
    frame_size,
    look_like_train_ids,
    read_prediction,
)
from hs3seg.data.parallel import in_order
from hs3seg.errors import DataError
from hs3seg.files import write_atomically
from hs3seg.taxonomies.cityscapes import CITYSCAPES, ID_OF_TRAIN_ID, NUM_IDS

NUM_TEST_FRAMES = 1525
_TIME = (1980, 1, 1, 0, 0, 0)  # of all files, so that equal predictions make equal archives


@dataclass(frozen=True)
class Submission:
    """What a zip file holds.

    Args:
        path: The file.
        num_frames: PNG files in it.
        num_bytes: Its size.
        pixels: Class name -> predicted pixels.
        num_unlabelled: Pixels that have none of the 19 classes: they count as wrong.
        notes: What the test server may not like, in sentences.
    """

    path: Path
    num_frames: int
    num_bytes: int
    pixels: dict[str, int]
    num_unlabelled: int
    notes: tuple[str, ...]


def write_submission(
    predictions: Path,
    dataset: Cityscapes,
    target_zip: Path,
    *,
    ids: Ids = "train",
    num_workers: int = 0,
    progress: Callable[[], None] | None = None,
) -> Submission:
    """Checks a prediction of every frame and packs all as `city_sequence_frame_pred_labelIds.png`.

    The file is whole or not there: at the first error, an older one stays as it was.

    Args:
        predictions: Folder with one file per frame at any depth, `city_sequence_frame*.png`, see `find_predictions`.
        dataset: The frames, usually split test; with another one, the format can be tried.
        target_zip: To write; its folder is made.
        ids: What the predictions hold: train = train ids, as hs3 predict writes them, which become label ids, and 255
            becomes 0; label = label ids already.
        num_workers: Processes; 0 = this one.
        progress: Called after each frame.

    Raises:
        DataError: a frame without prediction or with several, a file that cannot be used, label ids that look like
            train ids, or a target that cannot be written.
    """
    target = Path(target_zip)
    if target.suffix.lower() != ".zip" or target.is_dir():
        raise DataError(f"the test server takes a zip file, '{target}' is none; give a name that ends in .zip")
    if len(dataset) == 0:
        raise DataError(f"split '{dataset.split}' has no frames; nothing to submit")
    paths = find_predictions(Path(predictions), dataset.names)
    counts = np.zeros(NUM_IDS, np.int64)

    def write(temporary: Path) -> None:
        encode = partial(_encode, dataset, paths, ids)
        with zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as archive:  # PNG files are compressed already
            for name, (png, of_frame) in zip(dataset.names, in_order(encode, len(paths), num_workers), strict=True):
                archive.writestr(zipfile.ZipInfo(_file_name(name), _TIME), png)
                counts[:] += of_frame
                if progress:
                    progress()
        if ids == "label" and look_like_train_ids(counts > 0):
            raise DataError(
                f"predictions in '{predictions}' hold ids 0..18 alone, void among them: these are train ids, not label"
                " ids; say so: ids = 'train'"
            )
        _check(temporary, dataset.names)

    try:
        write_atomically(target, write)
    except OSError as error:
        raise DataError(f"'{target}' cannot be written ({error}); give another place") from None
    pixels = {name: int(counts[i]) for name, i in zip(CITYSCAPES.names, ID_OF_TRAIN_ID, strict=True)}
    unlabelled = int(counts.sum()) - sum(pixels.values())
    notes = _notes(dataset, unlabelled)
    return Submission(target, len(paths), target.stat().st_size, pixels, unlabelled, notes)


def _encode(dataset: Cityscapes, paths: Sequence[Path], ids: Ids, index: int) -> tuple[bytes, NDArray[np.int64]]:
    """PNG file of a frame's label ids, and pixels per label id."""
    labels = read_prediction(paths[index], frame_size(dataset, index), ids)
    file = io.BytesIO()
    Image.fromarray(labels).save(file, "PNG")
    return file.getvalue(), np.bincount(labels.ravel(), minlength=NUM_IDS)


def _file_name(name: str) -> str:
    return f"{name}_pred_labelIds.png"


def _check(path: Path, names: Sequence[str]) -> None:
    """Reads the archive again; an error is one of the disk."""
    with zipfile.ZipFile(path) as archive:
        broken = archive.testzip()
        if broken is not None or archive.namelist() != [_file_name(name) for name in names]:
            raise DataError(f"the archive was not written as it should ('{broken}' differs); check the disk, try again")


def _notes(dataset: Cityscapes, num_unlabelled: int) -> tuple[str, ...]:
    notes = []
    if dataset.split != "test":
        notes.append(f"These are frames of split '{dataset.split}'; the test server scores split test.")
    elif len(dataset) != NUM_TEST_FRAMES:
        notes.append(f"The test server wants {NUM_TEST_FRAMES} frames, split test has {len(dataset)} here.")
    if num_unlabelled:
        notes.append(f"{num_unlabelled} pixels have none of the 19 classes; they count as wrong.")
    return tuple(notes)
