"""The page of a comparison: arms over several seeds, with intervals, and what they allow to say."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from hs3seg.analysis import Comparison
from hs3seg.files import write_atomically
from hs3seg.report.canvas import Canvas
from hs3seg.report.figure import Axes, Figure, ticks
from hs3seg.report.markup import arm_title, escape, in_sentence, percent, table, tag
from hs3seg.report.theme import css_variables

_WIDTH, _ROW, _LEFT = 640.0, 34.0, 190.0


@dataclass(frozen=True)
class SplitComparison:
    """All arms on one split.

    Args:
        split: Name.
        reference: The arm that the others are compared with.
        arms: Arm -> comparison.
        per_class: Arm -> class -> mean difference of IoU to the reference; may be empty.
    """

    split: str
    reference: str
    arms: Mapping[str, Comparison]
    per_class: Mapping[str, Mapping[str, float]]


def sentence(comparison: Comparison, reference: str, split: str) -> str:
    """What one arm's numbers allow to say."""
    name, base = arm_title(comparison.arm), in_sentence(reference)
    n = len(comparison.seeds)
    points = f"{100 * comparison.difference:+.1f} points of mIoU"
    if comparison.interval is None:
        return f"{split}: {name} against {base}: {points} with one seed, which decides nothing."
    low, high = (100 * value for value in comparison.interval)
    between = f"{points}, {low:+.1f} to {high:+.1f} at {100 * comparison.confidence:.0f} %, {n} seeds"
    if not comparison.is_significant:
        return f"{split}: {name} and {base} cannot be told apart ({between})."
    better = "better" if comparison.difference > 0 else "worse"
    return f"{split}: {name} is {better} than {base} ({between})."


def interval_figure(found: SplitComparison) -> Figure | None:
    """Differences to the reference: a dot per seed, their mean, and its interval."""
    rows = [c for arm, c in found.arms.items() if arm != found.reference]
    if not rows:
        return None
    values = [v for c in rows for v in (*c.differences, *(c.interval or ()))]
    # A wild interval of few seeds must not flatten all others; what is cut off ends in an arrow.
    seen = [v for c in rows for v in c.differences]
    reach = max(0.01, 2.5 * max(abs(v) for v in seen))
    low, high = max(min([*values, 0.0]), -reach), min(max([*values, 0.0]), reach)
    margin = 0.08 * (high - low)
    canvas = Canvas(_WIDTH, 40 + _ROW * len(rows) + 46)
    canvas.text(_LEFT, 14, found.split, "accent", 13, bold=True)
    bottom = 36 + _ROW * len(rows)
    axes = Axes(canvas, _LEFT, 36, _WIDTH - _LEFT - 24, _ROW * len(rows), (low - margin, high + margin), (0, 1))
    for value in ticks(low - margin, high + margin, 7):
        x, _ = axes.place(value, 0)
        canvas.line([(x, 36), (x, bottom)], "ink" if value == 0 else "rule", 1)
        canvas.text(x, bottom + 14, f"{100 * value:+g}" if value else "0", "muted", 11, anchor="middle")
    canvas.text(
        _LEFT + (_WIDTH - _LEFT - 24) / 2,
        bottom + 34,
        f"points of mIoU against {in_sentence(found.reference)}",
        "muted",
        11.5,
        anchor="middle",
    )
    for number, comparison in enumerate(rows):
        y = 36 + _ROW * (number + 0.5)
        colour = "muted"
        if comparison.is_significant:
            colour = "better" if comparison.difference > 0 else "worse"
        canvas.text(_LEFT - 12, y, arm_title(comparison.arm), "ink", 12, anchor="end")
        if comparison.interval:
            ends = [axes.place(min(max(v, low - margin), high + margin), 0)[0] for v in comparison.interval]
            canvas.line([(ends[0], y), (ends[1], y)], colour, 3)
        for seed, value in zip(comparison.seeds, comparison.differences, strict=True):
            x, _ = axes.place(value, 0)
            canvas.disc(x, y + 9, 3, "faint", title=f"seed {seed}: {100 * value:+.2f}")
        x, _ = axes.place(comparison.difference, 0)
        canvas.disc(x, y, 5, colour, title=f"mean {100 * comparison.difference:+.2f}")
    label = "; ".join(sentence(c, found.reference, found.split) for c in rows)
    return Figure(
        f"intervals-{found.split}",
        canvas,
        label,
        "Large dot: mean difference; bar: its interval; small dots: seeds. Grey: the interval holds zero.",
        natural=True,
    )


