from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torchvision import tv_tensors

from hs3seg.config import TrainConfig
from hs3seg.data import Sample, TrainingLoader, TrainTransform
from hs3seg.engine import Job, Reporter, Runtime
from hs3seg.nn import HierarchicalLoss, supervise
from hs3seg.taxonomy import Taxonomy

MEAN, STD = torch.tensor([0.5, 0.5, 0.5]), torch.tensor([0.25, 0.25, 0.25])


class Colours:
    """Rectangles whose colour says their class; one image has no labelled pixel."""

    taxonomy = Taxonomy(("black", "red", "green"), ((0, 0, 0), (220, 20, 20), (20, 220, 20)))
    split = "train"

    def __init__(self, count: int = 16) -> None:
        self._count = count

    @property
    def names(self) -> list[str]:
        return [f"colours-{i}" for i in range(self._count)]

    def __len__(self) -> int:
        return self._count

    def files(self, index: int) -> tuple[str, ...]:
        return (f"file-{index}",)

    def read(self, index: int) -> Sample:
        rng = np.random.default_rng(index)
        mask = np.zeros((24, 32), np.int64)
        for label in (1, 2):
            y, x = rng.integers(0, 16), rng.integers(0, 24)
            mask[y : y + 10, x : x + 12] = label
        image = np.array(self.taxonomy.colours, np.uint8)[mask]
        if index == 3:
            mask[:] = 255
        mask[0, :4] = 255
        return Sample(
            tv_tensors.Image(torch.from_numpy(image).permute(2, 0, 1)),
            tv_tensors.Mask(torch.from_numpy(mask)),
            self.names[index],
        )


class Small(nn.Module):
    def __init__(self, classes: int = 3) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU())
        self.second = nn.Sequential(nn.Conv2d(8, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout2d(0.1))
        self.head = nn.Conv2d(8, classes, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.second(self.first(x)))


@pytest.fixture(scope="session")
def runtime() -> Runtime:
    return Runtime("float32")


def make_job(folder: Path, count: int = 16, **values: Any) -> Job:
    torch.manual_seed(0)
    model = supervise(Small(), ["first"], num_classes=3, example=torch.zeros(1, 3, 24, 32))
    settings = {"epochs": 6, "batch_size": 4, "learning_rate": 0.1, "log_steps": 4, **values}
    loader = TrainingLoader(Colours(count), TrainTransform((24, 32), scale=(1.0, 1.0)), settings["batch_size"], seed=0)
    return Job(
        model=model,
        loss=HierarchicalLoss(model.plan),
        loader=loader,
        settings=TrainConfig(**settings),
        mean=MEAN,
        std=STD,
        folder=folder,
        identity={"arm": "test"},
        description={},
    )


SILENT = Reporter(enabled=False)
