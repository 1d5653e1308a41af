"""Decoded samples kept on disk, in a file that all processes map into memory.

A folder holds

    cache.json   which data set it is
    index.bin    one record per sample: where it lies, its shape, the state of its source files, a checksum
    samples.bin  per sample the image (H, W, C) uint8 and the labels (H, W), in the smallest of uint8, int16, int64
    lock         held by the process that writes

A sample is written behind all others, synced, and only then named by its record, all under the lock. So a process that
is killed at any moment leaves a cache in which the sample is whole or not there, and the next one writes to its place.
"""

import contextlib
import errno
import hashlib
import json
import mmap
import os
import warnings
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchvision import tv_tensors

from hs3seg.data.sample import Sample, SegmentationDataset, channels_of, notes_of
from hs3seg.errors import DataError, Hs3Warning
from hs3seg.files import write_atomically, write_json

_VERSION = 1
_ALIGN = 4096  # bytes: a page
_RECORD = np.dtype(
    [
        ("offset", "<u8"),
        ("source", "<u8"),
        ("height", "<u4"),
        ("width", "<u4"),
        ("channels", "<u2"),
        ("label_bytes", "<u2"),
        ("checksum", "<u4"),  # of the fields before it, as the last: a half-written record counts as none
    ]
)
_LABELS: dict[int, torch.dtype] = {1: torch.uint8, 2: torch.int16, 8: torch.int64}  # by bytes


