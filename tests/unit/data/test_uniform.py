"""Class-uniform sampling: centroids against scipy's, the cache, and the order of an epoch."""

import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import ndimage
from torchvision import tv_tensors

from hs3seg.data import DigitScenes, Sample, Subset, TrainingLoader, TrainTransform
from hs3seg.data.cityscapes import Cityscapes
from hs3seg.data.uniform import find_centroids, uniform_order
from hs3seg.errors import DataError, Hs3Warning
from hs3seg.taxonomy import Taxonomy
from tests.fabricate.cityscapes import make_cityscapes


class Masks:
    """Given masks with black images; a file per sample where a folder is given."""

    split = "train"

    def __init__(self, masks: Sequence[NDArray[np.int64]], folder: Path | None = None, classes: int = 4) -> None:
        names = tuple(f"class {i}" for i in range(classes))
        self.taxonomy = Taxonomy(names, tuple((i, i, i) for i in range(classes)))
        self._masks, self._folder = masks, folder
        self.names = [f"sample {i}" for i in range(len(masks))]
        self.num_read = 0
        for index, mask in enumerate(masks):
            if folder:
                np.save(folder / f"{index}.npy", mask)

    def __len__(self) -> int:
        return len(self._masks)

    def read(self, index: int) -> Sample:
        self.num_read += 1
        mask = torch.from_numpy(np.load(self._folder / f"{index}.npy") if self._folder else self._masks[index])
        image = torch.zeros(3, *mask.shape, dtype=torch.uint8)
        return Sample(tv_tensors.Image(image), tv_tensors.Mask(mask), self.names[index])

    def files(self, index: int) -> tuple[str, ...]:
        return (str(self._folder / f"{index}.npy"),) if self._folder else (self.names[index],)


def random_masks(seed: int, count: int = 3, classes: int = 4) -> list[NDArray[np.int64]]:
    """Masks of several sizes, with the ignore label and -1."""
    rng = np.random.default_rng(seed)
    labels = [*range(classes), 255, -1]
    return [rng.choice(labels, rng.integers(1, 30, 2)).astype(np.int64) for _ in range(count)]


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), tile=st.integers(1, 40), min_pixels=st.integers(1, 20))
def test_centroids_equal_those_of_scipy_in_every_tile(seed: int, tile: int, min_pixels: int) -> None:
    masks = random_masks(seed)
    found = find_centroids(Masks(masks), 4, tile, min_pixels=min_pixels)
    assert len(found) == 4
    for class_ in range(4):
        expected = []
        for index, mask in enumerate(masks):
            for top in range(0, mask.shape[0], tile):
                for left in range(0, mask.shape[1], tile):
                    own = mask[top : top + tile, left : left + tile] == class_
                    if own.sum() >= min_pixels:
                        y, x = ndimage.center_of_mass(own)
                        expected.append((index, top + y, left + x))
        assert [index for index, _ in found[class_]] == [index for index, _, _ in expected]
        for (_, center), (_, y, x) in zip(found[class_], expected, strict=True):
            assert center == pytest.approx((y, x), rel=0, abs=1e-9)


