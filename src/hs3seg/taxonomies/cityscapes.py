"""Cityscapes: its 35 labels, the 19 classes of training and evaluation, categories, and mean sizes of instances.

Files hold label ids (0..33); networks learn train ids (0..18, all else 255). Source: labels.py and
evalPixelLevelSemanticLabeling.py of github mcordts/cityscapesScripts, commit 0bcc4a7.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hs3seg.taxonomy import Colour, Grouping, Taxonomy

IGNORED = 255
NUM_IDS = 34


@dataclass(frozen=True, slots=True)
class Label:
    """One label of the data set.

    Args:
        name: As the official scripts have it.
        id: In *_labelIds.png; -1 (license plate) is in no file.
        train_id: 0..18, or 255 where it is not learned.
        category: One of the 8 categories.
        has_instances: Whether *_instanceIds.png tells its single objects apart.
        ignored: Whether its pixels are left out of the evaluation.
        colour: Official (r, g, b).
    """

    name: str
    id: int
    train_id: int
    category: str
    has_instances: bool
    ignored: bool
    colour: Colour


# Per category: id, name, colour; `+` = one of the 19 classes. People and vehicles have instances.
_TABLE = {
    "void": (
        "0 unlabeled 000000, 1 ego vehicle 000000, 2 rectification border 000000, 3 out of roi 000000,"
        " 4 static 000000, 5 dynamic 6f4a00, 6 ground 510051"
    ),
    "flat": "+7 road 804080, +8 sidewalk f423e8, 9 parking faaaa0, 10 rail track e6968c",
    "construction": (
        "+11 building 464646, +12 wall 66669c, +13 fence be9999, 14 guard rail b4a5b4, 15 bridge 966464,"
        " 16 tunnel 96785a"
    ),
    "object": "+17 pole 999999, 18 polegroup 999999, +19 traffic light faaa1e, +20 traffic sign dcdc00",
    "nature": "+21 vegetation 6b8e23, +22 terrain 98fb98",
    "sky": "+23 sky 4682b4",
    "human": "+24 person dc143c, +25 rider ff0000",
    "vehicle": (
        "+26 car 00008e, +27 truck 000046, +28 bus 003c64, 29 caravan 00005a, 30 trailer 00006e, +31 train 005064,"
        " +32 motorcycle 0000e6, +33 bicycle 770b20, -1 license plate 00008e"
    ),
}


def _labels() -> tuple[Label, ...]:
    labels: list[Label] = []
    learned = 0
    for category, text in _TABLE.items():
        for entry in text.split(","):
            number, *words, colour = entry.split()
            is_class = number.startswith("+")
            red, green, blue = bytes.fromhex(colour)
            labels.append(
                Label(
                    name=" ".join(words),
                    id=int(number),
                    train_id=learned if is_class else IGNORED,
                    category=category,
                    has_instances=category in ("human", "vehicle") and int(number) >= 0,
                    ignored=not is_class,
                    colour=(red, green, blue),
                )
            )
            learned += is_class
    return tuple(labels)


LABELS = _labels()
"""All labels: ids 0..33 in order, then -1, the license plate."""

_CLASSES = tuple(label for label in LABELS if not label.ignored)
CITYSCAPES = Taxonomy(tuple(label.name for label in _CLASSES), tuple(label.colour for label in _CLASSES), IGNORED)
"""The 19 classes; class c is train id c."""

CATEGORIES = {
    category: tuple(label.id for label in LABELS if label.category == category and label.id >= 0) for category in _TABLE
}
"""Category -> its label ids, ignored ones too."""

GROUPING_CATEGORIES = Grouping.from_labels([list(_TABLE).index(label.category) for label in _CLASSES])
"""The 7 categories as groups of the 19 classes, e.g. for a plan by hand."""

INSTANCE_CLASSES = tuple(label.name for label in _CLASSES if label.has_instances)
"""The 8 classes that have an iIoU."""

MEAN_INSTANCE_PIXELS = {
    "bicycle": 4672.3249222261,
    "caravan": 36771.8241758242,
    "motorcycle": 6298.7200839748,
    "rider": 3930.4788056518,
    "bus": 35732.1511111111,
    "train": 67583.7075812274,
    "car": 12794.0202738185,
    "person": 3462.4756337644,
    "truck": 27855.1264367816,
    "trailer": 16926.9763313609,
}
"""Label -> mean pixels of an instance at 2048x1024: the weights of iIoU."""

CLASS_WEIGHTS = (
    *(0.8373, 0.918, 0.866, 1.0345, 1.0166, 0.9969, 0.9754, 1.0489, 0.8786, 1.0023, 0.9539, 0.9843, 1.1116),
    *(0.9037, 1.0865, 1.0955, 1.0865, 1.1529, 1.0507),
)
"""Weight of each of the 19 classes in the cross-entropy of github HRNet/HRNet-Semantic-Segmentation."""


def _train_ids() -> NDArray[np.uint8]:
    table = np.full(256, IGNORED, np.uint8)
    for label in _CLASSES:
        table[label.id] = label.train_id
    table.setflags(write=False)
    return table


def _ids() -> NDArray[np.uint8]:
    table = np.array([label.id for label in _CLASSES], np.uint8)
    table.setflags(write=False)
    return table


TRAIN_ID_OF_ID = _train_ids()
"""(256,) uint8: label id -> train id, all else 255; the id -1 finds its 255 from the end."""

ID_OF_TRAIN_ID = _ids()
"""(19,) uint8: train id -> label id, as the test server wants it."""