class DiskCache:
    """Keeps every decoded sample of a data set in a folder, for this run and later ones.

    Any number of processes may read and fill one folder at once, on one machine. A sample whose source files change in
    size or time is decoded again; the space of its old version is not reused.

    Args:
        dataset: What to keep.
        folder: Of this data set alone; made if missing. Delete it to start anew.
        max_gib: Size limit in GiB (2**30 bytes). What does not fit is decoded each time; a warning says so once.
        key: Anything else on which the decoded values depend and which the data set does not show: its options.

    Raises:
        DataError: the folder cannot be written, or holds the cache of something else.
    """

    def __init__(
        self, dataset: SegmentationDataset, folder: Path | str, *, max_gib: float = 64.0, key: str = ""
    ) -> None:
        if max_gib <= 0:
            raise DataError(f"the disk cache's limit of {max_gib} GiB leaves room for nothing; give more than 0")
        self.taxonomy, self.split = dataset.taxonomy, dataset.split
        self.channels, self.notes = channels_of(dataset), notes_of(dataset)
        self._dataset, self._names = dataset, tuple(dataset.names)
        self.folder = Path(folder)
        self._max_bytes = int(max_gib * 2**30)
        self._samples: IO[bytes] | None = None
        self._index: NDArray[Any] | None = None
        self._known: set[int] = set()  # samples whose source this process has looked at
        self._open(_identity(dataset, self._names, key))
        if self._full_mark.exists() and self.num_stored < len(self):
            self._warn_full()

    @property
    def source(self) -> SegmentationDataset:
        """The data set that is kept."""
        return self._dataset

    @property
    def names(self) -> Sequence[str]:
        """Names of the samples."""
        return self._names

    @property
    def num_stored(self) -> int:
        """Samples that the folder holds, of any state of their files."""
        return sum(_is_whole(record) for record in self._records())

    @property
    def num_bytes(self) -> int:
        """Size of the decoded samples on disk, replaced ones included."""
        return int(_ends(self._records()).max(initial=0))

    def __len__(self) -> int:
        return len(self._names)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_samples": None, "_index": None}  # a spawned process opens them itself

    def files(self, index: int) -> tuple[str, ...]:
        """Files of a sample."""
        return self._dataset.files(index)

    def read(self, index: int) -> Sample:
        """A sample, from the disk after the first time.

        Raises:
            DataError: the source files cannot be used, or the cache cannot be written.
        """
        sample = self.read_compact(index)
        image, mask = sample.image.as_subclass(Tensor), sample.mask.as_subclass(Tensor)
        return Sample(tv_tensors.Image(image.contiguous()), tv_tensors.Mask(mask.to(torch.int64)), sample.name)

    def read_compact(self, index: int) -> Sample:
        """A sample whose tensors are views of the mapped file.

        The image (C, H, W) lies in memory as (H, W, C); labels are uint8 or int16 where they allow it. What is written
        to the tensors is seen by nobody else.
        """
        index = range(len(self))[index]
        record = self._record(index)
        if record is None:
            return self._decode(index)
        height, width, channels, kind = (int(record[name]) for name in ("height", "width", "channels", "label_bytes"))
        pages, first = self._mapped(int(record["offset"]), int(_ends(record)))
        second = first + _padded(height * width * channels)
        image = torch.frombuffer(pages, dtype=torch.uint8, count=height * width * channels, offset=first)
        mask = torch.frombuffer(pages, dtype=_LABELS[kind], count=height * width, offset=second)
        pixels = image.view(height, width, channels).permute(2, 0, 1)
        return Sample(tv_tensors.Image(pixels), tv_tensors.Mask(mask.view(height, width)), self._names[index])

    def fill(self) -> None:
        """Decodes now what is not there yet."""
        for index in range(len(self)):
            if self._record(index) is None:
                self._decode(index)

    def _open(self, identity: dict[str, Any]) -> None:
        """Makes the folder's files, or makes sure that they are of this data set."""
        head = self.folder / "cache.json"
        with self._writing(), self._locked():
            if not head.exists():
                empty = bytes(len(self) * _RECORD.itemsize)
                write_atomically(self.folder / "index.bin", lambda path: path.write_bytes(empty))
                write_atomically(self.folder / "samples.bin", lambda path: path.write_bytes(b""))
                write_json(head, identity)  # last: with it the cache is there
        try:
            found = json.loads(head.read_text(encoding="utf-8"))
            same = found == identity and (self.folder / "samples.bin").exists()
            same = same and (self.folder / "index.bin").stat().st_size == len(self) * _RECORD.itemsize
        except (ValueError, OSError):
            raise DataError(f"{head}: is damaged; delete the folder '{self.folder}', it is made anew") from None
        if not same:
            found = found if isinstance(found, dict) else {}
            what = f"{found.get('dataset')} {found.get('split')}, {found.get('num_samples')} samples"
            raise DataError(
                f"folder '{self.folder}' holds the cache of another data set or of other options ({what}; wanted:"
                f" {identity['dataset']} {self.split}, {len(self)} samples); give another folder or delete this one"
            )

    def _records(self) -> NDArray[Any]:
        if self._index is None:
            self._index = np.memmap(self.folder / "index.bin", _RECORD, mode="r", shape=(len(self),))
        return self._index

    def _record(self, index: int) -> Any | None:
        """Record of a sample if it is whole and its source has not changed."""
        record = self._records()[index].copy()  # others may write to it
        if not _is_whole(record):
            return None
        if index not in self._known:
            if int(record["source"]) != self._source(index) or int(_ends(record)) > self._size():
                return None
            self._known.add(index)
        return record

    def _mapped(self, start: int, end: int) -> tuple[mmap.mmap, int]:
        """Pages that hold the bytes from `start` to `end` of the samples' file, and the place of `start` in them.

        Each sample is mapped by itself and privately: torch wants memory that it may write to, and a private map of the
        whole file would have to be backed by as much memory.
        """
        if self._samples is None:
            self._samples = (self.folder / "samples.bin").open("rb")
        first = start // mmap.ALLOCATIONGRANULARITY * mmap.ALLOCATIONGRANULARITY
        try:
            pages = mmap.mmap(self._samples.fileno(), end - first, access=mmap.ACCESS_COPY, offset=first)
        except (OSError, ValueError) as error:
            raise DataError(
                f"disk cache '{self.folder}': samples.bin cannot be mapped ({error}); if something else has changed the"
                " file, delete the folder"
            ) from None
        return pages, start - first

    def _size(self) -> int:
        try:
            return (self.folder / "samples.bin").stat().st_size
        except OSError:
            return 0  # the folder was removed: writing to it will say so

    def _source(self, index: int) -> int:
        """State of a sample's files as a 64-bit number."""
        parts: list[Any] = []
        for file in self._dataset.files(index):
            with contextlib.suppress(OSError, ValueError):  # what is no file is known by its name
                state = os.stat(file)  # noqa: PTH116 - `Path` would cost more than the call
                file = f"{Path(file).name}:{state.st_size}:{state.st_mtime_ns}"
            parts.append(file)
        text = "\n".join((self._names[index], *parts))
        return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")

    def _decode(self, index: int) -> Sample:
        source = self._source(index)  # before reading: a change meanwhile is found the next time
        sample = self._dataset.read(index)
        self._store(index, sample, source)
        return sample

    def _store(self, index: int, sample: Sample, source: int) -> None:
        image = sample.image.as_subclass(Tensor).permute(1, 2, 0).contiguous().numpy()  # (H, W, C)
        mask = _smallest(sample.mask.as_subclass(Tensor)).contiguous().numpy()
        record = np.zeros((), _RECORD)
        record["source"], record["label_bytes"] = source, mask.dtype.itemsize
        record["height"], record["width"], record["channels"] = image.shape
        with self._writing(), self._locked():
            records = self._written()
            mine = records[index]
            if _is_whole(mine) and int(mine["source"]) == source:
                return  # another process was faster
            record["offset"] = _padded(int(_ends(records).max()))
            if int(_ends(record)) > self._max_bytes:
                if not self._full_mark.exists():  # so that one process says it
                    self._full_mark.touch()
                    self._warn_full()
                return
            record["checksum"] = _checksum(record)
            with (self.folder / "samples.bin").open("r+b") as file:
                file.seek(int(record["offset"]))
                file.write(image.data)
                file.seek(int(record["offset"]) + _padded(image.nbytes))
                file.write(mask.data)
                file.flush()
                getattr(os, "fdatasync", os.fsync)(file.fileno())  # not everywhere
            self._write_record(index, record)

    def _written(self) -> NDArray[Any]:
        """All records, for the process that has the lock.

        Those that lie behind the end of the samples' file are wiped out: somebody has shortened it, and they would come
        to life again when it grows.
        """
        records = np.fromfile(self.folder / "index.bin", _RECORD)
        for index in np.flatnonzero(_ends(records) > self._size()):
            records[index] = np.zeros((), _RECORD)
            self._write_record(int(index), records[index])
        return records

    def _write_record(self, index: int, record: Any) -> None:
        with (self.folder / "index.bin").open("r+b", buffering=0) as file:
            file.seek(index * _RECORD.itemsize)
            file.write(record.tobytes())

    @property
    def _full_mark(self) -> Path:
        return self.folder / f"full-at-{self._max_bytes}"

    def _warn_full(self) -> None:
        warnings.warn(
            f"disk cache '{self.folder}' is full: {self.num_stored} of {len(self)} samples fill its"
            f" {self._max_bytes / 2**30:.3g} GiB, the others are decoded each time; raise the limit, or delete the"
            " folder if replaced samples fill it",
            Hs3Warning,
            stacklevel=2,
        )

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        # A file descriptor of its own each time: one that was inherited by fork would share the parent's lock.
        try:
            import fcntl
        except ImportError:
            raise DataError("the disk cache needs file locks of Unix; keep samples in memory here") from None
        with (self.folder / "lock").open("ab") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            yield
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise DataError(
                    f"disk cache '{self.folder}': no space left on the disk; free some, lower the limit, or put the"
                    " cache on another disk (what is stored so far stays usable)"
                ) from None
            raise DataError(
                f"disk cache '{self.folder}' cannot be written ({error.strerror or error}); give a folder in which you"
                " may write"
            ) from None


