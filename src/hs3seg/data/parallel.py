"""A function over the samples of a data set, in order, by several processes if wanted."""

import os
import signal
import threading
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
        worker_init_fn=start_worker,
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


def start_worker(_worker: int) -> None:
    """What a worker process of a loader does first: one thread, and signals are left to the main process.

    Ctrl-C and SIGTERM often go to all processes of a group (terminals, torchrun, schedulers, `timeout`). The main
    process stops at a step border, until which it needs its workers; then it ends them.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(signal, "sigwaitinfo"):  # not on macOS and Windows
        # Blocked, so that it waits for the thread, which sees who has sent it.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        threading.Thread(target=_end_for_the_parent_only, args=(os.getppid(),), daemon=True).start()
    torch.set_num_threads(1)


def _end_for_the_parent_only(parent: int) -> None:
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != parent:
        pass
    os._exit(128 + signal.SIGTERM)
