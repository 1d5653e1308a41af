"""Images and masks found by pattern, and what belongs together."""

import os
import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from hs3seg.data.images import IMAGE_SUFFIXES
from hs3seg.errors import DataError, nearest

SPLIT = "{split}"
_HIDDEN = (".", "__MACOSX")
_TOKENS = re.compile(r"\*\*/|\*\*|\*|\?|\[[^\]]+\]|\{[^{}]*\}|[^*?\[{]+|[\[{]")


@dataclass(frozen=True)
class Pattern:
    """Paths below a folder, e.g. `**/*_img.png` or `{split}/images/*.*`.

    `*` and `?` stand for any characters but `/`, `**/` for any folders or none, `[ab]` for one of the characters, and
    `{jpg,png}` for one of the words. What the first four stand for is the key of a file: image and mask belong
    together if theirs are equal. A `.*` at the end stands for any suffix and is not part of the key, nor are words.

    Args:
        text: The pattern; `/` between folders.
        key: Where it stands in the config, for errors.

    Raises:
        DataError: empty, absolute, or with `..`.
    """

    text: str
    key: str = "pattern"

    def __post_init__(self) -> None:
        parts = self.text.split("/")
        if not self.text or self.text.startswith("/") or ".." in parts or "\\" in self.text or ":" in parts[0]:
            raise DataError(
                f"{self.key} is '{self.text}'; write a path below the data folder with / between folders and no '..',"
                " such as 'images/**/*.jpg'"
            )

    def of_split(self, split: str) -> "Pattern":
        """With `{split}` filled in."""
        return Pattern(self.text.replace(SPLIT, re.sub(r"([*?\[{])", r"[\1]", split)), self.key)

    @property
    def has_split(self) -> bool:
        """Whether it tells splits apart."""
        return SPLIT in self.text

    @property
    def literal(self) -> int:
        """Characters that stand for themselves: of two patterns that fit a file, the one with more means it."""
        return sum(len(token) for token in self._tokens if token[0] not in "*?[{")

    def match(self, path: str) -> tuple[str, ...] | None:
        """The key of a path (with `/`), or None where the pattern does not fit."""
        found = self._expression.fullmatch(path)
        return tuple(same_letters(part) for part in found.groups()) if found else None

    def path_of(self, key: Sequence[str]) -> str:
        """The path of a key, to say which file is missing; the pattern itself if the key is another's."""
        if len(key) != sum(token[0] in "*?[" for token in self._tokens):
            return self.text
        values = iter(key)
        parts = [next(values, token) if token[0] in "*?[" else token for token in self._tokens]
        return "".join(parts) + self._suffix

    @cached_property
    def _suffix(self) -> str:
        return ".*" if self.text.endswith(".*") else ""

    @cached_property
    def _tokens(self) -> list[str]:
        return _TOKENS.findall(self.text.removesuffix(".*"))

    @cached_property
    def _expression(self) -> re.Pattern[str]:
        return re.compile(
            "".join(_expression(token) for token in self._tokens) + (r"\.[^./]+" if self._suffix else ""), re.DOTALL
        )


def _expression(token: str) -> str:
    match token[0]:
        case "*":
            return {"**/": "((?:[^/]+/)*)", "**": "(.*)", "*": "([^/]*)"}[token]
        case "?":
            return "([^/])"
        case "[" if len(token) > 1:
            inside = token[1:-1]
            negated = "^" if inside[0] in "!^" and len(inside) > 1 else ""
            escaped = re.sub(r"([\\\[\]^])", r"\\\1", inside[len(negated) :])
            return f"([{negated}{escaped}])"
        case "{" if len(token) > 1:
            return f"(?:{'|'.join(re.escape(word) for word in token[1:-1].split(','))})"
    return re.escape(token)


