import pytest

from hs3seg.data import CachedDataset, DigitScenes, Subset, analysis_split, drawn
from hs3seg.errors import DataError


def test_a_count_instead_of_a_fraction():
    reduced, analysis = analysis_split(2975, 0.1, 0, count=300)
    assert (len(reduced), len(analysis)) == (2675, 300)
    assert sorted(reduced + analysis) == list(range(2975))


@pytest.mark.parametrize("count", [0, 10, 11])
def test_a_count_that_leaves_nothing_is_refused(count):
    with pytest.raises(DataError, match=r"allowed: 1\.\.9"):
        analysis_split(10, 0.1, 0, count=count)


def test_fewer_images_are_among_more_and_all_are_all():
    some, more = drawn(50, 8, 3), drawn(50, 20, 3)
    assert len(set(some)) == 8
    assert list(some) == sorted(some)
    assert set(some) < set(more)
    assert drawn(50, 50, 3) == tuple(range(50))
    assert drawn(50, 8, 4) != some
    with pytest.raises(DataError, match=r"51 images cannot be drawn from 50 training images \(data.train_images\)"):
        drawn(50, 51, 3)


def test_a_subset_of_a_subset_reads_and_fills_the_set_behind_both():
    cache = CachedDataset(DigitScenes("train", 12, size=(32, 32), seed=0))
    outer = Subset(Subset(cache, (1, 4, 7, 9), "train"), (0, 2), "reduced")
    outer.fill()
    assert set(cache._kept) == {1, 7}
    assert outer.names == [cache.names[1], cache.names[7]]
    assert outer.files(1) == cache.files(7)
    assert (outer.read(1).mask == cache.read(7).mask).all()