def scores_rows(found: SplitComparison) -> list[list[str]]:
    """Per arm: name, seeds, mean, spread, difference, interval, p of the sign test; plain text."""
    rows = []
    for arm, c in found.arms.items():
        interval = "-" if c.interval is None else f"{100 * c.interval[0]:+.1f} to {100 * c.interval[1]:+.1f}"
        spread = "-" if math.isnan(c.spread) else f"{100 * c.spread:.1f}"
        own = arm == found.reference
        rows.append(
            [
                arm_title(arm),
                str(len(c.seeds)),
                percent(c.mean),
                spread,
                "reference" if own else f"{100 * c.difference:+.1f}",
                "" if own else interval,
                "" if own else f"{c.sign_p:.2f}",
            ]
        )
    return rows


HEAD = ("arm", "seeds", "mIoU %", "spread", "difference", "interval", "sign test p")


def write_comparison(
    folder: Path, name: str, splits: Sequence[SplitComparison], *, command: str, runs: Mapping[int, str]
) -> Path:
    """Writes index.html, README.md and a picture per split.

    Args:
        folder: Where.
        name: Of the comparison.
        splits: In order.
        command: That made it.
        runs: Seed -> its run's report, relative to the folder.

    Returns:
        Path of index.html.
    """
    folder.mkdir(parents=True, exist_ok=True)
    sections, lines = [], [f"# {name}", ""]
    for found in splits:
        said = [sentence(c, found.reference, found.split) for a, c in found.arms.items() if a != found.reference]
        lines += [f"- {line}" for line in said]
    lines += ["", f"Made by `{command}`. Arms of one seed share initial weights, data order and augmentation.", ""]
    for found in splits:
        rows = scores_rows(found)
        figure = interval_figure(found)
        parts = [table(HEAD, [[escape(v) for v in row] for row in rows])]
        lines += [f"## {found.split}", "", f"| {' | '.join(HEAD)} |", "|" + "---|" * len(HEAD)]
        lines += [f"| {' | '.join(row)} |" for row in rows] + [""]
        if figure:
            content = figure.canvas.png()
            _write(folder / f"{figure.name}.png", content)
            parts.append(figure.html())
            lines += [f"![differences on {found.split}]({figure.name}.png)", ""]
        if found.per_class:
            parts.append(_class_table(found))
        sections.append(f"<section><h2>{escape(found.split)}</h2>{''.join(parts)}</section>")
    verdict = "".join(
        f"<li>{escape(sentence(c, f.reference, f.split))}</li>"
        for f in splits
        for a, c in f.arms.items()
        if a != f.reference
    )
    links = ", ".join(f'<a href="{escape(path)}">seed {seed}</a>' for seed, path in runs.items())
    style = css_variables() + files("hs3seg.report").joinpath("style.css").read_text(encoding="utf-8")
    html = (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(name)}: hs3seg comparison</title><style>{style}</style></head><body>"
        f'<header><p class="kicker">hs3seg comparison</p><h1>{escape(name)}</h1>'
        + tag("ul", verdict, class_="findings")
        + f'<p>Runs: {links}</p><p class="note">{escape(command)}</p></header>'
        + f"<main>{''.join(sections)}</main></body></html>\n"
    )
    _write(folder / "index.html", html.encode())
    _write(folder / "README.md", ("\n".join(lines).rstrip() + "\n").encode())
    return folder / "index.html"


def _class_table(found: SplitComparison) -> str:
    names = list(next(iter(found.per_class.values())))
    rows = [
        [escape(name), *(f"{100 * found.per_class[arm].get(name, math.nan):+.1f}" for arm in found.per_class)]
        for name in names
    ]
    head = ["mean difference of IoU, points", *(arm_title(arm) for arm in found.per_class)]
    return table(head, rows)


def _write(path: Path, content: bytes) -> None:
    def write(temporary: Path) -> Any:
        temporary.write_bytes(content)

    write_atomically(path, write)
