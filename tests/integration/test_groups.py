"""A plan for other tools, and back."""

import subprocess
import sys
from pathlib import Path

import pytest

from hs3seg.analysis import SupervisionPlan
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
