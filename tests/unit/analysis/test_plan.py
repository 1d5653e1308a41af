from pathlib import Path

import pytest

from hs3seg.analysis import OnlinePlan, StagePlan, SupervisionPlan, deep_supervision, no_supervision
from hs3seg.errors import PlanError
from hs3seg.taxonomy import Grouping

NAMES = ("road", "sidewalk", "sky", "car")
GOOD = """
classes = ["road", "sidewalk", "sky", "car"]
[[stage]]
name = "stage2"
gamma = 0.5
groups = [["road", "sidewalk"], ["sky"], ["car"]]
"""


def test_a_hand_written_plan_is_read() -> None:
    plan = SupervisionPlan.from_toml(GOOD)
    assert plan.taxonomy_names == NAMES
    assert plan.stage("stage2").grouping.groups == ((0, 1), (2,), (3,))
    assert plan.stage("stage2").gamma == 0.5
    assert plan.num_groups == {"stage2": 3}


def test_the_written_file_explains_itself_and_holds_names(tmp_path: Path) -> None:
    path = tmp_path / "plan.toml"
    SupervisionPlan.from_toml(GOOD).save(path)
    text = path.read_text()
    assert text.startswith("# Supervision plan")
    assert '["road", "sidewalk"],' in text
    assert SupervisionPlan.load(path) == SupervisionPlan.from_toml(GOOD)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"car"]]', '"cr"]]', "unknown class 'cr'; nearest: 'car'"),
        ('["car"]', '["car", "sky"]', "class 'sky' stands twice, in groups 2 and 3"),
        ('["car"]', '["car", "car"]', "class 'car' stands twice, in group 3"),
        (', ["sky"], ["car"]', "", "classes 'sky', 'car' are in no group"),
        ('], ["sky"], ["car"]', ', "sky", "car"]', "all classes in one group"),
        ('["sky"]', '"sky"', "list of lists of class names"),
        ('["sky"], ["car"]', '["sky"] ["car"]', "not a TOML file.*line 6"),
        ("gamma = 0.5", "gamma = inf", "gamma inf"),
        ("gamma = 0.5", "gamma = nan", "gamma nan"),
        ("gamma = 0.5", "gamma = true", "gamma = True"),
        ("gamma = 0.5", "gamma = 0.5\ngamma = 0.4", "not a TOML file.*line 6"),
        ("classes = [", "notes = 3\nclasses = [", r"notes = 3; must be a \[notes\] table"),
        ("classes = [", "name = 3\nclasses = [", "name = 3; must be text"),
        ('"car"]\n', '"car", "car"]\n', "'car' stands twice in `classes`"),
        ('"car"]\n', '"car", ""]\n', "`classes` must list all class names"),
        (', ["car"]', "", "class 'car' is in no group"),
        ('["sky"]', '["sky"], []', "an empty group"),
        ("gamma = 0.5", "gamma = -1", "gamma -1"),
        ("gamma = 0.5", 'gamma = "x"', "gamma = 'x'"),
        ("gamma", "gama", "unknown key 'gama'; nearest: 'gamma'"),
        ("[[stage]]", "[stage]", "double brackets"),
        ('name = "stage2"', "", "no name"),
        ('"stage2"', '"final"', "'final' is the output"),
        ('classes = ["road", ', "classes = [", "unknown class 'road'"),
        ("groups = [[", "groups = [", "not a TOML file|list of lists"),
        ("[[stage]]", "[[stage", "not a TOML file"),
    ],
)
def test_wrong_edits_are_explained(tmp_path: Path, old: str, new: str, message: str) -> None:
    path = tmp_path / "plan.toml"
    path.write_text(GOOD.replace(old, new))
    with pytest.raises(PlanError, match=message) as error:
        SupervisionPlan.load(path)
    assert str(path) in str(error.value)


