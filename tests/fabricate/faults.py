"""Faults that can be planted, one at a time, in the clean data set of `tests.fabricate.zoo`.

Those of colour masks write all its masks as RGB PNGs first.

| number | fault | kind | severity |
|---|---|---|---|
| 1 | image whose mask is gone | image-without-mask | error |
| 2 | mask whose image is gone | mask-without-image | error |
| 3 | two masks of one stem | ambiguous-name | error |
| 4 | no mask folder of a split | missing-folder | error |
| 5 | list with a file that does not exist | missing-file | error |
| 6 | list with an entry outside the root | bad-list-line | error |
| 7 | list without a line | empty-split | error |
| 8 | image of 0 bytes | empty-file | error |
| 9 | truncated image | corrupt-file | error |
| 10 | mask that is no image file | corrupt-file | error |
| 11 | mask of half the size | size-mismatch | error |
| 12 | image turned by EXIF after its mask was drawn | exif-rotated | warning |
| 13 | image and mask swapped | swapped-pair | error |
| 14 | copy of the image in place of the mask | mask-is-image | error |
| 15 | mask of floating-point values | float-mask | error |
| 16 | ids scaled to 16 bit | sixteen-bit-mask | error |
| 17 | binary mask of 0 and 255 | binary-255 | error |
| 18 | all ids of a split from 1 instead of 0 | off-by-one | error |
| 19 | ids of a split shifted by one without an unknown id | off-by-one | warning |
| 20 | ids stretched to be told apart by eye | scaled-ids | error |
| 21 | id outside the taxonomy | unknown-id | error |
| 22 | colour that no class has | unknown-colour | error |
| 23 | ids written as grey colours | ids-as-colours | error |
| 24 | index mask saved as JPEG | lossy-mask | error |
| 25 | colour mask saved as JPEG | lossy-mask | error |
| 26 | colour mask saved as JPEG, then as PNG | lossy-mask | error |
| 27 | colour mask with anti-aliased borders | smoothed-mask | error |
| 28 | index mask resized bilinearly | smoothed-mask | warning |
| 29 | mask with transparent parts | mask-with-alpha | warning |
| 30 | palette in another order than the taxonomy | palette-order | warning |
| 31 | TIFF of two pictures | several-frames | warning |
| 32 | mask without a labelled pixel | all-ignored | warning |
| 33 | mask full of single pixels | specks | warning |
| 34 | mask mirrored left to right | mirrored-mask | warning |
| 35 | all masks of a split upside down | mirrored-mask | warning |
| 36 | black image | constant-image | warning |
| 37 | 12 of 16 bits: nearly black | dark-image | warning |
| 38 | copy of a train image in val | duplicate-across-splits | warning |
| 39 | smaller, brighter JPEG of a train image in val | near-duplicate-across-splits | warning |
| 40 | copy of an image in its split | duplicate-image | warning |
| 41 | mask of another image | duplicate-mask | warning |
| 42 | class that never occurs | absent-class | warning |
| 43 | class that only val has | untrained-class | warning |
| 44 | class of a few pixels | rare-class | note |
| 45 | more pixels than are safe to open | image-too-large | error |
"""

import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from hs3seg.taxonomy import Taxonomy
from tests.fabricate.zoo import CLEAN, COLOURS, HEIGHT, NAMES, WIDTH, Zoo, painted, save


@dataclass(frozen=True)
class Fault:
    """A fault and what is to be found.

    Args:
        name: Of the test.
        kind: Of the finding.
        severity: Of the finding.
        plant: Puts it into the zoo and returns the file that is to be named; a split where there is no file.
        also: Kinds above note that the fault brings with it.
    """

    name: str
    kind: str
    severity: str
    plant: Callable[[Zoo], Path | str]
    also: frozenset[str] = frozenset()


A, B = "scene 003", "scene 007"
V = "scene 102"


def _gone_mask(zoo: Zoo) -> Path:
    zoo.mask(A).unlink()
    return zoo.image(A)


def _gone_image(zoo: Zoo) -> Path:
    zoo.image(A).unlink()
    return zoo.mask(A)


def _two_masks(zoo: Zoo) -> Path:
    return save(zoo.labels(A), zoo.mask(A).with_suffix(".tif"))


def _no_folder(zoo: Zoo) -> str:
    (zoo.root / "masks" / "val").rename(zoo.root / "masks" / "validation")
    return "val"


def _list_of_nothing(zoo: Zoo) -> Path:
    rename_without_spaces(zoo)
    zoo.to_lists()
    path = zoo.root / "train.txt"
    path.write_text(path.read_text() + "images/train/none.jpg masks/train/scene003.png\n")
    return zoo.root / "images" / "train" / "none.jpg"


