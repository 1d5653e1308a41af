"""Files to segment: found in files, folders and patterns, and given names that tell their results apart."""

import glob
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from hs3seg.data import IMAGE_SUFFIXES
from hs3seg.data.patterns import files_below
from hs3seg.data.video import VIDEO_SUFFIXES
from hs3seg.errors import DataError

_SUFFIXES = IMAGE_SUFFIXES | VIDEO_SUFFIXES


@dataclass(frozen=True, slots=True)
class Item:
    """One file to segment.

    Args:
        path: The image or video.
        root: Folder that was searched, or the file's own.
        name: Of the results, relative to the output folder; may have folders in it.
    """

    path: Path
    root: Path
    name: str

    @property
    def is_video(self) -> bool:
        """By its suffix."""
        return self.path.suffix.lower() in VIDEO_SUFFIXES


def find_items(inputs: Sequence[Path | str], out: Path, results: Callable[[str, bool], Sequence[Path]]) -> list[Item]:
    """Images and videos in the order of the inputs, each once; folders and patterns are sorted.

    A folder is searched with all below it. Results of an earlier prediction that lie in a searched folder, because
    `out` does, are no inputs. Names are file stems; where two would have one result, all keep their folders.

    Args:
        inputs: Files, folders, or patterns with `*`, `?`, `[...]` and `**`; a file of that very name comes first.
        out: Folder of the results.
        results: (name, is video) -> paths of what is going to be written.

    Raises:
        DataError: nothing is found, a file is missing, or a result would overwrite an input or another result.
    """
    found: dict[Path, tuple[Path, Path]] = {}  # resolved -> (path, root): a file that is named twice counts once
    for given in inputs:
        for path, root in _expand(Path(given), out):
            found.setdefault(path.resolve(), (path, root))
    if not found:
        raise DataError("no image or video is given; give files, folders or patterns such as 'photos/**/*.jpg'")
    return _named(list(found.values()), set(found), results)


def _expand(given: Path, out: Path) -> Iterator[tuple[Path, Path]]:
    if given.is_dir():
        if given.resolve() == out.resolve():
            raise DataError(f"'{out}' is the input and the output folder; choose another --out")
        # As in patterns, hidden files are none: other systems put such beside photos, with the same endings.
        visible = (p for p in files_below(given) if not any(n.startswith(".") for n in p.relative_to(given).parts))
        files = sorted(p for p in visible if p.suffix.lower() in _SUFFIXES and p.is_file())
        files = _without_results(files, given, out)
        if not files:
            raise DataError(
                f"no image in '{given}'; images end in {', '.join(sorted(IMAGE_SUFFIXES))}, videos in"
                f" {', '.join(sorted(VIDEO_SUFFIXES))}"
            )
        yield from ((path, given) for path in files)
    elif given.is_file():
        yield given, given.parent
    elif glob.has_magic(str(given)):
        root = _before_pattern(given)
        # Path.glob takes hidden files, and no files for a `**` at the end.
        found = sorted(Path(p) for p in glob.glob(str(given), recursive=True))  # noqa: PTH207
        files = _without_results([p for p in found if p.suffix.lower() in _SUFFIXES and p.is_file()], root, out)
        if not files:
            raise DataError(
                f"no image or video matches '{given}'; a pattern takes files: for a whole folder give '{root}'"
            )
        yield from ((path, root) for path in files)
    else:
        raise DataError(f"image '{given}' does not exist; give image files, folders of them or patterns")


def _before_pattern(pattern: Path) -> Path:
    """The folders of a pattern before its first wildcard."""
    plain = []
    for part in pattern.parts[:-1]:
        if glob.has_magic(part):
            break
        plain.append(part)
    return Path(*plain)


def _without_results(files: list[Path], root: Path, out: Path) -> list[Path]:
    if not out.resolve().is_relative_to(root.resolve()) or out.resolve() == root.resolve():
        return files  # out may hold the inputs, as the current folder often does
    return [path for path in files if not path.resolve().is_relative_to(out.resolve())]


def _named(
    files: list[tuple[Path, Path]], sources: set[Path], results: Callable[[str, bool], Sequence[Path]]
) -> list[Item]:
    parents = [str(path.absolute().parent) for path, _ in files]
    try:
        common = Path(os.path.commonpath(parents))
    except ValueError:  # several drives
        common = Path(files[0][0].absolute().anchor)
    clash: tuple[Path, Path, Path] | None = None
    for name_of in (
        lambda path, _root: path.stem,
        lambda path, root: path.relative_to(root).with_suffix("").as_posix(),
        lambda path, _root: Path(os.path.relpath(path.absolute(), common)).with_suffix("").as_posix(),
        lambda path, _root: Path(os.path.relpath(path.absolute(), common)).as_posix(),
    ):
        items = [Item(path, root, name_of(path, root)) for path, root in files]
        clash = _clash(items, results)
        if clash is None:
            break
    else:
        assert clash is not None
        first, second, result = clash
        raise DataError(f"'{first}' and '{second}' would both have the result '{result}'; predict them one by one")
    for item in items:
        for result in results(item.name, item.is_video):
            if result.resolve() in sources:
                raise DataError(f"'{item.path}' has the result '{result}', which is an input; choose another --out")
    return items


def _clash(items: Sequence[Item], results: Callable[[str, bool], Sequence[Path]]) -> tuple[Path, Path, Path] | None:
    """Two inputs and the result they share, by letters of any case: some file systems do not tell them apart."""
    owner: dict[str, Path] = {}
    for item in items:
        for result in results(item.name, item.is_video):
            other = owner.setdefault(str(result).casefold(), item.path)
            if other != item.path:
                return other, item.path, result
    return None
