"""Numbers of finished trainings in files small enough to go with the repository, without weights and photographs.

A study of many trainings takes longer than a machine may be had for. What is kept of a training is what tables,
intervals and matrices are made of; where the run folder is gone, these files take its place, and the study goes on.
One JSON file per training: KEEP/SETTING/seed-S/NAME.json, and phase_one.json for phase one with its analysis.
"""

import json
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hs3seg.files import read_json, write_atomically, write_json

PHASE_ONE = "phase_one"
STUDY = "study.json"
"""Of a run folder and of its kept numbers: which arm was trained as which, and what each costs at inference."""
_MARK = "kept.json"
_TEXTS = ("plan.toml", "groups.toml")
_ANALYSIS: Mapping[str, type] = {"confusion": np.int64, "embeddings": np.float64}


def store(run: Path, name: str, target: Path, fingerprint: str) -> bool:
    """Keeps the numbers of one training, if it is finished and evaluated.

    Args:
        run: The run folder.
        name: Of an arm, or `phase_one`.
        target: The file.
        fingerprint: Of the run's config.

    Returns:
        Whether there was something new to keep.
    """
    folder = _folder(run, name)
    if not (folder / "train.json").exists():
        return False
    evaluations = {p.stem.removeprefix("evaluation-"): read_json(p) for p in _evaluations(folder)}
    analysis = {
        stem: _matrices(run / "analysis" / f"{stem}.npz")
        for stem in _ANALYSIS
        if name == PHASE_ONE and (run / "analysis" / f"{stem}.npz").exists()
    }
    if not evaluations and "confusion" not in analysis:
        return False
    values: dict[str, Any] = {
        "fingerprint": fingerprint,
        "commit": ", ".join(commits_of(folder, run)) or None,
        "train": read_json(folder / "train.json"),
        "texts": {file: (folder / file).read_text(encoding="utf-8") for file in _TEXTS if (folder / file).exists()},
        "groups": _regrouped(folder / "log.jsonl"),
        "evaluations": evaluations,
        "protocols": {
            path.name: {file.stem.removeprefix("evaluation-"): read_json(file) for file in _evaluations(path)}
            for path in sorted(folder.iterdir())
            if path.is_dir() and _evaluations(path)
        },
        "confusions": {split: _matrices(folder / f"confusion-{split}.npz") for split in evaluations},
        "analysis": analysis,
    }
    if target.exists():
        # What is there stays, unless this is the same with more: another split, protocol or analysis.
        known = read_json(target)
        if known["fingerprint"] != fingerprint or not _parts(known) < _parts(values):
            return False
    write_json(target, values, indent=None)
    return True


def _parts(values: Mapping[str, Any]) -> set[tuple[str, str]]:
    """What kept numbers have."""
    found = {(key, name) for key in ("evaluations", "analysis") for name in values[key]}
    return found | {(name, split) for name, own in values.get("protocols", {}).items() for split in own}


def restore(run: Path, kept: Path, fingerprint: str, splits: Sequence[str], say: Callable[[str], None]) -> list[str]:
    """Writes kept numbers into a run folder, where it has none of its own.

    Args:
        run: The run folder.
        kept: Folder with a JSON file per training.
        fingerprint: Of the run's config; numbers of another one are left where they are.
        splits: That must have been evaluated.
        say: Prints a line.

    Returns:
        Names of the trainings that were restored.
    """
    restored = []
    if (kept / STUDY).exists() and not (run / STUDY).exists():
        write_json(run / STUDY, read_json(kept / STUDY))
    for path in sorted(kept.glob("*.json")):
        if path.name == STUDY:
            continue
        folder = _folder(run, path.stem)
        if (folder / "train.json").exists() or (folder / "state.pt").exists():
            continue
        values = read_json(path)
        if values["fingerprint"] != fingerprint:
            say(f"{path}: of other config values; it is trained anew")
            continue
        lacking = [split for split in splits if split not in values["evaluations"]]
        if path.stem != PHASE_ONE and lacking:
            say(f"{path}: has no numbers of {', '.join(lacking)}; it is trained anew, and completed then")
            continue
        _write(run, folder, values)
        restored.append(path.stem)
    return restored


