"""NYU-Depth-v2: its 40, 13 and 4 classes, the maps between them and from its 894 object names, the official split.

Sources: 40 classes of 894 names, Gupta, Arbelaez, Malik (CVPR 2013), as classMapping40.mat; 13 classes, Couprie et al.
(ICLR 2013), as class13Mapping.mat; 4 classes and the split into 795 and 654 frames, Silberman et al. (ECCV 2012), as
mapToNYUSuperClass in classMapping40.mat and as splits.mat; all three files in github ankurhanda/nyuv2-meta-data,
commit b92d15c. The names of the 4 classes are the article's.
"""

from collections.abc import Sequence
from typing import Literal

from hs3seg.errors import DataError
from hs3seg.taxonomy import Grouping, Taxonomy

Classes = Literal[40, 13, 4]
NUM_FRAMES = 1449
NUM_OBJECTS = 894

NYU40 = Taxonomy.from_names(
    (
        *("wall", "floor", "cabinet", "bed", "chair", "sofa", "table", "door", "window", "bookshelf"),
        *("picture", "counter", "blinds", "desk", "shelves", "curtain", "dresser", "pillow", "mirror", "floor mat"),
        *("clothes", "ceiling", "books", "refridgerator", "television", "paper", "towel", "shower curtain", "box"),
        *("whiteboard", "person", "night stand", "toilet", "sink", "lamp", "bathtub", "bag"),
        *("otherstructure", "otherfurniture", "otherprop"),
    )
)
"""Class c has the label c + 1 in the usual files, where 0 is void."""

NYU13 = Taxonomy.from_names(
    (
        *("bed", "books", "ceiling", "chair", "floor", "furniture", "objects"),
        *("picture", "sofa", "table", "tv", "wall", "window"),
    )
)
NYU4 = Taxonomy.from_names(("floor", "structure", "furniture", "props"))
TAXONOMIES: dict[Classes, Taxonomy] = {40: NYU40, 13: NYU13, 4: NYU4}

# Labels as in the files: one for each of the labels 1..40.
_LABELS_13 = "12 5 6 1 4 9 10 12 13 6 8 6 13 10 6 13 6 7 7 5 7 3 2 6 11 7 7 7 7 7 7 6 7 7 7 7 7 7 6 7"
_LABELS_4 = "2 1 3 3 3 3 3 2 2 3 4 2 2 3 3 2 3 4 4 4 4 2 4 3 4 4 4 2 4 2 4 3 3 4 4 3 4 2 3 4"


def _ids(text: str) -> tuple[int, ...]:
    return tuple(int(word) - 1 for word in text.split())


FROM_40: dict[Classes, tuple[int, ...]] = {40: tuple(range(40)), 13: _ids(_LABELS_13), 4: _ids(_LABELS_4)}
"""Number of classes -> the class, from 0, of each of the 40."""

GROUPING_13 = Grouping.from_labels(FROM_40[13])
GROUPING_4 = Grouping.from_labels(FROM_40[4])
"""The 13 and 4 classes as groups of the 40, e.g. for a plan by hand; groups are numbered by first appearance."""

# The first 37 classes are one object name each. Object ids count from 1, in the order of the .mat file's `names`.
_OBJECTS = (
    "21 11 3 157 5 83 19 28 59 88 64 7 80 36 42 89 169 119 122 143 141 4 85 17 172 15 135 123 26 45 331 158 124 24 144"
    " 136 55"
)
_STRUCTURE = (
    "8 25 33 38 51 53 57 58 62 65 79 94 104 112 134 153 215 216 223 225 238 241 242 256 295 301 339 342 354 363 372 380"
    " 392 408 412 453 456 463 477 497 541 550 553 567 573 582 591 609 612 615 642 645 657 658 659 663 667 668 686 700"
    " 702 777 778 782 850 861 868 874"
)
_FURNITURE = (
    "12 43 48 50 87 106 111 161 163 174 183 204 214 219 221 224 236 262 278 291 298 313 343 344 356 359 373 393 401 414"
    " 418 419 430 443 444 447 448 457 458 460 462 475 479 485 486 493 494 498 499 509 510 515 521 524 540 549 551 554"
    " 556 558 576 580 608 625 703 734 770 772 797 800 803 804 813 814 815 820 829 835 858 863 882 892"
)


