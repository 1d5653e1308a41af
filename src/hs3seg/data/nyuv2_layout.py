"""Where the files of NYU-Depth-v2 lie: the usual public folder layouts.

- ROOT/train.txt, test.txt with `rgb depth label` per line;
- the same with `rgb label` per line, and folders such as ROOT/Depth and ROOT/HHA with files of equal names (SA-Gate);
- the same with one name per line, and such folders below ROOT or ROOT/train, ROOT/test (ESANet);
- no lists: folders below ROOT/train and ROOT/test, or ROOT/rgb/train, ...; or folders of all 1449 frames, whose numbers
  from 0 or 1 give the official split.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from hs3seg.data.depth import DEPTH_SUFFIXES
from hs3seg.data.images import IMAGE_SUFFIXES
from hs3seg.data.pairs import read_list, unique_names
from hs3seg.errors import DataError
from hs3seg.taxonomies.nyuv2 import NUM_FRAMES, OFFICIAL_SPLITS

# Role -> folder names, in lower case and without `_`, `-` and spaces.
_RGB = ("rgb", "image", "images", "img", "imgs", "color", "colour", "rgbimages")
_FOLDERS = {
    "filled": ("depth", "depths", "depthfilled", "filleddepth", "depthinpainted"),
    "raw": ("depthraw", "rawdepth", "rawdepths", "depthsraw"),
    "hha": ("hha", "hhas", "hhaimages"),
}
_LABELS = ("label", "labels", "seg", "segmentation", "semantic", "mask", "masks", "gt")
_LISTS = ("", "splits", "lists", "gt_sets")

Find = Callable[[str, int], Path | None]


@dataclass(frozen=True, slots=True)
class Frame:
    """The files of one frame; None where the layout has none.

    Args:
        name: Unique in its split.
        rgb: Colour image.
        label: Label image.
        filled: In-filled depth.
        raw: Depth as measured, with holes.
        hha: HHA picture.
    """

    name: str
    rgb: Path
    label: Path
    filled: Path | None = None
    raw: Path | None = None
    hha: Path | None = None


def find_frames(root: Path, split: str, classes: int = 40, needed: Sequence[str] = ()) -> tuple[tuple[Frame, ...], str]:
    """The frames of a split, and a sentence that says how they were found.

    Args:
        root: The data set.
        split: train, test, or the name of another list or folder that is there.
        classes: Label folders with this number in their names come first.
        needed: Roles (`filled`, `raw`, `hha`) whose files must exist where a list names them.

    Raises:
        DataError: no such split, a line of a list that cannot be used, or a frame without label.
    """
    root = Path(root)
    for folder in _LISTS:
        listed = root / folder / f"{split}.txt"
        if listed.is_file():
            return _from_list(root, listed, split, classes, needed)
    pair = _rgb_folder(root, split)
    if pair:
        rgb, find = pair
        frames = _from_folder(root, rgb, lambda role: find(role, classes))
        return frames, f"Frames are all of '{rgb}'; no list '{split}.txt' is there."
    whole = _whole(root, split, classes)
    if whole:
        return whole
    found = [f"{name}.txt" for name in ("train", "test") if any((root / at / f"{name}.txt").is_file() for at in _LISTS)]
    raise DataError(
        f"NYU-Depth-v2 split '{split}' needs the list '{root / split}.txt', which does not exist; official splits:"
        f" train, test (there is no val); lists found: {', '.join(found) or 'none'}; without lists, the folders"
        f" '{root / split / 'rgb'}' and '{root / split / 'label'}', or folders of all {NUM_FRAMES} frames, or"
        " nyu_depth_v2_labeled.mat are read"
    )


def _from_list(
    root: Path, listed: Path, split: str, classes: int, needed: Sequence[str]
) -> tuple[tuple[Frame, ...], str]:
    columns = _num_columns(listed)
    note = f"Frames are those of '{listed}'."
    bases = (root, root / split)

    def folder(role: str) -> Path | None:
        return next((found for base in bases if (found := _find(base, role, classes))), None)

    if columns == 1:
        rgb = folder("rgb")
        if rgb is None:
            raise DataError(
                f"{listed}: has one name per line, but there is no folder of images: '{root / 'rgb'}' or"
                f" '{root / split / 'rgb'}'"
            )
        return _from_folder(root, rgb, folder, _names(listed)), note
    if columns == 2:
        pairs = read_list(root, listed, ("rgb", "label"))
        names = unique_names(root, [rgb for rgb, _ in pairs])
        others = {role: _Files(found) for role in _FOLDERS if (found := folder(role))}
        frames = [
            Frame(name, rgb, label, **{role: files.of(rgb.stem) for role, files in others.items()})
            for name, (rgb, label) in zip(names, pairs, strict=True)
        ]
        return tuple(frames), note
    unread = () if "filled" in needed or "raw" in needed else ("depth",)
    triples = read_list(root, listed, ("rgb", "depth", "label"), unread)
    names = unique_names(root, [rgb for rgb, _, _ in triples])
    pictures = folder("hha")
    hha = _Files(pictures) if pictures else None
    return tuple(
        Frame(name, rgb, label, depth, depth, hha.of(rgb.stem) if hha else None)
        for name, (rgb, depth, label) in zip(names, triples, strict=True)
    ), note


def _from_folder(
    root: Path, rgb: Path, folder: Callable[[str], Path | None], names: Sequence[str] | None = None
) -> tuple[Frame, ...]:
    """Frames of an image folder and its neighbours; `names`: which of them, default all."""
    labels = folder("label")
    if labels is None:
        raise DataError(
            f"images in '{rgb}' have no folder of labels beside them; its name is to be one of {', '.join(_LABELS)},"
            " with or without a number of classes, e.g. label40"
        )
    images, masks = _Files(rgb), _Files(labels)
    others = {role: _Files(found) for role in _FOLDERS if (found := folder(role))}
    frames = []
    for stem in names if names is not None else images.stems:
        image, mask = images.of(stem), masks.of(stem)
        if image is None or mask is None:
            where, what = (rgb, "image") if image is None else (labels, "label")
            raise DataError(f"frame '{stem}' of '{root}' has no {what} '{where / stem}.*'; add it or remove the frame")
        frames.append(Frame(image.stem, image, mask, **{role: files.of(stem) for role, files in others.items()}))
    if not frames:
        raise DataError(f"no image in '{rgb}'; images end in {', '.join(sorted(IMAGE_SUFFIXES))}")
    return tuple(frames)


def _whole(root: Path, split: str, classes: int) -> tuple[tuple[Frame, ...], str] | None:
    """The official split of folders that hold every frame of the data set."""
    rgb = _find(root, "rgb", classes)
    if rgb is None or split not in OFFICIAL_SPLITS:
        return None
    numbers = {number: stem for stem in _Files(rgb).stems if (number := _number(stem)) is not None}
    first = next((first for first in (0, 1) if set(numbers) == set(range(first, first + NUM_FRAMES))), None)
    if first is None:
        return None
    names = [numbers[number - 1 + first] for number in OFFICIAL_SPLITS[split]]
    frames = _from_folder(root, rgb, lambda role: _find(root, role, classes), names)
    return frames, f"Frames are the official split of '{rgb}', whose numbers begin at {first}."


def _rgb_folder(root: Path, split: str) -> tuple[Path, Find] | None:
    """The image folder of a split, with what finds its neighbours: SPLIT/rgb, or rgb/SPLIT."""
    inside = root / split
    rgb = _find(inside, "rgb", 40)
    if rgb:
        return rgb, lambda role, classes: _find(inside, role, classes)
    parent = _find(root, "rgb", 40)
    if parent is None or not (parent / split).is_dir():
        return None

    def beside(role: str, classes: int) -> Path | None:
        found = _find(root, role, classes)
        return found / split if found and (found / split).is_dir() else None

    return parent / split, beside


def _find(base: Path, role: str, classes: int) -> Path | None:
    """The folder of a role directly below another one."""
    if not base.is_dir():
        return None
    folders = {_plain(path.name): path for path in sorted(base.iterdir()) if path.is_dir()}
    names: Sequence[str]
    if role == "rgb":
        names = _RGB
    elif role == "label":
        numbers = [str(classes), *(n for n in ("40", "", "894") if n != str(classes))]
        names = [f"{name}{number}" for number in numbers for name in _LABELS]
    else:
        names = _FOLDERS[role]
    return next((folders[name] for name in names if name in folders), None)


class _Files:
    """Files of a folder by stem, or by the last number in it where every stem has another one."""

    def __init__(self, folder: Path) -> None:
        suffixes = {*IMAGE_SUFFIXES, *DEPTH_SUFFIXES}
        self._paths: dict[str, Path] = {}
        for path in sorted(folder.iterdir()):
            if path.suffix.lower() in suffixes and path.is_file():
                if path.stem in self._paths:
                    raise DataError(
                        f"'{self._paths[path.stem]}' and '{path.name}' have one stem, so it is unclear which to take;"
                        " remove or rename one"
                    )
                self._paths[path.stem] = path
        numbers = {_number(stem): path for stem, path in self._paths.items()}
        self._numbers = numbers if len(numbers) == len(self._paths) and None not in numbers else {}

    @property
    def stems(self) -> list[str]:
        return list(self._paths)

    def of(self, stem: str) -> Path | None:
        return self._paths.get(stem) or self._numbers.get(_number(stem))


def _number(stem: str) -> int | None:
    """The last run of digits in a name."""
    digits = "".join(letter if letter.isdecimal() else " " for letter in stem).split()
    return int(digits[-1]) if digits else None


def _plain(name: str) -> str:
    return name.lower().replace("_", "").replace("-", "").replace(" ", "")


def _lines(listed: Path) -> list[str]:
    try:
        text = listed.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise DataError(f"{listed}: not UTF-8 text; save the list as UTF-8") from None
    return [line.strip() for line in text.splitlines() if line.strip()]


def _num_columns(listed: Path) -> int:
    first = next(iter(_lines(listed)), "")
    return len(first.split("\t") if "\t" in first else first.split())


def _names(listed: Path) -> list[str]:
    """Stems of a list with one name per line, each once."""
    stems: list[str] = []
    seen: set[str] = set()
    for number, line in enumerate(_lines(listed), start=1):
        stem = Path(line).stem if Path(line).suffix.lower() in IMAGE_SUFFIXES else line
        if "/" in line or "\\" in line:
            raise DataError(f"{listed}:{number}: '{line}' is a path; a list of one name per line holds file names")
        if stem in seen:
            raise DataError(f"{listed}:{number}: frame '{stem}' stands in the list twice; remove one of them")
        seen.add(stem)
        stems.append(stem)
    return stems
