"""Arms over seeds: shared work, resumption, and the page."""

import json
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


def test_what_cannot_be_compared_is_said(config: Path, tmp_path: Path, fails: Fails) -> None:
    assert "needs a config file" in fails("compare")
    assert "holds no evaluated run" in fails("compare", "--page", "--out", tmp_path)
    assert "at least 1" in fails("compare", config, "--seeds", "0")
    assert "whole numbers" in fails("compare", config, "--seeds", "some")
    assert "'arms' = 'hs4'" in fails("compare", config, "--arms", "none,hs4")
