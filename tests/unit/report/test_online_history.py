import json
from pathlib import Path

import pytest
from fabricated_run import STAGES, confusion, fabricate, street_taxonomy
from parsed_page import check_page

from hs3seg.analysis import OnlinePlan, RunningGroups, SupervisionPlan, single_phase
from hs3seg.report import build_report


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run whose arm `online` looked at its groups three times."""
    taxonomy = street_taxonomy()
    folder = fabricate(tmp_path / "run", arms=("none", "deep_supervision", "online"))
    arm = folder / "arms" / "online"
    plan = single_phase(taxonomy.names, STAGES, settings=OnlinePlan(patience=1))
    plan.save(arm / "plan.toml")
    running = RunningGroups(taxonomy.names, STAGES, plan.online)
    for number, epoch in enumerate((12, 30, 48)):
        counts = {"stage2": confusion(taxonomy, 0.5, number), "stage3": confusion(taxonomy, 0.7, 10 + number)}
        entry = running.update(epoch / 60, counts | {"final": confusion(taxonomy, 0.84, 20 + number)})
        with (arm / "log.jsonl").open("a") as log:
            log.write(json.dumps({"event": "groups", "step": 45 * epoch, "epoch": epoch, **entry}) + "\n")
    stages = tuple(SupervisionPlan.load(folder / "plan.toml").stages)
    SupervisionPlan(taxonomy.names, stages, "online").save(arm / "groups.toml")
    return folder


def test_the_history_of_the_groups_is_told_and_drawn(run: Path) -> None:
    page = check_page(build_report(run))
    assert "all classes until epoch 12, then 3 analyses" in page.text
    events = [json.loads(line) for line in (run / "arms" / "online" / "log.jsonl").read_text().splitlines()]
    for stage in STAGES:
        changes = sum(stage in event.get("changed", []) for event in events)
        assert changes > 0
        assert f"{stage} {changes} times" in page.text
    assert "Single-phase HS3" in page.text
    assert "The groups at the end" in page.text
    for name in ("history-online", "groups-online-last-stage2", "groups-online-last-stage3"):
        assert (run / "report" / f"{name}.png").stat().st_size > 2000


def test_broken_entries_of_the_log_do_not_stop_the_page(run: Path) -> None:
    log = run / "arms" / "online" / "log.jsonl"
    wrong = [
        {"stages": 3},
        {"epoch": "x", "stages": {"stage2": {"proposed": 4, "num_groups": 3}}},
        {"stages": {"stage2": 1}},
    ]
    log.write_text(log.read_text() + "".join(json.dumps({"event": "groups", **entry}) + "\n" for entry in wrong))
    assert "then 6 analyses" in check_page(build_report(run)).text


def test_a_training_too_short_for_its_warm_up_says_so(run: Path) -> None:
    log = run / "arms" / "online" / "log.jsonl"
    log.write_text("".join(line + "\n" for line in log.read_text().splitlines() if '"groups"' not in line))
    assert "too short for its warm-up" in check_page(build_report(run)).text
    assert not (run / "report" / "history-online.png").exists()
