"""Which files of an unknown folder are images, which are masks, and how they are split."""

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from hs3seg.data.folder import find_pairs, list_of_pairs
from hs3seg.data.images import raw_mask
from hs3seg.data.patterns import SPLIT, Pattern, files_below, match_pairs, picture_paths
from hs3seg.errors import DataError

_TRAIN = ("train", "training", "trn")
_VAL = ("val", "valid", "validation", "dev")
_TEST = ("test", "testing", "tst")
_SPLITS = (*_TRAIN, *_VAL, *_TEST)
# fmt: off
_IMAGE_WORDS = frozenset((
    "images", "image", "imgs", "img", "jpegimages", "rgb", "photos", "photo", "pictures", "frames", "input", "inputs",
    "leftimg8bit", "raw", "original", "originals",
))
_MASK_WORDS = frozenset((
    "masks", "mask", "labels", "label", "annotations", "annotation", "annot", "anno", "gt", "gts", "groundtruth",
    "ground_truth", "segmentation", "segmentations", "segmentationclass", "seg", "segs", "semantic", "target",
    "targets", "labelids", "lbl", "gtfine",
))
# fmt: on
_MASK_AFFIXES = tuple(
    mark + word
    for word in ("mask", "masks", "label", "labels", "labelIds", "gt", "GT", "seg", "segmentation", "annot", "L", "P")
    for mark in "_-."
)
_IMAGE_AFFIXES = tuple(mark + word for word in ("img", "image", "im", "rgb", "sat", "leftImg8bit") for mark in "_-.")
_MASK_PREFIXES = ("mask_", "label_", "gt_", "seg_")
_IMAGE_PREFIXES = ("img_", "image_", "im_", "rgb_")
_SAMPLED = 300  # paths of a folder that are looked at to tell patterns apart
_MOST_FOLDERS = 24


@dataclass(frozen=True)
class FoundLayout:
    """How a folder is laid out.

    Args:
        data: Keys of the config's data section that say so, for `FolderDataset`.
        splits: Names of the splits, train first; of a seeded cut, what it makes.
        pairs: Image and mask files that belong together.
        notes: What is to be known about it.
    """

    data: dict[str, Any]
    splits: tuple[str, ...]
    pairs: list[tuple[Path, Path]]
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class _Candidate:
    images: Pattern
    masks: Pattern
    is_named: bool  # whether words say which of the two holds masks
    matched: int
    alone: int

    @property
    def rank(self) -> tuple[bool, int, int, int]:
        return self.is_named, self.matched, -self.alone, -len(self.images.text) - len(self.masks.text)


def guess_layout(root: Path) -> FoundLayout:
    """Finds images, masks and splits by the names of folders and files, and by the look of files if names do not tell.

    Raises:
        DataError: no pictures, or no two that belong together; what was looked for is named.
    """
    root = Path(root)
    if not root.is_dir():
        raise DataError(f"data folder '{root}' does not exist; give the top folder of images and masks")
    paths = picture_paths(root)
    if not paths:
        raise DataError(f"'{root}' holds no pictures; give the top folder of images and masks (an archive: unpack it)")
    lists = _lists(root)
    best = next((c for c in _candidates(root, paths) if _try(root, paths, c.images.text, c.masks.text, True)), None)
    if best is None:
        if found := _of_pair_lists(root, lists):
            return found
        folders = sorted({path.rpartition("/")[0] or "." for path in paths})
        raise DataError(
            f"no images and masks that belong together in '{root}', which has {len(paths)} pictures in"
            f" {', '.join(folders[:8])}{', ...' if len(folders) > 8 else ''}; give them equal names in folders such as"
            " images and masks, or set data.image_pattern and data.mask_pattern in a config"
        )
    if not best.is_named:
        best = _by_content(root, paths, best)
    return _layout(root, paths, best, lists)


