"""Any folder of images and masks."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from hs3seg.data.images import IMAGE_SUFFIXES, Encoding, pack_colours, raw_mask
from hs3seg.data.pairs import pair_files, read_list, read_pair, unique_names
from hs3seg.data.sample import Sample
from hs3seg.errors import DataError
from hs3seg.taxonomy import Taxonomy

_MAX_INFERRED = 200


class FolderDataset:
    """One split of a folder.

    Three layouts are understood, tried in this order:

    1. ROOT/SPLIT.txt with `image mask` per line, paths relative to ROOT;
    2. ROOT/images/SPLIT and ROOT/masks/SPLIT with files of equal stems;
    3. ROOT/SPLIT/images and ROOT/SPLIT/masks.

    Where no split exists at all, i.e. ROOT/images and ROOT/masks hold files directly, `train` and `val` are a seeded
    4:1 cut of them.

    Args:
        root: ROOT.
        split: Name of the split.
        taxonomy: Classes.
        images: Name of the image folder.
        masks: Name of the mask folder.
        encoding: `index`, `rgb`, or `auto`.
        ignore_ids: Ids in the files that mean ignore, besides the taxonomy's own.
        seed: Of the 4:1 cut.

    Raises:
        DataError: no such split; a file without its partner; a list entry outside the root.
    """

    def __init__(
        self,
        root: Path,
        split: str,
        taxonomy: Taxonomy,
        images: str = "images",
        masks: str = "masks",
        encoding: Encoding = "auto",
        ignore_ids: Sequence[int] = (),
        seed: int = 0,
    ) -> None:
        self.taxonomy, self.split = taxonomy, split
        self._encoding: Encoding = encoding
        self._ignore_ids = tuple(ignore_ids)
        self._pairs = find_pairs(Path(root), split, images, masks, seed)
        self._names = unique_names(Path(root), [image for image, _ in self._pairs])

    @property
    def names(self) -> Sequence[str]:
        """File stems, or paths where two stems are equal."""
        return self._names

    def __len__(self) -> int:
        return len(self._pairs)

    def read(self, index: int) -> Sample:
        """One image with its labels."""
        image, mask = self._pairs[index]
        sample = read_pair(image, mask, self.taxonomy, self._encoding, self._ignore_ids)
        return Sample(sample.image, sample.mask, self._names[index])

    def files(self, index: int) -> tuple[str, ...]:
        """Image and mask."""
        image, mask = self._pairs[index]
        return str(image), str(mask)


def find_pairs(root: Path, split: str, images: str, masks: str, seed: int) -> list[tuple[Path, Path]]:
    """Image and mask files of a split; see `FolderDataset` for the layouts."""
    if not root.is_dir():
        raise DataError(f"data folder '{root}' does not exist; give the top folder of images and masks")
    listed = root / f"{split}.txt"
    if listed.is_file():
        return [(image, mask) for image, mask in read_list(root, listed)]
    for image_folder, mask_folder in (
        (root / images / split, root / masks / split),
        (root / split / images, root / split / masks),
    ):
        if image_folder.is_dir() and mask_folder.is_dir():
            return pair_files(image_folder, mask_folder)
        for here, there in ((image_folder, mask_folder), (mask_folder, image_folder)):
            if here.is_dir():
                raise DataError(f"folder '{here}' exists, but '{there}' does not; a split needs images and masks")
    if _has_files(root / images) and _has_files(root / masks) and split in ("train", "val"):
        return _cut(pair_files(root / images, root / masks), split, seed)
    raise DataError(
        f"split '{split}' was not found in '{root}'; expected {split}.txt, or {images}/{split} and {masks}/{split}, or"
        f" {split}/{images} and {split}/{masks}; the folder holds:"
        f" {', '.join(sorted(p.name for p in root.iterdir())[:12]) or 'nothing'}"
    )


def infer_taxonomy(root: Path, masks: str = "masks") -> Taxonomy:
    """Classes read off the mask files: the ids that occur (0..highest), or the colours, most frequent first.

    Raises:
        DataError: no mask files, colours and ids mixed, or so many values that these are no masks.
    """
    files = [
        p for p in sorted(root.rglob("*")) if p.suffix.lower() in IMAGE_SUFFIXES and masks in p.relative_to(root).parts
    ]
    files = files or [mask for path in sorted(root.glob("*.txt")) for _, mask in read_list(root, path)]
    if not files:
        raise DataError(f"no mask files below a folder '{masks}' in '{root}'; name the folder in data.masks")
    ids: set[int] = set()
    colours: dict[int, int] = {}
    for file in files:
        raw = raw_mask(file)
        if raw.ndim == 2:
            ids |= set(np.unique(raw).tolist())
        else:
            values, counts = np.unique(pack_colours(raw[..., :3]), return_counts=True)
            for value, count in zip(values.tolist(), counts.tolist(), strict=True):
                colours[value] = colours.get(value, 0) + count
        if ids and colours:
            raise DataError(
                f"{file}: masks with ids and masks with colours are mixed in '{root}'; write them in one way"
            )
        if len(colours) > _MAX_INFERRED:
            raise DataError(
                f"{file}: more than {_MAX_INFERRED} colours, so these are no clean masks (JPEG, or smoothed"
                " edges?); save masks as PNG, or list the classes in taxonomy.toml"
            )
    if ids:
        highest = max((i for i in ids if i != 255), default=0)
        if highest == 0 or highest >= _MAX_INFERRED:
            raise DataError(
                f"the masks in '{root}' hold the ids {sorted(ids)[:8]}, where 255 means ignore; that makes"
                f" {'one class' if highest == 0 else f'{highest + 1} classes'}; write ids 0, 1, 2, ... (a foreground"
                " of 255 as 1), or list the classes in taxonomy.toml"
            )
        return Taxonomy.from_names([f"class_{i}" for i in range(highest + 1)])
    # Black is void, as in most colour-coded sets; list it in taxonomy.toml to make it a class.
    ranked = sorted((c for c in colours if c != 0), key=lambda c: -colours[c])
    if not ranked:
        raise DataError(f"the masks in '{root}' are all black; list the classes in taxonomy.toml")
    return Taxonomy.from_names([f"colour_{c:06x}" for c in ranked], [(c >> 16, c >> 8 & 255, c & 255) for c in ranked])


def _cut(pairs: list[tuple[Path, Path]], split: str, seed: int) -> list[tuple[Path, Path]]:
    order = np.random.default_rng(seed).permutation(len(pairs))
    held_out = set(order[: max(1, round(len(pairs) / 5))].tolist())
    return [pair for index, pair in enumerate(pairs) if (index in held_out) == (split == "val")]


def _has_files(folder: Path) -> bool:
    return folder.is_dir() and any(p.is_file() and p.suffix.lower() in IMAGE_SUFFIXES for p in folder.iterdir())
