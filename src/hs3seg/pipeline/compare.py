"""Arms over several seeds: a queue of runs that survives interruption, and the page that compares them."""

import json
import shlex
import sys
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, get_args

from hs3seg.analysis import Comparison
from hs3seg.config import Config, load_config
from hs3seg.config.sections import ArmName
from hs3seg.errors import ConfigError, RunFolderError, nearest
from hs3seg.files import read_json, write_json
from hs3seg.pipeline.arms import needs_phase_one
from hs3seg.pipeline.kept import commits_under
from hs3seg.pipeline.run import run
from hs3seg.pipeline.scores import compare_evaluations
from hs3seg.pipeline.steps import open_session
from hs3seg.report.comparison import Shown, write_comparison
from hs3seg.report.comparison_cost import Spent, mean_spent, spent_in, spent_values
from hs3seg.report.comparison_pictures import disagreements
from hs3seg.report.comparison_words import SplitComparison
from hs3seg.report.load import Run, load_run
from hs3seg.report.markup import in_sentence, listed

_Evaluations = Mapping[int, Mapping[str, Mapping[str, Mapping[str, Any]]]]
"""Seed -> arm -> split -> evaluation."""


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
        The content of results.json; on processes other than the first, nothing.

    Raises:
        ConfigError: no seed, or a seed twice.
        RunFolderError: a seed's folder holds another run, or one that cannot be compared, see `compare_runs`.
    """
    if not seeds or len(set(seeds)) != len(seeds):
        raise ConfigError(f"seeds {list(seeds)}; give at least one, each once")
    _check_configs(_configs(_started(out).values()) | {"this call": config.model_copy(update={"seed": 0})})
    for seed in seeds:
        folder = out / f"seed-{seed}"
        own = config.model_copy(update={"seed": seed, "run_dir": str(folder), "arms": tuple(arms)})
        run(own, resume=folder.exists(), quiet=quiet)
    runtime = open_session(config, quiet=True).runtime
    runtime.barrier()  # the first process writes its last files
    results = compare_runs(out, config.name, _command(), against=against) if runtime.is_main else {}
    runtime.barrier()
    return results


def compare_runs(out: Path, name: str, command: str = "", *, against: str = "") -> dict[str, Any]:
    """The page and results.json of all run folders OUT/seed-S, whole or partial.

    Args:
        out: Folder of the comparison.
        name: Its title.
        command: That made it; empty = the one that results.json tells of.
        against: Arm that the others are compared with; empty = deep supervision where it is there. HS3 against
            `deep_supervision_long` is a comparison at equal compute.

    Raises:
        RunFolderError: no evaluated run there, or seeds of different configs, or arms evaluated by different protocols.
        ConfigError: no arm `against` there.
    """
    told_before = out / "results.json"
    if not command:
        command = read_json(told_before)["command"] if told_before.exists() else "hs3 compare"
    started = _started(out)
    found = {seed: own for seed, path in sorted(started.items()) if (own := _evaluations(path))}
    told = [split for seed in found for split in _evaluate_splits(started[seed])]
    there = {split for arms in found.values() for own in arms.values() for split in own}
    splits = [split for split in dict.fromkeys([*told, *sorted(there)]) if split in there]
    if not splits:
        raise RunFolderError(f"'{out}' holds no evaluated run; expected {out}/seed-0/arms/ARM/evaluation-SPLIT.json")
    _check_configs(_configs(started[seed] for seed in found))
    for split in splits:
        check_protocols(out, split, found)
    arms = list(dict.fromkeys(arm for own in found.values() for arm in own))
    if against and against not in arms:
        raise ConfigError(f"--against {against}: '{out}' holds no such arm; {nearest(against, arms)}")
    runs = {seed: load_run(started[seed]) for seed in found}
    compared = [c for split in splits if (c := _compare_split(found, runs, split, against)) is not None]
    results = {
        "name": name,
        "command": command,
        "commit": commits_under(started[seed] for seed in found),
        "reference": {c.split: c.reference for c in compared},
        "splits": splits,
        "arms": _by_arm(found, splits),
        "comparisons": {c.split: {arm: asdict(value) for arm, value in c.arms.items()} for c in compared},
        "seconds": {seed: run.facts.get("seconds") for seed, run in runs.items()},
        "spent": {arm: spent_values(spent) for arm, spent in (compared[0].spent if compared else {}).items()},
    }
    write_json(out / "results.json", results)
    results["report"] = str(
        write_comparison(
            out,
            name,
            compared,
            command=command,
            runs={seed: f"seed-{seed}/report/index.html" for seed in runs},
            pictures=_pictures(runs, compared),
            unfinished=_unfinished(started, found, arms),
        )
    )
    return results


def _started(out: Path) -> dict[int, Path]:
    """Seed -> its run folder."""
    paths = {path.name.removeprefix("seed-"): path for path in sorted(out.glob("seed-*")) if (path / "arms").is_dir()}
    return {int(seed): path for seed, path in paths.items() if seed.isdecimal()}


def _configs(folders: Iterable[Path]) -> dict[str, Config]:
    """Folder -> its config but for the seed."""
    return {str(path): load_config(path / "config.toml", ["--seed", "0"]) for path in folders}


def _check_configs(configs: Mapping[str, Config]) -> None:
    """All seeds must be trained by the same values, or a difference may be the values', not the arms'."""
    first, *rest = configs
    for place in rest:
        if configs[place].fingerprint() != configs[first].fingerprint():
            differing = configs[first].differences(configs[place])
            raise RunFolderError(
                f"{first} and {place} have different values of {', '.join(differing)}: their seeds cannot be compared;"
                " take the same values, another --out, or move the folder away"
            )


def check_protocols(out: Path, split: str, found: _Evaluations) -> None:
    """All arms must have been looked at in the same way.

    Args:
        out: Folder of the runs.
        split: To look at.
        found: Seed -> arm -> split -> evaluation.

    Raises:
        RunFolderError: they were not.
    """
    known: dict[str, str] = {}
    for seed, arms in found.items():
        for arm, own in arms.items():
            if split in own:
                known.setdefault(json.dumps(own[split].get("protocol"), sort_keys=True), f"seed-{seed}/arms/{arm}")
    if len(known) > 1:
        (one, first), (other, second), *_ = known.items()
        raise RunFolderError(
            f"{out}: '{split}' was evaluated in different ways, {first} by {one} and {second} by {other}; evaluate all"
            " by one: the same command with all arms and seeds does so where the weights are there"
        )


def _evaluate_splits(path: Path) -> list[str]:
    """The splits in the order of the run's config."""
    values = tomllib.loads((path / "config.toml").read_text(encoding="utf-8"))
    return list(values.get("data", {}).get("evaluate_splits", []))


