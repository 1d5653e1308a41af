"""What each arm of a run trains: its plan, and how long.

An arm is one entry here; folders, identities and the report follow from its name.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from hs3seg.analysis import (
    StagePlan,
    SupervisionPlan,
    deep_supervision,
    no_supervision,
    random_control,
    reversed_order,
)
from hs3seg.analysis.clustering import kmeans_groupings
from hs3seg.analysis.confusion import load_embeddings
from hs3seg.builders import make_fuse, make_online
from hs3seg.errors import ConfigError, PlanError
from hs3seg.pipeline.kept import is_kept
from hs3seg.pipeline.steps import Session, analyze_step, plan_step, train_step
from hs3seg.taxonomy import Taxonomy


@dataclass(frozen=True)
class Setting:
    """What plans are made from.

    Args:
        session: Config, runtime and progress.
        taxonomy: Classes.
        stages: Names of the supervised stages, shallow to deep.
    """

    session: Session
    taxonomy: Taxonomy
    stages: tuple[str, ...]

    @property
    def path(self) -> Path:
        """The run folder."""
        return self.session.config.run_path

    def deep(self) -> SupervisionPlan:
        """Deep supervision."""
        return deep_supervision(self.taxonomy.names, self.stages, self.session.config.supervision.gamma)


def arm_plan(setting: Setting, arm: str) -> SupervisionPlan:
    """The plan of an arm; phase one and the analysis are done first where it needs them.

    Raises:
        ConfigError: the arm `manual` without `supervision.manual_plan`.
        PlanError: a plan by hand that does not fit.
    """
    return _ARMS[arm].plan(setting)


def needs_phase_one(arm: str, *, by_hand: bool = False) -> bool:
    """Whether an arm's plan comes from phase one.

    Args:
        arm: Its name.
        by_hand: Whether `supervision.plan` takes the place of the measured plan.
    """
    # k-means takes the numbers of groups from the plan, but always its embeddings from phase one.
    return arm in _ARMS and _ARMS[arm].measured and (not by_hand or arm == "kmeans")


def arm_epochs(setting: Setting, arm: str) -> float:
    """Length of an arm's training in those of the config.

    The arms `..._long` see as many images as both phases of HS3 together: what its second training might be worth.
    """
    if not _ARMS[arm].long:
        return 1.0
    return 1 + len(setting.session.dataset("reduced")) / len(setting.session.dataset("train"))


def arm_split(plan: SupervisionPlan) -> str:
    """What an arm trains on: what groups are chosen on while it trains must be left out."""
    return "reduced" if plan.online is not None and plan.online.source == "held_out" else "train"


def hs3_plan(setting: Setting, name: str = "", **changes: Any) -> SupervisionPlan:
    """The plan of HS3 from phase one and the analysis, or the user's own.

    Args:
        setting: What it is made from.
        name: Of a variant, whose plan is plan-NAME.toml; empty = the config's plan.toml.
        changes: Values of `[supervision]` that the variant has otherwise.
    """
    session, path = setting.session, setting.path
    by_hand = session.config.supervision.plan
    if by_hand:
        return _loaded(setting, by_hand)
    confusion = measured(setting)
    target = path / (f"plan-{name}.toml" if name else "plan.toml")
    if session.runtime.is_main:
        plan_step(session, confusion, setting.taxonomy, target, **changes)
    session.runtime.barrier()
    return SupervisionPlan.load(target)


def measured(setting: Setting, *, with_embeddings: bool = False) -> Path:
    """Phase one and the analysis; the path of its matrices.

    Args:
        setting: Whose.
        with_embeddings: Also embeddings.npz, for groups by k-means.
    """
    session, path = setting.session, setting.path
    known = path / "analysis" / "confusion.npz"
    needed = [known, known.with_name("embeddings.npz")] if with_embeddings else [known]
    if is_kept(path / "phase_one") and all(file.exists() for file in needed):
        return known
    train_step(session, setting.deep(), path / "phase_one", arm="phase_one", split="reduced")
    return analyze_step(session, path / "phase_one", path / "analysis", with_embeddings=with_embeddings)


def _loaded(setting: Setting, path: str) -> SupervisionPlan:
    plan = SupervisionPlan.load(Path(path))
    plan.check(setting.taxonomy.names)
    return plan


def _manual(setting: Setting) -> SupervisionPlan:
    path = setting.session.config.supervision.manual_plan
    if not path:
        raise ConfigError(
            "the arm 'manual' needs supervision.manual_plan, a plan.toml by hand; copy one that `hs3 plan` wrote and"
            " edit its groups"
        )
    return _loaded(setting, path)


def _kmeans(setting: Setting) -> SupervisionPlan:
    """As many groups per stage as HS3 has, but by k-means on the stage's class embeddings (Table 6)."""
    plan = hs3_plan(setting)
    embeddings = load_embeddings(measured(setting, with_embeddings=True).with_name("embeddings.npz"))
    stages: list[StagePlan] = []
    for stage in plan.stages:
        size = stage.grouping.num_groups
        found = kmeans_groupings(embeddings[stage.stage], [size], seed=setting.session.config.seed)
        if size < plan.num_classes and size not in found:
            raise PlanError(f"stage '{stage.stage}': the class embeddings have fewer than {size} distinct rows")
        stages.append(replace(stage, grouping=found.get(size, stage.grouping)))
    return SupervisionPlan(plan.taxonomy_names, tuple(stages), "kmeans", {"of": plan.name})


@dataclass(frozen=True)
class _Arm:
    """How an arm's plan is made, whether from phase one, and whether it trains as long as both phases."""

    plan: Callable[[Setting], SupervisionPlan]
    measured: bool = False
    long: bool = False


def _plain(setting: Setting) -> SupervisionPlan:
    return no_supervision(setting.taxonomy.names)


_ARMS: Mapping[str, _Arm] = {
    "none": _Arm(_plain),
    "none_long": _Arm(_plain, long=True),
    "deep_supervision": _Arm(Setting.deep),
    "deep_supervision_long": _Arm(Setting.deep, long=True),
    "hs3": _Arm(hs3_plan, measured=True),
    "hs3_fuse": _Arm(lambda s: make_fuse(s.session.config, hs3_plan(s), s.taxonomy), measured=True),
    "hs3_class_heads": _Arm(lambda s: replace(hs3_plan(s), heads="classes"), measured=True),
    "hs3_diagonal": _Arm(partial(hs3_plan, name="diagonal", diagonal="keep"), measured=True),
    "online": _Arm(lambda s: make_online(s.session.config, s.deep())),
    "online_coarse_to_fine": _Arm(lambda s: make_online(s.session.config, s.deep(), "coarse_to_fine")),
    "kmeans": _Arm(_kmeans, measured=True),
    "manual": _Arm(_manual),
    "random": _Arm(lambda s: random_control(hs3_plan(s), s.session.config.seed), measured=True),
    "reversed": _Arm(lambda s: reversed_order(hs3_plan(s)), measured=True),
}
