"""Unpacking data sets that come as zip or tar, without trusting what is written in them."""

import stat
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from lzma import LZMAError
from pathlib import Path
from typing import IO

from hs3seg.errors import DataError

MAX_GIB = 100.0
_BLOCK = 1 << 20
_RESERVED = frozenset(("con", "prn", "aux", "nul", *(f"{name}{i}" for name in ("com", "lpt") for i in range(1, 10))))


@dataclass(frozen=True, slots=True)
class _Entry:
    """A file or folder of an archive: its name and size in bytes, and how its content is read."""

    name: str
    is_folder: bool
    size: int
    refused: str
    open: Callable[[], IO[bytes] | None]


def unpack(
    archive: Path | str,
    target: Path | str,
    max_gib: float = MAX_GIB,
    progress: Callable[[int, int], object] | None = None,
) -> list[Path]:
    """Unpacks a zip or tar (also .gz, .bz2, .xz) into a folder, all of it or nothing.

    All names are looked at before the first byte is written. Files are written beside the target and moved at the end,
    with ordinary rights: nothing of the archive's owners, rights or times is taken over.

    Args:
        archive: Zip or tar file.
        target: Folder; made if missing. No file in it is overwritten.
        max_gib: Most that the unpacked files may take, in GiB (2**30 bytes), whatever the archive says of itself.
        progress: Called with the bytes written so far and of all files.

    Returns:
        The files, in the archive's order.

    Raises:
        DataError: no such archive, a damaged one, or an encrypted one; an entry that is absolute, outside the target, a
            link or a device, that no system can write, or that stands there twice; more than `max_gib`; or a file that
            is already there.
    """
    archive, target = Path(archive), Path(target)
    with _entries(archive) as entries:
        places = _places(archive, target, entries)
        total = sum(entry.size for entry in entries)
        if total > max_gib * 2**30:
            raise DataError(_too_large(archive, f"{total / 2**30:.1f}", max_gib))
        made = [folder for folder in (target, *target.parents) if not folder.exists()]
        target.mkdir(parents=True, exist_ok=True)
        try:
            with tempfile.TemporaryDirectory(prefix=".unpacking-", dir=target) as beside:
                files = _write(archive, Path(beside), entries, places, max_gib, total, progress)
                for place in files:
                    (target / place).parent.mkdir(parents=True, exist_ok=True)
                    (Path(beside) / place).replace(target / place)
            for entry, place in zip(entries, places, strict=True):
                if entry.is_folder:
                    (target / place).mkdir(parents=True, exist_ok=True)
        except BaseException:
            for folder in made:
                if folder.is_dir() and not any(folder.iterdir()):
                    folder.rmdir()
            raise
    return [target / place for place in files]


def is_archive(path: Path) -> bool:
    """Whether a file is a zip or tar, by its content."""
    return path.is_file() and (zipfile.is_zipfile(path) or tarfile.is_tarfile(path))


def _write(
    archive: Path,
    folder: Path,
    entries: list[_Entry],
    places: list[Path],
    max_gib: float,
    total: int,
    progress: Callable[[int, int], object] | None,
) -> list[Path]:
    written = 0
    files = []
    for entry, place in zip(entries, places, strict=True):
        if entry.is_folder:
            continue
        (folder / place).parent.mkdir(parents=True, exist_ok=True)
        source = entry.open()
        if source is None:
            raise DataError(f"{archive}: entry '{entry.name}' has no content; pack the data again")
        with source, (folder / place).open("xb") as file:
            while block := source.read(_BLOCK):
                written += len(block)
                if written > max_gib * 2**30:  # sizes in headers may lie
                    raise DataError(_too_large(archive, f"more than {max_gib:g}", max_gib))
                file.write(block)
                if progress is not None:
                    progress(written, max(total, written))
        files.append(place)
    return files


