"""Predictions on disk find their samples, also where stems are equal in several folders."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import tv_tensors

from hs3seg.data.predictions import score_folder
from hs3seg.data.sample import Sample
from hs3seg.errors import DataError
from hs3seg.pipeline.predict.inputs import find_items
from hs3seg.taxonomy import Taxonomy

NAMES = ("images/a/0001", "images/b/0001", "images/b/0002")


class Named:
    """Samples of these names; sample i has the class i % 3 everywhere."""

    taxonomy = Taxonomy.from_names(("x", "y", "z"))
    split = "val"

    def __init__(self, names: Sequence[str] = NAMES) -> None:
        self.names = names

    def __len__(self) -> int:
        return len(self.names)

    def files(self, index: int) -> tuple[str, ...]:
        return (self.names[index],)

    def read(self, index: int) -> Sample:
        labels = torch.full((4, 6), index % 3, dtype=torch.int64)
        return Sample(tv_tensors.Image(torch.zeros(3, 4, 6)), tv_tensors.Mask(labels), self.names[index])


def put(folder: Path, **classes: int) -> Path:
    for name, value in classes.items():
        path = folder / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((4, 6), value, np.uint8)).save(path)
    return folder


@pytest.mark.parametrize("above", ["", "images/"])
@pytest.mark.parametrize("ending", ["", "-index"])
def test_the_longest_name_that_is_there_counts(tmp_path: Path, above: str, ending: str) -> None:
    names = {f"{above}{name}{ending}": value for value, name in enumerate(("a/0001", "b/0001", "b/0002"))}
    found = score_folder(put(tmp_path, **names, **{"0001": 2, "0002": 0}), Named())
    assert found["miou"] == 1.0
    assert found["num_images"] == 3


def test_names_without_folders_as_before(tmp_path: Path) -> None:
    names = ("images/a/1", "images/b/2")
    assert score_folder(put(tmp_path, **{"1": 0, "2": 1}), Named(names))["pixel_accuracy"] == 1.0


def test_what_prediction_names_of_nested_folders_is_found(tmp_path: Path) -> None:
    for name in NAMES:
        put(tmp_path / "set", **{name: 0})
    out = tmp_path / "out"
    items = find_items([tmp_path / "set" / "images"], out, lambda name, _: [out / f"{name}.png"])
    put(out, **{item.name: value for value, item in enumerate(items)})
    assert score_folder(out, Named())["miou"] == 1.0


def test_one_file_never_scores_two_samples(tmp_path: Path) -> None:
    message = r"samples 'images/a/0001' and 'images/b/0001' would both be scored by '.*0001.png'.*images/b/0001.png'"
    with pytest.raises(DataError, match=message):
        score_folder(put(tmp_path, **{"0001": 0, "0002": 1}), Named())


def test_what_is_missing_is_named_with_all_its_places(tmp_path: Path) -> None:
    put(tmp_path, **{"a/0001": 0, "c/0001": 1})
    with pytest.raises(DataError) as caught:
        score_folder(tmp_path, Named())
    message = str(caught.value)
    assert "sample 'images/b/0001' has no prediction in" in message
    assert "(2 PNG files there)" in message
    for place in ("0001.png", "0001-index.png", "b/0001.png", "images/b/0001-index.png"):
        assert f" {place}" in message