def test_cityscapes_has_two_tiles_and_its_images_are_not_read(tmp_path: Path) -> None:
    make_cityscapes(tmp_path, {"train": 1}, size=(1024, 2048))
    dataset = Cityscapes(tmp_path, "train")
    for image in (tmp_path / "leftImg8bit").rglob("*.png"):
        image.write_bytes(b"")
    road = find_centroids(dataset, 19)[0]
    assert [index for index, _ in road] == [0, 0]
    assert [x // 1024 for _, (_, x) in road] == [0, 1]
    mask = dataset.read_mask(0).numpy()
    assert road[1][1] == pytest.approx(np.argwhere(mask[:, 1024:] == 0).mean(axis=0) + np.array((0, 1024)))


def test_any_data_set_will_do() -> None:
    whole = DigitScenes("train", 6, size=(32, 48), seed=0)
    part = Subset(whole, [1, 4], "reduced")
    found = find_centroids(part, whole.taxonomy.num_classes, 16)
    of_whole = find_centroids(whole, whole.taxonomy.num_classes, 16)
    for class_, places in enumerate(found):
        expected = [([1, 4].index(index), center) for index, center in of_whole[class_] if index in (1, 4)]
        assert places == expected
    assert any(found)


def test_workers_and_progress_change_nothing() -> None:
    dataset, calls = Masks(random_masks(0, count=7)), list[None]()
    one = find_centroids(dataset, 4, 10, progress=lambda: calls.append(None))
    assert len(calls) == 7
    assert find_centroids(dataset, 4, 10, num_workers=2) == one


def test_the_error_of_a_sample_comes_through(tmp_path: Path) -> None:
    make_cityscapes(tmp_path, {"train": 2})
    dataset = Cityscapes(tmp_path, "train")
    min((tmp_path / "gtFine").rglob("*_labelIds.png")).write_text("no image")
    for num_workers in (0, 1):
        with pytest.raises(DataError, match=r"_labelIds.png: not an image file"):
            find_centroids(dataset, 19, num_workers=num_workers)


@pytest.mark.parametrize("name", ["num_classes", "tile", "min_pixels"])
def test_arguments_must_be_positive(name: str) -> None:
    with pytest.raises(DataError, match=rf"centroids with {name} = 0; allowed: 1 or more"):
        find_centroids(Masks(random_masks(0)), **{"num_classes": 4, name: 0})


@pytest.fixture
def stored(tmp_path: Path) -> Masks:
    return Masks(random_masks(1), tmp_path)


def test_a_cache_is_taken_the_second_time(stored: Masks, tmp_path: Path) -> None:
    cache, calls = tmp_path / "new folder" / "centroids.npz", list[None]()
    first = find_centroids(stored, 4, 10, cache=cache)
    assert stored.num_read == 3
    assert [path.name for path in cache.parent.iterdir()] == ["centroids.npz"]
    assert find_centroids(stored, 4, 10, cache=cache, progress=lambda: calls.append(None)) == first
    assert (stored.num_read, calls) == (3, [])
    assert find_centroids(stored, 4, 10) == first


def test_a_cache_of_other_settings_is_made_anew(stored: Masks, tmp_path: Path) -> None:
    cache = tmp_path / "c.npz"
    for number, options in enumerate(
        (
            {"num_classes": 4},
            {"num_classes": 3},
            {"num_classes": 3, "tile": 9},
            {"num_classes": 3, "tile": 9, "min_pixels": 5},
            {"num_classes": 3, "tile": 9, "min_pixels": 5, "key": "threshold 0.9"},
        ),
        start=1,
    ):
        found = find_centroids(stored, cache=cache, **options)
        assert stored.num_read == 3 * number
        assert found == find_centroids(Masks(random_masks(1)), **options)


def test_a_cache_of_other_files_or_another_source_is_made_anew(stored: Masks, tmp_path: Path) -> None:
    cache = tmp_path / "c.npz"
    find_centroids(stored, 4, cache=cache)
    np.save(tmp_path / "1.npy", np.zeros((5, 5), np.int64))
    os.utime(tmp_path / "1.npy", ns=(0, 0))
    assert find_centroids(stored, 4, cache=cache)[0][1] == (1, (2.0, 2.0))
    stored.label_source = "autolabelled 0.9"  # type: ignore[attr-defined]
    find_centroids(stored, 4, cache=cache)
    assert stored.num_read == 9
    stored.names = ["a", "b", "c"]
    find_centroids(stored, 4, cache=cache)
    assert stored.num_read == 12


def test_a_cache_moves_with_its_data(tmp_path: Path) -> None:
    (tmp_path / "old").mkdir()
    dataset = Masks(random_masks(1), tmp_path / "old")
    first = find_centroids(dataset, 4, cache=tmp_path / "old" / "c.npz")
    (tmp_path / "old").rename(tmp_path / "new")
    moved = Masks([])
    moved._masks, moved._folder, moved.names = random_masks(1), tmp_path / "new", dataset.names
    assert find_centroids(moved, 4, cache=tmp_path / "new" / "c.npz") == first
    assert moved.num_read == 0


def test_a_damaged_cache_is_made_anew(stored: Masks, tmp_path: Path) -> None:
    cache = tmp_path / "c.npz"
    first = find_centroids(stored, 4, 10, cache=cache)
    whole = cache.read_bytes()
    rng = np.random.default_rng(0)
    damaged = [b"", b"no zip", whole[: len(whole) // 2], whole[:-1]]
    places = rng.integers(0, len(whole), 60).tolist()
    damaged += [whole[:place] + bytes([whole[place] ^ 255]) + whole[place + 1 :] for place in places]
    for content in damaged:
        cache.write_bytes(content)
        assert find_centroids(stored, 4, 10, cache=cache) == first
    with cache.open("wb") as file:
        np.save(file, np.zeros(3))
    assert find_centroids(stored, 4, 10, cache=cache) == first


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("classes", np.array([4])),
        ("indices", np.array([3])),
        ("indices", np.array([-1])),
        ("indices", np.array([0.0])),
        ("indices", np.array([0, 1])),
        ("centres", np.zeros((1, 3))),
        ("centres", None),
    ],
)
def test_a_cache_whose_values_cannot_be_is_made_anew(
    stored: Masks, tmp_path: Path, name: str, value: NDArray[np.int64] | None
) -> None:
    cache = tmp_path / "c.npz"
    first = find_centroids(stored, 4, 10, cache=cache)
    with np.load(cache) as arrays:
        other = {"classes": np.array([0]), "indices": np.array([0]), "centres": np.zeros((1, 2))}
        other = {**other, "fingerprint": arrays["fingerprint"], name: value}
    np.savez(cache, **{key: array for key, array in other.items() if array is not None})
    assert find_centroids(stored, 4, 10, cache=cache) == first
    assert stored.num_read == 6


def test_a_cache_that_cannot_be_written_only_warns(stored: Masks, tmp_path: Path) -> None:
    with pytest.warns(Hs3Warning, match=r"centroids cannot be kept in '.*0.npy/c.npz'"):
        found = find_centroids(stored, 4, cache=tmp_path / "0.npy" / "c.npz")
    assert found == find_centroids(stored, 4)


def places_of(*counts: int) -> list[list[tuple[int, tuple[float, float]]]]:
    """Centroids of classes that have so many; x tells the class, y the number."""
    return [[(i % 20, (float(i), float(class_))) for i in range(count)] for class_, count in enumerate(counts)]


@settings(max_examples=60, deadline=None)
@given(
    counts=st.lists(st.integers(0, 30), min_size=1, max_size=8).filter(any),
    share=st.floats(0, 1),
    size=st.integers(20, 60),
    seed=st.integers(-(2**31), 2**31),
    epoch=st.integers(0, 500),
)
def test_an_epoch_has_its_share_of_every_class_and_a_permutation(
    counts: list[int], share: float, size: int, seed: int, epoch: int
) -> None:
    centroids = places_of(*counts)
    order = uniform_order(centroids, share, size, seed)(epoch)
    assert len(order) == size
    drawn = [(index, center) for index, center in order if center is not None]
    rest = [index for index, center in order if center is None]
    assert len(drawn) == round(share * size)
    assert len(set(rest)) == len(rest)
    assert set(rest) <= set(range(size))
    per_class = Counter(int(x) for _, (_, x) in drawn)
    there = [class_ for class_, count in enumerate(counts) if count]
    numbers = [per_class[class_] for class_ in there]
    assert max(numbers) - min(numbers) <= 1
    assert set(per_class) <= set(there)
    for class_ in there:
        times = Counter(place for place in drawn if place[1][1] == class_)
        assert set(times) <= set(centroids[class_])
        assert max(times.values(), default=0) <= -(-per_class[class_] // counts[class_])


def test_the_order_depends_on_seed_and_epoch_alone() -> None:
    centroids = places_of(30, 2, 0, 7)
    order = uniform_order(centroids, 0.5, 40, seed=3)
    first = list(order(1))
    order(2)
    assert order(1) == first == uniform_order(places_of(30, 2, 0, 7), 0.5, 40, seed=3)(1)
    assert order(2) != first
    assert uniform_order(centroids, 0.5, 40, seed=4)(1) != first


def test_over_many_epochs_every_place_and_class_comes_equally_often() -> None:
    order = uniform_order(places_of(20, 5, 1), 0.5, 20, seed=0)
    drawn = [place for epoch in range(600) for place in order(epoch) if place[1] is not None]
    classes = Counter(center[1] for _, center in drawn if center)
    # 10 of 20 samples, 3 classes: 3 each and 1 by lot, so 2000 each; the lot's deviation is sqrt(600 * 2 / 9) = 12.
    assert all(abs(classes[class_] - 2000) < 60 for class_ in (0, 1, 2))
    of_first = Counter(center[0] for _, center in drawn if center and center[1] == 0)
    assert all(abs(of_first[i] - 100) < 50 for i in range(20))  # deviation at most 10


def test_a_share_of_0_is_a_permutation_and_of_1_has_places_only() -> None:
    nothing = uniform_order(places_of(0, 0), 0, 12, seed=0)(5)
    assert sorted(nothing) == [(i, None) for i in range(12)]
    assert all(center for _, center in uniform_order(places_of(3, 3), 1, 12, seed=0)(5))


def test_what_cannot_be_sampled_is_refused() -> None:
    with pytest.raises(DataError, match=r"share 1.5 is no share; allowed: 0..1"):
        uniform_order(places_of(1), 1.5, 20, 0)
    with pytest.raises(DataError, match=r"no label has a class, .* set the share to 0"):
        uniform_order(places_of(0, 0), 0.5, 20, 0)
    with pytest.raises(DataError, match=r"a centroid is in sample 9, but the data set has 5; find"):
        uniform_order(places_of(10), 0.5, 5, 0)


def test_the_crops_of_a_rare_class_show_it() -> None:
    masks = [np.zeros((64, 96), np.int64) for _ in range(8)]
    masks[3][50:53, 80:83] = 1
    dataset = Masks(masks, classes=2)
    order = uniform_order(find_centroids(dataset, 2, 32), 0.5, len(dataset), seed=0)
    loader = TrainingLoader(dataset, TrainTransform((24, 24), scale=(1.0, 1.0)), 4, seed=0, order=order)
    batches = [batch for epoch in range(4) for batch in loader.epoch(epoch)]
    shown = sum(bool((mask == 1).any()) for batch in batches for mask in batch.masks)
    assert shown >= 4 * 2  # two of eight samples of an epoch are its centroid
    assert all(3 in batch.indices for batch in batches if (batch.masks == 1).any())