def _places(archive: Path, target: Path, entries: list[_Entry]) -> list[Path]:
    """Where each entry goes, relative to the target; everything that is wrong with any name is found here."""
    places: list[Path] = []
    files: dict[str, str] = {}
    folders: dict[str, str] = {}
    for entry in entries:
        place = _place(archive, entry)
        # Without case: a and A are one file on many systems.
        own, *above = (path.as_posix().casefold() for path in (place, *place.parents))
        clash = next((files[path] for path in (own, *above) if path in files), None)
        if clash is None and not entry.is_folder:
            clash = folders.get(own)
        if clash is not None:
            raise DataError(f"{archive}: entry '{entry.name}' would overwrite '{clash}'; rename one and pack again")
        if not (target / place).resolve().is_relative_to(target.resolve()):
            raise DataError(f"{archive}: entry '{entry.name}' would lead out of '{target}' by a link there; remove it")
        if not entry.is_folder and (target / place).exists():
            raise DataError(f"'{target / place}' is already there; unpack {archive} into an empty folder")
        (folders if entry.is_folder else files)[own] = entry.name
        folders |= dict.fromkeys(above, entry.name)
        places.append(place)
    return places


def _place(archive: Path, entry: _Entry) -> Path:
    name = entry.name.replace("\\", "/")  # Windows takes both
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if name.startswith("/") or (parts and len(parts[0]) > 1 and parts[0][1] == ":"):
        raise DataError(
            f"{archive}: entry '{entry.name}' has an absolute name; entries must be relative, pack it again"
        )
    if ".." in parts:
        raise DataError(f"{archive}: entry '{entry.name}' points outside the target folder; do not trust this archive")
    if entry.refused:
        raise DataError(f"{archive}: entry '{entry.name}' is {entry.refused}; pack the files themselves")
    if (not parts and not entry.is_folder) or any(
        ord(letter) < 32 or letter == ":" or part.partition(".")[0].lower() in _RESERVED
        for part in parts
        for letter in part
    ):
        raise DataError(f"{archive}: entry {entry.name!r} has a name that not every system can write; rename it")
    return Path(*parts)


@contextmanager
def _entries(archive: Path) -> Iterator[list[_Entry]]:
    if not archive.is_file():
        raise DataError(f"archive '{archive}' does not exist")
    try:
        if zipfile.is_zipfile(archive):
            with zipfile.ZipFile(archive) as packed:
                yield [_of_zip(packed, info) for info in packed.infolist()]
        elif tarfile.is_tarfile(archive):
            with tarfile.open(archive) as packed_tar:
                yield [_of_tar(packed_tar, info) for info in packed_tar.getmembers()]
        else:
            raise DataError(f"{archive}: neither zip nor tar; unpack it yourself and give the folder")
    except (zipfile.BadZipFile, tarfile.TarError, zlib.error, LZMAError, EOFError) as error:
        raise DataError(f"{archive}: is damaged ({error}); copy or download it again") from None
    except NotImplementedError as error:  # zipfile raises it for a kind of compression that it cannot read
        raise DataError(f"{archive}: {error}; unpack it yourself and give the folder") from None


def _of_zip(packed: zipfile.ZipFile, info: zipfile.ZipInfo) -> _Entry:
    kind = stat.S_IFMT(info.external_attr >> 16)  # 0 where the zip was not made on Unix
    refused = ""
    if kind == stat.S_IFLNK:
        refused = "a link"
    elif kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        refused = "no file"
    elif info.flag_bits & 1:
        refused = "encrypted"
    return _Entry(info.filename, info.is_dir(), info.file_size, refused, lambda: packed.open(info))


def _of_tar(packed: tarfile.TarFile, info: tarfile.TarInfo) -> _Entry:
    refused = ""
    if info.issym() or info.islnk():
        refused = f"a link to '{info.linkname}'"
    elif not info.isfile() and not info.isdir():
        refused = "no file"
    return _Entry(info.name, info.isdir(), info.size, refused, lambda: packed.extractfile(info))


def _too_large(archive: Path, size: str, max_gib: float) -> str:
    return f"{archive}: would take {size} GiB, the limit is {max_gib:g}; if you trust it, raise max_gib"
