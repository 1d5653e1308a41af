from pathlib import Path

import numpy as np
import pytest

from hs3seg.errors import DataError, PlanError
from hs3seg.taxonomy import Grouping, Taxonomy, distinct_colours

STREET = Taxonomy.from_names(["road", "sidewalk", "sky", "car"])


def test_saved_taxonomy_reads_back_equal(tmp_path: Path) -> None:
    taxonomy = Taxonomy(("a b", 'quo"te', "ü"), ((1, 2, 3), (4, 5, 6), (0, 0, 0)), 254)
    taxonomy.save(tmp_path / "taxonomy.toml")
    assert Taxonomy.load(tmp_path / "taxonomy.toml") == taxonomy
    assert Taxonomy.from_dict(taxonomy.to_dict()) == taxonomy


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", ["no classes", "[[class]]"]),
        ("[[class]]\nname = 3\n", ["class 0 has no name"]),
        ('[[class]]\nname = "a"\ncolour = [1, 2]\n', ["'a'", "colour = [r, g, b]"]),
        ('[[class]]\nname = "a"\ncolour = [1, 2, 300]\n', ["'a'", "0..255"]),
        ('[[class]]\nname = "a"\ncolor = [1, 2, 3]\n', ["unknown key 'color'", "colour"]),
        ('[[class]]\nname = "a"\n[[class]]\nname = "a"\n', ["'a' stands twice"]),
        ('ignore_index = 0\n[[class]]\nname = "a"\n', ["ignore_index 0", "'a'"]),
        ('ignore = 0\n[[class]]\nname = "a"\n', ["unknown key 'ignore'", "ignore_index"]),
        ("x = [", ["not a TOML file"]),
    ],
)
def test_wrong_taxonomy_files_say_where_and_what(tmp_path: Path, text: str, words: list[str]) -> None:
    path = tmp_path / "taxonomy.toml"
    path.write_text(text)
    with pytest.raises(DataError) as error:
        Taxonomy.load(path)
    for word in [str(path), *words]:
        assert word in str(error.value)


def test_taxonomies_of_windows_editors_are_read(tmp_path: Path) -> None:
    path = tmp_path / "taxonomy.toml"
    STREET.save(path)
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n"))
    assert Taxonomy.load(path) == STREET


def test_colours_are_integers() -> None:
    with pytest.raises(DataError, match="three integers"):
        Taxonomy(("a",), ((0.5, 0, 0),))  # type: ignore[arg-type]


def test_missing_taxonomy_and_class(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read"):
        Taxonomy.load(tmp_path)
    with pytest.raises(DataError, match="does not exist"):
        Taxonomy.load(tmp_path / "no.toml")
    with pytest.raises(DataError, match="'rood'.*nearest: 'road'"):
        STREET.index("rood")
    assert STREET.index("sky") == 2


def test_generated_colours_are_distinct() -> None:
    colours = distinct_colours(1000)
    assert len(set(colours)) == 1000
    assert colours[:60] == distinct_colours(60)


def test_groupings_are_canonical() -> None:
    grouping = Grouping.from_labels([7, 3, 7, 1])
    assert grouping.assignment == (0, 1, 0, 2)
    assert grouping == Grouping.from_groups([[1], [2, 0], [3]], 4)
    assert grouping.groups == ((0, 2), (1,), (3,))
    assert (grouping.num_classes, grouping.num_groups, grouping.is_identity) == (4, 3, False)
    assert Grouping.identity(4).is_identity
    assert grouping.group_names(STREET.names) == ("road + sky", "sidewalk", "car")
    assert grouping.group_colours(STREET.colours, [1, 0, 5, 0])[0] == STREET.colours[2]
    with pytest.raises(PlanError, match="canonical"):
        Grouping((1, 0))


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        ([[0, 1], [1, 2]], "class 1 is in groups 0 and 1"),
        ([[0], [2]], "class 1 is in no group"),
        ([[0], [], [1, 2]], "empty"),
        ([[0, 1, 2, 3]], r"class 3; allowed: 0\.\.2"),
    ],
)
def test_wrong_groups(groups: list[list[int]], message: str) -> None:
    with pytest.raises(PlanError, match=message):
        Grouping.from_groups(groups, 3)


def test_remap_keeps_ignore_and_refuses_strangers() -> None:
    grouping = Grouping.from_labels([0, 1, 0])
    labels = np.array([[0, 1], [2, 255]], np.uint8)
    assert grouping.remap(labels).tolist() == [[0, 1], [0, 255]]
    with pytest.raises(PlanError, match="label 3 is outside 0..2"):
        grouping.remap(np.array([3]))
    with pytest.raises(PlanError, match="type float64"):
        grouping.remap(np.array([1.0]))


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.uint16, np.int64])
def test_remap_keeps_the_type_even_where_there_are_more_classes_than_it_holds(dtype: type) -> None:
    grouping = Grouping.from_labels(np.arange(300) // 2)
    remapped = grouping.remap(np.array([0, 1, 126], dtype), ignore_index=-1)
    assert remapped.dtype == dtype
    assert remapped.tolist() == [0, 0, 63]


def test_merging_shares_instead_of_counts_is_refused() -> None:
    with pytest.raises(PlanError, match="raw pixel counts"):
        Grouping.identity(2).merge(np.array([[0.9, 0.1], [0.2, 0.8]]))
    assert (Grouping.identity(2).merge(np.array([[9.0, 1.0], [2.0, 8.0]])) == [[9, 1], [2, 8]]).all()


def test_the_ignore_label_is_none_of_many_classes() -> None:
    names = [f"c{i}" for i in range(300)]
    assert Taxonomy.from_names(names).ignore_index == 65535
    assert Taxonomy.from_names(names[:255]).ignore_index == 255
    assert Taxonomy.from_names(names[:256]).ignore_index == 65535
    with pytest.raises(DataError, match="ignore_index 255 is also the id of class 'c255'; take 65535"):
        Taxonomy.from_names(names, ignore_index=255)
