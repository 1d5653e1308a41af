"""Reading, overriding and checking of configs."""

import json
import tomllib
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from hs3seg.config.data import KINDS
from hs3seg.config.sections import Config
from hs3seg.errors import ConfigError, nearest


def load_config(path: Path, overrides: Sequence[str] = ()) -> Config:
    """Reads a config file and lays command-line overrides over it.

    Args:
        path: A TOML file.
        overrides: `--section.key value` pairs or `--section.key=value`, as they stood on the command line. A value is
            TOML (`60`, `true`, `[360, 480]`) or plain text; `none` unsets an optional key.

    Raises:
        ConfigError: file missing, empty or not TOML; unknown key (the nearest is named); wrong type or range.
    """
    if path.is_dir():
        own = f", such as {path / 'hs3.toml'}" if (path / "hs3.toml").is_file() else ""
        raise ConfigError(f"'{path}' is a folder; give the config file{own}")
    if not path.is_file():
        raise ConfigError(f"config file '{path}' does not exist; start from one in configs/, or see `hs3 run --help`")
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not a TOML file: {error}") from None
    if not values:
        raise ConfigError(f"{path}: the file is empty; it must at least say name, [data] kind and [augment] crop")
    apply_overrides(values, overrides)
    return _validate(values, str(path))


def apply_overrides(values: dict[str, Any], overrides: Sequence[str]) -> None:
    """Lays `--section.key value` words over plain config values, in place.

    Raises:
        ConfigError: unknown key (the nearest is named), or a key without a value.
    """
    for key, text in _pairs(overrides):
        _override(values, key, text)


def config_from_dict(values: Mapping[str, Any], origin: str) -> Config:
    """Checks plain values, e.g. those kept in a weight file; `origin` names them in errors."""
    return _validate(values, origin)


def without_other_kinds(values: dict[str, Any]) -> None:
    """Drops keys of the data section that only other kinds have, in place: weight files of 0.1 hold them all."""
    data = values.get("data", {})
    if isinstance(data, dict) and data.get("kind") in KINDS:
        for key in set(data) - set(KINDS[data["kind"]].model_fields):
            if f"data.{key}" in _KNOWN:
                del data[key]


def describe_keys() -> Iterator[tuple[str, str, str]]:
    """Yields (dotted key, default as text, description) of every config value, in the order of the sections.

    A key that only one kind of data has says so; one that several have with different meanings comes once for each.
    """
    for key, fields in _KNOWN.items():
        for kind, field in fields.items():
            if key == "data.kind":
                continue
            default = "required" if field.is_required() else _text(field.default)
            yield key, default, f"{kind} data: {field.description}" if kind else field.description or ""
        if key == "data.kind":
            yield key, "required", "; ".join(f"{kind} = {field.description}" for kind, field in fields.items())


def _pairs(arguments: Sequence[str]) -> Iterator[tuple[str, str]]:
    rest = list(arguments)
    while rest:
        word = rest.pop(0)
        if not word.startswith("--") or len(word) == 2:
            raise ConfigError(f"unexpected argument '{word}'; config values are given as --section.key value")
        key, equals, text = word[2:].partition("=")
        if not equals:
            _field(key.replace("-", "_"))
            if not rest:
                raise ConfigError(f"option '--{key}' has no value; write --{key} VALUE")
            text = rest.pop(0)
        yield key.replace("-", "_"), text


def _override(values: dict[str, Any], key: str, text: str) -> None:
    fields = _field(key)
    *sections, name = key.split(".")
    for section in sections:
        inner = values.setdefault(section, {})
        if not isinstance(inner, dict):
            raise ConfigError(f"config section '{section}' is {inner!r}, not a table; write [{section}]")
        values = inner
    kinds: set[Any] = set().union(*(_kinds(field.annotation) for field in fields.values()))
    if text.lower() == "none" and type(None) in kinds:
        values[name] = None
    elif kinds <= {str, type(None)}:
        values[name] = text
    else:
        values[name] = _parse(text, kinds)
    if key == "data.kind":  # the file's other keys may be those of another kind
        without_other_kinds({"data": values})


def _parse(text: str, kinds: set[Any]) -> Any:
    only_lists = kinds - {type(None)} == {tuple}
    try:
        value = tomllib.loads(f"value = {text}")["value"]
        return [value] if only_lists and not isinstance(value, list) else value
    except tomllib.TOMLDecodeError:
        if (tuple in kinds and "," in text) or only_lists:
            return [_parse(part.strip(), kinds - {tuple}) for part in text.split(",") if part.strip()]
        if text.lower() in ("true", "false") and bool in kinds:
            return text.lower() == "true"
        return text


def _kinds(annotation: Any) -> set[Any]:
    """The plain types an annotation admits; Literal strings count as str."""
    origin = typing.get_origin(annotation)
    if origin is Annotated:
        return _kinds(typing.get_args(annotation)[0])
    if origin in (typing.Union, types.UnionType):
        return set().union(*(_kinds(part) for part in typing.get_args(annotation)))
    if origin is Literal:
        return {type(value) for value in typing.get_args(annotation)}
    return {origin or annotation}


