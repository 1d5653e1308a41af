"""Two gloo processes: training runs, and evaluation counts exactly what one process counts."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file

from hs3seg.cli import main
from hs3seg.engine.weights import load_state

PLAIN = Path(__file__).with_name("plain_training.py")


def torchrun(*words: object, module: tuple[str, ...] = ("-m", "hs3seg"), succeeds: bool = True) -> None:
    command = [
        *(sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"),
        *module,
        *map(str, words),
    ]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment, check=False)
    assert (done.returncode == 0) == succeeds, done.stderr[-3000:]


def test_evaluation_is_identical_on_two_processes(finished_run: Path, tmp_path: Path) -> None:
    weights = finished_run / "arms" / "hs3"
    torchrun("evaluate", weights, "--split", "val", "--out", tmp_path)
    one, two = (np.load(folder / "confusion-val.npz") for folder in (weights, tmp_path))
    for stage in one.files:
        assert (one[stage] == two[stage]).all()
    found = [json.loads((folder / "evaluation-val.json").read_text()) for folder in (weights, tmp_path)]
    assert found[0] == found[1]
    assert found[1]["num_images"] == 8
    samples = [np.load(folder / "samples-val.npz") for folder in (weights, tmp_path)]
    assert all((samples[0][key] == samples[1][key]).all() for key in samples[0].files)


def test_protocols_are_identical_on_two_processes(finished_run: Path, tmp_path: Path) -> None:
    weights = finished_run / "arms" / "hs3"
    looks = ["--evaluation.scales", "[0.5, 1.0]", "--evaluation.flip", "true", "--evaluation.crop", "32,32"]
    words = ["evaluate", str(weights), "--split", "val", *looks, "--evaluation.boundaries", "true"]
    assert main([*words, "--out", str(tmp_path / "one")]) == 0
    torchrun(*words, "--out", tmp_path / "two")
    one, two = (json.loads((tmp_path / name / "evaluation-val.json").read_text()) for name in ("one", "two"))
    assert one == two
    assert one["protocol"]["crop"] == [32, 32]
    assert 0 <= one["boundary_f"]["mean"] <= 1
    assert one["mean_accuracy"] > 0


def test_a_whole_run_on_two_processes(config: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    torchrun(
        "run",
        config,
        "--run_dir",
        folder,
        "--arms",
        '["hs3", "hs3_fuse"]',
        "--train.epochs",
        "1",
        "--train.accumulate",
        "2",
    )
    facts = json.loads((folder / "arms" / "hs3" / "train.json").read_text())
    assert facts["processes"] == 2
    assert facts["steps"] == 6  # the batch is shared, not doubled
    assert (folder / "report" / "index.html").exists()


def test_groups_found_online_on_two_processes(config: Path, tmp_path: Path) -> None:
    words = ["--arms", '["online"]', "--train.epochs", "3", "--online.warmup", "0.3", "--online.interval", "0.3"]
    torchrun("run", config, "--run_dir", tmp_path / "run", *words)
    arm = tmp_path / "run" / "arms" / "online"
    history = json.loads((arm / "groups.json").read_text())
    assert [entry["progress"] for entry in history] == [1 / 3, 2 / 3]
    assert json.loads((arm / "evaluation-val.json").read_text())["stages"]["stage2"]["num_groups"] == 11


def test_two_processes_learn_what_one_does(tmp_path: Path) -> None:
    # A gradient that is summed over the processes or over a batch's parts, or divided twice, gives other weights.
    one, two, stopped = (tmp_path / name for name in ("one", "two", "stopped"))
    subprocess.run([sys.executable, PLAIN, one], check=True, timeout=300)
    torchrun(two, "--accumulate", 1, 2, module=(str(PLAIN),))
    expected = load_file(one / "1" / "weights.safetensors")
    for accumulate in ("1", "2"):
        found = load_file(two / accumulate / "weights.safetensors")
        assert json.loads((two / accumulate / "train.json").read_text())["processes"] == 2
        for name, tensor in expected.items():
            torch.testing.assert_close(found[name], tensor, rtol=1e-4, atol=1e-6)
    # Stopped inside the second epoch; what follows are the seven steps that are left.
    torchrun(stopped, "--stop-after", 5, module=(str(PLAIN),), succeeds=False)
    assert not (stopped / "1" / "train.json").exists()
    assert load_state(stopped / "1" / "state.pt")["step"] == 5
    torchrun(stopped, module=(str(PLAIN),))
    assert [(folder / "1" / "taken").read_text() for folder in (one, two, stopped)] == ["12", "12", "7"]
    uninterrupted = load_file(two / "1" / "weights.safetensors")
    resumed = load_file(stopped / "1" / "weights.safetensors")
    assert all(torch.equal(resumed[name], tensor) for name, tensor in uninterrupted.items())


def test_class_uniform_training_on_two_processes(config: Path, tmp_path: Path) -> None:
    uniform = [
        "--data.uniform_share",
        "0.5",
        "--data.uniform_tile",
        "16",
        "--train.epochs",
        "1",
        "--train.ema_decay",
        "0",
    ]
    words = ["train", str(config), "--arm", "none", *uniform]
    assert main([*words, "--out", str(tmp_path / "one" / "none")]) == 0
    torchrun(*words, "--out", tmp_path / "two" / "none")
    one, two = (np.load(tmp_path / name / "centroids-train.npz") for name in ("one", "two"))
    assert all((one[key] == two[key]).all() for key in one.files)


def test_a_comparison_on_two_processes_is_written_once(config: Path, tmp_path: Path) -> None:
    out = tmp_path / "compared"
    small = ["--train.epochs", "1", "--data.evaluate_splits", "val"]
    torchrun("compare", config, "--arms", "none,deep_supervision", "--seeds", "2", "--out", out, *small)
    values = json.loads((out / "results.json").read_text())
    assert {arm: set(seeds) for arm, seeds in values["arms"].items()} == {
        "none": {"0", "1"},
        "deep_supervision": {"0", "1"},
    }
    assert (out / "index.html").exists()
    assert not list(out.rglob(".*.tmp"))
