"""Arms over seeds: shared work, resumption, and the page."""

import json
import shutil
from pathlib import Path

import pytest

from tests.integration.conftest import Call, Fails

SMALL = ["--train.epochs", "1", "--data.evaluate_splits", '["val"]']


def test_arms_over_seeds(config: Path, tmp_path: Path, hs3: Call) -> None:
    out = tmp_path / "compared"
    words = ["compare", config, "--arms", "deep_supervision,hs3", "--out", out, *SMALL]
    first = hs3(*words, "--seeds", "0,")
    assert first["comparisons"]["val"]["hs3"]["interval"] is None  # one seed decides nothing
    weights = (out / "seed-0" / "arms" / "hs3" / "weights.safetensors").stat().st_mtime_ns
    found = hs3(*words, "--seeds", "2")
    assert (out / "seed-0" / "arms" / "hs3" / "weights.safetensors").stat().st_mtime_ns == weights
    assert found["reference"] == {"val": "deep_supervision"}
    assert set(found["arms"]["hs3"]) == {"0", "1"}
    compared = found["comparisons"]["val"]["hs3"]
    scores = [
        json.loads((out / f"seed-{seed}" / "arms" / arm / "evaluation-val.json").read_text())["miou"]
        for seed in (0, 1)
        for arm in ("hs3", "deep_supervision")
    ]
    assert compared["differences"] == pytest.approx([scores[0] - scores[1], scores[2] - scores[3]])
    low, high = compared["interval"]
    assert low <= sum(compared["differences"]) / 2 <= high
    assert json.loads((out / "results.json").read_text())["arms"] == found["arms"]
    page = (out / "index.html").read_text()
    assert "seed-1/report/index.html" in page
    assert (out / "intervals-val.png").read_bytes().startswith(b"\x89PNG")
    again = hs3("compare", "--page", "--out", out)
    assert again["arms"] == found["arms"]


def test_arms_are_evaluated_again_where_another_protocol_is_asked_for(config: Path, tmp_path: Path, hs3: Call) -> None:
    out = tmp_path / "compared"
    words = ["compare", config, "--out", out, "--seeds", "0,", *SMALL]
    hs3(*words, "--arms", "none")
    file = out / "seed-0" / "arms" / "none" / "evaluation-val.json"
    assert json.loads(file.read_text())["protocol"]["flip"] is False
    found = hs3(*words, "--arms", "none,deep_supervision", "--evaluation.flip", "true")
    assert json.loads(file.read_text())["protocol"]["flip"] is True
    assert set(found["arms"]) == {"none", "deep_supervision"}
    written = file.stat().st_mtime_ns
    hs3(*words, "--arms", "none,deep_supervision", "--evaluation.flip", "true")
    assert file.stat().st_mtime_ns == written
    # The same where the split had other images then: no table of two different splits.
    whole = json.loads(file.read_text())
    file.write_text(json.dumps(whole | {"images": "others", "miou": 0.0}))
    hs3(*words, "--arms", "none,deep_supervision", "--evaluation.flip", "true")
    assert json.loads(file.read_text())["miou"] == whole["miou"]


def test_what_was_trained_or_evaluated_differently_is_not_compared(
    config: Path, tmp_path: Path, hs3: Call, fails: Fails
) -> None:
    out = tmp_path / "compared"
    words = ["compare", config, "--arms", "none", "--out", out, *SMALL]
    hs3(*words, "--seeds", "2")
    message = fails(*words, "--seeds", "2,", "--train.learning_rate", "0.5")
    assert "different values of train.learning_rate" in message
    assert "this call" in message
    assert not (out / "seed-2").exists()  # said before hours of training
    shutil.copytree(out / "seed-1", out / "seed-2")
    text = (out / "seed-2" / "config.toml").read_text()
    (out / "seed-2" / "config.toml").write_text(text.replace("epochs = 1\n", "epochs = 5\n"))
    message = fails("compare", "--page", "--out", out)
    assert "different values of train.epochs" in message
    assert "seed-2" in message
    shutil.rmtree(out / "seed-2")
    file = out / "seed-1" / "arms" / "none" / "evaluation-val.json"
    values = json.loads(file.read_text())
    values["protocol"]["flip"] = True
    file.write_text(json.dumps(values))
    message = fails("compare", "--page", "--out", out)
    assert "evaluated in different ways" in message
    assert "seed-1/arms/none" in message


def test_what_cannot_be_compared_is_said(config: Path, tmp_path: Path, fails: Fails) -> None:
    assert "needs a config file" in fails("compare")
    assert "holds no evaluated run" in fails("compare", "--page", "--out", tmp_path)
    assert "at least 1" in fails("compare", config, "--seeds", "0")
    assert "whole numbers" in fails("compare", config, "--seeds", "some")
    assert "'arms' = 'hs4'" in fails("compare", config, "--arms", "none,hs4")
