"""Data sets of the `datasets` library: saved, as parquet, as a folder, and streamed."""

import builtins
import io
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from hs3seg.data.huggingface import HuggingFace
from hs3seg.data.sample import SegmentationDataset
from hs3seg.errors import DataError
from hs3seg.taxonomy import Taxonomy

datasets = pytest.importorskip("datasets")

TAXONOMY = Taxonomy.from_names(["a", "b", "c"])
SIZE = (4, 6)


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    datasets.disable_progress_bars()
    yield
    datasets.enable_progress_bars()


def labels_of(index: int) -> np.ndarray:
    return np.random.default_rng(index).choice([0, 1, 2, 255], SIZE).astype(np.uint8)


def encoded(pixels: np.ndarray) -> dict[str, Any]:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return {"bytes": buffer.getvalue(), "path": None}


def rows(count: int, masks: str = "picture") -> Any:
    """A `Dataset` of `count` rows; image i is painted with i."""
    values: dict[str, list[Any]] = {"image": [], "annotation": [], "id": []}
    for index in range(count):
        values["image"].append(encoded(np.full((*SIZE, 3), index, np.uint8)))
        labels = labels_of(index)
        values["annotation"].append(encoded(labels) if masks == "picture" else labels.tolist())
        values["id"].append(f"ü {index}")
    pictures = datasets.Image()
    mask = pictures if masks == "picture" else datasets.Array2D(SIZE, "uint8")
    return datasets.Dataset.from_dict(
        values, datasets.Features({"image": pictures, "annotation": mask, "id": datasets.Value("string")})
    )


def saved(folder: Path) -> Path:
    rows(3).save_to_disk(folder / "saved")
    return folder / "saved"


def saved_splits(folder: Path) -> Path:
    datasets.DatasetDict({"train": rows(3), "test": rows(1)}).save_to_disk(folder / "saved")
    return folder / "saved"


def parquet(folder: Path) -> Path:
    rows(3).to_parquet(folder / "rows.parquet")
    return folder / "rows.parquet"


def parquet_folder(folder: Path) -> Path:
    (folder / "set" / "data").mkdir(parents=True)
    rows(3).to_parquet(folder / "set" / "data" / "train-00000-of-00001.parquet")
    rows(1).to_parquet(folder / "set" / "data" / "test-00000-of-00001.parquet")
    return folder / "set"


MAKERS = {"saved": saved, "saved splits": saved_splits, "parquet": parquet, "parquet folder": parquet_folder}


def open_set(source: Path, split: str = "train", **options: Any) -> HuggingFace:
    return HuggingFace(source, split, TAXONOMY, cache=source.parent / "cache", **options)


def replaced(folder: Path, column: str, value: Any, feature: Any = None) -> Path:
    """A saved set of one row with another value."""
    old = rows(1)
    features = old.features.copy()
    if feature is not None:
        features[column] = feature
    values = {"image": [encoded(np.zeros((*SIZE, 3), np.uint8))], "annotation": [encoded(labels_of(0))], "id": ["0"]}
    datasets.Dataset.from_dict(values | {column: [value]}, features).save_to_disk(folder / "saved")
    return folder / "saved"


@pytest.mark.parametrize("stream", [0, 2, 9])
@pytest.mark.parametrize("kind", MAKERS)
def test_every_kind_of_source(tmp_path: Path, kind: str, stream: int) -> None:
    dataset = open_set(MAKERS[kind](tmp_path), stream_samples=stream)
    assert isinstance(dataset, SegmentationDataset)
    assert len(dataset) == (2 if stream == 2 else 3)
    assert dataset.names == [f"{i:06}" for i in range(len(dataset))]
    for index in reversed(range(len(dataset))):
        sample = dataset.read(index)
        assert sample.image.shape == (3, *SIZE)
        assert (sample.image == index).all()
        assert np.array_equal(sample.mask.numpy(), labels_of(index))
    assert dataset.files(1) == (f"{dataset._place}, row 1",)


def test_a_stream_is_read_once_and_no_further(monkeypatch: pytest.MonkeyPatch) -> None:
    read = []

    def made() -> Iterator[dict[str, Any]]:
        for index in range(100):
            read.append(index)
            yield {"image": encoded(np.full((*SIZE, 3), index, np.uint8)), "mask": encoded(labels_of(index))}

    features = datasets.Features({"image": datasets.Image(), "mask": datasets.Image()})
    stream = datasets.IterableDataset.from_generator(made, features=features)
    monkeypatch.setattr(datasets, "load_dataset", lambda *_a, **options: stream if options["streaming"] else None)
    dataset = HuggingFace("owner/name", "train", TAXONOMY, stream_samples=5)
    assert len(dataset) == 5
    for _ in range(2):
        assert [int(dataset.read(i).image[0, 0, 0]) for i in (4, 0)] == [4, 0]
    assert len(read) <= 6
    assert np.array_equal(pickle.loads(pickle.dumps(dataset)).read(3).mask.numpy(), labels_of(3))