def files_below(root: Path) -> Iterator[Path]:
    """All files below a folder, in no order; links to folders are followed.

    Each folder counts once, so that links which lead in a circle end, and no sample is there twice: where it lies below
    `root` itself, else by the first of its links.
    """
    seen: set[tuple[int, int]] = set()
    starts = [root]
    while starts:
        links: list[Path] = []
        for folder, folders, names in (step for start in starts for step in os.walk(start)):
            here = Path(folder)
            status = here.stat()
            if (status.st_dev, status.st_ino) in seen:
                folders.clear()
                continue
            seen.add((status.st_dev, status.st_ino))
            links += [path for name in folders if (path := here / name).is_symlink()]
            yield from (here / name for name in names)
        starts = sorted(links)


def picture_paths(root: Path) -> list[str]:
    """All picture files below a folder, sorted, relative to it and with `/`; hidden files and folders are left out."""
    found = (path.relative_to(root) for path in files_below(root) if path.suffix.lower() in IMAGE_SUFFIXES)
    return sorted(path.as_posix() for path in found if not any(part.startswith(_HIDDEN) for part in path.parts))


def same_letters(name: str) -> str:
    """A name in one spelling: file systems write an accented letter as one character, or as letter and accent."""
    return unicodedata.normalize("NFC", name)


def pair_by_pattern(
    root: Path, images: Pattern, masks: Pattern, paths: Iterable[str] | None = None
) -> list[tuple[Path, Path]]:
    """Image and mask files below a folder, by pattern, sorted by the image's path.

    A file that fits both patterns belongs to the one with more characters that stand for themselves: with the images
    `*.png` and the masks `*_mask.png`, `a_mask.png` is a mask. Where the patterns have unequal numbers of wildcards,
    the last of each counts.

    Args:
        root: The folder.
        images: Of the images.
        masks: Of the masks.
        paths: What is below the folder, as of `picture_paths`; None = look.

    Raises:
        DataError: no image, one without its partner, or two of one key.
    """
    found, labels = match_pairs(root, images, masks, picture_paths(root) if paths is None else paths)
    _check_partners(root, found, labels, "image", "mask", masks)
    _check_partners(root, labels, found, "mask", "image", images)
    return [(root / found[key], root / labels[key]) for key in sorted(found, key=found.__getitem__)]


def is_list_of_names(lines: Sequence[str], root: Path, images: Pattern) -> bool:
    """Whether a list has one name per line, not `image mask`; names may have spaces then."""
    if not any(len(line.split()) > 1 for line in lines):
        return True
    if any("\t" in line for line in lines):
        return False
    known = {name for path in picture_paths(root) if (key := images.match(path)) for name in _names(path, key)}
    return all(_plain(line) in known for line in lines)


def pair_by_names(root: Path, listed: Path, images: Pattern, masks: Pattern) -> list[tuple[Path, Path]]:
    """Image and mask files of a list with one name per line; files that are not listed need no partner.

    A name is the image's path below the folder, with or without suffix; its key, see `Pattern`; or its stem.

    Raises:
        DataError: a name outside the folder, unknown, of two images, or there twice; an image without its mask.
    """
    found, labels = match_pairs(root, images, masks, picture_paths(root))
    keys: dict[str, list[tuple[str, ...]]] = {}
    for key, path in found.items():
        for name in _names(path, key):
            keys.setdefault(name, []).append(key)
    lines: dict[tuple[str, ...], int] = {}
    for number, line in enumerate(list_lines(listed), start=1):
        name = _plain(line)
        if not name:
            continue
        if name.startswith("/") or ".." in name.split("/") or re.match("[A-Za-z]:", name):
            raise DataError(f"{listed}:{number}: '{line}' lies outside '{root}'; names are relative to it")
        fitting = keys.get(name, [])
        if len(fitting) != 1:
            some = ", ".join(f"'{found[key]}'" for key in fitting[:3])
            said = f"is the name of several images, {some}; write the path" if fitting else "is no image by "
            raise DataError(
                f"{listed}:{number}: '{line}' {said}"
                + ("" if fitting else f"{images.key} = '{images.text}'; {nearest(name, keys)}")
            )
        if lines.setdefault(fitting[0], number) != number:
            raise DataError(f"{listed}:{number}: '{line}' already stands in line {lines[fitting[0]]}; remove one")
    if not lines:
        raise DataError(f"{listed}: the list is empty, so the split has no images; write one name per line")
    chosen = {key: found[key] for key in lines}
    _check_partners(root, chosen, labels, "image", "mask", masks)
    return [(root / found[key], root / labels[key]) for key in lines]


