"""Reads a run folder, whole or partial: what is missing or broken is noted, never fatal.

Legend: K classes, k groups, n samples, H x W pixels.
"""

import json
import tomllib
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hs3seg.analysis import SupervisionPlan, load_confusions
from hs3seg.errors import PlanError, RunFolderError, UserError
from hs3seg.report.markup import number
from hs3seg.taxonomy import Taxonomy


@dataclass(frozen=True)
class Scores:
    """One evaluation of one arm on one split; mIoU, accuracy and IoU are fractions, None = no such pixel.

    Args:
        split: Its name.
        miou: Of the final output.
        pixel_accuracy: Of the final output.
        iou: Class -> IoU.
        stages: Stage -> {"num_groups", "miou", "pixel_accuracy", "iou"}.
        num_images: Images seen.
        all_ignored: Names of images without a labelled pixel.
    """

    split: str
    miou: float | None
    pixel_accuracy: float | None
    iou: dict[str, float | None]
    stages: dict[str, dict[str, Any]]
    num_images: int
    all_ignored: list[str]


@dataclass
class Arm:
    """One training and its evaluations.

    Args:
        name: Folder name, or `phase_one`.
        plan: What it was supervised with; None = not there.
        train: Content of train.json; empty = not finished.
        steps: Log events `step`.
        watched: Log events `evaluation`.
        regrouped: Log events `groups`, of single-phase HS3.
        last_groups: The plan that it ended with.
        scores: Split -> scores.
        confusions: Split -> stage -> counts.
    """

    name: str
    plan: SupervisionPlan | None = None
    train: dict[str, Any] = field(default_factory=dict)
    steps: list[dict[str, Any]] = field(default_factory=list)
    watched: list[dict[str, Any]] = field(default_factory=list)
    regrouped: list[dict[str, Any]] = field(default_factory=list)
    last_groups: SupervisionPlan | None = None
    scores: dict[str, Scores] = field(default_factory=dict)
    confusions: dict[str, dict[str, NDArray[np.int64]]] = field(default_factory=dict)
    samples: dict[str, dict[str, NDArray[Any]]] = field(default_factory=dict)


@dataclass
class Run:
    """Everything the report shows.

    Args:
        path: The run folder.
        config: Plain values of config.toml.
        taxonomy: Classes, or None where nothing names them.
        facts: Content of run.json.
        arms: In the config's order.
        phase_one: The measuring run.
        splits: Evaluated splits, in the config's order.
        analysis: Content of analysis.json.
        confusions: Of the analysis split, stage -> (K, K).
        plan: Of HS3.
        profile: Content of profile.json.
        missing: What is not there or not readable, one sentence each.
    """

    path: Path
    config: dict[str, Any]
    config_text: str
    taxonomy: Taxonomy | None
    facts: dict[str, Any]
    arms: dict[str, Arm]
    phase_one: Arm | None
    splits: tuple[str, ...]
    analysis: dict[str, Any]
    confusions: dict[str, NDArray[np.int64]]
    plan: SupervisionPlan | None
    profile: dict[str, Any]
    results: dict[str, Any]
    missing: list[str]

    @property
    def name(self) -> str:
        """The run's name."""
        return str(self.config.get("name") or self.facts.get("name") or self.path.resolve().name)

    @property
    def stages(self) -> tuple[str, ...]:
        """Every stage that any part of the run knows, shallow to deep."""
        plans = [self.plan, *(arm.plan for arm in self.arms.values()), self.phase_one.plan if self.phase_one else None]
        known = [plan.stage_names for plan in plans if plan is not None]
        known.append(tuple(name for name in self.confusions if name != "final"))
        known.append(tuple(self.analysis.get("stages", {})))
        known += [tuple(s.stages) for arm in self.arms.values() for s in arm.scores.values()]
        return tuple(dict.fromkeys(name for names in sorted(known, key=len, reverse=True) for name in names))


