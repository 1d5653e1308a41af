"""Every table and figure of the paper, each step of it, on made-up data in the true formats."""

import io
import itertools
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from hs3seg.pipeline.reproduce import STUDIES
from hs3seg.pipeline.reproduce.settings import DRY
from tests.integration.conftest import Call, Fails

HEAVY = (pytest.mark.slow, pytest.mark.timeout(3600))  # WRN38 and w48 take their time on one core
FULL = [pytest.param(s.name, marks=HEAVY) for s in STUDIES.values() if s.full is not None]


def reproduced(hs3: Call, tmp_path: Path, *words: object) -> dict[str, object]:
    try:
        found = hs3("reproduce", *words, "--dry-run", "--runs", tmp_path, "--train.threads", "1")
        page = Path(str(found["report"])).read_text()
        assert "the numbers mean nothing" in page
        return found
    finally:
        for path in [*tmp_path.rglob("*.safetensors"), *tmp_path.rglob("state.pt")]:
            path.unlink()  # pytest keeps its folders, and weights are large


@pytest.mark.parametrize("name", FULL)
def test_the_papers_own_settings_run_dry(name: str, tmp_path: Path, hs3: Call) -> None:
    study = STUDIES[name]
    assert study.full is not None
    found = reproduced(hs3, tmp_path, name)
    trained = sum(len(setting.names or ("hs3",)) for setting in study.full.settings)
    arms = found["arms"]
    assert isinstance(arms, dict)
    assert len(arms) == trained
    for setting in study.full.settings:
        if setting.submit:
            submissions = list((tmp_path / "dry" / setting.name).rglob("submission.zip"))
            assert len(submissions) == len(setting.arms)


def test_a_study_is_paired_shared_and_resumed(tmp_path: Path, hs3: Call) -> None:
    runs = tmp_path / "runs"
    words = ["reproduce", "table6", "--small", "--dry-run", "--runs", runs, "--train.threads", "1", "--seeds", "0,1"]
    first = hs3(*words)
    arms = first["arms"]
    assert list(arms) == ["none", "deep_supervision", "hs3", "manual", "kmeans", "random"]
    assert all(list(own) == ["0", "1"] for own in arms.values())
    folder = runs / "dry" / "camvid-small" / "seed-0"
    for arm, own in arms.items():
        written = json.loads((folder / "arms" / arm / "evaluation-val.json").read_text())
        assert own["0"]["miou"] == written["miou"]
    assert arms["manual"]["0"]["num_groups"] == {"stage2": 7, "stage3": 9}
    named = first["settings"]["camvid-small"]["supervision"]["manual_plan"]
    assert named == "studies/camvid-manual-plan.toml"  # not where this machine has it
    assert arms["kmeans"]["0"]["num_groups"] == arms["hs3"]["0"]["num_groups"]
    times = {path: path.stat().st_mtime_ns for path in runs.rglob("weights.safetensors")}
    assert len(times) == 2 * (6 + 1)  # and phase one, once per seed
    again = hs3(*words)
    assert again["arms"] == arms
    assert {path: path.stat().st_mtime_ns for path in runs.rglob("weights.safetensors")} == times
    table = again["table"]
    assert table["head"] == ["", "mIoU, paper", "mIoU, ours", "groups", "seeds"]
    row = next(row for row in table["rows"] if row[0] == "HS3, manual")
    scores = [100 * arms["manual"][seed]["miou"] for seed in ("0", "1")]
    assert row[1] == "77.9"
    assert row[2] == f"{np.mean(scores):.1f} \u00b1 {np.std(scores, ddof=1):.1f}"
    assert row[3:] == ["7, 9", "2"]
    page = Path(again["report"])
    assert json.loads((page.parent / "results.json").read_text())["arms"] == arms
    assert "seed-1/report/index.html" in page.read_text()
    assert "| HS3, manual | 77.9 |" in (page.parent / "README.md").read_text()
    shutil.rmtree(runs)


def test_studies_of_one_setting_share_its_trainings(tmp_path: Path, hs3: Call, fails: Fails) -> None:
    common = ["--small", "--dry-run", "--runs", tmp_path, "--train.threads", "1"]
    hs3("reproduce", "fig2", *common)
    folder = tmp_path / "dry" / "nyuv2-small" / "seed-0"
    phase_one = (folder / "phase_one" / "weights.safetensors").stat().st_mtime_ns
    assert not (folder / "arms").exists()  # the analysis is all that the figure needs
    found = hs3("reproduce", "table5", *common)
    assert (folder / "phase_one" / "weights.safetensors").stat().st_mtime_ns == phase_one
    deep, theta = found["arms"]["deep_supervision"]["0"], found["arms"]["theta-0"]["0"]
    assert theta["trained_as"] == "deep_supervision"  # 0 degrees: all stages have all classes
    assert theta["miou"] == deep["miou"]
    sizes = [list(found["arms"][f"theta-{t}"]["0"]["num_groups"].values()) for t in (0, 50, 75, 80, 85, 90)]
    assert sizes[0] == [40, 40]
    assert all(later <= earlier for a, b in itertools.pairwise(sizes) for earlier, later in zip(a, b, strict=True))
    page = hs3("reproduce", "table5", *common, "--page")
    assert page["arms"] == found["arms"]
    compared = found["comparisons"]["nyuv2-small"]["test"]
    # Who shares a training would be counted twice.
    assert set(compared) == {arm for arm, own in found["arms"].items() if own["0"]["trained_as"] == arm}
    assert "theta-0" not in compared
    error = fails("reproduce", "table5", *common, "--page", "--train.epochs", "9")
    assert "seed-0 was trained by other values of train.epochs; give the same ones" in error
    hs3("reproduce", "fig2", *common, "--seeds", "1")
    (folder.parent / "seed-1" / "config.toml").write_text(
        (folder.parent / "seed-1" / "config.toml").read_text().replace("epochs = ", "epochs = 1")
    )
    error = fails("reproduce", "table5", *common, "--seeds", "0")  # not after hours of training
    assert "seed-1 was trained by other values of train.epochs" in error


