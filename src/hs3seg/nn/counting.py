"""Predictions and confusion counts at label resolution; the enlarged logits are never held.

Like the loss, the logits are enlarged in strips of rows that fit into the processor's cache. Where the two best groups
of a pixel are apart by less than the rounding of float32, another order of additions may choose the other: the
prediction is that of `F.interpolate` or such a near tie. Of exactly equal groups the first is taken.
Shapes: N images, k groups, h x w the logits' size, H x W the labels'.
"""

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional as F

from hs3seg.errors import DataError, PlanError, nearest
from hs3seg.nn.strips import Strips, in_full_precision
from hs3seg.taxonomy import Grouping

_FAR = 1e30  # stands for infinity where 0 times it must be 0


def check_outputs(outputs: object, taker: str) -> None:
    """Makes sure that outputs come by name.

    Args:
        outputs: What was given in the place of output -> tensor.
        taker: Who was given it, for the error, e.g. `the loss`.

    Raises:
        PlanError: they do not.
    """
    if not isinstance(outputs, Mapping):
        what = "one tensor" if isinstance(outputs, Tensor) else f"a {type(outputs).__name__}"
        raise PlanError(f"{taker} was given {what}; give it all that the supervised network returns, stage by stage")


def whole_labels(labels: Tensor) -> Tensor:
    """Labels of any integers as int64, in which no ignore label becomes a class: of a byte, -100 is 156.

    Args:
        labels: Integers or bool, any shape.

    Raises:
        DataError: they are no tensor, or not whole: cut off, a mask scaled to 0..1 would be all class 0.
    """
    given: object = labels
    if not isinstance(given, Tensor):
        raise DataError(f"labels are of type {type(given).__name__}; give a tensor (N, H, W) of class ids")
    if labels.is_floating_point() or labels.is_complex():
        raise DataError(
            f"labels are {str(labels.dtype).removeprefix('torch.')}, and must be whole class ids; read masks with"
            " PILToTensor instead of ToTensor or scale=True, which scale them, or give (mask * 255).round().long()"
        )
    return labels.long()


def check_shapes(logits: Tensor, labels: Tensor) -> None:
    """Makes sure that each image has its logits and its labels.

    Args:
        logits: (N, k, h, w).
        labels: (N, H, W).

    Raises:
        PlanError: other shapes.
    """
    if labels.ndim != 3 or logits.ndim != 4 or len(labels) != len(logits):
        raise PlanError(
            f"labels of shape {tuple(labels.shape)} for logits of shape {tuple(logits.shape)}; give (N, H, W) for"
            " (N, k, h, w)"
        )


def check_range(labels: Tensor, known: Tensor, num_classes: int, ignore_index: int) -> None:
    """Makes sure that labels are classes; waits for the device that they are on.

    Args:
        labels: int64, any shape.
        known: The same shape, bool: False where ignored.
        num_classes: K.
        ignore_index: Named in the error.

    Raises:
        DataError: one of them is not in 0..K-1.
    """
    if not labels.numel():
        return
    low, high = (int(value) for value in labels.where(known, 0).aminmax())
    if low < 0 or high >= num_classes:
        found = low if low < 0 else high
        raise DataError(
            f"label {found} in a mask of {num_classes} classes; labels are 0..{num_classes - 1} or the ignore label"
            f" {ignore_index}: mend the mask, or give ignore_index={found} if that label does not count"
        )


def predict(logits: Tensor, size: tuple[int, int], align_corners: bool = False) -> Tensor:
    """The best group of each pixel of the bilinearly enlarged logits.

    Args:
        logits: (N, k, h, w), any precision; half precision is taken in float32.
        size: (H, W).
        align_corners: As in `F.interpolate`.

    Returns:
        (N, H, W), uint8 up to 256 groups, else int16 or int32. Infinite logits count as very large or small ones. A
        pixel that lies nearest to logits of which one is no number has group 0.
    """
    with in_full_precision(logits.device.type):
        count, k = logits.shape[:2]
        unknown = None
        # A finite sum is the cheap proof that all is well; elsewhere than on a CPU nobody waits to look.
        if logits.device.type != "cpu" or not logits.sum(dtype=torch.float64).isfinite():
            wide = logits if logits.dtype == torch.float64 else logits.float()
            # Products of a whole block would spread one number that is none, or one masked class, over all of it.
            unknown, logits = wide.isnan().any(1), wide.nan_to_num(0, posinf=_FAR, neginf=-_FAR)
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
        if unknown is not None:
            found[F.interpolate(unknown[:, None].float(), size, mode="nearest")[:, 0] > 0] = 0
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
            PlanError: outputs do not come by name; one is unknown, has another number of groups than its grouping, or
                shapes do not fit.
            DataError: a label is no class, or labels are not whole numbers.
        """
        check_outputs(outputs, "the counter")
        labels = whole_labels(labels)
        for name, logits in outputs.items():
            if name not in self.counts:
                raise PlanError(f"no grouping for the output '{name}'; {nearest(name, self.counts)}")
            check_shapes(logits, labels)
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
        check_range(labels, known, classes, self.ignore_index)
        # Ignored pixels get a row of their own, and rows are merged when they are counted: that moves no pixels.
        cells = labels.where(known, classes).mul_(k).add_(prediction.long())
        rows = torch.bincount(cells.flatten(), minlength=(classes + 1) * k).view(-1, k)
        counts.index_add_(0, groups, rows[:classes].to(counts.device))
