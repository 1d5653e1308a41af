"""The whole run on small data: every file, every step alone, the same result after any interruption."""

import json
import os
import shutil
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from hs3seg.analysis import FusePlan, SupervisionPlan, load_confusions, mean_iou
from hs3seg.builders import make_network, make_supervised
from hs3seg.cli import main
from hs3seg.config.load import load_config
from hs3seg.pipeline.steps import open_session
from hs3seg.taxonomy import Taxonomy
from tests.integration.conftest import Call

ARMS = ("none", "deep_supervision", "hs3", "hs3_fuse", "random", "reversed")


def read(path: Path) -> dict:
    return json.loads(path.read_text())


def copied(run: Path, folder: Path) -> Path:
    """A run of one's own: the shared one must not change under the other tests."""
    return Path(shutil.copytree(run, folder / "copy"))


def test_results_have_the_documented_shape(finished_run: Path) -> None:
    results = read(finished_run / "results.json")
    assert set(results["arms"]) == set(ARMS)
    for scores in results["arms"].values():
        assert 0 <= scores["miou"] <= 1
        assert 0 <= scores["pixel_accuracy"] <= 1
    assert list(results["num_groups"]) == ["stage2", "stage3"]
    assert Path(results["plan"]).is_file()
    assert Path(results["report"]).is_file()
    assert results["seconds"] > 0
    assert {s: len(g) for s, g in results["groups"].items()} == results["num_groups"]


def test_every_arm_leaves_its_files(finished_run: Path) -> None:
    for arm in ARMS:
        folder = finished_run / "arms" / arm
        training = read(folder / "train.json")
        assert training["steps"] == 12
        assert not (folder / "state.pt").exists()
        for split, count in (("val", 8), ("test", 6)):
            values = read(folder / f"evaluation-{split}.json")
            final = np.load(folder / f"confusion-{split}.npz")["final"]
            assert values["num_images"] == count
            assert values["num_pixels"] == final.sum() == count * 32 * 48
            assert values["miou"] == pytest.approx(mean_iou(final))
            assert np.load(folder / f"samples-{split}.npz")["0/final"].shape == (32, 48)
        events = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
        assert [e["event"] for e in events] == ["start", *["step"] * 12, "end"]


def test_plans_are_what_their_arms_say(finished_run: Path) -> None:
    plans = {arm: SupervisionPlan.load(finished_run / "arms" / arm / "plan.toml") for arm in ARMS}
    hs3 = SupervisionPlan.load(finished_run / "plan.toml")
    assert plans["hs3"] == hs3
    assert plans["none"].stages == ()
    assert all(s.grouping.is_identity for s in plans["deep_supervision"].stages)
    assert [s.grouping for s in plans["reversed"].stages] == [s.grouping for s in reversed(hs3.stages)]
    assert plans["random"].num_groups == hs3.num_groups
    assert plans["hs3_fuse"].stages == hs3.stages
    assert plans["hs3_fuse"].fuse == FusePlan(192, 96)


def test_arms_start_from_the_same_weights_and_end_apart(finished_run: Path) -> None:
    config = load_config(finished_run / "config.toml")
    taxonomy = Taxonomy.load(finished_run / "taxonomy.toml")
    start = make_network(config, taxonomy).state_dict()
    for arm in set(ARMS) - {"hs3_fuse"}:  # has layers of its own behind the trunk
        plan = SupervisionPlan.load(finished_run / "arms" / arm / "plan.toml")
        found = make_supervised(config, plan, taxonomy).net.state_dict()
        assert found.keys() == start.keys()
        assert all(torch.equal(value, start[name]) for name, value in found.items()), arm
    hashes = {arm: read(finished_run / "arms" / arm / "train.json")["weights_sha256"] for arm in ARMS}
    assert len(set(hashes.values())) == len(ARMS) or hashes["random"] == hashes["hs3"]


def test_the_analysis_saw_only_training_images(finished_run: Path) -> None:
    confusions = load_confusions(finished_run / "analysis" / "confusion.npz")
    assert list(confusions) == ["stage2", "stage3", "final"]
    assert confusions["final"].sum() == 6 * 32 * 48  # a quarter of 24


