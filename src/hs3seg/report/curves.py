"""Trade-off curves (the paper's Fig. 2) and the curves of the trainings."""

import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hs3seg.analysis import DEFAULT_ASPECT, Reference, line
from hs3seg.report.canvas import Canvas, Point
from hs3seg.report.figure import Axes, Figure, legend, place_label
from hs3seg.report.load import Arm, Run
from hs3seg.report.markup import arm_title, listed, number, percent
from hs3seg.report.theme import stage_colour

Series = tuple[NDArray[np.float64], NDArray[np.float64]]


def read_reference(run: Run) -> tuple[Reference, float | None, float, float] | None:
    """The final output's point, the angle that was asked for (None = none was), the angle in effect, the aspect."""
    values = run.analysis.get("reference")
    if not isinstance(values, dict):
        return None
    classes, miou = number(values.get("num_classes")), number(values.get("miou"))
    if not classes or miou is None:
        return None
    aspect = number(values.get("aspect")) or DEFAULT_ASPECT
    shown = number(values.get("theta_degrees"))
    shown = shown if shown is not None else math.degrees(math.atan2(aspect, miou))
    asked = shown if values.get("rule") == "theta" else None
    return Reference(int(classes), miou), asked, shown, aspect


def read_curves(run: Run) -> dict[str, dict[int, float]]:
    """Stage -> number of groups -> mIoU, a fraction."""
    stages = run.analysis.get("stages")
    curves: dict[str, dict[int, float]] = {}
    for stage, values in (stages if isinstance(stages, dict) else {}).items():
        points = values.get("curve", []) if isinstance(values, dict) else []
        curve = {int(p[0]): miou for p in points if len(p) == 2 and (miou := number(p[1])) is not None}
        if curve:
            curves[str(stage)] = dict(sorted(curve.items()))
    return curves


def tradeoff_figure(run: Run) -> Figure | None:
    """Draws mIoU against number of groups, one curve per stage, with the reference point, line and chosen points.

    The plot area is as wide and high as the aspect in which theta is defined, so the angle on the picture is theta.
    """
    found, curves = read_reference(run), read_curves(run)
    if found is None or not curves:
        return None
    reference, asked, shown, aspect = found
    chosen = chosen_sizes(run)
    width = 406.0
    height = width / min(max(aspect, 1.0), 2.4)
    canvas = Canvas(478, 0)
    rule = "same mIoU per class as the final output" if asked is None else f"line at θ = {shown:.0f}°"
    entries = [
        (f"{stage}: {chosen[stage]} groups", stage_colour(i)) for i, stage in enumerate(curves) if stage in chosen
    ]
    used = legend(canvas, 54, 14, 474, [*entries, (rule, "faint")])
    canvas.height = used + height + 60
    axes = Axes(canvas, 54, used + 10, width, height, (0, reference.num_classes), (0, 1))
    axes.frame("number of groups", "mIoU, %", percent=True)
    taken: list[Point] = []
    _draw_line(axes, reference, asked, aspect, taken)
    for number_, curve in enumerate(curves.values()):
        places = [axes.place(k, miou) for k, miou in curve.items()]
        canvas.line(places, stage_colour(number_), 2)
        for a, b in itertools.pairwise(places):
            taken += [(a[0] + (b[0] - a[0]) * t / 6, a[1] + (b[1] - a[1]) * t / 6) for t in range(7)]
    for number_, (stage, curve) in enumerate(curves.items()):
        for k, miou in curve.items():
            radius = 3 if len(curve) <= 24 else 2.2
            title = f"{stage}, {k} groups: {percent(miou)} %"
            canvas.disc(*axes.place(k, miou), radius, stage_colour(number_), title=title)
    end = axes.place(reference.num_classes, reference.miou)
    canvas.disc(*end, 6.5, "final", title=f"final, {reference.num_classes} classes: {percent(reference.miou)} %")
    marks = [(end, f"final {percent(reference.miou)}", "final")]
    for number_, (stage, curve) in enumerate(curves.items()):
        if chosen.get(stage) in curve:
            k = chosen[stage]
            place = axes.place(k, curve[k])
            canvas.disc(*place, 6.5, stage_colour(number_), title=f"{stage}, chosen: {k} groups, {percent(curve[k])} %")
            marks.append((place, f"{stage}: {k}", stage_colour(number_)))
    taken += [(x + dx, y + dy) for (x, y), _, _ in marks for dx in (-4, 4) for dy in (-4, 4)] * 4
    for place, text, colour in marks:
        place_label(canvas, place, text, colour, taken)
    told = [
        f"{stage} has {percent(curve[k])} % at its {k} groups"
        for stage, curve in curves.items()
        if (k := chosen.get(stage, -1)) in curve
    ]
    told.append(f"the final output {percent(reference.miou)} % on {reference.num_classes} classes")
    label = f"Trade-off curves, mIoU of each stage against the number of groups: {listed(told)}"
    return Figure("tradeoff", canvas, label, zoom=1.2)


def chosen_sizes(run: Run) -> dict[str, int]:
    """Number of groups that HS3 was trained with, by stage: the plan's, else the analysis's."""
    if run.plan is not None:
        return run.plan.num_groups
    stages = run.analysis.get("stages", {})
    sizes = {stage: number(values.get("num_groups")) for stage, values in stages.items() if isinstance(values, dict)}
    return {stage: int(size) for stage, size in sizes.items() if size}


