import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from hs3seg.cli import main

TINY = """
name = "tiny"
seed = 3
[data]
kind = "digits"
num_images = [24, 8, 6]
size = [32, 48]
num_workers = 0
cache = true
evaluate_splits = ["val", "test"]
analysis_fraction = 0.25
[augment]
crop = [32, 48]
scale = [0.8, 1.2]
flip = 0.0
[train]
epochs = 2
batch_size = 4
optimizer = "adamw"
learning_rate = 1e-3
warmup_epochs = 0.5
clip_norm = 5.0
ema_decay = 0.9
threads = 1
log_steps = 1
[evaluation]
num_samples = 2
"""


@pytest.fixture(scope="session")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("config") / "tiny.toml"
    path.write_text(TINY)
    return path


@pytest.fixture(scope="session")
def finished_run(config: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A complete tiny run of all arms."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    arms = '["none", "deep_supervision", "hs3", "hs3_fuse", "random", "reversed"]'
    assert main(["run", str(config), "--run_dir", str(folder), "--arms", arms, "--json"]) == 0
    return folder


Call = Callable[..., dict[str, Any]]
Fails = Callable[..., str]


@pytest.fixture
def hs3(capsys: pytest.CaptureFixture[str]) -> Call:
    """Runs a command with --json and gives back its object; standard output must hold nothing else."""

    def call(*words: object, code: int = 0) -> dict[str, Any]:
        capsys.readouterr()
        assert main([*map(str, words), "--json"]) == code
        result: dict[str, Any] = json.loads(capsys.readouterr().out)
        return result

    return call


@pytest.fixture
def fails(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Runs a command that must fail as the user's mistake; gives back its message of at most two lines."""

    def call(*words: object) -> str:
        capsys.readouterr()
        assert main([*map(str, words)]) == 2
        out, err = capsys.readouterr()
        assert out == ""
        assert "Traceback" not in err
        # Progress and notes that came before the error are no part of it.
        lines = err.splitlines()
        message = lines[next(i for i, line in enumerate(lines) if line.startswith("hs3: ")) :]
        assert 1 <= len(message) <= 2, err
        return "\n".join(message)

    return call


@pytest.fixture
def folder_data(tmp_path: Path) -> Path:
    """A user's folder: RGB-coloured masks of three classes in train and val."""
    root = tmp_path / "my data"
    palette = np.array([(200, 30, 30), (30, 200, 30), (30, 30, 200)], np.uint8)
    rng = np.random.default_rng(0)
    for split, count in (("train", 8), ("val", 3)):
        for kind in ("images", "masks"):
            (root / kind / split).mkdir(parents=True)
        for number in range(count):
            ids = np.zeros((40, 56), np.int64)
            for label in (1, 2):
                y, x = rng.integers(0, 30), rng.integers(0, 40)
                ids[y : y + 14, x : x + 18] = label
            image = palette[ids] // 2 + rng.integers(0, 60, (40, 56, 3))
            Image.fromarray(image.astype(np.uint8)).save(root / "images" / split / f"p {number}.jpg")
            Image.fromarray(palette[ids]).save(root / "masks" / split / f"p {number}.png")
    return root
