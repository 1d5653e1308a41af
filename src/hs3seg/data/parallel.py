"""A function over the samples of a data set, in order, by several processes if wanted."""

import signal
from collections.abc import Callable, Iterator
from typing import Any, Generic, TypeVar

import torch
from torch.utils.data import DataLoader, Dataset

from hs3seg.errors import DataError

Result = TypeVar("Result")


def in_order(function: Callable[[int], Result], count: int, num_workers: int = 0) -> Iterator[Result]:
    """Gives function(0), function(1), ... function(count - 1).

    Args:
        function: Must be picklable where processes are spawned, not forked.
        count: Number of calls.
        num_workers: Processes; 0 = this one.

    Raises:
        DataError: the first one that the function raised.
    """
    loader: DataLoader[Any] = DataLoader(
        _Calls(function, count),
        batch_size=None,
        num_workers=min(num_workers, count),
        collate_fn=_as_it_is,
        worker_init_fn=_start_worker,
        generator=torch.Generator(),  # its own, so that the global one is not drawn from
    )
    for result in loader:
        if isinstance(result, DataError):
            raise result
        yield result


class _Calls(Dataset[Any], Generic[Result]):
    def __init__(self, function: Callable[[int], Result], count: int) -> None:
        self._function, self._count = function, count

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> Result | DataError:
        try:
            return self._function(index)
        except DataError as error:
            return error  # raised in the main process: a worker would wrap it in a traceback


def _as_it_is(result: Result) -> Result:
    return result


def _start_worker(_worker: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C belongs to the main process
    torch.set_num_threads(1)
