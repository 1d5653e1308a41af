"""Batches in an order and with an augmentation that depend on (seed, epoch, position) alone.

Neither the number of workers or processes nor the place where an epoch is entered changes a single bit: a sampler
yields (epoch, position, index) keys, and every sample is augmented under a generator seeded from its key.
"""

from collections.abc import Callable, Generator, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, default_collate

from hs3seg.data.cache import CachedDataset
from hs3seg.data.parallel import start_worker
from hs3seg.data.sample import Batch, Sample, SegmentationDataset
from hs3seg.data.splits import Subset
from hs3seg.errors import DataError, reason_of

Transform = Callable[[Sample], tuple[Tensor, Tensor]]
Center = tuple[float, float]
Order = Callable[[int], Sequence[tuple[int, Center | None]]]
Key = tuple[int, int, int, Center | None]


class TrainingLoader:
    """Shuffled, augmented batches.

    Worker processes live as long as the loader, so that a short epoch does not wait for them to start.

    Args:
        dataset: To draw from; smaller than a batch, it is drawn from repeatedly.
        transform: Makes image and mask of one size.
        batch_size: Over all processes; each gets its even share.
        seed: Of order and augmentation.
        num_workers: Loader processes; 0 = load in this one.
        rank: Number of this process.
        world_size: Number of processes.
        order: Samples of an epoch instead of a random permutation, e.g. class-uniform ones: epoch -> pairs of position
            in the data set and place (y, x) in the sample's pixels that the crop must cover, or None. It must give the
            same for the same epoch. What exceeds the full batches is left out; a shorter list is gone through again.
            Where it gives places, the transform takes them as its second argument.

    Raises:
        DataError: an empty data set, or a batch that does not divide among the processes.
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
        order: Order | None = None,
    ) -> None:
        if len(dataset) == 0:
            raise DataError(f"split '{dataset.split}' is empty; nothing to train on")
        if batch_size % world_size:
            fitting = ", ".join(str(n) for n in range(1, batch_size + 1) if batch_size % n == 0)
            raise DataError(
                f"batch size {batch_size} does not divide among {world_size} processes; take {fitting} of them, or"
                " another train.batch_size"
            )
        self.dataset = dataset
        self._transform, self._batch_size, self._seed = transform, batch_size, seed
        self._num_workers, self._rank, self._world_size = num_workers, rank, world_size
        self._order = order
        self._loader: DataLoader[Any] | None = None  # with its workers, while no epoch is being read

    @property
    def batches_per_epoch(self) -> int:
        """Full batches in one pass, at least one."""
        return max(1, len(self.dataset) // self._batch_size)

    def epoch(self, epoch: int, start_batch: int = 0) -> Generator[Batch, None, None]:
        """Batches of one epoch for this process, from a given one on. Close the generator to stop early."""
        keys = list(self._keys(epoch))[start_batch:]
        loader, self._loader = self._loader or self._make(), None
        assert isinstance(loader.batch_sampler, _Keys)
        loader.batch_sampler.batches = keys
        try:
            for batch in _unwrapped(loader):
                yield _with_long_labels(batch)
        except GeneratorExit:
            self._loader = loader
            raise
        self._loader = loader  # an error leaves it out: its workers end

    def _make(self) -> DataLoader[Any]:
        if isinstance(self.dataset, (CachedDataset, Subset)) and self._num_workers:
            self.dataset.fill()  # before the workers are made, so that they share it
        return DataLoader(
            _Keyed(self.dataset, self._transform, self._seed),
            batch_sampler=_Keys(),
            num_workers=self._num_workers,
            persistent_workers=self._num_workers > 0,
            collate_fn=_collate_or_error,
            worker_init_fn=start_worker,
            generator=torch.Generator(),  # its own, so that the global one is not drawn from
            pin_memory=torch.cuda.is_available(),
        )

    def _keys(self, epoch: int) -> Iterator[list[Key]]:
        needed = self.batches_per_epoch * self._batch_size
        order = self._ordered(epoch, needed) if self._order else self._shuffled(epoch, needed)
        share = self._batch_size // self._world_size
        for start in range(0, needed, self._batch_size):
            first = start + self._rank * share
            yield [(epoch, position, *order[position]) for position in range(first, first + share)]

    def _shuffled(self, epoch: int, needed: int) -> list[tuple[int, Center | None]]:
        size = len(self.dataset)
        order: list[int] = []
        for repeat in range(-(-needed // size)):
            generator = torch.Generator().manual_seed(_mix(self._seed, epoch, repeat))
            order += torch.randperm(size, generator=generator).tolist()
        return [(index, None) for index in order]

    def _ordered(self, epoch: int, needed: int) -> list[tuple[int, Center | None]]:
        assert self._order is not None
        order = list(self._order(epoch))
        wrong = next((index for index, _ in order if not 0 <= index < len(self.dataset)), None)
        if not order or wrong is not None:
            found = "is empty" if not order else f"holds position {wrong}"
            raise DataError(
                f"the order of epoch {epoch} {found}; allowed: positions 0..{len(self.dataset) - 1} of split"
                f" '{self.dataset.split}'"
            )
        return (order * -(-needed // len(order)))[:needed]


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
            sampler=[(0, i, i, None) for i in range(self._rank, len(self.dataset), self._world_size)],
            batch_size=None,
            num_workers=self._num_workers,
            worker_init_fn=start_worker,
            generator=torch.Generator(),
        )
        waiting: list[Any] = []
        for item in _unwrapped(loader):
            if waiting and (len(waiting) == self._batch_size or _shapes(item) != _shapes(waiting[0])):
                yield _with_long_labels(_collate(waiting))
                waiting = []
            waiting.append(item)
        if waiting:
            yield _with_long_labels(_collate(waiting))


class _Keys:
    """Batches of keys for one pass over a loader; others are put in before the next."""

    def __init__(self) -> None:
        self.batches: list[list[Key]] = []

    def __iter__(self) -> Iterator[list[Key]]:
        return iter(self.batches)

    def __len__(self) -> int:
        return len(self.batches)


class _Keyed(Dataset[Any]):
    """Augmented samples by key.

    Labels stay as small as data set and transform allow, where these offer it: a data set by `read_compact`, a
    transform that writes to no sample by `compact`. They become int64 in the process that asked for the batch.
    """

    def __init__(self, dataset: SegmentationDataset, transform: Transform, seed: int) -> None:
        compact = getattr(transform, "compact", None)
        self._transform: Callable[..., tuple[Tensor, Tensor]] = compact or transform
        self._read: Callable[[int], Sample] = (
            getattr(dataset, "read_compact", None) if compact else None
        ) or dataset.read
        self._seed = seed

    def __getitem__(self, key: Key) -> Any:
        epoch, position, index, center = key
        try:
            sample = self._read(index)
        except DataError as error:
            return error  # raised in the main process: a worker would wrap it in a traceback
        # Not `fork_rng`, which asks for all devices: half of the time of a small crop.
        generator = torch.default_generator
        state = generator.get_state()
        generator.manual_seed(_mix(self._seed, epoch, position))
        try:
            image, mask = self._transform(sample) if center is None else self._transform(sample, center)
        finally:
            generator.set_state(state)
        return image, mask, sample.name, index


def _unwrapped(loader: DataLoader[Any]) -> Iterator[Any]:
    try:
        for item in loader:
            if isinstance(item, DataError):
                raise item
            yield item
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        raise DataError(
            f"a loader process has ended ({reason_of(error)}), most often for want of memory; set data.num_workers ="
            " 0 or fewer, or data.cache = false; in a container give more shared memory, e.g. --shm-size 8g"
        ) from None


def _collate_or_error(items: list[Any]) -> Batch | DataError:
    return next((item for item in items if isinstance(item, DataError)), None) or _collate(items)


def _collate(items: list[Any]) -> Batch:
    images, masks, names, indices = (list(values) for values in zip(*items, strict=True))
    if len({mask.dtype for mask in masks}) > 1:
        masks = [mask.to(torch.int64) for mask in masks]
    # In a worker this fills the memory that is shared with the main process, where `stack` would need a copy more.
    return Batch(default_collate(images), default_collate(masks), names, indices)


def _with_long_labels(batch: Batch) -> Batch:
    return Batch(batch.images, batch.masks.to(torch.int64), batch.names, batch.indices)


def _shapes(item: Any) -> tuple[Any, Any]:
    return item[0].shape, item[1].shape


def _mix(*numbers: int) -> int:
    """A 63-bit seed from a few numbers; neighbours give unrelated seeds (splitmix64)."""
    state = 0
    for number in numbers:
        state = (state + number + 0x9E3779B97F4A7C15) & 0xFFFFFFFFFFFFFFFF
        state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & 0xFFFFFFFFFFFFFFFF
        state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & 0xFFFFFFFFFFFFFFFF
        state ^= state >> 31
    return state >> 1
