"""A network that answers in the classes of another data set."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from hs3seg.nn.maps import final_logits
from hs3seg.nn.resize import aligns_corners


class BridgedNetwork(nn.Module):
    """Sums the probabilities of the classes that become one.

    A class without a counterpart leaves its pixels to the next best.

    Args:
        net: Gives logits of K classes.
        assignment: Target class of each, or anything outside 0..num_targets-1 for none.
        num_targets: T.
    """

    def __init__(self, net: nn.Module, assignment: Sequence[int], num_targets: int) -> None:
        super().__init__()
        self.net = net
        members = [[k for k, target in enumerate(assignment) if target == t] for t in range(num_targets)]
        self._members = [torch.tensor(of, dtype=torch.long) for of in members]
        self.align_corners = aligns_corners(net)
        if hasattr(net, "multi_scale"):
            self.multi_scale = self._multi_scale

    def forward(self, images: Tensor) -> Tensor:
        """Images (N, C, H, W) -> logits (N, T, h, w); those of a class that nothing becomes are -1e4."""
        return self._merged(final_logits(self.net(images)))

    def _multi_scale(self, images: Tensor, scales: Sequence[float]) -> Tensor:
        net: Any = self.net
        return self._merged(net.multi_scale(images, scales))

    def _merged(self, logits: Tensor) -> Tensor:
        logits = logits.float()
        merged = [
            logits[:, of.to(logits.device)].logsumexp(1) if len(of) else logits.new_full(logits[:, 0].shape, -1e4)
            for of in self._members
        ]
        return torch.stack(merged, 1)