def _layout(root: Path, paths: list[str], best: _Candidate, lists: list[tuple[str, tuple[str, ...]]]) -> FoundLayout:
    data = _keys(best)
    found, labels = match_pairs(root, _any_split(best.images), _any_split(best.masks), paths)
    keys = [key for key in found if key in labels]
    notes = [f"Images are {best.images.text}, masks are {best.masks.text}: {len(keys)} pairs."]
    known = _published(root)
    if known:
        notes.append(known)
    for what, files, others in (("images", found, labels), ("masks", labels, found)):
        alone = sorted(files[key] for key in files if key not in others)
        if alone and (best.images.has_split or not lists):
            notes.append(
                f"WRONG: {len(alone)} {what} have no partner, e.g. {alone[0]}; training refuses them: remove or"
                " complete them (`hs3 data check` lists all)."
            )
    if best.images.has_split:
        number = len(re.findall(r"\*\*/|\*", best.images.text.partition(SPLIT)[0]))
        names = tuple(sorted({key[number] for key in keys}, key=_split_order))
        pairs = _open(root, names, data)
        if isinstance(pairs, DataError) and "images" in data:
            by_pattern = {"image_pattern": best.images.text, "mask_pattern": best.masks.text}
            if not isinstance(again := _open(root, names, by_pattern), DataError):
                notes.append(f"Patterns say where files are, since the names of their folders do not suffice: {pairs}")
                data, pairs = by_pattern, again
        if isinstance(pairs, DataError):
            pairs = _paths(root, found, labels, keys)
        if unused := [text for text, _ in lists if not _is_used(root, names, data, text)]:
            notes.append(f"Folders say what is in a split; the lists {', '.join(unused)} are not used.")
        return FoundLayout(data, names, pairs, notes)
    for text, splits in lists:
        options = {**data, "split_list": text}
        pairs = _open(root, splits, options)
        if isinstance(pairs, DataError):
            notes.append(f"WRONG: lists {text} were found, but cannot be used: {pairs}")
            continue
        notes.append(f"Splits are the lists {text}.")
        return FoundLayout(options, splits, pairs, notes)
    notes.append("No splits were found; 80 % of the images train and 20 % validate, drawn by the config's seed.")
    data["split_fractions"] = {"train": 0.8, "val": 0.2}
    return FoundLayout(data, ("train", "val"), _paths(root, found, labels, keys), notes)


def pairs_of(root: Path, split: str, data: dict[str, Any], seed: int = 0) -> list[tuple[Path, Path]]:
    """Pairs of a split by keys of the config's data section, as `FoundLayout.data` has them."""
    return find_pairs(
        root,
        split,
        data.get("images", "images"),
        data.get("masks", "masks"),
        seed,
        data.get("image_pattern", ""),
        data.get("mask_pattern", ""),
        data.get("split_list", ""),
        data.get("split_fractions"),
    )


def _open(root: Path, splits: tuple[str, ...], data: dict[str, Any]) -> list[tuple[Path, Path]] | DataError:
    """Pairs of all splits as the config will be read, or why it cannot be."""
    try:
        return [pair for split in splits for pair in pairs_of(root, split, data)]
    except DataError as error:
        return error


def _is_used(root: Path, splits: tuple[str, ...], data: dict[str, Any], text: str) -> bool:
    """Whether lists are read although no key of the config says so."""
    if "images" not in data or text != f"{SPLIT}.txt":
        return False
    return any(list_of_pairs(root, split, data["images"], data["masks"]) for split in splits)


def _paths(
    root: Path, found: dict[tuple[str, ...], str], labels: dict[tuple[str, ...], str], keys: list[tuple[str, ...]]
) -> list[tuple[Path, Path]]:
    return [(root / found[key], root / labels[key]) for key in keys]


def _candidates(root: Path, paths: list[str]) -> list[_Candidate]:
    """Pairs of patterns that fit at least one pair of files, the best first."""
    found: list[_Candidate] = []
    common = set.intersection(*(set(path.split("/")[:-1]) for path in paths))
    for general in (True, False):
        sampled: dict[str, list[str]] = {}
        for path in paths:
            kept = sampled.setdefault(_folder_pattern(path.rpartition("/")[0], common, general), [])
            if len(kept) < _SAMPLED:
                kept.append(path)
        if len(sampled) > _MOST_FOLDERS:
            continue
        texts = {
            "/".join(part for part in (folder, name) if part): folder
            for folder, files in sampled.items()
            for name in _names(files)
        }
        named = [text for text in texts if _says_mask(text)]
        found += [
            candidate
            for mask in named or texts
            for image in texts
            if image != mask and not _says_mask(image)
            if (candidate := _try(root, sampled[texts[image]] + sampled[texts[mask]], image, mask, bool(named)))
        ]
    return sorted(found, key=lambda candidate: candidate.rank, reverse=True)


def _try(root: Path, paths: list[str], image: str, mask: str, is_named: bool) -> _Candidate | None:
    images, masks = Pattern(image, "data.image_pattern"), Pattern(mask, "data.mask_pattern")
    if images.has_split != masks.has_split:
        return None
    try:
        found, labels = match_pairs(root, _any_split(images), _any_split(masks), sorted(set(paths)))
    except DataError:
        return None
    matched = len(set(found) & set(labels))
    return _Candidate(images, masks, is_named, matched, len(set(found) ^ set(labels))) if matched else None


def _folder_pattern(folder: str, common: set[str], general: bool) -> str:
    """A folder with its split, and with ** for parts that mean nothing."""
    parts: list[str] = []
    has_split = False
    for part in folder.split("/") if folder else []:
        word = re.fullmatch(rf"({'|'.join(sorted(_SPLITS, key=len, reverse=True))})([_-]?)(\w*)", part, re.IGNORECASE)
        if word and not has_split and (not word[3] or _is_word(word[3])):
            parts.append(SPLIT + part[len(word[1]) :])
            has_split = True
        elif _is_word(part) or part in common or not general:
            parts.append(part)
        elif not parts or parts[-1] != "**":
            parts.append("**")
    return "/".join(parts)


