"""Image and mask files that belong together."""

from collections.abc import Sequence
from pathlib import Path

from torch import Tensor
from torchvision import tv_tensors

from hs3seg.data.images import IMAGE_SUFFIXES, Encoding, read_image, read_mask
from hs3seg.data.sample import Sample
from hs3seg.errors import DataError
from hs3seg.taxonomy import Taxonomy


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
        if path.suffix.lower() not in IMAGE_SUFFIXES:
            continue
        if path.stem in files:
            raise DataError(
                f"'{files[path.stem]}' and '{path.name}' have one stem, so it is unclear which to take; remove or"
                " rename one"
            )
        files[path.stem] = path
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
    try:
        text = listed.read_text(encoding="utf-8-sig")  # with or without the mark that Windows editors write
    except UnicodeDecodeError:
        raise DataError(f"{listed}: not UTF-8 text; save the list as UTF-8") from None
    words = " ".join(columns)
    samples = []
    lines: dict[Path, int] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        parts = line.split("\t") if "\t" in line else line.split()
        if len(parts) != len(columns):
            raise DataError(
                f"{listed}:{number}: '{line}' has {len(parts)} parts; write `{words}`, or tabs between them"
            )
        paths = tuple(root / part.strip() for part in parts)
        for column, path in zip(columns, paths, strict=True):
            if not path.resolve().is_relative_to(root.resolve()):
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


def unique_names(root: Path, images: Sequence[Path]) -> list[str]:
    """The shortest of stem, path without suffix, path that tells all images apart."""
    paths = [image.relative_to(root) for image in images]
    for names in ([path.stem for path in paths], [path.with_suffix("").as_posix() for path in paths]):
        if len(set(names)) == len(names):
            return names
    return [path.as_posix() for path in paths]


def read_pair(
    image: Path, mask: Path, taxonomy: Taxonomy, encoding: Encoding = "auto", ignore_ids: tuple[int, ...] = ()
) -> Sample:
    """Reads image and mask and makes sure that they have one size.

    Raises:
        DataError: unreadable, sizes differ, or wrong labels.
    """
    pixels = read_image(image)
    labels = read_mask(mask, taxonomy, encoding, ignore_ids)
    check_size(mask, labels, image, pixels)
    return Sample(tv_tensors.Image(pixels), tv_tensors.Mask(labels), image.stem)


def check_size(path: Path, pixels: Tensor, image_path: Path, image: Tensor) -> None:
    """Raises `DataError` unless what was read from `path` (..., H, W) is as large as its image (C, H, W)."""
    if pixels.shape[-2:] != image.shape[-2:]:
        raise DataError(
            f"{path}: is {pixels.shape[-1]}x{pixels.shape[-2]} pixels, its image '{image_path}' is"
            f" {image.shape[-1]}x{image.shape[-2]}; they must be equal"
        )
