"""The report's numbers for machines: report.json."""

from typing import Any

from hs3seg.report.curves import chosen_sizes, read_curves, read_reference
from hs3seg.report.load import Run
from hs3seg.report.verdict import Verdict


def summarize(run: Run, verdict: Verdict, baseline: str | None, pictures: list[str]) -> dict[str, Any]:
    """Plain values, fractions; differences are against the baseline arm."""
    reference = read_reference(run)
    return {
        "run": run.name,
        "verdict": {
            "headline": verdict.headline,
            "findings": list(verdict.findings),
            "caveats": list(verdict.caveats),
            "best": verdict.best,
        },
        "baseline": baseline,
        "splits": {split: _split(run, split, baseline) for split in run.splits},
        "reference": None
        if reference is None
        else {
            "num_classes": reference[0].num_classes,
            "miou": reference[0].miou,
            "ratio": reference[0].ratio,
            "theta_degrees": reference[2],
            "aspect": reference[3],
        },
        "curves": {stage: [[k, miou] for k, miou in curve.items()] for stage, curve in read_curves(run).items()},
        "num_groups": chosen_sizes(run),
        "groups": {
            stage.stage: [[run.plan.taxonomy_names[c] for c in group] for group in stage.grouping.groups]
            for stage in run.plan.stages
        }
        if run.plan is not None
        else {},
        "profile": run.profile,
        "missing": run.missing,
        "pictures": pictures,
    }


def _split(run: Run, split: str, baseline: str | None) -> dict[str, Any]:
    base = run.arms[baseline].scores.get(split) if baseline is not None else None
    arms = {}
    for name, arm in run.arms.items():
        if (scores := arm.scores.get(split)) is None:
            continue
        arms[name] = {
            "miou": scores.miou,
            "pixel_accuracy": scores.pixel_accuracy,
            "iou": scores.iou,
            "miou_difference": _minus(scores.miou, base.miou if base is not None else None),
            "pixel_accuracy_difference": _minus(
                scores.pixel_accuracy, base.pixel_accuracy if base is not None else None
            ),
        }
    return arms


def _minus(value: float | None, reference: float | None) -> float | None:
    return None if value is None or reference is None else value - reference
