"""Reading, overriding and checking of configs."""

import json
import tomllib
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ValidationError

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
    if not path.is_file():
        raise ConfigError(f"config file '{path}' does not exist; start from one in configs/, or see `hs3 run --help`")
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
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


def describe_keys() -> Iterator[tuple[str, str, str]]:
    """Yields (dotted key, default as text, description) of every config value, in the order of the sections."""
    for key, field in _fields(Config):
        default = "required" if field.is_required() else _text(field.default)
        yield key, default, field.description or ""


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
    annotation = _field(key).annotation
    *sections, name = key.split(".")
    for section in sections:
        inner = values.setdefault(section, {})
        if not isinstance(inner, dict):
            raise ConfigError(f"config section '{section}' is {inner!r}, not a table; write [{section}]")
        values = inner
    kinds = _kinds(annotation)
    if text.lower() == "none" and type(None) in kinds:
        values[name] = None
    elif kinds == {str}:
        values[name] = text
    else:
        values[name] = _parse(text, kinds)


def _parse(text: str, kinds: set[Any]) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        if tuple in kinds and "," in text:
            return [_parse(part.strip(), kinds - {tuple}) for part in text.split(",")]
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


def _fields(section: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, field in section.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            yield from _fields(kind, f"{prefix}{name}.")
        else:
            yield prefix + name, field


def _field(key: str) -> Any:
    known = dict(_fields(Config))
    if key not in known:
        raise ConfigError(f"unknown config key '{key}'; {nearest(key, known)}")
    return known[key]


def _validate(values: Mapping[str, Any], origin: str) -> Config:
    try:
        # Through JSON, so that strict types still take TOML's arrays for tuples.
        return Config.model_validate_json(json.dumps(values, default=str))
    except ValidationError as error:
        raise ConfigError(f"{origin}: {_explain(error)}") from None


def _explain(error: ValidationError) -> str:
    """The first two problems in words; unknown keys first, since a mistyped key also makes one missing."""
    known = [key for key, _ in _fields(Config)]
    sections = {key.split(".")[0] for key in known}
    unknown: list[str] = []
    missing: list[str] = []
    wrong: dict[str, list[str]] = {}
    for item in error.errors():
        key = _dotted(item["loc"], known)
        if item["type"] == "extra_forbidden":
            key = ".".join(str(part) for part in item["loc"])
            unknown.append(f"unknown key '{key}'; {nearest(key, [*known, *sections])}")
        elif item["type"] == "missing":
            missing.append(f"key '{key}' is missing")
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


def _dotted(location: tuple[int | str, ...], known: Sequence[str]) -> str:
    """The key a user can write; pydantic also reports array indices and the branches of unions."""
    key = ""
    for part in location:
        longer = f"{key}.{part}" if key else str(part)
        if not any(k == longer or k.startswith(longer + ".") for k in known):
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
