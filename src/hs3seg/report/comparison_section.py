"""One comparison on a page: scores, what to be careful with, intervals, and gains class by class."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from hs3seg.report.comparison_figures import class_figure, interval_figure
from hs3seg.report.comparison_words import HEAD, SplitComparison, caveats, scores_rows
from hs3seg.report.figure import Figure
from hs3seg.report.markup import DASH, details, escape, points, table, tag


@dataclass(frozen=True)
class Section:
    """A comparison as HTML and as Markdown, without a title.

    Args:
        html: With its figures inside.
        markdown: Lines, which show the figures' PNG files.
        figures: To be written beside the Markdown file, by their names.
    """

    html: str
    markdown: Sequence[str]
    figures: Sequence[Figure]


def split_section(found: SplitComparison, suffix: str = "") -> Section:
    """What a page shows of a comparison.

    Args:
        found: The comparison.
        suffix: Of its figures' names, where a page has several comparisons of equally named splits.
    """
    rows, notes = scores_rows(found), caveats(found)
    parts = [table(HEAD, [[escape(v) for v in row] for row in rows])]
    lines = [*markdown_table(HEAD, rows), ""]
    figures = []
    if notes:
        parts.append(tag("ul", "".join(f"<li>{escape(note)}</li>" for note in notes), class_="caveats"))
        lines += [*(f"- {note}" for note in notes), ""]
    if drawn := interval_figure(found):
        figures.append(_named(drawn, suffix))
        parts.append(figures[-1].html())
        lines += markdown_figure(figures[-1], f"differences on {found.where}")
    if drawn := class_figure(found):
        figures.append(_named(drawn, suffix))
        parts += [f"<h3>Class by class, against {escape(found.in_sentence(found.reference))}</h3>", figures[-1].html()]
        parts.append(details("the same in numbers", _class_table(found)))
        lines += markdown_figure(figures[-1], f"differences per class on {found.where}")
    return Section("".join(parts), lines, figures)


def markdown_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines of a table; a bar in a cell, as in a class's name, does not end it."""
    lines = [" | ".join(cell.replace("|", "\\|") for cell in row) for row in (head, *rows)]
    return [f"| {lines[0]} |", "|" + "---|" * len(head), *(f"| {line} |" for line in lines[1:])]


def markdown_figure(figure: Figure, words: str) -> list[str]:
    """Lines that show a figure's PNG file and its caption."""
    return [f"![{words}]({figure.name}.png)", "", *([figure.caption, ""] if figure.caption else [])]


def _named(figure: Figure, suffix: str) -> Figure:
    return replace(figure, name=f"{figure.name}-{suffix}") if suffix else figure


def _class_table(found: SplitComparison) -> str:
    rows = [
        [escape(name), *(_mean(found.per_class[arm].get(name, ())) for arm in found.per_class)]
        for name in found.reference_iou
    ]
    head = ["mean difference of IoU, points", *(escape(found.title(arm)) for arm in found.per_class)]
    return table(head, rows)


def _mean(values: Sequence[float]) -> str:
    there = [value for value in values if not math.isnan(value)]
    return points(sum(there) / len(there)) if there else DASH
