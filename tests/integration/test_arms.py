"""Arms beside the usual ones, added to a run that is done: what is shared is not made again."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from hs3seg.analysis import SupervisionPlan, mean_iou
from hs3seg.cli import main
from tests.integration.conftest import Fails

MORE = ("kmeans", "hs3_diagonal", "hs3_class_heads", "deep_supervision_long", "manual", "online_coarse_to_fine")


def read(path: Path) -> dict:
    return json.loads(path.read_text())


@pytest.fixture(scope="module")
def run(config: Path, finished_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = Path(shutil.copytree(finished_run, tmp_path_factory.mktemp("arms") / "run"))
    by_hand = finished_run / "arms" / "reversed" / "plan.toml"
    before = (folder / "phase_one" / "weights.safetensors").stat().st_mtime_ns
    words = ["run", str(config), "--run_dir", str(folder), "--resume", "--arms", json.dumps(MORE)]
    assert main([*words, "--supervision.manual_plan", str(by_hand), "--online.warmup", "0.5"]) == 0
    assert (folder / "phase_one" / "weights.safetensors").stat().st_mtime_ns == before
    return folder


def plan_of(run: Path, arm: str) -> SupervisionPlan:
    return SupervisionPlan.load(run / "arms" / arm / "plan.toml")


def test_every_arm_is_trained_and_evaluated(run: Path) -> None:
    for arm in MORE:
        counts = np.load(run / "arms" / arm / "confusion-val.npz")["final"]
        assert counts.sum() > 0
        assert read(run / "arms" / arm / "evaluation-val.json")["miou"] == pytest.approx(mean_iou(counts))


def test_kmeans_has_as_many_groups_as_hs3_found_on_embeddings(run: Path) -> None:
    assert plan_of(run, "kmeans").num_groups == plan_of(run, "hs3").num_groups
    embeddings = np.load(run / "analysis" / "embeddings.npz")
    assert {name: embeddings[name].shape[0] for name in embeddings.files} == {"stage2": 11, "stage3": 11}


def test_the_diagonal_is_kept_in_a_plan_of_its_own(run: Path) -> None:
    assert plan_of(run, "hs3_diagonal").notes["diagonal"] == "keep"
    assert plan_of(run, "hs3").notes["diagonal"] == "drop"
    assert (run / "plan-diagonal.toml").exists()
    assert read(run / "analysis" / "analysis-diagonal.json")["diagonal"] == "keep"
    assert read(run / "analysis" / "analysis.json")["diagonal"] == "drop"


def test_class_heads_have_the_groups_of_hs3(run: Path) -> None:
    assert plan_of(run, "hs3_class_heads").stages == plan_of(run, "hs3").stages
    stages = read(run / "arms" / "hs3_class_heads" / "evaluation-val.json")["stages"]
    assert {name: value["num_groups"] for name, value in stages.items()} == plan_of(run, "hs3").num_groups


def test_the_long_arm_sees_as_many_images_as_both_phases(run: Path) -> None:
    one, two = (read(run / name / "train.json")["steps"] for name in ("phase_one", "arms/hs3"))
    epochs = read(run / "arms" / "deep_supervision_long" / "train.json")["epochs"]
    assert epochs == round(2 * (1 + 18 / 24))  # a quarter of 24 images is held out
    assert abs(6 * epochs - (one + two)) <= 6


def test_the_plan_by_hand_is_taken_as_it_is(run: Path, finished_run: Path) -> None:
    assert plan_of(run, "manual").stages == plan_of(finished_run, "reversed").stages


def test_the_page_names_all_arms(run: Path) -> None:
    page = (run / "report" / "index.html").read_text()
    for title in ("k-means groups", "HS3, diagonal kept", "Deep supervision, as long as HS3", "Groups by hand"):
        assert title in page


def test_an_arm_by_hand_needs_its_plan(config: Path, tmp_path: Path, fails: Fails) -> None:
    told = fails("run", config, "--run_dir", tmp_path / "run", "--arms", '["manual"]')
    assert "the arm 'manual' needs supervision.manual_plan" in told
    assert not (tmp_path / "run").exists()
