"""The page of a study: the paper's rows beside ours, intervals, pictures, and how it was made."""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from hs3seg.files import write_atomically
from hs3seg.report.canvas import Canvas, text_width
from hs3seg.report.comparison_section import Section, markdown_figure, markdown_table, split_section
from hs3seg.report.comparison_words import SplitComparison, p_value, sentence
from hs3seg.report.document import document
from hs3seg.report.figure import Axes, Figure, legend, percents, ticks
from hs3seg.report.markup import data_uri, definitions, escape, percent, points, table, tag


@dataclass(frozen=True)
class Picture:
    """A picture that is pixels already.

    Args:
        name: Stem of its PNG file.
        png: Its content.
        caption: Text below.
        drawn: The same without photographs; empty = there is none.
    """

    name: str
    png: bytes
    caption: str
    drawn: bytes = b""

    def html(self) -> str:
        """The `<figure>` element; its picture is inside, stored lossy."""
        image = Image.open(io.BytesIO(self.png)).convert("RGB")
        buffer = io.BytesIO()
        image.save(buffer, "WEBP", quality=85, method=2)
        drawing = (
            f'<img src="{data_uri(buffer.getvalue(), "webp")}" width="{image.width}" height="{image.height}"'
            f' style="max-width:100%;height:auto" alt="{escape(self.caption)}">'
        )
        return tag("figure", drawing + tag("figcaption", escape(self.caption)))


@dataclass(frozen=True)
class StudyPage:
    """What the page of a study says.

    Args:
        title: Of the study.
        source: Where the paper's numbers stand.
        question: What is asked.
        notes: How ours differs, and what is missing; a paragraph each.
        head: Of the table.
        rows: As many cells each; plain text.
        comparisons: (setting, its comparison), in order.
        figures: Drawn.
        pictures: Pixels.
        facts: What was trained, by setting.
        links: Text -> address relative to the page.
        command: That made it.
        others: Comparisons against other arms than the usual one, told in one table.
        commits: Of the sources that trained, with commas.
    """

    title: str
    source: str
    question: str
    notes: Sequence[str]
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    comparisons: Sequence[tuple[str, SplitComparison]]
    figures: Sequence[Figure]
    pictures: Sequence[Picture]
    facts: Mapping[str, str]
    links: Mapping[str, str]
    command: str
    others: Sequence[tuple[str, SplitComparison]] = ()
    commits: str = ""


def sweep_figure(
    name: str,
    x_title: str,
    ours: Mapping[float, Sequence[float]],
    paper: Mapping[float, float] | None = None,
    levels: Mapping[str, float] | None = None,
) -> Figure | None:
    """Draws mIoU against a setting: a dot per seed, a line through their means; the paper's in a panel of its own.

    Args:
        name: Stem of the PNG file.
        x_title: Of the axis.
        ours: Place -> one mIoU per seed, fractions.
        paper: Place -> the paper's mIoU, a fraction.
        levels: Name -> mean mIoU of an arm without a place, drawn as a level line.

    Returns:
        None with fewer than two places of ours.
    """
    if len(ours) < 2:
        return None
    panels: list[tuple[str, str, dict[float, list[float]], dict[str, float]]] = [
        ("ours", "accent", {x: list(values) for x, values in sorted(ours.items())}, dict(levels or {}))
    ]
    if paper and len(paper) > 1:
        panels.append(("paper", "stage0", {x: [value] for x, value in sorted(paper.items())}, {}))
    canvas = Canvas(430.0 * len(panels), 340)
    for number, (title, colour, places_of, own_levels) in enumerate(panels):
        seen = [v for values in places_of.values() for v in values] + list(own_levels.values())
        margin = max(0.002, 0.12 * (max(seen) - min(seen)))
        places = sorted(places_of)
        reach = 0.05 * (places[-1] - places[0])
        axes = Axes(
            canvas,
            *(430.0 * number + 58, 44, 352, 240),
            x=(places[0] - reach, places[-1] + reach),
            y=(min(seen) - margin, max(seen) + margin),
        )
        canvas.text(430.0 * number + 58, 14, title, colour, 13, bold=True)
        _frame(axes, x_title, places)
        entries = []
        for index, (level, value) in enumerate(own_levels.items()):
            shade = ("faint", "stage1", "stage3")[index % 3]
            _, y = axes.place(places[0], value)
            canvas.line([(axes.left, y), (axes.left + axes.width, y)], shade, 1.5, dash=5)
            entries.append((f"{level} {percent(value)}", shade))
        if entries:
            legend(canvas, 430.0 * number + 110, 14, 430.0 * (number + 1) - 10, entries)
        means = [(x, float(np.mean(places_of[x]))) for x in places]
        canvas.line([axes.place(*pair) for pair in means], colour, 2)
        for x in places:
            for value in places_of[x] if len(places_of[x]) > 1 else []:
                canvas.disc(*axes.place(x, value), 3, "faint", title=f"{x:g}: {percent(value)} %")
        for x, mean in means:
            canvas.disc(*axes.place(x, mean), 5, colour, title=f"{x:g}: mean {percent(mean)} %")
    label = "; ".join(f"{x:g}: {percent(float(np.mean(v)))} %" for x, v in sorted(ours.items()))
    return Figure(name, canvas, f"mIoU against {x_title}: {label}", "Large: mean; small: seeds.", natural=True)


