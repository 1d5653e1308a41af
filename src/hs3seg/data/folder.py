"""Any folder of images and masks."""

import time
import warnings
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np

from hs3seg.data.images import IMAGE_SUFFIXES, Encoding, check_ids, pack_colours, raw_mask
from hs3seg.data.mask_values import is_black_void, unpacked
from hs3seg.data.pairs import Exif, pair_files, read_list, read_pair, unique_names
from hs3seg.data.patterns import (
    SPLIT,
    Pattern,
    is_list_of_names,
    list_lines,
    pair_by_names,
    pair_by_pattern,
    picture_paths,
    same_letters,
)
from hs3seg.data.sample import Sample
from hs3seg.data.splits import fraction_split
from hs3seg.errors import DataError, Hs3Warning
from hs3seg.taxonomy import Colour, Taxonomy

_MAX_INFERRED = 200
_LONG = 10.0  # seconds of reading after which taxonomy.toml is recommended
_LOOKED_AT = 64  # masks, evenly over a split; the first with another id than 0 and 255 ends it
_DEFAULT_SPLITS = ("train", "val")


class FolderDataset:
    """One split of a folder.

    Three layouts are understood, tried in this order:

    1. ROOT/SPLIT.txt with `image mask` per line, paths relative to ROOT, with a tab between them if names have spaces;
       a list of images alone is passed over where it names those in the folders of 2. or 3.;
    2. ROOT/images/SPLIT and ROOT/masks/SPLIT with files of equal stems;
    3. ROOT/SPLIT/images and ROOT/SPLIT/masks.

    Where no split exists at all, i.e. ROOT/images and ROOT/masks hold files directly, `train` and `val` are a seeded
    4:1 cut of them. Any other layout is told by patterns.

    Args:
        root: ROOT.
        split: Name of the split.
        taxonomy: Classes.
        images: Name of the image folder.
        masks: Name of the mask folder.
        encoding: `index`, `rgb`, `palette`, or `auto`; see `read_mask`.
        ignore_ids: Ids in the files that mean ignore, besides the taxonomy's own.
        seed: Of a cut.
        image_pattern: Where images are below ROOT instead, e.g. `**/*_img.png` or `{split}/rgb/*.*`; see `Pattern`.
        mask_pattern: The same of masks, e.g. `**/*_mask.png`.
        split_list: List of a split, relative to ROOT, instead of SPLIT.txt, e.g. `lists/{split}.txt`; it may also have
            one name per line: the image's path, with or without suffix, or its stem.
        split_fractions: Share of each split, instead of 4:1; then neither lists nor folders of splits are looked for.
        ids: Id in the files of each class, e.g. (0, 255); empty = class c has id c.
        ignore_colours: Colours in the files that mean ignore, besides black.
        exif: What an orientation in an image's EXIF turns; all come upright.

    Raises:
        DataError: no such split, or an empty one; a file without its partner; a list entry outside the root; masks of
            0 and 255 alone, where 255 means ignore only because nothing says otherwise.
    """

    def __init__(
        self,
        root: Path | str,
        split: str,
        taxonomy: Taxonomy,
        images: str = "images",
        masks: str = "masks",
        encoding: Encoding = "auto",
        ignore_ids: Sequence[int] = (),
        seed: int = 0,
        *,
        image_pattern: str = "",
        mask_pattern: str = "",
        split_list: str = "",
        split_fractions: Mapping[str, float] | None = None,
        ids: Sequence[int] = (),
        ignore_colours: Sequence[Colour] = (),
        exif: Exif = "auto",
    ) -> None:
        check_ids(ids, taxonomy)
        self.taxonomy, self.split = taxonomy, split
        self._encoding: Encoding = encoding
        self._exif: Exif = exif
        self._ids, self._ignore_ids, self._ignore_colours = tuple(ids), tuple(ignore_ids), tuple(ignore_colours)
        self._pairs = find_pairs(
            Path(root), split, images, masks, seed, image_pattern, mask_pattern, split_list, split_fractions
        )
        self._names = unique_names(Path(root), [image for image, _ in self._pairs])
        self._check_foreground()

    @property
    def names(self) -> Sequence[str]:
        """File stems, or paths where two stems are equal."""
        return self._names

    def __len__(self) -> int:
        return len(self._pairs)

    def read(self, index: int) -> Sample:
        """One image with its labels."""
        image, mask = self._pairs[index]
        sample = read_pair(
            image,
            mask,
            self.taxonomy,
            self._encoding,
            self._ignore_ids,
            self._ids,
            self._ignore_colours,
            self._exif,
        )
        return Sample(sample.image, sample.mask, self._names[index])

    def files(self, index: int) -> tuple[str, ...]:
        """Image and mask."""
        image, mask = self._pairs[index]
        return str(image), str(mask)

    def _check_foreground(self) -> None:
        """Refuses masks of 0 and 255 alone, of which every 255 would silently be ignored, unless that is asked for.

        The first mask with another id ends it, so that few are read of most sets.
        """
        said = self._ids or 255 in self._ignore_ids or -1 in self._ignore_ids
        if said or self.taxonomy.ignore_index != 255 or self._encoding in ("rgb", "palette"):
            return
        step = max(1, len(self._pairs) // _LOOKED_AT)
        seen: set[int] = set()
        for _, mask in self._pairs[::step]:
            try:
                raw = raw_mask(mask)
            except DataError:  # told when it is read, with its place
                return
            seen |= {-1} if raw.ndim == 3 else {int(raw.min()), int(raw.max())}
            if seen - {0, 255} or not np.isin(raw, (0, 255)).all():
                return
        if seen == {0, 255}:
            raise DataError(
                f"{mask}: like the other masks of split '{self.split}', it holds nothing but 0 and 255, and 255 means"
                f" ignore, which leaves one of the {self.taxonomy.num_classes} classes; if 255 is a class, name two"
                " classes in taxonomy.toml and set data.ids = [0, 255] (`hs3 data init` does both); if it is none, set"
                " data.ignore_ids = [255]"
            )


def find_pairs(
    root: Path,
    split: str,
    images: str,
    masks: str,
    seed: int,
    image_pattern: str = "",
    mask_pattern: str = "",
    split_list: str = "",
    split_fractions: Mapping[str, float] | None = None,
) -> list[tuple[Path, Path]]:
    """Image and mask files of a split; see `FolderDataset` for layouts and arguments."""
    if not root.is_dir():
        raise DataError(f"data folder '{root}' does not exist; give the top folder of images and masks")
    patterns = _patterns(image_pattern, mask_pattern)
    if split_fractions and (split_list or (patterns and patterns[0].has_split)):
        said = "data.split_list" if split_list else "'{split}' in data.image_pattern"
        raise DataError(f"data.split_fractions cuts splits at random, but {said} says where they are; remove one")
    if patterns and patterns[0].has_split and not split_list:
        return pair_by_pattern(root, patterns[0].of_split(split), patterns[1].of_split(split))
    listed = root / (split_list.replace(SPLIT, split) or f"{split}.txt")
    if split_list and not listed.is_file():
        raise DataError(f"list '{listed}' of split '{split}' does not exist; correct data.split_list = '{split_list}'")
    if not split_fractions and (split_list or patterns) and listed.is_file():
        return _listed(root, split, listed, *(patterns or _default_patterns(images, masks)))
    if patterns:
        return _cut(root, pair_by_pattern(root, *patterns), split, seed, split_fractions)
    if not split_fractions:
        if own := list_of_pairs(root, split, images, masks):
            return _pairs_of_list(root, own)
        for image_folder, mask_folder in _split_folders(root, split, images, masks):
            if image_folder.is_dir() and mask_folder.is_dir():
                return pair_files(image_folder, mask_folder)
            for here, there in ((image_folder, mask_folder), (mask_folder, image_folder)):
                if here.is_dir():
                    raise DataError(f"folder '{here}' exists, but '{there}' does not; a split needs images and masks")
    if _has_files(root / images) and _has_files(root / masks) and (split_fractions or split in _DEFAULT_SPLITS):
        return _cut(root, pair_files(root / images, root / masks), split, seed, split_fractions)
    raise DataError(
        f"split '{split}' was not found in '{root}'; expected {split}.txt, or {images}/{split} and {masks}/{split}, or"
        f" {split}/{images} and {split}/{masks}; the folder holds:"
        f" {', '.join(sorted(p.name for p in root.iterdir())[:12]) or 'nothing'}; or set data.image_pattern and"
        " data.mask_pattern"
    )


def list_of_pairs(root: Path, split: str, images: str, masks: str) -> Path | None:
    """ROOT/SPLIT.txt, where it says which pairs are in a split.

    A list of images alone, as other tools write it, does not, if it names just those in the split's own folder. One
    that names others contradicts the folder, which is not to be settled here.

    Raises:
        DataError: not UTF-8.
    """
    listed = root / f"{split}.txt"
    if not listed.is_file():
        return None
    found = (a for a, b in _split_folders(root, split, images, masks) if a.is_dir() and b.is_dir())
    if (folder := next(found, None)) is None:
        return listed
    lines = [line for line in list_lines(listed) if line]
    named = {same_letters(_stem(line.replace("\\", "/").rpartition("/")[2])) for line in lines}
    files = (path.name for path in folder.iterdir() if not path.name.startswith("."))
    there = {same_letters(_stem(name)) for name in files if name != _stem(name)}
    pattern = Pattern(f"**/{images}/**/*.*", "data.images")
    return None if named == there and is_list_of_names(lines, root, pattern) else listed


def taxonomy_of_folder(root: Path | str, file: str = "", masks: str = "masks", mask_pattern: str = "") -> Taxonomy:
    """Classes of a folder: those of a file, of ROOT/taxonomy.toml, or what the masks show.

    Args:
        root: Top folder.
        file: Instead of ROOT/taxonomy.toml.
        masks: See `infer_taxonomy`.
        mask_pattern: Likewise.

    Raises:
        DataError: a file that cannot be used, or masks that do not tell.
    """
    if file:
        return Taxonomy.load(Path(file))
    if (own := Path(root) / "taxonomy.toml").exists():
        return Taxonomy.load(own)
    return infer_taxonomy(root, masks=masks, mask_pattern=mask_pattern)


def infer_taxonomy(root: Path | str, masks: str = "masks", mask_pattern: str = "") -> Taxonomy:
    """Classes read off the mask files: the ids that occur (0..highest), or the colours, most frequent first.

    A process reads them once, unless files come, go or change.

    Black is a class like the others, unless it is on less than 10 % of the pixels of more than three colours: then it
    is taken for unlabelled, as `hs3 data init` does it.

    Args:
        root: Top folder.
        masks: Name of the mask folder.
        mask_pattern: Which files are masks, instead; see `Pattern`.

    Raises:
        DataError: no mask files, colours and ids mixed, fewer than two classes, or so many values that these are no
            masks.
    """
    root = Path(root)
    files = [root / path for path in _mask_paths(root, masks, mask_pattern)]
    if not files and mask_pattern:
        raise DataError(f"no file below '{root}' fits data.mask_pattern = '{mask_pattern}'")
    files = files or [mask for path in sorted(root.glob("*.txt")) for _, mask in read_list(root, path)]
    if not files:
        raise DataError(f"no mask files below a folder '{masks}' in '{root}'; name the folder in data.masks")
    states = tuple((str(file), *_state(file)) for file in files)
    # A file that was written just now may be written again within one tick of the file system's clock.
    is_fresh = max(time_ns for _, _, time_ns in states) > time.time_ns() - 2 * 10**9
    return (_read_taxonomy.__wrapped__ if is_fresh else _read_taxonomy)(root, states)


def _state(file: Path) -> tuple[int, int]:
    try:
        found = file.stat()
    except OSError:  # reading it says what is wrong
        return -1, -1
    return found.st_size, found.st_mtime_ns


@lru_cache(maxsize=8)
def _read_taxonomy(root: Path, files: tuple[tuple[str, int, int], ...]) -> Taxonomy:
    """Classes of mask files, each with its size and time; see `infer_taxonomy`."""
    ids: set[int] = set()
    colours: dict[int, int] = {}
    start = time.monotonic()
    for file, _, _ in files:
        raw = raw_mask(Path(file))
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
    if (seconds := time.monotonic() - start) > _LONG:
        warnings.warn(
            f"reading all {len(files)} masks in '{root}' to find their classes took {seconds:.0f} s, and every process"
            " does it; `hs3 data init` writes them into taxonomy.toml",
            Hs3Warning,
            stacklevel=2,
        )
    if ids:
        highest = max((i for i in ids if i != 255), default=0)
        if highest == 0 or highest >= _MAX_INFERRED:
            raise DataError(
                f"the masks in '{root}' hold the ids {sorted(ids)[:8]}, where 255 means ignore; that makes"
                f" {'one class' if highest == 0 else f'{highest + 1} classes'}; write ids 0, 1, 2, ... (a foreground"
                " of 255 as 1), or list the classes in taxonomy.toml and their ids in data.ids (`hs3 data init` writes"
                " both)"
            )
        return Taxonomy.from_names([f"class_{i}" for i in range(highest + 1)])
    if is_black_void(colours):
        del colours[0]
    ranked = sorted(colours, key=lambda c: -colours[c])
    if len(ranked) < 2:
        raise DataError(
            f"the masks in '{root}' have no colour but {unpacked(ranked[0])}; that makes one class, and two are needed;"
            " list the classes, black among them if it is one, in taxonomy.toml (`hs3 data init` writes a first one)"
        )
    return Taxonomy.from_names([f"colour_{c:06x}" for c in ranked], [unpacked(c) for c in ranked])


def _patterns(image_pattern: str, mask_pattern: str) -> tuple[Pattern, Pattern] | None:
    if not image_pattern and not mask_pattern:
        return None
    patterns = Pattern(image_pattern, "data.image_pattern"), Pattern(mask_pattern, "data.mask_pattern")
    if patterns[0].has_split != patterns[1].has_split:
        raise DataError(
            f"one of data.image_pattern = '{image_pattern}' and data.mask_pattern = '{mask_pattern}' has '{SPLIT}';"
            " write it into both or none"
        )
    return patterns


def _stem(name: str) -> str:
    """A file's name without the suffix of a picture."""
    stem, dot, suffix = name.rpartition(".")
    return stem if dot + suffix.lower() in IMAGE_SUFFIXES else name


def _split_folders(root: Path, split: str, images: str, masks: str) -> list[tuple[Path, Path]]:
    """Where images and masks of a split may be, the first choice first."""
    return [(root / images / split, root / masks / split), (root / split / images, root / split / masks)]


def _default_patterns(images: str, masks: str) -> tuple[Pattern, Pattern]:
    return Pattern(f"{images}/**/*.*", "data.images"), Pattern(f"{masks}/**/*.*", "data.masks")


def _listed(root: Path, split: str, listed: Path, images: Pattern, masks: Pattern) -> list[tuple[Path, Path]]:
    lines = [line for line in list_lines(listed) if line]
    images, masks = images.of_split(split), masks.of_split(split)
    if lines and is_list_of_names(lines, root, images):
        return pair_by_names(root, listed, images, masks)
    return _pairs_of_list(root, listed)


def _pairs_of_list(root: Path, listed: Path) -> list[tuple[Path, Path]]:
    lines = [line for line in list_lines(listed) if line]
    if lines and not any(len(line.split()) > 1 for line in lines):
        raise DataError(
            f"{listed}:1: '{lines[0]}' has 1 parts; write `image mask`, or, if the list has one name per line, set"
            f" data.split_list = '{SPLIT}.txt'"
        )
    return [(image, mask) for image, mask in read_list(root, listed)]


def _cut(
    root: Path, pairs: list[tuple[Path, Path]], split: str, seed: int, fractions: Mapping[str, float] | None
) -> list[tuple[Path, Path]]:
    if fractions:
        return [pairs[index] for index in fraction_split(len(pairs), fractions, split, seed)]
    if split not in _DEFAULT_SPLITS:
        raise DataError(
            f"'{root}' says of no image that it is in split '{split}'; write '{SPLIT}' into data.image_pattern and"
            " data.mask_pattern, or set data.split_list or data.split_fractions"
        )
    order = np.random.default_rng(seed).permutation(len(pairs))
    held_out = set(order[: max(1, round(len(pairs) / 5))].tolist())
    if len(pairs) == len(held_out) and split == "train":
        raise DataError(f"split 'train' is empty: '{root}' has {len(pairs)} image, which is in val; add images")
    return [pair for index, pair in enumerate(pairs) if (index in held_out) == (split == "val")]


def _mask_paths(root: Path, masks: str, mask_pattern: str) -> list[str]:
    if not mask_pattern:
        return [path for path in picture_paths(root) if masks in Path(path).parts]
    pattern = Pattern(mask_pattern.replace(SPLIT, "*"), "data.mask_pattern")
    return [path for path in picture_paths(root) if pattern.match(path) is not None]


def _has_files(folder: Path) -> bool:
    return folder.is_dir() and any(p.is_file() and p.suffix.lower() in IMAGE_SUFFIXES for p in folder.iterdir())
