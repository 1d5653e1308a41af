"""Reading and writing of YAML and JSON files in which other tools keep their classes."""

import json
from collections.abc import Hashable, Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]

from hs3seg.errors import DataError, PlanError
from hs3seg.files import write_atomically
from hs3seg.taxonomy import Grouping


def read_text(path: Path) -> str:
    """A text file in UTF-8, with or without a mark at the start.

    Raises:
        DataError: missing, unreadable, or no text.
    """
    try:
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise DataError(f"file of groups '{path}' does not exist") from None
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not a text file in UTF-8: {error}") from None
    except OSError as error:
        raise DataError(f"file of groups '{path}' cannot be read: {error.strerror}") from None


def write_text(path: Path, text: str) -> None:
    """Writes a text file in UTF-8, atomically and with the line ends that are in the text."""
    write_atomically(path, lambda temporary: temporary.write_bytes(text.encode("utf-8")))


def read_yaml(path: Path) -> dict[Any, Any]:
    """The mapping of a YAML file.

    Raises:
        DataError: not YAML, not a mapping, or a key twice (YAML readers would take the last one silently).
    """
    try:
        values = yaml.load(read_text(path), Loader=_StrictLoader)  # a SafeLoader: no objects are made
    except yaml.YAMLError as error:
        raise DataError(f"{path}: not a YAML file: {' '.join(str(error).split())}") from None
    return _mapping(values, path, "YAML")


def write_yaml(path: Path, values: Mapping[Any, Any], head: str) -> None:
    """Writes a YAML file with a comment at its head; keys keep their order."""
    body = yaml.safe_dump(dict(values), sort_keys=False, allow_unicode=True, width=1000)
    write_text(path, "".join(f"# {line}\n" for line in head.splitlines()) + body)


def read_json(path: Path) -> dict[Any, Any]:
    """The mapping of a JSON file.

    Raises:
        DataError: not JSON, not a mapping, or a key twice.
    """

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        doubled = [key for number, (key, _) in enumerate(pairs) if key in dict(pairs[:number])]
        if doubled:
            raise DataError(f"{path}: key '{doubled[0]}' stands twice; remove one")
        return dict(pairs)

    try:
        values = json.loads(read_text(path), object_pairs_hook=unique)
    except json.JSONDecodeError as error:
        raise DataError(f"{path}: not a JSON file: {error}") from None
    return _mapping(values, path, "JSON")


def mapping_of(values: Mapping[Any, Any], key: str, path: Path, example: str) -> dict[Any, Any]:
    """A mapping under a key.

    Raises:
        DataError: no such key, or something else there; `example` shows what it should be.
    """
    found = values.get(key)
    if not isinstance(found, dict) or not found:
        what = "no" if key not in values else f"{found!r} as"
        raise DataError(f"{path}: {what} '{key}'; write e.g. {example}")
    return found


def is_integer(value: Any) -> bool:
    """Whether a value is an integer; True and False are none."""
    return isinstance(value, int) and not isinstance(value, bool)


def grouping_of(groups: Iterable[Iterable[Any]], num_classes: int, path: Path, what: str = "class id") -> Grouping:
    """The grouping of lists of class ids.

    Raises:
        DataError: not integers, or each of 0..K-1 does not stand in one group once.
    """
    lists = [list(group) for group in groups]
    wrong = [member for group in lists for member in group if not is_integer(member)]
    if wrong:
        raise DataError(f"{path}: {what} {wrong[0]!r}; must be an integer 0..{num_classes - 1}")
    try:
        return Grouping.from_groups(lists, num_classes)
    except PlanError as error:
        raise DataError(f"{path}: {error}") from None


def grouping_of_map(groups: Mapping[Any, Any], num_classes: int, path: Path) -> Grouping:
    """The grouping of a mapping of class id to group.

    Raises:
        DataError: as `grouping_of`.
    """
    members: dict[Hashable, list[Any]] = {}
    for class_id, group in groups.items():
        if not is_integer(group) or group < 0:
            raise DataError(f"{path}: class {class_id!r} is in group {group!r}; a group is an integer, 0 or more")
        members.setdefault(group, []).append(class_id)
    return grouping_of(members.values(), num_classes, path)


def _mapping(values: Any, path: Path, kind: str) -> dict[Any, Any]:
    if not isinstance(values, dict):
        raise DataError(f"{path}: a {kind} mapping is expected, found {type(values).__name__}")
    return values


class _StrictLoader(yaml.SafeLoader):  # type: ignore[misc]
    def construct_mapping(self, node: Any, deep: bool = False) -> Any:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        doubled = [key for number, key in enumerate(keys) if key in keys[:number]]
        if doubled:
            raise yaml.constructor.ConstructorError(None, None, f"key {doubled[0]!r} stands twice", node.start_mark)
        return super().construct_mapping(node, deep)
