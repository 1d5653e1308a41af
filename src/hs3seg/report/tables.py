"""The tables of results: arms x splits, classes x arms, stages."""

from typing import Any

import numpy as np

from hs3seg.report.load import Arm, Run, Scores
from hs3seg.report.markup import DASH, arm_title, data, escape, number, percent, points, swatch, table, tag
from hs3seg.report.verdict import SEED_NOISE

CLASS_NOISE = 0.02
"""IoU fraction below which a single class's difference is printed in grey; classes move more than their mean."""


def scores_table(run: Run, baseline: str, best: dict[str, str]) -> str:
    """Gives mIoU and pixel accuracy of every arm on every split, with differences against the baseline."""
    head = ["Arm"] + [
        f"{escape(s)}<br><small>{what}</small>" for s in run.splits for what in ("mIoU, %", "pixel accuracy, %")
    ]
    rows = []
    for name, arm in run.arms.items():
        row = [escape(arm_title(name))]
        for split in run.splits:
            scores, base = arm.scores.get(split), run.arms[baseline].scores.get(split)
            for key in ("miou", "pixel_accuracy"):
                value = getattr(scores, key) if scores is not None else None
                reference = getattr(base, key) if base is not None else None
                cell = _score(value, None if name == baseline else reference, SEED_NOISE)
                row.append(tag("strong", cell) if key == "miou" and best.get(split) == name else cell)
        rows.append(row)
    return table(head, rows, "scores")


def class_table(run: Run, split: str, baseline: str) -> str:
    """IoU of every class by arm, with small bars, the baseline's mark on them, and differences."""
    arms = {name: arm for name, arm in run.arms.items() if split in arm.scores}
    if run.taxonomy is None or not arms:
        return ""
    base = arms[baseline].scores[split] if baseline in arms else None
    shares = _pixel_shares(arms, split)
    head = ["Class", *(["of pixels, %"] if shares is not None else []), *(escape(arm_title(name)) for name in arms)]
    rows = []
    for index, (name, colour) in enumerate(zip(run.taxonomy.names, run.taxonomy.colours, strict=True)):
        row = [swatch(colour) + escape(name)]
        if shares is not None:
            row.append(escape(_share(shares[index])))
        row += [
            _bar(arm.scores[split].iou.get(name), None if arm_name == baseline else base, name)
            for arm_name, arm in arms.items()
        ]
        rows.append(row)
    means = ["mean (mIoU)", *([""] if shares is not None else [])]
    for arm_name, arm in arms.items():
        reference = None if arm_name == baseline or base is None else base.miou
        means.append(_score(arm.scores[split].miou, reference, SEED_NOISE))
    return table(head, [*rows, means], "classes")


def stage_table(run: Run) -> str:
    """Gives the mIoU of every stage in its own groups; empty where no evaluated arm has stages."""
    rows: list[list[str]] = []
    for name, arm in run.arms.items():
        for split, scores in arm.scores.items():
            if not scores.stages:
                continue
            cells = [_stage(scores.stages.get(stage)) for stage in run.stages]
            rows.append([escape(arm_title(name)), escape(split), *cells, data(scores.miou, percent(scores.miou))])
    if not rows:
        return ""
    return table(["Arm", "Split", *map(escape, run.stages), "final"], rows, "stages")


def _score(value: float | None, reference: float | None, noise: float) -> str:
    shown = data(value, percent(value))
    if value is None or reference is None:
        return shown
    return f"{shown} {_difference(value - reference, noise)}"


def _difference(value: float, noise: float) -> str:
    kind = "" if abs(value) < noise else " better" if value > 0 else " worse"
    return tag("span", escape(points(value)), class_=f"difference{kind}")


def _bar(value: float | None, base: Scores | None, name: str) -> str:
    if value is None:
        return '<span class="absent">absent</span>'
    reference = base.iou.get(name) if base is not None else None
    mark = f'<b style="left:{100 * reference:.1f}%"></b>' if reference is not None else ""
    bar = f'<span class="bar"><i style="width:{100 * value:.1f}%"></i>{mark}</span>'
    return bar + _score(value, reference, CLASS_NOISE)


def _stage(values: dict[str, Any] | None) -> str:
    if not values:
        return DASH
    miou, groups = number(values.get("miou")), number(values.get("num_groups"))
    return f"{data(miou, percent(miou))} <small>{groups or 0:.0f} groups</small>"


def _pixel_shares(arms: dict[str, Arm], split: str) -> np.ndarray[Any, np.dtype[np.float64]] | None:
    """Share of each class in the labelled pixels of a split, (K,)."""
    for arm in arms.values():
        matrix = arm.confusions.get(split, {}).get("final")
        if matrix is not None and matrix.sum() > 0:
            return np.asarray(matrix.sum(1) / matrix.sum(), np.float64)
    return None


def _share(value: float) -> str:
    return "0" if value == 0 else "<0.1" if value < 0.001 else f"{100 * value:.1f}"