def list_lines(listed: Path) -> list[str]:
    """Lines of a list, without the spaces around them.

    Raises:
        DataError: not UTF-8.
    """
    try:
        text = listed.read_text(encoding="utf-8-sig")  # with or without the mark that Windows editors write
    except UnicodeDecodeError:
        raise DataError(f"{listed}: not UTF-8 text; save the list as UTF-8") from None
    return [line.strip() for line in text.splitlines()]


def _plain(line: str) -> str:
    """A line of a list as a path: some tools write `./images/a.png`, or backslashes."""
    return same_letters(line.replace("\\", "/")).removeprefix("./")


def _names(path: str, key: Sequence[str]) -> set[str]:
    """What a list may call an image."""
    whole = same_letters(path)
    stem = whole.rpartition(".")[0]
    return {whole, stem, stem.rpartition("/")[2], whole.rpartition("/")[2], "".join(key)}


_Found = dict[tuple[str, ...], str]


def match_pairs(root: Path, images: Pattern, masks: Pattern, paths: Iterable[str]) -> tuple[_Found, _Found]:
    """Images and masks by key, whether or not they have partners; see `pair_by_pattern`.

    Raises:
        DataError: no image, or two files of one key.
    """
    found: _Found = {}
    labels: _Found = {}
    for path in paths:
        of_image, of_mask = images.match(path), masks.match(path)
        if of_image is not None and of_mask is not None:
            of_image, of_mask = (None, of_mask) if masks.literal > images.literal else (of_image, None)
        for key, kept, pattern in ((of_image, found, images), (of_mask, labels, masks)):
            if key is not None and kept.setdefault(key, path) != path:
                raise DataError(
                    f"'{root / kept[key]}' and '{path}' both fit {pattern.key} = '{pattern.text}' with one key"
                    f" '{''.join(key)}', so it is unclear which to take; remove one, or give the suffix"
                )
    if not found:
        raise DataError(
            f"no image below '{root}' fits {images.key} = '{images.text}', so the split is empty; images end in"
            f" {', '.join(sorted(IMAGE_SUFFIXES))}"
        )
    if labels and len(next(iter(found))) != len(next(iter(labels))):
        return _by_last(root, found, images), _by_last(root, labels, masks)
    return found, labels


def _check_partners(
    root: Path,
    found: _Found,
    others: _Found,
    what: str,
    other: str,
    pattern: Pattern,
) -> None:
    alone = sorted(found[key] for key in set(found) - set(others))
    if alone:
        key = next(key for key, path in found.items() if path == alone[0])
        raise DataError(
            f"{what} '{root / alone[0]}' has no {other} by {pattern.key} = '{pattern.text}', i.e."
            f" '{pattern.path_of(key)}' ({len(alone)} such {what}s); add the {other}, remove the {what}, or correct the"
            " pattern"
        )


def _by_last(root: Path, files: _Found, pattern: Pattern) -> _Found:
    kept: _Found = {}
    for key, path in files.items():
        if kept.setdefault(key[-1:], path) != path:
            raise DataError(
                f"'{root / kept[key[-1:]]}' and '{path}' have one name by {pattern.key} = '{pattern.text}'; write"
                " data.image_pattern and data.mask_pattern with as many * and ** each, so that folders count, too"
            )
    return kept
