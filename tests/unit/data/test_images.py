from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hs3seg.data import read_image, read_mask
from hs3seg.errors import DataError
from hs3seg.taxonomy import Taxonomy

TAXONOMY = Taxonomy(("road", "car", "sky"), ((128, 64, 128), (0, 0, 142), (70, 130, 180)))
IDS = np.array([[0, 1, 2], [255, 2, 0]], np.uint8)


def save(path: Path, array: np.ndarray, **options: object) -> Path:
    Image.fromarray(array).save(path, **options)
    return path


def test_index_masks_of_8_and_16_bit(tmp_path: Path) -> None:
    for name, array in {"8.png": IDS, "16.png": IDS.astype(np.uint16), "t.tif": IDS}.items():
        assert read_mask(save(tmp_path / name, array), TAXONOMY).tolist() == IDS.tolist()


def test_palette_masks_count_by_index(tmp_path: Path) -> None:
    image = Image.fromarray(IDS, mode="P")
    image.putpalette([9, 9, 9, 8, 8, 8, 7, 7, 7] + [0] * 759)
    image.save(tmp_path / "p.png")
    assert read_mask(tmp_path / "p.png", TAXONOMY).tolist() == IDS.tolist()


def test_colour_masks_with_and_without_alpha(tmp_path: Path) -> None:
    table = np.array([*TAXONOMY.colours, (0, 0, 0)], np.uint8)
    colours = table[np.where(IDS == 255, 3, IDS)]
    assert read_mask(save(tmp_path / "c.png", colours), TAXONOMY).tolist() == IDS.tolist()
    with_alpha = np.dstack([colours, np.full(IDS.shape, 255, np.uint8)])
    assert read_mask(save(tmp_path / "a.png", with_alpha), TAXONOMY).tolist() == IDS.tolist()


def test_black_can_be_a_class(tmp_path: Path) -> None:
    taxonomy = Taxonomy(("void", "car"), ((0, 0, 0), (0, 0, 142)))
    path = save(tmp_path / "c.png", np.zeros((2, 2, 3), np.uint8))
    assert read_mask(path, taxonomy).tolist() == [[0, 0], [0, 0]]


def test_extra_ignore_ids(tmp_path: Path) -> None:
    path = save(tmp_path / "m.png", np.array([[0, 11]], np.uint8))
    assert read_mask(path, TAXONOMY, ignore_ids=(11,)).tolist() == [[0, 255]]


def test_an_id_outside_the_taxonomy_is_named_with_its_place(tmp_path: Path) -> None:
    wrong = IDS.copy()
    wrong[1, 2] = 7
    path = save(tmp_path / "m.png", wrong)
    with pytest.raises(DataError, match=r"m.png: label 7 at x=2, y=1 \(1 such pixels\).*0..2.*255"):
        read_mask(path, TAXONOMY)


def test_an_unknown_colour_is_named_with_its_place_and_nearest_class(tmp_path: Path) -> None:
    colours = np.full((4, 5, 3), TAXONOMY.colours[0], np.uint8)
    colours[2, 3] = (1, 2, 140)
    path = save(tmp_path / "m.png", colours)
    with pytest.raises(
        DataError, match=r"colour \(1, 2, 140\) at x=3, y=2 \(1 such pixels\).*nearest: 'car' \(0, 0, 142\)"
    ):
        read_mask(path, TAXONOMY)


def test_encoding_must_fit_the_file(tmp_path: Path) -> None:
    grey, colour = save(tmp_path / "g.png", IDS), save(tmp_path / "c.png", np.zeros((2, 2, 3), np.uint8))
    with pytest.raises(DataError, match="data.encoding is 'rgb'"):
        read_mask(grey, TAXONOMY, "rgb")
    with pytest.raises(DataError, match="3 channels"):
        read_mask(colour, TAXONOMY, "index")


def test_images_become_rgb(tmp_path: Path) -> None:
    for name, array in {
        "grey.png": np.full((3, 4), 7, np.uint8),
        "alpha.png": np.full((3, 4, 4), 7, np.uint8),
        "rgb.webp": np.full((3, 4, 3), 7, np.uint8),
    }.items():
        options = {"lossless": True} if name.endswith("webp") else {}
        pixels = read_image(save(tmp_path / name, array, **options))
        assert pixels.shape == (3, 3, 4)
        assert (pixels == 7).all()


def test_broken_files_are_named(tmp_path: Path) -> None:
    whole = save(tmp_path / "whole.png", np.random.default_rng(0).integers(0, 255, (60, 60, 3)).astype(np.uint8))
    (tmp_path / "half.png").write_bytes(whole.read_bytes()[:3000])
    (tmp_path / "text.png").write_text("no image")
    for name, message in {"half.png": "truncated", "text.png": "not an image", "none.png": "does not exist"}.items():
        with pytest.raises(DataError, match=message) as error:
            read_image(tmp_path / name)
        assert name in str(error.value)


def test_one_bit_masks_hold_classes_0_and_1(tmp_path: Path) -> None:
    path = save(tmp_path / "m.png", np.array([[False, True], [True, False]]))
    assert Image.open(path).mode == "1"
    assert read_mask(path, TAXONOMY).tolist() == [[0, 1], [1, 0]]


def test_the_alpha_of_a_mask_does_not_matter(tmp_path: Path) -> None:
    ids = Image.fromarray(np.array([[0, 1, 2]], np.uint8))
    alpha = Image.fromarray(np.array([[0, 9, 255]], np.uint8))
    Image.merge("LA", (ids, alpha)).save(tmp_path / "la.png")
    ids.convert("PA").save(tmp_path / "pa.tif")
    for name, mode in {"la.png": "LA", "pa.tif": "PA"}.items():
        assert Image.open(tmp_path / name).mode == mode
        assert read_mask(tmp_path / name, TAXONOMY).tolist() == [[0, 1, 2]]


def test_16_bit_grey_images_are_scaled_not_clipped(tmp_path: Path) -> None:
    path = save(tmp_path / "i.png", np.array([[0, 257, 25700, 65535]], np.uint16))
    assert read_image(path).tolist() == [[[0, 1, 100, 255]]] * 3


def test_floating_point_files_are_refused(tmp_path: Path) -> None:
    path = save(tmp_path / "f.tif", np.array([[0.6, 1.4]], np.float32))
    with pytest.raises(DataError, match=r"f.tif: holds floating-point values.*integers"):
        read_mask(path, TAXONOMY)
    with pytest.raises(DataError, match=r"f.tif: has 32-bit values"):
        read_image(path)


def test_two_classes_of_one_colour_cannot_be_told_apart(tmp_path: Path) -> None:
    taxonomy = Taxonomy(("road", "car", "van"), ((1, 2, 3), (0, 0, 142), (0, 0, 142)))
    path = save(tmp_path / "c.png", np.full((2, 2, 3), (0, 0, 142), np.uint8))
    with pytest.raises(DataError, match=r"classes 'car' and 'van' have one colour, \(0, 0, 142\)"):
        read_mask(path, taxonomy)
