"""Cross-entropy whose class weights follow from what each image shows (InverseForm, GSCNN).

Shapes: N batch, k groups, H x W the labels' size, h x w the logits'.
"""

from typing import Literal

import torch
from torch import Tensor, nn

from hs3seg.errors import ConfigError, PlanError, nearest
from hs3seg.nn.fused_cross_entropy import enlarged_cross_entropy

Per = Literal["image", "batch"]
PER: tuple[Per, ...] = ("image", "batch")


class ImageWeightedCrossEntropy(nn.Module):
    """Cross-entropy with weight 1 + (1 - f) for a group that covers the share f of the labelled pixels, so in [1, 2].

    Each image's loss is the weighted mean over its labelled pixels, the batch's the mean over the images that have any:
    a sum over images, as the released code of InverseForm has it, would grow with the batch, and so would the steps.
    That code means the weights to be each image's own but counts the whole batch for each of them: `per="batch"`, times
    the number of images, gives its values.

    Args:
        num_groups: k.
        ignore_index: Label that does not count.
        per: Whose labels make the weights: each `image`'s own, or the whole `batch`'s.
        align_corners: How logits are enlarged, as in `F.interpolate`.
    """

    def __init__(
        self, num_groups: int, ignore_index: int = 255, per: Per = "image", align_corners: bool = False
    ) -> None:
        super().__init__()
        if num_groups < 1:
            raise ConfigError(f"num_groups = {num_groups}; give the number of groups, at least 1")
        if per not in PER:
            raise ConfigError(f"unknown per = '{per}'; {nearest(per, PER)}")
        self.num_groups, self.ignore_index, self.per = num_groups, ignore_index, per
        self.align_corners = align_corners

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Mean over the images of their weighted means.

        Args:
            logits: (N, k, h, w).
            labels: (N, H, W) int64.

        Returns:
            Scalar; a batch without a labelled pixel gives a zero that has a gradient.

        Raises:
            PlanError: not k groups of logits.
        """
        if logits.shape[1] != self.num_groups:
            raise PlanError(
                f"logits of {logits.shape[1]} groups for a loss of {self.num_groups}; make it with"
                f" num_groups = {logits.shape[1]}"
            )
        if not len(labels):
            return logits.sum().float()  # 0, and its gradient
        counts = torch.stack([self._count(image) for image in labels])  # (N, k)
        total, images = logits.new_zeros((), dtype=torch.float32), logits.new_zeros((), dtype=torch.float32)
        for i, own in enumerate(counts):
            class_weights = group_weights(counts.sum(0) if self.per == "batch" else own)
            losses, weight = enlarged_cross_entropy(
                logits[i : i + 1],
                labels[i : i + 1],
                class_weights,
                ignore_index=self.ignore_index,
                align_corners=self.align_corners,
            )
            total = total + losses / weight.clamp(min=1)  # each weight is at least 1
            images = images + (weight > 0)
        return total / images.clamp(min=1)

    def _count(self, labels: Tensor) -> Tensor:
        """Pixels of each group, (k,), in labels (H, W)."""
        known = labels.masked_fill(labels == self.ignore_index, self.num_groups).flatten()
        return torch.bincount(known, minlength=self.num_groups)[: self.num_groups]


def group_weights(counts: Tensor) -> Tensor:
    """1 + (1 - f) of pixel counts (k,): (k,) float32 in [1, 2]; nothing depends on the weight of an absent group."""
    return (2 - counts / counts.sum().clamp(min=1)).to(torch.float32)
