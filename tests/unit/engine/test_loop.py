import dataclasses
import json
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch

from hs3seg.data import EvaluationLoader, EvaluationTransform
from hs3seg.engine import Runtime, evaluate, finished, train
from hs3seg.engine.interrupt import StopRequest
from hs3seg.engine.loop import _Training
from hs3seg.engine.weights import load_state, read_weights
from hs3seg.errors import CheckpointError, TrainingError
from tests.unit.engine.conftest import MEAN, SILENT, STD, Colours, make_job


def events(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_it_learns_what_can_be_learned(tmp_path: Path, runtime: Runtime, optimizer: str) -> None:
    rate = {"sgd": 0.1, "adamw": 0.02}[optimizer]
    job = make_job(tmp_path, epochs=15, optimizer=optimizer, learning_rate=rate, ema_decay=0.5)
    train(job, runtime, SILENT)
    loader = EvaluationLoader(Colours(8), EvaluationTransform(), 4)
    scores = evaluate(job.model, loader, runtime, SILENT, mean=MEAN, std=STD).to_dict()
    assert scores["miou"] > 0.6
    losses = [e["loss"] for e in events(tmp_path) if e["event"] == "step"]
    assert losses[-1] < 0.6 * losses[0]
    assert finished(job.folder, job.identity)


def test_the_file_holds_the_averaged_weights(tmp_path: Path, runtime: Runtime) -> None:
    job = make_job(tmp_path, ema_decay=0.9)
    train(job, runtime, SILENT)
    tensors, _ = read_weights(tmp_path / "weights.safetensors")
    assert all(torch.equal(value, tensors[name]) for name, value in job.model.state_dict().items())
    plain = make_job(tmp_path / "plain")
    train(plain, runtime, SILENT)
    assert not torch.equal(plain.model.net.head.weight, job.model.net.head.weight)


def test_log_terms_add_up_to_the_loss(tmp_path: Path, runtime: Runtime) -> None:
    train(make_job(tmp_path), runtime, SILENT)
    steps = [e for e in events(tmp_path) if e["event"] == "step"]
    assert [e["step"] for e in steps] == [3, 7, 11, 15, 19, 23]
    for event in steps:
        assert event["loss"] == pytest.approx(0.4 * event["terms"]["first"] + event["terms"]["final"], rel=1e-5)
    rates = [e["learning_rate"] for e in steps]
    assert rates == sorted(rates, reverse=True)


class Clock:
    """A second passes whenever it is looked at."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        self.now += 1
        return self.now


def test_the_state_is_saved_in_time_however_short_the_epochs(
    tmp_path: Path, runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, saved = Clock(), []
    monkeypatch.setattr("hs3seg.engine.loop.time.monotonic", clock)
    monkeypatch.setattr("hs3seg.engine.loop.save_state", lambda _, state: saved.append((state["step"], clock.now)))
    job = make_job(tmp_path, epochs=20, checkpoint_seconds=40)
    train(job, runtime, SILENT)
    per_epoch = job.loader.batches_per_epoch
    times = [0.0, *(now for _, now in saved)]
    assert max(after - before for before, after in pairwise(times)) < 40 + 10
    assert any(step % per_epoch for step, _ in saved)  # within an epoch too
    assert len(saved) > 2


def test_the_result_names_the_sources_of_every_process_that_took_part(
    tmp_path: Path, runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(_self: Any, _epoch: int, _log: Any) -> None:
        raise KeyboardInterrupt

    def part(commit: str, *, whole: bool) -> None:
        with monkeypatch.context() as patch:
            if not whole:
                patch.setattr(_Training, "_start_epoch", stop)
            training = _Training(dataclasses.replace(make_job(tmp_path), commit=commit), runtime, SILENT)
            try:
                training.run()
            except KeyboardInterrupt:
                training._save()

    part("f00d", whole=False)
    part("f00d", whole=False)
    part("beef", whole=True)
    assert json.loads((tmp_path / "train.json").read_text())["commits"] == ["f00d", "beef"]


def test_every_second_of_training_is_counted_once(
    tmp_path: Path, runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    waited = iter(range(10**6))
    monkeypatch.setattr("hs3seg.engine.loop.time.monotonic", lambda: 0.0)
    monkeypatch.setattr(_Training, "_step", _slow(_Training._step, monkeypatch, waited))
    # 4 batches an epoch and a line every 3 steps: the lines' ends and the epochs' differ.
    job = make_job(tmp_path, epochs=5, log_steps=3, checkpoint_seconds=1e9)
    train(job, runtime, SILENT)
    steps = 5 * job.loader.batches_per_epoch
    told = json.loads((tmp_path / "train.json").read_text())
    assert told["seconds"] == steps
    assert told["images_per_second"] == job.settings.batch_size
    lines = [e for e in events(tmp_path) if e["event"] == "step"]
    assert all(e["images_per_second"] == job.settings.batch_size for e in lines)


def _slow(step: Any, monkeypatch: pytest.MonkeyPatch, ticks: Iterator[int]) -> Any:
    """A step after which the clock has gone on by a second."""

    def run(training: Any, batch: Any) -> Any:
        now = float(next(ticks) + 1)
        monkeypatch.setattr("hs3seg.engine.loop.time.monotonic", lambda: now)
        return step(training, batch)

    return run


def test_parts_of_a_batch_add_up_to_its_gradient(tmp_path: Path, runtime: Runtime) -> None:
    # BatchNorm and the mean over labelled pixels see parts, so equal images are needed for equal sums.
    results = []
    for parts in (1, 2):
        job = make_job(tmp_path / str(parts), count=1, epochs=3, accumulate=parts)
        for module in job.model.modules():
            if isinstance(module, torch.nn.Dropout2d):
                module.p = 0.0
        train(job, runtime, SILENT)
        results.append(job.model.net.head.weight.detach())
    torch.testing.assert_close(results[0], results[1], rtol=2e-2, atol=2e-3)


@pytest.mark.parametrize(("batch", "accumulate"), [(4, 4), (6, 4), (5, 4), (7, 3), (2, 4), (3, 1)])
def test_the_last_part_of_a_batch_joins_the_processes(
    tmp_path: Path, runtime: Runtime, monkeypatch: pytest.MonkeyPatch, batch: int, accumulate: int
) -> None:
    job = make_job(tmp_path, batch_size=batch, accumulate=accumulate)
    training = _Training(job, runtime, SILENT)
    monkeypatch.setattr(Runtime, "world_size", property(lambda _: 2))
    joined: list[bool] = []
    inside: list[bool] = []

    @contextmanager
    def no_sync(_model: object) -> Iterator[None]:
        inside.append(True)
        yield
        inside.pop()

    backward = runtime.accelerator.backward
    monkeypatch.setattr(runtime.accelerator, "no_sync", no_sync)
    monkeypatch.setattr(runtime.accelerator, "backward", lambda loss: (joined.append(not inside), backward(loss)))
    training.prepared.train()
    training._step(next(iter(job.loader.epoch(0))))
    assert joined == [False] * (min(batch, accumulate) - 1) + [True]


@pytest.mark.parametrize(("step_seconds", "between"), [(0.001, 50), (0.1, 30), (0.9, 3), (20.0, 1)])
def test_processes_ask_each_other_in_time_whether_to_stop(
    tmp_path: Path, runtime: Runtime, monkeypatch: pytest.MonkeyPatch, step_seconds: float, between: int
) -> None:
    training = _Training(make_job(tmp_path, log_steps=50), runtime, SILENT)
    training.step, asked, clock = 400, [], 1000.0
    training.looked = (400, clock)
    monkeypatch.setattr(Runtime, "world_size", property(lambda _: 2))
    # The other process takes twice as long: the mean counts, and the other one is told to stop at step 700.
    other = (lambda: float(training.step >= 700), lambda mine: 2 * mine)

    def reduced(tensor: torch.Tensor) -> torch.Tensor:
        asked.append(training.step)
        return tensor + torch.tensor([other[0](), other[1](float(tensor[1]))])

    monkeypatch.setattr(runtime, "sum", reduced)
    monkeypatch.setattr("hs3seg.engine.loop.time.monotonic", lambda: clock)
    stops = []
    for _ in range(400):
        training.step += 1
        clock += step_seconds / 1.5
        if training._stop_wanted(StopRequest()):
            stops.append(training.step)
    assert asked[0] == 401
    assert all(b - a in (between, between - 1) for a, b in pairwise(asked))
    assert stops == [step for step in asked if step >= 700]


def test_an_epoch_that_is_over_when_a_stop_comes_is_evaluated(tmp_path: Path, runtime: Runtime) -> None:
    job = make_job(tmp_path, epochs=3, evaluate_every=1)
    per_epoch = job.loader.batches_per_epoch
    seen: list[int] = []
    job = dataclasses.replace(job, evaluate=lambda _: (seen.append(training.step), {"miou": 0.5})[1])
    training = _Training(job, runtime, SILENT)
    training._stop_wanted = lambda _: training.step == per_epoch  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        training.run()
    assert seen == [per_epoch]
    train(dataclasses.replace(job, evaluate=lambda _: (seen.append(-1), {"miou": 0.5})[1]), runtime, SILENT)
    assert seen == [per_epoch, -1]
    assert [e["epoch"] for e in events(tmp_path) if e["event"] == "evaluation"] == [1, 2]


def test_evaluation_on_the_way_is_logged_and_changes_nothing(tmp_path: Path, runtime: Runtime) -> None:
    plain = make_job(tmp_path / "a")
    train(plain, runtime, SILENT)
    seen = []
    watched = dataclasses.replace(
        make_job(tmp_path / "b", evaluate_every=2),
        evaluate=lambda model: seen.append(model) or {"miou": {"final": 0.5}},
    )
    train(watched, runtime, SILENT)
    assert len(seen) == 2  # not after the last epoch, which is evaluated anyway
    assert [e["epoch"] for e in events(tmp_path / "b") if e["event"] == "evaluation"] == [2, 4]
    assert torch.equal(plain.model.net.head.weight, watched.model.net.head.weight)


def test_a_state_of_another_training_is_refused(tmp_path: Path, runtime: Runtime) -> None:
    job = make_job(tmp_path)
    train(job, runtime, SILENT)
    other = dataclasses.replace(make_job(tmp_path), identity={"arm": "other"})
    with pytest.raises(CheckpointError, match="its arm is 'test', this one's is 'other'"):
        finished(other.folder, other.identity)


def test_a_loss_that_is_not_finite_names_the_files(tmp_path: Path, runtime: Runtime) -> None:
    job = make_job(tmp_path, learning_rate=1e30, checkpoint_seconds=0)
    with pytest.raises(TrainingError, match=r"not finite|loss is.*file-\d+.*learning_rate"):
        train(job, runtime, SILENT)
    if (tmp_path / "state.pt").exists():
        assert all(value.isfinite().all() for value in load_state(tmp_path / "state.pt")["model"].values())
    assert not (tmp_path / "weights.safetensors").exists()


def test_the_last_good_state_is_kept(tmp_path: Path, runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    job = make_job(tmp_path, checkpoint_seconds=0)
    combine, calls = job.loss.combine, []

    def fails_at_the_fourth(terms: dict[str, torch.Tensor]) -> torch.Tensor:
        calls.append(1)
        return combine(terms) * (float("nan") if len(calls) == 4 else 1.0)

    monkeypatch.setattr(job.loss, "combine", fails_at_the_fourth)
    with pytest.raises(TrainingError, match=r"the loss is nan at step 4 on file-\d+.*last good state"):
        train(job, runtime, SILENT)
    state = load_state(tmp_path / "state.pt")
    assert state["step"] == 3
    assert all(value.isfinite().all() for value in state["model"].values())


def test_a_truncated_state_is_refused_and_kept(tmp_path: Path, runtime: Runtime) -> None:
    (tmp_path / "state.pt").write_bytes(b"PK\x03\x04 half")
    with pytest.raises(CheckpointError, match=r"state.pt: not a training state"):
        train(make_job(tmp_path), runtime, SILENT)
    assert (tmp_path / "state.pt").exists()
