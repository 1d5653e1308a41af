"""Libraries that only exporting needs: imported when they are used, with an error that names the extra."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any

from hs3seg.errors import NetworkError


def require(*names: str, use: str) -> Any:
    """Imports the modules and returns the first.

    Args:
        names: Modules of the extra `export`.
        use: What they are wanted for, as the error begins.

    Raises:
        NetworkError: one is not installed.
    """
    try:
        modules = [import_module(name) for name in names]
    except ImportError as error:
        missing = error.name or names[0]
        raise NetworkError(
            f"{use} needs '{missing}', which cannot be imported; pip install '.[export]' in a checkout of hs3seg"
        ) from None
    return modules[0]


@contextmanager
def quiet(*loggers: str) -> Iterator[None]:
    """Silences the progress notes of libraries' loggers."""
    found = [logging.getLogger(name) for name in loggers]
    levels = [logger.level for logger in found]
    for logger in found:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for logger, level in zip(found, levels, strict=True):
            logger.setLevel(level)
