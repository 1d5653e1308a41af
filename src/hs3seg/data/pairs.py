"""Image and mask files that belong together."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from torch import Tensor
from torchvision import tv_tensors

from hs3seg.data.images import IMAGE_SUFFIXES, Encoding, read_stored_image, read_stored_mask, turned
from hs3seg.data.patterns import list_lines, same_letters
from hs3seg.data.sample import Sample
from hs3seg.errors import DataError
from hs3seg.taxonomy import Colour, Taxonomy

Exif = Literal["auto", "image", "both"]
"""What the orientation of an image turns whose mask has none: `image` alone, since the mask was drawn on the picture as
viewers show it; `both`, since it was drawn on the stored pixels; `auto` = what makes their sizes equal."""

_BY_KEY = "set data.exif = 'image' if on the picture as viewers show it, or 'both' if on the stored pixels"
_BY_FILE = "if on the picture as viewers show it, save the image upright; if on the stored pixels, remove the tag"


def pair_files(images: Path, masks: Path) -> list[tuple[Path, Path]]:
    """Image and mask files of two folders by equal stem, sorted.

    Raises:
        DataError: no image at all, one without its partner, or two of one stem.
    """
    found, labels = _by_stem(images), _by_stem(masks)
    if not found:
        raise DataError(f"no image in '{images}'; images end in {', '.join(sorted(IMAGE_SUFFIXES))}")
    alone = sorted(set(found) - set(labels))
    if alone:
        raise DataError(
            f"image '{found[alone[0]]}' has no mask '{masks / alone[0]}.*' ({len(alone)} such images); add the mask or"
            " remove the image"
        )
    extra = sorted(set(labels) - set(found))
    if extra:
        raise DataError(
            f"mask '{labels[extra[0]]}' has no image '{images / extra[0]}.*' ({len(extra)} such masks); add the image"
            " or remove the mask"
        )
    return [(found[stem], labels[stem]) for stem in sorted(found)]


def _by_stem(folder: Path) -> dict[str, Path]:
    files: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() not in IMAGE_SUFFIXES or path.name.startswith("."):  # `._a.png` of a Mac's zip
            continue
        stem = same_letters(path.stem)
        if stem in files:
            raise DataError(
                f"'{files[stem]}' and '{path.name}' have one stem, so it is unclear which to take; remove or rename one"
            )
        files[stem] = path
    return files


def read_list(
    root: Path, listed: Path, columns: Sequence[str] = ("image", "mask"), unread: Sequence[str] = ()
) -> list[tuple[Path, ...]]:
    """Files of a split from a list with one sample per line.

    Args:
        root: What the entries are relative to; none may lie outside.
        listed: The list.
        columns: What stands on a line, the image first.
        unread: Columns whose files are not looked for.

    Returns:
        Per sample one path per column.

    Raises:
        DataError: not UTF-8 or empty; a line with another number of parts, a missing file, or an image of before.
    """
    words = " ".join(columns)
    samples = []
    lines: dict[Path, int] = {}
    for number, line in enumerate(list_lines(listed), start=1):
        if not line:
            continue
        parts = line.split("\t") if "\t" in line else line.split()
        if len(parts) != len(columns):
            raise DataError(
                f"{listed}:{number}: '{line}' has {len(parts)} parts; write `{words}`, or tabs between them"
            )
        paths = tuple(root / part.strip() for part in parts)
        for column, path in zip(columns, paths, strict=True):
            if not is_below(root, path):
                raise DataError(f"{listed}:{number}: '{path}' lies outside '{root}'; entries are relative to it")
            if column not in unread and not path.is_file():
                raise DataError(f"{listed}:{number}: file '{path}' does not exist")
        first = lines.setdefault(paths[0].resolve(), number)
        if first != number:
            raise DataError(f"{listed}:{number}: image '{paths[0]}' already stands in line {first}; remove one of them")
        samples.append(paths)
    if not samples:
        raise DataError(f"{listed}: the list is empty; write one line `{words}` per sample")
    return samples


def is_below(root: Path, path: Path) -> bool:
    """Whether an entry of a list stays in a folder; links in the folder may lead out, as its owner put them."""
    as_written = ".." not in path.parts and path.is_relative_to(root)
    return as_written or path.resolve().is_relative_to(root.resolve())


def unique_names(root: Path, images: Sequence[Path]) -> list[str]:
    """The shortest of stem, path without suffix, path that tells all images apart."""
    paths = [image.relative_to(root) for image in images]
    for names in ([path.stem for path in paths], [path.with_suffix("").as_posix() for path in paths]):
        if len(set(names)) == len(names):
            return names
    return [path.as_posix() for path in paths]


def read_pair(
    image: Path,
    mask: Path,
    taxonomy: Taxonomy,
    encoding: Encoding = "auto",
    ignore_ids: Sequence[int] = (),
    ids: Sequence[int] = (),
    ignore_colours: Sequence[Colour] = (),
    exif: Exif = "auto",
) -> Sample:
    """Reads image and mask, both upright, and makes sure that they have one size; see `read_mask` and `Exif`.

    Raises:
        DataError: unreadable, sizes differ, wrong labels, or an orientation that may or may not be meant for the mask.
    """
    pixels, orientation = read_stored_image(image)
    labels, own = read_stored_mask(mask, taxonomy, encoding, ignore_ids, ids, ignore_colours)
    pixels, labels = upright(image, pixels, orientation, labels, own, exif, f"its mask '{mask}' has none")
    check_size(mask, labels, image, pixels)
    return Sample(tv_tensors.Image(pixels), tv_tensors.Mask(labels), image.stem)


def upright(
    image: Path,
    pixels: Tensor,
    orientation: int,
    labels: Tensor,
    own: int = 1,
    exif: Exif | None = None,
    said: str = "its labels have none",
) -> tuple[Tensor, Tensor]:
    """Image and labels as viewers show them, since prediction, too, turns photos before it looks at them.

    Args:
        image: File, for the error.
        pixels: (C, H, W) as stored.
        orientation: 1..8 of the image's EXIF tag.
        labels: (h, w) as stored, or in the size that an annotation file says.
        own: Orientation of the mask's file.
        exif: See `Exif`; None = `auto` where no key of the config says it.
        said: What the error says about the labels' orientation.

    Returns:
        (C, H', W') and (h', w'); whether these are of one size is still to be checked.

    Raises:
        DataError: `auto`, and both readings give equal sizes: the image is mirrored, turned by a half, or square.
    """
    stored = pixels.shape[-2:]
    pixels, labels = turned(pixels, orientation), turned(labels, own)
    if orientation == 1 or own != 1:
        return pixels, labels
    if exif in (None, "auto") and labels.shape == stored == pixels.shape[-2:]:
        raise DataError(
            f"{image}: is turned by its EXIF orientation {orientation}, {said}, and their sizes do not tell which way"
            f" they were drawn; {_BY_FILE if exif is None else _BY_KEY}"
        )
    if exif == "both" or (exif != "image" and labels.shape == stored):
        labels = turned(labels, orientation)
    return pixels, labels


def check_size(path: Path, pixels: Tensor, image_path: Path, image: Tensor) -> None:
    """Raises `DataError` unless what was read from `path` (..., H, W) is as large as its image (C, H, W)."""
    if pixels.shape[-2:] != image.shape[-2:]:
        raise DataError(
            f"{path}: is {pixels.shape[-1]}x{pixels.shape[-2]} pixels, its image '{image_path}' is"
            f" {image.shape[-1]}x{image.shape[-2]}; they must be equal"
        )
