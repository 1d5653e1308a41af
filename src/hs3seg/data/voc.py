"""Pascal VOC's layout: JPEGImages, SegmentationClass and lists of names in ImageSets/Segmentation."""

from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from torch import Tensor
from torchvision import tv_tensors

from hs3seg.data.images import IMAGE_SUFFIXES, raw_mask, read_stored_image, read_stored_mask
from hs3seg.data.pairs import check_size, upright
from hs3seg.data.patterns import files_below
from hs3seg.data.sample import Sample
from hs3seg.errors import DataError
from hs3seg.taxonomies.voc import VOC, voc_colour
from hs3seg.taxonomy import Taxonomy

IMAGES, MASKS, LISTS = "JPEGImages", "SegmentationClass", "ImageSets/Segmentation"

# Masks that were saved again as RGB show the border of objects, 255, in its colour.
_WITH_BORDER = Taxonomy((*VOC.names, "border"), (*VOC.colours, voc_colour(255)))
_BORDER = VOC.num_classes


class PascalVOC:
    """One split: the names in ROOT/ImageSets/Segmentation/SPLIT.txt, one per line.

    Args:
        root: ROOT, the folder that holds JPEGImages, or one above it with a single year in it, e.g. VOCdevkit.
        split: train, val, trainval, or any other list that is there, e.g. trainaug.
        masks: Folder of the masks below ROOT, e.g. SegmentationClassAug.
        taxonomy: Classes of another data set in this layout; VOC's 21 otherwise, and 255 is ignored.

    Raises:
        DataError: a folder, the list or a file is missing.
    """

    def __init__(self, root: Path | str, split: str, masks: str = MASKS, taxonomy: Taxonomy = VOC) -> None:
        self.split, self.taxonomy = split, taxonomy
        root = _find_root(Path(root))
        listed = root / LISTS / f"{split}.txt"
        if not listed.is_file():
            found = ", ".join(sorted(path.stem for path in listed.parent.glob("*.txt"))) or "no list"
            raise DataError(f"split '{split}' needs the list '{listed}', which does not exist; found: {found}")
        names = _read_names(listed)
        folder = root / masks
        if not folder.is_dir():
            raise DataError(f"'{root}' has no folder '{masks}' of masks; name the folder in data.masks")
        self._names: Sequence[str] = names
        self._images = _files(root / IMAGES, names, listed)
        self._masks = _files(folder, names, listed)

    @property
    def names(self) -> Sequence[str]:
        """As in the list."""
        return self._names

    def __len__(self) -> int:
        return len(self._names)

    def read(self, index: int) -> Sample:
        """One image with its labels, both upright."""
        image, mask = self._images[index], self._masks[index]
        pixels, labels = upright(image, *read_stored_image(image), *self._labels(mask))
        check_size(mask, labels, image, pixels)
        return Sample(tv_tensors.Image(pixels), tv_tensors.Mask(labels), self._names[index])

    def files(self, index: int) -> tuple[str, ...]:
        """Image and mask."""
        return str(self._images[index]), str(self._masks[index])

    def _labels(self, path: Path) -> tuple[Tensor, int]:
        """(H, W) as stored, and the EXIF orientation."""
        if self.taxonomy != VOC:
            return read_stored_mask(path, self.taxonomy)
        labels, orientation = read_stored_mask(path, _WITH_BORDER)
        border = labels == _BORDER
        if border.any():
            if raw_mask(path).ndim == 2:
                return read_stored_mask(path, VOC)  # the id 21 is no border, but wrong
            labels[border] = VOC.ignore_index
        return labels, orientation


def _find_root(root: Path) -> Path:
    if not root.is_dir():
        raise DataError(f"VOC folder '{root}' does not exist; give the folder that holds {IMAGES}")
    if (root / IMAGES).is_dir():
        return root
    found = sorted(path.parent for pattern in (f"*/{IMAGES}", f"VOCdevkit/*/{IMAGES}") for path in root.glob(pattern))
    if len(found) != 1:
        years = ", ".join(str(path.relative_to(root)) for path in found)
        raise DataError(
            f"'{root}' has no folder {IMAGES}"
            + (f", but {years}; give one of them as data.root" if found else "; give the folder that holds it")
        )
    return found[0]


def _read_names(listed: Path) -> list[str]:
    try:
        lines = listed.read_text(encoding="utf-8-sig").splitlines()  # with or without the mark of Windows editors
    except UnicodeDecodeError:
        raise DataError(f"{listed}: not UTF-8 text; save the list as UTF-8") from None
    places: dict[str, int] = {}
    for number, line in enumerate(lines, start=1):
        name = line.strip()
        if not name:
            continue
        path = PurePosixPath(name.replace("\\", "/"))
        if path.is_absolute() or ".." in path.parts:
            raise DataError(
                f"{listed}:{number}: '{name}' lies outside '{IMAGES}'; a line is a file name without suffix"
            )
        if name in places:
            raise DataError(f"{listed}:{number}: '{name}' already stands in line {places[name]}; remove one of them")
        places[name] = number
    if not places:
        raise DataError(f"{listed}: the list is empty; write one file name without suffix per line")
    return list(places)


def _files(folder: Path, names: Sequence[str], listed: Path) -> list[Path]:
    """The file of each name, whatever its suffix."""
    found: dict[str, Path] = {}
    for path in sorted(files_below(folder)):
        if path.suffix.lower() in IMAGE_SUFFIXES:
            stem = path.relative_to(folder).with_suffix("").as_posix()
            if stem in found:
                raise DataError(f"'{found[stem]}' and '{path.name}' have one name; remove one of them")
            found[stem] = path
    missing = [name for name in names if name not in found]
    if missing:
        raise DataError(
            f"'{missing[0]}' of {listed} has no file '{folder / missing[0]}.*' ({len(missing)} of {len(names)} such"
            " names); add the files or shorten the list"
        )
    return [found[name] for name in names]
