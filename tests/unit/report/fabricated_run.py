"""Fabricates a run folder with plausible numbers: what the report is tested on, without training anything."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import tomli_w

from hs3seg.analysis import (
    Reference,
    StagePlan,
    Study,
    SupervisionPlan,
    analyze,
    choose_num_groups,
    deep_supervision,
    iou_per_class,
    mean_iou,
    no_supervision,
    pixel_accuracy,
    save_confusions,
    tradeoff_curve,
)
from hs3seg.taxonomy import Grouping, Taxonomy

STREET = (
    ("sky", (128, 128, 128), 0.16),
    ("building", (128, 0, 0), 0.23),
    ("pole", (192, 192, 128), 0.01),
    ("road", (128, 64, 128), 0.31),
    ("pavement", (60, 40, 222), 0.07),
    ("tree", (128, 128, 0), 0.11),
    ("sign_symbol", (192, 128, 128), 0.012),
    ("fence", (64, 64, 128), 0.015),
    ("car", (64, 0, 128), 0.06),
    ("pedestrian", (64, 64, 0), 0.007),
    ("bicyclist", (0, 128, 192), 0.016),
)
STAGES = ("stage2", "stage3")
ALIKE = ((1, 7), (1, 6), (2, 6), (3, 4), (9, 10), (5, 1), (8, 10), (2, 5), (0, 5), (2, 1))
ARMS = {"none": 0.0, "deep_supervision": 0.012, "hs3": 0.02}


def street_taxonomy() -> Taxonomy:
    return Taxonomy.from_names([name for name, _, _ in STREET], [colour for _, colour, _ in STREET])


def many_classes(count: int) -> Taxonomy:
    return Taxonomy.from_names([f"indoor class {i}" for i in range(count)])


def confusion(taxonomy: Taxonomy, skill: float, seed: int, pixels: int = 4_000_000) -> np.ndarray:
    """Pixel counts in which rare classes are harder and alike classes are confused; skill 0..1."""
    rng = np.random.default_rng(seed)
    count = taxonomy.num_classes
    street = count == len(STREET)
    share = np.array([s for _, _, s in STREET]) if street else rng.dirichlet(np.full(count, 1.5))
    share = share / share.sum()
    wrong = rng.random((count, count)) * 0.02 + share * 0.35
    for a, b in ALIKE if street else [(i, i + 1) for i in range(0, count - 1, 2)]:
        wrong[a, b] += 0.5
        wrong[b, a] += 0.5
    np.fill_diagonal(wrong, 0)
    wrong /= wrong.sum(1, keepdims=True)
    right = np.clip(skill + 0.1 * np.log10(share / share.max()) + 0.08 * rng.standard_normal(count), 0.05, 0.985)
    shares = np.diag(right) + (1 - right)[:, None] * wrong
    return np.rint(share[:, None] * shares * pixels).astype(np.int64)


def fabricate(
    root: Path,
    *,
    taxonomy: Taxonomy | None = None,
    arms: Sequence[str] = ("none", "deep_supervision", "hs3"),
    splits: Sequence[str] = ("val", "test"),
    gains: dict[str, float] | None = None,
    absent: Sequence[str] = (),
    epochs: int = 60,
    num_samples: int = 4,
    size: tuple[int, int] = (180, 240),
) -> Path:
    """Writes a complete run folder and returns it.

    Args:
        root: Folder to make.
        taxonomy: Default: eleven street classes.
        arms: Arms to write.
        splits: Evaluated splits.
        gains: Arm -> how much better than no supervision.
        absent: Classes without a truth pixel in any evaluation.
        epochs: Length of the logs.
        num_samples: Sample images per split.
        size: Of the sample images.
    """
    taxonomy = taxonomy or street_taxonomy()
    gains = ARMS | (gains or {})
    root.mkdir(parents=True)
    taxonomy.save(root / "taxonomy.toml")
    config = {
        "name": root.name,
        "seed": 0,
        "arms": list(arms),
        "data": {"kind": "camvid", "root": "camvid", "evaluate_splits": list(splits)},
        "network": {"name": "hrnet_w18_small"},
        "train": {"epochs": epochs, "batch_size": 8},
    }
    (root / "config.toml").write_text(tomli_w.dumps(config))
    facts = {"name": root.name, "fingerprint": "0123456789abcdef", "seed": 0, "hs3seg": "0.1.0", "python": "3.11.9"}
    facts |= {"command": ["hs3", "run", "configs/camvid.toml"], "created": "2026-01-01T00:00:00Z", "seconds": 8107.4}
    _json(root / "run.json", facts)
    measured = {
        "stage2": confusion(taxonomy, 0.62, 1),
        "stage3": confusion(taxonomy, 0.74, 2),
        "final": confusion(taxonomy, 0.84, 3),
    }
    save_confusions(root / "analysis" / "confusion.npz", measured)
    study = analyze(measured, taxonomy.names) if taxonomy.num_classes <= 60 else _quick_study(measured, taxonomy)
    _json(root / "analysis" / "analysis.json", study.to_dict())
    study.plan.save(root / "plan.toml")
    plans = {
        "none": no_supervision(taxonomy.names),
        "deep_supervision": deep_supervision(taxonomy.names, STAGES),
    }
    _arm(root / "phase_one", plans["deep_supervision"], 11, epochs)
    for number, name in enumerate(arms):
        plan = plans.get(name, study.plan)
        folder = root / "arms" / name
        _arm(folder, plan, number, epochs)
        for part, split in enumerate(splits):
            skill = 0.86 - 0.05 * part + gains.get(name, 0.0)
            _evaluation(folder, split, plan, taxonomy, skill, absent)
            _samples(folder, split, plan, taxonomy, num_samples, size, noise=0.3 - 4 * gains.get(name, 0.0))
    cost = {"gmacs": 1.903, "parameters": 1_540_123}
    heavier = {"gmacs": 2.117, "parameters": 1_567_889}
    training = {name: cost if name == "none" else heavier for name in arms}
    _json(
        root / "profile.json",
        {"network": "hrnet_w18_small", "input_size": [360, 480], "inference": cost, "training": training},
    )
    _json(root / "results.json", {"seconds": 8107.4, "arms": {}, "num_groups": study.plan.num_groups})
    return root


def _quick_study(measured: dict[str, np.ndarray], taxonomy: Taxonomy) -> Study:
    """Like analyze, with neighbours as groups: clustering very many classes takes too long for a test."""
    count = taxonomy.num_classes
    groupings = {k: Grouping.from_labels([c * k // count for c in range(count)]) for k in range(2, count, 7)}
    reference = Reference(count, mean_iou(measured["final"]))
    curves = tuple(tradeoff_curve(stage, measured[stage], groupings) for stage in STAGES)
    stages = tuple(StagePlan(c.stage, c.groupings[choose_num_groups(c, reference)]) for c in curves)
    plan = SupervisionPlan(taxonomy.names, stages, "spectral")
    return Study(plan, reference, curves, (), "true", None, 1.652)


def _arm(folder: Path, plan: SupervisionPlan, seed: int, epochs: int) -> None:
    folder.mkdir(parents=True)
    plan.save(folder / "plan.toml")
    rng = np.random.default_rng(seed)
    lines = [{"event": "start", "step": 0}]
    names = [*plan.stage_names, "final"]
    for step in range(0, epochs * 45, 10):
        progress = step / (epochs * 45)
        terms = {
            name: float((0.35 + 0.1 * (len(names) - i) + 1.9 * np.exp(-6 * progress)) * rng.gamma(60, 1 / 60))
            for i, name in enumerate(names)
        }
        loss = terms["final"] + sum(stage.gamma * terms[stage.stage] for stage in plan.stages)
        epoch = round((step + 1) / 45, 4)
        lines.append(
            {"event": "step", "step": step, "epoch": epoch, "loss": loss, "terms": terms, "learning_rate": 0.01}
        )
        if step % 450 == 440:
            miou = {
                n: float(0.6 * (1 - np.exp(-5 * progress)) - 0.03 * (len(names) - i) + 0.01 * rng.random())
                for i, n in enumerate(names)
            }
            lines.append({"event": "evaluation", "step": step, "epoch": round(epoch), "split": "val", "miou": miou})
    lines.append({"event": "end", "step": epochs * 45})
    (folder / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    _json(
        folder / "train.json",
        {
            "seconds": 1931.25 + seed,
            "steps": epochs * 45,
            "epochs": epochs,
            "images_per_second": 11.4,
            "weights_sha256": f"{seed:02x}" * 32,
            "device": "cpu",
            "precision": "bf16",
            "torch": "2.9.0",
        },
    )


def _evaluation(
    folder: Path, split: str, plan: SupervisionPlan, taxonomy: Taxonomy, skill: float, absent: Sequence[str]
) -> None:
    fine = {stage: confusion(taxonomy, skill - lag, 7) for stage, lag in zip(STAGES, (0.2, 0.1), strict=True)}
    final = confusion(taxonomy, skill, 7)
    for name in absent:
        for matrix in (*fine.values(), final):
            matrix[taxonomy.index(name)] = 0
    matrices = {stage.stage: stage.grouping.merge(fine[stage.stage]) for stage in plan.stages} | {"final": final}
    groups = {stage.stage: stage.grouping.group_names(taxonomy.names) for stage in plan.stages}
    save_confusions(folder / f"confusion-{split}.npz", matrices)
    _json(
        folder / f"evaluation-{split}.json",
        {
            "split": split,
            "num_images": 101 if split == "val" else 233,
            "num_pixels": int(final.sum()),
            "num_ignored_pixels": 120_000,
            "all_ignored_images": [],
            "miou": mean_iou(final),
            "pixel_accuracy": pixel_accuracy(final),
            "iou": _by_name(taxonomy.names, final),
            "stages": {
                name: {
                    "num_groups": len(matrix),
                    "miou": mean_iou(matrix),
                    "pixel_accuracy": pixel_accuracy(matrix),
                    "iou": _by_name(groups[name], matrix),
                }
                for name, matrix in matrices.items()
                if name != "final"
            },
        },
    )


def _by_name(names: Sequence[str], matrix: np.ndarray) -> dict[str, float | None]:
    return {
        name: None if np.isnan(value) else float(value)
        for name, value in zip(names, iou_per_class(matrix), strict=True)
    }


def _samples(
    folder: Path,
    split: str,
    plan: SupervisionPlan,
    taxonomy: Taxonomy,
    count: int,
    size: tuple[int, int],
    noise: float,
) -> None:
    arrays: dict[str, np.ndarray] = {"names": np.array([f"{split}_frame_{i:03d}.png" for i in range(count)])}
    for i in range(count):
        rng = np.random.default_rng([i, len(split)])
        truth = _scene(rng, size, taxonomy.num_classes)
        colours = np.array([*taxonomy.colours, *[(0, 0, 0)] * (256 - taxonomy.num_classes)], np.float64)
        image = colours[truth] * 0.6 + 60 + 14 * rng.standard_normal((*size, 3))
        arrays[f"{i}/image"] = np.clip(image, 0, 255).astype(np.uint8)
        arrays[f"{i}/truth"] = truth
        arrays[f"{i}/final"] = _spoilt(truth, taxonomy.num_classes, noise, 6, rng)
        for stage, coarse in zip(plan.stages, (16, 10), strict=False):
            fine = _spoilt(truth, taxonomy.num_classes, noise + 0.2, coarse, rng)
            arrays[f"{i}/{stage.stage}"] = stage.grouping.remap(fine).astype(np.uint8)
    np.savez_compressed(folder / f"samples-{split}.npz", **arrays)


def _scene(rng: np.random.Generator, size: tuple[int, int], classes: int) -> np.ndarray:
    height, width = size
    truth = np.zeros(size, np.uint8)
    x = np.arange(width)
    skyline = (height * (0.35 + 0.1 * np.sin(x / width * 9 + rng.random() * 6))).astype(int)
    rows = np.arange(height)[:, None]
    truth[rows >= skyline] = 1 % classes
    truth[int(height * 0.62) :] = 4 % classes
    truth[rows >= height * (0.62 + 0.3 * np.abs(x / width - 0.5))] = 3 % classes
    for _ in range(9):
        kind = int(rng.integers(0, classes))
        top, left = int(rng.integers(0.3 * height, 0.75 * height)), int(rng.integers(0, width - 10))
        truth[top : top + int(rng.integers(12, 45)), left : left + int(rng.integers(6, 50))] = kind
    truth[-max(2, height // 30) :] = 255
    return truth


def _spoilt(truth: np.ndarray, classes: int, noise: float, block: int, rng: np.random.Generator) -> np.ndarray:
    """Truth seen in blocks, some of them of a wrong class."""
    height, width = truth.shape
    coarse = truth[block // 2 :: block, block // 2 :: block].copy()
    wrong = rng.random(coarse.shape) < noise * 0.3
    coarse[wrong] = rng.integers(0, classes, int(wrong.sum()))
    coarse[coarse == 255] = 3 % classes
    large = coarse.repeat(block, 0).repeat(block, 1)
    padded = np.pad(large, ((0, block), (0, block)), mode="edge")
    return padded[:height, :width]


def _json(path: Path, value: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, allow_nan=False))
