"""Seconds of `hs3 plan` and `hs3 report` from saved matrices, whole processes from start to end.

    .venv/bin/python -m benchmarks.commands --out docs/benchmarks

19 classes, 3 stages; the run folder has three arms with logs and evaluations of two splits, in the format of a real
run. The report is also timed with sample images, which it draws.
"""

import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.clustering import confusion
from benchmarks.rows import Row, arguments, save_told
from hs3seg.analysis import (
    SupervisionPlan,
    analyze,
    deep_supervision,
    iou_per_class,
    mean_iou,
    no_supervision,
    pixel_accuracy,
    save_confusions,
)
from hs3seg.taxonomy import Taxonomy

GOAL = 1.5
CLASSES, EPOCHS, STEPS = 19, 60, 45
SKILLS = {"stage2": 0.5, "stage3": 0.6, "stage4": 0.7, "final": 0.8}
SPLITS = ("val", "test")


def write_run(folder: Path, *, samples: int = 0) -> Path:
    """A finished run with made-up numbers.

    Args:
        folder: To be made.
        samples: Sample images per arm and split.

    Returns:
        The analysis' matrices.
    """
    taxonomy = Taxonomy.from_names([f"class {number}" for number in range(CLASSES)])
    matrices = {stage: confusion(CLASSES, skill, 0) for stage, skill in SKILLS.items()}
    folder.mkdir(parents=True)
    taxonomy.save(folder / "taxonomy.toml")
    study = analyze(matrices, taxonomy.names)
    stages = tuple(stage for stage in SKILLS if stage != "final")
    plans = {
        "none": no_supervision(taxonomy.names),
        "deep_supervision": deep_supervision(taxonomy.names, stages),
        "hs3": study.plan,
    }
    config = f'name = "run"\nseed = 0\narms = {json.dumps(list(plans))}\n[data]\nkind = "folder"\nroot = "data"\n'
    config += (
        f'evaluate_splits = {json.dumps(SPLITS)}\n[network]\nname = "hrnet_w18_small"\n[train]\nepochs = {EPOCHS}\n'
    )
    (folder / "config.toml").write_text(config)
    save_confusions(folder / "analysis" / "confusion.npz", matrices)
    _json(folder / "analysis" / "analysis.json", study.to_dict())
    _json(folder / "run.json", {"name": "run", "seed": 0, "seconds": 1.0, "command": ["hs3", "run", "run.toml"]})
    cost = {"gmacs": 1.9, "parameters": 1_540_123}
    _json(
        folder / "profile.json",
        {
            "network": "hrnet_w18_small",
            "input_size": [360, 480],
            "inference": cost,
            "training": dict.fromkeys(plans, cost),
        },
    )
    study.plan.save(folder / "plan.toml")
    _write_arm(folder / "phase_one", plans["deep_supervision"])
    for name, plan in plans.items():
        arm = folder / "arms" / name
        _write_arm(arm, plan)
        for number, split in enumerate(SPLITS):
            _write_evaluation(arm, split, plan, number)
            if samples:
                _write_samples(arm / f"samples-{split}.npz", plan, samples)
    return folder / "analysis" / "confusion.npz"


