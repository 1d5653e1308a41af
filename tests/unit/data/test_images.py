import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from hs3seg.data import read_image, read_mask
from hs3seg.data.images import raw_mask, turned
from hs3seg.data.pairs import read_pair
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


def png(path: Path, rows: list[list[int]], bits: int, kind: int, size: tuple[int, int] | None = None) -> Path:
    """A PNG by its specification, since Pillow does not write all kinds; rows hold samples, `size` may lie."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    channels = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[kind]
    width, height = size or (len(rows[0]) // channels, len(rows))
    lines = b""
    for row in rows:
        text = "".join(f"{value:0{bits}b}" for value in row)
        text += "0" * (-len(text) % 8)
        lines += b"\0" + bytes(int(text[i : i + 8], 2) for i in range(0, len(text), 8))
    content = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, kind, 0, 0, 0))
    if kind == 3:
        content += chunk(b"PLTE", bytes(range(3 * 2**bits)))
    content += chunk(b"IDAT", zlib.compress(lines)) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + content)
    return path


@pytest.mark.parametrize(("bits", "kind"), [(1, 0), (2, 0), (4, 0), (8, 0), (16, 0), (1, 3), (2, 3), (4, 3), (8, 4)])
def test_ids_of_every_bit_depth_come_as_they_are(tmp_path: Path, bits: int, kind: int) -> None:
    ids = [0, 1, 1] if bits == 1 else [0, 1, 2]
    samples = [value for i in ids for value in (i, 200)] if kind == 4 else ids
    assert read_mask(png(tmp_path / "m.png", [samples], bits, kind), TAXONOMY).tolist() == [ids]


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int32])
def test_tiff_masks_of_every_type(tmp_path: Path, dtype: type) -> None:
    path = save(tmp_path / "m.tif", IDS.astype(dtype))
    assert read_mask(path, TAXONOMY).tolist() == IDS.tolist()


@pytest.mark.parametrize(("dtype", "name"), [(np.int32, "m.tif"), (np.uint16, "m.png"), (np.uint8, "m.png")])
def test_minus_one_means_ignore_with_and_without_signs(tmp_path: Path, dtype: type, name: str) -> None:
    path = save(tmp_path / name, np.array([[0, -1, 2]]).astype(dtype))
    assert read_mask(path, TAXONOMY, ignore_ids=(-1,)).tolist() == [[0, 255, 2]]
    if dtype is not np.uint8:
        with pytest.raises(DataError, match=r"label (-1|65535) at x=1, y=0"):
            read_mask(path, TAXONOMY)


def test_16_bits_and_alpha_would_lose_the_ids_and_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"a.png: has 16 bits and alpha"):
        read_mask(png(tmp_path / "a.png", [[5, 65535]], 16, 4), TAXONOMY)
    with pytest.raises(DataError, match=r"c.png: has colours of 16 bits, all below 256"):
        read_mask(png(tmp_path / "c.png", [[128, 64, 128]], 16, 2), TAXONOMY)
    road = [257 * value for value in TAXONOMY.colours[0]]
    assert read_mask(png(tmp_path / "w.png", [road], 16, 2), TAXONOMY).tolist() == [[0]]


def test_ids_that_the_files_have_for_the_classes(tmp_path: Path) -> None:
    path = save(tmp_path / "m.png", np.array([[255, 0, 38], [7, 0, 255]], np.uint8))
    expected = [[2, 0, 1], [255, 0, 2]]
    assert read_mask(path, TAXONOMY, ids=(0, 38, 255), ignore_ids=(7,)).tolist() == expected
    with pytest.raises(DataError, match=r"label 7 at x=0, y=1 \(1 such pixels\).*allowed: 0, 38, 255 \(data.ids\)"):
        read_mask(path, TAXONOMY, ids=(0, 38, 255))
    with pytest.raises(DataError, match=r"3 ids, 2 of them different"):
        read_mask(path, TAXONOMY, ids=(0, 38, 38))
    high = save(tmp_path / "h.tif", np.array([[70000, -3, 2]], np.int32))
    assert read_mask(high, TAXONOMY, ids=(70000, 2, -3)).tolist() == [[0, 2, 1]]


def test_the_colours_of_a_palette(tmp_path: Path) -> None:
    image = Image.fromarray(np.array([[0, 1, 2, 3]], np.uint8), mode="P")
    image.putpalette([*TAXONOMY.colours[2], *TAXONOMY.colours[0], *TAXONOMY.colours[1], 0, 0, 0])
    image.save(tmp_path / "p.png")
    assert read_mask(tmp_path / "p.png", TAXONOMY, "palette").tolist() == [[2, 0, 1, 255]]
    with pytest.raises(DataError, match=r"g.png: has no palette \(mode L\)"):
        read_mask(save(tmp_path / "g.png", IDS), TAXONOMY, "palette")


def test_colours_that_mean_ignore(tmp_path: Path) -> None:
    path = save(tmp_path / "c.png", np.array([[TAXONOMY.colours[1], (224, 224, 192)]], np.uint8))
    assert read_mask(path, TAXONOMY, ignore_colours=((224, 224, 192),)).tolist() == [[1, 255]]


def turned_by(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


@pytest.mark.parametrize("orientation", range(1, 9))
def test_turning_is_what_pillow_does(orientation: int) -> None:
    stored = np.arange(24, dtype=np.uint8).reshape(4, 6)
    image = Image.fromarray(stored)
    image.getexif()[0x0112] = orientation
    upright = np.array(ImageOps.exif_transpose(image))
    assert turned(torch.from_numpy(stored), orientation).tolist() == upright.tolist()


@pytest.mark.parametrize("suffix", [".png", ".tif", ".webp"])
@pytest.mark.parametrize("orientation", [3, 6])
def test_images_are_upright_if_asked(tmp_path: Path, orientation: int, suffix: str) -> None:
    stored = np.arange(72, dtype=np.uint8).reshape(4, 6, 3)
    path = tmp_path / f"i{suffix}"
    options = {"lossless": True} if suffix == ".webp" else {}
    Image.fromarray(stored).save(path, exif=turned_by(orientation), **options)
    expected = turned(torch.from_numpy(stored).permute(2, 0, 1), orientation)
    assert torch.equal(read_image(path, upright=True), expected)
    if suffix != ".tif":  # which Pillow always turns
        assert read_image(path).permute(1, 2, 0).tolist() == stored.tolist()


def pair_of_exif(tmp_path: Path, mask: np.ndarray, own: int = 1, orientation: int = 6) -> Callable[..., object]:
    """Reads an image whose red channel is its mask's classes as stored, and a mask that may be turned."""
    height, width = (mask.shape[::-1] if orientation >= 5 and own == 0 else mask.shape)[:2]
    stored = np.arange(height * width, dtype=np.uint8).reshape(height, width) % 3
    Image.fromarray(np.dstack([stored] * 3)).save(tmp_path / "i.png", exif=turned_by(orientation))
    drawn = turned(torch.from_numpy(stored), orientation).numpy() if own == 0 else stored
    Image.fromarray(drawn).save(tmp_path / "m.png", exif=turned_by(max(1, own)))
    return lambda **options: read_pair(tmp_path / "i.png", tmp_path / "m.png", TAXONOMY, **options)


