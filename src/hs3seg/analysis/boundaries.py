"""Boundary F-score and boundary IoU, from counts summed over a data set.

Ignored pixels make no boundary and are not counted; nor does the image's border make one, except in boundary IoU, whose
paper has it so.
"""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

Labels = NDArray[np.integer[Any]]
Mask = NDArray[np.bool_]
_NAMES = ("predicted", "predicted_hit", "true", "true_hit", "intersection", "union")


class BoundaryCounter:
    """Counts boundary pixels per class, image by image.

    Boundary F (Csurka et al., 2013, per class as in DAVIS): precision is the share of the prediction's boundary pixels
    with a true one within the tolerance (Euclidean), recall the other way round. Boundary IoU (Cheng et al., 2021): IoU
    of the pixels of a class within a distance (in king's moves) of its contour. Both are of sums over all images, not
    means of images.

    Args:
        num_classes: K.
        ignore_index: Truth label that does not count.
        tolerance: Of boundary F, as a share of the image's diagonal; at least one pixel.
        width: Of boundary IoU, as a share of the diagonal; at least one pixel.
    """

    def __init__(
        self, num_classes: int, ignore_index: int = 255, tolerance: float = 0.0075, width: float = 0.02
    ) -> None:
        self.num_classes, self.ignore_index = num_classes, ignore_index
        self.tolerance, self.width = tolerance, width
        self.counts = {name: np.zeros(num_classes, np.int64) for name in _NAMES}

    def add(self, truth: Labels, prediction: Labels) -> None:
        """Adds one image.

        Args:
            truth: (H, W) class ids or the ignore label.
            prediction: (H, W) class ids.
        """
        valid = truth != self.ignore_index
        diagonal = math.hypot(*truth.shape)
        tolerance = max(1, round(self.tolerance * diagonal))
        width = max(1, round(self.width * diagonal))
        for c in np.union1d(np.unique(truth[valid]), np.unique(prediction[valid])).astype(int):
            true, predicted = (truth == c) & valid, (prediction == c) & valid
            self._add_distances(c, _edge(true, valid), _edge(predicted, valid), tolerance)
            # What is ignored counts as inside for both, so that no contour runs along it.
            true, predicted = (_near_contour(mask | ~valid, width) & mask for mask in (true, predicted))
            self.counts["intersection"][c] += np.count_nonzero(true & predicted)
            self.counts["union"][c] += np.count_nonzero(true | predicted)

    def _add_distances(self, c: int, true: Mask, predicted: Mask, tolerance: int) -> None:
        for edge, other, name in ((predicted, true, "predicted"), (true, predicted, "true")):
            pixels = int(np.count_nonzero(edge))
            self.counts[name][c] += pixels
            if pixels and other.any():
                self.counts[f"{name}_hit"][c] += _hits(edge, other, tolerance)

    def scores(self) -> dict[str, NDArray[np.float64]]:
        """`f` and `iou` (K,) fractions; nan for a class without a true boundary."""
        count = {name: value.astype(np.float64) for name, value in self.counts.items()}
        with np.errstate(divide="ignore", invalid="ignore"):
            precision = np.where(count["predicted"] > 0, count["predicted_hit"] / count["predicted"], 0)
            recall = count["true_hit"] / count["true"]
            f = np.where(precision + recall > 0, 2 * precision * recall / (precision + recall), 0)
            iou = count["intersection"] / count["union"]
        present = count["true"] > 0
        return {"f": np.where(present, f, np.nan), "iou": np.where(present, iou, np.nan)}


def _edge(mask: Mask, valid: Mask) -> Mask:
    """Pixels of a mask with a valid neighbour (of four) outside it."""
    outside = valid & ~mask
    near = np.zeros_like(mask)
    near[1:] |= outside[:-1]
    near[:-1] |= outside[1:]
    near[:, 1:] |= outside[:, :-1]
    near[:, :-1] |= outside[:, 1:]
    return mask & near


def _hits(edge: Mask, other: Mask, tolerance: int) -> int:
    """Edge pixels with another edge's pixel within the tolerance."""
    from scipy.ndimage import distance_transform_edt

    rows, columns = np.flatnonzero(edge.any(1)), np.flatnonzero(edge.any(0))
    # Only the neighbourhood of the edge matters.
    box = (
        slice(max(0, rows[0] - tolerance), rows[-1] + tolerance + 1),
        slice(max(0, columns[0] - tolerance), columns[-1] + tolerance + 1),
    )
    if not other[box].any():
        return 0
    distance = distance_transform_edt(~other[box])
    return int(np.count_nonzero(distance[edge[box]] <= tolerance))


def _near_contour(mask: Mask, width: int) -> Mask:
    """Pixels of a mask that `width` erosions with a 3x3 square take away; outside the image nothing is set."""
    from scipy.ndimage import minimum_filter

    inner: Mask = minimum_filter(mask.view(np.uint8), size=2 * width + 1, mode="constant", cval=0) > 0
    return mask & ~inner