@pytest.mark.parametrize("kind", ["saved", "parquet"])
def test_it_passes_to_another_process(tmp_path: Path, kind: str) -> None:
    dataset = pickle.loads(pickle.dumps(open_set(MAKERS[kind](tmp_path))))
    assert np.array_equal(dataset.read(2).mask.numpy(), labels_of(2))


def test_a_folder_of_pictures_with_a_table(tmp_path: Path) -> None:
    folder = tmp_path / "set" / "train"
    folder.mkdir(parents=True)
    lines = ["file_name,mask_file_name"]
    for index in range(2):
        Image.fromarray(np.full((*SIZE, 3), index, np.uint8)).save(folder / f"{index}.png")
        Image.fromarray(labels_of(index)).save(folder / f"{index}_mask.png")
        lines.append(f"{index}.png,{index}_mask.png")
    (folder / "metadata.csv").write_text("\n".join(lines))
    dataset = open_set(tmp_path / "set")
    assert np.array_equal(dataset.read(1).mask.numpy(), labels_of(1))
    (folder / "1.png").unlink()
    with pytest.raises(DataError, match="image file '.*set/train/1.png' does not exist"):
        dataset.read(1)


def test_masks_as_arrays(tmp_path: Path) -> None:
    rows(2, "array").save_to_disk(tmp_path / "saved")
    dataset = open_set(tmp_path / "saved")
    assert np.array_equal(dataset.read(1).mask.numpy(), labels_of(1))


def test_names_of_a_column(tmp_path: Path) -> None:
    path = saved(tmp_path)
    assert open_set(path, name="id").names == ["ü 0", "ü 1", "ü 2"]
    assert open_set(path, name="id").read(2).name == "ü 2"
    assert open_set(parquet(tmp_path), name="id", stream_samples=2).names == ["ü 0", "ü 1"]
    with pytest.raises(DataError, match="no column 'ids' of names; nearest: 'id'"):
        open_set(path, name="ids")
    datasets.concatenate_datasets([rows(2), rows(1)]).save_to_disk(tmp_path / "doubled")
    with pytest.raises(DataError, match="two rows have the name 'ü 0' in the column 'id'"):
        open_set(tmp_path / "doubled", name="id")


def test_ids_that_count_from_one(tmp_path: Path) -> None:
    labels = np.array([[0, 1, 2, 3, 255, 0]] * 4, np.uint8)
    path = replaced(tmp_path, "annotation", encoded(labels))
    assert open_set(path, first_id=1).read(0).mask[0].tolist() == [255, 0, 1, 2, 255, 255]
    assert open_set(path).ids() == [0, 1, 2, 3, 255]
    with pytest.raises(DataError, match=r"row 0, column 'annotation': label 3 at x=3, y=0 \(4 .* allowed: 0\.\.2 and"):
        open_set(path).read(0)


def test_masks_as_colours(tmp_path: Path) -> None:
    labels = np.array([[0, 1, 2, 1, 0, 2]] * 4)
    colours = np.array(TAXONOMY.colours, np.uint8)[labels]
    assert np.array_equal(open_set(replaced(tmp_path, "annotation", encoded(colours))).read(0).mask.numpy(), labels)
    colours[1, 2] += 1
    path = replaced(tmp_path / "wrong", "annotation", encoded(colours))
    with pytest.raises(DataError, match=r"saved', split 'train', row 0, column 'annotation': colour .* at x=2, y=1"):
        open_set(path).read(0)


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("image", {"bytes": b"no picture", "path": None}, "row 0, column 'image': not an image file"),
        ("image", None, "row 0, column 'image': holds nothing, but no picture"),
        ("annotation", None, "row 0, column 'annotation': holds nothing"),
        ("annotation", encoded(np.zeros((3, 6), np.uint8)), "column 'annotation': is 6x3 pixels, its image .* is 6x4"),
    ],
)
def test_rows_that_cannot_be_used(tmp_path: Path, column: str, value: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        open_set(replaced(tmp_path, column, value)).read(0)


@pytest.mark.parametrize(
    ("value", "feature", "message"),
    [
        ([[0.5]], datasets.Array2D((1, 1), "float32"), r"an array of shape \(1, 1\) and type float"),
        ([1, 2], datasets.Sequence(datasets.Value("int32")), r"an array of shape \(2,\) and type int"),
        ([[1, 2], [3]], datasets.Sequence(datasets.Sequence(datasets.Value("int32"))), r"an array of shape \(0,\)"),
    ],
)
def test_arrays_that_are_no_masks(tmp_path: Path, value: Any, feature: Any, message: str) -> None:
    with pytest.raises(DataError, match=rf"column 'annotation': {message}"):
        open_set(replaced(tmp_path, "annotation", value, feature)).read(0)


def test_columns_that_are_not_there(tmp_path: Path) -> None:
    path = saved(tmp_path)
    with pytest.raises(DataError, match="no column 'images'; nearest: 'image'"):
        open_set(path, image="images")
    with pytest.raises(DataError, match="images and masks are both in the column 'image'"):
        open_set(path, mask="image")
    rows(1).rename_column("annotation", "target").save_to_disk(tmp_path / "other")
    with pytest.raises(DataError, match=r"which column holds the masks\? It has: image, target, id; name it in"):
        open_set(tmp_path / "other")
    assert len(open_set(tmp_path / "other", mask="target")) == 1


def test_splits_and_files_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="saved' has no split 'val'; allowed: 'train', 'test'"):
        open_set(saved_splits(tmp_path), "val")
    with pytest.raises(DataError, match=r"split 'val' cannot be loaded \(ValueError: .*val.*\); check the split"):
        open_set(parquet_folder(tmp_path), "val")
    with pytest.raises(DataError, match=r"parquet file '.*none.parquet' does not exist"):
        open_set(tmp_path / "none.parquet")
    (tmp_path / "saved" / "train" / "state.json").write_text("{")
    with pytest.raises(DataError, match=r"saved' cannot be loaded \(JSONDecodeError: .*save the data set again"):
        open_set(tmp_path / "saved")


