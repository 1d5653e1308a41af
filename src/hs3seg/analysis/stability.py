"""How much a grouping depends on the images that happened to be measured: a bootstrap over them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from hs3seg.analysis.affinity import DEFAULT_EPSILON, class_affinity
from hs3seg.analysis.agreement import adjusted_rand
from hs3seg.analysis.clustering import Diagonal, spectral_groupings
from hs3seg.analysis.per_image import PerImage
from hs3seg.analysis.study import analyze
from hs3seg.analysis.tradeoff import DEFAULT_ASPECT, Rule
from hs3seg.errors import PlanError
from hs3seg.taxonomy import Grouping

DEFAULT_BOOTSTRAPS = 200
MANY_CLASSES = 64
"""Above, the choice of the number of groups is repeated only `FEW_CHOICES` times: it clusters for every size."""
FEW_CHOICES = 20


@dataclass(frozen=True)
class StageStability:
    """One stage's grouping under other draws of the images.

    Args:
        stage: Its name.
        grouping: From all images, at the chosen number of groups.
        agreements: (B,) adjusted Rand index of each draw's grouping, at this number of groups, with `grouping`.
        together: (K, K) share of the draws in which two classes are in one group; 1 on the diagonal.
        sizes: Number of groups that each draw would choose, as many as were tried.
        chosen_agreements: Of each such draw, the adjusted Rand index of the grouping of that size with `grouping`.
    """

    stage: str
    grouping: Grouping
    agreements: NDArray[np.float64]
    together: NDArray[np.float64]
    sizes: NDArray[np.int64]
    chosen_agreements: NDArray[np.float64]

    @property
    def mean(self) -> float:
        """Mean agreement; 1 = always the same groups, 0 = as random ones."""
        return float(self.agreements.mean())

    def interval(self, level: float = 0.95) -> tuple[float, float]:
        """Percentile interval of the agreement."""
        low, high = np.quantile(self.agreements, [(1 - level) / 2, (1 + level) / 2])
        return float(low), float(high)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        sizes, counts = np.unique(self.sizes, return_counts=True)
        interval = np.quantile(self.sizes, [0.025, 0.975]).tolist() if len(self.sizes) else None
        return {
            "num_groups": self.grouping.num_groups,
            "groups": [list(group) for group in self.grouping.groups],
            "bootstraps": len(self.agreements),
            "adjusted_rand": {"mean": self.mean, "interval": list(self.interval())},
            "together": np.round(self.together, 4).tolist(),
            "choice": {
                "bootstraps": len(self.sizes),
                "num_groups": {str(size): int(count) for size, count in zip(sizes, counts, strict=True)},
                "interval": interval,
                "adjusted_rand_mean": float(self.chosen_agreements.mean()) if len(self.sizes) else None,
            },
        }


def group_stability(
    counts: PerImage,
    num_groups: Mapping[str, int],
    *,
    bootstraps: int = DEFAULT_BOOTSTRAPS,
    seed: int = 0,
    normalize: Literal["true", "none"] = "true",
    epsilon: float = DEFAULT_EPSILON,
    rule: Rule = "line",
    theta_degrees: float | None = None,
    aspect: float = DEFAULT_ASPECT,
    diagonal: Diagonal = "drop",
    choose: bool = True,
    progress: Callable[[], None] | None = None,
) -> tuple[StageStability, ...]:
    """Groups the classes again and again, each time from images drawn with replacement (Sec. 3.1.1).

    Args:
        counts: Of phase one on the analysis images; every stage has all classes.
        num_groups: Stage -> chosen number of groups, for the stages that are looked at.
        bootstraps: Draws, B.
        seed: Of the draws.
        normalize: See `class_affinity`; this and the next five as the plan was made.
        epsilon: See `class_affinity`.
        rule: See `choose_num_groups`.
        theta_degrees: Angle of the trade-off line; None = the ratio rule.
        aspect: width:height of the plot in which theta is measured.
        diagonal: See `spectral_groupings`.
        choose: Repeat the choice of the number of groups, too.
        progress: Called after every draw.

    Raises:
        PlanError: an unknown stage, a stage with other groups than the final output's classes, a number of groups
            that cannot be made, fewer than 2 images with a labelled pixel, or no draw.
    """
    size = counts.outputs["final"].size
    labelled = len(counts.labelled)
    if labelled < 2 or bootstraps < 1:
        raise PlanError(f"{bootstraps} draws of {labelled} labelled images; it takes 1 draw of 2 images at least")
    for stage in num_groups:
        if stage not in counts.outputs or counts.outputs[stage].size != size:
            raise PlanError(f"stage '{stage}' was not measured with all {size} classes; give phase one's counts")
    total = counts.total()
    full = {stage: _grouping(total[stage], k, normalize, epsilon, diagonal) for stage, k in num_groups.items()}
    if missing := [stage for stage, grouping in full.items() if grouping is None]:
        raise PlanError(f"stage '{missing[0]}' cannot be cut into {num_groups[missing[0]]} groups; ask for fewer")
    whole = {stage: grouping for stage, grouping in full.items() if grouping is not None}
    generator = np.random.default_rng(seed)
    most = bootstraps if size <= MANY_CLASSES else FEW_CHOICES
    tries = min(bootstraps, most) if choose else 0
    found = {stage: _Draws(np.zeros((size, size))) for stage in whole}
    for number in range(bootstraps):
        drawn = counts.resample(generator)
        for stage, grouping in whole.items():
            other = _grouping(drawn[stage], num_groups[stage], normalize, epsilon, diagonal)
            found[stage].add(grouping, other or Grouping.identity(size))
        if number < tries:
            wanted = {stage: drawn[stage] for stage in (*whole, "final")}
            study = analyze(
                wanted,
                normalize=normalize,
                epsilon=epsilon,
                rule=rule,
                theta_degrees=theta_degrees,
                aspect=aspect,
                diagonal=diagonal,
                seed=seed,
            )
            for chosen in study.plan.stages:
                found[chosen.stage].choose(whole[chosen.stage], chosen.grouping)
        if progress:
            progress()
    return tuple(found[stage].result(stage, grouping) for stage, grouping in whole.items())


class _Draws:
    """What the draws of a stage have found so far."""

    def __init__(self, together: NDArray[np.float64]) -> None:
        self.together = together
        self.agreements: list[float] = []
        self.sizes: list[int] = []
        self.chosen: list[float] = []

    def add(self, grouping: Grouping, other: Grouping) -> None:
        labels = np.array(other.assignment)
        self.together += labels[:, None] == labels
        self.agreements.append(adjusted_rand(grouping, other))

    def choose(self, grouping: Grouping, other: Grouping) -> None:
        self.sizes.append(other.num_groups)
        self.chosen.append(adjusted_rand(grouping, other))

    def result(self, stage: str, grouping: Grouping) -> StageStability:
        return StageStability(
            stage,
            grouping,
            np.array(self.agreements),
            self.together / len(self.agreements),
            np.array(self.sizes, np.int64),
            np.array(self.chosen),
        )


def _grouping(
    confusion: NDArray[Any], num_groups: int, normalize: Literal["true", "none"], epsilon: float, diagonal: Diagonal
) -> Grouping | None:
    affinity = class_affinity(confusion, normalize, epsilon)
    return spectral_groupings(affinity, [num_groups], diagonal=diagonal).get(num_groups)
