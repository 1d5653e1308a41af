"""Image and mask files that belong together."""

from pathlib import Path

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


def read_pair(
    image: Path, mask: Path, taxonomy: Taxonomy, encoding: Encoding = "auto", ignore_ids: tuple[int, ...] = ()
) -> Sample:
    """Reads image and mask and makes sure that they have one size.

    Raises:
        DataError: unreadable, sizes differ, or wrong labels.
    """
    pixels = read_image(image)
    labels = read_mask(mask, taxonomy, encoding, ignore_ids)
    if pixels.shape[-2:] != labels.shape:
        raise DataError(
            f"{mask}: is {labels.shape[1]}x{labels.shape[0]} pixels, its image '{image}' is"
            f" {pixels.shape[2]}x{pixels.shape[1]}; they must be equal"
        )
    return Sample(tv_tensors.Image(pixels), tv_tensors.Mask(labels), image.stem)