@pytest.mark.parametrize("own", [0, 1, 6])  # 0: drawn on the picture as shown
def test_image_and_mask_are_turned_alike(tmp_path: Path, own: int) -> None:
    sample = pair_of_exif(tmp_path, np.zeros((4, 6)), own)()
    assert sample.image.shape[-2:] == ((4, 6) if own == 0 else (6, 4))
    assert torch.equal(sample.image[0].long(), sample.mask.long())


@pytest.mark.parametrize(("shape", "orientation"), [((4, 6), 3), ((5, 5), 6)])
def test_an_orientation_that_sizes_do_not_explain_is_to_be_explained(
    tmp_path: Path, shape: tuple[int, int], orientation: int
) -> None:
    for own, said in ((0, "image"), (1, "both")):
        read = pair_of_exif(tmp_path, np.zeros(shape), own, orientation)
        with pytest.raises(DataError, match=rf"i.png: is turned by its EXIF orientation {orientation}.*data.exif"):
            read()
        sample = read(exif=said)
        assert torch.equal(sample.image[0].long(), sample.mask.long())


def test_a_decompression_bomb_is_refused_with_its_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = png(tmp_path / "bomb.png", [[0, 0, 0]], 8, 2, size=(60000, 50000))
    assert path.stat().st_size < 100
    for read in (read_image, raw_mask):
        with pytest.raises(DataError, match=r"60000x50000 pixels = 3000 megapixels; at most 256.*HS3_MAX_MEGAPIXELS"):
            read(path)
    before = Image.MAX_IMAGE_PIXELS
    small = save(tmp_path / "s.png", np.zeros((10, 101, 3), np.uint8))
    monkeypatch.setenv("HS3_MAX_MEGAPIXELS", "0.001")
    with pytest.raises(DataError, match=r"s.png: is 101x10 pixels"):
        read_image(small)
    monkeypatch.setenv("HS3_MAX_MEGAPIXELS", "0.00101")
    assert read_image(small).shape == (3, 10, 101)
    assert before == Image.MAX_IMAGE_PIXELS
    for wrong in ("many", "-1", "nan", "inf"):
        monkeypatch.setenv("HS3_MAX_MEGAPIXELS", wrong)
        with pytest.raises(DataError, match=rf"HS3_MAX_MEGAPIXELS is '{wrong}'"):
            read_image(small)


def test_pillows_own_limit_and_its_warning_do_not_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recwarn: pytest.WarningsRecorder
) -> None:
    path = save(tmp_path / "s.png", np.zeros((10, 30, 3), np.uint8))
    for limit in (100, 200):  # by which Pillow refuses, or warns
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
        assert read_image(path).shape == (3, 10, 30)
    assert not recwarn.list


def test_a_file_is_only_opened_as_a_picture(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n")
    with pytest.raises(DataError, match="not an image file"):
        read_image(tmp_path / "a.png")


def test_names_with_spaces_and_other_letters(tmp_path: Path) -> None:
    for name in ("two words.png", "straße 東京.png", "a'b\"c.png"):
        assert read_mask(save(tmp_path / name, IDS), TAXONOMY).tolist() == IDS.tolist()
