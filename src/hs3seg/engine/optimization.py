"""Optimizers, learning-rate schedules and the moving average of the weights."""

import math
from typing import Any

import torch
from torch import nn
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
    # Tensor by tensor AdamW takes three times as long on a CPU; elsewhere torch chooses well by itself.
    fused = True if all(p.device.type == "cpu" and p.is_floating_point() for p in [*matrices, *vectors]) else None
    if settings.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=settings.learning_rate, betas=(settings.momentum, 0.999), fused=fused)
    return torch.optim.SGD(groups, lr=settings.learning_rate, momentum=settings.momentum, fused=fused)


def learning_rate(step: int, total_steps: int, steps_per_epoch: int, settings: TrainConfig) -> float:
    """Learning rate of a step, a pure function so that a resumed run needs no schedule state.

    Args:
        step: 0 .. total_steps - 1.
        total_steps: Steps of the whole training, warm-up included.
        steps_per_epoch: To turn `warmup_epochs` into steps.
        settings: Peak rate, schedule and warm-up.

    Returns:
        The rate; it rises linearly during the warm-up and then falls to (nearly) zero. With `poly_from_start` it goes
        on after the warm-up where poly would be without one.
    """
    warmup = min(round(settings.warmup_epochs * steps_per_epoch), total_steps - 1)
    if step < warmup:
        return settings.learning_rate * (step + 1) / warmup
    before = 0 if settings.schedule == "poly" and settings.poly_from_start else warmup
    done = (step - before) / (total_steps - before)
    if settings.schedule == "cosine":
        return settings.learning_rate * 0.5 * (1 + math.cos(math.pi * done))
    return float(settings.learning_rate * (1 - done) ** settings.poly_power)


class MovingAverage(AveragedModel):
    """Exponential moving average of weights and buffers.

    The decay of update n is min(decay, (1 + n) / (10 + n)), so that short trainings do not keep their random start.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        super().__init__(model, use_buffers=True)
        self.decay = decay
        self._means = _places(self.module)
        self._values: tuple[nn.Module, list[_Place]] = (model, _places(model))

    @torch.no_grad()
    def update_parameters(self, model: nn.Module) -> None:
        """One update, all weights in one call: a third of the time of torch's sorting and looping on a CPU."""
        count = int(self.n_averaged)
        keep = min(self.decay, (1 + count) / (10 + count))
        if self._values[0] is not model:
            self._values = (model, _places(model))
        means = [tensors[name] for tensors, name in self._means]
        values = [tensors[name] for tensors, name in self._values[1]]
        pairs = [
            (mean, value if value.dtype == mean.dtype and value.device == mean.device else value.to(mean))
            for mean, value in zip(means, values, strict=True)
        ]
        # The first update takes all as it is, and numbers that count something are never averaged.
        averaged = [pair for pair in pairs if count and pair[0].is_floating_point()]
        copied = [pair for pair in pairs if not (count and pair[0].is_floating_point())]
        if averaged:
            torch._foreach_lerp_([mean for mean, _ in averaged], [value for _, value in averaged], 1 - keep)
        if copied:
            torch._foreach_copy_([mean for mean, _ in copied], [value for _, value in copied])
        self.n_averaged += 1


_Place = tuple[dict[str, Any], str]
"""A module's parameters or buffers, and a name among them: the tensor that is there now."""


def _places(model: nn.Module) -> list[_Place]:
    """Of all parameters and buffers, each once. Looking for them anew takes longer than averaging them."""
    places: dict[int, _Place] = {}
    for module in model.modules():
        for tensors in (module._parameters, module._buffers):
            for name, tensor in tensors.items():
                if tensor is not None:
                    places.setdefault(id(tensor), (tensors, name))
    return list(places.values())
