"""The official .mat file: its axes, its split, and files that are something else."""

import multiprocessing
import pickle
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
import scipy.io
import torch

from hs3seg.data import NYUv2, SegmentationDataset, channels_of
from hs3seg.data.doctor import examine
from hs3seg.data.hha import hha
from hs3seg.errors import DataError
from hs3seg.taxonomies.nyuv2 import FROM_40, OFFICIAL_SPLITS
from tests.fabricate.nyuv2 import encode_depth, make_nyuv2_mat, make_room

NAME = "nyu_depth_v2_labeled.mat"


@pytest.fixture(scope="module")
def mat(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_nyuv2_mat(tmp_path_factory.mktemp("mat") / NAME)


def test_frames_have_their_pixels_labels_and_depth(mat: Path) -> None:
    for split, numbers in (("train", (3, 4, 5, 6, 7, 8)), ("test", (1, 2))):
        data = {depth: NYUv2(mat, split, depth=depth) for depth in ("none", "raw", "filled", "hha")}
        assert data["none"].names == [f"{number:04}" for number in numbers]
        assert all(number in OFFICIAL_SPLITS[split] for number in numbers)
        for index, number in enumerate(numbers):
            room = make_room(number)
            samples = {depth: one.read(index) for depth, one in data.items()}
            assert {depth: len(s.image) for depth, s in samples.items()} == {"none": 3, "raw": 4, "filled": 4, "hha": 6}
            for sample in samples.values():
                assert np.array_equal(sample.image[:3].numpy(), room.rgb.transpose(2, 0, 1))
                assert np.array_equal(sample.mask.numpy(), np.where(room.labels == 0, 255, room.labels.astype(int) - 1))
            assert np.array_equal(samples["raw"].image[3].numpy(), encode_depth(room.raw, "8-bit"))
            assert np.array_equal(samples["filled"].image[3].numpy(), encode_depth(room.metres, "8-bit"))
            assert np.array_equal(samples["hha"].image[3:].numpy(), hha(room.metres).transpose(2, 0, 1))


@pytest.mark.parametrize("classes", [13, 4])
def test_fewer_classes(mat: Path, classes: int) -> None:
    data = NYUv2(mat, "test", classes=classes)
    assert data.taxonomy.num_classes == classes
    labels = make_room(1).labels
    expected = np.array([255, *FROM_40[classes]])[labels]
    assert np.array_equal(data.read(0).mask.numpy(), expected)


def test_the_file_or_its_folder(mat: Path) -> None:
    inside = NYUv2(mat.parent, "train")
    assert isinstance(inside, SegmentationDataset)
    assert torch.equal(inside.read(2).image, NYUv2(mat, "train").read(2).image)
    assert inside.files(2) == (f"{mat}, frame 0005",)
    assert inside.notes == (
        f"Frames are those of the official split in '{mat}', which holds 8, not 1449 as the official file.",
    )
    assert channels_of(NYUv2(mat, "train", depth="hha")) == 6
    assert not examine({"train": inside}).has_errors


def _sum(data: NYUv2, index: int) -> int:
    return int(data.read(index).image.sum())


@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_worker_processes_read_the_same(mat: Path, start: str) -> None:
    data = NYUv2(mat, "train", depth="filled")
    here = [_sum(data, index) for index in range(len(data))]  # read before the workers exist
    if start == "spawn":
        assert [_sum(pickle.loads(pickle.dumps(data)), index) for index in range(len(data))] == here
        return
    with multiprocessing.get_context(start).Pool(2) as pool:
        assert pool.starmap(_sum, [(data, index) for index in range(len(data))], chunksize=1) == here


@pytest.mark.parametrize("name", ["images", "depths", "rawDepths", "labels"])
def test_a_missing_variable_is_named(tmp_path: Path, name: str) -> None:
    path = make_nyuv2_mat(tmp_path / NAME, 3, leave_out=name)
    depth = "raw" if name == "rawDepths" else "filled"
    with pytest.raises(DataError, match=rf"variable '{name}' is missing; .* variables found: .*names"):
        NYUv2(path, "train", depth=depth)
    if name in ("rawDepths", "depths"):
        assert NYUv2(path, "train").read(0).image.shape == (3, 48, 64)


def test_a_variable_of_another_shape(tmp_path: Path) -> None:
    path = make_nyuv2_mat(tmp_path / NAME, 3)
    with h5py.File(path, "r+") as file:
        values = file["labels"][:]
        del file["labels"]
        file["labels"] = values.transpose(0, 2, 1)
    with pytest.raises(DataError, match=r"variable 'labels' has shape \(3, 48, 64\); .* here \(3, 64, 48\)"):
        NYUv2(path, "train")
    with h5py.File(path, "r+") as file:
        del file["labels"]
        file["labels"] = values[0]
    with pytest.raises(DataError, match=r"variable 'labels' has shape \(64, 48\)"):
        NYUv2(path, "train")


def test_names_in_another_order(tmp_path: Path) -> None:
    path = make_nyuv2_mat(tmp_path / NAME, 3)
    with h5py.File(path, "r+") as file:
        cells = file["names"]
        cells[0, 20], cells[0, 21] = cells[0, 21], cells[0, 20]
    with pytest.raises(DataError, match=r"object 21 is to be 'wall', 'names' has 'object 22'"):
        NYUv2(path, "train")
    assert len(NYUv2(make_nyuv2_mat(tmp_path / "b.mat", 3, leave_out="names"), "train")) == 1


def test_a_label_beyond_894(tmp_path: Path) -> None:
    path = make_nyuv2_mat(tmp_path / NAME, 3)
    with h5py.File(path, "r+") as file:
        file["labels"][2, 7, 5] = 895  # x, y
    with pytest.raises(
        DataError, match=r"labeled.mat, frame 0003: label 895 at x=7, y=5 \(1 such pixels\) is no class"
    ):
        NYUv2(path, "train").read(0)


def test_files_that_are_something_else(tmp_path: Path, mat: Path) -> None:
    old = tmp_path / "old.mat"
    scipy.io.savemat(old, {"images": np.zeros((2, 2))})
    with pytest.raises(DataError, match=r"old.mat: a MATLAB file of version 5, but only version 7.3 is read.*'-v7.3'"):
        NYUv2(old, "train")
    (tmp_path / "page.mat").write_text("<html>not found</html>")
    with pytest.raises(DataError, match=r"page.mat: not a MATLAB file, .*download it again"):
        NYUv2(tmp_path / "page.mat", "train")
    (tmp_path / "short.mat").write_bytes(mat.read_bytes()[:20000])
    with pytest.raises(DataError, match=r"short.mat: cannot be read \(.*truncated"):
        NYUv2(tmp_path / "short.mat", "train")
    with pytest.raises(DataError, match=r"none.mat' does not exist"):
        NYUv2(tmp_path / "none.mat", "train")
    with pytest.raises(DataError, match=r"no split 'val' in .* official splits: train, test"):
        NYUv2(mat, "val")
    with pytest.raises(DataError, match="holds no HHA pictures; set hha_source = 'depth'"):
        NYUv2(mat, "train", depth="hha", hha_source="files")
    few = make_nyuv2_mat(tmp_path / "few.mat", 2)
    with pytest.raises(DataError, match="none of its 2 frames belongs to the split 'train'"):
        NYUv2(few, "train")


def test_a_frame_that_is_damaged(tmp_path: Path) -> None:
    path = make_nyuv2_mat(tmp_path / NAME, 3)
    with h5py.File(path, "r") as file:
        chunk = file["images"].id.get_chunk_info(2)
        start = chunk.byte_offset + file.userblock_size
    content = bytearray(path.read_bytes())
    content[start : start + chunk.size] = bytes(chunk.size)
    path.write_bytes(content)
    assert NYUv2(path, "test").read(0).image.shape == (3, 48, 64)
    with pytest.raises(DataError, match="frame 0003 of 'images' cannot be read"):
        NYUv2(path, "train").read(0)


def test_without_h5py(mat: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(DataError, match=r"needs h5py, which is not installed; pip install '\.\[nyuv2\]' in a checkout"):
        NYUv2(mat, "train")