def _draw_line(axes: Axes, reference: Reference, theta: float | None, aspect: float, taken: list[Point]) -> None:
    count = reference.num_classes
    if theta == 0:
        points = [axes.place(count, 0), axes.place(count, 1)]
    else:
        slope = reference.miou - line(reference, count - 1, theta, aspect)  # mIoU per group
        start = max(0.0, count - reference.miou / slope) if slope > 0 else 0.0
        points = [axes.place(start, line(reference, start, theta, aspect)), axes.place(count, reference.miou)]
    axes.canvas.line(points, "faint", 1.5, dash=5)
    (x0, y0), (x1, y1) = points
    taken += [(x0 + (x1 - x0) * t / 60, y0 + (y1 - y0) * t / 60) for t in range(61)]


def training_figures(run: Run) -> dict[str, list[Figure]]:
    """Arm -> its loss curves and, where it was evaluated while training, its mIoU curve; same axes for all arms."""
    arms = [*([run.phase_one] if run.phase_one is not None else []), *run.arms.values()]
    colours = {stage: stage_colour(i) for i, stage in enumerate(run.stages)} | {"final": "final"}
    losses = {arm.name: _losses(arm) for arm in arms}
    watched = {arm.name: _mious(arm) for arm in arms}
    top = _top([values for series in losses.values() for _, values in series.values()])
    last = max((x[-1] for group in (losses, watched) for s in group.values() for x, _ in s.values()), default=1.0)
    figures: dict[str, list[Figure]] = {}
    for arm in arms:
        title, made = arm_title(arm.name), []
        if losses[arm.name]:
            canvas = _panel(losses[arm.name], colours, (0, last), (0, top), "loss")
            made.append(Figure(f"loss-{arm.name}", canvas, f"{title}: loss of each term over the epochs"))
        if watched[arm.name]:
            canvas = _panel(watched[arm.name], colours, (0, last), (0, 1), "mIoU, %", percents=True)
            made.append(Figure(f"miou-{arm.name}", canvas, f"{title}: mIoU of each output over the epochs"))
        figures[arm.name] = made
    return figures


def _panel(
    series: dict[str, Series],
    colours: dict[str, str],
    x: tuple[float, float],
    y: tuple[float, float],
    title: str,
    *,
    percents: bool = False,
) -> Canvas:
    canvas = Canvas(400, 0)
    ordered = [name for name in colours if name in series]
    used = legend(canvas, 50, 12, 396, [(name, colours[name]) for name in ordered])
    canvas.height = used + 246
    axes = Axes(canvas, 50, used + 8, 336, 190, x, y)
    axes.frame("epoch", title, percent=percents)
    for name in ordered:
        places = [axes.place(*pair) for pair in zip(*thinned(series[name], 320), strict=True)]
        canvas.line(places, colours[name], 1, opacity=0.3)
        if percents and len(places) <= 60:
            for place in places:
                canvas.disc(*place, 2.2, colours[name])
    for name in ordered:
        epochs, values = series[name]
        smooth = smoothed(values)
        kept = np.unique(np.linspace(0, len(epochs) - 1, min(len(epochs), 160)).round().astype(int))
        canvas.line([axes.place(float(epochs[i]), float(smooth[i])) for i in kept], colours[name], 2)
    return canvas


def smoothed(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Centred moving mean over a tenth of the curve (shorter at the ends); curves under 12 values stay as they are."""
    half = max(len(values) // 20, 1) if len(values) >= 12 else 0
    sums = np.concatenate([[0.0], np.cumsum(values)])
    index = np.arange(len(values))
    low, high = np.maximum(index - half, 0), np.minimum(index + half + 1, len(values))
    return np.asarray((sums[high] - sums[low]) / (high - low), np.float64)


def thinned(series: Series, limit: int) -> Series:
    """At most about `limit` values of a long curve: lowest and highest of each bin, so that no spike is lost."""
    epochs, values = series
    if len(values) <= limit:
        return series
    kept: list[int] = []
    for part in np.array_split(np.arange(len(values)), limit // 2):
        kept += sorted({int(part[values[part].argmin()]), int(part[values[part].argmax()])})
    return epochs[kept], values[kept]


def _losses(arm: Arm) -> dict[str, Series]:
    return _series(arm.steps, "terms")


def _mious(arm: Arm) -> dict[str, Series]:
    return _series(arm.watched, "miou")


def _series(events: Sequence[dict[str, Any]], key: str) -> dict[str, Series]:
    """Name -> (epochs, values) of the finite values under a key of the log's events."""
    found: dict[str, tuple[list[float], list[float]]] = {}
    for event in events:
        epoch, values = number(event.get("epoch")), event.get(key)
        if epoch is None or not isinstance(values, dict):
            continue
        for name, value in values.items():
            finite = number(value)
            if finite is not None:
                epochs, kept = found.setdefault(str(name), ([], []))
                epochs.append(epoch)
                kept.append(finite)
    return {name: (np.array(epochs), np.array(values)) for name, (epochs, values) in found.items()}


def _top(curves: Sequence[NDArray[np.float64]]) -> float:
    """Upper end of the loss axis: all smoothed values fit, single spikes need not."""
    highest = max((float(max(smoothed(v).max(), np.percentile(v, 98))) for v in curves if len(v)), default=1.0)
    return 1.05 * highest if highest > 0 else 1.0
