"""Files that are whole or not there: written beside their place, synced, then renamed."""

import contextlib
import errno
import json
import os
import pickle
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hs3seg.errors import RunFolderError, reason_of

UNREADABLE = (
    *(pickle.UnpicklingError, zipfile.BadZipFile, RuntimeError, EOFError, OSError, ValueError),
    *(IndexError, KeyError, AttributeError),  # what the unpickler of torch meets in a file that is no pickle
)
"""What `torch.load(path, weights_only=True)` raises on a file that is empty, truncated, or of another kind."""


_FULL = 2**20  # bytes that are free on a full disk, at most


def write_atomically(path: Path | str, write: Callable[[Path], object]) -> None:
    """Lets `write` fill a temporary file in the same folder and renames it to `path`.

    A process killed at any moment leaves either the old file or the new one.

    Args:
        path: Final place; its folder is made.
        write: Called with the temporary path.

    Raises:
        RunFolderError: no space is left.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        write(temporary)
        with temporary.open("r+b") as file:  # Windows flushes only what may be written
            os.fsync(file.fileno())
        temporary.replace(path)
    except (OSError, RuntimeError) as error:  # torch says RuntimeError, and nothing of the disk
        if not _is_full(error, path.parent):
            raise
        raise RunFolderError(
            f"{path}: cannot be written, no space is left ({reason_of(error)}); free some and give the same command to"
            " go on. What was there before is kept"
        ) from None
    finally:
        with contextlib.suppress(FileNotFoundError):
            temporary.unlink()


def _is_full(error: OSError | RuntimeError, folder: Path) -> bool:
    if isinstance(error, OSError):
        return error.errno in (errno.ENOSPC, errno.EDQUOT)
    return shutil.disk_usage(folder).free < _FULL


def is_unfinished(path: Path) -> bool:
    """Whether a file is what a killed `write_atomically` left behind."""
    return path.name.startswith(".") and path.suffix == ".tmp"


def read_json(path: Path | str) -> Any:
    """What `write_json` wrote."""
    return json.loads(Path(path).read_text(encoding="utf-8"))


def write_json(path: Path | str, value: Any, *, indent: int | None = 2) -> None:
    """Writes `value` as JSON, atomically; NaN is refused, since JSON has none.

    Args:
        path: Final place; its folder is made.
        value: Plain values.
        indent: Of nested values; None = all on one line, for files of many numbers.
    """
    text = json.dumps(value, indent=indent, allow_nan=False) + "\n"
    write_atomically(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))
