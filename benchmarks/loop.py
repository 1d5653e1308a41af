"""Images per second of the whole training loop, against forward, backward and step alone.

    .venv/bin/python -m benchmarks.loop --root CAMVID --out docs/benchmarks

Ours is the engine with the recipe of configs/camvid-hrnet-w18-small.toml at crops of 360x480: reading, augmentation,
normalisation, two supervised stages, clipping, moving average, log. The raw loop has one batch in memory, normalised
already, and neither clips nor averages; network, loss, optimizer, precision, layout and threads are the same. They take
their steps in turn, one of ours and one of the raw loop: another's work on the machine slows both. All that ours does
between the end of a raw step and the beginning of the next one counts as its own.

One thread by default: the loader's process has the other of two cores. With as many threads as cores each side waits
for it at times, and the ratio is the scheduler's.
"""

import argparse
import json
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from benchmarks.rows import Row, ratios, save_rows
from hs3seg.analysis import SupervisionPlan, deep_supervision, no_supervision
from hs3seg.builders import (
    make_dataset,
    make_loss,
    make_network,
    make_runtime,
    make_stages,
    make_supervised,
    make_training_loader,
    normalisation,
)
from hs3seg.config import Config
from hs3seg.config.load import load_config
from hs3seg.data import SegmentationDataset, Subset, class_frequencies
from hs3seg.engine import Job, Reporter, train
from hs3seg.engine.optimization import make_optimizer
from hs3seg.engine.progress import Task
from hs3seg.nn import HierarchicalLoss

CONFIG = Path(__file__).resolve().parents[1] / "configs" / "camvid-hrnet-w18-small.toml"
GOAL = 0.95
BATCH = 8
CROP = "[360, 480]"


@dataclass(frozen=True)
class Window:
    """Which steps count: those after `skip`, `timed` of them. Some follow, so that the loader is busy to the end."""

    skip: int = 4
    timed: int = 12
    rest: int = 4

    @property
    def steps(self) -> int:
        """All of one run."""
        return self.skip + self.timed + self.rest


def make_config(root: Path, *overrides: str) -> Config:
    """The recipe at the size of these benchmarks."""
    every = ("--data.root", str(root), "--augment.crop", CROP, "--train.epochs", "1", "--train.evaluate_every", "0")
    return load_config(CONFIG, (*every, "--train.batch_size", str(BATCH), *overrides))


def make_data(config: Config, window: Window) -> SegmentationDataset:
    """As many training images as a run needs."""
    dataset = make_dataset(config, "train")
    wanted = BATCH * window.steps
    if len(dataset) < wanted:
        raise SystemExit(f"{config.data.root} has {len(dataset)} training images, the benchmark needs {wanted}")
    return Subset(
        dataset, torch.randperm(len(dataset), generator=torch.Generator().manual_seed(0)).tolist()[:wanted], "train"
    )


class Ours:
    """The engine, run anew at each call; the loader's workers and its cache stay, as from epoch to epoch.

    Args:
        config: The run.
        supervised: With the two stages, or the plain network.
        window: Steps.
        final: Instead of our loss of the final output.
    """

    def __init__(self, config: Config, window: Window, *, supervised: bool, final: nn.Module | None = None) -> None:
        self.config, self.window, self.final = config, window, final
        self.data = make_data(config, window)
        taxonomy = self.data.taxonomy
        stages = make_stages(config, make_network(config, taxonomy))
        self.plan: SupervisionPlan = (
            deep_supervision(taxonomy.names, stages, 0.4) if supervised else no_supervision(taxonomy.names)
        )
        self.labels = class_frequencies(self.data)
        self.loader = make_training_loader(config, self.data, make_runtime(config))

    def __call__(self, reporter: Reporter | None = None) -> float:
        """Images per second of the timed steps, as the log says; the reporter hears of every step."""
        config, window, taxonomy = self.config, self.window, self.data.taxonomy
        settings = config.train.model_copy(update={"log_steps": window.skip})
        model = make_supervised(config, self.plan, taxonomy)
        loss = make_loss(config, model, taxonomy, self.labels)
        if self.final is not None:
            loss = HierarchicalLoss(self.plan, criteria={"final": self.final})
        mean, std = normalisation(model.net)
        folder = Path(tempfile.mkdtemp())
        try:
            job = Job(model, loss, self.loader, settings, mean, std, folder, {}, {})
            train(job, make_runtime(config), reporter or Reporter(enabled=False))
            lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
        finally:
            shutil.rmtree(folder)
        ends = {line["step"] + 1: line["seconds"] for line in lines if line["event"] == "step"}
        return float(BATCH * window.timed / (ends[window.skip + window.timed] - ends[window.skip]))