def add_facts(path: Path, facts: Mapping[str, Mapping[str, Any]]) -> None:
    """Adds to the tables of a study.json, which may be there already."""
    known: dict[str, Any] = read_json(path) if path.exists() else {}
    write_json(path, {key: {**known.get(key, {}), **facts.get(key, {})} for key in {**known, **facts}})


def is_kept(folder: Path) -> bool:
    """Whether an arm folder was restored: its numbers are there, its weights are not."""
    return (folder / _MARK).exists() and not (folder / "weights.safetensors").exists()


def is_complete(folder: Path, splits: Sequence[str]) -> bool:
    """Whether an arm folder holds every number that its training is for, with or without weights."""
    return (folder / "train.json").exists() and all((folder / f"evaluation-{split}.json").exists() for split in splits)


def commits_of(folder: Path, run: Path) -> list[str]:
    """Of the sources that trained what is in an arm folder, or in that of phase one; several after a resume.

    Early trainings do not tell; then it is the commit that their numbers were kept with, or that the run began with.
    """
    told: list[str] = read_json(folder / "train.json").get("commits", [])
    if told:
        return told
    mark = folder / _MARK
    commit = read_json(mark if mark.exists() else run / "run.json").get("commit")
    return str(commit).split(", ") if commit else []


def commits_under(runs: Iterable[Path], arms: Collection[str] | None = None) -> str:
    """Of finished trainings in some run folders, of all arms or of some, and of phase one; several with commas."""
    runs = list(runs)
    trained = [(file.parent, run) for run in runs for file in run.glob("arms/*/train.json")]
    trained = [(folder, run) for folder, run in trained if arms is None or folder.name in arms]
    trained += [(run / PHASE_ONE, run) for run in runs if (run / PHASE_ONE / "train.json").exists()]
    return ", ".join(sorted({commit for folder, run in trained for commit in commits_of(folder, run)}))


def _write(run: Path, folder: Path, values: Mapping[str, Any]) -> None:
    for split, evaluation in values["evaluations"].items():
        write_json(folder / f"evaluation-{split}.json", evaluation)
        _save(folder / f"confusion-{split}.npz", values["confusions"][split], np.int64)
    for protocol, evaluations in values.get("protocols", {}).items():
        for split, evaluation in evaluations.items():
            write_json(folder / protocol / f"evaluation-{split}.json", evaluation)
    for stem, arrays in values["analysis"].items():
        _save(run / "analysis" / f"{stem}.npz", arrays, _ANALYSIS[stem])
    folder.mkdir(parents=True, exist_ok=True)
    for file, text in values["texts"].items():
        (folder / file).write_text(text, encoding="utf-8")
    lines = [json.dumps(event) for event in values["groups"]]
    if lines:
        (folder / "log.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    write_json(folder / _MARK, {"commit": values["commit"]})
    write_json(folder / "train.json", values["train"])  # last: it says that all is there


def _folder(run: Path, name: str) -> Path:
    return run / PHASE_ONE if name == PHASE_ONE else run / "arms" / name


def _evaluations(folder: Path) -> list[Path]:
    return sorted(folder.glob("evaluation-*.json"))


def _matrices(path: Path) -> dict[str, Any]:
    """Nested lists; what is no number (a class that never occurs has no embedding) becomes None."""
    with np.load(path, allow_pickle=False) as file:
        found = {key: np.asarray(file[key]) for key in file.files}
    return {key: array.tolist() if array.dtype.kind in "iu" else _rounded(array) for key, array in found.items()}


def _rounded(matrix: NDArray[Any]) -> list[list[float | None]]:
    return [[round(float(v), 6) if np.isfinite(v) else None for v in row] for row in matrix]


def _save(path: Path, matrices: Mapping[str, Any], kind: type) -> None:
    arrays: dict[str, Any] = {key: np.array(value, dtype=kind) for key, value in matrices.items()}

    def write(temporary: Path) -> None:
        with temporary.open("wb") as file:
            np.savez_compressed(file, **arrays)

    write_atomically(path, write)


def _regrouped(log: Path) -> list[dict[str, Any]]:
    """Of single-phase HS3: how its groups changed."""
    if not log.exists():
        return []
    events = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines() if line.strip()]
    return [event for event in events if event.get("event") == "groups"]