def _evaluations(path: Path) -> dict[str, dict[str, dict[str, Any]]]:
    """Arm -> split -> evaluation of one run."""
    arms: dict[str, dict[str, dict[str, Any]]] = {}
    for file in sorted((path / "arms").glob("*/evaluation-*.json")):
        split = file.stem.removeprefix("evaluation-")
        arms.setdefault(file.parent.name, {})[split] = read_json(file)
    return arms


def _compare_split(
    found: dict[int, dict[str, dict[str, dict[str, Any]]]], runs: Mapping[int, Run], split: str, against: str = ""
) -> SplitComparison | None:
    arms = [arm for arm in _ORDER if any(arm in own for own in found.values())]
    arms += sorted({arm for own in found.values() for arm in own} - set(arms))
    evaluations = {
        arm: {seed: own[arm][split] for seed, own in found.items() if split in own.get(arm, {})} for arm in arms
    }
    compared = compare_evaluations(evaluations, split, against)
    return None if compared is None else replace(compared, spent=_spent(runs, compared.arms))


def _spent(runs: Mapping[int, Run], comparisons: Mapping[str, Comparison]) -> dict[str, Spent]:
    """What each arm cost, mean over the seeds that it is compared on."""
    told = {}
    for arm, comparison in comparisons.items():
        each = []
        for seed in comparison.seeds:
            by_hand = bool((runs[seed].config.get("supervision") or {}).get("plan"))
            own = spent_in(runs[seed], arm, with_phase_one=needs_phase_one(arm, by_hand=by_hand))
            each += [own] if own is not None else []
        mean = mean_spent(each)
        if mean is not None:
            told[arm] = mean
    return told


def _pictures(runs: Mapping[int, Run], compared: Sequence[SplitComparison]) -> Shown | None:
    """Where arms disagree: the first seed and split that show it."""
    for found in compared:
        for seed, of_seed in runs.items():
            pictures = disagreements(of_seed, found.split, found.reference)
            if pictures:
                return Shown(of_seed, seed, found.split, found.reference, pictures)
    return None


def _unfinished(
    started: Mapping[int, Path], found: Mapping[int, dict[str, dict[str, dict[str, Any]]]], arms: Sequence[str]
) -> list[str]:
    """What of the comparison is not there yet, one sentence per seed."""
    lines = []
    for seed, path in sorted(started.items()):
        values = tomllib.loads((path / "config.toml").read_text(encoding="utf-8"))
        wanted = list(dict.fromkeys([*values.get("arms", []), *arms]))
        splits = _evaluate_splits(path)
        lacking = [arm for arm in wanted if any(split not in found.get(seed, {}).get(arm, {}) for split in splits)]
        if lacking:
            lines.append(f"Seed {seed}: {listed([in_sentence(arm) for arm in lacking])} not evaluated on every split.")
    return lines


_ORDER = get_args(ArmName)


def _by_arm(
    found: dict[int, dict[str, dict[str, dict[str, Any]]]], order: Sequence[str]
) -> dict[str, dict[str, dict[str, Any]]]:
    """Arm -> seed -> split -> scores, with the mIoU of the comparison's first split on top, None where it lacks."""
    arms: dict[str, dict[str, dict[str, Any]]] = {}
    for seed, own in found.items():
        for arm, splits in own.items():
            values = {
                split: {"miou": splits[split]["miou"], "pixel_accuracy": splits[split]["pixel_accuracy"]}
                for split in order
                if split in splits
            }
            arms.setdefault(arm, {})[str(seed)] = {"miou": values.get(order[0], {}).get("miou"), "splits": values}
    return arms


def _command() -> str:
    return shlex.join(["hs3", *sys.argv[1:]])
