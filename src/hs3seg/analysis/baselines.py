"""Baselines and controls as plans: what differs between methods is a plan value, never a branch in the loop."""

from collections.abc import Sequence
from dataclasses import replace

from hs3seg.analysis.clustering import random_grouping
from hs3seg.analysis.online_plan import OnlinePlan
from hs3seg.analysis.plan import DEFAULT_GAMMA, StagePlan, SupervisionPlan
from hs3seg.taxonomy import Grouping


def no_supervision(names: Sequence[str]) -> SupervisionPlan:
    """The plain network."""
    return SupervisionPlan(tuple(names), (), "none")


def deep_supervision(names: Sequence[str], stages: Sequence[str], gamma: float = DEFAULT_GAMMA) -> SupervisionPlan:
    """Every stage has all classes (Sec. 3: S_i = S)."""
    identity = Grouping.identity(len(names))
    return SupervisionPlan(tuple(names), tuple(StagePlan(s, identity, gamma) for s in stages), "deep_supervision")


def random_control(plan: SupervisionPlan, seed: int) -> SupervisionPlan:
    """Control: every stage keeps its group sizes, but the members are drawn at random."""
    stages = []
    for number, stage in enumerate(plan.stages):
        sizes = [len(group) for group in stage.grouping.groups]
        stages.append(replace(stage, grouping=random_grouping(plan.num_classes, sizes, seed + 7919 * number)))
    return SupervisionPlan(plan.taxonomy_names, tuple(stages), "random", {"of": plan.name, "seed": seed})


def reversed_order(plan: SupervisionPlan) -> SupervisionPlan:
    """Control: the stages' groupings in reverse order, fine ones early, coarse ones late."""
    groupings = [stage.grouping for stage in reversed(plan.stages)]
    stages = tuple(replace(stage, grouping=g) for stage, g in zip(plan.stages, groupings, strict=True))
    return SupervisionPlan(plan.taxonomy_names, stages, "reversed", {"of": plan.name})


def single_phase(
    names: Sequence[str], stages: Sequence[str], gamma: float = DEFAULT_GAMMA, settings: OnlinePlan | None = None
) -> SupervisionPlan:
    """Single-phase HS3: groups are found while the network trains, see `OnlinePlan`."""
    plan = deep_supervision(names, stages, gamma)
    return replace(plan, name="online", online=settings or OnlinePlan())
