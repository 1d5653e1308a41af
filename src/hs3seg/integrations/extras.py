"""Libraries that a user may not have."""

from importlib.util import find_spec

from hs3seg.errors import ConfigError


def need(library: str, extra: str) -> None:
    """Makes sure that a library can be imported, without importing it.

    Raises:
        ConfigError: it cannot; the extra that brings it is named.
    """
    if find_spec(library) is None:
        raise ConfigError(
            f"hs3seg.integrations.{extra} needs the library '{library}', which is not installed;"
            f" pip install '.[{extra}]' in a checkout of hs3seg"
        )


def ignore_index_of(criterion: object, said: int | None = None) -> int:
    """The label that does not count: what the user said, else that of the loss, else 255."""
    if said is not None:
        return said
    found = getattr(criterion, "ignore_index", None)
    return found if isinstance(found, int) else 255