def test_a_download_that_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_arguments: Any, **_options: Any) -> None:
        raise ConnectionError("Couldn't reach 'owner/name' on the Hub\nwith a second line")

    monkeypatch.setattr(datasets, "load_dataset", fail)
    with pytest.raises(
        DataError, match=r"'owner/name', split 'train' cannot be loaded \(ConnectionError: Couldn't"
    ) as e:
        HuggingFace("owner/name", "train", TAXONOMY)
    assert "check the name, the split, the subset and the network" in str(e.value)
    assert "\n" not in str(e.value)


def test_a_stream_that_breaks(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> Iterator[dict[str, Any]]:
        yield {"image": encoded(np.zeros((*SIZE, 3), np.uint8)), "mask": encoded(labels_of(0))}
        raise ConnectionError("reset by peer")

    features = datasets.Features({"image": datasets.Image(), "mask": datasets.Image()})
    stream = datasets.IterableDataset.from_generator(broken, features=features)
    monkeypatch.setattr(datasets, "load_dataset", lambda *_a, **_o: stream)
    with pytest.raises(DataError, match=r"the stream broke \(ConnectionError: reset by peer\); check the network"):
        HuggingFace("owner/name", "train", TAXONOMY, stream_samples=5)


def test_a_picture_that_a_stream_gives_as_an_address(monkeypatch: pytest.MonkeyPatch) -> None:
    fsspec = pytest.importorskip("fsspec")
    fsspec.filesystem("memory").pipe("/hs3/mask.png", encoded(labels_of(7))["bytes"])
    features = datasets.Features({"image": datasets.Image(), "mask": datasets.Image()})
    row = {"image": encoded(np.zeros((*SIZE, 3), np.uint8)), "mask": {"bytes": None, "path": "memory://hs3/mask.png"}}
    stream = datasets.IterableDataset.from_generator(lambda: iter([row]), features=features)
    monkeypatch.setattr(datasets, "load_dataset", lambda *_a, **_o: stream)
    dataset = HuggingFace("owner/name", "train", TAXONOMY, stream_samples=5)
    fsspec.filesystem("memory").rm("/hs3/mask.png")
    assert np.array_equal(dataset.read(0).mask.numpy(), labels_of(7))


def test_a_split_without_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets, "load_dataset", lambda *_a, **_o: rows(3).select([]))
    with pytest.raises(DataError, match="'owner/name', split 'train': has no rows"):
        HuggingFace("owner/name", "train", TAXONOMY)


def test_options_reach_the_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = {}

    def load(*arguments: str, **options: Any) -> Any:
        seen.update(options, arguments=arguments)
        return rows(1)

    monkeypatch.setattr(datasets, "load_dataset", load)
    HuggingFace("owner/name", "val", TAXONOMY, subset="full", revision="v2", cache=tmp_path)
    assert seen == {
        "arguments": ("owner/name", "full"),
        "split": "val",
        "revision": "v2",
        "streaming": False,
        "cache_dir": str(tmp_path),
    }


def test_without_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    imported = builtins.__import__

    def missing(name: str, *arguments: Any) -> Any:
        if name == "datasets":
            raise ImportError(name)
        return imported(name, *arguments)

    monkeypatch.setattr(builtins, "__import__", missing)
    with pytest.raises(DataError, match=r"needs the package datasets, .*: pip install '\.\[datasets\]' in a checkout"):
        HuggingFace("owner/name", "train", TAXONOMY)
