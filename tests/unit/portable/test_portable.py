import ast
import csv
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from hs3seg.analysis import FusePlan, StagePlan, SupervisionPlan
from hs3seg.analysis.plan import DEFAULT_GAMMA
from hs3seg.errors import DataError, PlanError
from hs3seg.portable import FORMATS, read_groups, read_plan, write_groups, write_plan
from hs3seg.taxonomies.cityscapes import CITYSCAPES
from hs3seg.taxonomy import Grouping, Taxonomy

ROADS = Taxonomy.from_names(("road", "sidewalk", "car", "bus", "sky"))
VEHICLES = Grouping.from_groups([[0, 1], [2, 3], [4]], 5)
MEDICAL = Taxonomy.from_names(("background", "edema", "necrosis", "tumor"))

Labels = NDArray[np.int64]


def like_mmsegmentation(path: Path, labels: Labels, _taxonomy: Taxonomy) -> Labels:
    module: dict[str, Any] = {}
    exec(compile(path.read_text(encoding="utf-8"), str(path), "exec"), module)
    merged = labels.copy()
    for old, new in module["label_map"].items():
        merged[labels == old] = new
    assert len(module["metainfo"]["classes"]) == len(module["metainfo"]["palette"]) == merged[labels != 255].max() + 1
    return merged


def like_ultralytics(path: Path, labels: Labels, _taxonomy: Taxonomy) -> Labels:
    values = yaml.safe_load(path.read_text(encoding="utf-8"))
    table = {old: 255 if new == "ignore_label" else new for old, new in values["label_mapping"].items()}
    assert set(values["names"]) == set(table.values()) - {255}
    return np.vectorize(table.__getitem__)(labels)


def like_lightlytrain(path: Path, labels: Labels, _taxonomy: Taxonomy) -> Labels:
    values = yaml.safe_load(path.read_text(encoding="utf-8"))
    merged = np.full_like(labels, -7)
    for number, entry in values["classes"].items():
        merged[np.isin(labels, entry["labels"])] = 255 if number in values["ignore_classes"] else number
    return merged


def like_nnunet(path: Path, labels: Labels, taxonomy: Taxonomy) -> Labels:
    values = json.loads(path.read_text(encoding="utf-8"))
    named = dict(values["labels"])
    ignore = named.pop("ignore")
    assert named.pop("background") == 0
    regions = [value if isinstance(value, list) else [value] for value in named.values()]
    everything = sorted({0, *(number for region in regions for number in region)})
    assert everything == list(range(ignore))  # consecutive, and the ignore label is the highest
    if any(len(region) > 1 for region in regions):
        assert len(values["regions_class_order"]) == len(regions)
    shift = ignore - taxonomy.num_classes
    masks = np.where(labels == 255, ignore, labels + shift)
    merged = np.full_like(labels, 255)
    merged[(masks == 0)] = 0
    for number, region in enumerate(regions):
        merged[np.isin(masks, region)] = number + (1 - shift)
    return merged


def like_a_spreadsheet(path: Path, labels: Labels, _taxonomy: Taxonomy) -> Labels:
    with path.open(encoding="utf-8", newline="") as file:
        table = {int(row["class_id"]): int(row["group"]) for row in csv.DictReader(file)}
    return np.vectorize({**table, 255: 255}.__getitem__)(labels)


READERS: dict[str, Callable[[Path, Labels, Taxonomy], Labels]] = {
    "mmsegmentation": like_mmsegmentation,
    "ultralytics": like_ultralytics,
    "lightlytrain": like_lightlytrain,
    "nnunet": like_nnunet,
    "csv": like_a_spreadsheet,
}
NAMES = st.text(st.characters(codec="utf-8", exclude_categories=("Cs", "Cc")), min_size=1, max_size=8)


@st.composite
def cases(draw: st.DrawFn) -> tuple[Taxonomy, Grouping]:
    names = draw(st.lists(NAMES | st.sampled_from(["background", "ignore", "no", "1", "a + b", "a", "b"]),
                          min_size=1, max_size=9, unique=True))  # fmt: skip
    labels = draw(st.lists(st.integers(0, 8), min_size=len(names), max_size=len(names)))
    return Taxonomy.from_names(names), Grouping.from_labels(labels)


