"""The plan of an arm or variant, and which earlier training is the same."""

import json
from dataclasses import replace
from pathlib import Path

from hs3seg.analysis import SupervisionPlan
from hs3seg.builders import make_fuse, make_network, make_online, network_size
from hs3seg.errors import PlanError
from hs3seg.nn import count_cost
from hs3seg.pipeline import arms
from hs3seg.pipeline.reproduce.study import Variant
from hs3seg.pipeline.steps import plan_groups


def variant_plan(setting: arms.Setting, variant: Variant) -> SupervisionPlan:
    """The plan of a variant; phase one and the analysis are done first where it needs them.

    Raises:
        PlanError: it keeps a stage that there is not.
    """
    config, taxonomy = setting.session.config, setting.taxonomy
    if variant.online:
        changed = config.model_copy(update={"online": config.online.model_copy(update=dict(variant.online))})
        plan = make_online(changed, setting.deep())
    elif variant.supervision:
        plan = arms.hs3_plan(setting, variant.name, **variant.supervision)
    else:
        plan = arms.arm_plan(setting, variant.of)
    if variant.keep:
        missing = set(variant.keep) - set(plan.stage_names)
        if missing:
            raise PlanError(f"variant '{variant.name}' keeps {sorted(missing)}; the plan has {list(plan.stage_names)}")
        plan = replace(plan, stages=tuple(stage for stage in plan.stages if stage.stage in variant.keep))
    if variant.gamma is not None:
        plan = replace(plan, stages=tuple(replace(stage, gamma=variant.gamma) for stage in plan.stages))
    if variant.lighter or variant.fuse:
        values = dict(variant.fuse)
        if variant.lighter:
            network = make_network(config, taxonomy)
            shape = (1, config.data.channels, *network_size(config))
            values = {"mid": None, "key": None, "gmacs": count_cost(network, shape).gmacs}
        fused = config.model_copy(update={"fuse": config.fuse.model_copy(update={"gmacs": None, **values})})
        plan = make_fuse(fused, plan, taxonomy)
    return replace(plan, name=variant.name)


def same_training(folder: Path, name: str, plan: SupervisionPlan) -> str:
    """The arm below `folder` that trains by the very same groups, weights and widths; itself if there is none.

    A training of its own, begun or finished, is never given up for another's.
    """
    if (folder / name / "plan.toml").exists() or plan.online is not None:
        return name
    wanted = json.dumps(plan_groups(plan))
    for path in sorted(folder.glob("*/plan.toml")):
        other = path.parent.name
        if not other.endswith("_long") and json.dumps(plan_groups(SupervisionPlan.load(path))) == wanted:
            return other
    return name