def _frame(axes: Axes, x_title: str, places: Sequence[float]) -> None:
    """Grid and titles; the tick labels of x are the places themselves."""
    canvas, bottom, right = axes.canvas, axes.top + axes.height, axes.left + axes.width
    levels = ticks(*axes.y, 5)
    for value, text in zip(levels, percents(levels), strict=True):
        _, y = axes.place(places[0], value)
        canvas.line([(axes.left, y), (right, y)], "rule", 1)
        canvas.text(axes.left - 8, y, text, "muted", 11, anchor="end")
    canvas.line([(axes.left, bottom), (right, bottom)], "faint", 1)
    free = axes.left - 20
    for value in places:
        x, _ = axes.place(value, 0)
        canvas.line([(x, bottom), (x, bottom + 4)], "faint", 1)
        text = f"{value:g}"
        if x - text_width(text, 11) / 2 > free:
            canvas.text(x, bottom + 14, text, "muted", 11, anchor="middle")
            free = x + text_width(text, 11) / 2 + 2
    canvas.text((axes.left + right) / 2, bottom + 34, x_title, "muted", 11.5, anchor="middle")
    canvas.text(axes.left - 44, axes.top + axes.height / 2, "mIoU, %", "muted", 11.5, anchor="middle", upright=True)


def write_study(folder: Path, page: StudyPage) -> Path:
    """Writes index.html, README.md and a PNG per picture.

    Args:
        folder: Where.
        page: What it says.

    Returns:
        Path of index.html.
    """
    sections = _sections(page)
    _write_readme(folder, page, sections, {picture.name: picture.png for picture in page.pictures})
    _write(folder / "index.html", _html(page, sections).encode())
    return folder / "index.html"


def publish_study(folder: Path, page: StudyPage) -> Path:
    """Writes README.md and a PNG per picture, none of them a photograph of the data set.

    Args:
        folder: Where.
        page: What it says.

    Returns:
        Path of README.md.
    """
    pictures = {picture.name: picture.drawn for picture in page.pictures if picture.drawn}
    return _write_readme(folder, page, _sections(page), pictures)


def _sections(page: StudyPage) -> list[tuple[str, Section]]:
    """Title and content of every comparison."""
    return [
        (f"{found.place or setting}, {found.split}", split_section(found, setting))
        for setting, found in page.comparisons
    ]


def _write_readme(
    folder: Path, page: StudyPage, sections: Sequence[tuple[str, Section]], pictures: Mapping[str, bytes]
) -> Path:
    """README.md and what it shows: the drawings, and these pictures by name."""
    folder.mkdir(parents=True, exist_ok=True)
    drawn = [*page.figures, *(figure for _, section in sections for figure in section.figures)]
    images = {figure.name: figure.canvas.png() for figure in drawn} | dict(pictures)
    for name, png in images.items():
        _write(folder / f"{name}.png", png)
    _write(folder / "README.md", _markdown(page, sections, list(pictures)).encode())
    return folder / "README.md"


