"""What a picture file says before its pixels are read, and why it cannot be read."""

from dataclasses import dataclass
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from hs3seg.data.doctor.findings import Finding

_ORIENTATION = 0x0112  # EXIF tag; 1 = upright, 5..8 turn by a quarter
_COPY = "copy the file again from its source, or remove the sample from the split"


@dataclass(frozen=True, slots=True)
class Header:
    """What stands in a file's header.

    Args:
        mode: Of Pillow, e.g. RGB, L, I;16.
        size: Stored width and height, before any turning.
        orientation: EXIF's, 1 where there is none.
        lossy: Name of the lossy compression, else empty.
        frames: Pictures in the file.
        transparent: Whether it has an alpha channel.
    """

    mode: str
    size: tuple[int, int]
    orientation: int
    lossy: str
    frames: int
    transparent: bool


def header(path: Path) -> Header | Finding:
    """The header of a picture file, or what is wrong with the file; `split` of the finding is to be filled in."""
    if not path.is_file():
        return _wrong("missing-file", path, "does not exist", "add the file, or remove the sample from the split")
    if path.stat().st_size == 0:
        return _wrong("empty-file", path, "has 0 bytes", _COPY)
    try:
        with Image.open(path) as image:
            return Header(
                image.mode,
                image.size,
                int(image.getexif().get(_ORIENTATION, 1)),
                _lossy(path, image),
                int(getattr(image, "n_frames", 1)),
                image.mode in ("RGBA", "LA", "PA"),
            )
    except Image.DecompressionBombError as error:
        return _wrong("image-too-large", path, str(error), "cut the image into tiles, or make it smaller")
    except UnidentifiedImageError:
        return _wrong("corrupt-file", path, f"'{path.name}' is not an image file", _COPY)
    except (OSError, SyntaxError, ValueError, EOFError) as error:
        return _wrong("corrupt-file", path, f"'{path.name}' cannot be read ({error})", _COPY)


def damaged(path: Path, message: str) -> Finding:
    """A file whose header is fine, but whose pixels are not."""
    return _wrong("corrupt-file", path, message.removeprefix(f"{path}: "), _COPY)


def _wrong(kind: str, path: Path, message: str, remedy: str) -> Finding:
    return Finding(kind, "error", "", str(path), message, remedy)


def _lossy(path: Path, image: Image.Image) -> str:
    if image.format in ("JPEG", "MPO", "JPEG2000"):
        return "JPEG"
    if image.format == "TIFF" and "jpeg" in str(image.info.get("compression", "")):
        return "JPEG inside TIFF"
    if image.format == "WEBP":
        with path.open("rb") as file:
            # Lossy and lossless pictures are in chunks of different names; all chunks stand in the first bytes, unless
            # a profile precedes them.
            start = file.read(65536)
        return "lossy WebP" if b"VP8 " in start and b"VP8L" not in start else ""
    return ""
