"""Pictures of a comparison: differences with their intervals, and gains class by class."""

import math

import numpy as np

from hs3seg.report.canvas import Canvas, shortened, text_width
from hs3seg.report.comparison_words import SplitComparison, sentence
from hs3seg.report.figure import Axes, Figure, ticks
from hs3seg.report.markup import DASH, percent, points

_WIDTH, _ROW, _LEFT = 720.0, 34.0, 236.0
_CLASS_ROW, _NAME, _IOU, _GAP = 17.0, 150.0, 48.0, 16.0


def interval_figure(found: SplitComparison) -> Figure | None:
    """Differences to the reference: a dot per seed, their mean, and its interval."""
    rows = list(found.others.values())
    if not rows:
        return None
    values = [v for c in rows for v in (*c.differences, *(c.interval or ()))]
    # A wild interval of few seeds must not flatten all others; what is cut off ends in an arrow.
    reach = max(0.01, 2.5 * max(abs(v) for c in rows for v in c.differences))
    low, high = max(min([*values, 0.0]), -reach), min(max([*values, 0.0]), reach)
    margin = 0.08 * (high - low)
    canvas = Canvas(_WIDTH, 40 + _ROW * len(rows) + 46)
    canvas.text(_LEFT, 14, found.where, "accent", 13, bold=True)
    bottom = 36 + _ROW * len(rows)
    axes = Axes(canvas, _LEFT, 36, _WIDTH - _LEFT - 24, _ROW * len(rows), (low - margin, high + margin), (0, 1))
    for value in ticks(low - margin, high + margin, 7):
        x, _ = axes.place(value, 0)
        canvas.line([(x, 36), (x, bottom)], "ink" if value == 0 else "rule", 1)
        canvas.text(x, bottom + 14, f"{100 * value:+g}" if value else "0", "muted", 11, anchor="middle")
    across = _LEFT + (_WIDTH - _LEFT - 24) / 2
    words = f"points of mIoU against {found.in_sentence(found.reference)}"
    canvas.text(across, bottom + 34, words, "muted", 11.5, anchor="middle")
    for number, comparison in enumerate(rows):
        y = 36 + _ROW * (number + 0.5)
        colour = "muted"
        if comparison.is_significant:
            colour = "better" if comparison.difference > 0 else "worse"
        seeds = f" ({len(comparison.seeds)})"
        # A long title is cut, the number of seeds never.
        title = shortened(found.title(comparison.arm), _LEFT - 16 - text_width(seeds, 12), 12)
        canvas.text(_LEFT - 12, y, title + seeds, "ink", 12, anchor="end")
        if comparison.interval:
            ends = [(axes.place(min(max(v, low - margin), high + margin), 0)[0], v) for v in comparison.interval]
            canvas.line([(ends[0][0], y), (ends[1][0], y)], colour, 3)
            for (x, value), side in zip(ends, (-1, 1), strict=True):
                if not low - margin <= value <= high + margin:
                    _arrow_head(canvas, x, y, side, colour)
        for seed, value in zip(comparison.seeds, comparison.differences, strict=True):
            x, _ = axes.place(value, 0)
            canvas.disc(x, y + 9, 3, "faint", title=f"seed {seed}: {points(value)}")
        x, _ = axes.place(comparison.difference, 0)
        hollow = comparison.is_significant and not comparison.holds_among_all
        mean = f"mean {points(comparison.difference)}"
        canvas.disc(x, y, 5, "card" if hollow else colour, colour if hollow else "card", title=mean)
    return Figure(
        f"intervals-{found.split}",
        canvas,
        "; ".join(sentence(found, c) for c in rows),
        "Large dot: mean difference; bar: its interval, with an arrow where it goes on; small dots: seeds, their number"
        " in brackets. Grey: the interval holds zero. Hollow: it does not, but p after Holm is above 5 %.",
        natural=True,
    )


