"""Predictions and confusion counts at label resolution; the enlarged logits are never held.

Like the loss, the logits are enlarged in strips of rows that fit into the processor's cache. Where the two best groups
of a pixel are apart by less than the rounding of float32, another order of additions may choose the other: the
prediction is that of `F.interpolate` or such a near tie. Of exactly equal groups the first is taken.
Shapes: N images, k groups, h x w the logits' size, H x W the labels'.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from hs3seg.errors import DataError, PlanError, nearest
from hs3seg.nn.strips import Strips, in_full_precision
from hs3seg.taxonomy import Grouping


def predict(logits: Tensor, size: tuple[int, int], align_corners: bool = False) -> Tensor:
    """The best group of each pixel of the bilinearly enlarged logits.

    Args:
        logits: (N, k, h, w), any precision; half precision is taken in float32.
        size: (H, W).
        align_corners: As in `F.interpolate`.

    Returns:
        (N, H, W), uint8 up to 256 groups, else int16 or int32. A pixel whose logits are not numbers has group 0.
    """
    with in_full_precision(logits.device.type):
        count, k = logits.shape[:2]
        strips = Strips(logits, size, align_corners)
        dtype = torch.uint8 if k <= 256 else torch.int16 if k <= 2**15 else torch.int32
        found = torch.empty(count, *size, dtype=dtype, device=logits.device)
        # The first group has the largest number, so that it is the one taken of equals; arg max is many times slower.
        rank = torch.arange(k, 0, -1, dtype=strips.dtype, device=logits.device)[:, None]
        for group in strips.groups():
            for block in strips.rows:
                strip = strips.enlarge(group, block)  # (R, n, k, W)
                best = strip.eq_(strip.amax(2, keepdim=True)).mul_(rank).amax(2)
                found[group, block.large] = (k - best).remainder_(k).transpose(0, 1)  # k of k: none was the best
    return found


class ConfusionCounter:
    """Confusion matrices of a network's outputs, summed over images. Memory does not grow with groups x pixels.

    Args:
        groupings: Output -> its groups, for all outputs that will be counted.
        ignore_index: Label that does not count.
        device: Where the counts are kept; images may be anywhere.
        align_corners: How logits are enlarged, as in `F.interpolate`.

    Attributes:
        counts: Output -> (k, k) int64, rows truth.
        ignored: Pixels without a class.
    """

    def __init__(
        self,
        groupings: Mapping[str, Grouping],
        ignore_index: int = 255,
        device: torch.device | str = "cpu",
        align_corners: bool = False,
    ) -> None:
        self.groupings, self.ignore_index, self.align_corners = dict(groupings), ignore_index, align_corners
        self.counts = {
            name: torch.zeros(grouping.num_groups, grouping.num_groups, dtype=torch.int64, device=device)
            for name, grouping in groupings.items()
        }
        self.ignored = 0
        self._groups = {name: torch.tensor(grouping.assignment, device=device) for name, grouping in groupings.items()}

    def add(self, outputs: Mapping[str, Tensor], labels: Tensor) -> dict[str, Tensor]:
        """Counts a batch.

        Args:
            outputs: Output -> logits (N, k, h, w).
            labels: (N, H, W) integers: classes or the ignore label.

        Returns:
            Output -> predicted groups (N, H, W), see `predict`.

        Raises:
            PlanError: an output is unknown or has another number of groups than its grouping.
            DataError: a label is no class.
        """
        for name, logits in outputs.items():
            if name not in self.counts:
                raise PlanError(f"no grouping for the output '{name}'; {nearest(name, self.counts)}")
            if logits.shape[1] != len(self.counts[name]):
                raise PlanError(
                    f"output '{name}' has {logits.shape[1]} groups, its grouping {len(self.counts[name])}; give the"
                    " grouping that its head was made for"
                )
        if outputs:
            labels = labels.to(next(iter(outputs.values())).device)
        size = (labels.shape[-2], labels.shape[-1])
        predictions = {name: predict(logits, size, self.align_corners) for name, logits in outputs.items()}
        for i, image in enumerate(labels):
            known = image != self.ignore_index
            self.ignored += image.numel() - int(known.sum())
            for name, prediction in predictions.items():
                self._count(name, image, known, prediction[i])
        return predictions

    def _count(self, name: str, labels: Tensor, known: Tensor, prediction: Tensor) -> None:
        counts, groups = self.counts[name], self._groups[name]
        classes, k = len(groups), len(counts)
        low, high = (int(value) for value in labels.where(known, 0).aminmax())
        if low < 0 or high >= classes:
            raise DataError(
                f"label {low if low < 0 else high} in a mask of {classes} classes; labels are 0..{classes - 1} or the"
                f" ignore label {self.ignore_index}"
            )
        # Ignored pixels get a row of their own, and rows are merged when they are counted: that moves no pixels.
        cells = labels.where(known, classes).long().mul_(k).add_(prediction.long())
        rows = torch.bincount(cells.flatten(), minlength=(classes + 1) * k).view(-1, k)
        counts.index_add_(0, groups, rows[:classes].to(counts.device))
