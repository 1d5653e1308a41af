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


def test_an_empty_split_is_refused() -> None:
    with pytest.raises(DataError, match="empty"):
        TrainingLoader(DigitScenes("train", 0), TRANSFORM, 4, 0)
