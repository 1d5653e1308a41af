"""CamVid in SegNet's layout: 367 train, 101 val, 233 test frames of 360x480, 11 classes, void 11."""

from collections.abc import Sequence
from pathlib import Path

from hs3seg.data.pairs import pair_files, read_pair
from hs3seg.data.sample import Sample
from hs3seg.errors import DataError
from hs3seg.taxonomy import Colour, Taxonomy

_CLASSES: dict[str, Colour] = {
    "sky": (128, 128, 128),
    "building": (128, 0, 0),
    "column_pole": (192, 192, 128),
    "road": (128, 64, 128),
    "sidewalk": (0, 0, 192),
    "tree": (128, 128, 0),
    "sign_symbol": (192, 128, 128),
    "fence": (64, 64, 128),
    "car": (64, 0, 128),
    "pedestrian": (64, 64, 0),
    "bicyclist": (0, 128, 192),
}
VOID = 11


class CamVid:
    """One split: ROOT/SPLIT holds images, ROOT/SPLITannot label PNGs of the same stems.

    Args:
        root: Folder of train, trainannot, val, ...
        split: train, val or test.

    Raises:
        DataError: a folder is missing or empty, or an image has no mask or a mask no image.
    """

    taxonomy = Taxonomy(tuple(_CLASSES), tuple(_CLASSES.values()))

    def __init__(self, root: Path, split: str) -> None:
        self.split = split
        images, masks = Path(root) / split, Path(root) / f"{split}annot"
        for folder in (images, masks):
            if not folder.is_dir():
                found = sorted(p.name for p in Path(root).iterdir() if p.is_dir()) if Path(root).is_dir() else []
                raise DataError(
                    f"CamVid split '{split}' needs the folder '{folder}', which does not exist; found in {root}:"
                    f" {', '.join(found) or 'no folder'};"
                    " SegNet's layout has train, trainannot, val, valannot, test, testannot"
                )
        self._pairs = pair_files(images, masks)

    @property
    def names(self) -> Sequence[str]:
        """File stems."""
        return [image.stem for image, _ in self._pairs]

    def __len__(self) -> int:
        return len(self._pairs)

    def read(self, index: int) -> Sample:
        """One frame with its labels."""
        image, mask = self._pairs[index]
        return read_pair(image, mask, self.taxonomy, ignore_ids=(VOID,))

    def files(self, index: int) -> tuple[str, ...]:
        """Image and mask."""
        image, mask = self._pairs[index]
        return str(image), str(mask)