def test_a_study_goes_on_from_kept_numbers(tmp_path: Path, hs3: Call) -> None:
    runs, keep, public = tmp_path / "runs", tmp_path / "kept", tmp_path / "public"
    words = ["--small", "--dry-run", "--runs", runs, "--train.threads", "1", "--keep", keep]
    found = hs3("reproduce", "table6", *words, "--publish", public)
    kept = {file.stem for file in (keep / "camvid-small" / "seed-0").iterdir()}
    assert kept == {"phase_one", "none", "deep_supervision", "hs3", "manual", "kmeans", "random", "study"}
    before = (runs / "dry" / "camvid-small" / "seed-0" / "arms" / "hs3" / "confusion-val.npz").read_bytes()
    commit = found["commit"]
    shutil.rmtree(runs)
    again = hs3("reproduce", "table6", *words)
    assert again["arms"] == found["arms"]
    assert again["table"] == found["table"]
    assert again["comparisons"] == found["comparisons"]
    assert again["commit"] == commit
    assert not list(runs.rglob("*.safetensors"))  # nothing was trained
    restored = runs / "dry" / "camvid-small" / "seed-0" / "arms" / "hs3" / "confusion-val.npz"
    with np.load(io.BytesIO(before)) as one, np.load(restored) as other:
        assert {k: v.tolist() for k, v in one.items()} == {k: v.tolist() for k, v in other.items()}
    shutil.rmtree(runs)
    # The page needs neither the trainings nor the data: whoever has the kept numbers can make it.
    page = hs3("reproduce", "table6", "--small", "--runs", runs, "--keep", keep, "--page", "--seeds", "0", *DRY)
    assert page["arms"] == found["arms"]
    assert page["table"] == found["table"]
    (keep / "camvid-small" / "seed-0" / "random.json").unlink()
    shutil.rmtree(runs)
    once_more = hs3("reproduce", "table6", *words)
    assert [p.parent.name for p in runs.rglob("*.safetensors")] == ["random"]  # what is missing, by the kept plan
    assert once_more["arms"]["random"]["0"]["num_groups"] == found["arms"]["random"]["0"]["num_groups"]
    text = (public / "README.md").read_text()
    assert "| HS3, manual | 77.9 |" in text
    assert {p.name for p in public.iterdir()} >= {"README.md", "results.json"}
    assert not list(public.glob("*.html"))


def test_kept_numbers_of_another_recipe_are_not_taken(tmp_path: Path, hs3: Call) -> None:
    keep = tmp_path / "kept"
    words = ["reproduce", "fig2", "--small", "--dry-run", "--train.threads", "1", "--keep", keep]
    hs3(*words, "--runs", tmp_path / "one")
    other = tmp_path / "other"
    hs3(*words, "--runs", other, "--train.learning_rate", "0.01")
    assert [p.parent.name for p in other.rglob("*.safetensors")] == ["phase_one"]
    values = json.loads((keep / "nyuv2-small" / "seed-0" / "phase_one.json").read_text())
    assert values["train"]["identity"]["config"] == values["fingerprint"]  # the first recipe's are still there


def test_numbers_of_another_training_of_the_same_config_are_not_taken(tmp_path: Path, hs3: Call, fails: Fails) -> None:
    """What is known by its plan is not in the config's fingerprint: settings of [online], plans by hand."""
    keep, other = tmp_path / "kept", ("--online.warmup", "0.6")
    words = [
        "reproduce",
        "arms",
        "--small",
        "--settings",
        "camvid-small",
        "--dry-run",
        "--train.threads",
        "1",
        "--keep",
        keep,
    ]
    words += ["--seeds", "0,"]
    found = hs3(*words, "--runs", tmp_path / "one")
    error = fails(*words, "--runs", tmp_path / "one", *other)
    assert "belongs to another training: its plan is" in error
    error = fails(*words, "--runs", tmp_path / "two", *other)
    assert "kept numbers of online in" in error
    assert "are not those asked for" in error
    assert not list((tmp_path / "two").rglob("*.safetensors"))
    # Another split: what was kept has none of its numbers, so it is trained anew, and completes what was kept.
    (keep / "camvid-small" / "seed-0" / "none.json").unlink()
    hs3(*words, "--runs", tmp_path / "one")
    values = json.loads((keep / "camvid-small" / "seed-0" / "none.json").read_text())
    del values["evaluations"]["test"], values["confusions"]["test"]
    (keep / "camvid-small" / "seed-0" / "none.json").write_text(json.dumps(values))
    again = hs3(*words, "--runs", tmp_path / "three")
    assert {path.parent.name for path in (tmp_path / "three").rglob("*.safetensors")} == {"none"}
    assert again["arms"] == found["arms"]
    values = json.loads((keep / "camvid-small" / "seed-0" / "none.json").read_text())
    assert set(values["evaluations"]) == {"val", "test"}


def test_what_cannot_be_reproduced_is_said(tmp_path: Path, fails: Fails, hs3: Call) -> None:
    assert "unknown study 'table9'" in fails("reproduce", "table9")
    assert "add --small" in fails("reproduce", "heads")
    assert "give each once" in fails("reproduce", "table6", "--dry-run", "--seeds", "1,1", "--runs", tmp_path)
    assert "data.root" in fails("reproduce", "table6", "--small", "--runs", tmp_path)
    assert set(hs3("reproduce", "list")["studies"]) == set(STUDIES)
