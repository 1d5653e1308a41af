"""Hugging Face data sets with a column of images and one of masks: on disk, as a folder or parquet, from the hub.

Needs the package `datasets`: pip install '.[datasets]' in a checkout of hs3seg.
"""

import tempfile
from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchvision import tv_tensors

from hs3seg.data.images import raw_mask, read_mask, read_stored_image
from hs3seg.data.pairs import check_size, upright
from hs3seg.data.sample import Sample
from hs3seg.errors import DataError, nearest
from hs3seg.taxonomy import Taxonomy

IMAGE_COLUMNS = ("image", "img", "pixel_values", "picture", "rgb")
MASK_COLUMNS = (
    *("mask", "label", "labels", "annotation", "annotations", "segmentation", "semantic_segmentation"),
    *("segmentation_mask", "semantic_mask", "seg", "gt"),
)
"""Names that are tried, in this order, where no column is given."""


class HuggingFace:
    """One split of a data set of the `datasets` library.

    A stream has no length and no order of access, which training, the analysis split and resuming need. So of a stream
    the first `stream_samples` rows are read once, when the data set is opened, and kept in memory as they are stored
    (JPEG, PNG): an epoch is these rows, and no more is ever downloaded. Otherwise all of the split is fetched to the
    library's cache first.

    Args:
        source: A folder made by `save_to_disk`; a folder with parquet or other files that `load_dataset` knows; one
            .parquet file; or a name on the hub, e.g. `owner/name`.
        split: Name of the split, as the data set has it.
        taxonomy: Classes; these data sets seldom name them.
        image: Column of images; empty = one of `IMAGE_COLUMNS`.
        mask: Column of masks, as pictures (ids, palette or the taxonomy's colours) or as arrays (H, W) of ids; empty =
            one of `MASK_COLUMNS`.
        name: Column of unique names; empty = the row's number.
        subset: Of the data set, which the library calls its configuration; empty = its only or default one.
        revision: Branch, tag or commit on the hub; empty = the newest.
        first_id: Id of class 0 in the masks; smaller ids are ignored. 1 where 0 means unlabelled.
        stream_samples: Rows read from a stream; 0 = no stream.
        cache: Folder of downloads; none = the library's own.

    Raises:
        DataError: `datasets` is not installed; the data set, split or a column is not there; names are not unique.
    """

    def __init__(
        self,
        source: str | Path,
        split: str,
        taxonomy: Taxonomy,
        *,
        image: str = "",
        mask: str = "",
        name: str = "",
        subset: str = "",
        revision: str = "",
        first_id: int = 0,
        stream_samples: int = 0,
        cache: Path | None = None,
    ) -> None:
        self.taxonomy, self.split = taxonomy, split
        self._first_id = first_id
        self._place = f"'{source}', split '{split}'"
        rows = _load(str(source), split, subset, revision, stream_samples, cache)
        columns = list(rows.features or ())
        self._image = _column(image, IMAGE_COLUMNS, columns, "image", self._place)
        self._mask = _column(mask, MASK_COLUMNS, columns, "mask", self._place)
        if self._image == self._mask:
            raise DataError(f"{self._place}: images and masks are both in the column '{self._mask}'; name two columns")
        if name and name not in columns:
            raise DataError(f"{self._place}: no column '{name}' of names; {nearest(name, columns)}")
        kept = [column for column in (self._image, self._mask, name) if column]
        self._rows: Any = _undecoded(rows.select_columns(kept), (self._image, self._mask))
        if stream_samples:
            self._rows = _first(self._rows, stream_samples, self._place)
        if not len(self._rows):
            raise DataError(f"{self._place}: has no rows; take another split")
        self._names = self._read_names(name)

    @property
    def names(self) -> Sequence[str]:
        """Of the column of names, or numbers of rows."""
        return self._names

    def __len__(self) -> int:
        return len(self._rows)

    def read(self, index: int) -> Sample:
        """One row, image and labels upright."""
        try:
            row = self._rows[index]
        except (OSError, ValueError, TypeError) as error:
            raise DataError(f"{self.files(index)[0]}: cannot be read ({_line(error)}); load the data again") from None
        image_place, mask_place = (Path(self._where(index, column)) for column in (self._image, self._mask))
        stored, orientation = self._picture(row[self._image], read_stored_image, index, self._image)
        pixels, labels = upright(image_place, stored, orientation, self._labels(row[self._mask], index))
        check_size(mask_place, labels, image_place, pixels)
        return Sample(tv_tensors.Image(pixels), tv_tensors.Mask(labels), self._names[index])

    def files(self, index: int) -> tuple[str, ...]:
        """The row, as it has no file."""
        return (f"{self._place}, row {index}",)

    @property
    def label_source(self) -> str:
        """What the rows are made from, as `datasets` knows it: another revision or changed files have another."""
        return str(getattr(self._rows, "_fingerprint", ""))

    def ids(self, count: int = 20) -> list[int]:
        """The ids in masks of `count` rows, evenly over the split: to write a taxonomy.toml, or to see `first_id`."""
        found: set[int] = set()
        for index in range(0, len(self), max(1, len(self) // count)):
            found |= set(np.unique(self._raw(self._rows[index][self._mask], index)).tolist())
        return sorted(found)

    def _where(self, index: int, column: str) -> str:
        return f"{self.files(index)[0]}, column '{column}'"

    def _read_names(self, column: str) -> Sequence[str]:
        if not column:
            return [f"{index:06}" for index in range(len(self._rows))]
        rows = self._rows
        names = [str(value) for value in ([row[column] for row in rows] if isinstance(rows, list) else rows[column])]
        if len(set(names)) < len(names):
            doubled = next(name for index, name in enumerate(names) if name in names[:index])
            raise DataError(f"{self._place}: two rows have the name '{doubled}' in the column '{column}'; take another")
        return names

    def _picture(self, value: Any, read: Callable[[Path], Any], index: int, column: str) -> Any:
        """What `read` makes of a stored picture. It wants a file, so that pictures are read in one way everywhere."""
        place = self._where(index, column)
        data, path = (value.get("bytes"), value.get("path")) if isinstance(value, dict) else (None, None)
        if data is None and not path:
            raise DataError(f"{place}: holds {'nothing' if value is None else type(value).__name__}, but no picture")
        if data is None:
            return read(Path(str(path)))
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "picture"
            file.write_bytes(data)
            try:
                return read(file)
            except DataError as error:
                raise DataError(str(error).replace(str(file), place)) from None

    def _raw(self, value: Any, index: int) -> NDArray[Any]:
        """Ids (H, W), or colours (H, W, 3 or 4), as stored."""
        if isinstance(value, dict) or value is None:
            return np.asarray(self._picture(value, raw_mask, index, self._mask))
        try:
            array = np.asarray(value)
        except ValueError:
            array = np.empty(0)  # rows of unequal length
        if array.ndim == 3 and array.shape[0] == 1:
            array = array[0]
        if array.ndim != 2 or array.dtype.kind not in "iub":
            raise DataError(
                f"{self._where(index, self._mask)}: an array of shape {array.shape} and type {array.dtype}; a mask is"
                " (H, W) integers"
            )
        return array

    def _labels(self, value: Any, index: int) -> Tensor:
        raw = self._raw(value, index)
        if raw.ndim == 3:
            labels: Tensor = self._picture(value, lambda file: read_mask(file, self.taxonomy, "rgb"), index, self._mask)
            return labels
        ids = raw.astype(np.int64)
        ignored = (ids == self.taxonomy.ignore_index) | (ids < self._first_id)
        wrong = ~ignored & (ids - self._first_id >= self.taxonomy.num_classes)
        if wrong.any():
            y, x = (int(v) for v in np.argwhere(wrong)[0])
            last = self._first_id + self.taxonomy.num_classes - 1
            raise DataError(
                f"{self._where(index, self._mask)}: label {ids[y, x]} at x={x}, y={y} ({int(wrong.sum())} such pixels)"
                f" is no class; allowed: {self._first_id}..{last} and the ignore label {self.taxonomy.ignore_index};"
                " correct the mask, the taxonomy or first_id"
            )
        return torch.from_numpy(np.where(ignored, self.taxonomy.ignore_index, ids - self._first_id))


def _load(source: str, split: str, subset: str, revision: str, stream_samples: int, cache: Path | None) -> Any:
    """A `Dataset` or `IterableDataset`."""
    try:
        import datasets
    except ImportError:
        raise DataError(
            f"'{source}' needs the package datasets, which is not installed: pip install '.[datasets]' in a checkout of"
            " hs3seg"
        ) from None
    path = Path(source)
    if (path / "state.json").is_file() or (path / "dataset_dict.json").is_file():
        return _load_saved(datasets, path, split)
    options: dict[str, Any] = {"split": split, "streaming": stream_samples > 0, "cache_dir": cache and str(cache)}
    if path.suffix.lower() == ".parquet":
        arguments = ["parquet"]
        options["data_files"] = {split: source}
    else:
        arguments = [source, subset] if subset else [source]
        options["revision"] = revision or None
    if path.suffix.lower() == ".parquet" and not path.is_file():
        raise DataError(f"parquet file '{source}' does not exist")
    try:
        return datasets.load_dataset(*arguments, **options)
    except Exception as error:  # the library lets those of many others pass: of files, pyarrow, the network, the hub
        local = path.exists()
        advice = "the split and the files" if local else "the name, the split, the subset and the network"
        raise DataError(
            f"Hugging Face data set '{source}', split '{split}' cannot be loaded ({type(error).__name__}:"
            f" {_line(error)}); check {advice}"
        ) from None


def _load_saved(datasets: Any, path: Path, split: str) -> Any:
    try:
        found = datasets.load_from_disk(str(path))
    except Exception as error:  # as above
        raise DataError(
            f"'{path}' cannot be loaded ({type(error).__name__}: {_line(error)}); save the data set again"
        ) from None
    if not isinstance(found, dict):
        return found  # saved without splits: it is the one that was asked for
    if split not in found:
        raise DataError(f"'{path}' has no split '{split}'; {nearest(split, found)}")
    return found[split]


def _line(error: Exception) -> str:
    """The first line of an error's message."""
    return (str(error).strip().splitlines() or ["no message"])[0]


def _column(given: str, usual: Sequence[str], columns: Sequence[str], what: str, place: str) -> str:
    if given:
        if given not in columns:
            raise DataError(f"{place}: no column '{given}'; {nearest(given, columns)}")
        return given
    found = next((name for name in usual if name in columns), None)
    if found is None:
        raise DataError(
            f"{place}: which column holds the {what}s? It has: {', '.join(columns) or 'none that is known'}; name it in"
            f" data.{what}_column"
        )
    return found


def _undecoded(rows: Any, columns: Iterable[str]) -> Any:
    """The same rows, whose pictures come as they are stored."""
    import datasets

    for column in columns:
        if isinstance(rows.features[column], datasets.Image):
            rows = rows.cast_column(column, datasets.Image(decode=False))
    return rows


def _first(rows: Any, count: int, place: str) -> list[Any]:
    try:
        return [{column: _fetched(value) for column, value in row.items()} for row in islice(rows, count)]
    except Exception as error:  # as in _load: the stream is opened only now
        raise DataError(
            f"{place}: the stream broke ({type(error).__name__}: {_line(error)}); check the network, or set"
            " stream_samples = 0"
        ) from None


def _fetched(value: Any) -> Any:
    """A picture that a stream gives as an address, with its content."""
    if not isinstance(value, dict) or value.get("bytes") is not None or "://" not in str(value.get("path")):
        return value
    import fsspec  # type: ignore[import-untyped]  # the library needs it

    with fsspec.open(value["path"], "rb") as file:
        return {"bytes": file.read(), "path": None}
