"""Mean feature of each class at each stage, for clustering by k-means (Sec. 3.1.3)."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


class ClassMeans:
    """Averages features over all pixels of a class, over as many batches as are given.

    Args:
        num_classes: K.
        stages: Names of the stages.
    """

    def __init__(self, num_classes: int, stages: Sequence[str]) -> None:
        self._num_classes = num_classes
        self._sums: dict[str, Tensor] = {}
        self._counts = {stage: torch.zeros(num_classes, dtype=torch.float64) for stage in stages}

    def update(self, features: Mapping[str, Tensor], labels: Tensor, ignore_index: int = 255) -> None:
        """Adds a batch.

        Args:
            features: Stage -> (N, C, h, w).
            labels: (N, H, W); sampled at the centres of the features' cells.
            ignore_index: Label that does not count.
        """
        for stage, values in features.items():
            height, width = values.shape[-2:]
            rows = ((torch.arange(height) + 0.5) * labels.shape[-2] / height).long()
            columns = ((torch.arange(width) + 0.5) * labels.shape[-1] / width).long()
            small = labels.to(values.device)[:, rows][:, :, columns].reshape(-1)  # (N h w,)
            valid = small != ignore_index
            points = values.permute(0, 2, 3, 1).reshape(-1, values.shape[1])[valid].double()
            sums = torch.zeros(self._num_classes, values.shape[1], dtype=torch.float64, device=values.device)
            sums.index_add_(0, small[valid], points)
            self._sums[stage] = self._sums.get(stage, 0) + sums.cpu()
            self._counts[stage] += torch.bincount(small[valid], minlength=self._num_classes).cpu()

    def totals(self) -> dict[str, tuple[Tensor, Tensor]]:
        """Stage -> (sums (K, C), counts (K,)), to be added over processes."""
        return {stage: (self._sums[stage], self._counts[stage]) for stage in self._sums}

    @staticmethod
    def means(totals: Mapping[str, tuple[Tensor, Tensor]]) -> dict[str, NDArray[np.float64]]:
        """Stage -> (K, C) means; nan rows for classes that were not seen."""
        return {stage: (sums / counts[:, None]).numpy() for stage, (sums, counts) in totals.items()}