def load_run(path: Path) -> Run:
    """Reads a run folder.

    Raises:
        RunFolderError: no such folder, or nothing of a run in it.
    """
    if not path.is_dir():
        raise RunFolderError(f"run folder '{path}' does not exist; give the folder that `hs3 run` wrote")
    known = (
        "config.toml",
        "taxonomy.toml",
        "run.json",
        "results.json",
        "plan.toml",
        "profile.json",
        "arms",
        "phase_one",
        "analysis",
    )
    if not any((path / name).exists() for name in known):
        raise RunFolderError(
            f"'{path}' holds no run: none of {', '.join(known)} is in it; give the folder that `hs3 run` wrote"
        )
    reader = _Reader(path)
    config = reader.toml("config.toml")
    wanted = tuple(str(arm) for arm in _list(config.get("arms")))
    found = sorted(p.name for p in (path / "arms").iterdir() if p.is_dir()) if (path / "arms").is_dir() else []
    order = tuple(dict.fromkeys([*wanted, *(a for a in ("none", "deep_supervision", "hs3") if a in found), *found]))
    splits = tuple(str(split) for split in _list(_dict(config.get("data")).get("evaluate_splits")))
    evaluated = sorted(p.stem.removeprefix("evaluation-") for p in path.glob("arms/*/evaluation-*.json"))
    splits = tuple(dict.fromkeys([*splits, *evaluated]))
    arms = {}
    for name in order:
        if name not in found:
            reader.missing.append(f"arm {name}: not trained yet (arms/{name} is missing)")
            continue
        arms[name] = _read_arm(reader, f"arms/{name}", name, splits)
    phase_one = _read_arm(reader, "phase_one", "phase_one", ()) if (path / "phase_one").is_dir() else None
    no_analysis = not _needs_analysis(config, wanted)
    analysis = reader.json("analysis/analysis.json", optional=no_analysis)
    confusions = reader.confusions("analysis/confusion.npz", optional=no_analysis)
    hs3 = arms.get("hs3")
    plan = hs3.plan if hs3 is not None else None
    plan = plan or reader.plan("plan.toml", optional=no_analysis)
    run = Run(
        path=path,
        config=config,
        config_text=reader.text("config.toml"),
        taxonomy=_taxonomy(reader, plan, arms),
        facts=reader.json("run.json", optional=True),
        arms=arms,
        phase_one=phase_one,
        splits=splits,
        analysis=analysis,
        confusions=confusions,
        plan=plan,
        profile=reader.json("profile.json"),
        results=reader.json("results.json", optional=True),
        missing=reader.missing,
    )
    _drop_misfits(run)
    return run


