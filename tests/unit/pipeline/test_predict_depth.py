"""Depth files of a prediction mean what those of the training meant."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from hs3seg.config import CityscapesData, DataConfig, DigitsData, NYUv2Data, config_from_dict
from hs3seg.data.cityscapes import read_disparity
from hs3seg.data.depth import find_depth_reader
from hs3seg.errors import DataError
from hs3seg.pipeline.predict import predict_step, step
from hs3seg.pipeline.predict.depth import DepthFolder
from hs3seg.pipeline.predict.inputs import Item
from hs3seg.taxonomy import Taxonomy

CITYSCAPES = CityscapesData(root="x", depth="disparity")
SIZE = (6, 8)


def save(path: Path, values: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".npy":
        np.save(path, values)
    else:
        Image.fromarray(values).save(path)
    return path


def depth_of(lowest: int, highest: int, kind: type = np.uint16) -> np.ndarray:
    return np.linspace(lowest, highest, SIZE[0] * SIZE[1]).reshape(SIZE).astype(kind)


def items(root: Path, *names: str) -> list[Item]:
    return [Item(root / f"{name}.jpg", root, name) for name in names]


def opened(root: Path, data: DataConfig, *names: str, channels: int = 4) -> tuple[DepthFolder, list[Item]]:
    images = items(root / "rgb", *names)
    return DepthFolder(root / "depth", channels, data, images), images


def nyuv2(unit: str = "auto") -> NYUv2Data:
    return NYUv2Data(root="x", depth="raw", depth_unit=unit)  # type: ignore[arg-type]


@pytest.mark.parametrize("highest", [9000, 30000])  # of the first, millimetres would make sense, too
def test_cityscapes_reads_disparities(tmp_path: Path, highest: int) -> None:
    path = save(tmp_path / "depth" / "a.png", depth_of(500, highest))
    folder, (item,) = opened(tmp_path, CITYSCAPES, "a")
    found, channel = folder.read(item)
    assert found == path
    assert torch.equal(channel, read_disparity(path))
    assert channel.float().std() > 5


def test_channels_of_eight_bits_are_taken_as_they_are(tmp_path: Path) -> None:
    values = depth_of(0, 255, np.uint8)
    save(tmp_path / "depth" / "a.png", values)
    for data in (CITYSCAPES, nyuv2(), DigitsData(root="")):
        folder, (item,) = opened(tmp_path, data, "a")
        assert folder.read(item)[1].tolist() == [values.tolist()]


@pytest.mark.parametrize("unit", ["millimetres", "tenth_millimetres", "ten_metres", "relative"])
def test_nyuv2_takes_the_unit_of_the_training(tmp_path: Path, unit: str) -> None:
    path = save(tmp_path / "depth" / "a.png", depth_of(400, 9000))
    folder, (item,) = opened(tmp_path, nyuv2(unit), "a")
    expected = find_depth_reader([path], unit)[0].channel(path)  # type: ignore[arg-type]
    assert torch.equal(folder.read(item)[1], expected)


def test_the_unit_is_found_out_once_for_all(tmp_path: Path) -> None:
    # Alone, the near frame would leave its unit open: its median is below 300.
    save(tmp_path / "depth" / "a.png", depth_of(1, 200))
    for name in "bcd":
        save(tmp_path / "depth" / f"{name}.png", depth_of(400, 9000))
    folder, (first, *_) = opened(tmp_path, nyuv2(), *"abcd")
    assert "millimetres (found by looking at the files)" in folder.note
    assert folder.read(first)[1].max() == 5  # 0.2 m * 25.5 - 0.5, rounded
    with pytest.raises(DataError, match=r"16-bit values of a unit that cannot be found out.*set depth_unit"):
        opened(tmp_path, nyuv2(), "a")
    with pytest.raises(DataError, match=r"16-bit values, but depth_unit is 'metres'"):
        opened(tmp_path, nyuv2("metres"), *"abcd")


def test_units_that_nothing_tells_are_refused(tmp_path: Path) -> None:
    save(tmp_path / "depth" / "a.png", depth_of(400, 9000))
    save(tmp_path / "depth" / "b.npy", depth_of(1, 9, np.float32))
    folder, (a, b) = opened(tmp_path, DigitsData(root=""), "a", "b")
    with pytest.raises(DataError, match=r"a.png: has 16-bit values, .*data.kind = 'digits'; allowed: 8 bits"):
        folder.read(a)
    folder, (a, b) = opened(tmp_path, CITYSCAPES, "a", "b")
    with pytest.raises(DataError, match=r"b.npy: has floating-point values.*allowed: the 16 bits of a disparity, or 8"):
        folder.read(b)


@pytest.mark.parametrize("name", ["a.PNG", "a.Tiff", "a.npy", "a.NPY"])
def test_suffixes_in_any_letters(tmp_path: Path, name: str) -> None:
    values = depth_of(400, 9000)
    path = tmp_path / "depth" / name
    save(path.with_name(name.lower()), values).rename(path)
    folder, (item,) = opened(tmp_path, nyuv2(), "a")
    assert folder.read(item)[0] == path


def test_files_lie_in_the_same_place_or_in_the_folder_itself(tmp_path: Path) -> None:
    values = depth_of(0, 255, np.uint8)
    for name in ("x/a.png", "a.png", "b.png", "c.png", "c.npy", "d.txt"):
        if name.endswith("txt"):
            (tmp_path / "depth" / name).write_text("x")
        else:
            save(tmp_path / "depth" / name, values)
    folder, (a, b, c, d) = opened(tmp_path, nyuv2(), "x/a", "x/b", "c", "x/d")
    assert [folder.read(item)[0] for item in (a, b)] == [tmp_path / "depth" / name for name in ("x/a.png", "b.png")]
    with pytest.raises(DataError, match=r"c.npy' and 'c.png' both fit '.*c.jpg'"):
        folder.read(c)
    with pytest.raises(DataError, match=r"d.jpg' has no depth '.*depth/x/d\.\*'"):
        folder.read(d)
    nothing, (only,) = opened(tmp_path / "empty", nyuv2(), "a")
    with pytest.raises(DataError, match="has no depth"):
        nothing.read(only)


def test_hha_pictures_stay_pictures(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (*SIZE, 3)).astype(np.uint8)
    save(tmp_path / "depth" / "a.PNG", pixels)
    save(tmp_path / "depth" / "a.npy", depth_of(1, 9, np.float32))  # no picture
    folder, (item,) = opened(tmp_path, NYUv2Data(root="x", depth="hha"), "a", channels=6)
    assert folder.read(item)[1].permute(1, 2, 0).tolist() == pixels.tolist()
    assert folder.note == ""


def test_the_step_passes_the_data_of_the_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image = save(tmp_path / "rgb" / "a.png", np.zeros((*SIZE, 3), np.uint8))
    depth = save(tmp_path / "depth" / "a.png", depth_of(500, 9000))
    values = {"name": "x", "data": {"kind": "cityscapes", "root": "x", "depth": "disparity"}}
    config = config_from_dict({**values, "augment": {"crop": [8, 8]}, "train": {"precision": "float32"}}, "test")
    trained = SimpleNamespace(taxonomy=Taxonomy.from_names(["a", "b"]), mean=torch.zeros(4), config=config)
    seen: list[torch.Tensor] = []

    class Predictor:
        def __init__(self, *arguments: Any) -> None:
            self.depth = next(a for a in arguments if isinstance(a, DepthFolder))

        def run(self, own: list[Item], _: object) -> None:
            seen.extend(self.depth.read(item)[1] for item in own)

    monkeypatch.setattr(step, "load_trained", lambda *_: trained)
    monkeypatch.setattr(step, "Segmenter", lambda *_, **__: None)
    monkeypatch.setattr(step, "Predictor", Predictor)
    predict_step(tmp_path / "weights", [image], tmp_path / "out", depth=tmp_path / "depth")
    assert torch.equal(seen[0], read_disparity(depth))