class Raw:
    """Forward, backward and step on one batch in memory."""

    def __init__(self, config: Config, like: Ours) -> None:
        taxonomy = like.data.taxonomy
        self.runtime = make_runtime(config)
        model = make_supervised(config, like.plan, taxonomy)
        mean, std = normalisation(model.net)
        batches = like.loader.epoch(0)
        batch = next(batches)
        batches.close()
        self.loss = make_loss(config, model, taxonomy, like.labels)
        self.model = self.runtime.place(model).train()
        self.images, self.labels = self.runtime.images(batch.images, mean, std), batch.masks
        self.optimizer = make_optimizer(self.model, config.train)

    def step(self) -> None:
        """One more."""
        with torch.autocast("cpu", torch.bfloat16, enabled=self.runtime.precision == "bf16"):
            outputs = self.model(self.images)
        loss = self.loss({name: logits.float() for name, logits in outputs.items()}, self.labels)
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)


class Pairs(Reporter):
    """Lets a raw step follow each step of the engine, and notes the seconds of both.

    Args:
        raw: Takes its steps.
        window: Steps that count.
    """

    def __init__(self, raw: Raw, window: Window) -> None:
        super().__init__(enabled=False)
        self.raw, self.window = raw, window
        self.steps, self.began = 0, 0.0
        self.seconds: dict[str, list[float]] = {"ours": [], "raw": []}

    @contextmanager
    def task(self, *_: object, **__: object) -> Iterator[Task]:
        """The engine's only task: its steps."""
        yield self

    def advance(self, *_: object, **__: object) -> None:
        """A step of the engine has ended, and with the return of this the next one begins."""
        ended = time.perf_counter()
        first = self.window.skip
        if first <= self.steps < first + self.window.timed:
            self.seconds["ours"].append(ended - self.began)
        if first - 2 <= self.steps < first + self.window.timed:
            self.raw.step()
            if self.steps >= first:
                self.seconds["raw"].append(time.perf_counter() - ended)
        self.steps += 1
        self.began = time.perf_counter()


def paired_seconds(ours: Ours, raw: Raw, window: Window) -> dict[str, float]:
    """Seconds of the timed steps of both, all together."""
    pairs = Pairs(raw, window)
    ours(pairs)
    found = {name: sum(values) for name, values in pairs.seconds.items()}
    print(
        ", ".join(f"{name}: {BATCH * window.timed / value:.2f} images/s" for name, value in found.items()), flush=True
    )
    return found


def speeds_in_turn(sides: dict[str, Callable[[], float]], repeats: int) -> dict[str, list[float]]:
    """Images per second of each side, repeat by repeat; the order changes from repeat to repeat."""
    found: dict[str, list[float]] = {name: [] for name in sides}
    for repeat in range(repeats):
        for name in list(sides) if repeat % 2 == 0 else reversed(list(sides)):
            found[name].append(sides[name]())
            print(f"{name}: {found[name][-1]:.2f} images/s", flush=True)
    return found


def rows(root: Path, *, quick: bool = False, threads: Sequence[int] = (1,), repeats: int = 3) -> list[Row]:
    """One per number of threads, and one more with a moving average and clipping on neither side."""
    window = Window(2, 2, 0) if quick else Window()
    found = []
    for number in threads:
        config = make_config(root, "--train.threads", str(number))
        bare = make_config(root, "--train.threads", str(number), "--train.ema_decay", "0", "--train.clip_norm", "0")
        ours = Ours(config, window, supervised=True)
        raw = Raw(config, ours)
        sides = {
            f"training loop, CamVid 360x480, {number} thread{'s' * (number > 1)}": (ours, GOAL),
            f"training loop without clipping and moving average, {number} thread{'s' * (number > 1)}": (
                Ours(bare, window, supervised=True),
                None,
            ),
        }
        for name, (side, goal) in sides.items():
            seconds = [paired_seconds(side, raw, window) for _ in range(1 if quick else repeats)]
            details = {
                "seconds": {key: [round(one[key], 3) for one in seconds] for key in ("ours", "raw")},
                "threads": number,
                "workers": config.data.num_workers,
                "precision": make_runtime(config).precision,
                "batch": BATCH,
                "crop": list(config.augment.crop),
                "timed_steps": window.timed,
            }
            speed = ratios([one["raw"] for one in seconds], [one["ours"] for one in seconds])
            against = "forward, backward and step on a batch in memory"
            found.append(Row(name, against, speed, goal, "higher", details=details))
    return found


def main() -> None:
    """Measures and adds the rows to results.json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, required=True, help="CamVid in SegNet's layout")
    parser.add_argument("--out", type=Path, default=Path("docs/benchmarks"), help="folder of results.json")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--threads", type=int, nargs="+", default=[1])
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    found = rows(options.root, quick=options.quick, threads=options.threads, repeats=options.repeats)
    for row in found:
        print(f"{row.name}: {row.ratio:.3f} ({min(row.runs):.3f} to {max(row.runs):.3f}), goal {row.goal}")
    command = f"python -m benchmarks.loop --root CAMVID --out docs/benchmarks --repeats {options.repeats}"
    command += f" --threads {' '.join(map(str, options.threads))}"
    command += " --quick" if options.quick else ""
    save_rows(options.out / "results.json", found, command)


if __name__ == "__main__":
    main()