def _classes_of_objects() -> tuple[int, ...]:
    classes = [39] * NUM_OBJECTS  # otherprop
    for class_, text in ((37, _STRUCTURE), (38, _FURNITURE)):
        for index in _ids(text):
            classes[index] = class_
    for class_, index in enumerate(_ids(_OBJECTS)):
        classes[index] = class_
    return tuple(classes)


FROM_894 = _classes_of_objects()
"""The class, 0..39, of each object id 1..894; id 0 is unlabelled."""

OBJECT_IDS = dict(zip(NYU40.names, (index + 1 for index in _ids(_OBJECTS)), strict=False))
"""Class -> object id of the 37 classes that are one object name."""

# Lengths of the runs of frames 1..1449 that lie in one split; test and train in turn, test first.
_RUNS = (
    "2 6 1 4 5 2 1 6 16 2 2 8 2 1 5 12 4 4 8 25 3 5 5 1 4 2 1 15 3 11 3 1 6 3 23 4 6 7 3 27 1 13 1 6 3 5 7 10 7 7"
    " 3 2 3 7 11 15 2 2 10 19 7 4 3 13 4 15 6 5 8 13 5 2 9 30 6 1 12 4 3 3 3 9 3 3 17 7 5 7 4 8 5 4 2 3 5 11 6 5 2"
    " 4 2 4 3 4 2 3 6 2 6 4 5 2 2 2 3 6 8 3 2 5 5 2 4 8 2 14 29 12 5 5 5 6 3 9 14 3 3 4 6 6 3 34 3 8 3 6 3 3 4 9 3"
    " 11 4 2 3 2 8 13 5 5 4 5 3 8 3 8 3 3 2 8 2 2 2 3 2 16 10 3 9 1 7 1 4 7 3 3 9 3 2 7 15 3 6 2 2 2 3 2 6 7 5 4"
    " 12 3 5 5 5 2 3 11 4 3 12 9 6 4 11 1 3 2 7 5 2 13 4 2 6 6 3 3 4 7 2 2 2 14 8 2 8 5 8 6 4 5 4 7 9"
)


def _splits() -> dict[str, tuple[int, ...]]:
    members: tuple[list[int], list[int]] = ([], [])
    first = 1
    for turn, length in enumerate(map(int, _RUNS.split())):
        members[turn % 2].extend(range(first, first + length))
        first += length
    return {"train": tuple(members[1]), "test": tuple(members[0])}


OFFICIAL_SPLITS = _splits()
"""Split -> official frame numbers, from 1, ascending: 795 train, 654 test. There is no official val."""


def check_classes(classes: int) -> Classes:
    """A number of classes that the data set has.

    Raises:
        DataError: another number.
    """
    for allowed in TAXONOMIES:
        if classes == allowed:
            return allowed
    raise DataError(f"NYU-Depth-v2 with classes = {classes!r}; allowed: 40, 13, 4")


def class_table(classes: Classes, labels: Literal[894, 40, 13, 4]) -> tuple[int, ...]:
    """The class, from 0, of each label 1, 2, ... of a file.

    Args:
        classes: Wanted: 40, 13 or 4.
        labels: What the file holds: 894 object ids, or 40, 13 or 4 classes.

    Raises:
        DataError: the file has fewer classes than are wanted, or 13 for 4, which cut them differently.
    """
    if labels == classes:
        return tuple(range(classes))
    if labels == 894:
        return _composed(FROM_894, FROM_40[classes])
    if labels == 40:
        return FROM_40[classes]
    raise DataError(
        f"labels of {labels} classes cannot be turned into {classes}; use files of 40 classes or 894 objects, or"
        f" classes = {labels}"
    )


def _composed(first: Sequence[int], second: Sequence[int]) -> tuple[int, ...]:
    return tuple(second[value] for value in first)
