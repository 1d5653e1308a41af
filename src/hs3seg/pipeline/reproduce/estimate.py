"""How long a training will take, measured by a few steps of it."""

import math
import time

import torch

from hs3seg.analysis import SupervisionPlan
from hs3seg.builders import make_loss, make_supervised
from hs3seg.data import LabelStatistics
from hs3seg.pipeline.steps import Session

STEPS = 3
EVALUATION = 0.35
"""An image's evaluation in its training step: forward only, but also counted at label resolution."""


def training_seconds(session: Session, plan: SupervisionPlan, steps: int = STEPS) -> float:
    """Estimated duration of one training on the split `train` and its evaluations, data loading left out.

    The share of one process of the batch is trained on noise, forward and backward, after one step that does not
    count. The optimizer and the exchange of gradients are left out.

    Args:
        session: Config and runtime.
        plan: What is trained.
        steps: That are timed; the fastest counts.
    """
    config, runtime = session.config, session.runtime
    dataset = session.dataset("train")
    taxonomy = dataset.taxonomy
    flat = LabelStatistics((1,) * taxonomy.num_classes, (1,) * taxonomy.num_classes, 0, 1, ())
    model = runtime.place(make_supervised(config, plan, taxonomy)).train()
    loss = make_loss(config, model, taxonomy, flat).to(runtime.device)
    share = max(1, config.train.batch_size // (runtime.world_size * config.train.accumulate))
    generator = torch.Generator().manual_seed(0)
    height, width = config.augment.crop
    channels = config.data.channels
    layout = torch.channels_last if runtime.channels_last else torch.contiguous_format
    images = torch.randn(share, channels, height, width, generator=generator).to(runtime.device, memory_format=layout)
    labels = torch.randint(taxonomy.num_classes, (share, height, width), generator=generator).to(runtime.device)
    fastest = math.inf
    for _ in range(1 + steps):
        began = time.monotonic()
        with runtime.accelerator.autocast():
            found = loss(model(images), labels)
        getattr(found, "total", found).backward()
        if runtime.device.type != "cpu":
            torch.accelerator.synchronize()
        model.zero_grad(set_to_none=True)
        fastest = min(fastest, time.monotonic() - began)
    per_epoch = math.ceil(len(dataset) / config.train.batch_size) * config.train.accumulate
    evaluated = sum(len(session.dataset(split)) for split in config.data.evaluate_splits)
    evaluation = EVALUATION * fastest * evaluated / (share * runtime.world_size)
    return fastest * per_epoch * config.train.epochs + evaluation
