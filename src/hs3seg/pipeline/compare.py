"""Arms over several seeds: a queue of runs that survives interruption, and the page that compares them."""

import json
import shlex
import sys
import tomllib
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, get_args

import numpy as np

from hs3seg.analysis import compare_arms
from hs3seg.config import Config
from hs3seg.config.sections import ArmName
from hs3seg.errors import ConfigError, RunFolderError, nearest
from hs3seg.files import write_json
from hs3seg.pipeline.run import run
from hs3seg.report.comparison import SplitComparison, write_comparison

REFERENCES = ("deep_supervision", "none")
"""Arms that the others are compared with, the first that is there."""


def compare(
    config: Config, arms: Sequence[str], seeds: Sequence[int], out: Path, *, against: str = "", quiet: bool = False
) -> dict[str, Any]:
    """Trains every arm with every seed and compares them, paired by seed.

    Each seed is a run folder of its own, OUT/seed-S, so what arms share (phase one, analysis, plan) is done once per
    seed, and a call that was interrupted goes on where it stopped. Several processes may share the work by their
    seeds; the last call, with all of them, makes the page.

    Args:
        config: The run; its seed, arms and folder are replaced.
        arms: What to train.
        seeds: Of initial weights, data order, augmentation and splits.
        out: Folder of the comparison.
        against: See `compare_runs`.
        quiet: Show no progress.

    Returns:
        The content of results.json.

    Raises:
        ConfigError: no seed, or a seed twice.
        RunFolderError: a seed's folder holds another run.
    """
    if not seeds or len(set(seeds)) != len(seeds):
        raise ConfigError(f"seeds {list(seeds)}; give at least one, each once")
    for seed in seeds:
        folder = out / f"seed-{seed}"
        own = config.model_copy(update={"seed": seed, "run_dir": str(folder), "arms": tuple(arms)})
        run(own, resume=folder.exists(), quiet=quiet)
    return compare_runs(out, config.name, _command(), against=against)


def compare_runs(out: Path, name: str, command: str = "", *, against: str = "") -> dict[str, Any]:
    """The page and results.json of all run folders OUT/seed-S, whole or partial.

    Args:
        out: Folder of the comparison.
        name: Its title.
        command: That made it; empty = the one that results.json tells of.
        against: Arm that the others are compared with; empty = deep supervision where it is there. HS3 against
            `deep_supervision_long` is a comparison at equal compute.

    Raises:
        RunFolderError: no evaluated run there.
        ConfigError: no arm `against` there.
    """
    told_before = out / "results.json"
    if not command:
        command = json.loads(told_before.read_text())["command"] if told_before.exists() else "hs3 compare"
    runs = {
        int(path.name.removeprefix("seed-")): path
        for path in sorted(out.glob("seed-*"))
        if path.name.removeprefix("seed-").isdecimal() and (path / "arms").is_dir()
    }
    found = {seed: _evaluations(path) for seed, path in sorted(runs.items())}
    runs = {seed: path for seed, path in runs.items() if found[seed]}
    told = [split for path in runs.values() for split in _evaluate_splits(path)]
    there = {split for arms in found.values() for own in arms.values() for split in own}
    splits = [split for split in dict.fromkeys([*told, *sorted(there)]) if split in there]
    if not splits:
        raise RunFolderError(f"'{out}' holds no evaluated run; expected {out}/seed-0/arms/ARM/evaluation-SPLIT.json")
    arms = list(dict.fromkeys(arm for own in found.values() for arm in own))
    if against and against not in arms:
        raise ConfigError(f"--against {against}: '{out}' holds no such arm; {nearest(against, arms)}")
    compared = [c for split in splits if (c := _compare_split(found, split, against)) is not None]
    facts = {seed: json.loads((path / "run.json").read_text()) for seed, path in runs.items()}
    results = {
        "name": name,
        "command": command,
        "commit": ", ".join(sorted({str(own.get("commit")) for own in facts.values()})),
        "reference": {c.split: c.reference for c in compared},
        "splits": splits,
        "arms": _by_arm(found, splits),
        "comparisons": {c.split: {arm: asdict(value) for arm, value in c.arms.items()} for c in compared},
        "seconds": {seed: own.get("seconds") for seed, own in facts.items()},
    }
    write_json(out / "results.json", results)
    reports = {seed: f"seed-{seed}/report/index.html" for seed in runs}
    results["report"] = str(write_comparison(out, name, compared, command=command, runs=reports))
    return results


def _evaluate_splits(path: Path) -> list[str]:
    """The splits in the order of the run's config."""
    values = tomllib.loads((path / "config.toml").read_text(encoding="utf-8"))
    return list(values.get("data", {}).get("evaluate_splits", []))


def _evaluations(path: Path) -> dict[str, dict[str, dict[str, Any]]]:
    """Arm -> split -> evaluation of one run."""
    arms: dict[str, dict[str, dict[str, Any]]] = {}
    for file in sorted((path / "arms").glob("*/evaluation-*.json")):
        split = file.stem.removeprefix("evaluation-")
        arms.setdefault(file.parent.name, {})[split] = json.loads(file.read_text())
    return arms


def _compare_split(
    found: dict[int, dict[str, dict[str, dict[str, Any]]]], split: str, against: str = ""
) -> SplitComparison | None:
    scores: dict[str, dict[int, float]] = {}
    per_class: dict[str, dict[int, dict[str, float]]] = {}
    for seed, arms in found.items():
        for arm, own in arms.items():
            if split in own and own[split]["miou"] is not None:
                scores.setdefault(arm, {})[seed] = own[split]["miou"]
                iou = {name: np.nan if v is None else v for name, v in own[split]["iou"].items()}
                per_class.setdefault(arm, {})[seed] = iou
    reference = next((arm for arm in (against, *REFERENCES, *scores) if arm in scores), None)
    if reference is None:
        return None
    order = {arm: scores[arm] for arm in (*_ORDER, *scores) if arm in scores}
    comparisons = compare_arms(order, reference)
    differences = {
        arm: {
            name: float(np.mean([per_class[arm][s][name] - per_class[reference][s][name] for s in c.seeds]))
            for name in per_class[reference][c.seeds[0]]
        }
        for arm, c in comparisons.items()
        if arm != reference
    }
    return SplitComparison(split, reference, comparisons, differences)


_ORDER = get_args(ArmName)


def _by_arm(
    found: dict[int, dict[str, dict[str, dict[str, Any]]]], order: Sequence[str]
) -> dict[str, dict[str, dict[str, Any]]]:
    """Arm -> seed -> split -> scores, with the first split's mIoU on top."""
    arms: dict[str, dict[str, dict[str, Any]]] = {}
    for seed, own in found.items():
        for arm, splits in own.items():
            values = {
                split: {"miou": splits[split]["miou"], "pixel_accuracy": splits[split]["pixel_accuracy"]}
                for split in order
                if split in splits
            }
            arms.setdefault(arm, {})[str(seed)] = {"miou": next(iter(values.values()))["miou"], "splits": values}
    return arms


def _command() -> str:
    return shlex.join(["hs3", *sys.argv[1:]])
