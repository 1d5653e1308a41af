"""ADE20K as the MIT Scene Parsing Benchmark has it (ADEChallengeData2016): 150 classes, label 0 is ignored."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torchvision import tv_tensors

from hs3seg.data.images import raw_mask, read_stored_image
from hs3seg.data.pairs import check_size, pair_files, upright
from hs3seg.data.sample import Sample
from hs3seg.errors import DataError
from hs3seg.taxonomy import Taxonomy

FOLDER, NAMES = "ADEChallengeData2016", "objectInfo150.txt"
SPLITS = {"train": "training", "val": "validation"}
"""Our word for a split -> the folder's."""


class ADE20K:
    """One split: ROOT/images/SPLIT and ROOT/annotations/SPLIT; label c + 1 of the files is class c.

    Args:
        root: ROOT, or the folder above ADEChallengeData2016. It holds objectInfo150.txt, the classes' names.
        split: train (training) or val (validation), or the name of any other folder.

    Raises:
        DataError: a folder or objectInfo150.txt is missing, or an image has no mask or a mask no image.
    """

    def __init__(self, root: Path | str, split: str) -> None:
        self.split = split
        root = Path(root)
        root = root / FOLDER if (root / FOLDER).is_dir() else root
        folders = [root / kind / SPLITS.get(split, split) for kind in ("images", "annotations")]
        for folder in folders:
            if not folder.is_dir():
                beside = folder.parent
                found = sorted(path.name for path in beside.iterdir() if path.is_dir()) if beside.is_dir() else []
                raise DataError(
                    f"ADE20K split '{split}' needs the folder '{folder}', which does not exist; found in '{beside}':"
                    f" {', '.join(found) or 'no folder'}"
                )
        self.taxonomy = Taxonomy.from_names(read_names(root / NAMES))
        self._pairs = pair_files(folders[0], folders[1])

    @property
    def names(self) -> Sequence[str]:
        """File stems."""
        return [image.stem for image, _ in self._pairs]

    def __len__(self) -> int:
        return len(self._pairs)

    def read(self, index: int) -> Sample:
        """One image with its labels, both upright."""
        image, mask = self._pairs[index]
        pixels, labels = upright(image, *read_stored_image(image), self._labels(mask))
        check_size(mask, labels, image, pixels)
        return Sample(tv_tensors.Image(pixels), tv_tensors.Mask(labels), image.stem)

    def files(self, index: int) -> tuple[str, ...]:
        """Image and mask."""
        image, mask = self._pairs[index]
        return str(image), str(mask)

    def _labels(self, path: Path) -> Tensor:
        raw = raw_mask(path)
        if raw.ndim != 2:
            raise DataError(
                f"{path}: has {raw.shape[2]} channels, but labels of {FOLDER} have one; the full ADE20K set, with parts"
                " and colours, is another one"
            )
        labels = raw.astype(np.int64) - 1
        wrong = labels >= self.taxonomy.num_classes
        if wrong.any():
            y, x = (int(v) for v in np.argwhere(wrong)[0])
            raise DataError(
                f"{path}: label {raw[y, x]} at x={x}, y={y} ({int(wrong.sum())} such pixels) is no class; allowed:"
                f" 1..{self.taxonomy.num_classes}, and 0 for none"
            )
        labels[labels < 0] = self.taxonomy.ignore_index
        return torch.from_numpy(labels)


def read_names(path: Path) -> list[str]:
    """Classes of objectInfo150.txt, a table with tabs whose columns Idx and Name count.

    Of several names of a class, e.g. `building, edifice`, the first is taken, unless another class has it, too.

    Raises:
        DataError: missing, or not of this form.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except OSError:
        raise DataError(f"'{path}' does not exist; it is part of {FOLDER}.zip and names the classes") from None
    except UnicodeDecodeError:
        raise DataError(f"{path}: not UTF-8 text; copy it from {FOLDER}.zip again") from None
    rows = [[cell.strip() for cell in line.split("\t")] for line in lines if line.strip()]
    if not rows or "Idx" not in rows[0] or "Name" not in rows[0]:
        raise DataError(f"{path}: its first line does not name the columns Idx and Name, with tabs; copy it again")
    columns = [rows[0].index(word) for word in ("Idx", "Name")]
    entries = [[row[column] if column < len(row) else "" for column in columns] for row in rows[1:]]
    for number, (index, name) in enumerate(entries, start=1):
        if index != str(number) or not name:
            raise DataError(f"{path}: class {number} has Idx '{index}' and Name '{name}'; rows are 1, 2, 3, ...")
    full = [name for _, name in entries]
    first = [name.split(",")[0].strip() for name in full]
    return [name if first.count(short) > 1 else short for name, short in zip(full, first, strict=True)]
