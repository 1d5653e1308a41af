"""Cross-entropy at label resolution without keeping the enlarged logits.

Autograd keeps N x k x H x W floats per stage, several times. Here each image's gradient is made at once, while its
numbers are in the cache, and only that of the small logits is kept: on one core 2 to 3 times as fast.
Shapes: N images, k groups, h x w the logits' size, H x W the labels'.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from hs3seg.errors import PlanError
from hs3seg.nn.resize import enlarge, enlarge_backward, resize, whole_factors


def upsample(logits: Tensor, labels: Tensor) -> Tensor:
    """Logits (N, k, h, w) in float32 at the labels' size: (N, k, H, W)."""
    return resize(logits.float(), (labels.shape[-2], labels.shape[-1]))


def cross_entropy_sum(
    logits: Tensor, labels: Tensor, class_weights: Tensor | None, label_smoothing: float, ignore_index: int
) -> tuple[Tensor, Tensor]:
    """Sum of the labelled pixels' weighted losses, and the sum of their weights, as torch's cross-entropy defines both.

    Args:
        logits: (N, k, h, w), any precision; taken in float32.
        labels: (N, H, W) int64.
        class_weights: (k,) or None.
        label_smoothing: 0..1.
        ignore_index: Label that does not count.

    Returns:
        Two scalars; the second has no gradient.

    Raises:
        PlanError: not one weight per group.
    """
    groups = logits.shape[1]
    if class_weights is not None and len(class_weights) != groups:
        raise PlanError(f"{len(class_weights)} class weights for logits of {groups} groups; give one weight per group")
    with torch.autocast(logits.device.type, enabled=False):
        factors = whole_factors(logits, labels)
        if factors and logits.device.type == "cpu" and not torch.compiler.is_compiling():
            weights = torch.ones(groups) if class_weights is None else class_weights
            sums: tuple[Tensor, Tensor] = _ImageByImage.apply(
                logits, labels, weights, label_smoothing, ignore_index, factors
            )
            return sums
        losses = F.cross_entropy(
            upsample(logits, labels),
            labels,
            weight=class_weights,
            ignore_index=ignore_index,
            label_smoothing=label_smoothing,
            reduction="sum",
        )
    valid = labels != ignore_index
    if class_weights is None:
        return losses, valid.sum().to(torch.float32)
    padded = F.pad(class_weights, (0, 1))  # the ignore label's weight is zero
    return losses, padded[torch.where(valid, labels, groups)].sum()


class _ImageByImage(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        logits: Tensor,
        labels: Tensor,
        class_weights: Tensor,
        label_smoothing: float,
        ignore_index: int,
        factors: tuple[int, int],
    ) -> tuple[Tensor, Tensor]:
        wanted = ctx.needs_input_grad[0]
        gradient = torch.empty_like(logits, dtype=torch.float32) if wanted else None
        loss, weight = torch.zeros(()), torch.zeros(())
        table = F.pad(class_weights, (0, 1))  # the ignore label's weight is zero
        for i, (image, truth) in enumerate(zip(logits, labels, strict=True)):
            small = image.to(torch.float32, memory_format=torch.contiguous_format)
            ignored = truth == ignore_index
            weights = table[truth.masked_fill(ignored, len(class_weights))]  # (H, W)
            truth = truth.masked_fill(ignored, 0)[None]  # (1, H, W)
            scores = F.log_softmax(enlarge(small, factors), dim=0)  # (k, H, W)
            loss -= (1 - label_smoothing) * (scores.gather(0, truth)[0] * weights).sum()
            weight += weights.sum()
            if label_smoothing:
                spread = class_weights * (label_smoothing / len(class_weights))  # (k,)
                labelled = (~ignored).float()
                loss -= (torch.einsum("k,khw->hw", spread, scores) * labelled).sum()
            if gradient is None:
                continue
            # d loss / d logit: probability times the pixel's weight, minus the weight of the target
            target = (weights * (1 - label_smoothing))[None]
            if label_smoothing:
                slope = scores.exp_().mul_(target + labelled * spread.sum()).sub_(spread[:, None, None] * labelled)
            else:
                slope = scores.exp_().mul_(target)
            slope.scatter_add_(0, truth, -target)
            gradient[i] = enlarge_backward(slope, factors)
        if gradient is not None:
            ctx.save_for_backward(gradient)
            ctx.dtype = logits.dtype
        ctx.mark_non_differentiable(weight)
        return loss, weight

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, loss: Tensor, _weight: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,) = ctx.saved_tensors
        return ((gradient * loss).to(ctx.dtype), None, None, None, None, None)