def _write_arm(folder: Path, plan: SupervisionPlan) -> None:
    folder.mkdir(parents=True)
    plan.save(folder / "plan.toml")
    lines: list[dict[str, Any]] = [{"event": "start", "step": 0}]
    for step in range(0, EPOCHS * STEPS, 10):
        terms = dict.fromkeys((*plan.stage_names, "final"), 2 / (1 + step / 100))
        at = {"step": step, "epoch": round((step + 1) / STEPS, 4)}
        lines.append({"event": "step", **at, "loss": sum(terms.values()), "terms": terms, "learning_rate": 0.01})
        if step % 450 == 440:
            lines.append({"event": "evaluation", **at, "split": "val", "miou": dict.fromkeys(terms, step / 5000)})
    lines.append({"event": "end", "step": EPOCHS * STEPS})
    (folder / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    facts = {"seconds": 1900.0, "steps": EPOCHS * STEPS, "epochs": EPOCHS, "images_per_second": 11.4}
    _json(folder / "train.json", facts | {"weights_sha256": "0" * 64, "device": "cpu", "precision": "bf16"})


def _write_evaluation(folder: Path, split: str, plan: SupervisionPlan, number: int) -> None:
    fine = {stage: confusion(CLASSES, skill, number + 1) for stage, skill in SKILLS.items()}
    matrices = {stage.stage: stage.grouping.merge(fine[stage.stage]) for stage in plan.stages}
    names = {stage.stage: stage.grouping.group_names(plan.taxonomy_names) for stage in plan.stages}
    save_confusions(folder / f"confusion-{split}.npz", {**matrices, "final": fine["final"]})
    stages = {stage: {"num_groups": len(matrix), **_scores(names[stage], matrix)} for stage, matrix in matrices.items()}
    told = {"split": split, "num_images": 101, "num_pixels": int(fine["final"].sum()), "num_ignored_pixels": 0}
    told |= {"all_ignored_images": [], "stages": stages, **_scores(plan.taxonomy_names, fine["final"])}
    _json(folder / f"evaluation-{split}.json", told)


def _scores(names: tuple[str, ...], matrix: NDArray[Any]) -> dict[str, Any]:
    iou = {name: None if np.isnan(one) else float(one) for name, one in zip(names, iou_per_class(matrix), strict=True)}
    return {"miou": mean_iou(matrix), "pixel_accuracy": pixel_accuracy(matrix), "iou": iou}


def _write_samples(path: Path, plan: SupervisionPlan, count: int, height: int = 360, width: int = 480) -> None:
    rng = np.random.default_rng(0)
    arrays: dict[str, NDArray[Any]] = {"names": np.array([f"image {number}" for number in range(count)])}
    for number in range(count):
        truth = rng.integers(0, CLASSES, (height // 12, width // 12), np.uint8).repeat(12, 0).repeat(12, 1)
        wrong = np.where(rng.random(truth.shape) < 0.1, np.uint8(0), truth)
        arrays[f"{number}/image"] = rng.integers(0, 256, (height, width, 3), np.uint8)
        arrays[f"{number}/truth"], arrays[f"{number}/final"] = truth, wrong
        for stage in plan.stages:
            arrays[f"{number}/{stage.stage}"] = stage.grouping.remap(wrong).astype(np.uint8)
    np.savez_compressed(path, **arrays)  # type: ignore[arg-type]


def _json(path: Path, values: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(values, allow_nan=False))


def run(command: list[str]) -> tuple[float, float]:
    """Seconds of a process from start to end, and of the processor, which a busy machine lengthens less."""
    began, used = time.perf_counter(), _processor_seconds()
    done = subprocess.run(command, capture_output=True, text=True)
    seconds = time.perf_counter() - began
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{done.stderr[-2000:]}")
    return seconds, _processor_seconds() - used


def _processor_seconds() -> float:
    spent = resource.getrusage(resource.RUSAGE_CHILDREN)
    return spent.ru_utime + spent.ru_stime


def imports_torch(arguments: list[str]) -> bool:
    """Whether a command loads torch."""
    command = [sys.executable, "-X", "importtime", "-m", "hs3seg", *arguments]
    told = subprocess.run(command, capture_output=True, text=True, check=True).stderr
    return any(line.rsplit("|", 1)[-1].strip() == "torch" for line in told.splitlines())


def rows(*, repeats: int = 11) -> Iterator[Row]:
    """All rows, one after another."""
    script = str(Path(sys.executable).with_name("hs3"))
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        matrices = write_run(folder / "run")
        write_run(folder / "pictures", samples=4)
        commands = {
            "hs3 plan from saved matrices": ["plan", "--confusion", str(matrices), "--out", str(folder / "plan.toml")],
            "hs3 report from saved matrices": ["report", str(folder / "run")],
            "hs3 report with 24 sample images": ["report", str(folder / "pictures")],
        }
        for name, words in commands.items():
            run([script, *words])
            found = [run([script, *words]) for _ in range(repeats)]
            details = {
                "classes": CLASSES,
                "stages": len(SKILLS) - 1,
                "imports_torch": imports_torch(words),
                "processor_seconds": [round(used, 3) for _, used in found],
            }
            seconds = tuple(seconds for seconds, _ in found)
            goal = GOAL if name.endswith("matrices") else None
            yield Row(f"{name}: whole process", "-", seconds, goal, unit="s", details=details)


def main() -> None:
    """Measures and adds the rows to results.json."""
    parser = arguments(__doc__)
    parser.add_argument("--repeats", type=int, default=11)
    options = parser.parse_args()
    save_told(options, "commands", rows(repeats=2 if options.quick else options.repeats))


if __name__ == "__main__":
    main()