def class_figure(found: SplitComparison) -> Figure | None:
    """Differences of IoU: a row per class, by falling IoU of the reference, and a panel per arm."""
    arms = [arm for arm in found.others if found.per_class.get(arm)]
    names = [name for name, iou in found.reference_iou.items() if not math.isnan(iou)]
    if not arms or not names:
        return None
    names.sort(key=lambda name: -found.reference_iou[name])
    own = {arm: {name: np.array(found.per_class[arm].get(name, ()), float) for name in names} for arm in arms}
    every = np.abs(np.concatenate([values for classes in own.values() for values in classes.values()]))
    every = every[np.isfinite(every)]
    if not every.size:
        return None
    # One seed of a rare class may swing by tens of points; what is cut off ends in an arrow.
    reach = max(0.01, 1.1 * float(np.quantile(every, 0.97)))
    titles = {arm: _wrapped(found.title(arm), 118) for arm in arms}
    top = 44 + 14.0 * max(len(lines) for lines in titles.values())
    bottom, panel = top + _CLASS_ROW * len(names), 128.0
    left = _NAME + _IOU
    canvas = Canvas(left + len(arms) * (panel + _GAP), bottom + 40)
    canvas.text(0, 14, found.where, "accent", 13, bold=True)
    canvas.text(left - 8, top - 12, "IoU %", "muted", 11, anchor="end")
    for row, name in enumerate(names):
        y = top + _CLASS_ROW * (row + 0.5)
        if row % 2 == 0:
            canvas.box(0, y - _CLASS_ROW / 2, canvas.width, _CLASS_ROW, "rule")
        canvas.text(4, y, shortened(name, _NAME - 8, 12), "ink", 12)
        canvas.text(left - 8, y, percent(found.reference_iou[name]), "muted", 11.5, anchor="end")
    for column, arm in enumerate(arms):
        start = left + column * (panel + _GAP) + _GAP / 2
        axes = Axes(canvas, start, top, panel, bottom - top, (-reach, reach), (0, 1))
        for line, text in enumerate(titles[arm]):
            canvas.text(
                start + panel / 2, top - 12 - 14 * (len(titles[arm]) - 1 - line), text, "ink", 12, anchor="middle"
            )
        _panel(axes, own[arm], reach)
    base = found.in_sentence(found.reference)
    words = f"points of IoU against {base}; dots: seeds"
    canvas.text(left + (canvas.width - left) / 2, bottom + 32, words, "muted", 11.5, anchor="middle")
    label = f"{found.where}: mean difference of IoU per class, " + ", ".join(map(found.title, arms))
    caption = (
        "Bars: mean over seeds, coloured where all seeds agree in sign; small dots: seeds; arrows: further than the"
        f" axis. Classes by falling IoU of {base}. {len(names) * len(arms)} differences are shown: some agree by chance"
        " alone."
    )
    return Figure(f"classes-{found.split}", canvas, label, caption, natural=True)


def _panel(axes: Axes, classes: dict[str, np.ndarray], reach: float) -> None:
    canvas, bottom = axes.canvas, axes.top + axes.height
    for value in ticks(-reach, reach, 4):
        x, _ = axes.place(value, 0)
        canvas.line([(x, axes.top), (x, bottom)], "faint" if value == 0 else "rule", 1)
        canvas.text(x, bottom + 12, f"{100 * value:+g}" if value else "0", "muted", 10.5, anchor="middle")
    zero, _ = axes.place(0, 0)
    for row, (name, values) in enumerate(classes.items()):
        y = axes.top + _CLASS_ROW * (row + 0.5)
        there = values[np.isfinite(values)]
        if not there.size:
            canvas.text(zero, y, DASH, "muted", 11, anchor="middle")
            continue
        mean = float(there.mean())
        colour = "faint"
        if there.size > 1 and (np.all(there > 0) or np.all(there < 0)):
            colour = "better" if mean > 0 else "worse"
        x, _ = axes.place(min(max(mean, -reach), reach), 0)
        canvas.box(min(x, zero), y - 4, max(abs(x - zero), 0.8), 8, colour, title=f"{name}: {points(mean)}")
        shown = there if there.size > 1 else []
        for value in shown:
            x, _ = axes.place(min(max(float(value), -reach), reach), 0)
            canvas.disc(x, y, 2.2, "muted", title=f"{name}: {points(float(value))}")
        for side in (-1, 1):
            if side * mean > reach or any(side * value > reach for value in shown):
                x, _ = axes.place(side * reach, 0)
                _arrow_head(canvas, x + 6 * side, y, side, "ink")


def _arrow_head(canvas: Canvas, x: float, y: float, side: int, colour: str) -> None:
    """Points to the right (`side` = 1) or the left (-1): something goes on beyond the axis."""
    canvas.line([(x - 6 * side, y - 5), (x, y), (x - 6 * side, y + 5)], colour, 2)


def _wrapped(text: str, width: float) -> list[str]:
    """Lines of at most a width, where words allow it."""
    lines: list[str] = []
    for word in text.split():
        if lines and text_width(f"{lines[-1]} {word}", 12) <= width:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return lines
