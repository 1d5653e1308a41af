"""CamVid's tables, against the facts of the reference and the layout that they have to agree with."""

import re
import subprocess
import sys

import numpy as np

from hs3seg.taxonomies import camvid
from tests.conftest import shared

NAMES_11 = (
    *("sky", "building", "column_pole", "road", "sidewalk", "tree", "sign_symbol"),
    *("fence", "car", "pedestrian", "bicyclist"),
)


def test_labels_and_classes_are_counted() -> None:
    assert len(camvid.LABELS) == len(set(camvid.LABELS.values())) == 32
    assert camvid.CAMVID32.num_classes == 31
    assert camvid.VOID not in camvid.CAMVID32.names
    assert camvid.LABELS[camvid.VOID] == (0, 0, 0)
    assert camvid.CAMVID11.names == NAMES_11
    assert camvid.CAMVID32.ignore_index == camvid.CAMVID11.ignore_index == 255


def test_every_colour_is_made_of_quarters() -> None:
    assert {value for colour in camvid.LABELS.values() for value in colour} == {0, 64, 128, 192}


def test_every_label_has_the_class_of_the_reference() -> None:
    text = shared("reference", "systems.md").read_text()
    start = text.index("- CamVid 32 -> 11")
    listed = text[start : text.index("- Cityscapes 19 -> CamVid 11", start)]
    groups = {int(number): name for number, name in re.findall(r"(\d+) (\w+)(?= \{|;)", listed.split("void = 11):")[1])}
    members = {int(number): names for number, names in re.findall(r"(\d+) \w+ \{([^}]*)\}", listed)}
    assert sorted(groups) == list(range(11))
    expected = {
        label.strip(): number for number, name in groups.items() for label in members.get(number, name).split(",")
    }
    assert set(expected) == set(camvid.CAMVID32.names)
    for index, name in enumerate(camvid.CAMVID32.names):
        assert camvid.FROM_32[11][index] == expected[name], name
        assert camvid.FROM_32[32][index] == index


def test_a_class_has_the_colour_of_one_of_its_labels() -> None:
    for index, colour in enumerate(camvid.CAMVID11.colours):
        label = next(name for name, own in camvid.LABELS.items() if own == colour)
        assert camvid.FROM_32[11][camvid.CAMVID32.index(label)] == index


def test_the_grouping_holds_together_what_becomes_one_class() -> None:
    classes = np.array(camvid.FROM_32[11])
    groups = np.array(camvid.GROUPING_11.assignment)
    assert camvid.GROUPING_11.num_groups == 11
    assert np.array_equal(classes[:, None] == classes, groups[:, None] == groups)


def test_the_tables_come_without_torch() -> None:
    code = "import sys, hs3seg.taxonomies.camvid, hs3seg.taxonomies.bridge; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
