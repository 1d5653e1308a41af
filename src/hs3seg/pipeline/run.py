"""A whole run: train -> analyze -> plan -> train -> evaluate -> report, skipping what is there."""

import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hs3seg import __version__
from hs3seg.analysis import SupervisionPlan
from hs3seg.builders import check_loss, make_fuse, make_network, make_protocol, make_stages, make_supervised
from hs3seg.config import Config
from hs3seg.engine import Runtime
from hs3seg.errors import ConfigError, PlanError, RunFolderError
from hs3seg.files import is_unfinished, read_json, write_json
from hs3seg.pipeline.arms import Setting, arm_epochs, arm_plan, arm_split
from hs3seg.pipeline.source import source_commit
from hs3seg.pipeline.steps import (
    evaluate_step,
    is_evaluated,
    open_session,
    profile_step,
    train_step,
    write_profile,
)
from hs3seg.report import build_report
from hs3seg.taxonomy import Taxonomy


def run(config: Config, *, resume: bool = False, quiet: bool = False) -> dict[str, Any]:
    """Runs all steps of a config into its run folder.

    Args:
        config: The run.
        resume: Go on in a folder that holds this very run; steps that are done are skipped.
        quiet: Show no progress.

    Returns:
        The content of results.json.

    Raises:
        RunFolderError: the folder holds another run, or this one and `resume` is false.
    """
    began = time.monotonic()
    session = open_session(config, quiet=quiet)
    path = config.run_path
    taxonomy = session.dataset("train").taxonomy
    # All that can be wrong is looked at before the folder is ours and before hours of training.
    for split in config.data.evaluate_splits:
        session.dataset(split)
    stages = make_stages(config, make_network(config, taxonomy))
    check_values(config)
    check_plans(config, taxonomy, stages)
    if "manual" in config.arms and not config.supervision.manual_plan:
        arm_plan(Setting(session, taxonomy, stages), "manual")  # says what is missing
    facts = claim_folder(config, session.runtime, resume=resume)
    session.runtime.barrier()
    if session.runtime.is_main:
        config.save(path / "config.toml")
        taxonomy.save(path / "taxonomy.toml")
    plans: dict[str, SupervisionPlan] = {}
    setting = Setting(session, taxonomy, stages)
    for arm in config.arms:
        plans[arm] = arm_plan(setting, arm)
        if session.runtime.is_main:
            write_profile(path / "profile.json", profile_step(config, taxonomy, plans))
        folder = path / "arms" / arm
        train_step(session, plans[arm], folder, arm=arm, split=arm_split(plans[arm]), epochs=arm_epochs(setting, arm))
        for split in config.data.evaluate_splits:
            if not is_evaluated(config, folder, split, session.dataset(split)):
                evaluate_step(session, folder, split, out=folder)
        if session.runtime.is_main:
            facts["seconds"] += time.monotonic() - began
            began = time.monotonic()
            write_json(path / "run.json", facts)
            build_report(path)
    session.runtime.barrier()
    results = _results(config, path, taxonomy, plans, facts["seconds"])
    if session.runtime.is_main:
        write_json(path / "results.json", results)
        build_report(path)
    return results


def check_values(config: Config) -> None:
    """Looks at values that contradict each other and would be met after hours only.

    Raises:
        ConfigError: some do.
    """
    make_protocol(config.evaluation)
    check_loss(config)
    fuse = config.fuse
    if "hs3_fuse" in config.arms and fuse.gmacs is not None and (fuse.mid is not None or fuse.key is not None):
        raise ConfigError("fuse.gmacs beside fuse.mid or fuse.key: a budget chooses the widths; leave out one of both")


def check_plans(config: Config, taxonomy: Taxonomy, stages: Sequence[str]) -> None:
    """Puts plans by hand on the network, which refuses stages that it does not have.

    Args:
        config: The run.
        taxonomy: Of its data.
        stages: That phase one measures.

    Raises:
        PlanError: a plan does not fit the data, or k-means has no features of its stages.
        NetworkError: it does not fit the network, or cannot be fused.
    """
    for key in ("plan", "manual_plan"):
        file = getattr(config.supervision, key)
        if not file:
            continue
        plan = SupervisionPlan.load(Path(file))
        plan.check(taxonomy.names)
        if key == "plan" and "hs3_fuse" in config.arms:
            make_supervised(config, make_fuse(config, plan, taxonomy), taxonomy)
        make_supervised(config, plan, taxonomy)
        unknown = [stage for stage in plan.stage_names if stage not in stages]
        if key == "plan" and "kmeans" in config.arms and unknown:
            raise PlanError(
                f"{file}: stage '{unknown[0]}' is none of supervision.stages ({', '.join(stages)}), so phase one would"
                " measure no features of it for the arm 'kmeans'; set supervision.stages to the plan's"
            )


def claim_folder(config: Config, runtime: Runtime, *, resume: bool) -> dict[str, Any]:
    """Makes the run folder of a config ours, or refuses it.

    Args:
        config: The run.
        runtime: Of this process.
        resume: Take a folder that holds this very run.

    Returns:
        The content of run.json.

    Raises:
        RunFolderError: the folder holds another run, or this one and `resume` is false.
    """
    path = config.run_path
    marker = path / "run.json"
    fingerprint = config.fingerprint()
    if marker.exists():
        facts: dict[str, Any] = read_json(marker)
        if facts.get("fingerprint") != fingerprint:
            raise RunFolderError(
                f"{path} holds another run ('{facts.get('name')}', other config values); choose another --run_dir,"
                f" or look at {path / 'config.toml'} for what it was"
            )
        if not resume:
            raise RunFolderError(f"{path} holds this run already; add --resume to go on, or choose another --run_dir")
        return facts
    if path.exists() and any(not is_unfinished(file) for file in path.iterdir()):
        raise RunFolderError(f"{path} is not empty and holds no run of hs3; choose another --run_dir")
    facts = {
        "name": config.name,
        "fingerprint": fingerprint,
        "seed": config.seed,
        "hs3seg": __version__,
        "commit": source_commit(),
        "python": sys.version.split()[0],
        "command": ["hs3", *sys.argv[1:]],
        "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "seconds": 0.0,
    }
    runtime.barrier()
    if runtime.is_main:
        write_json(marker, facts)
    return facts


def _results(
    config: Config, path: Path, taxonomy: Taxonomy, plans: Mapping[str, SupervisionPlan], seconds: float
) -> dict[str, Any]:
    splits = {
        split: {arm: _scores(read_json(path / "arms" / arm / f"evaluation-{split}.json")) for arm in config.arms}
        for split in config.data.evaluate_splits
    }
    first = config.data.evaluate_splits[0] if config.data.evaluate_splits else None
    return {
        "seconds": round(seconds, 1),
        "arms": splits[first] if first else {},
        "splits": splits,
        "num_groups": dict(plans["hs3"].num_groups) if "hs3" in plans else {},
        "groups": {
            stage.stage: [[taxonomy.names[c] for c in group] for group in stage.grouping.groups]
            for stage in (plans["hs3"].stages if "hs3" in plans else ())
        },
        "plan": str(path / "plan.toml") if (path / "plan.toml").exists() else config.supervision.plan or None,
        "phase_one": (path / "phase_one" / "train.json").exists(),
        "report": str(path / "report" / "index.html"),
        "seed": config.seed,
    }


def _scores(evaluation: Mapping[str, Any]) -> dict[str, Any]:
    return {"miou": evaluation["miou"], "pixel_accuracy": evaluation["pixel_accuracy"]}