def test_a_finished_run_resumes_to_the_same_and_is_not_overwritten(
    config: Path, finished_run: Path, tmp_path: Path, hs3: Call, fails: object
) -> None:
    finished_run = copied(finished_run, tmp_path)
    before = (finished_run / "results.json").read_text()
    stamps = {p: p.stat().st_mtime_ns for p in finished_run.rglob("weights.safetensors")}
    arms = json.dumps(ARMS)
    again = hs3("run", config, "--run_dir", finished_run, "--arms", arms, "--resume")
    assert again["arms"] == json.loads(before)["arms"]
    assert stamps == {p: p.stat().st_mtime_ns for p in finished_run.rglob("weights.safetensors")}
    assert "--resume" in fails("run", config, "--run_dir", finished_run)
    assert "another run" in fails("run", config, "--run_dir", finished_run, "--seed", "4", "--resume")


def test_a_folder_with_other_things_is_left_alone(config: Path, tmp_path: Path, fails: object) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    assert "holds no run of hs3" in fails("run", config, "--run_dir", tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.txt"]


def test_steps_alone_give_what_the_run_gave(config: Path, finished_run: Path, tmp_path: Path, hs3: Call) -> None:
    one = tmp_path / "one"
    hs3("train", config, "--split", "reduced", "--out", one)
    # The arm's name differs, nothing else: the weights are those of phase one.
    tensors = [
        np.fromfile(p, np.uint8)[-4096:]
        for p in (one / "weights.safetensors", finished_run / "phase_one" / "weights.safetensors")
    ]
    assert (tensors[0] == tensors[1]).all()
    hs3("analyze", one, "--out", one / "analysis")
    for name, matrix in load_confusions(finished_run / "analysis" / "confusion.npz").items():
        assert (load_confusions(one / "analysis" / "confusion.npz")[name] == matrix).all()
    plan = tmp_path / "plan.toml"
    found = hs3(
        "plan",
        "--confusion",
        one / "analysis" / "confusion.npz",
        "--out",
        plan,
    )
    assert {s: v["num_groups"] for s, v in found["stages"].items()} == read(finished_run / "results.json")["num_groups"]
    two = tmp_path / "two"
    hs3("train", config, "--plan", plan, "--out", two)
    scores = hs3("evaluate", two, "--split", "val")
    assert scores["miou"] == read(finished_run / "results.json")["arms"]["hs3"]["miou"]
    assert set(scores["iou"]) == set(SupervisionPlan.load(plan).taxonomy_names)
    # Into a folder with another network's matrices: measured anew. With its own: left as they are.
    mark = one / "analysis" / "measured.json"
    for weights, split in ((one, "val"), (two, "val"), (two, "analysis")):
        before = mark.read_text()
        hs3("analyze", weights, "--split", split, "--out", one / "analysis")
        assert mark.read_text() != before
        written = (one / "analysis" / "confusion.npz").stat().st_mtime_ns
        hs3("analyze", weights, "--split", split, "--out", one / "analysis")
        assert (one / "analysis" / "confusion.npz").stat().st_mtime_ns == written


def test_evaluation_needs_only_the_weight_file(finished_run: Path, tmp_path: Path, hs3: Call) -> None:
    copy = tmp_path / "w.safetensors"
    copy.write_bytes((finished_run / "arms" / "hs3" / "weights.safetensors").read_bytes())
    assert (
        hs3("evaluate", copy, "--split", "test")["miou"]
        == read(finished_run / "results.json")["splits"]["test"]["hs3"]["miou"]
    )


def test_an_evaluation_of_another_kind_does_not_take_the_place_of_the_runs_own(
    finished_run: Path, tmp_path: Path, hs3: Call
) -> None:
    arm = copied(finished_run, tmp_path) / "arms" / "hs3"
    before = (arm / "evaluation-val.json").read_text()
    for words in (("--evaluation.flip", "true"), ("--augment.resize", "16,24")):
        found = hs3("evaluate", arm, "--split", "val", *words)
        assert (arm / "evaluation-val.json").read_text() == before
        assert found["miou"] in [read(path)["miou"] for path in arm.glob("asked-*/evaluation-val.json")]
    assert len(list(arm.glob("asked-*"))) == 2
    hs3("evaluate", arm, "--split", "val")
    assert read(arm / "evaluation-val.json")["miou"] == json.loads(before)["miou"]


def test_kmeans_and_theta_and_a_manual_plan(config: Path, finished_run: Path, tmp_path: Path, hs3: Call) -> None:
    done = hs3(
        "run",
        config,
        "--run_dir",
        tmp_path / "k",
        "--arms",
        '["hs3"]',
        "--supervision.method",
        "kmeans",
        "--train.epochs",
        "1",
    )
    assert (tmp_path / "k" / "analysis" / "embeddings.npz").exists()
    assert read(tmp_path / "k" / "analysis" / "analysis.json")["method"] == "kmeans"
    assert set(done["arms"]) == {"hs3"}
    found = hs3("plan", "--confusion", finished_run / "analysis" / "confusion.npz", "--theta", "0")
    assert {v["num_groups"] for v in found["stages"].values()} == {11}
    found = hs3("plan", "--confusion", finished_run / "analysis" / "confusion.npz", "--rule", "knee")
    for values in found["stages"].values():
        clear = values["knee"]["height"] >= 0.05
        assert values["num_groups"] == (values["knee"]["num_groups"] if clear else 11)
    manual = hs3(
        "run",
        config,
        "--run_dir",
        tmp_path / "m",
        "--arms",
        '["hs3"]',
        "--supervision.plan",
        finished_run / "plan.toml",
        "--train.epochs",
        "1",
    )
    assert not (tmp_path / "m" / "phase_one").exists()
    assert manual["num_groups"] == read(finished_run / "results.json")["num_groups"]


def test_a_user_with_a_folder(folder_data: Path, tmp_path: Path, hs3: Call) -> None:
    config = Path(__file__).parents[2] / "configs" / "folder-of-masks.toml"
    common = [
        "--data.root",
        folder_data,
        "--augment.crop",
        "32,48",
        "--train.epochs",
        "1",
        "--train.batch_size",
        "4",
        "--data.num_workers",
        "0",
    ]
    assert hs3("data", "check", config, "--out", "none", *common)["counts"]["error"] == 0
    done = hs3("run", config, *common, "--run_dir", tmp_path / "run")
    assert set(done["arms"]) == {"none", "deep_supervision", "hs3"}
    images = folder_data / "images" / "val"
    predicted = hs3("predict", images, "--weights", tmp_path / "run" / "arms" / "hs3", "--out", tmp_path / "out")
    assert predicted["num_images"] == 3
    from PIL import Image

    with Image.open(tmp_path / "out" / "p 0.png") as mask:
        assert mask.mode == "P"
        assert mask.size == (56, 40)
        assert np.array(mask).max() < 3
    with Image.open(tmp_path / "out" / "p 0-overlay.png") as overlay:
        assert overlay.mode == "RGB"


def test_masks_that_were_repaired_after_a_training_are_pointed_out(
    folder_data: Path, tmp_path: Path, hs3: Call, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "config.toml"
    config.write_text(f'name = "x"\n[data]\nkind = "folder"\nroot = "{folder_data}"\n[augment]\ncrop = [32, 48]\n')
    out = tmp_path / "one"
    train = ["train", config, "--out", out, "--train.epochs", "1", "--train.batch_size", "2"]
    hs3(*train)
    capsys.readouterr()
    assert main([*map(str, train)]) == 0
    assert "written after it" not in capsys.readouterr().err
    mask = min(folder_data.glob("masks/train/*.png"))
    os.utime(mask, (time.time() + 5, time.time() + 5))
    assert main([*map(str, train)]) == 0
    told = capsys.readouterr().err
    assert f"1 of its images or masks were written after it, such as {mask}; where their content changed" in told


def test_profile_and_keys(config: Path, hs3: Call) -> None:
    cost = hs3("profile", "hrnet_w18", "--size", "480", "640", "--classes", "40")
    assert (cost["conv_macs"], cost["matmul_macs"], cost["parameters"]) == (11_367_196_800, 0, 3_945_270)
    arms = hs3("profile", config)
    assert arms["training"]["none"] == arms["inference"]
    assert arms["training"]["deep_supervision"]["gmacs"] > arms["inference"]["gmacs"]
    assert any(row["key"] == "train.epochs" for row in hs3("keys")["keys"])


def test_shown_results_name_the_winner(
    config: Path, finished_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    finished_run = copied(finished_run, tmp_path)
    assert main(["run", str(config), "--run_dir", str(finished_run), "--resume"]) == 0
    out = capsys.readouterr().out
    assert "is ahead of" in out
    assert "One seed" in out
    assert "HS3 trained twice" in out
    assert "report:" in out


def test_fewer_training_images_are_drawn_for_all_steps_alike(config: Path) -> None:
    """A learning curve: the analysis images are among the drawn ones, evaluation keeps all of its own."""
    whole, few = (open_session(load_config(config, words), quiet=True) for words in ((), ("--data.train_images", "9")))
    names = set(few.dataset("train").names)
    assert len(names) == 9
    assert names < set(whole.dataset("train").names)
    parts = [set(few.dataset(split).names) for split in ("reduced", "analysis")]
    assert parts[0] | parts[1] == names
    assert not parts[0] & parts[1]
    assert few.dataset("val").names == whole.dataset("val").names
