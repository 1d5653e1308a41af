"""Depth files: each public encoding gives the same metres, and what is unclear is refused."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from hs3seg.data.depth import DepthUnit, find_depth_reader, read_depth, to_channel
from hs3seg.errors import DataError
from tests.fabricate.nyuv2 import encode_depth, make_room

STEPS = {"8-bit": 0.5 / 25.5, "grey": 0.5 / 25.5, "mm": 0.0005, "npy": 1e-6, "tiff": 1e-6}  # half a step, in metres
TOLD: dict[str, DepthUnit] = {"tenth-mm": "tenth_millimetres", "16-bit-10m": "ten_metres"}


def write(folder: Path, kind: str, frames: int = 3) -> list[Path]:
    """Raw depth of rooms in an encoding."""
    folder.mkdir(exist_ok=True)
    paths = []
    for number in range(frames):
        room = make_room(number)
        values = encode_depth(room.metres if kind == "relative" else room.raw, kind)
        path = folder / f"{number}{ {'npy': '.npy', 'tiff': '.tiff'}.get(kind, '.png') }"
        if kind == "npy":
            np.save(path, values)
        else:
            Image.fromarray(values).save(path)
        paths.append(path)
    return paths


@pytest.mark.parametrize("kind", [*STEPS, *TOLD])
def test_every_encoding_gives_the_same_metres(tmp_path: Path, kind: str) -> None:
    paths = write(tmp_path, kind)
    reader, note = find_depth_reader(paths, TOLD.get(kind, "auto"))
    assert ("as told" if kind in TOLD else "found by looking") in note
    for number, path in enumerate(paths):
        truth = make_room(number).raw
        found = reader.metres(path)
        assert found.dtype == np.float32
        assert ((found == 0) == (truth == 0)).all()
        np.testing.assert_allclose(found, truth, atol=STEPS.get(kind, 0.0001) + 1e-6)


@pytest.mark.parametrize("kind", [*STEPS, *TOLD])
def test_channels_mean_the_same_in_every_encoding(tmp_path: Path, kind: str) -> None:
    paths = write(tmp_path, kind)
    reader, _ = find_depth_reader(paths, TOLD.get(kind, "auto"))
    for number, path in enumerate(paths):
        channel = reader.channel(path)
        assert (channel.shape, channel.dtype) == ((1, 48, 64), torch.uint8)
        truth = encode_depth(make_room(number).raw, "8-bit")
        # Values rounded twice may differ by one step.
        assert np.abs(channel[0].numpy().astype(int) - truth).max() <= (kind not in ("8-bit", "grey", "npy", "tiff"))


def test_8_bit_files_are_read_as_they_are(tmp_path: Path) -> None:
    values = np.arange(256, dtype=np.uint8).reshape(16, 16)
    Image.fromarray(values).save(tmp_path / "a.png")
    assert np.array_equal(read_depth(tmp_path / "a.png")[0].numpy(), values)


@given(st.floats(0.05, 9.99))
def test_a_channel_is_within_half_a_step(metres: float) -> None:
    code = int(to_channel(np.array([[metres]]))[0, 0])
    assert abs((code + 0.5) / 25.5 - metres) <= 0.5 / 25.5 + 1e-9


def test_no_depth_is_0_and_only_that() -> None:
    metres = np.array([[0, -1, np.nan, np.inf, 1e-6, 25.0]])
    assert to_channel(metres).tolist() == [[0, 0, 0, 0, 1, 255]]


def test_stretched_depth_is_a_channel_but_not_metres(tmp_path: Path) -> None:
    paths = write(tmp_path, "relative")
    reader, note = find_depth_reader(paths)
    assert reader.unit == "relative"
    assert "not in metres" in note
    assert (int(reader.channel(paths[0]).min()), int(reader.channel(paths[0]).max())) == (0, 255)
    with pytest.raises(DataError, match=r"0.png: depth is stretched .* HHA needs metres; .*depth_unit = 'ten_metres'"):
        reader.metres(paths[0])


def test_files_that_cannot_be_read_do_not_hinder_the_others(tmp_path: Path) -> None:
    paths = write(tmp_path, "mm")
    paths[0].write_bytes(b"no picture")
    assert find_depth_reader(paths)[0].unit == "millimetres"
    with pytest.raises(DataError, match=r"0.png: not an image file"):
        find_depth_reader(paths)[0].channel(paths[0])
    with pytest.raises(DataError, match=r"0.png: not an image file"):
        find_depth_reader(paths[:1])
    with pytest.raises(DataError, match="does not exist"):
        read_depth(tmp_path / "none.png")


def test_a_file_of_another_type_than_the_others(tmp_path: Path) -> None:
    paths = write(tmp_path, "mm")
    Image.fromarray(encode_depth(make_room(0).raw, "8-bit")).save(paths[1])
    with pytest.raises(DataError, match="1.png: has 8-bit values, other depth files 16-bit ones"):
        find_depth_reader(paths)[0].metres(paths[1])


@pytest.mark.parametrize("kind", TOLD)
def test_an_unclear_unit_names_the_argument(tmp_path: Path, kind: str) -> None:
    with pytest.raises(
        DataError, match=r"cannot be found out \(values up to .*set depth_unit to one of: millimetres, te"
    ):
        find_depth_reader(write(tmp_path, kind))


@pytest.mark.parametrize(
    ("kind", "unit", "message"),
    [
        (
            "8-bit",
            "millimetres",
            "8-bit values, but depth_unit is 'millimetres'; allowed for them: ten_metres, relative",
        ),
        ("mm", "metres", "16-bit values, but depth_unit is 'metres'; allowed for them: millimetres, tenth"),
        ("npy", "ten_metres", "floating-point values, but depth_unit is 'ten_metres'; allowed for them: metres, milli"),
    ],
)
def test_a_unit_that_does_not_fit(tmp_path: Path, kind: str, unit: DepthUnit, message: str) -> None:
    with pytest.raises(DataError, match=message):
        find_depth_reader(write(tmp_path, kind), unit)


def test_what_is_no_depth_image(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 256, (8, 8, 3), np.uint8)).save(tmp_path / "colours.png")
    palette = Image.fromarray(rng.integers(0, 256, (8, 8), np.uint8), "L").convert("P")
    palette.putpalette(rng.integers(0, 256, 768).tolist())
    palette.save(tmp_path / "palette.png")
    np.save(tmp_path / "three.npy", np.ones((3, 8, 8)))
    np.save(tmp_path / "words.npy", np.array(["a"]))
    Image.fromarray(np.zeros((8, 8), np.uint16)).save(tmp_path / "empty.png")
    for name, message in {
        "colours.png": "it has colours",
        "palette.png": "it has colours",
        "three.npy": r"shape \(3, 8, 8\)",
        "words.npy": "values of type <U1",
        "empty.png": "no value above 0",
    }.items():
        with pytest.raises(DataError, match=message):
            read_depth(tmp_path / name)