def test_files_of_windows_editors_are_read(tmp_path: Path) -> None:
    path = tmp_path / "plan.toml"
    path.write_bytes(b"\xef\xbb\xbf" + GOOD.replace("\n", "\r\n").encode())
    assert SupervisionPlan.load(path) == SupervisionPlan.from_toml(GOOD)
    path.write_bytes(GOOD.replace("sky", "größe").encode("latin-1"))
    with pytest.raises(PlanError, match="not a text file in UTF-8"):
        SupervisionPlan.load(path)
    with pytest.raises(PlanError, match="is a folder; give the plan.toml inside it"):
        SupervisionPlan.load(tmp_path)


def test_notes_that_no_file_can_hold_are_refused(tmp_path: Path) -> None:
    with pytest.raises(PlanError, match="notes of the plan"):
        SupervisionPlan(NAMES, (), "x", {"theta": None}).save(tmp_path / "plan.toml")
    assert list(tmp_path.iterdir()) == []


def test_a_stage_twice() -> None:
    with pytest.raises(PlanError, match="'stage2' stands twice"):
        SupervisionPlan.from_toml(GOOD + GOOD[GOOD.index("[[stage]]") :])


def test_plans_for_other_classes_are_refused() -> None:
    plan = SupervisionPlan.from_toml(GOOD)
    plan.check(NAMES)
    with pytest.raises(PlanError, match="it has 4, the data has 3; class 3 is 'car' in the plan and missing in"):
        plan.check(NAMES[:3])
    with pytest.raises(PlanError, match="class 1 is 'sidewalk' in the plan and 'pavement'"):
        plan.check(("road", "pavement", "sky", "car"))
    with pytest.raises(PlanError, match="nearest: 'stage2'"):
        plan.stage("stage3")
    with pytest.raises(PlanError, match="does not exist"):
        SupervisionPlan.load(Path("no/plan.toml"))
    with pytest.raises(PlanError, match="has 3 classes, the plan 4"):
        SupervisionPlan(NAMES, (StagePlan("s", Grouping.identity(3)),))
    with pytest.raises(PlanError, match="'road' stands twice"):
        SupervisionPlan(("road", "road"), ())


def test_baselines() -> None:
    assert no_supervision(NAMES).stages == ()
    deep = deep_supervision(NAMES, ["a", "b"], 0.3)
    assert all(s.grouping.is_identity and s.gamma == 0.3 for s in deep.stages)


ONLINE = SupervisionPlan(("a", "b", "c"), (StagePlan("s", Grouping.identity(3)),), "online", online=OnlinePlan(0.3))


def test_class_heads_and_the_online_table_survive_the_file() -> None:
    assert SupervisionPlan.from_toml(ONLINE.to_toml()) == ONLINE
    heads = SupervisionPlan(("a", "b", "c"), (StagePlan("s", Grouping.from_labels([0, 0, 1])),), heads="classes")
    assert SupervisionPlan.from_toml(heads.to_toml()) == heads


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("warmup = 0.3", "warmup = 3", "warmup = 3; must be a share"),
        ("warmup = 0.3", "warmip = 0.3", "unknown key 'warmip'; nearest: 'warmup'"),
        ("patience = 2", "patience = 0", "patience = 0; must be a whole number, 1 or more"),
        ("interval = 0.05", "interval = 0", "interval = 0; must be a share above 0"),
        ('source = "training"', 'source = "test"', "unknown source 'test'; allowed: training, held_out"),
        ("probe = true", "probe = 1", "probe = 1; must be true or false"),
        ('["a"]', '["a", "b"]', "stage 's' has groups in a plan with"),
    ],
)
def test_wrong_online_tables_are_explained(old: str, new: str, told: str) -> None:
    text = ONLINE.to_toml()
    assert old in text
    text = text.replace(old, new)
    if new == '["a", "b"]':
        text = text.replace('  ["b"],\n', "")
    with pytest.raises(PlanError, match=told):
        SupervisionPlan.from_toml(text)