def _fields(section: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, str, Any]]:
    """(dotted key, kind of data that has it or empty for all, field)."""
    for name, field in section.model_fields.items():
        annotation = field.annotation
        if prefix + name == "data":
            for kind, data in KINDS.items():
                for key, inner in data.model_fields.items():
                    common = key != "kind" and all(
                        _alike(inner, other.model_fields.get(key)) for other in KINDS.values()
                    )
                    yield f"data.{key}", "" if common else kind, inner
        elif isinstance(annotation, type) and issubclass(annotation, BaseModel):
            yield from _fields(annotation, f"{prefix}{name}.")
        else:
            yield prefix + name, "", field


def _alike(one: FieldInfo, other: FieldInfo | None) -> bool:
    """Whether two kinds of data have the same key; pydantic copies what a class inherits."""
    names = ("annotation", "description", "default", "metadata")
    return other is not None and all(getattr(one, name) == getattr(other, name) for name in names)


def _known() -> dict[str, dict[str, Any]]:
    """Every dotted key, and its field by kind of data."""
    known: dict[str, dict[str, Any]] = {}
    for key, kind, field in _fields(Config):
        known.setdefault(key, {}).setdefault(kind, field)
    return known


_KNOWN = _known()


def _field(key: str) -> dict[str, Any]:
    if key not in _KNOWN:
        raise ConfigError(f"unknown config key '{key}'; {nearest(key, _KNOWN)}")
    return _KNOWN[key]


def _validate(values: Mapping[str, Any], origin: str) -> Config:
    try:
        # Through JSON, so that strict types still take TOML's arrays for tuples.
        return Config.model_validate_json(json.dumps(values, default=str))
    except ValidationError as error:
        raise ConfigError(f"{origin}: {_explain(error)}") from None


def _explain(error: ValidationError) -> str:
    """The first two problems in words; unknown keys first, since a mistyped key also makes one missing."""
    unknown: list[str] = []
    missing: list[str] = []
    wrong: dict[str, list[str]] = {}
    for item in error.errors():
        location, kind = _without_kind(item["loc"])
        key = _dotted(location)
        if item["type"] == "extra_forbidden":
            unknown.append(_unknown(".".join(str(part) for part in location), kind))
        elif item["type"] in ("missing", "union_tag_not_found"):
            key = "data.kind" if item["type"] == "union_tag_not_found" else key
            if isinstance(last := location[-1] if location else "", int):
                many = f"{last} value{'s' * (last != 1)}"
                wrong.setdefault(f"'{key}' has {many}", []).append(f"more, see `hs3 keys`: {_described(key)}")
            else:
                missing.append(f"key '{key}' is missing")
        elif item["type"] == "union_tag_invalid":
            found = item["ctx"]["tag"]
            wrong.setdefault(f"'data.kind' = '{found}'", []).append(", ".join(f"'{kind}'" for kind in KINDS))
        else:
            expected = item["msg"].removeprefix("Input should be ")
            wrong.setdefault(f"'{key}' = {item['input']!r}", []).append(expected)
    problems = [
        *unknown,
        *missing,
        *(f"{what}; must be {' or '.join(texts)}" for what, texts in wrong.items()),
    ]
    more = f" (and {len(problems) - 2} more)" if len(problems) > 2 else ""
    return "; ".join(problems[:2]) + more


def _described(key: str) -> str:
    return next((field.description or "" for field in _KNOWN.get(key, {}).values()), "")


def _without_kind(location: tuple[int | str, ...]) -> tuple[tuple[int | str, ...], str]:
    """A place in the config without the name of the union's branch, and that name."""
    if len(location) > 1 and location[0] == "data" and location[1] in KINDS:
        return ("data", *location[2:]), str(location[1])
    return location, ""


def _unknown(key: str, kind: str) -> str:
    allowed = [
        name
        for name, fields in _KNOWN.items()
        if not kind or not name.startswith("data.") or fields.keys() & {"", kind}
    ]
    others = [other for other in _KNOWN.get(key, {}) if other != kind]
    if kind and others:
        kinds = " or ".join(repr(other) for other in others)
        return f"key '{key}' is for data.kind = {kinds}, not for '{kind}'; leave it out"
    return f"unknown key '{key}'; {nearest(key, [*allowed, *dict.fromkeys(name.split('.')[0] for name in allowed)])}"


def _dotted(location: tuple[int | str, ...]) -> str:
    """The key a user can write; pydantic also reports array indices and the branches of unions."""
    key = ""
    for part in location:
        longer = f"{key}.{part}" if key else str(part)
        if not any(k == longer or k.startswith(longer + ".") for k in _KNOWN):
            break
        key = longer
    return key


def _text(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return "[" + ", ".join(_text(v) for v in value) + "]"
    return json.dumps(value) if isinstance(value, str) else str(value)