class _Reader:
    """Reads files below a folder; a file that is not there or broken gives an empty value and a note."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.missing: list[str] = []

    def _read(self, name: str, read: Callable[[Path], Any], empty: Any, *, optional: bool = False) -> Any:
        path = self.root / name
        if not path.is_file():
            if not optional:
                self.missing.append(f"{name}: not there yet")
            return empty
        try:
            return read(path)
        except (UserError, ValueError, KeyError, OSError, EOFError, zipfile.BadZipFile) as error:
            lines = str(error).replace(f"{path}: ", "").splitlines() or [type(error).__name__]
            self.missing.append(f"{name}: not readable ({lines[0]})")
            return empty

    def text(self, name: str) -> str:
        return str(self._read(name, lambda p: p.read_text(encoding="utf-8"), "", optional=True))

    def json(self, name: str, *, optional: bool = False) -> dict[str, Any]:
        return dict(
            self._read(name, lambda p: _table(json.loads(p.read_text(encoding="utf-8"))), {}, optional=optional)
        )

    def toml(self, name: str) -> dict[str, Any]:
        return dict(self._read(name, lambda p: tomllib.loads(p.read_text(encoding="utf-8")), {}))

    def plan(self, name: str, *, optional: bool = False) -> SupervisionPlan | None:
        found: SupervisionPlan | None = self._read(name, SupervisionPlan.load, None, optional=optional)
        return found

    def confusions(self, name: str, *, optional: bool = False) -> dict[str, NDArray[np.int64]]:
        return dict(self._read(name, load_confusions, {}, optional=optional))

    def matrices(self, name: str) -> dict[str, NDArray[np.int64]]:
        """Like `confusions`, but each stage in its own groups, so that sizes differ."""

        def read(path: Path) -> dict[str, NDArray[np.int64]]:
            with np.load(path, allow_pickle=False) as file:
                found = {key: np.asarray(file[key]) for key in file.files}
            for key, matrix in found.items():
                if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1] or matrix.dtype.kind not in "iu":
                    raise PlanError(f"array '{key}' of shape {matrix.shape} is no matrix of pixel counts")
            if "final" not in found:
                raise PlanError("no array named 'final'")
            return {key: matrix.astype(np.int64) for key, matrix in found.items()}

        return dict(self._read(name, read, {}))

    def arrays(self, name: str) -> dict[str, NDArray[Any]]:
        def read(path: Path) -> dict[str, NDArray[Any]]:
            with np.load(path, allow_pickle=False) as file:
                return {key: file[key] for key in file.files}

        return dict(self._read(name, read, {}, optional=True))

    def events(self, name: str) -> list[dict[str, Any]]:
        """Lines of a log; a killed process may leave the last one half written."""
        events = []
        for line in str(self._read(name, lambda p: p.read_text(encoding="utf-8", errors="replace"), "")).splitlines():
            try:
                event = json.loads(line)
            except ValueError:
                continue
            if isinstance(event, dict):
                events.append(event)
        return events


MEASURED = {"hs3", "hs3_fuse", "hs3_class_heads", "hs3_diagonal", "kmeans", "random", "reversed"}
"""Arms whose plan comes from phase one."""


def _needs_analysis(config: Mapping[str, Any], arms: tuple[str, ...]) -> bool:
    """Whether the run has an analysis at all: not with the baselines alone, nor with a plan written by hand."""
    by_hand = bool(_dict(config.get("supervision")).get("plan"))
    return not by_hand and (not arms or bool(MEASURED & set(arms)))


def _read_arm(reader: _Reader, folder: str, name: str, splits: tuple[str, ...]) -> Arm:
    events = reader.events(f"{folder}/log.jsonl")
    arm = Arm(
        name=name,
        plan=reader.plan(f"{folder}/plan.toml"),
        train=reader.json(f"{folder}/train.json"),
        steps=[e for e in events if e.get("event") == "step"],
        watched=[e for e in events if e.get("event") == "evaluation"],
        regrouped=[e for e in events if e.get("event") == "groups"],
        last_groups=reader.plan(f"{folder}/groups.toml", optional=True),
    )
    for split in splits:
        values = reader.json(f"{folder}/evaluation-{split}.json")
        if not values:
            continue
        arm.scores[split] = _scores(split, values)
        arm.confusions[split] = reader.matrices(f"{folder}/confusion-{split}.npz")
        arm.samples[split] = reader.arrays(f"{folder}/samples-{split}.npz")
    return arm


def _scores(split: str, values: Mapping[str, Any]) -> Scores:
    return Scores(
        split=split,
        miou=number(values.get("miou")),
        pixel_accuracy=number(values.get("pixel_accuracy")),
        iou={str(name): number(value) for name, value in _dict(values.get("iou")).items()},
        stages={str(name): _dict(value) for name, value in _dict(values.get("stages")).items()},
        num_images=int(number(values.get("num_images")) or 0),
        all_ignored=[str(name) for name in _list(values.get("all_ignored_images"))],
    )


def _taxonomy(reader: _Reader, plan: SupervisionPlan | None, arms: Mapping[str, Arm]) -> Taxonomy | None:
    found: Taxonomy | None = reader._read("taxonomy.toml", Taxonomy.load, None)
    if found is not None:
        return found
    plans = [plan, *(arm.plan for arm in arms.values())]
    names = next((p.taxonomy_names for p in plans if p is not None), ())
    names = names or next((tuple(s.iou) for arm in arms.values() for s in arm.scores.values() if s.iou), ())
    return Taxonomy.from_names(names) if names else None


def _drop_misfits(run: Run) -> None:
    """Leaves out what was made for other classes than the taxonomy's: shown together it would mislead."""
    if run.taxonomy is None:
        run.confusions, run.plan = {}, None
        return
    count = run.taxonomy.num_classes
    if any(len(matrix) != count for matrix in run.confusions.values()):
        run.missing.append(f"analysis/confusion.npz: made for another number of classes than the {count} of this run")
        run.confusions = {}
    if run.plan is not None and run.plan.num_classes != count:
        run.missing.append(f"plan.toml: made for {run.plan.num_classes} classes, this run has {count}")
        run.plan = None
    for arm in run.arms.values():
        if arm.plan is not None and arm.plan.num_classes != count:
            run.missing.append(
                f"arms/{arm.name}/plan.toml: made for {arm.plan.num_classes} classes, this run has {count}"
            )
            arm.plan = arm.last_groups = None
        for split, matrices in arm.confusions.items():
            if matrices and len(matrices["final"]) != count:
                run.missing.append(f"arms/{arm.name}/confusion-{split}.npz: made for another number of classes")
                arm.confusions[split] = {}


def _table(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"a JSON object was expected, not a {type(value).__name__}")
    return value


def _dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
