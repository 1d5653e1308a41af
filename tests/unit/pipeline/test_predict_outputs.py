from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from hs3seg.errors import ConfigError
from hs3seg.pipeline.predict.outputs import OUTPUTS, Outputs
from hs3seg.taxonomy import Taxonomy

TAXONOMY = Taxonomy(("road", "car", "sky"), ((128, 64, 128), (0, 0, 142), (70, 130, 181)))
IDS = np.random.default_rng(1).integers(0, 3, (5, 7)).astype(np.uint8)
PIXELS = torch.from_numpy(np.random.default_rng(2).integers(0, 256, (3, 5, 7), np.uint8))


def scores(ids: np.ndarray = IDS, classes: int = 3) -> torch.Tensor:
    """Logits (K, H, W) that are largest at the ids."""
    noise = np.random.default_rng(3).normal(size=(classes, *ids.shape)).astype(np.float32)
    np.put_along_axis(noise, ids[None].astype(int), 5, axis=0)
    return torch.from_numpy(noise)


def save(folder: Path, output: str, **options: object) -> Outputs:
    outputs = Outputs(folder, output, TAXONOMY, **options)
    values = scores()
    strips = [(0, values[:, :2]), (2, values[:, 2:3]), (3, values[:, 3:])]
    assert (outputs.save("deep/a", PIXELS, iter(strips), outputs.kinds) == IDS).all()
    assert sorted(folder.rglob("*.*")) == sorted(outputs.results("deep/a", False))
    return outputs


def opened(path: Path, mode: str) -> np.ndarray:
    with Image.open(path) as picture:
        assert picture.mode == mode
        return np.array(picture)


def test_palette_holds_ids_and_shows_colours(tmp_path: Path) -> None:
    save(tmp_path, "palette")
    assert (opened(tmp_path / "deep" / "a.png", "P") == IDS).all()
    with Image.open(tmp_path / "deep" / "a.png") as picture:
        assert (np.array(picture.convert("RGB")) == np.array(TAXONOMY.colours)[IDS]).all()


def test_index_of_8_and_16_bits_and_with_other_ids(tmp_path: Path) -> None:
    save(tmp_path / "1", "index")
    assert (opened(tmp_path / "1" / "deep" / "a-index.png", "L") == IDS).all()
    for number, (ids, mode) in enumerate({(7, 26, 23): "L", (7, 300, 65535): "I;16"}.items(), start=2):
        save(tmp_path / str(number), "index", ids=ids)
        assert (opened(tmp_path / str(number) / "deep" / "a-index.png", mode) == np.array(ids)[IDS]).all()


def test_colour_and_overlay(tmp_path: Path) -> None:
    save(tmp_path, "colour,overlay")
    colours = np.array(TAXONOMY.colours)[IDS]
    assert (opened(tmp_path / "deep" / "a-colour.png", "RGB") == colours).all()
    below = PIXELS.permute(1, 2, 0).numpy().astype(int)
    assert (opened(tmp_path / "deep" / "a-overlay.png", "RGB") == (colours + below) // 2).all()


def test_probabilities_and_confidence(tmp_path: Path) -> None:
    save(tmp_path, "probability")
    expected = scores().softmax(0).numpy()
    with np.load(tmp_path / "deep" / "a-probability.npz") as file:
        assert file["names"].tolist() == list(TAXONOMY.names)
        assert file["probabilities"].dtype == np.float16
        np.testing.assert_array_equal(file["probabilities"], expected.astype(np.float16))
    confidence = opened(tmp_path / "deep" / "a-confidence.png", "L")
    np.testing.assert_allclose(confidence, 255 * expected.max(0), atol=0.5)


def test_a_prediction_that_fails_leaves_nothing_half(tmp_path: Path) -> None:
    def strips():  # type: ignore[no-untyped-def]
        yield 0, scores()[:, :2]
        raise ZeroDivisionError

    outputs = Outputs(tmp_path, OUTPUTS, TAXONOMY)
    with pytest.raises(ZeroDivisionError):
        outputs.save("a", PIXELS, strips(), outputs.kinds)
    assert list(tmp_path.iterdir()) == []


def test_many_classes_have_16_bits(tmp_path: Path) -> None:
    many = Taxonomy.from_names([f"class {i}" for i in range(300)], ignore_index=65535)
    ids = np.array([[299, 0, 256]], np.uint16)
    outputs = Outputs(tmp_path, ["index"], many)
    outputs.save("a", PIXELS[:, :1, :3], [(0, scores(ids, 300))], outputs.kinds)
    assert (opened(tmp_path / "a-index.png", "I;16") == ids).all()
    with pytest.raises(ConfigError, match="'palette' holds 256 classes, there are 300; take 'index'"):
        Outputs(tmp_path, "palette", many)


def test_names_of_results(tmp_path: Path) -> None:
    both = Outputs(tmp_path, "both", TAXONOMY)
    assert both.kinds == ("palette", "overlay")
    assert both.results("a", False) == [tmp_path / "a.png", tmp_path / "a-overlay.png"]
    assert both.results("a", True) == [tmp_path / "a", tmp_path / "a-overlay.mp4"]
    assert both.frame_paths("a", 12) == [tmp_path / "a" / "000012.png"]
    assert Outputs(tmp_path, ("colour", "colour"), TAXONOMY).results("a", True) == [tmp_path / "a-colour.mp4"]


@pytest.mark.parametrize(
    ("output", "ids", "message"),
    [
        ("pallete", None, "unknown output 'pallete'; nearest: 'palette'"),
        ((), None, "no output is chosen"),
        ("index", (1, 2), "2 ids from 1 to 2 for 3 classes"),
        ("index", (0, 1, 65536), "from 0 to 65536 for 3 classes; give one id of 0..65535 for each class"),
        ("index", (0, 1, -1), "from -1"),
    ],
)
def test_outputs_that_cannot_be(output: str, ids: tuple[int, ...] | None, message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        Outputs(tmp_path, output, TAXONOMY, ids)
