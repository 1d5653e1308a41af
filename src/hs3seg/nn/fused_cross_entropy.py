"""Bilinear enlarging and cross-entropy in one sweep over strips of rows; the enlarged logits are never held.

A strip is enlarged, turned into probabilities and then into its gradient in place, and only the gradient of the small
logits is kept, so that a stage costs the memory of one strip. All steps are ordinary tensor operations.
Shapes: N images, n of them seen at once, k groups, h x w the logits' size, H x W the labels'; a strip is (R, n, k, W).
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from hs3seg.errors import PlanError
from hs3seg.nn.counting import check_shapes, whole_labels
from hs3seg.nn.strips import Strips, in_full_precision, length


@dataclass(frozen=True)
class _Target:
    """What the sum is taken of; (k,) class weights or None."""

    labels: Tensor
    class_weights: Tensor | None
    label_smoothing: float
    ignore_index: int

    def strip(self, group: slice, rows: slice, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
        """Each (R, n, 1, W): labels, 0 where ignored; 1 where they count, else 0; and their weights, else 0."""
        labels = self.labels[group, rows].transpose(0, 1).unsqueeze(2)
        known = labels != self.ignore_index
        index = labels.where(known, 0).long()
        valid = known.to(dtype)
        weights = valid if self.class_weights is None else self.class_weights.to(dtype).take(index).mul_(valid)
        return index, valid, weights

    def spread(self, groups: int, dtype: torch.dtype) -> Tensor:
        """Weights (k,) that label smoothing gives to each group at each pixel."""
        weights = torch.ones(groups, device=self.labels.device) if self.class_weights is None else self.class_weights
        return weights.to(dtype) * (self.label_smoothing / groups)


def _sweep(
    strips: Strips,
    target: _Target,
    gradient: Tensor | None,
    bound: Tensor | float | None = None,
    truth: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Sum of the losses and sum of the weights.

    Args:
        strips: The logits.
        target: The labels.
        gradient: (N, k, h, w) to be filled, or None.
        bound: Only pixels whose true group has at most this probability count, and the second sum is their number.
        truth: (N, H, W) to be filled with the probability of the true group, 2 where ignored; or None.
    """
    _, k, h, w = strips.maps.shape
    dtype, kept = strips.dtype, 1 - target.label_smoothing
    loss, total = strips.maps.new_zeros(2, dtype=dtype).unbind()
    spread = target.spread(k, dtype) if target.label_smoothing else None
    for group in strips.groups():
        n = length(group)
        back = strips.maps.new_zeros(h, n, k, w, dtype=dtype) if gradient is not None else None
        reach = strips.maps.new_zeros(h, n, 1, w, dtype=dtype) if spread is not None else None
        normal = strips.exponentials_are_normal(group)
        for block in strips.rows:
            index, valid, weights = target.strip(group, block.large, dtype)
            # Each step in place: the strip becomes e^logit, probability, gradient.
            strip = strips.enlarge(group, block)
            top = None if normal else strip.amax(2, keepdim=True)
            own = (strip if top is None else strip.sub_(top)).gather(2, index)
            power = strip.exp_().sum(2, keepdim=True)
            if bound is not None:
                probability = (own.exp() / power).masked_fill_(valid == 0, 2)
                valid = valid * (probability <= bound)
                weights = weights * valid
                if truth is not None:
                    truth[group, block.large] = probability.squeeze(2).transpose(0, 1)
            total += (weights if bound is None else valid).sum()
            slope = weights if kept == 1 else kept * weights
            logarithm = power.log()
            loss += (slope * (logarithm - own)).sum()
            onto = slope.neg()
            if spread is not None and reach is not None:
                # The sum over all groups is linear in the logits: it is taken of the small ones, below.
                loss += spread.sum() * (valid * (logarithm if top is None else logarithm + top)).sum()
                slope = slope + spread.sum() * valid
                strips.reduce(valid, block, reach)
            if back is not None:
                strip.mul_(slope / power).scatter_add_(2, index, onto)
                strips.reduce(strip, block, back)
        if spread is not None and reach is not None:
            loss -= (torch.einsum("k,hnkw->hnw", spread, strips.small(group)) * reach[:, :, 0]).sum()
        if back is not None and gradient is not None:
            if spread is not None and reach is not None:
                back -= spread[:, None] * reach
            gradient[group] = back.permute(1, 2, 0, 3)
    return loss, total


def _sweep_hardest(
    strips: Strips, target: _Target, gradient: Tensor | None, threshold: float, min_kept: int
) -> tuple[Tensor, Tensor]:
    """As `_sweep`, over pixels below the threshold; if they are too few, a second time over the `min_kept` hardest."""
    truth = strips.maps.new_empty(target.labels.shape, dtype=strips.dtype)
    loss, number = _sweep(strips, target, gradient, threshold, truth)
    rank = min(min_kept, int((truth <= 1).sum()))
    if number >= rank:
        return loss, number
    return _sweep(strips, target, gradient, truth.flatten().kthvalue(rank).values)


