"""The cache gives what the data set gives, whoever fills it and whoever is killed at it."""

import errno
import json
import multiprocessing
import os
import pickle
import signal
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torchvision import tv_tensors

from hs3seg.data import (
    CamVid,
    DigitScenes,
    Sample,
    SegmentationDataset,
    Subset,
    TrainingLoader,
    TrainTransform,
    channels_of,
)
from hs3seg.data.disk_cache import DiskCache
from hs3seg.errors import DataError, Hs3Warning
from hs3seg.taxonomy import Taxonomy
from tests.conftest import shared


class Files:
    """Samples of several sizes whose content is in one file each, and which count how often they are decoded."""

    taxonomy = Taxonomy.from_names(("a", "b", "c"))
    split = "train"

    def __init__(self, root: Path, count: int = 6, labels: tuple[int, int] = (0, 3), channels: int = 3) -> None:
        self.root, self.count, self.labels, self.channels = root, count, labels, channels
        self.decoded = 0
        root.mkdir(exist_ok=True)
        for index in range(count):
            if not Path(self.files(index)[0]).exists():
                Path(self.files(index)[0]).write_text(str(index))

    @property
    def names(self) -> Sequence[str]:
        return [f"s{index}" for index in range(self.count)]

    def __len__(self) -> int:
        return self.count

    def files(self, index: int) -> tuple[str, ...]:
        return (str(self.root / f"{index}.txt"),)

    def read(self, index: int) -> Sample:
        self.decoded += 1
        rng = np.random.default_rng(int(Path(self.files(index)[0]).read_text()))
        shape = (20 + 3 * index, 31)
        image = torch.from_numpy(rng.integers(0, 256, (self.channels, *shape), np.uint8))
        mask = torch.from_numpy(rng.integers(*self.labels, shape, np.int64))
        return Sample(tv_tensors.Image(image), tv_tensors.Mask(mask), f"s{index}")


def assert_same(a: Sample, b: Sample) -> None:
    assert (a.name, a.image.dtype) == (b.name, torch.uint8)
    assert torch.equal(a.image, b.image)
    assert torch.equal(a.mask.to(torch.int64), b.mask.to(torch.int64))


@pytest.mark.parametrize("labels", [(0, 256), (-1, 300), (0, 100_000)])
def test_what_comes_out_is_what_went_in(tmp_path: Path, labels: tuple[int, int]) -> None:
    data = Files(tmp_path / "source", labels=labels)
    cached = DiskCache(data, tmp_path / "cache")
    assert isinstance(cached, SegmentationDataset)
    assert (cached.names, len(cached), cached.num_stored) == (tuple(data.names), 6, 0)
    for order in (range(6), reversed(range(6))):
        for index in order:
            assert_same(cached.read(index), data.read(index))
            assert cached.read(index).mask.dtype == torch.int64
            assert_same(cached.read_compact(index), data.read(index))
    small = {(0, 256): torch.uint8, (-1, 300): torch.int16, (0, 100_000): torch.int64}[labels]
    assert cached.read_compact(2).mask.dtype == small
    assert cached.num_stored == 6
    assert cached.files(3) == data.files(3)
    with pytest.raises(IndexError):
        cached.read(6)


def test_a_second_run_decodes_nothing(tmp_path: Path) -> None:
    DiskCache(Files(tmp_path / "source"), tmp_path / "cache").fill()
    data = Files(tmp_path / "source")
    again = DiskCache(data, tmp_path / "cache")
    again.fill()
    samples = [again.read(index) for index in range(6)]
    assert data.decoded == 0
    for index, sample in enumerate(samples):
        assert_same(sample, data.read(index))


def test_what_is_written_to_a_sample_stays_there(tmp_path: Path) -> None:
    data = Files(tmp_path / "source")
    cached = DiskCache(data, tmp_path / "cache")
    cached.fill()
    for read in (cached.read, cached.read_compact):
        sample = read(1)
        sample.image.zero_()
        sample.mask.zero_()
        assert_same(read(1), data.read(1))
    assert_same(DiskCache(data, tmp_path / "cache").read(1), data.read(1))