def findings(page: StudyPage) -> list[str]:
    """What the numbers allow to say, a sentence per arm and split."""
    return [sentence(found, comparison) for _, found in page.comparisons for comparison in found.others.values()]


def _html(page: StudyPage, compared: Sequence[tuple[str, Section]]) -> str:
    notes = "".join(tag("p", escape(note), class_="note") for note in page.notes)
    rows = table(page.head, [[escape(cell) for cell in row] for row in page.rows]) if page.rows else ""
    sections = [f"<section><h2>{_rows_title(page)}</h2>{rows}{notes}</section>"]
    if page.figures or page.pictures:
        shown = "".join(figure.html() for figure in page.figures)
        shown += "".join(picture.html() for picture in page.pictures)
        sections.append(f"<section><h2>Pictures</h2>{shown}</section>")
    sections += [f"<section><h2>{escape(title)}</h2>{section.html}</section>" for title, section in compared]
    if page.others:
        told = [[escape(cell) for cell in row] for row in _other_rows(page)]
        sections.append(f"<section><h2>{_OTHERS}</h2>{table(_OTHERS_HEAD, told)}</section>")
    sections.append(f"<section><h2>What was trained</h2>{definitions(page.facts)}</section>")
    links = ", ".join(f'<a href="{escape(address)}">{escape(text)}</a>' for text, address in page.links.items())
    said = "".join(f"<li>{escape(line)}</li>" for line in findings(page))
    opening = (
        tag("p", escape(page.question))
        + (tag("ul", said, class_="findings") if said else "")
        + (f"<p>Runs: {links}</p>" if links else "")
        + f'<p class="note">{escape(page.command)}{escape(_of_commits(page))}</p>'
    )
    return document(page.title, "hs3seg study", opening, f"<main>{''.join(sections)}</main>", kicker=page.source)


_OTHERS = "Against other arms"
_OTHERS_HEAD = ("", "arm", "against", "seeds", "difference", "interval", "p", "p, Holm")


def _other_rows(page: StudyPage) -> list[list[str]]:
    """A row per arm and split; p after Holm is of all arms that are compared with the same one on the same split."""
    rows = []
    for _, found in page.others:
        for arm, c in found.others.items():
            interval = "-" if c.interval is None else f"{points(c.interval[0])} to {points(c.interval[1])}"
            told = [str(len(c.seeds)), points(c.difference), interval, p_value(c.p), p_value(c.adjusted_p)]
            rows.append([found.where, found.title(arm), found.title(found.reference), *told])
    return rows


def _of_commits(page: StudyPage) -> str:
    """Which sources trained."""
    short = [commit[:7] + "+" * commit.endswith("+") for commit in page.commits.split(", ") if commit]
    return f" (trained at commit {', '.join(short)})" if short else ""


def _rows_title(page: StudyPage) -> str:
    return "The paper's rows and ours" if any("paper" in cell for cell in page.head) else "All rows"


def _markdown(page: StudyPage, sections: Sequence[tuple[str, Section]], pictures: Sequence[str]) -> str:
    lines = [f"# {page.title}", "", f"{page.source}. {page.question}", ""]
    lines += [f"- {line}" for line in findings(page)] + [""]
    if page.rows:
        lines += [f"## {_rows_title(page)}", "", *markdown_table(page.head, page.rows), ""]
    lines += [f"{note}\n" for note in page.notes]
    for figure in page.figures:
        lines += markdown_figure(figure, figure.name)
    for picture in [picture for picture in page.pictures if picture.name in pictures]:
        lines += [f"![{picture.name}]({picture.name}.png)", "", picture.caption, ""]
    for title, section in sections:
        lines += [f"## {title}", "", *section.markdown]
    if page.others:
        lines += [f"## {_OTHERS}", "", *markdown_table(_OTHERS_HEAD, _other_rows(page)), ""]
    lines += ["## What was trained", "", *(f"- {name}: {what}" for name, what in page.facts.items()), ""]
    lines += [
        f"Made by `{page.command}`{_of_commits(page)}. Arms of one seed share initial weights, data order and"
        " augmentation."
    ]
    return "\n".join(lines).rstrip() + "\n"


def _write(path: Path, content: bytes) -> None:
    def write(temporary: Path) -> Any:
        temporary.write_bytes(content)

    write_atomically(path, write)