# An operator of its own, so that torch.compile takes it as it is.
@torch.library.custom_op(
    "hs3seg::enlarged_cross_entropy",
    mutates_args=(),
    schema=(
        "(Tensor logits, Tensor labels, Tensor? class_weights, float label_smoothing, int ignore_index,"
        " bool align_corners, float? threshold, int min_kept, bool with_gradient) -> (Tensor, Tensor, Tensor)"
    ),
)
def _operator(
    logits: Tensor,
    labels: Tensor,
    class_weights: Tensor | None,
    label_smoothing: float,
    ignore_index: int,
    align_corners: bool,
    threshold: float | None,
    min_kept: int,
    with_gradient: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    with in_full_precision(logits.device.type):
        strips = Strips(logits, (labels.shape[-2], labels.shape[-1]), align_corners)
        target = _Target(labels, class_weights, label_smoothing, ignore_index)
        gradient = _empty_gradient(logits, with_gradient)
        wanted = gradient if with_gradient else None
        if threshold is None:
            loss, total = _sweep(strips, target, wanted)
        else:
            loss, total = _sweep_hardest(strips, target, wanted, threshold, min_kept)
    return loss.clone(), total.clone(), gradient


def _empty_gradient(logits: Tensor, with_gradient: bool) -> Tensor:
    dtype = torch.float64 if logits.dtype == torch.float64 else torch.float32
    return torch.empty_like(logits if with_gradient else logits[:0], dtype=dtype)


@_operator.register_fake
def _(logits: Tensor, *rest: Any) -> tuple[Tensor, Tensor, Tensor]:
    gradient = _empty_gradient(logits, rest[-1])
    return gradient.new_empty(()), gradient.new_empty(()), gradient


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(output[2])
    ctx.dtype = inputs[0].dtype


def _backward(ctx: Any, loss: Tensor | None, _total: Tensor | None, again: Tensor | None) -> tuple[Tensor | None, ...]:
    if again is not None:
        raise PlanError(
            "the cross-entropy of enlarged logits has no second derivative; for one, give"
            " F.cross_entropy the logits that F.interpolate enlarges"
        )
    (gradient,) = ctx.saved_tensors
    return (None if loss is None else (gradient * loss).to(ctx.dtype), *[None] * 8)


_operator.register_autograd(_backward, setup_context=_keep)


def enlarged_cross_entropy(
    logits: Tensor,
    labels: Tensor,
    class_weights: Tensor | None = None,
    label_smoothing: float = 0.0,
    ignore_index: int = 255,
    align_corners: bool = False,
) -> tuple[Tensor, Tensor]:
    """Sum of the labelled pixels' weighted losses, and sum of their weights, as torch's cross-entropy defines both.

    The same as `F.cross_entropy` of `F.interpolate`, up to rounding. float64 is taken in float64, all else in float32.

    Args:
        logits: (N, k, h, w).
        labels: (N, H, W) integers.
        class_weights: (k,) or None.
        label_smoothing: 0..1.
        ignore_index: Label that does not count.
        align_corners: As in `F.interpolate`.

    Returns:
        Two scalars; the second has no gradient, the first has no second derivative.

    Raises:
        PlanError: shapes do not fit.
        DataError: labels are not whole numbers.
    """
    return _call(logits, labels, class_weights, label_smoothing, ignore_index, align_corners, None, 0)


def hardest_cross_entropy(
    logits: Tensor,
    labels: Tensor,
    threshold: float,
    min_kept: int,
    class_weights: Tensor | None = None,
    ignore_index: int = 255,
    align_corners: bool = False,
) -> tuple[Tensor, Tensor]:
    """Sum of the weighted losses of the hardest pixels, and their number (OHEM).

    Args:
        logits: (N, k, h, w).
        labels: (N, H, W) integers.
        threshold: Pixels whose true group has at most this probability are kept.
        min_kept: If they are fewer, the threshold is raised until so many are (all labelled ones if fewer).
        class_weights: As in `enlarged_cross_entropy`, and so are the others, what is returned and what is raised.
        ignore_index: See there.
        align_corners: See there.
    """
    return _call(logits, labels, class_weights, 0.0, ignore_index, align_corners, threshold, min_kept)


def _call(logits: Tensor, labels: Tensor, class_weights: Tensor | None, *options: Any) -> tuple[Tensor, Tensor]:
    groups = logits.shape[1]
    if class_weights is not None and len(class_weights) != groups:
        raise PlanError(f"{len(class_weights)} class weights for logits of {groups} groups; give one weight per group")
    labels = whole_labels(labels)
    check_shapes(logits, labels)
    with_gradient = logits.requires_grad and torch.is_grad_enabled()
    loss, total, _ = _operator(logits, labels, class_weights, *options, with_gradient)
    return loss, total.detach()
