"""Batches in an order and with an augmentation that depend on (seed, epoch, position) alone.

Neither the number of workers or processes nor the place where an epoch is entered changes a single bit: a sampler
yields (epoch, position, index) keys, and every sample is augmented under a generator seeded from its key.
"""

from collections.abc import Callable, Generator, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from hs3seg.data.cache import CachedDataset
from hs3seg.data.sample import Batch, Sample, SegmentationDataset
from hs3seg.data.splits import Subset
from hs3seg.errors import DataError

Transform = Callable[[Sample], tuple[Tensor, Tensor]]
Key = tuple[int, int, int]


class TrainingLoader:
    """Shuffled, augmented batches.

    Args:
        dataset: To draw from; smaller than a batch, it is drawn from repeatedly.
        transform: Makes image and mask of one size.
        batch_size: Over all processes; each gets its even share.
        seed: Of order and augmentation.
        num_workers: Loader processes; 0 = load in this one.
        rank: Number of this process.
        world_size: Number of processes.
    """

    def __init__(
        self,
        dataset: SegmentationDataset,
        transform: Transform,
        batch_size: int,
        seed: int,
        *,
        num_workers: int = 0,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        if len(dataset) == 0:
            raise DataError(f"split '{dataset.split}' is empty; nothing to train on")
        if batch_size % world_size:
            raise DataError(f"batch size {batch_size} does not divide among {world_size} processes")
        self.dataset = dataset
        self._transform, self._batch_size, self._seed = transform, batch_size, seed
        self._num_workers, self._rank, self._world_size = num_workers, rank, world_size

    @property
    def batches_per_epoch(self) -> int:
        """Full batches in one pass, at least one."""
        return max(1, len(self.dataset) // self._batch_size)

    def epoch(self, epoch: int, start_batch: int = 0) -> Generator[Batch, None, None]:
        """Batches of one epoch for this process, from a given one on. Close the generator to stop early."""
        if isinstance(self.dataset, (CachedDataset, Subset)) and self._num_workers:
            self.dataset.fill()  # before the workers are made, so that they share it
        keys = list(self._keys(epoch))[start_batch:]
        loader: DataLoader[Any] = DataLoader(
            _Keyed(self.dataset, self._transform, self._seed),
            batch_sampler=keys,
            num_workers=self._num_workers,
            collate_fn=_collate_or_error,
            worker_init_fn=_start_worker,
            generator=torch.Generator(),  # its own, so that the global one is not drawn from
            pin_memory=torch.cuda.is_available(),
        )
        yield from _unwrapped(loader)

    def _keys(self, epoch: int) -> Iterator[list[Key]]:
        size = len(self.dataset)
        needed = self.batches_per_epoch * self._batch_size
        order: list[int] = []
        for repeat in range(-(-needed // size)):
            generator = torch.Generator().manual_seed(_mix(self._seed, epoch, repeat))
            order += torch.randperm(size, generator=generator).tolist()
        share = self._batch_size // self._world_size
        for start in range(0, needed, self._batch_size):
            first = start + self._rank * share
            yield [(epoch, position, order[position]) for position in range(first, first + share)]


class EvaluationLoader:
    """Every sample once, in order; each batch holds images of one size.

    Args:
        dataset: To read.
        transform: Usually `EvaluationTransform`.
        batch_size: Per process.
        num_workers: Loader processes; 0 = load in this one.
        rank: Number of this process; samples are dealt in turn.
        world_size: Number of processes.
    """

    def __init__(
        self,
        dataset: SegmentationDataset,
        transform: Transform,
        batch_size: int,
        *,
        num_workers: int = 0,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        self.dataset = dataset
        self._transform, self._batch_size = transform, batch_size
        self._num_workers, self._rank, self._world_size = num_workers, rank, world_size

    def __iter__(self) -> Iterator[Batch]:
        loader: DataLoader[Any] = DataLoader(
            _Keyed(self.dataset, self._transform, seed=0),
            sampler=[(0, i, i) for i in range(self._rank, len(self.dataset), self._world_size)],
            batch_size=None,
            num_workers=self._num_workers,
            worker_init_fn=_start_worker,
            generator=torch.Generator(),
        )
        waiting: list[Any] = []
        for item in _unwrapped(loader):
            if waiting and (len(waiting) == self._batch_size or _shapes(item) != _shapes(waiting[0])):
                yield _collate(waiting)
                waiting = []
            waiting.append(item)
        if waiting:
            yield _collate(waiting)


class _Keyed(Dataset[Any]):
    def __init__(self, dataset: SegmentationDataset, transform: Transform, seed: int) -> None:
        self._dataset, self._transform, self._seed = dataset, transform, seed

    def __getitem__(self, key: Key) -> Any:
        epoch, position, index = key
        try:
            sample = self._dataset.read(index)
        except DataError as error:
            return error  # raised in the main process: a worker would wrap it in a traceback
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(_mix(self._seed, epoch, position))
            image, mask = self._transform(sample)
        return image, mask, sample.name, index


def _unwrapped(loader: DataLoader[Any]) -> Iterator[Any]:
    for item in loader:
        if isinstance(item, DataError):
            raise item
        yield item


def _collate_or_error(items: list[Any]) -> Batch | DataError:
    return next((item for item in items if isinstance(item, DataError)), None) or _collate(items)


def _collate(items: list[Any]) -> Batch:
    images, masks, names, indices = zip(*items, strict=True)
    return Batch(torch.stack(images), torch.stack(masks), list(names), list(indices))


def _shapes(item: Any) -> tuple[Any, Any]:
    return item[0].shape, item[1].shape


def _start_worker(_worker: int) -> None:
    # Ctrl-C belongs to the main process, which stops at a step border and then ends the workers.
    import signal

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(1)


def _mix(*numbers: int) -> int:
    """A 63-bit seed from a few numbers; neighbours give unrelated seeds (splitmix64)."""
    state = 0
    for number in numbers:
        state = (state + number + 0x9E3779B97F4A7C15) & 0xFFFFFFFFFFFFFFFF
        state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & 0xFFFFFFFFFFFFFFFF
        state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & 0xFFFFFFFFFFFFFFFF
        state ^= state >> 31
    return state >> 1
