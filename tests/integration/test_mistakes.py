"""Every mistake of a user: exit code 2, one or two lines, what was found and what to do."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from hs3seg.cli import main
from hs3seg.taxonomy import Taxonomy
from tests.integration.conftest import Fails


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["rnu"], "unknown command 'rnu'; nearest: 'run'"),
        (["run"], "config"),
        (["run", "no.toml"], "'no.toml' does not exist"),
        (["plan", "--confusion", "no.npz"], "'no.npz' does not exist"),
        (["plan", "--confusion", "x.npz", "--tehta", "3"], "unknown option '--tehta'"),
        (["report", "no-such-run"], "no-such-run"),
        (["evaluate", "no-such-weights"], "does not exist"),
        (["predict", "x.jpg", "--weights", "no"], "does not exist"),
        (["profile", "hrnet_w19"], "nearest: 'hrnet_w18"),
        (["profile"], "--list"),
        (["predict", "x.jpg"], "--weights"),
        (["run", "x.toml", "--resum"], "unknown option '--resum' of `hs3 run`; nearest: '--resume'"),
        (["run", "--resum", "x.toml"], "nearest: '--resume'"),
        (["evaluate", "x", "--spilt", "test"], "nearest: '--split'"),
        (["profile", "hrnet_w18_small", "--clases", "5"], "nearest: '--classes'"),
        (["profile", "hrnet_w18_small", "--train.epochs", "5"], "unknown option '--train.epochs'"),
        (["data", "init", "x", "--data.masks", "fine"], "takes no '--data.masks'; set such values in the hs3.toml"),
        (["data", "unpack", "x", "y", "--data.masks", "fine"], "takes no '--data.masks'"),
        (["compare", "x.toml", "--seed", "3"], "did you mean --seeds?"),
        (["compare", "x.toml", "--run_dir=y"], "did you mean --out?"),
        (["compare", "--page", "--out", "y", "--train.epochs", "3"], "unknown option '--train.epochs'"),
        (["predict", "x.jpg", "--skip-existing", "--weights", "no"], "does not exist"),  # as --skip_existing
    ],
)
def test_wrong_words(words: list[str], message: str, fails: Fails) -> None:
    assert message in fails(*words)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--train.epoch", "3"], "nearest: 'train.epochs'"),
        (["--data.kind", "folder"], "data.root is empty"),
        (["--data.kind", "camvid", "--data.root", "nowhere"], "data.root 'nowhere' is not a folder"),
        (["--data.evaluate_splits", '["vla"]'], "no split 'vla'"),
        (["--network.name", "hrnet"], "unknown network 'hrnet'; nearest: 'hrnet_w"),
        (["--supervision.stages", '["stage5"]'], "modules that begin with 'stage': stage2, stage3, stage4"),
        (["--supervision.plan", "no.toml"], "plan 'no.toml' does not exist"),
        (["--network.pretrained", "no.pth"], "'no.pth' do not exist"),
        (["--augment.crop", "32"], "'augment.crop' has 1 value; must be more"),
        (["--arms", "[]"], "arms = [] trains nothing"),
        (["--seed", "99999999999999999999"], "'seed' = 99999999999999999999; must be less than or equal to 4294967295"),
        (["--evaluation.scales", "[]"], "give at least one"),
        (["--evaluation.stride", "10,10"], "without a crop"),
        (
            ["--loss.kind", "ohem", "--loss.label_smoothing", "0.1"],
            "loss.label_smoothing = 0.1 with loss.kind = 'ohem'",
        ),
        (["--arms", "hs3_fuse", "--fuse.mid", "64", "--fuse.gmacs", "3"], "leave out one of both"),
    ],
)
def test_wrong_values(words: list[str], message: str, config: Path, tmp_path: Path, fails: Fails) -> None:
    assert message in fails("run", config, "--run_dir", tmp_path / "run", *words)
    assert not (tmp_path / "run").exists()  # so that the corrected command finds it free


def test_places_that_cannot_be_written_are_no_bug_of_ours(config: Path, tmp_path: Path, fails: Fails) -> None:
    (tmp_path / "file").write_text("mine")
    for place in (tmp_path / "file" / "run", tmp_path / "file"):
        message = fails("run", config, "--run_dir", place)
        assert f"'{tmp_path / 'file'}" in message
        assert "Traceback" not in message
    assert (tmp_path / "file").read_text() == "mine"


def test_wrong_masks_are_named_before_training(folder_data: Path, config: Path, tmp_path: Path, fails: Fails) -> None:
    path = folder_data / "masks" / "train" / "p 3.png"
    pixels = np.array(Image.open(path))
    pixels[5, 6] = (1, 2, 3)
    Image.fromarray(pixels).save(path)
    taxonomy = folder_data / "taxonomy.toml"
    Taxonomy(("a", "b", "c"), ((200, 30, 30), (30, 200, 30), (30, 30, 200))).save(taxonomy)
    words = ["--data.kind", "folder", "--data.root", folder_data, "--data.evaluate_splits", '["val"]']
    message = fails("run", config, "--run_dir", tmp_path / "run", *words)
    assert "p 3.png: colour (1, 2, 3) at x=6, y=5" in message
    assert "taxonomy.toml" in message


def test_data_check_finds_all_and_says_so_by_its_exit_code(
    folder_data: Path, config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder_data / "images" / "train" / "p 1.jpg").write_bytes(b"\xff\xd8\xff half a picture")
    Image.fromarray(np.zeros((3, 3, 3), np.uint8) + 30).save(folder_data / "images" / "train" / "p 2.jpg")
    words = ["--data.kind", "folder", "--data.root", str(folder_data), "--data.evaluate_splits", '["val"]']
    words += ["--out", str(folder_data / "page")]
    assert main(["data", "check", str(config), *words, "--json"]) == 2
    found = json.loads(capsys.readouterr().out)
    errors = {Path(f["file"]).name: f["kind"] for f in found["findings"] if f["severity"] == "error"}
    assert set(errors) == {"p 1.jpg", "p 2.png"} or set(errors) == {"p 1.jpg", "p 2.jpg"}
    assert "p 1.jpg" in (folder_data / "page" / "index.html").read_text()
    (folder_data / "masks" / "val" / "p 0.png").unlink()
    assert main(["data", "check", str(config), *words, "--json"]) == 2
    found = json.loads(capsys.readouterr().out)
    assert found["counts"]["error"] == 3
    assert any(f["kind"] == "image-without-mask" and f["file"].endswith("p 0.jpg") for f in found["findings"])
    assert main(["data", "check", str(folder_data), "--out", "none"]) == 2
    assert "p 0.jpg" in capsys.readouterr().out


def test_a_plan_for_other_classes(config: Path, finished_run: Path, tmp_path: Path, fails: Fails) -> None:
    text = (finished_run / "plan.toml").read_text().replace('"seven"', '"siete"')
    (tmp_path / "plan.toml").write_text(text)
    message = fails("train", config, "--plan", tmp_path / "plan.toml", "--out", tmp_path / "out")
    assert "class 8 is 'siete' in the plan and 'seven' in the data" in message


def test_checkpoints_that_cannot_be_trusted(finished_run: Path, tmp_path: Path, fails: Fails) -> None:
    whole = (finished_run / "arms" / "hs3" / "weights.safetensors").read_bytes()
    (tmp_path / "half.safetensors").write_bytes(whole[: len(whole) // 2])
    assert "truncated" in fails("evaluate", tmp_path / "half.safetensors")
    torch.save({"x": torch.zeros(1)}, tmp_path / "pickle.safetensors")
    assert "pickle" in fails("evaluate", tmp_path / "pickle.safetensors")


def test_a_state_of_another_training(config: Path, tmp_path: Path, fails: Fails) -> None:
    assert main(["train", str(config), "--out", str(tmp_path / "a"), "--train.epochs", "1"]) == 0
    message = fails("train", config, "--out", tmp_path / "a", "--train.epochs", "1", "--arm", "none")
    assert "belongs to another training" in message


def test_a_loss_that_is_not_finite_names_the_batch_and_keeps_the_last_state(
    config: Path, tmp_path: Path, fails: Fails
) -> None:
    out = tmp_path / "out"
    words = [
        "--train.learning_rate",
        "1e30",
        "--train.checkpoint_seconds",
        "0",
        "--train.clip_norm",
        "0",
        "--train.optimizer",
        "sgd",
    ]
    message = fails("train", config, "--out", out, *words)
    assert "not finite" in message or "loss is" in message
    assert "digit scene train-" in message
    assert "learning_rate" in message
    from hs3seg.engine.weights import load_state

    if (out / "state.pt").exists():
        assert all(v.isfinite().all() for v in load_state(out / "state.pt")["model"].values())


def test_two_commands_start_without_torch(finished_run: Path) -> None:
    script = (
        "import sys; from hs3seg.cli import main; code = main(sys.argv[1:]);"
        " sys.exit(code or ('torch' in sys.modules) * 9 or ('sklearn' in sys.modules) * 8)"
    )
    for words in (
        ["plan", "--confusion", str(finished_run / "analysis" / "confusion.npz"), "--json"],
        ["report", str(finished_run), "--json"],
        ["--help"],
        ["run", "--help"],
        ["keys"],
    ):
        done = subprocess.run([sys.executable, "-c", script, *words], capture_output=True, text=True, check=False)
        assert done.returncode == 0, (words, done.stderr)


def test_a_bug_of_ours_is_exit_code_one(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def crash(*_args: object) -> None:
        raise ZeroDivisionError("ours")

    monkeypatch.setattr("hs3seg.cli.commands.keys", crash)
    assert main(["keys"]) == 1
    assert "bug of ours" in capsys.readouterr().err


def test_help_teaches(capsys: pytest.CaptureFixture[str]) -> None:
    for words in ([], ["--help"], ["run", "--help"], ["plan", "--help"]):
        assert main(words) == 0
        assert len(capsys.readouterr().out.splitlines()) > 8
