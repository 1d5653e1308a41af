"""One process at a time in a folder, so that runs side by side share a training instead of doing it twice."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO


@contextmanager
def alone_in(folder: Path, waits: Callable[[], object]) -> Iterator[None]:
    """Holds a lock on a folder, which the system takes back however the process ends.

    Where the system or the file system knows no such locks (Windows, some network drives) nothing is held.

    Args:
        folder: Is made; gets the file `.lock`, which stays.
        waits: Called once if another process holds the lock, before this one waits for it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as file:
        _lock(file, waits)
        yield


def _lock(file: IO[str], waits: Callable[[], object]) -> None:
    if sys.platform == "win32":
        return
    import fcntl

    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        waits()
        fcntl.flock(file, fcntl.LOCK_EX)
    except OSError:
        return
