"""Reading image and mask files, with errors that name the file and the place."""

import os
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from PIL.ImageFile import ImageFile
from torch import Tensor

from hs3seg.errors import DataError
from hs3seg.taxonomy import Colour, Taxonomy

IMAGE_SUFFIXES = frozenset((".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff"))
Encoding = Literal["auto", "index", "rgb", "palette"]

MAX_MEGAPIXELS = 256
"""Larger pictures are refused: a few bytes can pretend to be gigabytes. HS3_MAX_MEGAPIXELS in the environment counts
instead, in all processes. 256 megapixels (16384x15625) are 0.8 GB as RGB and 2 GB as labels."""

# What a name says does not bind Pillow, which would start Ghostscript for a PostScript file called `a.png`.
_FORMATS = ("PNG", "JPEG", "TIFF", "WEBP", "BMP", "DIB", "GIF", "PPM", "JPEG2000")
_ORIENTATION = 0x0112  # EXIF tag: 1 = upright, 2..8 = how viewers turn and mirror the stored pixels
_LIMIT = threading.Lock()
if hasattr(os, "register_at_fork"):  # a process forked while another thread holds the lock could never open a file
    os.register_at_fork(before=_LIMIT.acquire, after_in_parent=_LIMIT.release, after_in_child=_LIMIT.release)


def read_image(path: Path | str, upright: bool = False) -> Tensor:
    """Pixels of an image file as RGB; 16-bit grey is scaled to 8 bit.

    Args:
        path: Of the file.
        upright: Turn the pixels as the EXIF tag says and as viewers do; else they come as stored.

    Returns:
        (3, H, W) uint8.

    Raises:
        DataError: missing, truncated, no image, too large, or of 32-bit values, which have no known range.
    """
    pixels, orientation = read_stored_image(Path(path))
    return turned(pixels, orientation) if upright else pixels