def _names(paths: list[str]) -> list[str]:
    """Patterns of file names: any, with a word before or after, or a word alone."""
    stems = [path.rpartition("/")[2].rpartition(".")[0] for path in paths]
    ends = [f"*{word}.*" for word in _MASK_AFFIXES + _IMAGE_AFFIXES if any(stem.endswith(word) for stem in stems)]
    starts = [f"{word}*.*" for word in _MASK_PREFIXES + _IMAGE_PREFIXES if any(stem.startswith(word) for stem in stems)]
    alone = sorted({f"{stem}.*" for stem in stems if _is_word(stem)})
    return ["*.*", *ends, *starts, *alone]


def _says_mask(pattern: str) -> bool:
    words = re.split(r"[/*.]+", pattern.replace(SPLIT, ""))
    return any(_plain(word) in _MASK_WORDS or word in ("_L", "_P", "-L", "-P") for word in words)


def _is_word(part: str) -> bool:
    return _plain(part) in _IMAGE_WORDS | _MASK_WORDS


def _plain(word: str) -> str:
    """`label` for `_Label40`."""
    return word.lower().strip("_-0123456789")


def _any_split(pattern: Pattern) -> Pattern:
    return Pattern(pattern.text.replace(SPLIT, "*"), pattern.key)


def _by_content(root: Path, paths: list[str], candidate: _Candidate) -> _Candidate:
    """Masks are those with fewer values, where names do not tell."""
    found, labels = match_pairs(root, _any_split(candidate.images), _any_split(candidate.masks), paths)
    keys = sorted(set(found) & set(labels))[:5]
    counts = [sum(_num_values(root / files[key]) for key in keys) for files in (found, labels)]
    if counts[0] >= counts[1]:
        return candidate
    images = Pattern(candidate.masks.text, candidate.images.key)
    masks = Pattern(candidate.images.text, candidate.masks.key)
    return _Candidate(images, masks, True, candidate.matched, candidate.alone)


def _num_values(path: Path) -> int:
    raw = raw_mask(path)
    return len(np.unique(raw.reshape(-1, raw.shape[2]) if raw.ndim == 3 else raw.reshape(-1, 1), axis=0))


def _keys(best: _Candidate) -> dict[str, Any]:
    """Keys of the config: names of the two folders where these are enough."""
    image, mask = best.images.text, best.masks.text
    for form in ("{}/*.*", "{}/" + SPLIT + "/*.*", SPLIT + "/{}/*.*"):
        head, tail = form.split("{}")
        names = [text.removeprefix(head).removesuffix(tail) for text in (image, mask)]
        if all(
            text == head + name + tail and re.fullmatch(r"[^/*?\[{]+", name)
            for text, name in zip((image, mask), names, strict=True)
        ):
            return {"images": names[0], "masks": names[1]}
    return {"image_pattern": image, "mask_pattern": mask}


def _lists(root: Path) -> list[tuple[str, tuple[str, ...]]]:
    """Lists of splits: their pattern, and the splits, the most and nearest first."""
    groups: dict[str, list[str]] = {}
    for path in sorted(files_below(root)):
        if path.suffix == ".txt" and path.stem.lower() in _SPLITS:
            folder = path.parent.relative_to(root).as_posix()
            groups.setdefault("" if folder == "." else f"{folder}/", []).append(path.stem)
    ranked = sorted(groups.items(), key=lambda item: (-len(item[1]), "segmentation" not in item[0].lower(), item[0]))
    return [
        (f"{folder}{SPLIT}.txt", tuple(sorted(splits, key=_split_order)))
        for folder, splits in ranked
        if any(split.lower() in _TRAIN for split in splits)
    ]


def _of_pair_lists(root: Path, lists: list[tuple[str, tuple[str, ...]]]) -> FoundLayout | None:
    """Lists with `image mask` lines need no names that fit."""
    for text, splits in lists:
        data = {"split_list": text}
        pairs = [pair for split in splits for pair in pairs_of(root, split, data)]
        return FoundLayout(data, splits, pairs, [f"Images and masks are those of the lists {text}."])
    return None


def _split_order(split: str) -> tuple[int, str]:
    word = split.lower()
    return next((n for n, words in enumerate((_TRAIN, _VAL, _TEST)) if word in words), 3), split


def _published(root: Path) -> str:
    """Says so where a folder looks like a data set that has a reader of its own."""
    for kind, folders in (
        ("cityscapes", ("leftImg8bit", "gtFine")),
        ("voc", ("JPEGImages", "SegmentationClass")),
        ("ade20k", ("annotations", "objectInfo150.txt")),
        ("camvid", ("701_StillsRaw_full",)),
    ):
        if all((root / name).exists() for name in folders):
            return f"This looks like a published data set; if it is, data.kind = '{kind}' has its classes and splits."
    return ""
