"""Region Mutual Information loss (Zhao et al., NeurIPS 2019) with the constants of NVIDIA's semantic-segmentation.

Each class is a map of its own (sigmoid, not softmax). A pixel is described by its 3 x 3 neighbourhood in the pooled
maps; what the predicted neighbourhoods leave unexplained of the true ones is a 9 x 9 covariance, and its log
determinant is lowered.

Shapes: N batch, k groups, H x W the labels' size, h x w the logits', d values in a neighbourhood, P neighbourhoods.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hs3seg.errors import ConfigError, DataError, PlanError
from hs3seg.nn.resize import resize

_FLOOR = 1e-6  # added to every probability
_LOG_FLOOR = 1e-8  # added to the diagonal of the Cholesky factor


class RMI(nn.Module):
    """Binary cross-entropy per group, and minus a lower bound of the mutual information of label and prediction.

    The covariances are float64 outside autocast: in lower precision they are not positive definite on real maps.
    The rest has the logits' precision, float32 at least. Negative values are in order. An image without a labelled
    pixel, or a group that an image lacks, adds a constant to the mutual information's part, as in the official code.

    Args:
        num_groups: k; labels from k on are ignored.
        ignore_index: Label that does not count.
        radius: Side of a neighbourhood, in pooled pixels; d = radius^2.
        pool: Side and stride of the average pooling before it, in pixels; 1 for none.
        bce_weight: Share of the binary cross-entropy, 0..1; the mutual information has the rest.
        epsilon: Added to the covariances' diagonals.
        bce_only: The binary cross-entropy alone, unweighted: HMS takes that for OCR's auxiliary output.
        align_corners: How logits are enlarged, as in `F.interpolate`.
    """

    def __init__(
        self,
        num_groups: int,
        ignore_index: int = 255,
        *,
        radius: int = 3,
        pool: int = 4,
        bce_weight: float = 0.5,
        epsilon: float = 5e-4,
        bce_only: bool = False,
        align_corners: bool = False,
    ) -> None:
        super().__init__()
        if num_groups < 1 or radius < 1 or pool < 1:
            raise ConfigError(
                f"RMI with num_groups = {num_groups}, radius = {radius}, pool = {pool}; all are at least 1, the"
                " official code has radius = 3, pool = 4"
            )
        if not 0 <= bce_weight <= 1 or not epsilon > 0:
            raise ConfigError(
                f"RMI with bce_weight = {bce_weight}, epsilon = {epsilon}; bce_weight is a share (0..1), epsilon above"
                " 0; the official code has 0.5 and 0.0005"
            )
        self.num_groups, self.ignore_index, self.align_corners = num_groups, ignore_index, align_corners
        self.radius, self.pool = radius, pool
        self.bce_weight, self.epsilon, self.bce_only = bce_weight, epsilon, bce_only

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """The weighted sum of both parts.

        Args:
            logits: (N, k, h, w).
            labels: (N, H, W) int64.

        Returns:
            Scalar of the logits' precision, float32 at least; a batch without a labelled pixel gives a zero that has a
            gradient.

        Raises:
            PlanError: not k groups of logits.
            DataError: labels too small for one neighbourhood.
        """
        if logits.shape[1] != self.num_groups:
            raise PlanError(
                f"logits of {logits.shape[1]} groups for RMI of {self.num_groups}; make it with"
                f" num_groups = {logits.shape[1]}"
            )
        with torch.autocast(logits.device.type, enabled=False):
            wide = torch.promote_types(logits.dtype, torch.float32)
            logits = resize(logits.to(wide), (labels.shape[-2], labels.shape[-1]), self.align_corners)
            valid = (labels != self.ignore_index) & (labels >= 0) & (labels < self.num_groups)
            mask = valid[:, None].to(wide)  # (N, 1, H, W)
            truth = torch.zeros_like(logits).scatter_(1, torch.where(valid, labels, 0)[:, None], mask)
            # The official divisor is one more than the number of labelled pixels.
            bce = F.binary_cross_entropy_with_logits(logits, truth, weight=mask, reduction="sum") / (mask.sum() + 1)
            if self.bce_only:
                return bce
            information = self._information(truth, logits.sigmoid() * mask + _FLOOR)
            loss = self.bce_weight * bce + (1 - self.bce_weight) * information
            return (loss * valid.any()).to(wide)

    def _information(self, truth: Tensor, shares: Tensor) -> Tensor:
        """Half the log determinant of the unexplained covariance, per value: summed over groups, mean over images.

        Args:
            truth: (N, k, H, W), one-hot, zero where ignored.
            shares: (N, k, H, W) predicted probabilities.
        """
        values = self.radius**2
        with torch.no_grad():
            t = self._neighbourhoods(truth)  # (N, k, d, P)
        p = self._neighbourhoods(shares)
        ridge = self.epsilon * torch.eye(values, dtype=torch.float64, device=truth.device)
        # Cov(T | P) = Cov(T) - Cov(T, P) Cov(P)^-1 Cov(P, T); half of the second term comes from the factor of Cov(P).
        half = torch.linalg.solve_triangular(_cholesky(p @ p.mT + ridge), p @ t.mT, upper=False)  # (N, k, d, d)
        factor = _cholesky(t @ t.mT - half.mT @ half + ridge)
        half_log_determinant = torch.log(factor.diagonal(dim1=-2, dim2=-1) + _LOG_FLOOR).sum(-1)  # (N, k)
        return half_log_determinant.mean(0).sum() / values

    def _neighbourhoods(self, maps: Tensor) -> Tensor:
        """All neighbourhoods of the pooled maps (N, k, H, W), centred: (N, k, d, P) float64."""
        height, width = maps.shape[-2:]
        if self.pool > 1:
            maps = F.avg_pool2d(maps, self.pool, self.pool, padding=self.pool // 2)
        if min(maps.shape[-2:]) < self.radius:
            least = self.pool * self.radius - 2 * (self.pool // 2)
            raise DataError(
                f"labels of {height} x {width} pixels are too small for RMI with radius = {self.radius},"
                f" pool = {self.pool}; give at least {least} x {least}, or a smaller radius or pool"
            )
        windows = maps.double().unfold(2, self.radius, 1).unfold(3, self.radius, 1)  # (N, k, rows, columns, r, r)
        vectors = windows.permute(0, 1, 4, 5, 2, 3).flatten(4).flatten(2, 3)  # (N, k, d, P)
        return vectors - vectors.mean(-1, keepdim=True)


def _cholesky(matrices: Tensor) -> Tensor:
    """Lower factors of (..., d, d), NaN where there are none: the training loop then names the images it was at."""
    found = torch.linalg.cholesky_ex(matrices)
    return torch.where((found.info == 0)[..., None, None], found.L, float("nan"))
