"""Heads: features of a stage to logits of its groups.

Shapes: N images, C features, K classes, k groups, H x W the stage's size.
"""

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hs3seg.taxonomy import Grouping


class StageHead(nn.Sequential):
    """Logits (N, k, H, W) of features (N, C, H, W): 1x1 C-C, BatchNorm, ReLU, 1x1 C-k, as the official auxiliary head.

    Args:
        in_channels: C of the merged map.
        num_groups: k.
    """

    def __init__(self, in_channels: int, num_groups: int) -> None:
        super().__init__(
            nn.Conv2d(in_channels, in_channels, 1),
            nn.BatchNorm2d(in_channels),
            nn.ReLU(),  # not in place: bfloat16 takes twice as long then, and nothing else needs the map before it
            nn.Conv2d(in_channels, num_groups, 1),
        )


class ClassHead(StageHead):
    """A head of all classes whose output is the logits of groups: (N, k, H, W), see `group_logits`.

    Args:
        in_channels: C of the merged map.
        grouping: K classes -> k groups.
    """

    def __init__(self, in_channels: int, grouping: Grouping) -> None:
        super().__init__(in_channels, grouping.num_classes)
        self.num_groups = grouping.num_groups
        self.register_buffer("groups", torch.tensor(grouping.assignment), persistent=False)

    def forward(self, features: Tensor) -> Tensor:
        """Logits of the groups."""
        logits = features
        for layer in self:
            logits = layer(logits)
        return group_logits(logits, self.get_buffer("groups"), self.num_groups)


class ProbedHead(StageHead):
    """A head of all classes that can tell what its features tell apart, without teaching them."""

    def forward(self, features: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        """Logits (N, K, H, W); in training twice: the first teach the features, the second the last layer alone."""
        hidden = features
        for layer in list(self)[:-1]:
            hidden = layer(hidden)
        last = self[-1]
        assert isinstance(last, nn.Conv2d)
        if not self.training:
            return cast("Tensor", last(hidden))
        assert last.bias is not None
        return F.conv2d(hidden, last.weight.detach(), last.bias.detach()), last(hidden.detach())


def probe_name(stage: str) -> str:
    """Name of the output that teaches the last layer of a stage's head, see `ProbedHead`."""
    return f"{stage}/probe"


def group_logits(logits: Tensor, groups: Tensor, num_groups: int) -> Tensor:
    """Log-sum-exp of each group's classes: softmax over the groups gives each the sum of its classes' probabilities.

    Args:
        logits: (N, K, H, W), any precision; taken in float32 at least.
        groups: (K,) int64, group of each class; every group has a class.
        num_groups: k.

    Returns:
        (N, k, H, W).
    """
    logits = logits.float() if logits.dtype in (torch.float16, torch.bfloat16) else logits
    count, _, height, width = logits.shape
    index = groups.view(1, -1, 1, 1).expand_as(logits)
    # Each group is moved by its own largest logit, so that none is lost however small its probability.
    top = logits.new_full((count, num_groups, height, width), -torch.inf)
    top = top.scatter_reduce(1, index, logits.detach(), "amax")
    power = (logits - top.gather(1, index)).exp()
    sums = torch.zeros_like(top).index_add(1, groups, power)
    return sums.log() + top