def read_stored_image(path: Path) -> tuple[Tensor, int]:
    """Like `read_image`: (3, H, W) pixels as stored, and the EXIF orientation 1..8 that makes them upright."""
    image, orientation, _ = _open(path)
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PNG"):
        # Pillow would clip to 255, i.e. to white. 65535 / 257 = 255.
        image = Image.fromarray((np.array(image).astype(np.int64) // 257).astype(np.uint8))
    elif image.mode in ("I", "F"):
        raise DataError(f"{path}: has 32-bit values (mode {image.mode}); save the image with 8 or 16 bits per channel")
    pixels = np.array(image.convert("RGB"))  # a copy: torch wants writable memory
    return torch.from_numpy(pixels).permute(2, 0, 1).contiguous(), orientation


def read_mask(
    path: Path | str,
    taxonomy: Taxonomy,
    encoding: Encoding = "auto",
    ignore_ids: Sequence[int] = (),
    ids: Sequence[int] = (),
    ignore_colours: Sequence[Colour] = (),
) -> Tensor:
    """Class ids of a mask file, as stored.

    Args:
        path: Index image (1 to 32 bit), palette PNG (its ids count, not its colours), or RGB colours. Alpha does not
            matter.
        taxonomy: Classes, colours and ignore label.
        encoding: `auto` takes three-channel files as colours; `palette` takes the colours of a palette file.
        ignore_ids: Further ids in the file that mean ignore, e.g. CamVid's 11. -1 is also the largest id that the file
            can hold (255, 65535), which is how -1 looks in a file without signs.
        ids: Id in the file of each class, e.g. (0, 255); empty = class c has id c. They outdo ignored ids.
        ignore_colours: Colours that mean ignore, besides black, which does unless a class is black.

    Returns:
        (H, W) int64.

    Raises:
        DataError: unreadable, an id outside the taxonomy, or a colour that no class has; place and remedy are named.
    """
    return read_stored_mask(Path(path), taxonomy, encoding, ignore_ids, ids, ignore_colours)[0]


def read_stored_mask(
    path: Path,
    taxonomy: Taxonomy,
    encoding: Encoding = "auto",
    ignore_ids: Sequence[int] = (),
    ids: Sequence[int] = (),
    ignore_colours: Sequence[Colour] = (),
) -> tuple[Tensor, int]:
    """Like `read_mask`: (H, W) labels as stored, and the EXIF orientation 1..8 that makes them upright."""
    raw, orientation = _raw(path, encoding == "palette")
    if raw.ndim == 3 and encoding != "index":
        return torch.from_numpy(_from_colours(raw[..., :3], taxonomy, path, ignore_colours)), orientation
    if raw.ndim == 3:
        raise DataError(f"{path}: has {raw.shape[2]} channels, but index masks have one; set data.encoding = 'rgb'")
    if encoding == "rgb":
        raise DataError(
            f"{path}: has one channel, but data.encoding is 'rgb'; set it to 'index' or 'auto', or to 'palette' for the"
            " colours of a palette file"
        )
    ignored = set(ignore_ids)
    if -1 in ignored and raw.dtype.kind == "u":
        ignored.add(int(np.iinfo(raw.dtype).max))
    return torch.from_numpy(_from_ids(raw.astype(np.int64), taxonomy, path, ignored, ids)), orientation


def raw_mask(path: Path) -> NDArray[Any]:
    """A mask file as stored: (H, W) ids, or (H, W, 3 or 4) colours. Palette images give their indices."""
    return _raw(path)[0]


def pack_colours(pixels: NDArray[Any]) -> NDArray[np.int64]:
    """(..., 3) colours as one integer each, r * 65536 + g * 256 + b."""
    values = pixels.astype(np.int64)
    return np.asarray(values[..., 0] << 16 | values[..., 1] << 8 | values[..., 2])


def turned(pixels: Tensor, orientation: int) -> Tensor:
    """Pixels (..., H, W) as an EXIF orientation of 1..8 says that they are to be shown; 5..8 give (..., W, H).

    Source: Exif 2.32, tag 0x0112: where row 0 and column 0 of the stored pixels are in the picture.
    """
    if orientation >= 5:
        pixels = pixels.transpose(-1, -2)
    mirrored = [axis for axis, tags in ((-2, (3, 4, 7, 8)), (-1, (2, 3, 6, 7))) if orientation in tags]
    return pixels.flip(mirrored).contiguous()


def max_pixels() -> int:
    """Pixels that a picture may have; see `MAX_MEGAPIXELS`.

    Raises:
        DataError: HS3_MAX_MEGAPIXELS is no positive number.
    """
    text = os.environ.get("HS3_MAX_MEGAPIXELS", "") or str(MAX_MEGAPIXELS)
    try:
        limit = float(text)
    except ValueError:
        limit = 0.0
    if not 0 < limit < float("inf"):
        raise DataError(f"HS3_MAX_MEGAPIXELS is '{text}'; give a positive number such as {MAX_MEGAPIXELS}")
    return int(limit * 1e6)


def _open(path: Path) -> tuple[Image.Image, int, str]:
    """A decoded picture, the EXIF orientation that is still to be applied, and how its file stores pixels (`L;2`)."""
    try:
        with open_header(path) as image:
            if image.width * image.height > max_pixels():
                raise DataError(
                    f"{path}: is {image.width}x{image.height} pixels = {image.width * image.height / 1e6:.0f}"
                    f" megapixels; at most {max_pixels() / 1e6:g} are read; cut it into tiles, or set"
                    " HS3_MAX_MEGAPIXELS in the environment to a larger number"
                )
            arguments = image.tile[0].args if image.tile else ""
            stored = arguments[0] if isinstance(arguments, tuple) and arguments else arguments
            image.load()
            found = image.getexif().get(_ORIENTATION, 1)  # Pillow turns TIFF itself, and the tag is gone then
            orientation = found if isinstance(found, int) and 1 <= found <= 8 else 1
            return image, orientation, stored if isinstance(stored, str) else ""
    except FileNotFoundError:
        raise DataError(f"image file '{path}' does not exist") from None
    except UnidentifiedImageError:
        raise DataError(f"{path}: not an image file; replace it or remove it from the split") from None
    except (OSError, SyntaxError, ValueError, EOFError) as error:
        raise DataError(f"{path}: cannot be read ({error}); the file may be truncated, copy it again") from None


def open_header(path: Path) -> ImageFile:
    """Opens a picture of which only the header is read yet.

    Pillow's limit, a warning and a fixed number, does not count; who decodes the pixels is to look at the size first.

    Raises:
        OSError, SyntaxError, ValueError: as Pillow says.
    """
    with _LIMIT:
        before, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            return Image.open(path, formats=_FORMATS)
        finally:
            Image.MAX_IMAGE_PIXELS = before


def _raw(path: Path, palette_colours: bool = False) -> tuple[NDArray[Any], int]:
    """`raw_mask`, or the colours of a palette file, and the EXIF orientation."""
    image, orientation, stored = _open(path)
    if image.mode == "1":
        return np.array(image).astype(np.uint8), orientation  # ids 0 and 1; convert("L") would make 1 the label 255
    if image.mode == "F":
        raise DataError(f"{path}: holds floating-point values, but labels are integers; save it as 8- or 16-bit PNG")
    if stored.startswith("LA;16"):
        raise DataError(f"{path}: has 16 bits and alpha, of which only 8 bits can be read; save it without alpha")
    if palette_colours and image.mode != "P" and len(image.getbands()) < 3:
        raise DataError(
            f"{path}: has no palette (mode {image.mode}), but data.encoding is 'palette'; set it to 'index'"
        )
    if palette_colours or image.mode == "CMYK":
        image = image.convert("RGB")
    elif image.mode in ("LA", "PA"):
        image = image.getchannel(0)  # the ids; the other channel is alpha
    pixels = np.array(image)
    if stored in ("L;2", "L;4"):
        pixels //= 85 if stored == "L;2" else 17  # Pillow stretches 0..3 and 0..15 to 0..255
    if stored.startswith(("RGB;16", "RGBA;16")) and not pixels[..., :3].any():
        raise DataError(f"{path}: has colours of 16 bits, all below 256, i.e. black; save it with 8 bits per channel")
    return pixels, orientation


def _from_ids(
    raw: NDArray[np.int64], taxonomy: Taxonomy, path: Path, ignored: set[int], ids: Sequence[int]
) -> NDArray[np.int64]:
    """Classes of the ids (H, W) of a file."""
    if not ids:
        for value in ignored:
            raw[raw == value] = taxonomy.ignore_index
        labels, none = raw, (raw < 0) | (raw >= taxonomy.num_classes)
        allowed = f"0..{taxonomy.num_classes - 1} and the ignore label {taxonomy.ignore_index}"
    else:
        check_ids(ids, taxonomy)
        order = np.argsort(ids)
        ranked = np.asarray(ids, np.int64)[order]
        place = np.minimum(np.searchsorted(ranked, raw), len(ids) - 1)
        none = ranked[place] != raw
        none_ignored = none & np.isin(raw, list(ignored))
        labels = np.where(none_ignored, taxonomy.ignore_index, np.where(none, raw, order[place]))
        allowed = f"{', '.join(str(i) for i in ids)} (data.ids) and the ignore label {taxonomy.ignore_index}"
        none &= ~none_ignored
    wrong = none & (raw != taxonomy.ignore_index)
    if wrong.any():
        y, x = (int(v) for v in np.argwhere(wrong)[0])
        raise DataError(
            f"{path}: label {raw[y, x]} at x={x}, y={y} ({int(wrong.sum())} such pixels) is no class; allowed:"
            f" {allowed}; correct the mask or taxonomy.toml"
        )
    return labels


def check_ids(ids: Sequence[int], taxonomy: Taxonomy) -> None:
    """Raises `DataError` unless `ids` is empty or has one id per class, each once."""
    if ids and (len(ids) != taxonomy.num_classes or len(set(ids)) < len(ids)):
        raise DataError(
            f"data.ids has {len(ids)} ids, {len(set(ids))} of them different, for {taxonomy.num_classes} classes; give"
            " the id that each class has in the files, in the order of taxonomy.toml"
        )


def _from_colours(pixels: NDArray[Any], taxonomy: Taxonomy, path: Path, ignored: Sequence[Colour]) -> NDArray[np.int64]:
    packed = pack_colours(pixels)
    if len(set(taxonomy.colours)) < taxonomy.num_classes:
        colours = taxonomy.colours
        double = next(i for i, colour in enumerate(colours) if colour in colours[:i])
        raise DataError(
            f"classes '{taxonomy.names[colours.index(colours[double])]}' and '{taxonomy.names[double]}' have one"
            f" colour, {colours[double]}, so the colours of {path} cannot tell them apart; correct taxonomy.toml"
        )
    table = {int(pack_colours(np.array(colour))): index for index, colour in enumerate(taxonomy.colours)}
    table = {int(pack_colours(np.array(colour))): taxonomy.ignore_index for colour in ignored} | table
    values, inverse = np.unique(packed, return_inverse=True)
    ids = np.empty(len(values), np.int64)
    for number, value in enumerate(values.tolist()):
        if value in table:
            ids[number] = table[value]
        elif value == 0:
            ids[number] = taxonomy.ignore_index  # black is void unless a class is black
        else:
            colour = (value >> 16, value >> 8 & 255, value & 255)
            y, x = (int(v) for v in np.argwhere(packed == value)[0])
            name, own = _nearest_colour(colour, taxonomy)
            raise DataError(
                f"{path}: colour {colour} at x={x}, y={y} ({int((packed == value).sum())} such pixels) is no class;"
                f" nearest: '{name}' {own}; add it to taxonomy.toml or repaint it"
            )
    return np.asarray(ids[inverse].reshape(packed.shape))


def _nearest_colour(colour: Colour, taxonomy: Taxonomy) -> tuple[str, Colour]:
    distances = [sum((a - b) ** 2 for a, b in zip(colour, own, strict=True)) for own in taxonomy.colours]
    best = int(np.argmin(distances))
    return taxonomy.names[best], taxonomy.colours[best]
