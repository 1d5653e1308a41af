"""The whole analysis: from one confusion matrix per stage to a plan."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from hs3seg.analysis.affinity import DEFAULT_EPSILON, class_affinity
from hs3seg.analysis.baselines import deep_supervision, no_supervision
from hs3seg.analysis.clustering import Diagonal, halved_sizes, kmeans_groupings, spectral_groupings
from hs3seg.analysis.confusion import absent_classes, checked_counts, mean_iou
from hs3seg.analysis.plan import DEFAULT_GAMMA, StagePlan, SupervisionPlan
from hs3seg.analysis.tradeoff import (
    DEFAULT_ASPECT,
    Reference,
    Rule,
    TradeoffCurve,
    choose_num_groups,
    line,
    theta_of_ratio,
    tradeoff_curve,
)
from hs3seg.errors import PlanError, nearest
from hs3seg.taxonomy import Grouping

Method = Literal["spectral", "kmeans", "constant_ratio", "deep_supervision", "none"]
ALL_SIZES = 256
"""Classes up to which every number of groups is tried. Above, clusterings take minutes: a grid of sizes is tried, then
those around the chosen one, so that of a curve that wiggles a larger size may be missed."""
_GRID = 64

METHODS: tuple[Method, ...] = ("spectral", "kmeans", "constant_ratio", "deep_supervision", "none")


@dataclass(frozen=True)
class Study:
    """What an analysis found.

    Args:
        plan: The plan it leads to.
        reference: The final output's point.
        curves: One per stage, shallow to deep.
        absent: Ids of classes without a truth pixel.
        normalize: How the affinity was made.
        theta_degrees: Angle of the line; None = the ratio rule.
        aspect: width:height of the plot theta is measured in.
        diagonal: Whether a class was near to itself when classes were clustered.
        rule: How numbers of groups were chosen.
    """

    plan: SupervisionPlan
    reference: Reference
    curves: tuple[TradeoffCurve, ...]
    absent: tuple[int, ...]
    normalize: str
    theta_degrees: float | None
    aspect: float
    diagonal: str = "drop"
    rule: Rule = "line"

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "method": self.plan.name,
            "normalize": self.normalize,
            "diagonal": self.diagonal,
            "reference": {
                "num_classes": self.reference.num_classes,
                "miou": self.reference.miou,
                "ratio": self.reference.ratio,
                "rule": "knee" if self.rule == "knee" else "ratio" if self.theta_degrees is None else "theta",
                "theta_degrees": self.theta_degrees
                if self.theta_degrees is not None
                else theta_of_ratio(self.reference, self.aspect),
                "aspect": self.aspect,
            },
            "stages": {
                curve.stage: self._stage(curve) for curve in self.curves if curve.stage in self.plan.stage_names
            },
            "classes": list(self.plan.taxonomy_names),
            "absent_classes": list(self.absent),
        }

    def _stage(self, curve: TradeoffCurve) -> dict[str, Any]:
        stage = self.plan.stage(curve.stage)
        k = stage.grouping.num_groups
        return {
            "num_groups": k,
            "groups": [list(group) for group in stage.grouping.groups],
            "miou": curve.mious[k],
            "reaches_line": curve.reaches(k, self.reference, self.theta_degrees, self.aspect),
            "knee": asdict(curve.knee),
            "gamma": stage.gamma,
            "curve": [[size, curve.mious[size]] for size in curve.sizes],
        }


def analyze(
    confusions: Mapping[str, NDArray[Any]],
    names: Sequence[str] | None = None,
    *,
    method: Method = "spectral",
    normalize: Literal["true", "none"] = "true",
    diagonal: Diagonal = "drop",
    rule: Rule = "line",
    theta_degrees: float | None = None,
    aspect: float = DEFAULT_ASPECT,
    gamma: float = DEFAULT_GAMMA,
    seed: int = 0,
    epsilon: float = DEFAULT_EPSILON,
    embeddings: Mapping[str, NDArray[np.float64]] | None = None,
) -> Study:
    """Groups the classes of every stage and chooses each stage's number of groups (Sec. 3.1).

    Args:
        confusions: Stage -> (K, K) pixel counts, shallow to deep, and `final`.
        names: K class names; default class_0 ...
        method: `spectral` on the stage's affinity; `kmeans` on its embeddings; `constant_ratio` halves the number of
            groups per earlier stage and groups spectrally; `deep_supervision` and `none` are the baselines.
        normalize: See `class_affinity`.
        diagonal: See `spectral_groupings`.
        rule: See `choose_num_groups`; `constant_ratio` and the baselines do without.
        theta_degrees: Angle of the trade-off line, 0..90; None = the ratio rule.
        aspect: width:height of the plot in which theta is measured.
        gamma: Weight of every stage's loss.
        seed: Of k-means.
        epsilon: See `class_affinity`.
        embeddings: Stage -> (K, C), for `kmeans`.

    Raises:
        PlanError: no `final`, or no other matrix; sizes differ; not counts, or no labelled pixel; wrong names; an
            unknown method or rule; an angle, aspect, gamma or epsilon out of range; missing embeddings.
    """
    stages, final = _checked(confusions)
    count = len(final)
    names = tuple(names) if names is not None else tuple(f"class_{c}" for c in range(count))
    if len(names) != count:
        raise PlanError(
            f"{len(names)} class names for confusion matrices of {count} classes; give the data's own taxonomy"
        )
    if method not in METHODS:
        raise PlanError(f"unknown method '{method}'; {nearest(method, METHODS)}")
    if rule not in get_args(Rule):
        raise PlanError(f"unknown rule '{rule}'; {nearest(rule, get_args(Rule))}")
    if not stages and method != "none":
        raise PlanError("no matrix besides 'final'; give one per stage, named like the stage, shallow to deep")
    reference = Reference(count, mean_iou(final))
    line(reference, count, theta_degrees, aspect)  # refuses angles and aspects out of range, whatever the method
    curves = []
    plans = []
    for number, (stage, confusion) in enumerate(stages.items()):
        make = partial(_groupings, stage, confusion, method, normalize, diagonal, seed, epsilon, embeddings)
        sizes = first_sizes(count)
        if method == "constant_ratio":
            sizes = sorted({*sizes, *halved_sizes(count, len(stages))} - {1, count})
        curve = tradeoff_curve(stage, confusion, make(sizes))
        if count > ALL_SIZES and method in ("spectral", "kmeans"):
            choose = partial(
                _size,
                reference=reference,
                method=method,
                rule=rule,
                theta_degrees=theta_degrees,
                aspect=aspect,
                number=number,
                num_stages=len(stages),
            )
            curve = _refined(curve, confusion, make, choose, both=rule == "knee")
        size = _size(curve, reference, method, rule, theta_degrees, aspect, number, len(stages))
        curves.append(curve)
        plans.append(StagePlan(stage, curve.groupings[size], gamma))
    absent = absent_classes(final)
    plan = _plan(method, names, plans, gamma)
    found = Study(plan, reference, tuple(curves), absent, normalize, theta_degrees, aspect, diagonal, rule)
    return replace(found, plan=replace(plan, notes=_notes(found, epsilon, seed)))


def _checked(confusions: Mapping[str, NDArray[Any]]) -> tuple[dict[str, NDArray[Any]], NDArray[Any]]:
    if "final" not in confusions:
        raise PlanError("no matrix named 'final'; the final output's matrix is the reference of every stage")
    counts = {name: checked_counts(matrix, f"matrix '{name}'") for name, matrix in confusions.items()}
    final = counts["final"]
    for name, matrix in counts.items():
        if matrix.shape != final.shape:
            raise PlanError(f"matrix '{name}' has shape {matrix.shape}; all must be ({len(final)}, {len(final)})")
        if not matrix.any():
            raise PlanError(f"matrix '{name}' holds no labelled pixel; measure on images that have labels")
    return {name: matrix for name, matrix in counts.items() if name != "final"}, final


def _groupings(
    stage: str,
    confusion: NDArray[Any],
    method: Method,
    normalize: Literal["true", "none"],
    diagonal: Diagonal,
    seed: int,
    epsilon: float,
    embeddings: Mapping[str, NDArray[np.float64]] | None,
    sizes: Sequence[int],
) -> dict[int, Grouping]:
    if method != "kmeans":
        return spectral_groupings(class_affinity(confusion, normalize, epsilon), sizes, diagonal=diagonal)
    if embeddings is None or stage not in embeddings:
        raise PlanError(f"method 'kmeans' needs embeddings of stage '{stage}', one row per class; none were given")
    if len(embeddings[stage]) != len(confusion):
        raise PlanError(
            f"embeddings of stage '{stage}' have {len(embeddings[stage])} rows for {len(confusion)} classes"
        )
    return kmeans_groupings(embeddings[stage], sizes, seed=seed)


def first_sizes(count: int) -> list[int]:
    """Numbers of groups that are tried first: all of 2..K-1, or about 64 of them, closer to each other where small."""
    if count <= ALL_SIZES:
        return list(range(2, count))
    return sorted({int(k) for k in np.geomspace(2, count - 1, _GRID).round()})


def _refined(
    curve: TradeoffCurve,
    confusion: NDArray[Any],
    make: Callable[[Sequence[int]], dict[int, Grouping]],
    choose: Callable[[TradeoffCurve], int],
    *,
    both: bool,
) -> TradeoffCurve:
    """Tries the sizes between the chosen one and the next larger, until none is left; `both`: and the next smaller."""
    while True:
        size = choose(curve)
        smaller = next((k for k in reversed(curve.sizes) if both and k < size), size)
        larger = next((k for k in curve.sizes if k > size), size)
        between = [k for k in range(smaller + 1, larger) if k != size]
        if not between:
            return curve
        step = -(-len(between) // _GRID)
        found = make(between[::step])
        known = len(curve.groupings)
        curve = tradeoff_curve(curve.stage, confusion, {**curve.groupings, **found})
        if len(curve.groupings) == known:  # none of them can be made: identical classes
            return curve


def _size(
    curve: TradeoffCurve,
    reference: Reference,
    method: Method,
    rule: Rule,
    theta_degrees: float | None,
    aspect: float,
    number: int,
    num_stages: int,
) -> int:
    if method == "deep_supervision":
        return reference.num_classes
    if method == "constant_ratio":
        wanted = halved_sizes(reference.num_classes, num_stages)[number]
        return min(curve.sizes, key=lambda k: (abs(k - wanted), k))
    return choose_num_groups(curve, reference, theta_degrees, aspect, rule)


def _plan(method: Method, names: tuple[str, ...], stages: list[StagePlan], gamma: float) -> SupervisionPlan:
    if method == "none":
        return no_supervision(names)
    if method == "deep_supervision":
        return deep_supervision(names, [stage.stage for stage in stages], gamma)
    return SupervisionPlan(names, tuple(stages), method)


def _notes(study: Study, epsilon: float, seed: int) -> dict[str, Any]:
    """What a reader of plan.toml needs to judge it; method.md 1.7: ratio, theta, aspect and k beside each other."""
    values = study.to_dict()
    reference, stages = values["reference"], values["stages"]
    return {
        "method": values["method"],
        "reference_miou": reference["miou"],
        "ratio": reference["ratio"],
        "rule": reference["rule"],
        "theta_degrees": reference["theta_degrees"],
        "aspect": reference["aspect"],
        "normalize": study.normalize,
        "diagonal": study.diagonal,
        "epsilon": epsilon,
        "seed": seed,
        # Nothing is known of these classes: where they are grouped means nothing.
        "absent_classes": [study.plan.taxonomy_names[c] for c in study.absent],
        # No number of groups was good enough for these: they have the smallest, which comes nearest.
        "stages_below_line": [stage for stage, found in stages.items() if not found["reaches_line"]],
        "num_groups": {stage: found["num_groups"] for stage, found in stages.items()},
        "miou": {stage: found["miou"] for stage, found in stages.items()},
    }