def test_every_format_has_an_emulated_reader() -> None:
    assert set(FORMATS) == set(READERS)


@pytest.mark.parametrize("name", FORMATS)
@given(case=cases())
@settings(max_examples=60, deadline=None)
def test_what_is_written_is_read_back_and_means_the_same_to_the_tool(
    tmp_path_factory: pytest.TempPathFactory, name: str, case: tuple[Taxonomy, Grouping]
) -> None:
    taxonomy, grouping = case
    path = tmp_path_factory.mktemp(name) / f"groups{FORMATS[name].suffix}"
    write_groups(grouping, taxonomy, name, path)
    assert read_groups(name, path, taxonomy) == grouping
    labels = np.array([*range(taxonomy.num_classes), 255])
    np.testing.assert_array_equal(READERS[name](path, labels, taxonomy), grouping.remap(labels))


@pytest.mark.parametrize("name", FORMATS)
def test_cityscapes_groups_are_read_back(name: str, tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    grouping = Grouping.from_labels(random.integers(0, 7, CITYSCAPES.num_classes))
    path = tmp_path / "new folder" / f"groups{FORMATS[name].suffix}"
    write_groups(grouping, CITYSCAPES, name, path)
    assert read_groups(name, str(path), CITYSCAPES) == grouping


def test_texts_are_those_of_the_tools(tmp_path: Path) -> None:
    write_groups(VEHICLES, ROADS, "ultralytics", tmp_path / "u.yaml")
    values = yaml.safe_load((tmp_path / "u.yaml").read_text())
    assert values["names"] == {0: "road + sidewalk", 1: "car + bus", 2: "sky"}
    assert values["label_mapping"] == {0: 0, 1: 0, 2: 1, 3: 1, 4: 2, 255: "ignore_label"}

    write_groups(VEHICLES, ROADS, "lightlytrain", tmp_path / "l.yaml")
    values = yaml.safe_load((tmp_path / "l.yaml").read_text())
    assert values["classes"][1] == {"name": "car + bus", "labels": [2, 3]}
    assert values["ignore_classes"] == [255]

    write_groups(VEHICLES, ROADS, "nnunet", tmp_path / "n.json")
    assert json.loads((tmp_path / "n.json").read_text()) == {
        "labels": {"background": 0, "road + sidewalk": [1, 2], "car + bus": [3, 4], "sky": 5, "ignore": 6},
        "regions_class_order": [1, 3, 5],
    }

    write_groups(VEHICLES, ROADS, "mmsegmentation", tmp_path / "m.py")
    tree = ast.parse((tmp_path / "m.py").read_text())
    assert ast.literal_eval(tree.body[-1].value) == {0: 0, 1: 0, 2: 1, 3: 1, 4: 2}  # type: ignore[attr-defined]

    write_groups(VEHICLES, ROADS, "csv", tmp_path / "c.csv")
    assert (tmp_path / "c.csv").read_bytes().splitlines()[:2] == [
        b"class_id,class,group,group_name",
        b"0,road,0,road + sidewalk",
    ]


def test_nnunet_keeps_class_ids_where_the_background_is_alone(tmp_path: Path) -> None:
    path = tmp_path / "dataset.json"
    write_groups(Grouping.from_groups([[0], [1, 2], [3]], 4), MEDICAL, "nnunet", path)
    assert json.loads(path.read_text())["labels"] == {
        "background": 0,
        "edema + necrosis": [1, 2],
        "tumor": 3,
        "ignore": 4,
    }
    merged = Grouping.from_groups([[0, 1], [2, 3]], 4)
    write_groups(merged, MEDICAL, "nnunet", path)
    assert json.loads(path.read_text())["labels"]["background + edema"] == [1, 2]
    assert read_groups("nnunet", path, MEDICAL) == merged


def test_nnunet_without_merged_classes_has_no_regions(tmp_path: Path) -> None:
    path = tmp_path / "dataset.json"
    write_groups(VEHICLES, ROADS, "nnunet", path)
    write_groups(Grouping.identity(5), ROADS, "nnunet", path)
    assert "regions_class_order" not in json.loads(path.read_text())
    assert read_groups("nnunet", path, ROADS).is_identity


@pytest.mark.parametrize(
    ("name", "before"),
    [
        ("nnunet", '{"numTraining": 32, "file_ending": ".png", "labels": {"old": 1}}'),
        ("ultralytics", "path: /data\nmasks_dir: masks\nnames: {0: old}\n"),
        ("lightlytrain", "train: {images: a, masks: b}\nclasses: {0: old}\n"),
    ],
)
def test_other_keys_of_an_existing_file_are_kept(name: str, before: str, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text(before)
    write_groups(VEHICLES, ROADS, name, path)
    found, old = yaml.safe_load(path.read_text()), yaml.safe_load(before)
    replaced = {"labels", "names", "classes"}
    assert {key: found[key] for key in old.keys() - replaced} == {key: old[key] for key in old.keys() - replaced}
    assert "old" not in str(found)
    assert read_groups(name, path, ROADS) == VEHICLES


# As other tools and people write them.
BY_HAND = {
    "mmsegmentation": "METAINFO = {'classes': ('a', 'b', 'c')}\nlabel_map = {4: 2, 0: 0, 1: 0, 2: 1, 3: 1, 9: 255}\n",
    "ultralytics": "names: [a, b, c]\nlabel_mapping:\n  -1: ignore_label\n  0: 0\n  '1': '0'\n  2: 1\n  3: 1\n  4: 2\n"
    "  33: 255\n  34:\n",
    "lightlytrain": "classes:\n  10: {name: ground, labels: [0, 1]}\n  2: {name: vehicle, values: [2, 3]}\n  4: sky\n"
    "  0: {name: void, labels: [255]}\nignore_classes: [0]\n",
    "nnunet": '{"labels": {"background": 0, "all": [1, 2], "b": [3, 4], "c": [5]}, "regions_class_order": [2, 3, 5]}',
    "csv": "\ufeffgroup;class\r\nz;sky\r\nx;road\r\nx;sidewalk\r\n\r\ny;bus\r\ny;car\r\n",
}


@pytest.mark.parametrize("name", BY_HAND)
def test_files_written_by_hand_are_read(name: str, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(BY_HAND[name].encode())
    assert read_groups(name, path, ROADS) == VEHICLES


REGIONS = '{"labels": {"background": 0, "a": [1, 2], "b": [3, 4, 5]}'
WRONG = [
    ("mmsegmentation", "label_map = {", "not a Python file"),
    ("mmsegmentation", "palette = []", "no 'label_map'"),
    ("mmsegmentation", "label_map = make()", "must be a plain mapping"),
    ("mmsegmentation", "label_map = {i: i for i in range(5)}", "must be a plain mapping"),
    ("mmsegmentation", "label_map = {[]: 1}", "must be a plain mapping"),
    ("mmsegmentation", "label_map = {0: 0, 0: 1, 2: 1, 3: 1, 4: 2}", "class 0 stands twice"),
    ("mmsegmentation", "label_map = {0: 0, 1: 0, 2: 1, 3: 1}", "class 4 is in no group"),
    ("mmsegmentation", "label_map = {0: 0, 1: 0, 2: 1, 3: 1, 4: 255}", "class 'sky' is mapped to 255"),
    ("mmsegmentation", "label_map = {0: 0, 1: 0, 2: 1, 3: 1, 4: 'x'}", "class 4 is in group 'x'"),
    ("mmsegmentation", "label_map = {0: 0, 1: 0, 2: 1, 3: 1, 4: True}", "class 4 is in group True"),
    ("mmsegmentation", "metainfo = dict(classes=('a',))\nlabel_map = {0: 0, 1: 0, 2: 1, 3: 1, 4: 2}", "1 names in"),
    ("ultralytics", "label_mapping: [1, 2", "not a YAML file"),
    ("ultralytics", "- 1\n", "a YAML mapping is expected, found list"),
    ("ultralytics", "", "a YAML mapping is expected, found NoneType"),
    ("ultralytics", "names: {0: a}\n", "no 'label_mapping'"),
    ("ultralytics", "label_mapping: 3\n", "3 as 'label_mapping'"),
    ("ultralytics", "label_mapping: {0: 0, 0: 1}\n", "key 0 stands twice"),
    ("ultralytics", "label_mapping: {0: 0, '0': 1}\n", "an id stands twice"),
    ("ultralytics", "label_mapping: {0: 0, 1: 0, 2: 1, 3: 1, 4: ignore_label}\n", r"class 'sky' \(4\) is mapped"),
    ("ultralytics", "label_mapping: {0: 0, 1: 0, 2: 1, 3: 1, 4: 2, 7: 2}\n", "holds class 7; allowed: 0..4"),
    ("ultralytics", "label_mapping: {0: 0, 1: 0, 2: 1, 3: 1, x: 2}\n", "class id 'x'"),
    ("ultralytics", "names: {0: a}\nlabel_mapping: {0: 0, 1: 0, 2: 1, 3: 1, 4: 2}\n", "names has the ids"),
    ("ultralytics", "a: !!python/object/apply:os.getcwd []\n", "not a YAML file"),
    ("lightlytrain", "train: x\n", "no 'classes'"),
    ("lightlytrain", "classes: {0: 3}\n", "class 0 is 3"),
    ("lightlytrain", "classes: {0: {name: a, labels: 3}}\n", "class 0 is"),
    ("lightlytrain", "classes: {0: {name: a, labels: [[0, 0, 0]]}}\n", "colours as labels"),
    ("lightlytrain", "classes: {0: {name: a, labels: [0, 1, 2, 3, 4]}, 4: b}\n", "class 4 is in groups 0 and 1"),
    ("lightlytrain", "classes: {0: {name: a, labels: [0, 1]}}\n", "class 2 is in no group"),
    ("lightlytrain", "classes: {0: {name: a, labels: []}}\n", "group 0 is empty"),
    ("lightlytrain", "classes: {0: road, 1: b}\nignore_classes: [0]\n", r"class 'road' \(0\) is in ignore_classes"),
    ("lightlytrain", "classes: {0: road}\nignore_classes: 0\n", "must be a list"),
    ("nnunet", "{", "not a JSON file"),
    ("nnunet", '{"labels": {"a": 1, "a": 2}}', "key 'a' stands twice"),
    ("nnunet", "{}", "no 'labels'"),
    ("nnunet", '{"labels": {"a": 1}}', "'background' of labels is None"),
    ("nnunet", '{"labels": {"background": 1}}', "'background' of labels is 1"),
    ("nnunet", '{"labels": {"background": 0, "a": [1, 0]}}', "label 0 in labels"),
    ("nnunet", '{"labels": {"background": 0, "a": "1"}}', "label '1' in labels"),
    ("nnunet", REGIONS + "}", "no regions_class_order for 2 regions"),
    ("nnunet", REGIONS + ', "regions_class_order": [1]}', "1 regions_class_order for 2 regions"),
    ("nnunet", REGIONS + ', "regions_class_order": [3, 1]}', r"regions_class_order\[0\] = 3 is not in its region"),
    ("nnunet", REGIONS.replace("[1, 2]", "[1, 2, 3]") + ', "regions_class_order": [1, 3]}', "class 2 is in groups"),
    ("nnunet", '{"labels": {"background": 0, "a": 1, "b": 2}}', "do not fit 5 classes"),
    ("nnunet", '{"labels": {"background": 0, "ignore": 1}}', r"labels \(none\) do not fit"),
    ("csv", "", "no column 'class_id' in its first line"),
    ("csv", "class,name\nroad,0\n", "no column 'group'"),
    ("csv", "class,group\nroad\n", "row 2 has 1 cells"),
    ("csv", "class,group\nroda,0\n", "unknown class 'roda'; nearest: 'road'"),
    ("csv", "class,group\nroad,0\nroad,1\n", "row 3: class 'road' stands twice"),
    ("csv", "class,group\nroad,\n", "class 'road' has an empty group"),
    ("csv", "class,group\nroad,0\n", "class 'sidewalk' has no row"),
    ("csv", "class_id,group\n5,0\n", "class_id '5'; allowed: 0..4"),
    ("csv", "class_id,group\nx,0\n", "class_id 'x'"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "text", "match"), WRONG)
def test_malformed_files_are_told_with_their_name(name: str, text: str, match: str, tmp_path: Path) -> None:
    path = tmp_path / "wrong file"
    path.write_text(text)
    with pytest.raises(DataError, match=match) as caught:
        read_groups(name, path, ROADS)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", FORMATS)
def test_missing_and_binary_files_and_folders_are_told(name: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist"):
        read_groups(name, tmp_path / "missing", ROADS)
    with pytest.raises(DataError, match="cannot be read"):
        read_groups(name, tmp_path, ROADS)
    (tmp_path / "binary").write_bytes(b"\x89PNG\xff\xfe")
    with pytest.raises(DataError, match="not a text file"):
        read_groups(name, tmp_path / "binary", ROADS)


def test_python_files_are_never_run(tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    path = tmp_path / "m.py"
    path.write_text(f"open({str(trace)!r}, 'w').close()\nlabel_map = {{0: 0, 1: 0, 2: 1, 3: 1, 4: 2}}\n")
    assert read_groups("mmsegmentation", path, ROADS) == VEHICLES
    assert not trace.exists()


def test_unknown_formats_and_other_classes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="unknown format 'nnunnet' of groups; nearest: 'nnunet'"):
        write_groups(VEHICLES, ROADS, "nnunnet", tmp_path / "x")
    with pytest.raises(DataError, match="unknown format"):
        read_groups("coco", tmp_path / "x", ROADS)
    with pytest.raises(PlanError, match="a grouping of 5 classes with a taxonomy of 4"):
        write_groups(VEHICLES, MEDICAL, "csv", tmp_path / "x")
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize("name", FORMATS)
def test_a_plan_is_written_stage_by_stage(name: str, tmp_path: Path) -> None:
    stages = (StagePlan("encoder.layer2", VEHICLES), StagePlan("encoder.layer3", Grouping.identity(5)))
    plan = SupervisionPlan(ROADS.names, stages)
    places = write_plan(plan, ROADS, name, tmp_path)
    assert list(places) == ["encoder.layer2", "encoder.layer3"]
    assert {stage: read_groups(name, path, ROADS) for stage, path in places.items()} == {
        "encoder.layer2": VEHICLES,
        "encoder.layer3": Grouping.identity(5),
    }
    with pytest.raises(PlanError, match="other classes"):
        write_plan(plan, MEDICAL, name, tmp_path)


def test_groups_alone_take_order_weights_and_tables_of_an_earlier_plan(tmp_path: Path) -> None:
    stages = tuple(StagePlan(f"blocks.{n}", VEHICLES, g) for n, g in ((3, 1.0), (11, 0.2), (20, 0.4)))
    plan = SupervisionPlan(ROADS.names, stages, "spectral", {"theta": 60}, FusePlan(32, 16))
    files = write_plan(plan, ROADS, "csv", tmp_path)
    back = read_plan([*reversed(files.values())], ROADS, "csv", plan)
    assert replace(back, notes=plan.notes) == plan
    assert back.notes == {"theta": 60, "from": ["blocks.20.csv", "blocks.11.csv", "blocks.3.csv"]}
    write_groups(Grouping.identity(5), ROADS, "csv", files["blocks.11"])
    fewer = replace(plan, stages=stages[1:])
    mixed = read_plan(sorted(files.values()), ROADS, "csv", fewer)
    assert mixed.stage_names == ("blocks.11", "blocks.20", "blocks.3")
    assert [stage.gamma for stage in mixed.stages] == [0.2, 0.4, 0.4]
    assert mixed.stage("blocks.11").grouping.is_identity
    with pytest.raises(PlanError, match="other classes"):
        read_plan(list(files.values()), MEDICAL, "csv", plan)


def test_without_an_earlier_plan_numbers_order_stages(tmp_path: Path) -> None:
    names = ("net.blocks.2.a", "net.blocks.2.b", "net.blocks.11", "stem", "x9y10", "x10y9")
    for name in names:
        write_groups(VEHICLES, ROADS, "csv", tmp_path / f"{name}.csv")
    plan = read_plan(sorted(tmp_path.iterdir()), ROADS, "csv")
    assert plan.stage_names == names
    assert {stage.gamma for stage in plan.stages} == {DEFAULT_GAMMA}


def test_a_stage_with_a_slash_finds_its_file(tmp_path: Path) -> None:
    plan = SupervisionPlan(ROADS.names, (StagePlan("a/b", VEHICLES, 0.7),))
    files = write_plan(plan, ROADS, "csv", tmp_path)
    assert read_plan(list(files.values()), ROADS, "csv", plan).stages == plan.stages
