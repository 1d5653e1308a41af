"""What label files hold: every id of every kind, and what cannot be told apart."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hs3seg.data.nyuv2_labels import ALLOWED, LabelReader, find_labels
from hs3seg.errors import DataError
from hs3seg.taxonomies.nyuv2 import FROM_40, FROM_894


def write(folder: Path, *frames: list[int], wide: bool = False) -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for number, ids in enumerate(frames):
        path = folder / f"{number}.png"
        Image.fromarray(np.array([ids], np.uint16 if wide else np.uint8)).save(path)
        paths.append(path)
    return paths


@pytest.mark.parametrize("kind", ALLOWED)
def test_every_id_of_every_kind(kind: str) -> None:
    size = int(kind.removesuffix("-from-0"))
    first = 0 if kind.endswith("-from-0") else 1
    classes = 40 if size == 894 else size
    ids = np.arange(first, first + size)
    found = LabelReader(kind, classes).map(ids[None], "x")[0]
    assert found.tolist() == (list(FROM_894) if size == 894 else list(range(size)))
    void = LabelReader(kind, classes).map(np.array([[0 if first else 255]]), "x")
    assert void.tolist() == [[255]]
    for wrong in {first + size, -1, 70000} | ({255} if size == 894 else set()):
        if wrong == 255:
            continue  # an object id like others
        with pytest.raises(DataError, match=rf"x: label {wrong} at x=0, y=0 .* allowed: {0 if first else 255} = void"):
            LabelReader(kind, classes).map(np.array([[wrong]]), "x")


@pytest.mark.parametrize(("kind", "classes"), [("894", 13), ("894", 4), ("40", 13), ("40-from-0", 4)])
def test_ids_of_coarser_classes(kind: str, classes: int) -> None:
    fine = LabelReader(kind, 40)
    first = 0 if kind.endswith("-from-0") else 1
    ids = np.arange(first, first + (894 if kind == "894" else 40))[None]
    table = np.array(FROM_40[classes])
    assert np.array_equal(LabelReader(kind, classes).map(ids, "x"), table[fine.map(ids, "x")])


@pytest.mark.parametrize(
    ("folder", "frames", "expected"),
    [
        ("label", [[0, 1, 40]], "40"),
        ("label", [[0, 1, 2, 40, 255]], "40"),
        ("label", [[255, 0, 39]], "40-from-0"),
        ("label", [[255, 0, 20], [255, 0, 30]], "40-from-0"),
        ("label", [[0, 1, 2, 20]], "40"),  # few frames need not have every class
        ("label", [[1, 2, 20]], "40"),
        ("label", [[0, 1, 13]], "13"),
        ("label", [[255, 0, 12]], "13-from-0"),
        ("seg13", [[0, 1, 2]], "13"),
        ("label40", [[0, 1, 2]], "40"),
        ("label13", [[0, 1, 40]], "40"),  # the ids count more than the name
        ("label", [[0, 1, 4]], "4"),
        ("label", [[255, 0, 3]], "4-from-0"),
        ("label", [[0, 0]], "40"),
        ("label", [[255, 255]], "40"),
        ("label", [[0, 1, 41]], "4"),  # 8 bits do not hold 894 ids; reading names the place
    ],
)
def test_what_is_found(tmp_path: Path, folder: str, frames: list[list[int]], expected: str) -> None:
    kind, note = find_labels(write(tmp_path / folder, *frames))
    assert kind == expected
    assert f"classes from {0 if expected.endswith('-from-0') else 1}" in note


def test_16_bit_files(tmp_path: Path) -> None:
    assert find_labels(write(tmp_path / "a", [0, 21, 894], wide=True))[0] == "894"
    assert find_labels(write(tmp_path / "b", [0, 21, 40], wide=True))[0] == "40"
    assert find_labels(write(tmp_path / "c", [65535, 0, 39], wide=True))[0] == "40-from-0"


@pytest.mark.parametrize(
    ("frames", "message"),
    [
        ([[255, 1, 20]], r"ids 1..20 and 255, so it is unclear .* set labels = '40' \(1..40, void 0\) or '40-from-0'"),
        ([[0, 1, 39]] * 6, r"ids 0..39, so it is unclear whether the 40 classes begin at 0 or 1"),
        ([[0, 1, 12]] * 20, r"ids 0..12, so it is unclear whether the 13 classes begin at 0 or 1"),
    ],
)
def test_what_is_unclear_names_the_argument(tmp_path: Path, frames: list[list[int]], message: str) -> None:
    with pytest.raises(DataError, match=message):
        find_labels(write(tmp_path / "label", *frames))


def test_files_that_cannot_be_read_do_not_hinder_the_others(tmp_path: Path) -> None:
    paths = write(tmp_path / "label", [255, 0, 39], [255, 0, 39])
    paths[0].write_bytes(b"no picture")
    assert find_labels(paths)[0] == "40-from-0"
    with pytest.raises(DataError, match="not an image file"):
        LabelReader("40-from-0", 40).read(paths[0])
