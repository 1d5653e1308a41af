"""Where Cityscapes' files lie: folders as the official archives unpack, splits by city, files that belong together."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from hs3seg.data.images import IMAGE_SUFFIXES
from hs3seg.errors import DataError, nearest

Source = Literal["fine", "coarse", "autolabelled"]
Part = tuple[str, str]
"""(folder of a split, city), e.g. ("train", "aachen")."""

SPLITS = ("train", "val", "test", "train_extra")
NUM_FOLDS = 3

# Where each archive's top folder may be below the root; several archives hold a folder of their own name.
_PLACES = {
    "leftImg8bit": ("leftImg8bit", "leftImg8bit_trainvaltest/leftImg8bit", "leftImg8bit_trainextra/leftImg8bit"),
    "gtFine": ("gtFine", "gtFine_trainvaltest/gtFine"),
    "gtCoarse": ("gtCoarse", "gtCoarse/gtCoarse"),
    "disparity": ("disparity", "disparity_trainvaltest/disparity", "disparity_trainextra/disparity"),
    "refinement_final": (
        *("refinement_final", "refinement_final_v0/refinement_final", "refinement_final_v0", "autolabelled"),
    ),
}
_PNG = frozenset((".png",))


@dataclass(frozen=True, slots=True)
class LabelFile:
    """A label file, and whether it holds train ids instead of label ids."""

    path: Path
    train_ids: bool = False


@dataclass(frozen=True, slots=True)
class Frame:
    """One image and what belongs to it.

    Args:
        name: `city_sequence_frame`.
        image: RGB.
        label: None in test.
        disparity: Where asked for.
        probability: Of autolabelled frames: how sure each label is.
        coarse: Of autolabelled frames, where asked for: the label drawn by hand.
    """

    name: str
    image: Path
    label: LabelFile | None
    disparity: Path | None = None
    probability: Path | None = None
    coarse: LabelFile | None = None


def find_frames(
    root: Path, split: str, source: Source, cv: int, disparity: bool, with_coarse: bool
) -> tuple[list[Frame], list[str]]:
    """All frames of a split, by folder, city and name.

    Args:
        root: Top folder.
        split: train, val, test, train_extra, trainval, or several with `+` between them.
        source: Of labels; autolabelled = of train_extra, all others are fine.
        cv: See `parts_of`.
        disparity: Whether each frame needs one.
        with_coarse: Whether autolabelled frames need the coarse label too.

    Returns:
        Frames, and sentences on what was found.

    Raises:
        DataError: no such split, a folder that is missing, files without their partners.
    """
    frames: list[Frame] = []
    notes: list[str] = []
    parts = parts_of(root, split, cv)
    for folder in dict.fromkeys(folder for folder, _ in parts):
        cities = [city for of, city in parts if of == folder]
        found = _Finder(root, folder, cities)
        images = found.files("leftImg8bit", "_leftImg8bit", IMAGE_SUFFIXES)
        if not images:
            raise DataError(f"no image in '{found.place('leftImg8bit')}'; images are CITY/*_leftImg8bit.png")
        kind: Source = "fine" if source == "autolabelled" and folder != "train_extra" else source
        labels: dict[str, LabelFile] = {}
        probabilities: dict[str, Path] = {}
        coarse: dict[str, LabelFile] = {}
        if folder == "test":
            notes.append("Split test has no public labels: all its pixels are ignored.")
        elif kind == "autolabelled":
            labels, probabilities = found.autolabelled(images)
            coarse = found.labels("gtCoarse", images, notes) if with_coarse else {}
        else:
            labels = found.labels("gtFine" if kind == "fine" else "gtCoarse", images, notes)
        depths = found.files("disparity", "_disparity", _PNG) if disparity else {}
        if disparity:
            _all_there(images, depths, found.place("disparity"), "_disparity.png")
        frames += [
            Frame(name, path, labels.get(name), depths.get(name), probabilities.get(name), coarse.get(name))
            for name, path in images.items()
        ]
    return frames, notes


def parts_of(root: Path, split: str, cv: int) -> list[Part]:
    """Folders and cities of a split.

    cv 0 is the official division into train and val. For cv 1 and 2, val is another window of as many cities in the
    list of the official val's cities and then train's, each sorted; it starts at cv * (number of cities) // 3. With
    cv 3, train is train and val together, and val is the official one, which is then part of it. Source:
    cities_cv_split in datasets/cityscapes.py of github NVIDIA/semantic-segmentation; there cv 3 has all cities in val,
    too.

    Raises:
        DataError: no such split or cv; a folder that is missing.
    """
    if cv not in range(NUM_FOLDS + 1):
        raise DataError(
            f"Cityscapes with cv = {cv!r}; allowed: 0 (official), 1, 2 (other cities), 3 (train has val too)"
        )
    parts: list[Part] = []
    for word in split.replace("trainval", "train+val").split("+"):
        if word not in SPLITS:
            raise DataError(
                f"Cityscapes has no split '{split}'; allowed: trainval, {', '.join(SPLITS)}, or several with + between"
                f" them; {nearest(word, (*SPLITS, 'trainval'))}"
            )
        if word in ("test", "train_extra") or cv == 0:
            parts += [(word, city) for city in _cities(root, word)]
            continue
        official = [("val", city) for city in _cities(root, "val")]
        every = official + [("train", city) for city in _cities(root, "train")]
        if cv == NUM_FOLDS:
            parts += official if word == "val" else every
            continue
        start = cv * len(every) // NUM_FOLDS
        held_out = every[start : start + len(official)]
        parts += held_out if word == "val" else [part for part in every if part not in held_out]
    return sorted(dict.fromkeys(parts), key=lambda part: (SPLITS.index(part[0]), part[1]))


class _Finder:
    """Files of one folder of a split, for some of its cities."""

    def __init__(self, root: Path, folder: str, cities: Sequence[str]) -> None:
        self._root, self._folder, self._cities = root, folder, cities

    def place(self, archive: str) -> Path:
        return _place(self._root, archive, self._folder)

    def files(self, archive: str, ending: str, suffixes: frozenset[str]) -> dict[str, Path]:
        """Name -> file, for files whose stems are a name and the ending."""
        found: dict[str, Path] = {}
        for path in self._listed(archive):
            if path.suffix.lower() not in suffixes or not path.stem.endswith(ending):
                continue
            name = path.stem.removesuffix(ending)
            if name in found:
                raise DataError(f"'{found[name]}' and '{path}' are the same frame twice; remove one")
            found[name] = path
        return found

    def labels(self, archive: str, images: Iterable[str], notes: list[str]) -> dict[str, LabelFile]:
        """A label file for each image: label ids, or ready-made train ids where these are missing."""
        ids = self.files(archive, f"_{archive}_labelIds", _PNG)
        ready = self.files(archive, f"_{archive}_labelTrainIds", _PNG)
        labels = {name: LabelFile(path, train_ids=True) for name, path in ready.items()}
        labels |= {name: LabelFile(path) for name, path in ids.items()}
        _all_there(images, labels, self.place(archive), f"_{archive}_labelIds.png (or _labelTrainIds.png)")
        missing = sorted(_folders(self.place(archive)) - _folders(self.place("leftImg8bit")))
        if missing and archive == "gtFine":
            raise DataError(
                f"'{self.place(archive)}' has the city '{missing[0]}', '{self.place('leftImg8bit')}' has not"
                f" ({len(missing)} such cities); unpack all images"
            )
        extra = [name for name in labels if name not in set(images)]
        if extra and archive == "gtFine":
            raise DataError(
                f"label '{labels[extra[0]].path}' has no image '{extra[0]}_leftImg8bit.*' in"
                f" '{self.place('leftImg8bit')}' ({len(extra)} such labels); add the image or remove the label"
            )
        taken = sum(labels[name].train_ids for name in images)
        kinds = {0: "label ids (*_labelIds.png)", len(list(images)): "ready-made train ids (*_labelTrainIds.png)"}
        found = kinds.get(taken, f"label ids, and train ids where these are missing ({taken} files)")
        notes.append(f"Labels of '{self.place(archive)}' are {found}.")
        if extra:
            notes.append(f"{len(extra)} labels in '{self.place(archive)}' have no image; they are not read.")
        return labels

    def autolabelled(self, images: Iterable[str]) -> tuple[dict[str, LabelFile], dict[str, Path]]:
        """Label and probability of each image; a label has the name of its probability without `_prob`."""
        probabilities: dict[str, Path] = {}
        labels: dict[str, LabelFile] = {}
        place = self.place("refinement_final")
        listed = {path for path in self._listed("refinement_final") if path.suffix.lower() == ".png"}
        for path in sorted(listed):
            if path.stem.endswith("_prob"):
                label = path.with_name(path.stem.removesuffix("_prob") + path.suffix)
                name = label.stem.removesuffix("_leftImg8bit").removesuffix("_labelIds").removesuffix("_gtCoarse")
                probabilities[name] = path
                if label in listed:
                    labels[name] = LabelFile(label)
        _all_there(images, probabilities, place, "_leftImg8bit_prob.png")
        _all_there(images, labels, place, "_leftImg8bit.png")
        return labels, probabilities

    def _listed(self, archive: str) -> Iterator[Path]:
        place = self.place(archive)
        for city in self._cities:
            if (place / city).is_dir():
                yield from sorted((place / city).iterdir())


def _all_there(images: Iterable[str], partners: Iterable[str], place: Path, ending: str) -> None:
    there = set(partners)
    alone = [name for name in images if name not in there]
    if alone:
        city = alone[0].split("_")[0]
        raise DataError(
            f"image '{alone[0]}' has no file '{place / city / alone[0]}{ending}' ({len(alone)} such images); add the"
            " file or remove the image"
        )


def _place(root: Path, archive: str, folder: str) -> Path:
    for candidate in _PLACES[archive]:
        if (root / candidate / folder).is_dir():
            return root / candidate / folder
    found = sorted(path.name for path in root.iterdir() if path.is_dir()) if root.is_dir() else []
    raise DataError(
        f"Cityscapes needs the folder '{root / archive / folder}', which does not exist; found in '{root}':"
        f" {', '.join(found[:12]) or 'no folder'}; {_ARCHIVES[archive]}"
    )


_ARCHIVES = {
    "leftImg8bit": "images are in leftImg8bit_trainvaltest.zip, those of train_extra in leftImg8bit_trainextra.zip",
    "gtFine": "fine labels are in gtFine_trainvaltest.zip; train_extra has none, set labels = 'coarse' there",
    "gtCoarse": "coarse labels are in gtCoarse.zip",
    "disparity": "it is in disparity_trainvaltest.zip or disparity_trainextra.zip; depth = 'none' does without",
    "refinement_final": "autolabelled files are in refinement_final_v0.zip of NVIDIA/semantic-segmentation",
}


def _cities(root: Path, folder: str) -> list[str]:
    place = _place(root, "leftImg8bit", folder)
    cities = sorted(_folders(place))
    if not cities:
        raise DataError(f"'{place}' holds no city folder; images are CITY/*_leftImg8bit.png below it")
    return cities


def _folders(place: Path) -> set[str]:
    return {path.name for path in place.iterdir() if path.is_dir() and not path.name.startswith(".")}