def _identity(dataset: SegmentationDataset, names: Sequence[str], key: str) -> dict[str, Any]:
    taxonomy = dataset.taxonomy
    source = getattr(dataset, "label_source", "")
    depends = repr((names, taxonomy.names, taxonomy.colours, taxonomy.ignore_index, channels_of(dataset), key, source))
    return {
        "version": _VERSION,
        "dataset": type(dataset).__name__,
        "split": dataset.split,
        "num_samples": len(names),
        "fingerprint": hashlib.blake2b(depends.encode(), digest_size=16).hexdigest(),
    }


def _smallest(mask: Tensor) -> Tensor:
    low, high = (int(value) for value in torch.aminmax(mask))
    return mask.to(next(t for t in _LABELS.values() if torch.iinfo(t).min <= low and high <= torch.iinfo(t).max))


def _ends(records: NDArray[Any]) -> NDArray[np.int64]:
    """Where each sample ends, in bytes."""
    pixels = records["height"].astype(np.int64) * records["width"]
    image = -(-pixels * records["channels"] // _ALIGN) * _ALIGN
    return np.asarray(records["offset"].astype(np.int64) + image + pixels * records["label_bytes"])


def _padded(size: int) -> int:
    return -(-size // _ALIGN) * _ALIGN


def _checksum(record: Any) -> int:
    return zlib.crc32(record.tobytes()[:-4])


def _is_whole(record: Any) -> bool:
    return int(record["label_bytes"]) in _LABELS and int(record["checksum"]) == _checksum(record)