def test_a_changed_file_is_decoded_again_and_its_old_version_stays_valid_for_who_has_it(tmp_path: Path) -> None:
    data = Files(tmp_path / "source")
    first = DiskCache(data, tmp_path / "cache")
    first.fill()
    old, expected = first.read_compact(5), data.read(5)
    Path(data.files(5)[0]).write_text("77")
    Path(data.files(2)[0]).touch()
    second = DiskCache(data, tmp_path / "cache")
    data.decoded = 0
    second.fill()
    assert data.decoded == 2
    for index in range(6):
        assert_same(second.read(index), data.read(index))
    assert_same(old, expected)
    Path(data.files(0)[0]).unlink()
    with pytest.raises(OSError, match=r"0\.txt"):
        DiskCache(data, tmp_path / "cache").read(0)


def test_full_it_decodes_the_others_and_says_so(tmp_path: Path) -> None:
    data = Files(tmp_path / "source")
    limit = 3 * 8192 / 2**30  # a sample takes a page for the image and at most one for the labels
    cached = DiskCache(data, tmp_path / "cache", max_gib=limit)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        for _ in range(2):
            for index in range(6):
                assert_same(cached.read(index), data.read(index))
    (only,) = said
    assert only.category is Hs3Warning
    assert "is full: 3 of 6 samples fill its 2.29e-05 GiB, the others are decoded each time" in str(only.message)
    assert cached.num_stored == 3
    assert cached.num_bytes <= limit * 2**30
    assert (tmp_path / "cache" / "samples.bin").stat().st_size <= limit * 2**30
    with pytest.warns(Hs3Warning, match="is full"):
        DiskCache(data, tmp_path / "cache", max_gib=limit)
    more = DiskCache(data, tmp_path / "cache")
    more.fill()
    assert more.num_stored == 6


def fill(cached: DiskCache, start: Any, dying: list[Any], seed: int, kill_at: int | None) -> None:
    """Reads everything in an order of its own; killed in the middle of writing its `kill_at`-th sample.

    Who is not killed goes no further than a third before the others die: else all may be stored before they write.
    """
    order = np.random.default_rng(seed).permutation(len(cached))
    if kill_at is not None:
        sync, count = os.fdatasync, iter(range(1000))

        def kill(handle: int) -> None:
            if next(count) == kill_at:
                os.truncate(handle, os.fstat(handle).st_size - 700)  # as if only a part had been written
                dying[kill_at].set()
                os.kill(os.getpid(), signal.SIGKILL)
            sync(handle)

        os.fdatasync = kill
    start.wait()
    for number, index in enumerate(order):
        if kill_at is None and number == len(order) // 3:
            assert all(event.wait(60) for event in dying)
        cached.read(int(index))


@pytest.mark.parametrize("seed", range(4))
def test_four_processes_fill_it_at_once_and_two_are_killed(tmp_path: Path, seed: int) -> None:
    data = Files(tmp_path / "source", count=24)
    cached = DiskCache(data, tmp_path / "cache")
    cached.read(seed)  # forked processes inherit open files and maps
    context = multiprocessing.get_context("fork")
    start, dying = context.Barrier(4), [context.Event(), context.Event()]
    processes = [
        context.Process(target=fill, args=(cached, start, dying, 10 * seed + number, kill_at))
        for number, kill_at in enumerate((None, 0, 1, None))
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # fork beside torch's threads
        for process in processes:
            process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, -signal.SIGKILL, -signal.SIGKILL, 0]
    data.decoded = 0
    for index in range(24):
        assert_same(cached.read(index), data.read(index))
    assert data.decoded == 24  # by the right-hand sides alone
    assert cached.num_stored == 24
    # Whatever was killed left no hole and nothing was stored twice.
    alone = DiskCache(data, tmp_path / "alone")
    alone.fill()
    sizes = [(tmp_path / name / "samples.bin").stat().st_size for name in ("cache", "alone")]
    assert abs(sizes[0] - sizes[1]) < 2 * 4096


def test_a_half_written_record_counts_as_none(tmp_path: Path) -> None:
    data = Files(tmp_path / "source")
    DiskCache(data, tmp_path / "cache").fill()
    path = tmp_path / "cache" / "index.bin"
    whole = path.read_bytes()
    width = len(whole) // 6
    rng = np.random.default_rng(0)
    for cut in range(1, width):
        torn = bytearray(whole)
        for place in range(2 * width + cut, 3 * width):
            torn[place] ^= int(rng.integers(1, 256))  # never the byte that was there: the record would be whole
        path.write_bytes(torn)
        data.decoded = 0
        assert_same(DiskCache(data, tmp_path / "cache").read(2), data.read(2))
        assert data.decoded == 2
        assert_same(DiskCache(data, tmp_path / "cache").read(3), data.read(3))


