"""Images and frames, decoded ahead in a background thread."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from itertools import repeat
from pathlib import Path
from typing import TypeVar

import torch
from PIL import Image
from torch import Tensor

from hs3seg.data import read_image
from hs3seg.data.pairs import check_size
from hs3seg.data.video import read_frames
from hs3seg.errors import DataError
from hs3seg.pipeline.predict.depth import DepthFolder
from hs3seg.pipeline.predict.inputs import Item

T = TypeVar("T")
AHEAD_PIXELS = 2**24
"""Images that wait, decoded, have at most this many pixels together; a larger one is decoded when its turn comes."""


def read_images(
    items: Iterable[Item], depth: DepthFolder | None, batch_size: int
) -> Iterator[tuple[Item, Tensor | DataError]]:
    """Pixels (C, H, W) uint8 of each image in order, or why there are none."""
    calls = ((_num_pixels(item.path), partial(_read, item, depth)) for item in items)
    return read_ahead(calls, batch_size)


def read_video(path: Path, batch_size: int) -> Iterator[Tensor]:
    """Frames (3, H, W) uint8 in order.

    Raises:
        DataError: the video cannot be read, or not to its end.
    """
    frames = read_frames(path)
    first = next(frames)
    yield first
    following = repeat((first[0].numel(), partial(next, frames, None)))
    for frame in read_ahead(following, batch_size):
        if frame is None:
            return
        yield frame


def read_ahead(calls: Iterable[tuple[int, Callable[[], T]]], most: int) -> Iterator[T]:
    """Results of calls in order, made one after the other in one background thread.

    Args:
        calls: Pixels that a call will give, and the call.
        most: So many results wait at most, or less by `AHEAD_PIXELS`.
    """
    waiting: deque[tuple[int, Future[T]]] = deque()
    calls = iter(calls)
    upcoming = next(calls, None)

    def submit(*, at_once: bool) -> None:
        nonlocal upcoming
        while upcoming is not None and len(waiting) < most:
            fits = sum(pixels for pixels, _ in waiting) + upcoming[0] <= AHEAD_PIXELS
            if not fits and not (at_once and not waiting):
                return
            waiting.append((upcoming[0], pool.submit(upcoming[1])))
            upcoming = next(calls, None)

    with ThreadPoolExecutor(1, thread_name_prefix="decode") as pool:
        try:
            while True:
                submit(at_once=True)
                if not waiting:
                    return
                result = waiting.popleft()[1].result()
                submit(at_once=False)
                yield result
                del result  # a large image is not to be kept while the next one is read
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _read(item: Item, depth: DepthFolder | None) -> tuple[Item, Tensor | DataError]:
    try:
        image = read_image(item.path, upright=True)
        if depth is None:
            return item, image
        path, further = depth.read(item)
        check_size(path, further, item.path, image)
        return item, torch.cat([image, further])
    except DataError as error:
        return item, error


def _num_pixels(path: Path) -> int:
    """As the header says; 0 where it cannot be read, which reading then reports."""
    try:
        with Image.open(path) as image:
            return image.width * image.height
    except Exception:  # Pillow raises nearly anything on damaged headers
        return 0