def _list_outside(zoo: Zoo) -> Path:
    rename_without_spaces(zoo)
    zoo.to_lists()
    path = zoo.root / "train.txt"
    path.write_text(path.read_text() + "../other/a.jpg masks/train/scene003.png\n")
    return path


def _empty_list(zoo: Zoo) -> Path:
    path = zoo.root / "val.txt"
    path.write_text("\n")
    return path


def rename_without_spaces(zoo: Zoo) -> None:
    """A list with spaces between image and mask has none in the names."""
    for path in sorted(zoo.root.rglob("scene *")):
        path.rename(path.with_name(path.name.replace(" ", "")))


def _empty_image(zoo: Zoo) -> Path:
    zoo.image(A).write_bytes(b"")
    return zoo.image(A)


def _truncated(zoo: Zoo) -> Path:
    content = zoo.image(A).read_bytes()
    zoo.image(A).write_bytes(content[: len(content) // 2])
    return zoo.image(A)


def _no_picture(zoo: Zoo) -> Path:
    zoo.mask(A).write_bytes(b"this is no picture, whatever its name says")
    return zoo.mask(A)


def _half_size(zoo: Zoo) -> Path:
    return save(zoo.labels(A)[::2, ::2], zoo.mask(A))


def _turned_by_exif(zoo: Zoo) -> Path:
    exif = Image.Exif()
    exif[0x0112] = 6
    return save(zoo.pixels(A), zoo.image(A), exif=exif)


def _swapped(zoo: Zoo) -> Path:
    image, labels = zoo.pixels(A), zoo.labels(A)
    zoo.image(A).unlink()
    save(painted(labels), zoo.image(A).with_suffix(".png"))
    return save(image, zoo.mask(A))


def _copied_image(zoo: Zoo) -> Path:
    return save(zoo.pixels(A), zoo.mask(A))


def _floats(zoo: Zoo) -> Path:
    labels = zoo.labels(A)
    zoo.mask(A).unlink()
    return save(labels.astype(np.float32), zoo.mask(A).with_suffix(".tif"))


def _sixteen_bit(zoo: Zoo) -> Path:
    return save(zoo.labels(A).astype(np.uint16) * 257, zoo.mask(A))


def _binary(zoo: Zoo) -> Path:
    zoo.taxonomy = Taxonomy(NAMES, COLOURS, ignore_index=254)
    for split in CLEAN:
        for name in zoo.names(split):
            labels = zoo.labels(name, split)
            labels[labels == 255] = 254
            save(labels, zoo.mask(name, split))
    return save(((zoo.labels(A) > 1) * 255).astype(np.uint8), zoo.mask(A))


def _from_one(zoo: Zoo) -> Path:
    _shift(zoo, "val", 1)
    return zoo.mask(zoo.names("val")[0], "val")


def _from_one_silently(zoo: Zoo) -> Path:
    # A last class that the shift does not reach: no id is unknown then.
    zoo.taxonomy = Taxonomy((*NAMES, "sky"), (*COLOURS, (120, 170, 230)))
    for name in zoo.names("train"):
        labels = zoo.labels(name)
        labels[2:4] = 5
        save(labels, zoo.mask(name))
    _shift(zoo, "val", 1)
    return zoo.mask(zoo.names("val")[0], "val")


def _shift(zoo: Zoo, split: str, by: int) -> None:
    for name in zoo.names(split):
        labels = zoo.labels(name, split)
        labels[labels != 255] += by
        save(labels, zoo.mask(name, split))


def _stretched(zoo: Zoo) -> Path:
    labels = zoo.labels(A)
    labels[labels == 255] = 0
    return save(labels * 60, zoo.mask(A))


def _unknown_id(zoo: Zoo) -> Path:
    labels = zoo.labels(A)
    labels[40:50, 60:72] = 17
    return save(labels, zoo.mask(A))


def _unknown_colour(zoo: Zoo) -> Path:
    zoo.colour()
    pixels = zoo.labels(A)
    pixels[40:50, 60:72] = (225, 60, 45)  # nearly that of the ball
    return save(pixels, zoo.mask(A))


def _grey_colours(zoo: Zoo) -> Path:
    labels = zoo.labels(A)
    zoo.colour()
    return save(np.repeat(labels[..., None], 3, 2), zoo.mask(A))


def _index_jpeg(zoo: Zoo) -> Path:
    labels = zoo.labels(A)
    zoo.mask(A).unlink()
    return save(labels, zoo.mask(A).with_suffix(".jpg"), quality=75)


def _colour_jpeg(zoo: Zoo) -> Path:
    zoo.colour()
    pixels = zoo.labels(A)
    zoo.mask(A).unlink()
    return save(pixels, zoo.mask(A).with_suffix(".jpg"), quality=85)


def _once_jpeg(zoo: Zoo) -> Path:
    zoo.colour()
    between = save(zoo.labels(A), zoo.root / "between.jpg", quality=60, subsampling=2)
    save(np.array(Image.open(between)), zoo.mask(A))
    between.unlink()
    return zoo.mask(A)


def _anti_aliased(zoo: Zoo) -> Path:
    zoo.colour()
    large = Image.fromarray(zoo.labels(A)).resize((WIDTH * 4 + 7, HEIGHT * 4 + 5), Image.Resampling.NEAREST)
    large.resize((WIDTH, HEIGHT), Image.Resampling.BILINEAR).save(zoo.mask(A))
    return zoo.mask(A)


def _resized_ids(zoo: Zoo) -> Path:
    labels = zoo.labels(A)
    labels[labels == 255] = 1
    large = Image.fromarray(labels).resize((WIDTH * 4 + 7, HEIGHT * 4 + 5), Image.Resampling.NEAREST)
    large.resize((WIDTH, HEIGHT), Image.Resampling.BILINEAR).save(zoo.mask(A))
    return zoo.mask(A)


def _transparent(zoo: Zoo) -> Path:
    zoo.colour()
    alpha = np.full((HEIGHT, WIDTH, 1), 255, np.uint8)
    alpha[50:70, 10:40] = 0
    return save(np.concatenate([zoo.labels(A), alpha], 2), zoo.mask(A))


def _other_palette(zoo: Zoo) -> Path:
    picture = Image.fromarray(zoo.labels(A)).convert("P")
    order = (1, 0, 2, 3, 4)
    picture.putpalette([value for index in order for value in COLOURS[index]] + [0] * (768 - 15))
    picture.putdata(zoo.labels(A).ravel().tolist())
    picture.save(zoo.mask(A))
    return zoo.mask(A)


def _two_frames(zoo: Zoo) -> Path:
    labels = Image.fromarray(zoo.labels(A))
    zoo.mask(A).unlink()
    path = zoo.mask(A).with_suffix(".tif")
    labels.save(path, save_all=True, append_images=[labels])
    return path


def _nothing_labelled(zoo: Zoo) -> Path:
    return save(np.full((HEIGHT, WIDTH), 255, np.uint8), zoo.mask(A))


def _noise(zoo: Zoo) -> Path:
    labels, rng = zoo.labels(A), np.random.default_rng(0)
    hit = rng.random(labels.shape) < 0.03
    return save(np.where(hit, rng.integers(0, 5, labels.shape), labels).astype(np.uint8), zoo.mask(A))


def _mirrored(zoo: Zoo) -> Path:
    return save(zoo.labels(A)[:, ::-1].copy(), zoo.mask(A))


def _all_upside_down(zoo: Zoo) -> str:
    for name in zoo.names("train"):
        save(zoo.labels(name)[::-1].copy(), zoo.mask(name))
    return ""  # any mask of the split


def _black(zoo: Zoo) -> Path:
    return save(np.zeros((HEIGHT, WIDTH, 3), np.uint8), zoo.image(A))


def _dark(zoo: Zoo) -> Path:
    grey = zoo.pixels(A).mean(2).astype(np.uint16) * 16  # 12 bits
    zoo.image(A).unlink()
    return save(grey, zoo.image(A).with_suffix(".png"))


def _leak(zoo: Zoo) -> Path:
    zoo.image(V, "val").write_bytes(zoo.image(A).read_bytes())
    zoo.mask(V, "val").write_bytes(zoo.mask(A).read_bytes())
    return zoo.image(V, "val")


def _leak_in_disguise(zoo: Zoo) -> Path:
    small = Image.fromarray(zoo.pixels(A)).resize((WIDTH // 2, HEIGHT // 2), Image.Resampling.BOX)
    pixels = np.clip(np.asarray(small).astype(np.float64) * 1.1, 0, 255).astype(np.uint8)
    save(zoo.labels(A)[::2, ::2], zoo.mask(V, "val"))
    return save(pixels, zoo.image(V, "val"), quality=75)


def _double(zoo: Zoo) -> Path:
    zoo.image(B).write_bytes(zoo.image(A).read_bytes())
    zoo.mask(B).write_bytes(zoo.mask(A).read_bytes())
    return zoo.image(B)


def _mask_of_another(zoo: Zoo) -> Path:
    zoo.mask(B).write_bytes(zoo.mask(A).read_bytes())
    return zoo.mask(B)


def _absent(zoo: Zoo) -> str:
    zoo.taxonomy = Taxonomy((*NAMES, "water"), (*COLOURS, (0, 0, 90)))
    return "train"


def _only_val(zoo: Zoo) -> str:
    _absent(zoo)
    labels = zoo.labels(V, "val")
    labels[60:70, 20:60] = 5
    save(labels, zoo.mask(V, "val"))
    return "train"


def _few_pixels(zoo: Zoo) -> Path:
    _absent(zoo)
    labels = zoo.labels(A)
    labels[60:62, 20:23] = 5
    return save(labels, zoo.mask(A))


def _bomb(zoo: Zoo) -> Path:
    """A PNG of a few bytes that says it has 60000x60000 pixels."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", 60000, 60000, 8, 2, 0, 0, 0))
    content = b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")
    zoo.image(A).unlink()
    path = zoo.image(A).with_suffix(".png")
    path.write_bytes(content)
    return path


FAULTS = (
    Fault("image without mask", "image-without-mask", "error", _gone_mask),
    Fault("mask without image", "mask-without-image", "error", _gone_image),
    Fault("two masks of one stem", "ambiguous-name", "error", _two_masks),
    Fault("no mask folder", "missing-folder", "error", _no_folder),
    Fault("listed file does not exist", "missing-file", "error", _list_of_nothing),
    Fault("list entry outside the root", "bad-list-line", "error", _list_outside),
    Fault("empty list", "empty-split", "error", _empty_list),
    Fault("empty image", "empty-file", "error", _empty_image),
    Fault("truncated image", "corrupt-file", "error", _truncated),
    Fault("mask that is no picture", "corrupt-file", "error", _no_picture),
    Fault("mask of half the size", "size-mismatch", "error", _half_size),
    Fault("turned by EXIF", "exif-rotated", "warning", _turned_by_exif),
    Fault("swapped", "swapped-pair", "error", _swapped),
    Fault("image in place of the mask", "mask-is-image", "error", _copied_image),
    Fault("floats", "float-mask", "error", _floats),
    Fault("ids scaled to 16 bit", "sixteen-bit-mask", "error", _sixteen_bit),
    Fault("binary 0 and 255", "binary-255", "error", _binary),
    Fault("ids from 1", "off-by-one", "error", _from_one),
    Fault("ids shifted silently", "off-by-one", "warning", _from_one_silently),
    Fault("stretched ids", "scaled-ids", "error", _stretched),
    Fault("unknown id", "unknown-id", "error", _unknown_id),
    Fault("unknown colour", "unknown-colour", "error", _unknown_colour),
    Fault("ids as grey colours", "ids-as-colours", "error", _grey_colours),
    Fault("index mask as JPEG", "lossy-mask", "error", _index_jpeg),
    Fault("colour mask as JPEG", "lossy-mask", "error", _colour_jpeg),
    Fault("colour mask that was JPEG", "lossy-mask", "error", _once_jpeg),
    Fault("anti-aliased colours", "smoothed-mask", "error", _anti_aliased),
    Fault("bilinear ids", "smoothed-mask", "warning", _resized_ids),
    Fault("transparent mask", "mask-with-alpha", "warning", _transparent),
    Fault("palette in another order", "palette-order", "warning", _other_palette),
    Fault("two pictures in a file", "several-frames", "warning", _two_frames),
    Fault("nothing labelled", "all-ignored", "warning", _nothing_labelled),
    Fault("single pixels", "specks", "warning", _noise),
    Fault("mirrored mask", "mirrored-mask", "warning", _mirrored),
    Fault("split upside down", "mirrored-mask", "warning", _all_upside_down),
    Fault("black image", "constant-image", "warning", _black),
    Fault("12 of 16 bits", "dark-image", "warning", _dark),
    Fault("train image in val", "duplicate-across-splits", "warning", _leak),
    Fault("disguised train image in val", "near-duplicate-across-splits", "warning", _leak_in_disguise),
    Fault("image twice", "duplicate-image", "warning", _double),
    Fault("mask of another image", "duplicate-mask", "warning", _mask_of_another),
    Fault("absent class", "absent-class", "warning", _absent),
    Fault("class only in val", "untrained-class", "warning", _only_val),
    Fault("class of a few pixels", "rare-class", "note", _few_pixels),
    Fault("decompression bomb", "image-too-large", "error", _bomb),
)
