"""SIGKILL at any moment, then --resume: the final weights are those of the uninterrupted run, bit for bit."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

WORDS = ["--train.checkpoint_seconds", "0.2", "--train.epochs", "3"]
ONLINE = ["--online.warmup", "0.3", "--online.interval", "0.3", "--online.patience", "1"]


def start(config: Path, folder: Path, *words: str, arms: str = '["hs3"]') -> subprocess.Popen[str]:
    words = ("--arms", arms, *WORDS, *words)
    command = [sys.executable, "-m", "hs3seg", "run", str(config), "--run_dir", str(folder), *words]
    # A group of its own, as a terminal or torchrun gives it.
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ}, start_new_session=True
    )


def steps(log: Path) -> int:
    if not log.exists():
        return 0
    return sum(1 for line in log.read_text().splitlines() if line.startswith('{"event": "step"'))


def stop_when(process: subprocess.Popen[str], moment: Callable[[], bool], how: signal.Signals) -> int:
    deadline = time.monotonic() + 120
    while not moment():
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.002)
    process.send_signal(how)
    process.communicate()
    return process.returncode


def hashes(folder: Path) -> dict[str, str]:
    return {
        str(path.parent.relative_to(folder)): json.loads(path.read_text())["weights_sha256"]
        for path in folder.rglob("train.json")
    }


@pytest.fixture(scope="module")
def uninterrupted(config: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("resume") / "whole"
    process = start(config, folder)
    assert process.wait() == 0, process.communicate()[1]
    found = hashes(folder)
    assert set(found) == {"phase_one", "arms/hs3"}
    return found


def test_killed_in_phase_one_in_the_analysis_and_in_phase_two(
    config: Path, tmp_path: Path, uninterrupted: dict[str, str]
) -> None:
    folder = tmp_path / "run"
    one, two = folder / "phase_one", folder / "arms" / "hs3"
    for moment in (
        lambda: steps(one / "log.jsonl") >= 5,
        lambda: (one / "train.json").exists() and not (folder / "plan.toml").exists(),
        lambda: steps(two / "log.jsonl") >= 7,
    ):
        assert stop_when(start(config, folder, "--resume"), moment, signal.SIGKILL) == -signal.SIGKILL
    process = start(config, folder, "--resume")
    assert process.wait() == 0, process.communicate()[1]
    assert hashes(folder) == uninterrupted
    events = [json.loads(line)["event"] for line in (two / "log.jsonl").read_text().splitlines()]
    assert events.count("step") == 18
    assert not list(folder.rglob("*.tmp"))


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("workers", [0, 1])
def test_a_signal_to_all_processes_saves_and_says_how_to_go_on(
    config: Path, tmp_path: Path, uninterrupted: dict[str, str], how: signal.Signals, workers: int
) -> None:
    folder = tmp_path / "run"
    process = start(config, folder, "--train.checkpoint_seconds", "1000", "--data.num_workers", str(workers))
    deadline = time.monotonic() + 120
    while steps(folder / "phase_one" / "log.jsonl") < 3 and time.monotonic() < deadline:
        time.sleep(0.002)
    os.killpg(process.pid, how)
    _, err = process.communicate()
    assert process.returncode == 130
    assert "--resume" in err
    assert "Traceback" not in err
    assert (folder / "phase_one" / "state.pt").exists()
    process = start(config, folder, "--resume")
    assert process.wait() == 0, process.communicate()[1]
    assert hashes(folder) == uninterrupted


def test_groups_found_online_survive_a_kill(config: Path, tmp_path: Path) -> None:
    decided = []
    for name in ("whole", "killed"):
        folder = tmp_path / name
        arm = folder / "arms" / "online"
        if name == "killed":
            # In the second epoch, so that counts of an unfinished interval and groups in use are both at stake.
            process = start(config, folder, *ONLINE, arms='["online"]')
            assert stop_when(process, lambda: steps(arm / "log.jsonl") >= 9, signal.SIGKILL) == -signal.SIGKILL  # noqa: B023
            assert (arm / "state.pt").exists()
        process = start(config, folder, *ONLINE, "--resume", arms='["online"]')
        assert process.wait() == 0, process.communicate()[1]
        events = [json.loads(line) for line in (arm / "log.jsonl").read_text().splitlines()]
        groups = [
            {k: v for k, v in event.items() if k not in ("event", "step", "epoch")}
            for event in events
            if event["event"] == "groups"
        ]
        assert groups == json.loads((arm / "groups.json").read_text())
        decided.append((hashes(folder), (arm / "groups.json").read_text(), (arm / "groups.toml").read_text()))
    assert decided[0] == decided[1]
    assert len(json.loads(decided[0][1])) == 2
