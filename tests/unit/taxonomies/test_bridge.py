"""Bridges from one label set to another."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from hs3seg.errors import DataError
from hs3seg.taxonomies.bridge import KNOWN, Bridge
from hs3seg.taxonomies.camvid import CAMVID11
from hs3seg.taxonomies.cityscapes import CITYSCAPES
from hs3seg.taxonomy import Taxonomy

SHIPPED = Path(__file__).parents[3] / "configs" / "bridges" / "cityscapes-to-camvid.toml"
SOURCE = Taxonomy.from_names(["car", "bus", "grass", "tree"])
TARGET = Taxonomy.from_names(["plant", "vehicle", "boat"], ignore_index=-1)
GOOD = """
unmapped = ["grass"]
[classes]
vehicle = ["car", "bus"]
plant = ["tree"]
boat = []
"""


def written(folder: Path, text: str) -> Path:
    path = folder / "bridge.toml"
    path.write_text(text)
    return path


def load(folder: Path, text: str = GOOD) -> Bridge:
    return Bridge.load(written(folder, text), SOURCE, TARGET)


@st.composite
def bridges(draw: st.DrawFn) -> Bridge:
    source, target = draw(st.integers(1, 7)), draw(st.integers(1, 5))
    ids = st.sampled_from([*range(target), 255])
    assignment = draw(st.lists(ids, min_size=source, max_size=source).filter(lambda a: min(a) < 255))
    names = [f"{i}" for i in range(max(source, target))]
    return Bridge(Taxonomy.from_names(names[:source]), Taxonomy.from_names(names[:target]), tuple(assignment))


def test_the_table_has_ids_of_both_sides(tmp_path: Path) -> None:
    bridge = load(tmp_path)
    assert bridge.table.tolist() == [1, 1, -1, 0]
    assert bridge.matrix.tolist() == [[0, 0, 0, 1], [1, 1, 0, 0], [0, 0, 0, 0]]
    assert bridge.unmapped == ("grass",)
    assert bridge.unreached == ("boat",)


def test_names_count_not_the_order_of_the_file(tmp_path: Path) -> None:
    turned = Taxonomy.from_names(SOURCE.names[::-1])
    assert Bridge.load(written(tmp_path, GOOD), turned, TARGET).table.tolist() == [0, -1, 1, 1]


def test_ids_are_mapped(tmp_path: Path) -> None:
    bridge = load(tmp_path)
    ids = np.array([[0, 1, 2], [3, 255, 0]], np.uint8)
    assert bridge.map(ids).tolist() == [[1, 1, -1], [0, -1, 1]]
    assert bridge.map(np.zeros((0, 2), np.int64)).shape == (0, 2)


@pytest.mark.parametrize("ids", [[4], [-1], [254]])
def test_ids_of_no_class_are_refused(tmp_path: Path, ids: list[int]) -> None:
    with pytest.raises(DataError, match=rf"id {ids[0]} is no class of the bridge's source; allowed: 0\.\.3 and .* 255"):
        load(tmp_path).map(ids)


def test_ids_that_are_no_integers_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="float64; class ids are integers"):
        load(tmp_path).map([0.0])


@given(bridges(), st.data())
def test_merged_probabilities_are_sums(bridge: Bridge, data: st.DataObject) -> None:
    shape = (2, bridge.source.num_classes, 3, 1)
    logits = data.draw(hnp.arrays(np.float64, shape, elements=st.floats(-30, 30)))
    log_probabilities = torch.log_softmax(torch.from_numpy(logits), dim=1).numpy()
    merged = bridge.merge(log_probabilities)
    assert merged.dtype == np.float64
    probabilities = np.exp(log_probabilities)
    for index in range(bridge.target.num_classes):
        expected = sum(probabilities[:, c] for c, to in enumerate(bridge.assignment) if to == index)
        np.testing.assert_allclose(np.exp(merged[:, index]), expected, rtol=1e-9, atol=1e-300)
    tensors = torch.einsum("tk,nkhw->nthw", torch.from_numpy(bridge.matrix).double(), torch.from_numpy(probabilities))
    np.testing.assert_allclose(np.exp(merged), tensors.numpy(), rtol=1e-9, atol=1e-12)


@given(bridges(), st.data())
def test_a_certain_prediction_is_mapped_as_its_id(bridge: Bridge, data: st.DataObject) -> None:
    ids = data.draw(hnp.arrays(np.int64, (2, 3, 2), elements=st.integers(0, bridge.source.num_classes - 1)))
    certain = np.moveaxis(np.where(np.eye(bridge.source.num_classes) > 0, 0.0, -50.0)[ids], -1, 1)
    merged, mapped = bridge.merge(certain).argmax(axis=1), bridge.map(ids)
    there = mapped != bridge.target.ignore_index
    assert np.array_equal(merged[there], mapped[there])
    assert np.isin(merged, bridge.table).all()  # an unmapped class gives way to the next best


def test_probabilities_decide_where_single_classes_would_not(tmp_path: Path) -> None:
    log_probabilities = np.log([0.3, 0.3, 0.0001, 0.3999])[None, :, None, None]
    bridge = load(tmp_path)
    assert bridge.map(log_probabilities.argmax(axis=1)).item() == TARGET.index("plant")
    assert bridge.merge(log_probabilities).argmax(axis=1).item() == TARGET.index("vehicle")


def test_half_precision_stays_half(tmp_path: Path) -> None:
    assert load(tmp_path).merge(np.zeros((1, 4, 2, 2), np.float16)).dtype == np.float16
    assert load(tmp_path).merge(np.zeros((1, 4, 2, 2), np.int64)).dtype == np.float32


def test_probabilities_of_another_network_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"shape \(1, 5, 2, 2\) do not fit the bridge; it wants \(N, 4, H, W\)"):
        load(tmp_path).merge(np.zeros((1, 5, 2, 2)))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"bus"]', '"buss"]', "'buss' under 'vehicle' is no class of the source; nearest: 'bus'"),
        ('["grass"]', '["gras"]', "'gras' under 'unmapped' is no class of the source; nearest: 'grass'"),
        ("plant =", "plants =", "'plants' is no class of the target; nearest: 'plant'"),
        ('"bus"]', "]", "class 'bus' of the source stands nowhere"),
        ('["grass"]', "[]", "class 'grass' of the source stands nowhere"),
        ("boat = []", "", "class 'boat' of the target is missing"),
        ('["tree"]', '["tree", "car"]', "'car' stands under 'vehicle' and under 'plant'"),
        ('["tree"]', '["tree", "grass"]', "'grass' stands under 'plant' and under 'unmapped'"),
        ('["tree"]', '["tree", "tree"]', "'tree' stands under 'plant' and under 'plant'"),
        ('["tree"]', '"tree"', r"plant = 'tree'; write a list of classes"),
        ('["tree"]', "[3]", r"plant = \[3\]; write a list of classes"),
        ("unmapped =", "ignored =", "unknown key 'ignored'; allowed: 'source', 'target', 'classes', 'unmapped'"),
        ("[classes]", "[klasses]", "unknown key 'klasses'; nearest: 'classes'"),
        ("boat = []", "plant = []", "not a TOML file"),
    ],
)
def test_files_that_cannot_be_used(tmp_path: Path, old: str, new: str, message: str) -> None:
    assert old in GOOD
    with pytest.raises(DataError, match=rf"bridge\.toml: .*{message}"):
        load(tmp_path, GOOD.replace(old, new))


def test_a_file_without_classes(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no table \[classes\]"):
        load(tmp_path, 'unmapped = ["car"]')


def test_a_file_that_maps_nothing(tmp_path: Path) -> None:
    text = 'unmapped = ["car", "bus", "grass", "tree"]\n[classes]\nplant = []\nvehicle = []\nboat = []\n'
    with pytest.raises(DataError, match="maps no class at all"):
        load(tmp_path, text)


def test_files_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="bridge file '.*none.toml' does not exist"):
        Bridge.load(tmp_path / "none.toml", SOURCE, TARGET)
    with pytest.raises(DataError, match="cannot be read"):
        Bridge.load(tmp_path, SOURCE, TARGET)


def test_label_sets_named_in_the_file(tmp_path: Path) -> None:
    SOURCE.save(tmp_path / "ours.toml")
    path = written(tmp_path, f'source = "ours.toml"\ntarget = "nyuv2-4"\n{GOOD}')
    text = path.read_text().replace("vehicle", "props").replace("plant", "floor").replace("boat", "structure")
    path.write_text(text + "furniture = []\n")
    bridge = Bridge.load(path)
    assert bridge.source == SOURCE
    assert bridge.target == KNOWN["nyuv2-4"]
    assert bridge.table.tolist() == [3, 3, 255, 0]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("", "does not say which label set its source is"),
        ('source = "cityscape"', "source = 'cityscape' is no known label set; nearest: 'cityscapes', or a .toml file"),
        ('source = "none.toml"', "taxonomy file '.*none.toml' does not exist"),
    ],
)
def test_label_sets_that_are_not_named(tmp_path: Path, line: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        Bridge.load(written(tmp_path, f"{line}\n{GOOD}"), None, TARGET)


@pytest.mark.parametrize(
    ("assignment", "message"),
    [((0, 0, 0), "3 classes does not fit a source of 4"), ((0, 1, 3, 0), "leads to class 3; allowed: 0..2 and -1")],
)
def test_assignments_that_do_not_fit(assignment: tuple[int, ...], message: str) -> None:
    with pytest.raises(DataError, match=message):
        Bridge(SOURCE, TARGET, assignment)


def test_cityscapes_in_classes_of_camvid() -> None:
    bridge = Bridge.load(SHIPPED)
    assert (bridge.source, bridge.target) == (CITYSCAPES, CAMVID11)
    rows = (
        "sky: sky; building: building, wall; column_pole: pole; road: road; sidewalk: sidewalk;"
        " tree: vegetation, terrain; sign_symbol: traffic light, traffic sign; fence: fence;"
        " car: car, truck, bus, train; pedestrian: person; bicyclist: rider, motorcycle, bicycle"
    )
    expected = {}
    for row in rows.split("; "):
        name, members = row.split(": ")
        expected |= dict.fromkeys(members.split(", "), name)
    assert set(expected) == set(CITYSCAPES.names)
    for index, name in enumerate(CITYSCAPES.names):
        assert CAMVID11.names[bridge.table[index]] == expected[name], name
    assert bridge.unmapped == bridge.unreached == ()
