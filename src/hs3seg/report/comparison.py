"""The page of a comparison: arms over several seeds, with intervals, and what they allow to say."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hs3seg.files import write_atomically
from hs3seg.report.comparison_cost import COST_HEAD, COST_NOTE, cost_rows
from hs3seg.report.comparison_pictures import Disagreement, disagreement_html, disagreement_sheet
from hs3seg.report.comparison_section import markdown_table, split_section
from hs3seg.report.comparison_words import SplitComparison, sentence
from hs3seg.report.document import document
from hs3seg.report.load import Run
from hs3seg.report.markup import escape, table, tag

"""The page loads nothing from anywhere, whatever a class may be called."""


@dataclass(frozen=True)
class Shown:
    """Pictures of one seed.

    Args:
        run: The seed's run.
        seed: The seed.
        split: The split the pictures are of.
        reference: The arm that the others are compared with.
        found: The pictures.
    """

    run: Run
    seed: int
    split: str
    reference: str
    found: Sequence[Disagreement]


def write_comparison(
    folder: Path,
    name: str,
    splits: Sequence[SplitComparison],
    *,
    command: str,
    runs: Mapping[int, str],
    pictures: Shown | None = None,
    unfinished: Sequence[str] = (),
) -> Path:
    """Writes index.html, README.md and its pictures.

    Args:
        folder: Where.
        name: Of the comparison.
        splits: In order.
        command: That made it.
        runs: Seed -> its run's report, relative to the folder.
        pictures: Where arms disagree.
        unfinished: What is still to be trained, one sentence each.

    Returns:
        Path of index.html.
    """
    folder.mkdir(parents=True, exist_ok=True)
    said = [sentence(found, c) for found in splits for c in found.others.values()]
    lines = [f"# {name}", "", *(f"- {line}" for line in (*said, *unfinished)), ""]
    lines += [f"Made by `{command}`. Arms of one seed share initial weights, data order and augmentation.", ""]
    sections = []
    for found in splits:
        section = split_section(found)
        for figure in section.figures:
            _write(folder / f"{figure.name}.png", figure.canvas.png())
        sections.append(f'<section id="{escape(found.split)}"><h2>{escape(found.split)}</h2>{section.html}</section>')
        lines += [f"## {found.split}", "", *section.markdown]
    for made in (_cost_section(splits), _picture_section(folder, pictures)):
        if made:
            title, html, markdown = made
            sections.append(f"<section><h2>{escape(title)}</h2>{html}</section>")
            lines += [f"## {title}", "", *markdown]
    _write(folder / "index.html", _document(name, said, unfinished, sections, command, runs).encode())
    _write(folder / "README.md", ("\n".join(lines).rstrip() + "\n").encode())
    return folder / "index.html"


def _document(
    name: str,
    said: Sequence[str],
    unfinished: Sequence[str],
    sections: Sequence[str],
    command: str,
    runs: Mapping[int, str],
) -> str:
    links = ", ".join(f'<a href="{escape(path)}">seed {seed}</a>' for seed, path in runs.items())
    missing = "".join(f"<li>{escape(line)}</li>" for line in unfinished)
    opening = (
        tag("ul", "".join(f"<li>{escape(line)}</li>" for line in said), class_="findings")
        + (f'<div class="missing"><p>Not complete:</p><ul>{missing}</ul></div>' if missing else "")
        + f"<p>Runs: {links}. Arms of one seed share initial weights, data order and augmentation.</p>"
        + f'<p class="note">{escape(command)}</p>'
    )
    return document(name, "hs3seg comparison", opening, f"<main>{''.join(sections)}</main>")


def _cost_section(splits: Sequence[SplitComparison]) -> tuple[str, str, list[str]] | None:
    """Title, HTML and Markdown of what the trainings cost, which is the same for all splits."""
    found = next((found for found in splits if found.spent), None)
    if found is None:
        return None
    head = (*COST_HEAD[:-1], f"{COST_HEAD[-1]} against {found.in_sentence(found.reference)}")
    rows = cost_rows(found.spent, found.reference)
    html = table(head, [[escape(v) for v in row] for row in rows]) + tag("p", escape(COST_NOTE), class_="note")
    return "What it cost", html, [*markdown_table(head, rows), "", COST_NOTE, ""]


def _picture_section(folder: Path, shown: Shown | None) -> tuple[str, str, list[str]] | None:
    if shown is None or not shown.found:
        return None
    _write(folder / f"disagreement-{shown.split}.png", disagreement_sheet(shown.found, shown.reference))
    note = (
        f"Seed {shown.seed}, {shown.split}: of the few images that every evaluation keeps (evaluation.num_samples), for"
        " each arm the one where it gains most pixels and the one where it loses most, or gains least. They show how"
        " arms differ, not how often."
    )
    html = tag("p", escape(note), class_="note") + disagreement_html(shown.found, shown.run, shown.reference)
    return (
        "Where arms disagree",
        html,
        [f"![where arms disagree](disagreement-{shown.split}.png)", "", note, ""],
    )


def _write(path: Path, content: bytes) -> None:
    def write(temporary: Path) -> Any:
        temporary.write_bytes(content)

    write_atomically(path, write)
