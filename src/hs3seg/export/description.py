"""What an exported file says about itself, as text."""

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
from torch import Tensor

from hs3seg.errors import NetworkError
from hs3seg.taxonomy import Taxonomy


def described(description: Mapping[str, Any] | None) -> str:
    """The JSON text of a description.

    Args:
        description: JSON's own values, a `Taxonomy`, and tensors and arrays of numbers; nested in any way.

    Raises:
        NetworkError: a value that JSON has no form for; its key is named.
    """
    return json.dumps({str(key): _plain(value, str(key)) for key, value in (description or {}).items()})


def _plain(value: Any, key: str) -> Any:
    if isinstance(value, Taxonomy):
        return value.to_dict()
    if isinstance(value, Tensor):
        return value.detach().cpu().tolist()
    if isinstance(value, np.ndarray | np.generic):
        return _plain(value.tolist(), key)
    if isinstance(value, Mapping):
        return {str(name): _plain(inner, f"{key}.{name}") for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner, key) for inner in value]
    if value is None or isinstance(value, str | int | float):  # bool is an int
        return value
    raise NetworkError(
        f"description['{key}'] is a {type(value).__name__}, which an exported file cannot hold; give text, numbers,"
        " lists, dictionaries, a Taxonomy, tensors or arrays"
    )
