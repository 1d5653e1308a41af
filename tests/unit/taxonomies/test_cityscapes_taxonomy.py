"""Cityscapes' tables, against the facts of the reference and, where it is installed, the official script."""

import re
import subprocess
import sys

import numpy as np
import pytest

from hs3seg.taxonomies import cityscapes
from tests.conftest import shared

IDS_OF_CLASSES = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)
NAMES = (
    *(
        "road",
        "sidewalk",
        "building",
        "wall",
        "fence",
        "pole",
        "traffic light",
        "traffic sign",
        "vegetation",
        "terrain",
    ),
    *("sky", "person", "rider", "car", "truck", "bus", "train", "motorcycle", "bicycle"),
)


def reference() -> str:
    return shared("reference", "systems.md").read_text()


def test_every_id_has_its_train_id() -> None:
    for value in range(256):
        expected = IDS_OF_CLASSES.index(value) if value in IDS_OF_CLASSES else 255
        assert cityscapes.TRAIN_ID_OF_ID[value] == expected
    assert cityscapes.TRAIN_ID_OF_ID[-1] == 255
    assert cityscapes.ID_OF_TRAIN_ID.tolist() == list(IDS_OF_CLASSES)
    assert np.array_equal(cityscapes.TRAIN_ID_OF_ID[cityscapes.ID_OF_TRAIN_ID], np.arange(19))


def test_tables_cannot_be_changed() -> None:
    for table in (cityscapes.TRAIN_ID_OF_ID, cityscapes.ID_OF_TRAIN_ID):
        with pytest.raises(ValueError, match="read-only"):
            table[0] = 1


def test_classes_have_their_names_and_colours() -> None:
    assert cityscapes.CITYSCAPES.names == NAMES
    assert cityscapes.CITYSCAPES.ignore_index == 255
    assert cityscapes.CITYSCAPES.colours[:2] == ((128, 64, 128), (244, 35, 232))
    assert cityscapes.CITYSCAPES.colours[18] == (119, 11, 32)


def test_labels_are_in_order_of_their_ids() -> None:
    assert [label.id for label in cityscapes.LABELS] == [*range(34), -1]
    assert cityscapes.NUM_IDS == 34


def test_categories_hold_every_id_once() -> None:
    assert list(cityscapes.CATEGORIES) == [
        *("void", "flat", "construction", "object", "nature", "sky", "human", "vehicle")
    ]
    assert sorted(sum(cityscapes.CATEGORIES.values(), ())) == list(range(34))
    grouping = cityscapes.GROUPING_CATEGORIES
    assert grouping.num_groups == 7
    assert grouping.assignment == (0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 4, 5, 5, 6, 6, 6, 6, 6, 6)


def test_ids_equal_the_reference_table() -> None:
    line = next(line for line in reference().splitlines() if "19->ids:" in line)
    found = re.search(r"19->ids: ([\d ]+)\.", line)
    assert found
    assert tuple(map(int, found[1].split())) == tuple(cityscapes.ID_OF_TRAIN_ID.tolist())


def test_mean_sizes_equal_the_reference_table() -> None:
    line = next(line for line in reference().splitlines() if "avg_c: bicycle" in line)
    found = dict(re.findall(r"([a-z]+) (\d+\.\d{9,})", line.split("avg_c:")[1]))
    assert set(found) == set(cityscapes.INSTANCE_CLASSES)
    assert {name: float(value) for name, value in found.items()} == {
        name: cityscapes.MEAN_INSTANCE_PIXELS[name] for name in cityscapes.INSTANCE_CLASSES
    }


def test_class_weights_equal_the_reference_table() -> None:
    line = next(line for line in reference().splitlines() if "Class weights (datasets/cityscapes.py" in line)
    found = re.search(r"\): ([\d. ]+\d)\. ", line)
    assert found
    assert tuple(map(float, found[1].split())) == cityscapes.CLASS_WEIGHTS


def test_every_label_equals_the_official_list() -> None:
    official = pytest.importorskip("cityscapesscripts.helpers.labels").labels
    assert len(official) == len(cityscapes.LABELS)
    for theirs, ours in zip(official, cityscapes.LABELS, strict=True):
        train_id = 255 if theirs.trainId == -1 else theirs.trainId
        assert (ours.name, ours.id, ours.train_id, ours.category) == (theirs.name, theirs.id, train_id, theirs.category)
        assert (ours.has_instances, ours.ignored, ours.colour) == (
            *(theirs.hasInstances, theirs.ignoreInEval),
            tuple(theirs.color),
        )


def test_mean_sizes_equal_the_official_ones() -> None:
    pytest.importorskip("cityscapesscripts")
    from cityscapesscripts.evaluation.evalPixelLevelSemanticLabeling import args

    assert args.avgClassSize == cityscapes.MEAN_INSTANCE_PIXELS


def test_the_tables_come_without_torch() -> None:
    code = "import sys, hs3seg.taxonomies.cityscapes; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
