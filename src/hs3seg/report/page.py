"""Puts the page together and writes it with its PNG files and report.json."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from hs3seg.analysis import knee_of
from hs3seg.files import write_atomically, write_json
from hs3seg.report import facts
from hs3seg.report.cost import cost_figure, cost_points
from hs3seg.report.curves import chosen_sizes, read_curves, read_reference, tradeoff_figure, training_figures
from hs3seg.report.document import document, sections
from hs3seg.report.figure import Figure
from hs3seg.report.groups import tree_figures
from hs3seg.report.load import Run, load_run
from hs3seg.report.markup import arm_title, data, definitions, details, escape, percent, table, tag
from hs3seg.report.matrices import analysis_figures, split_figures
from hs3seg.report.online import history_figure, history_words
from hs3seg.report.painting import painted
from hs3seg.report.pictures import Tile, contact_sheet, legend, sample_tiles
from hs3seg.report.summary import summarize
from hs3seg.report.tables import class_table, scores_table, stage_table
from hs3seg.report.verdict import Verdict, baseline_of, judge


@dataclass
class _Page:
    """Sections as they are made, and the pictures to write beside the page."""

    run: Run
    verdict: Verdict
    baseline: str | None
    pictures: dict[str, Callable[[], bytes]] = field(default_factory=dict)

    def add(self, name: str, paint: Callable[[], bytes]) -> None:
        """A picture; names that differ only in what a file name may not hold get a number."""
        stem = file = _file_name(name)
        count = 1
        while file in self.pictures:
            count += 1
            file = f"{stem.removesuffix('.png')}-{count}.png"
        self.pictures[file] = paint

    def figures(self, figures: list[Figure], class_: str = "figures") -> str:
        for figure in figures:
            self.add(figure.name, figure.canvas.png)
        return tag("div", "".join(figure.html() for figure in figures), class_=class_)


def build_report(run: Path, out: Path | None = None) -> Path:
    """Writes one self-contained page of a run, whole or partial.

    Args:
        run: Run folder; read only.
        out: Folder for index.html, report.json and PNG files; default RUN/report.

    Returns:
        Path of index.html.

    Raises:
        RunFolderError: no such folder, or nothing of a run in it.
    """
    run, out = Path(run), Path(out) if out is not None else Path(run) / "report"
    loaded = load_run(run)
    page = _Page(loaded, judge(loaded), baseline_of(loaded))
    html = _document(page)
    for name, content in painted(page.pictures):
        write_atomically(out / name, lambda temporary, content=content: temporary.write_bytes(content) and None)  # type: ignore[misc]
    write_json(out / "report.json", summarize(loaded, page.verdict, page.baseline, list(page.pictures)))
    write_atomically(out / "index.html", lambda temporary: temporary.write_text(html, encoding="utf-8") and None)
    return out / "index.html"


def _document(page: _Page) -> str:
    makers: dict[str, tuple[str, Callable[[_Page], str]]] = {
        "results": ("Results", _results),
        "tradeoff": ("Trade-off", _tradeoff),
        "groups": ("Groups", _groups),
        "confusion": ("Confusion", _confusion),
        "samples": ("Samples", _samples),
        "training": ("Training", _training),
        "cost": ("Cost", _cost),
        "run": ("Run", _run),
    }
    made = {key: (title, make(page)) for key, (title, make) in makers.items()}
    return document(page.run.name, "hs3seg report", _opening(page), sections(made))


def _opening(page: _Page) -> str:
    verdict = page.verdict
    parts = [tag("p", escape(verdict.headline), class_="verdict")]
    if verdict.findings:
        parts.append(tag("ul", "".join(f"<li>{escape(line)}</li>" for line in verdict.findings), class_="findings"))
    if verdict.caveats:
        parts.append(tag("ul", "".join(f"<li>{escape(line)}</li>" for line in verdict.caveats), class_="caveats"))
    if page.run.missing:
        lines = "".join(f"<li>{escape(line)}</li>" for line in page.run.missing)
        parts.append(f'<div class="missing"><p>This run is not complete. Left out below:</p><ul>{lines}</ul></div>')
    return "".join(parts)


def _results(page: _Page) -> str:
    run, baseline = page.run, page.baseline
    if baseline is None:
        return ""
    title = escape(arm_title(baseline))
    parts = [
        scores_table(run, baseline, page.verdict.best),
        f'<p class="note">Small figures: difference in points against <em>{title}</em>; grey below 1 point.'
        " Bold: highest mIoU of the split. mIoU is the mean over classes of the data set's IoU.</p>",
    ]
    tables = {split: content for split in run.splits if (content := class_table(run, split, baseline))}
    for number, (split, content) in enumerate(tables.items()):
        parts.append(details(f"IoU of every class on {split}, %", content, opened=number == 0))
    if tables:
        parts.append(
            f'<p class="note">The mark on a bar is <em>{title}</em>. Below 2 points a difference is grey: classes'
            " move more with the seed than their mean.</p>"
        )
    if stages := stage_table(run):
        parts.append("<h3>Stages</h3>" + stages)
        parts.append(
            '<p class="note">mIoU in percent over each stage\'s own groups. Fewer groups are an easier task: compare'
            " columns only where the number of groups is the same.</p>"
        )
    return "".join(parts)


def _tradeoff(page: _Page) -> str:
    figure, found = tradeoff_figure(page.run), read_reference(page.run)
    if figure is None or found is None:
        return ""
    reference, asked, shown, aspect = found
    method = str(page.run.analysis.get("method", "spectral"))
    by_knee = page.run.analysis.get("reference", {}).get("rule") == "knee"
    rule = "for comparison" if by_knee else "the ratio rule" if asked is None else "the angle that was asked for"
    facts_ = definitions(
        {
            **{f"knee of {stage}": _knee(curve) for stage, curve in read_curves(page.run).items()},
            "final output": f"{reference.num_classes} classes, {percent(reference.miou)} % mIoU",
            "mIoU per class": f"{100 * reference.ratio:.3f} points",
            "θ": f"{shown:.1f}° ({rule}), at width:height {aspect:g}",
            "groups found by": method.replace("_", " "),
        }
    )
    words = (
        "mIoU of each stage on the analysis split, after merging its classes into groups. The line through the final"
        " output's point asks every stage for the same trade-off; the largest number of groups on or above it is chosen"
        " (Sec. 3.1.2 of the paper)."
    )
    if by_knee:
        words = (
            "mIoU of each stage on the analysis split, after merging its classes into groups. A stage's number of"
            " groups is where its curve bends most (rule: knee); without a bend it keeps all classes. The line is for"
            " comparison only."
        )
    if method == "constant_ratio":
        words = (
            "mIoU of each stage on the analysis split, after merging its classes into groups. The numbers of groups"
            " were chosen by halving from stage to stage (Sec. 3.1.3 of the paper); the line is for comparison only."
        )
    stages = page.run.analysis.get("stages", {})
    below = [s for s, v in stages.items() if isinstance(v, dict) and v.get("reaches_line") is False]
    warning = (
        f" No point of {escape(', '.join(below))} reaches the line; its smallest number of groups was taken."
        if below and method != "constant_ratio" and not by_knee
        else ""
    )
    drawn = tag("div", page.figures([figure]) + facts_, class_="beside")
    return (
        f"<p>{words}{warning}</p>" + drawn + details("The curves in numbers, mIoU in percent", _curve_table(page.run))
    )


def _curve_table(run: Run) -> str:
    curves, chosen = read_curves(run), chosen_sizes(run)
    rows = []
    for size in sorted({size for curve in curves.values() for size in curve}, reverse=True):
        cells = [
            (size == chosen.get(stage), data(curve.get(size), percent(curve.get(size))))
            for stage, curve in curves.items()
        ]
        rows.append([str(size), *(tag("strong", cell) if bold else cell for bold, cell in cells)])
    return table(["groups", *map(escape, curves)], rows) + tag("p", "Bold: the chosen number of groups.", class_="note")


def _knee(curve: Mapping[int, float]) -> str:
    knee = knee_of(curve)
    if not knee.is_clear:
        return "none: no number of groups stands out"
    return f"{knee.num_groups} groups, {100 * knee.height:.0f} points above a straight fall"


def _groups(page: _Page) -> str:
    return _hs3_groups(page) + _online_groups(page)


def _online_groups(page: _Page) -> str:
    parts = []
    for name, arm in page.run.arms.items():
        if arm.plan is None or arm.plan.online is None:
            continue
        figure = history_figure(arm)
        content = f"<p>{escape(history_words(arm))}</p>" + (page.figures([figure]) if figure is not None else "")
        if arm.last_groups is not None:
            trees = page.figures(tree_figures(page.run, arm.last_groups, f"{name}-last"), "figures trees")
            content += details("The groups at the end", trees)
        parts.append(f"<h3>{escape(arm_title(name))}</h3>" + content)
    return "".join(parts)


def _hs3_groups(page: _Page) -> str:
    run = page.run
    if run.plan is None or not run.plan.stages:
        return ""
    words = "What each stage of HS3 learns to tell apart; classes joined at a dot are one class for that stage."
    if run.confusions:
        words += (
            " Figures: IoU in percent on the analysis split in phase one, of a class alone and of its group as one."
        )
    parts = [f"<p>{words}</p>", page.figures(tree_figures(run, run.plan, "hs3"), "figures trees")]
    notes = [_edited(run), _absent(run)]
    parts += [f'<p class="note">{escape(note)}</p>' for note in notes if note]
    for name, arm in run.arms.items():
        if name != "hs3" and arm.plan is not None and any(not s.grouping.is_identity for s in arm.plan.stages):
            parts.append(details(arm_title(name), page.figures(tree_figures(run, arm.plan, name), "figures trees")))
    return "".join(parts)


def _edited(run: Run) -> str:
    """Says so where the plan is not the one that the analysis proposed."""
    stages = run.analysis.get("stages", {})
    for stage in run.plan.stages if run.plan is not None else ():
        proposed = stages.get(stage.stage, {}).get("groups") if isinstance(stages.get(stage.stage), dict) else None
        if proposed and {frozenset(g) for g in proposed} != {frozenset(g) for g in stage.grouping.groups}:
            return (
                f"The plan differs from what the analysis proposed for {stage.stage}: it was edited, or given by hand."
            )
    return ""


def _absent(run: Run) -> str:
    absent = run.analysis.get("absent_classes", [])
    names = run.taxonomy.names if run.taxonomy is not None else ()
    shown = [names[c] if isinstance(c, int) and 0 <= c < len(names) else str(c) for c in absent]
    return (
        f"The analysis split has no pixel of {', '.join(shown)}: where these are grouped means nothing."
        if shown
        else ""
    )


def _confusion(page: _Page) -> str:
    run = page.run
    analysis = analysis_figures(run)
    by_split = {split: figures for split in run.splits if (figures := split_figures(run, split))}
    if not analysis and not by_split:
        return ""
    framed = run.plan is not None and bool(run.plan.stages)
    order = " Classes are ordered by group, and groups are framed." if framed else ""
    parts = [f"<p>Share of each class's pixels (row) by what they were predicted as (column), in percent.{order}</p>"]
    if analysis:
        parts.append("<h3>Phase one, on the analysis split</h3>" + page.figures(analysis))
    for split, figures in by_split.items():
        parts.append(details(f"Final output of every arm on {split}", page.figures(figures), opened=not analysis))
    return "".join(parts)


def _samples(page: _Page) -> str:
    run = page.run
    parts: list[str] = []
    for split in run.splits:
        samples = list(sample_tiles(run, split))
        if not samples or run.taxonomy is None:
            continue
        page.add(f"samples-{split}", partial(contact_sheet, samples))
        rows = "".join(f"<h4>{escape(name)}</h4>{_tiles(name, tiles)}" for name, tiles in samples)
        parts.append(details(f"Samples of {split}", legend(run.taxonomy, run, split) + rows, opened=not parts))
    if not parts:
        return ""
    return (
        "<p>Spread evenly over the split, not chosen by quality. A stage's prediction has its groups' colours, and is"
        " right where it names the right group. Pixels without a class are empty.</p>" + "".join(parts)
    )


def _tiles(name: str, tiles: list[Tile]) -> str:
    content = "".join(tile.html(name) for tile in tiles)
    return tag("div", content, class_="tiles", style=f"--count:{min(len(tiles), 8)}")


def _training(page: _Page) -> str:
    parts = []
    figures = training_figures(page.run)
    for name, made in figures.items():
        if made:
            parts.append(f"<h3>{escape(arm_title(name))}</h3>" + page.figures(made))
    table = facts.training_table(page.run)
    if not parts:
        return table
    watched = any(len(made) > 1 for made in figures.values())
    words = "Thin: as logged. Thick: moving mean over a tenth of the curve. All arms have the same axes."
    words += (
        " Losses of stages with different numbers of groups are different tasks; terms are shown before their weight."
    )
    words += (
        " mIoU while training is for looking only: nothing was chosen by it."
        if watched
        else (" The run was evaluated only at its end, so there is no mIoU curve (train.evaluate_every = 0).")
    )
    return f"<p>{words}</p>" + "".join(parts) + table


def _cost(page: _Page) -> str:
    table = facts.cost_table(page.run)
    if not table:
        return ""
    figure = cost_figure(cost_points(page.run), page.run.profile.get("input_size", ()))
    shown = page.figures([figure]) if figure is not None else ""
    return table + tag("p", escape(facts.cost_words(page.run)), class_="note") + shown


def _run(page: _Page) -> str:
    return facts.run_facts(page.run) + "<h3>Make it again</h3>" + facts.reproduce(page.run)


def _file_name(stem: str) -> str:
    """A PNG name of a figure; stage and arm names may hold anything."""
    return "".join(c if c.isascii() and (c.isalnum() or c in "-_.") else "_" for c in stem).lstrip(".") + ".png"
