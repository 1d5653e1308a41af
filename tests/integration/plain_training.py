"""A training without BatchNorm, whose weights must not depend on the number of processes: a part of test_processes.

python plain_training.py FOLDER [--accumulate N ...] [--stop-after STEPS]

trains one after another into FOLDER/N, where `taken` says how many steps this call took.
"""

import argparse
import os
import signal
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torchvision import tv_tensors

from hs3seg.analysis import no_supervision
from hs3seg.config import TrainConfig
from hs3seg.data import Sample, TrainingLoader, TrainTransform
from hs3seg.engine import Job, Reporter, Runtime, train
from hs3seg.engine.loop import _Training
from hs3seg.nn import HierarchicalLoss, supervise
from hs3seg.taxonomy import Taxonomy

SIZE, BATCH, EPOCHS = (16, 24), 8, 4


class Noise:
    """Images whose every pixel is labelled: the mean over a process's pixels weighs as much as the other's."""

    taxonomy = Taxonomy(("a", "b", "c"), ((0, 0, 0), (220, 20, 20), (20, 220, 20)))
    split = "train"
    names = tuple(f"noise-{i}" for i in range(24))

    def __len__(self) -> int:
        return len(self.names)

    def files(self, index: int) -> tuple[str, ...]:
        return (f"file-{index}",)

    def read(self, index: int) -> Sample:
        rng = np.random.default_rng(index)
        image = rng.integers(0, 256, (3, *SIZE), dtype=np.uint8)
        mask = torch.from_numpy(image.argmax(0))
        return Sample(tv_tensors.Image(torch.from_numpy(image)), tv_tensors.Mask(mask), self.names[index])


def job(folder: Path, accumulate: int, runtime: Runtime) -> Job:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 16, 3, 1, 1), nn.GELU(), nn.Conv2d(16, 3, 1))
    model = supervise(net, plan=no_supervision(Noise.taxonomy.names), example=torch.zeros(1, 3, *SIZE))
    loader = TrainingLoader(
        Noise(),
        TrainTransform(SIZE, scale=(1.0, 1.0)),
        BATCH,
        seed=0,
        rank=runtime.rank,
        world_size=runtime.world_size,
    )
    # Plain SGD: its steps are as long as the gradient, whose size has to be right.
    settings = TrainConfig(epochs=EPOCHS, batch_size=BATCH, accumulate=accumulate, learning_rate=0.3, log_steps=1)
    half = torch.full((3,), 0.5)
    return Job(model, HierarchicalLoss(model.plan), loader, settings, half, half, folder, {"arm": "none"}, {})


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--accumulate", type=int, nargs="+", default=[1])
    parser.add_argument("--stop-after", type=int, default=0)
    options = parser.parse_args()
    runtime = Runtime("float32", threads=1)
    taken, step = 0, _Training._step

    def counted(training: _Training, *rest: object) -> object:
        nonlocal taken
        taken += 1
        if taken == options.stop_after:
            os.kill(os.getpid(), signal.SIGINT)
        return step(training, *rest)  # type: ignore[arg-type]

    _Training._step = counted  # type: ignore[assignment]
    for accumulate in options.accumulate:
        taken, folder = 0, options.folder / str(accumulate)
        train(job(folder, accumulate, runtime), runtime, Reporter(enabled=False))
        if runtime.is_main:
            (folder / "taken").write_text(str(taken))


if __name__ == "__main__":
    main()
