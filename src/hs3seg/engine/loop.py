"""The training loop. There is one; what a method does differently is the plan inside model and loss.

Everything random in a step is a function of (seed, step, rank): data order and augmentation in the loader, dropout
here. So a state needs no generator states, and a resumed run repeats the uninterrupted one bit for bit.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from hs3seg.config import TrainConfig
from hs3seg.data import Batch, TrainingLoader
from hs3seg.engine.interrupt import StopRequest
from hs3seg.engine.optimization import MovingAverage, learning_rate, make_optimizer
from hs3seg.engine.progress import Reporter
from hs3seg.engine.runlog import RunLog
from hs3seg.engine.runtime import Runtime
from hs3seg.engine.weights import hash_weights, load_state, save_state, save_weights
from hs3seg.errors import CheckpointError, TrainingError, reason_of
from hs3seg.files import read_json, write_json
from hs3seg.nn import HierarchicalLoss, Supervised

EvaluateNow = Callable[[nn.Module], Mapping[str, Any]]


@dataclass(frozen=True)
class Job:
    """One training: what goes in, where it is written, and who it is.

    Args:
        model: Network with heads; its parameters are trained in place.
        loss: Of the same plan.
        loader: Training batches.
        settings: Epochs, optimizer, schedule.
        mean: (C,) input mean, 0..1.
        std: (C,) input standard deviation.
        folder: Receives log.jsonl, state.pt, weights.safetensors, train.json.
        identity: Plain values that tell this training from any other; a state of another one is refused.
        description: Kept in the weight file.
        label: Shown in progress.
        seed: Of dropout.
        evaluate: Called every `settings.evaluate_every` epochs; returns values for the log.
        measure: Gives a held-out split's confusion matrices, for losses that follow them (single-phase HS3).
        commit: Of the sources that train; train.json lists those of all processes that took part.
    """

    model: Supervised
    loss: HierarchicalLoss
    loader: TrainingLoader
    settings: TrainConfig
    mean: Tensor
    std: Tensor
    folder: Path
    identity: Mapping[str, Any]
    description: Mapping[str, Any]
    label: str = "train"
    seed: int = 0
    evaluate: EvaluateNow | None = None
    measure: Callable[[nn.Module], Mapping[str, NDArray[Any]]] | None = None
    commit: str | None = None


def finished(folder: Path, identity: Mapping[str, Any]) -> bool:
    """Whether a training's result is there already.

    Args:
        folder: Of the arm.
        identity: Of the training, see `Job`.

    Raises:
        CheckpointError: a finished training of another identity is in the folder.
    """
    path = folder / "train.json"
    if not path.exists() or not (folder / "weights.safetensors").exists():
        return False
    _check_identity(read_json(path)["identity"], identity, path)
    return True


def check_finished(folder: Path, identity: Mapping[str, Any]) -> None:
    """Refuses a finished training of another identity, where its numbers are to be taken, with or without weights.

    What an older version did not write down is not looked at.

    Raises:
        CheckpointError: it is another one.
    """
    path = folder / "train.json"
    found = read_json(path)["identity"]
    _check_identity(found, {key: value for key, value in identity.items() if key in found}, path)


def train(job: Job, runtime: Runtime, reporter: Reporter) -> None:
    """Trains `job.model` to the end, from where an earlier process left it.

    Raises:
        KeyboardInterrupt: after Ctrl-C or SIGTERM, when the state has been saved.
        TrainingError: the loss is not finite; the last good state is kept.
        CheckpointError: the folder holds the state of another training.
    """
    _Training(job, runtime, reporter).run()


_STOP_SECONDS = 3.0  # that a signal may wait until the processes ask each other


class _Training:
    def __init__(self, job: Job, runtime: Runtime, reporter: Reporter) -> None:
        self.job, self.runtime, self.reporter = job, runtime, reporter
        self.settings = job.settings
        self.model = runtime.place(job.model)
        self.loss = job.loss.to(runtime.device)
        self.mean, self.std = job.mean.to(runtime.device), job.std.to(runtime.device)
        optimizer = make_optimizer(self.model, job.settings)
        self.average = MovingAverage(self.model, job.settings.ema_decay) if job.settings.ema_decay else None
        self.prepared, self.optimizer = runtime.prepare(self.model, optimizer)
        self.step = 0
        self.seconds = 0.0  # of training alone, without evaluations on the way
        self.commits = [job.commit] if job.commit else []
        self.counted = self.saved = time.monotonic()
        self.looked, self.next_look = (0, time.monotonic()), 1  # when processes asked whether to stop, and shall again
        self.logged = (0, 0.0)  # step and seconds of the last line of the log
        self.per_epoch = job.loader.batches_per_epoch
        self.total = job.settings.epochs * self.per_epoch
        # On an accelerator reading a loss waits for the device, so it is looked at only when a line is logged.
        self.check_steps = 1 if runtime.device.type == "cpu" else job.settings.log_steps
        self.unchecked: list[tuple[Tensor, list[int]]] = []  # losses, and positions of their images

    def run(self) -> None:
        self._restore()
        log = (
            RunLog(self.job.folder, tensorboard=self.settings.tensorboard, step=self.step)
            if self.runtime.is_main
            else None
        )
        if log:
            log.write("resume" if self.step else "start", step=self.step, **self._facts())
        start = self.step // self.per_epoch
        try:
            with (
                StopRequest() as stop,
                self.reporter.task(self.job.label, self.total, self.step) as task,
            ):
                for epoch in range(start, self.settings.epochs):
                    self._epoch(epoch, stop, log, task)
            self._finish(log)
        except torch.OutOfMemoryError as error:
            raise TrainingError(
                f"out of memory at step {self.step} ({reason_of(error)}); lower train.batch_size or augment.crop, or"
                " set train.accumulate = 2, which takes a batch in parts. The last good state is kept in"
                f" {self.job.folder}"
            ) from None
        finally:
            self.runtime.accelerator.free_memory()
            self.runtime.accelerator.unwrap_model(self.model, keep_fp32_wrapper=False)
            if log:
                log.close()

    def _epoch(self, epoch: int, stop: StopRequest, log: RunLog | None, task: Any) -> None:
        if self.step == epoch * self.per_epoch:
            self._start_epoch(epoch, log)
        self.prepared.train()
        batches = self.job.loader.epoch(epoch, start_batch=self.step - epoch * self.per_epoch)
        stopping = False
        self.counted = time.monotonic()
        try:
            for batch in batches:
                total, terms = self._step(batch)
                self.step += 1
                self.unchecked.append((total.detach(), batch.indices))
                if len(self.unchecked) >= self.check_steps or self.step % self.settings.log_steps == 0:
                    self._check_losses()
                if self.step % self.settings.log_steps == 0 or self.step == self.total:
                    self._count_seconds()
                    if log:
                        self._log_step(log, total, terms)
                task.advance(1, f"loss {total.item():.3f}" if self.check_steps == 1 else "")
                wanted = self._stop_wanted(stop)
                # An epoch may be shorter than this: what counts is the last save, of whatever epoch.
                if wanted or time.monotonic() - self.saved > self.settings.checkpoint_seconds:
                    self._save()
                if wanted and self.step < (epoch + 1) * self.per_epoch:
                    raise KeyboardInterrupt
                stopping = wanted  # the epoch is over: it is evaluated first, for it will not be gone through again
        finally:
            batches.close()
        self._count_seconds()
        every = self.settings.evaluate_every
        if every and self.job.evaluate and (epoch + 1) % every == 0 and epoch + 1 < self.settings.epochs:
            values = self.job.evaluate(self._result())
            if log:
                log.write("evaluation", step=self.step - 1, epoch=epoch + 1, **values)
        if stopping:
            raise KeyboardInterrupt

    def _count_seconds(self) -> None:
        now = time.monotonic()
        self.seconds += now - self.counted
        self.counted = now

    def _start_epoch(self, epoch: int, log: RunLog | None) -> None:
        """Lets the loss decide what the next epochs learn; not again where an epoch goes on after a stop."""
        measure = None
        if self.job.measure is not None:
            measure = partial(self.job.measure, self.model)
        decided = self.loss.start_epoch(epoch, self.settings.epochs, measure)
        if decided is not None and log:
            log.write("groups", step=self.step, epoch=epoch, **decided)

    def _step(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """One optimizer step on this process's share of a batch; returns loss and per-stage terms."""
        torch.manual_seed((self.job.seed * 1_000_003 + self.step) * 4096 + self.runtime.rank)
        rate = learning_rate(self.step, self.total, self.per_epoch, self.settings)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        count = min(self.settings.accumulate, len(batch.names))
        # Not chunk(), which may give fewer: then no part would be the last, whose backward pass joins the processes.
        parts = list(zip(batch.images.tensor_split(count), batch.masks.tensor_split(count), strict=True))
        total: Tensor | None = None
        terms: dict[str, Tensor] = {}
        for part, (images, masks) in enumerate(parts, start=1):
            share = len(images) / len(batch.names)
            images = self.runtime.images(images, self.mean, self.std)
            masks = masks.to(self.runtime.device, non_blocking=True)
            if part < len(parts) and self.runtime.world_size > 1:
                with self.runtime.accelerator.no_sync(self.prepared):
                    value, parts_terms = self._forward_backward(images, masks, share)
            else:
                value, parts_terms = self._forward_backward(images, masks, share)
            total = value if total is None else total + value
            for name, term in parts_terms.items():
                terms[name] = terms.get(name, 0) + term
        assert total is not None
        if bool(torch.isfinite(total)) if self.check_steps == 1 else True:
            if self.settings.clip_norm:
                self.runtime.accelerator.clip_grad_norm_(self.model.parameters(), self.settings.clip_norm)
            self.optimizer.step()
            if self.average is not None:
                self.average.update_parameters(self.model)
        self.optimizer.zero_grad(set_to_none=True)
        return total, terms

    def _forward_backward(self, images: Tensor, masks: Tensor, share: float) -> tuple[Tensor, dict[str, Tensor]]:
        # {stage: (n, k_i, h, w)}; no name keeps these logits while the backward pass runs.
        terms = self.loss.terms(self.prepared(images), masks)
        loss = self.loss.combine(terms) * share  # Eq. 1
        self.runtime.accelerator.backward(loss)
        return loss.detach(), {name: term.detach() * share for name, term in terms.items()}

    def _check_losses(self) -> None:
        for value, indices in self.unchecked:
            if not bool(torch.isfinite(value)):
                raise self._not_finite(f"the loss is {value.item()}", indices)
        self.unchecked.clear()

    def _not_finite(self, what: str, indices: Sequence[int]) -> TrainingError:
        files = [file for index in indices for file in self.job.loader.dataset.files(index)]
        more = f" and {len(files) - 8} more files" if len(files) > 8 else ""
        where = f" on {', '.join(files[:8])}{more}" if files else ""
        return TrainingError(
            f"{what} at step {self.step}{where}; look at these files, or lower train.learning_rate or set"
            f" train.clip_norm. The last good state is kept in {self.job.folder}"
        )

    def _stop_wanted(self, stop: StopRequest) -> bool:
        if self.runtime.world_size == 1:
            return stop.wanted
        if self.step < self.next_look:
            return False
        # Every process has to stop at the same step, so they ask each other, and agree by what they all got on when
        # they ask again: whoever sends the signal kills after half a minute, or ten seconds.
        now = time.monotonic()
        asked = torch.tensor([float(stop.wanted), now - self.looked[1]], device=self.runtime.device)
        wanted, seconds = self.runtime.sum(asked).tolist()
        step_seconds = seconds / self.runtime.world_size / max(self.step - self.looked[0], 1)
        steps = min(self.settings.log_steps, int(_STOP_SECONDS / max(step_seconds, 1e-9)))
        self.looked, self.next_look = (self.step, now), self.step + max(steps, 1)
        return bool(wanted > 0)

    def _log_step(self, log: RunLog, total: Tensor, terms: Mapping[str, Tensor]) -> None:
        step, seconds = self.logged
        self.logged = (self.step, self.seconds)
        speed = (self.step - step) * self.settings.batch_size / max(self.seconds - seconds, 1e-9)
        log.write(
            "step",
            step=self.step - 1,
            epoch=round(self.step / self.per_epoch, 4),
            loss=total.item(),
            terms={name: term.item() for name, term in terms.items()},
            learning_rate=self.optimizer.param_groups[0]["lr"],
            images_per_second=round(speed, 3),
            seconds=round(self.seconds, 3),
        )

    def _result(self) -> Supervised:
        averaged: Any = None if self.average is None else self.average.module
        return averaged or self.model

    @property
    def _state_path(self) -> Path:
        return self.job.folder / "state.pt"

    def _save(self) -> None:
        self.saved = time.monotonic()
        self._count_seconds()
        last = self.unchecked[-1][1] if self.unchecked else []
        self._check_losses()
        if not self.runtime.is_main:
            return
        # A finite loss can still have left weights that are not (overflow in the backward pass).
        if not all(bool(torch.isfinite(p).all()) for p in self.model.parameters()):
            raise self._not_finite("a weight is not finite", last)
        scaler = self.runtime.accelerator.scaler
        save_state(
            self._state_path,
            {
                "identity": dict(self.job.identity),
                "step": self.step,
                "seconds": self.seconds,
                "commits": self.commits,
                "model": self.model.state_dict(),
                "average": self.average.state_dict() if self.average is not None else None,
                "optimizer": self.optimizer.state_dict(),
                "scaler": scaler.state_dict() if scaler is not None else None,
                "loss": self.loss.memory(),
            },
        )

    def _restore(self) -> None:
        if not self._state_path.exists():
            return
        state = load_state(self._state_path)
        _check_identity(state["identity"], self.job.identity, self._state_path)
        try:
            self.model.load_state_dict(state["model"])
            if self.average is not None:
                self.average.load_state_dict(state["average"])
            self.optimizer.load_state_dict(state["optimizer"])
        except (RuntimeError, ValueError, KeyError) as error:
            raise CheckpointError(f"{self._state_path}: does not fit this network ({reason_of(error)})") from None
        if self.runtime.accelerator.scaler is not None and state["scaler"]:
            self.runtime.accelerator.scaler.load_state_dict(state["scaler"])
        if loss := state.get("loss"):
            self.loss.restore(loss)
        self.step, self.seconds = int(state["step"]), float(state["seconds"])
        self.commits = list(dict.fromkeys([*state.get("commits", []), *self.commits]))
        self.looked = (self.step, time.monotonic())
        self.logged = (self.step, self.seconds)
        self.reporter.say(f"{self.job.label}: goes on at step {self.step} of {self.total}")

    def _facts(self) -> dict[str, Any]:
        return {
            "total_steps": self.total,
            "steps_per_epoch": self.per_epoch,
            "device": str(self.runtime.device),
            "precision": self.runtime.precision,
            "channels_last": self.runtime.channels_last,
            "processes": self.runtime.world_size,
            "threads": torch.get_num_threads(),
            "versions": {name: version(name) for name in ("torch", "torchvision", "timm", "accelerate")},
        }

    def _finish(self, log: RunLog | None) -> None:
        self._check_losses()
        self._save()
        if self.runtime.is_main:
            weights = self.job.folder / "weights.safetensors"
            save_weights(weights, self._result(), self.job.description)
            self.loss.save_decisions(self.job.folder)
            facts = self._facts()
            result = {
                "identity": dict(self.job.identity),
                "seconds": round(self.seconds, 3),
                "steps": self.step,
                "epochs": self.settings.epochs,
                "images_per_second": round(self.step * self.settings.batch_size / max(self.seconds, 1e-9), 3),
                "weights_sha256": hash_weights(self._result()),
                "commits": self.commits,
                **facts,
            }
            write_json(self.job.folder / "train.json", result)
            self._state_path.unlink(missing_ok=True)
            if log:
                log.write("end", step=self.step, seconds=round(self.seconds, 3))
        if self.average is not None:
            self.model.load_state_dict(self.average.module.state_dict())
        self.runtime.barrier()


def _check_identity(found: Mapping[str, Any], wanted: Mapping[str, Any], path: Path) -> None:
    for key in {**found, **wanted}:
        if found.get(key) != wanted.get(key):
            raise CheckpointError(
                f"{path}: belongs to another training: its {key} is {found.get(key)!r}, this one's is"
                f" {wanted.get(key)!r}; use another run_dir, or delete {path.parent} to train it anew"
            )
