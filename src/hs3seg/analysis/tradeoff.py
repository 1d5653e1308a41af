"""The trade-off between number of groups and mIoU, and the choice of a stage's point (Sec. 3.1.1, 3.1.2)."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from hs3seg.analysis.confusion import mean_iou
from hs3seg.errors import PlanError
from hs3seg.taxonomy import Grouping

DEFAULT_ASPECT = 1.652
"""width:height of the plot of [0, K] x [0, 1] in which the paper's ratio rule on NYUD-v2 reads 76 degrees."""

Rule = Literal["line", "knee"]
"""How a stage's number of groups is chosen: where its curve meets the line through the final output's point (the
paper's rule, Sec. 3.1.2), or at the curve's knee (ours)."""
LEAST_KNEE = 0.05
"""mIoU, a fraction: a curve that nowhere lies higher above the straight line between its ends has no knee."""


@dataclass(frozen=True, slots=True)
class Reference:
    """The final output's point (K, m_f).

    Args:
        num_classes: K.
        miou: m_f, a fraction.
    """

    num_classes: int
    miou: float

    @property
    def ratio(self) -> float:
        """The mIoU per class, m_f / K: the trade-off that every stage shall match."""
        return self.miou / self.num_classes


@dataclass(frozen=True, slots=True)
class Knee:
    """Where a curve bends most: the point that lies highest above the straight line between its ends.

    Up to the knee classes are told apart at little loss, behind it mIoU falls: the stage sees so many groups and no
    more. Curves of stages that know every class a little sag below the line, and no number of groups stands out.

    Args:
        num_groups: k of that point.
        height: mIoU above the line, a fraction, 0 or more.
    """

    num_groups: int
    height: float

    @property
    def is_clear(self) -> bool:
        """Whether it is high enough to count."""
        return self.height >= LEAST_KNEE


def knee_of(mious: Mapping[int, float]) -> Knee:
    """The knee of a curve, number of groups -> mIoU; the largest number where several are as high.

    After Satopaa et al., "Finding a Kneedle in a Haystack" (2011), without its scaling to the range of the curve: a
    small fall would look as sharp as a large one.
    """
    sizes = sorted(mious)
    first, last = sizes[0], sizes[-1]
    slope = (mious[last] - mious[first]) / max(last - first, 1)
    heights = {k: mious[k] - mious[first] - slope * (k - first) for k in sizes}
    best = max(sizes, key=lambda k: (round(heights[k], 12), k))
    return Knee(best, max(heights[best], 0.0))


@dataclass(frozen=True, slots=True)
class TradeoffCurve:
    """mIoU of one stage against the number of groups.

    Args:
        stage: Its name.
        groupings: Number of groups -> grouping, rising; the last is the identity, k = K.
        mious: mIoU of the merged confusion matrix for each, fractions.
    """

    stage: str
    groupings: Mapping[int, Grouping]
    mious: Mapping[int, float]

    @property
    def sizes(self) -> tuple[int, ...]:
        """The numbers of groups, rising."""
        return tuple(self.groupings)

    @property
    def knee(self) -> Knee:
        """Where it bends most."""
        return knee_of(self.mious)

    def reaches(
        self,
        num_groups: int,
        reference: Reference,
        theta_degrees: float | None = None,
        aspect: float = DEFAULT_ASPECT,
    ) -> bool:
        """Whether the point at a number of groups lies on or above the line through the reference."""
        tolerance = 1e-12  # k = K lies on the line when stage and output have the same matrix
        return self.mious[num_groups] >= line(reference, num_groups, theta_degrees, aspect) - tolerance


def tradeoff_curve(stage: str, confusion: ArrayLike, groupings: Mapping[int, Grouping]) -> TradeoffCurve:
    """Scores each grouping by the merged confusion matrix G^T C G; k = K is added."""
    matrix = np.asarray(confusion)
    whole = dict(sorted(groupings.items())) | {len(matrix): Grouping.identity(len(matrix))}
    return TradeoffCurve(stage, whole, {k: mean_iou(g.merge(matrix)) for k, g in whole.items()})


def theta_of_ratio(reference: Reference, aspect: float = DEFAULT_ASPECT) -> float:
    """theta_0 in degrees: the angle at which the line passes through the origin; tan(theta_0) = aspect / m_f."""
    return math.degrees(math.atan2(aspect, reference.miou))


def line(
    reference: Reference, num_groups: float, theta_degrees: float | None = None, aspect: float = DEFAULT_ASPECT
) -> float:
    """Height of the trade-off line through the reference point at a number of groups.

    L(k) = m_f (1 - (1 - k/K) tan(theta_0) / tan(theta)); without theta the line through the origin, m_f k / K.

    Args:
        reference: (K, m_f).
        num_groups: k.
        theta_degrees: Angle from the vertical, 0..90; 90 is level, 0 vertical (minus infinity left of K).
        aspect: width:height of the plot in which theta is measured.

    Returns:
        mIoU, a fraction; may be negative.

    Raises:
        PlanError: theta outside 0..90, or an aspect that is not above 0.
    """
    if not 0 < aspect < math.inf:
        raise PlanError(f"aspect = {aspect}; it is the plot's width:height, above 0, such as {DEFAULT_ASPECT}")
    missing = 1 - num_groups / reference.num_classes
    if theta_degrees is None:
        return reference.miou * (1 - missing)
    if not 0 <= theta_degrees <= 90:
        raise PlanError(
            f"theta = {theta_degrees} degrees; allowed: 0 (deep supervision) to 90 (the final output's mIoU)"
        )
    if theta_degrees == 90 or missing == 0:
        return reference.miou
    if theta_degrees == 0:
        return -math.inf
    # m_f tan(theta_0) = aspect, so the slope needs no division by m_f.
    return reference.miou - missing * aspect / math.tan(math.radians(theta_degrees))


def choose_num_groups(
    curve: TradeoffCurve,
    reference: Reference,
    theta_degrees: float | None = None,
    aspect: float = DEFAULT_ASPECT,
    rule: Rule = "line",
) -> int:
    """The largest number of groups whose point lies on or above the line, or the curve's knee.

    The paper intersects a falling curve with a rising line; measured curves wiggle, so the rule is: largest k.
    theta = 0 asks for nothing and gives K (deep supervision). Where no point reaches the line, the smallest k
    comes nearest to it and is taken.

    Args:
        curve: Of the stage.
        reference: Of the final output.
        theta_degrees: None = the ratio rule.
        aspect: width:height of the plot in which theta is measured.
        rule: `knee` looks at the curve alone; one without a clear knee keeps all classes, K.

    Returns:
        k, one of `curve.sizes`.
    """
    if rule == "knee":
        knee = curve.knee
        return knee.num_groups if knee.is_clear else max(curve.sizes)
    if theta_degrees == 0:
        return max(curve.sizes)
    reached = [k for k in curve.sizes if curve.reaches(k, reference, theta_degrees, aspect)]
    return max(reached, default=min(curve.sizes))
