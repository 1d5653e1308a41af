"""NYU-Depth-v2's tables; the digests are of the published classMapping40.mat and splits.mat."""

import hashlib
import subprocess
import sys

import numpy as np
import pytest

from hs3seg.errors import DataError
from hs3seg.taxonomies import nyuv2
from tests.conftest import shared


def digest(values: tuple[int, ...], kind: str) -> str:
    return hashlib.sha256(np.array(values, kind).tobytes()).hexdigest()


def test_the_map_of_894_objects_is_the_published_one() -> None:
    assert len(nyuv2.FROM_894) == 894
    labels = tuple(class_ + 1 for class_ in nyuv2.FROM_894)
    assert digest(labels, "u1") == "9c75cdc1ff39748751966fe8d8493b1d2ca3acda9ec861b2f70f52221d65a7bd"
    assert [labels.count(label) for label in range(1, 41)] == [1] * 37 + [68, 82, 707]


def test_the_split_is_the_published_one() -> None:
    splits = nyuv2.OFFICIAL_SPLITS
    assert {name: len(members) for name, members in splits.items()} == {"train": 795, "test": 654}
    assert sorted(splits["train"] + splits["test"]) == list(range(1, 1450))
    assert digest(splits["train"], "<u2") == "3e06f93e72a123ac410290a2cd39492ab1db8f922e19871ef292ba6f5048c30e"
    assert digest(splits["test"], "<u2") == "2eeec7e27c622efec02adeaeb4b46566781fffd5e057d100ee98ca977cf0d0a5"


def test_names_of_all_three_sets() -> None:
    assert {k: taxonomy.num_classes for k, taxonomy in nyuv2.TAXONOMIES.items()} == {40: 40, 13: 13, 4: 4}
    assert nyuv2.NYU40.names[19] == "floor mat"
    assert nyuv2.OBJECT_IDS["wall"] == 21
    assert nyuv2.OBJECT_IDS["bag"] == 55
    assert len(nyuv2.OBJECT_IDS) == 37


def test_the_map_to_13_equals_the_data_sets_table_for_every_id() -> None:
    rows = [line.split("\t") for line in shared("nyuv2", "map40to13.txt").read_text().splitlines()]
    rows = [row for row in rows if len(row) == 4]
    assert len(rows) == 40
    for label, name, label13, name13 in rows:
        class13 = nyuv2.FROM_40[13][int(label) - 1]
        assert nyuv2.NYU40.names[int(label) - 1] == name
        assert (class13 + 1, nyuv2.NYU13.names[class13]) == (int(label13), name13)


def test_the_map_to_4_for_every_class() -> None:
    four = {name: nyuv2.NYU4.names[c] for name, c in zip(nyuv2.NYU40.names, nyuv2.FROM_40[4], strict=True)}
    structure = {"wall", "door", "window", "counter", "blinds", "curtain", "ceiling", "shower curtain", "whiteboard"}
    furniture = {"cabinet", "bed", "chair", "sofa", "table", "bookshelf", "desk", "shelves", "dresser", "refridgerator"}
    furniture |= {"night stand", "toilet", "bathtub", "otherfurniture"}
    for name, of in four.items():
        if name == "floor":
            assert of == "floor"
        elif name in structure | {"otherstructure"}:
            assert of == "structure", name
        else:
            assert of == ("furniture" if name in furniture else "props"), name


def test_groupings_hold_the_same_classes_together() -> None:
    for grouping, classes in ((nyuv2.GROUPING_13, 13), (nyuv2.GROUPING_4, 4)):
        assert grouping.num_groups == classes
        pairs = set(zip(grouping.assignment, nyuv2.FROM_40[classes], strict=True))
        assert len(pairs) == classes


def test_tables_compose() -> None:
    for classes in (13, 4):
        through = [nyuv2.FROM_40[classes][c] for c in nyuv2.class_table(40, 894)]
        assert list(nyuv2.class_table(classes, 894)) == through
        assert nyuv2.class_table(classes, 40) == nyuv2.FROM_40[classes]
        assert nyuv2.class_table(classes, classes) == tuple(range(classes))


@pytest.mark.parametrize(("classes", "labels"), [(40, 13), (40, 4), (13, 4), (4, 13)])
def test_what_cannot_be_turned_into_another_set(classes: int, labels: int) -> None:
    with pytest.raises(DataError, match=rf"labels of {labels} classes cannot be turned into {classes}"):
        nyuv2.class_table(classes, labels)


def test_other_numbers_of_classes_are_refused() -> None:
    assert nyuv2.check_classes(13) == 13
    with pytest.raises(DataError, match=r"classes = 37; allowed: 40, 13, 4"):
        nyuv2.check_classes(37)


def test_the_tables_come_without_torch() -> None:
    code = "import sys, hs3seg.taxonomies.nyuv2; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
