"""Optimizers, learning-rate schedules and the moving average of the weights."""

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from hs3seg.config import TrainConfig


def make_optimizer(model: nn.Module, settings: TrainConfig) -> torch.optim.Optimizer:
    """SGD or AdamW; norms and biases (tensors of one dimension) go without decay unless `decay_norms`."""
    matrices = [p for p in model.parameters() if p.requires_grad and p.ndim > 1]
    vectors = [p for p in model.parameters() if p.requires_grad and p.ndim <= 1]
    groups: list[dict[str, Any]] = [
        {"params": matrices, "weight_decay": settings.weight_decay},
        {"params": vectors, "weight_decay": settings.weight_decay if settings.decay_norms else 0.0},
    ]
    if settings.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=settings.learning_rate, betas=(settings.momentum, 0.999))
    return torch.optim.SGD(groups, lr=settings.learning_rate, momentum=settings.momentum)


def learning_rate(step: int, total_steps: int, steps_per_epoch: int, settings: TrainConfig) -> float:
    """Learning rate of a step, a pure function so that a resumed run needs no schedule state.

    Args:
        step: 0 .. total_steps - 1.
        total_steps: Steps of the whole training, warm-up included.
        steps_per_epoch: To turn `warmup_epochs` into steps.
        settings: Peak rate, schedule and warm-up.

    Returns:
        The rate; it rises linearly during the warm-up and then falls to (nearly) zero.
    """
    warmup = min(round(settings.warmup_epochs * steps_per_epoch), total_steps - 1)
    if step < warmup:
        return settings.learning_rate * (step + 1) / warmup
    done = (step - warmup) / (total_steps - warmup)
    if settings.schedule == "cosine":
        return settings.learning_rate * 0.5 * (1 + math.cos(math.pi * done))
    return float(settings.learning_rate * (1 - done) ** settings.poly_power)


class MovingAverage(AveragedModel):
    """Exponential moving average of weights and buffers.

    The decay of update n is min(decay, (1 + n) / (10 + n)), so that short trainings do not keep their random start.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        def average(averages: Any, values: Any, updates: Any) -> None:
            count = int(updates)
            keep = min(decay, (1 + count) / (10 + count))
            for mean, value in zip(averages, values, strict=True):
                if mean.is_floating_point():
                    mean.lerp_(value.to(mean.dtype), 1 - keep)
                else:
                    mean.copy_(value)

        super().__init__(model, multi_avg_fn=average, use_buffers=True)


def gradients_are_finite(norm: Tensor | None) -> bool:
    """Whether a gradient norm that clipping returned is a number."""
    return norm is None or bool(torch.isfinite(norm))
