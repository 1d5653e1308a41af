"""Reads all samples of a split, in several processes if asked to; not even one that ends its process stops it."""

import multiprocessing
import signal
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool

import torch
from PIL import Image

from hs3seg.data.doctor.findings import Finding
from hs3seg.data.doctor.observe import Observation, observe
from hs3seg.data.sample import SegmentationDataset

_AHEAD = 4  # samples per worker that are handed out at once


def observe_all(
    dataset: SegmentationDataset, workers: int = 0, progress: Callable[[], None] | None = None
) -> list[Observation]:
    """One observation per sample, in order.

    Args:
        dataset: To look at.
        workers: Processes; 0 = this one.
        progress: Called after each sample.
    """
    seen: dict[int, Observation] = {}
    for index, observation in _alone(dataset) if workers <= 0 else _together(dataset, workers):
        seen[index] = observation
        if progress:
            progress()
    return [seen[index] for index in range(len(dataset))]


def _alone(dataset: SegmentationDataset) -> Iterator[tuple[int, Observation]]:
    for index in range(len(dataset)):
        yield index, _safely(dataset, index)


def _together(dataset: SegmentationDataset, workers: int) -> Iterator[tuple[int, Observation]]:
    """From several processes. After one has ended, what it may have been reading is read again, each in its own."""
    waiting = deque(range(len(dataset)))
    while waiting:
        running: deque[tuple[int, Future[Observation]]] = deque()
        with _pool(dataset, min(workers, len(waiting))) as pool:
            try:
                while waiting or running:
                    while waiting and len(running) < _AHEAD * workers:
                        running.append((waiting[0], pool.submit(_in_worker, waiting[0])))
                        waiting.popleft()
                    yield running[0][0], running[0][1].result()
                    running.popleft()
            except BrokenProcessPool:
                pass  # what is still in `running` is to be read again
        yield from _one_by_one(dataset, [index for index, _ in running])


def _one_by_one(dataset: SegmentationDataset, suspects: Sequence[int]) -> Iterator[tuple[int, Observation]]:
    for index in suspects:
        with _pool(dataset, 1) as pool:
            try:
                yield index, pool.submit(_in_worker, index).result()
            except BrokenProcessPool:
                yield index, _fatal(dataset, index)


def _pool(dataset: SegmentationDataset, workers: int) -> ProcessPoolExecutor:
    # As in torch's loader: a copy of this process where the system has it, so that the data set need not be pickled.
    method = "fork" if "fork" in multiprocessing.get_all_start_methods() else None
    return ProcessPoolExecutor(workers, multiprocessing.get_context(method), _start, (dataset,))


_of_worker: list[SegmentationDataset] = []


def _start(dataset: SegmentationDataset) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C belongs to the main process
    torch.set_num_threads(1)
    _of_worker[:] = [dataset]


def _in_worker(index: int) -> Observation:
    return _safely(_of_worker[0], index)


def _safely(dataset: SegmentationDataset, index: int) -> Observation:
    """What a sample shows; whatever is raised becomes a finding."""
    try:
        with warnings.catch_warnings():
            # Large images and odd metadata are no news to somebody who asked for a diagnosis.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            warnings.filterwarnings("ignore", module="PIL")
            return observe(dataset, index)
    except Exception as error:  # a reader of the user's own may raise anything
        return _failed(dataset, index, "unreadable-sample", f"reading it raised {type(error).__name__}: {error}")


def _fatal(dataset: SegmentationDataset, index: int) -> Observation:
    return _failed(dataset, index, "fatal-sample", "reading it ended the process, by a crash or for want of memory")


def _failed(dataset: SegmentationDataset, index: int, kind: str, message: str) -> Observation:
    files = dataset.files(index)
    remedy = "open its files in another program and save them again, or remove the sample"
    finding = Finding(kind, "error", dataset.split, files[-1], message, remedy, None, index)
    return Observation(index, dataset.names[index], files[0], files[-1], findings=[finding])
