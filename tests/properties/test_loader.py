"""Batches depend on (seed, epoch, position) alone."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hs3seg.data import Batch, CachedDataset, DigitScenes, EvaluationLoader, Sample, TrainingLoader, TrainTransform
from hs3seg.errors import DataError

SCENES = CachedDataset(DigitScenes("train", 11, size=(32, 40)))
TRANSFORM = TrainTransform((24, 24), color_jitter=(0.2, 0.2, 0.2, 0.0))


def same(a: Batch, b: Batch) -> bool:
    return torch.equal(a.images, b.images) and torch.equal(a.masks, b.masks) and a.names == b.names


def loader(batch_size: int = 4, seed: int = 0, **options: int) -> TrainingLoader:
    return TrainingLoader(SCENES, TRANSFORM, batch_size, seed, **options)


@settings(deadline=None, max_examples=25)
@given(batch_size=st.integers(1, 14), epoch=st.integers(0, 50), seed=st.integers(0, 9), data=st.data())
def test_an_epoch_entered_late_gives_the_same_batches(
    batch_size: int, epoch: int, seed: int, data: st.DataObject
) -> None:
    made = loader(batch_size, seed)
    whole = list(made.epoch(epoch))
    assert len(whole) == made.batches_per_epoch
    assert all(len(batch.names) == batch_size for batch in whole)
    start = data.draw(st.integers(0, len(whole)))
    torch.manual_seed(data.draw(st.integers(0, 99)))  # the global generator must not matter
    part = list(loader(batch_size, seed).epoch(epoch, start))
    assert len(part) == len(whole) - start
    assert all(same(a, b) for a, b in zip(whole[start:], part, strict=True))


@settings(deadline=None, max_examples=15)
@given(world=st.sampled_from([1, 2, 3, 6]), epoch=st.integers(0, 5))
def test_processes_share_the_batches_of_one(world: int, epoch: int) -> None:
    whole = list(loader(6).epoch(epoch))
    shares = [list(loader(6, rank=rank, world_size=world).epoch(epoch)) for rank in range(world)]
    for number, batch in enumerate(whole):
        parts = [share[number] for share in shares]
        assert torch.equal(torch.cat([p.images for p in parts]), batch.images)
        assert [name for p in parts for name in p.names] == batch.names


def test_workers_change_nothing() -> None:
    plain = list(loader().epoch(3))
    for workers in (1, 2):
        assert all(same(a, b) for a, b in zip(plain, loader(num_workers=workers).epoch(3), strict=True))


def test_loading_leaves_the_global_generator_alone() -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state()
    list(loader().epoch(0))
    assert torch.equal(torch.get_rng_state(), before)


def test_epochs_and_seeds_differ_and_an_epoch_repeats_no_image() -> None:
    batches = list(loader().epoch(0))
    names = [name for batch in batches for name in batch.names]
    assert len(set(names)) == len(names) == 8
    assert not same(batches[0], next(loader().epoch(1)))
    assert not same(batches[0], next(loader(seed=1).epoch(0)))


def test_a_small_set_is_drawn_from_repeatedly() -> None:
    (batch,) = loader(25).epoch(0)
    counts = {name: batch.names.count(name) for name in batch.names}
    assert len(counts) == 11
    assert max(counts.values()) - min(counts.values()) <= 1


def test_early_stop_is_clean() -> None:
    batches = loader(num_workers=2).epoch(0)
    next(batches)
    batches.close()
    assert next(loader().epoch(0)).names


class Faulty(CachedDataset):
    def read(self, index: int) -> Sample:
        if index == 7:
            raise DataError("image 7 is broken")
        return super().read(index)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_workers_error_arrives_with_its_own_text(workers: int) -> None:
    faulty = Faulty(DigitScenes("train", 11, size=(32, 40)))
    with pytest.raises(DataError, match=r"^image 7 is broken$"):
        list(TrainingLoader(faulty, TRANSFORM, 11, 0, num_workers=workers).epoch(0))
    with pytest.raises(DataError, match=r"^image 7 is broken$"):
        list(EvaluationLoader(faulty, lambda s: (s.image, s.mask), 2, num_workers=workers))


class Mixed(CachedDataset):
    """Scenes of two sizes."""

    def read(self, index: int) -> Sample:
        sample = super().read(index)
        return Sample(sample.image[:, :20], sample.mask[:20], sample.name) if index in (3, 4) else sample


@pytest.mark.parametrize(("world", "batch_size"), [(1, 1), (1, 3), (2, 3), (4, 5)])
def test_evaluation_sees_each_image_once_in_equal_sizes(world: int, batch_size: int) -> None:
    data = Mixed(DigitScenes("train", 11, size=(32, 40)))
    seen = []
    for rank in range(world):
        for batch in EvaluationLoader(data, lambda s: (s.image, s.mask), batch_size, rank=rank, world_size=world):
            assert 1 <= len(batch.names) <= batch_size
            assert batch.images.shape[-2:] == batch.masks.shape[-2:]
            seen += batch.indices
    assert sorted(seen) == list(range(11))


Place = tuple[int, tuple[float, float] | None]


def centred(epoch: int) -> list[Place]:
    """Every other sample with a place that must be seen."""
    order = torch.randperm(11, generator=torch.Generator().manual_seed(epoch)).tolist()
    return [(index, (float(index), 3.0 * index) if number % 2 else None) for number, index in enumerate(order)]


class Noting:
    """Images that hold the index and place they were made with, and a random number."""

    def __call__(self, sample: Sample, center: tuple[float, float] | None = None) -> tuple[torch.Tensor, torch.Tensor]:
        place = torch.tensor(center or (-1.0, -1.0))
        values = torch.cat([place, torch.rand(1), torch.tensor([float(sample.name.split("-")[1])])])
        return values.repeat(3, 1)[..., None], sample.mask[:1, :1].as_subclass(torch.Tensor)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_given_order_is_followed_with_its_places(workers: int) -> None:
    made = TrainingLoader(SCENES, Noting(), 3, 0, order=centred, num_workers=workers)
    for epoch in (4, 0):
        batches = list(made.epoch(epoch))
        assert len(batches) == 3
        indices = [index for batch in batches for index in batch.indices]
        assert indices == [index for index, _ in centred(epoch)[:9]]
        for position, values in enumerate(torch.cat([batch.images[:, 0, :, 0] for batch in batches])):
            index, center = centred(epoch)[position]
            assert tuple(values[:2].tolist()) == (center or (-1.0, -1.0))
            assert int(values[3]) == index
        late = list(made.epoch(epoch, 2))
        assert all(same(a, b) for a, b in zip(batches[2:], late, strict=True))
        shares = [
            list(TrainingLoader(SCENES, Noting(), 3, 0, order=centred, rank=rank, world_size=3).epoch(epoch))
            for rank in range(3)
        ]
        for number, batch in enumerate(batches):
            assert torch.equal(torch.cat([share[number].images for share in shares]), batch.images)


def test_an_order_augments_and_may_be_longer_or_shorter_than_the_data() -> None:
    for length in (1, 4, 11, 40):
        listed: list[Place] = [(number % 11, (5.0, 5.0)) for number in range(length)]
        made = TrainingLoader(SCENES, TRANSFORM, 5, 0, order=lambda _epoch, listed=listed: listed)
        batches = list(made.epoch(0))
        assert [len(batch.names) for batch in batches] == [5, 5]
        indices = [index for batch in batches for index in batch.indices]
        assert indices == [listed[number % length][0] for number in range(10)]


@pytest.mark.parametrize(("order", "found"), [([], "is empty"), ([(0, None), (11, None)], "holds position 11")])
def test_an_order_that_cannot_be_followed_is_refused(order: list[Place], found: str) -> None:
    with pytest.raises(DataError, match=rf"order of epoch 2 {found}; allowed: positions 0..10 of split 'train'"):
        list(TrainingLoader(SCENES, TRANSFORM, 5, 0, order=lambda _epoch: order).epoch(2))


def test_workers_live_on_through_epochs_left_early_errors_and_two_at_once() -> None:
    plain, kept = loader(), loader(num_workers=2)
    for epoch in range(6):
        expected, batches = list(plain.epoch(epoch)), kept.epoch(epoch)
        if epoch % 2:
            assert same(next(batches), expected[0])
            batches.close()
        else:
            assert all(same(a, b) for a, b in zip(batches, expected, strict=True))
    first, second = kept.epoch(0), kept.epoch(1)
    for a, b, c, d in zip(first, second, plain.epoch(0), plain.epoch(1), strict=True):
        assert same(a, c)
        assert same(b, d)


def test_a_transform_that_fails_leaves_the_global_generator_alone() -> None:
    def fails(_sample: Sample) -> tuple[torch.Tensor, torch.Tensor]:
        torch.rand(3)
        raise ValueError("no")

    torch.manual_seed(1)
    before = torch.get_rng_state()
    with pytest.raises(ValueError, match="no"):
        list(TrainingLoader(SCENES, fails, 2, 0).epoch(0))
    assert torch.equal(torch.get_rng_state(), before)


def test_an_empty_split_is_refused() -> None:
    with pytest.raises(DataError, match="empty"):
        TrainingLoader(DigitScenes("train", 0), TRANSFORM, 4, 0)
