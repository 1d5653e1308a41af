"""Paints the pictures of a page on every core at once, where the process may be copied."""

import os
import sys
import threading
from collections.abc import Callable, Iterator, Mapping

_WORTH_IT = 6
"""Pictures; fewer are painted sooner than a process has started."""

Painters = Mapping[str, Callable[[], bytes]]


def painted(pictures: Painters) -> Iterator[tuple[str, bytes]]:
    """Yields (name, file) of each picture, in order.

    Pillow holds the interpreter's lock while it paints and compresses, so threads would not help: copies of this
    process paint, if it has one thread and more than one core. A process with threads of torch or of its user is never
    copied, since a lock that another thread holds stays locked in the copy.

    Args:
        pictures: Name -> what paints it, the content of a PNG file.

    Yields:
        Same bytes whichever way they are painted.

    Raises:
        Exception: what a painter raises.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1
    if len(pictures) < _WORTH_IT or cores < 2 or not _may_be_copied():
        for name, paint in pictures.items():
            yield name, paint()
        return
    # Loaded here: most pages have few pictures, and the import takes as long as painting one.
    from multiprocessing import get_context

    global _shared
    _shared = pictures
    try:
        with get_context("fork").Pool(min(cores, 4)) as pool:
            yield from zip(pictures, pool.imap(_paint, pictures), strict=True)
    finally:
        _shared = {}


_shared: Painters = {}
"""What copies of this process find: painters hold drawings, which need not be sent to them."""


def _paint(name: str) -> bytes:
    return _shared[name]()


def _may_be_copied() -> bool:
    """Linux, one Python thread, and no library that starts its own behind its back."""
    return sys.platform == "linux" and threading.active_count() == 1 and "torch" not in sys.modules
