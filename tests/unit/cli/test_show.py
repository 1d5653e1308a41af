import numpy as np
import pytest

from hs3seg.analysis import analyze
from hs3seg.cli import show

# rich would take these for styles and pictures.
NAMES = ("lane [dashed]", "lane [solid]", "a [/b]", ":car: [bold]x[/bold]")


def test_a_plans_names_are_printed_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    counts = np.full((4, 4), 1) + 20 * np.eye(4, dtype=np.int64)
    counts[2, 3] = counts[3, 2] = 30
    plan = analyze({"layer [1]": counts, "final": counts}, NAMES).plan
    show.plan({"reference": {"miou": 0.5, "num_classes": 4, "ratio": 0.1}, "stages": {}, "absent_classes": [2]}, plan)
    printed = capsys.readouterr().out
    for name in (*NAMES, "layer [1]:"):
        assert name in printed
    assert "no pixel of a [/b]" in printed


def test_tables_have_the_names_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    show.scores({"split": "val [2]", "miou": 0.25, "iou": dict.fromkeys(NAMES, 0.5)})
    printed = capsys.readouterr().out
    for name in (*NAMES, "val [2]"):
        assert name in printed


def test_the_end_of_a_run_survives_any_name(capsys: pytest.CaptureFixture[str]) -> None:
    scores = {"miou": 0.5, "pixel_accuracy": 0.75}
    show.run(
        {
            "splits": {"val": {"none": scores, "hs3": scores}},
            "seed": 0,
            "groups": {"layer1": [list(NAMES)]},
            "plan": "runs/[x]/plan.toml",
            "report": "runs/[/x]/index.html",
            "seconds": 60.0,
        }
    )
    printed = capsys.readouterr().out
    for text in (" + ".join(NAMES), "runs/[x]/plan.toml", "runs/[/x]/index.html"):
        assert text in printed.replace("\n", "")
