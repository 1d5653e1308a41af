"""Heads: features of a stage to logits of its groups."""

from torch import nn


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
            nn.ReLU(inplace=True),
            nn.Conv2d(in_channels, num_groups, 1),
        )