def test_a_shortened_file_is_filled_again(tmp_path: Path) -> None:
    data = Files(tmp_path / "source")
    DiskCache(data, tmp_path / "cache").fill()
    with (tmp_path / "cache" / "samples.bin").open("r+b") as file:
        file.truncate(9000)
    cached = DiskCache(data, tmp_path / "cache")
    for index in (5, 1, 4, 0, 3, 2):
        assert_same(cached.read(index), data.read(index))
    data.decoded = 0
    DiskCache(data, tmp_path / "cache").fill()
    assert data.decoded == 0


def test_a_folder_belongs_to_one_data_set(tmp_path: Path) -> None:
    data = Files(tmp_path / "source")
    DiskCache(data, tmp_path / "cache", key="options")
    for other, key in ((Files(tmp_path / "source", count=5), "options"), (data, "other options")):
        with pytest.raises(
            DataError,
            match=rf"holds the cache of another data set .*\(Files train, 6 samples; wanted: Files train, {len(other)} "
            r"samples\); give another folder",
        ):
            DiskCache(other, tmp_path / "cache", key=key)
    for text in ("{", "[]"):
        (tmp_path / "cache" / "cache.json").write_text(text)
        with pytest.raises(DataError, match="delete"):
            DiskCache(data, tmp_path / "cache", key="options")


def test_folders_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = Files(tmp_path / "source")
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match=r"file/cache' cannot be written \(Not a directory\); give a folder"):
        DiskCache(data, tmp_path / "file" / "cache")
    with pytest.raises(DataError, match="more than 0"):
        DiskCache(data, tmp_path / "cache", max_gib=0)
    cached = DiskCache(data, tmp_path / "cache")
    cached.read(0)

    def no_space(_handle: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fdatasync", no_space)
    with pytest.raises(DataError, match=r"no space left on the disk; free some, lower the limit"):
        cached.read(1)
    monkeypatch.undo()
    assert_same(cached.read(1), data.read(1))


def test_it_wraps_any_data_set_and_can_be_sent_to_a_process(tmp_path: Path) -> None:
    deep = Files(tmp_path / "source", channels=4)
    cached = pickle.loads(pickle.dumps(DiskCache(deep, tmp_path / "a")))
    part = Subset(cached, [1], "part")
    assert channels_of(part) == 4
    scenes = DigitScenes("train", 3, size=(32, 40))  # has no files
    for data, kept in ((deep, cached), (scenes, DiskCache(scenes, tmp_path / "b"))):
        for _ in range(2):
            for index in range(len(data)):
                assert_same(kept.read(index), data.read(index))
    assert_same(part.read(0), deep.read(1))
    assert json.loads((tmp_path / "a" / "cache.json").read_text())["dataset"] == "Files"


def batches(data: SegmentationDataset, **options: Any) -> list[tuple[torch.Tensor, torch.Tensor, list[str]]]:
    loader = TrainingLoader(data, TrainTransform((24, 48), color_jitter=(0.2, 0.2, 0.2, 0.1)), 3, 0, **options)
    return [(b.images, b.masks, b.names) for epoch in range(3) for b in loader.epoch(epoch)]


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_are_those_without_a_cache(tmp_path: Path, workers: int) -> None:
    data = Files(tmp_path / "source")
    plain = batches(data)
    cached = batches(DiskCache(data, tmp_path / "cache"), num_workers=workers)
    assert len(plain) == len(cached) == 6
    for (images, masks, names), (same_images, same_masks, same_names) in zip(plain, cached, strict=True):
        assert torch.equal(images, same_images)
        assert torch.equal(masks, same_masks)
        assert same_masks.dtype == torch.int64
        assert names == same_names


def test_the_real_data(tmp_path: Path) -> None:
    data = Subset(CamVid(shared("camvid"), "val"), range(3), "few")
    cached = DiskCache(data, tmp_path)
    for _ in range(2):
        for index in range(3):
            assert_same(cached.read(index), data.read(index))
    pages = -(-360 * 480 * 3 // 4096) + -(-360 * 480 // 4096)
    assert cached.num_stored == 3
    assert abs(cached.num_bytes - 3 * pages * 4096) < 4096
