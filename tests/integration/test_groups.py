"""A plan for other tools, and back."""

import subprocess
import sys
from pathlib import Path

import pytest

from hs3seg.analysis import FusePlan, StagePlan, SupervisionPlan
from hs3seg.taxonomy import Grouping, Taxonomy
from tests.integration.conftest import Call, Fails


@pytest.mark.parametrize("kind", ["csv", "lightlytrain", "mmsegmentation", "nnunet", "ultralytics"])
def test_a_plan_goes_out_and_comes_back(finished_run: Path, tmp_path: Path, hs3: Call, kind: str) -> None:
    taxonomy = finished_run / "taxonomy.toml"
    files = hs3("groups", finished_run / "plan.toml", "--format", kind, "--out", tmp_path / "groups")["files"]
    plan = SupervisionPlan.load(finished_run / "plan.toml")
    assert len(files) == len(plan.stages)
    words = ["groups", tmp_path / "groups", "--format", kind, "--taxonomy", taxonomy, "--out", tmp_path / "back.toml"]
    assert hs3(*words)["plan"] == str(tmp_path / "back.toml")
    back = SupervisionPlan.load(tmp_path / "back.toml")
    found = {stage.stage: stage.grouping for stage in back.stages}
    assert found == {stage.stage: stage.grouping for stage in plan.stages}


def test_groups_need_no_torch(finished_run: Path, tmp_path: Path) -> None:
    code = (
        "import sys; from hs3seg.cli import main; code = main(sys.argv[1:]); assert 'torch' not in sys.modules;"
        " sys.exit(code)"
    )
    words = ["groups", str(finished_run / "plan.toml"), "--format", "csv", "--out", str(tmp_path)]
    subprocess.run([sys.executable, "-c", code, *words], check=True)


def test_what_cannot_be_written_is_said(finished_run: Path, tmp_path: Path, fails: Fails) -> None:
    plan = finished_run / "plan.toml"
    assert "nearest: 'nnunet'" in fails("groups", plan, "--format", "nnunt")
    assert "holds no *" in fails("groups", tmp_path, "--format", "csv", "--taxonomy", finished_run / "taxonomy.toml")


def test_importing_over_the_plan_changes_nothing_but_groups(tmp_path: Path, hs3: Call, fails: Fails) -> None:
    names = ("road", "car", "sky")
    Taxonomy.from_names(names).save(tmp_path / "taxonomy.toml")
    group, own = Grouping.from_labels([0, 0, 1]), Grouping.identity(3)
    stages = (StagePlan("blocks.3", group, 1.0), StagePlan("blocks.11", own, 0.2))
    plan = SupervisionPlan(names, stages, fuse=FusePlan(16, 8))
    place = tmp_path / "plan.toml"
    plan.save(place)
    hs3("groups", place, "--format", "csv", "--out", tmp_path / "groups")
    back = ["groups", tmp_path / "groups", "--format", "csv", "--taxonomy", tmp_path / "taxonomy.toml", "--out"]
    assert hs3(*back, place)["notes"] == [f"order, gammas and tables are those that '{place}' had"]
    found = SupervisionPlan.load(place)
    assert (found.stages, found.fuse) == (plan.stages, plan.fuse)
    (said,) = hs3(*back, tmp_path / "new.toml")["notes"]
    assert "gamma of blocks.3, blocks.11 are the default, 0.4" in said
    new = SupervisionPlan.load(tmp_path / "new.toml")
    assert [(stage.stage, stage.gamma) for stage in new.stages] == [("blocks.3", 0.4), ("blocks.11", 0.4)]
    (tmp_path / "groups" / "blocks.3.csv").unlink()
    assert "stages without a file are left out: blocks.3" in hs3(*back, place)["notes"]
    SupervisionPlan(("a", "b"), (StagePlan("blocks.11", Grouping.identity(2), 9.0),)).save(tmp_path / "other.toml")
    assert "was of other classes" in hs3(*back, tmp_path / "other.toml")["notes"][0]
    assert SupervisionPlan.load(tmp_path / "other.toml").stages == (StagePlan("blocks.11", own),)
    (tmp_path / "config.toml").write_text("[train]\nepochs = 3\n")
    assert "it is not written over" in fails(*back, tmp_path / "config.toml")
    assert "epochs" in (tmp_path / "config.toml").read_text()
