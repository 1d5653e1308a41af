import json
from pathlib import Path

from hs3seg.engine.runlog import RunLog


def test_a_resumed_log_drops_what_will_be_written_again(tmp_path: Path) -> None:
    log = RunLog(tmp_path)
    log.write("start", step=0)
    for step in range(5):
        log.write("step", step=step, loss=float(step))
    path = tmp_path / "log.jsonl"
    path.write_text(path.read_text() + '{"event": "step", "st')  # a killed process
    RunLog(tmp_path, step=3).write("resume", step=3)
    events = [json.loads(line) for line in path.read_text().splitlines()]
    assert [(e["event"], e["step"]) for e in events] == [
        ("start", 0), ("step", 0), ("step", 1), ("step", 2), ("resume", 3),
    ]  # fmt: skip


def test_tensorboard_gets_the_scalars(tmp_path: Path) -> None:
    log = RunLog(tmp_path, tensorboard=True)
    log.write("step", step=1, epoch=0.5, loss=2.0, terms={"final": 1.5})
    log.close()
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert events.Scalars("step/terms/final")[0].value == 1.5
