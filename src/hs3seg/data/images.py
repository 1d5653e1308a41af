"""Reading image and mask files, with errors that name the file and the place."""

from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from hs3seg.errors import DataError
from hs3seg.taxonomy import Colour, Taxonomy

IMAGE_SUFFIXES = frozenset((".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff"))
Encoding = Literal["auto", "index", "rgb"]


def read_image(path: Path) -> Tensor:
    """Pixels of an image file as RGB; 16-bit grey is scaled to 8 bit.

    Returns:
        (3, H, W) uint8.

    Raises:
        DataError: missing, truncated, no image, or of 32-bit values, which have no known range.
    """
    image = _open(path)
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PNG"):
        # Pillow would clip to 255, i.e. to white. 65535 / 257 = 255.
        image = Image.fromarray((np.array(image).astype(np.int64) // 257).astype(np.uint8))
    elif image.mode in ("I", "F"):
        raise DataError(f"{path}: has 32-bit values (mode {image.mode}); save the image with 8 or 16 bits per channel")
    pixels = np.array(image.convert("RGB"))  # a copy: torch wants writable memory
    return torch.from_numpy(pixels).permute(2, 0, 1).contiguous()


def read_mask(
    path: Path,
    taxonomy: Taxonomy,
    encoding: Encoding = "auto",
    ignore_ids: tuple[int, ...] = (),
) -> Tensor:
    """Class ids of a mask file.

    Args:
        path: Index image (8 or 16 bit), palette PNG (its ids count, not its colours), or RGB colours.
        taxonomy: Classes, colours and ignore label.
        encoding: `auto` takes three-channel files as colours.
        ignore_ids: Further ids in the file that mean ignore, e.g. CamVid's 11.

    Returns:
        (H, W) int64.

    Raises:
        DataError: unreadable, an id outside the taxonomy, or a colour that no class has; place and remedy are named.
    """
    raw = raw_mask(path)
    if raw.ndim == 3 and encoding != "index":
        return torch.from_numpy(_from_colours(raw[..., :3], taxonomy, path))
    if raw.ndim == 3:
        raise DataError(f"{path}: has {raw.shape[2]} channels, but index masks have one; set data.encoding = 'rgb'")
    if encoding == "rgb":
        raise DataError(f"{path}: has one channel, but data.encoding is 'rgb'; set it to 'index' or 'auto'")
    ids = raw.astype(np.int64)
    for value in ignore_ids:
        ids[ids == value] = taxonomy.ignore_index
    wrong = (ids != taxonomy.ignore_index) & ((ids < 0) | (ids >= taxonomy.num_classes))
    if wrong.any():
        y, x = (int(v) for v in np.argwhere(wrong)[0])
        raise DataError(
            f"{path}: label {ids[y, x]} at x={x}, y={y} ({int(wrong.sum())} such pixels) is no class; allowed:"
            f" 0..{taxonomy.num_classes - 1} and the ignore label {taxonomy.ignore_index};"
            " correct the mask or taxonomy.toml"
        )
    return torch.from_numpy(ids)


def read_depth(path: Path) -> Tensor:
    """An 8-bit depth image as it is stored.

    Returns:
        (1, H, W) uint8.

    Raises:
        DataError: unreadable, or not one channel of 8 bits, whose unit would be another one.
    """
    image = _open(path)
    if image.mode != "L":
        raise DataError(
            f"{path}: is a depth image of mode {image.mode}; only one channel of 8 bits (mode L) is read, where"
            " metres = (v + 0.5) / 25.5; write 16-bit millimetres as v = round(0.0255 * millimetres - 0.5), 0..255"
        )
    return torch.from_numpy(np.array(image))[None]


def raw_mask(path: Path) -> NDArray[Any]:
    """A mask file as it is: (H, W) ids, or (H, W, 3 or 4) colours. Palette images give their indices."""
    image = _open(path)
    if image.mode == "1":
        return np.array(image).astype(np.uint8)  # ids 0 and 1; convert("L") would make 1 the ignore label 255
    if image.mode == "F":
        raise DataError(f"{path}: holds floating-point values, but labels are integers; save it as 8- or 16-bit PNG")
    if image.mode in ("LA", "PA"):
        image = image.getchannel(0)  # the ids; the other channel is alpha
    elif image.mode == "CMYK":
        image = image.convert("RGB")
    return np.array(image)


def pack_colours(pixels: NDArray[Any]) -> NDArray[np.int64]:
    """(..., 3) colours as one integer each, r * 65536 + g * 256 + b."""
    values = pixels.astype(np.int64)
    return np.asarray(values[..., 0] << 16 | values[..., 1] << 8 | values[..., 2])


def _open(path: Path) -> Image.Image:
    try:
        with Image.open(path) as image:
            image.load()
            return image
    except FileNotFoundError:
        raise DataError(f"image file '{path}' does not exist") from None
    except UnidentifiedImageError:
        raise DataError(f"{path}: not an image file; replace it or remove it from the split") from None
    except (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError) as error:
        raise DataError(f"{path}: cannot be read ({error}); the file may be truncated, copy it again") from None


def _from_colours(pixels: NDArray[Any], taxonomy: Taxonomy, path: Path) -> NDArray[np.int64]:
    packed = pack_colours(pixels)
    if len(set(taxonomy.colours)) < taxonomy.num_classes:
        colours = taxonomy.colours
        double = next(i for i, colour in enumerate(colours) if colour in colours[:i])
        raise DataError(
            f"classes '{taxonomy.names[colours.index(colours[double])]}' and '{taxonomy.names[double]}' have one"
            f" colour, {colours[double]}, so the colours of {path} cannot tell them apart; correct taxonomy.toml"
        )
    table = {int(pack_colours(np.array(colour))): index for index, colour in enumerate(taxonomy.colours)}
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
