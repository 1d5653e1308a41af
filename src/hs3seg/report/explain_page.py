"""The page of `hs3 explain`: pairs of classes by stage, the groups' stability, hints about labels."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hs3seg.analysis import SupervisionPlan
from hs3seg.analysis.label_noise import ImageHint
from hs3seg.analysis.separability import HardPair, Separability
from hs3seg.analysis.stability import StageStability
from hs3seg.report import document as frame
from hs3seg.report.canvas import Canvas, text_width
from hs3seg.report.figure import Figure
from hs3seg.report.grid import grid_of
from hs3seg.report.markup import DASH, data, details, escape, listed, percent, swatch, table, tag
from hs3seg.report.theme import HEAT
from hs3seg.taxonomy import Grouping, Taxonomy

_NEVER = (190, 78, 52, 225)  # RGBA of a pair that no output tells apart
_PAIRS, _IMAGES, _DOUBTS = 15, 20, 12  # rows that are shown unfolded

Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class Explanation:
    """Everything the page shows.

    Args:
        title: Name of the run.
        taxonomy: Its classes.
        plan: Its plan, where there is one.
        separability: Of phase one.
        stability: Of the plan's stages; may be empty.
        hints: About labels, most unusual image first.
        hints_from: Which network and split they come from; empty = none were counted.
        num_images: Of that split.
        missing: What could not be shown, and what to do.
    """

    title: str
    taxonomy: Taxonomy
    plan: SupervisionPlan | None
    separability: Separability
    stability: Sequence[StageStability]
    hints: Sequence[ImageHint]
    hints_from: str
    num_images: int
    missing: Sequence[str]


def document(found: Explanation) -> str:
    """The page, self-contained."""
    made = {
        "pairs": ("Pairs of classes", _pairs(found)),
        "stability": ("Stability of the groups", _stability(found)),
        "labels": ("Hints about labels", _labels(found)),
    }
    return frame.document(found.title, "hs3seg explain", _opening(found), frame.sections(made))


def summary(found: Explanation) -> list[str]:
    """What the page says first, as sentences: pairs, groups, labels."""
    counts = found.separability.counts()
    told = [f"{counts[stage]} from {stage} on" for stage in found.separability.outputs if stage != "final"]
    told += [f"{counts['final']} by the final output alone", f"{counts[None]} by none"]
    lines = [f"Of {sum(counts.values())} pairs of classes, {listed(told)} are told apart."]
    for stage in found.stability:
        low, high = stage.interval()
        lines.append(
            f"{stage.stage}: its {stage.grouping.num_groups} groups agree with those of other draws of the images by"
            f" {stage.mean:.2f} (adjusted Rand index, 95 % of the draws {low:.2f} to {high:.2f})."
        )
    if found.hints_from:
        names = found.taxonomy.names
        first = [(hint.name, names[hint.pairs[0].label], names[hint.pairs[0].said]) for hint in found.hints[:3]]
        shown = [f"{name} (labelled {label}, the network says {said})" for name, label, said in first]
        lines.append(f"Labels to look at first: {listed(shown) or 'none stands out'}.")
    return lines


def _opening(found: Explanation) -> str:
    first, *rest = summary(found)
    parts = [tag("p", escape(first), class_="verdict")]
    if rest:
        parts.append(tag("ul", "".join(f"<li>{escape(line)}</li>" for line in rest), class_="findings"))
    if found.missing:
        lines = "".join(f"<li>{escape(line)}</li>" for line in found.missing)
        parts.append(f'<div class="missing"><p>Not everything could be shown:</p><ul>{lines}</ul></div>')
    return "".join(parts)


def _pairs(found: Explanation) -> str:
    threshold = f"{100 * found.separability.threshold:g}"
    words = (
        "Of the pixels of two classes that an output calls one or the other, the share that it calls rightly, as the"
        " mean of the two classes: 50 % is guessing. A pair counts as told apart from the earliest output on that"
        f" reaches {threshold} %. Measured on phase one, in which every stage has all classes."
    )
    figure = _first_stages(found)
    pairs = found.separability.hardest(60)
    rows = [_pair_row(found, pair) for pair in pairs]
    head = ["Hardest pairs", "", "confused, %", *(f"{escape(o)}, %" for o in found.separability.outputs)]
    head += ["told apart from"]
    head += ["one group at"] if found.plan is not None else []
    content = f"<p>{escape(words)}</p>" + tag("div", figure.html(), class_="figures") + _stage_counts(found)
    content += "<h3>Hardest for the final output</h3>"
    content += "<p>Confused: share of either class's pixels that the final output calls the other, mean of both.</p>"
    content += table(head, rows[:_PAIRS])
    if len(rows) > _PAIRS:
        content += details(f"{len(rows) - _PAIRS} more pairs", table(head, rows[_PAIRS:]))
    return content


def _pair_row(found: Explanation, pair: HardPair) -> list[str]:
    names, colours = found.taxonomy.names, found.taxonomy.colours
    row = [swatch(colours[c]) + escape(names[c]) for c in (pair.first, pair.second)]
    row.append(data(pair.confused, percent(pair.confused)))
    row += [DASH if np.isnan(value) else data(value, percent(value)) for value in pair.accuracies.values()]
    row.append(escape(pair.first_stage) if pair.first_stage else tag("span", "never", class_="worse"))
    if found.plan is not None:
        together = [s.stage for s in found.plan.stages if _together(s.grouping, pair.first, pair.second)]
        row.append(escape(listed(together)) or DASH)
    return row


def _stage_counts(found: Explanation) -> str:
    """Per output how many pairs it tells apart, and how the plan's groups go with that."""
    upper = np.triu_indices(found.taxonomy.num_classes, 1)
    groupings = {s.stage: s.grouping for s in found.plan.stages} if found.plan is not None else {}
    head = ["Output", "pairs measured", "told apart"]
    if groupings:
        head += ["pairs in one group of the plan", "of these told apart", "in two groups, not told apart"]
    rows = []
    for output, values in found.separability.accuracies.items():
        known = ~np.isnan(values[upper])
        apart = values[upper] >= found.separability.threshold
        row = [escape(output), str(int(known.sum())), _of(apart, known)]
        if output in groupings:
            labels = np.array(groupings[output].assignment)
            merged = (labels[:, None] == labels)[upper]
            row += [str(int(pairs.sum())) for pairs in (merged, merged & apart, ~merged & known & ~apart)]
        rows.append(row + [DASH] * (len(head) - len(row)))
    return table(head, rows)


def _of(apart: NDArray[np.bool_], known: NDArray[np.bool_]) -> str:
    return f"{int(apart.sum())} ({percent(float(apart[known].mean()))} %)" if known.any() else DASH


def _together(grouping: Grouping, first: int, second: int) -> bool:
    return grouping.assignment[first] == grouping.assignment[second]


def _first_stages(found: Explanation) -> Figure:
    """The matrix of the earliest output that tells a pair apart."""
    outputs = found.separability.outputs
    steps = np.linspace(60, 225, len(outputs)).round().astype(np.uint8)
    colours = np.zeros((len(outputs) + 2, 4), np.uint8)  # the last is that of -1: nothing known
    colours[: len(outputs)] = [(*HEAT, alpha) for alpha in steps]
    colours[-2] = _NEVER
    legend = [(f"from {output} on", colours[i]) for i, output in enumerate(outputs)] + [("never", colours[-2])]
    grouping = found.plan.stages[-1].grouping if found.plan is not None and found.plan.stages else None
    order = _order(grouping, found.taxonomy.num_classes)
    cells = colours[found.separability.numbers()[np.ix_(order, order)]]
    canvas = _square(cells, [found.taxonomy.names[c] for c in order], "Earliest output that tells a pair apart", legend)
    caption = "Empty: the class itself, or a pair of which nothing was measured. Where a class has red only, hardly any"
    caption += " pixel is given to it."
    if found.plan is not None and grouping is not None:
        caption += f" Classes in the order of the groups of {found.plan.stages[-1].stage}."
    label = "For each pair of classes the earliest output that tells it apart"
    return Figure("pairs", canvas, label, caption, natural=True)


def _stability(found: Explanation) -> str:
    if not found.stability:
        return ""
    draws = len(found.stability[0].agreements)
    words = (
        f"The analysis images are drawn {draws} times anew, each time as many as there are, some twice and some not at"
        " all, and the classes are grouped again. Agreement is the adjusted Rand index with the groups from all images:"
        " 1 for the same groups, 0 for groups by chance. Where it is low, the groups depend on a few images."
    )
    rows, figures, doubts = [], [], []
    for stage in found.stability:
        low, high = stage.interval()
        row = [escape(stage.stage), str(stage.grouping.num_groups), data(stage.mean, f"{stage.mean:.2f}")]
        row.append(escape(f"{low:.2f} to {high:.2f}"))
        if len(stage.sizes):
            few, most = np.quantile(stage.sizes, [0.025, 0.975])
            same = float((stage.sizes == stage.grouping.num_groups).mean())
            mean = float(stage.chosen_agreements.mean())
            row += [
                escape(f"{few:.0f}" if few == most else f"{few:.0f} to {most:.0f}"),
                data(same, f"{percent(same)} %"),
                data(mean, f"{mean:.2f}"),
            ]
        else:
            row += [DASH, DASH, DASH]
        rows.append(row)
        figures.append(_shares(found, stage).html())
        doubts += _doubts(found, stage)
    head = ["Stage", "groups", "agreement", "95 % of the draws", "groups chosen anew", "same number", "agreement then"]
    content = f"<p>{escape(words)}</p>" + table(head, rows)
    content += '<p class="note">The last three columns: each draw also chooses the number of groups anew.</p>'
    content += tag("div", "".join(figures), class_="figures")
    if doubts:
        doubts.sort(key=lambda doubt: abs(doubt[0] - 0.5))
        shown = [row for _, row in doubts]
        head = ["Stage", "classes", "", "together in, %", "in the grouping"]
        content += "<h3>Least certain pairs</h3>" + table(head, shown[:_DOUBTS])
        if len(shown) > _DOUBTS:
            content += details(f"{len(shown) - _DOUBTS} more pairs", table(head, shown[_DOUBTS:]))
    return content


def _doubts(found: Explanation, stage: StageStability) -> list[tuple[float, list[str]]]:
    """Pairs that are together in some draws and not in others: share and table row."""
    names, colours = found.taxonomy.names, found.taxonomy.colours
    pairs = []
    for a, b in itertools.combinations(range(len(names)), 2):
        share = float(stage.together[a, b])
        if 0.1 <= share <= 0.9:
            row = [escape(stage.stage), *(swatch(colours[c]) + escape(names[c]) for c in (a, b))]
            row += [data(share, percent(share)), "together" if _together(stage.grouping, a, b) else "apart"]
            pairs.append((share, row))
    return pairs


def _shares(found: Explanation, stage: StageStability) -> Figure:
    order = _order(stage.grouping, found.taxonomy.num_classes)
    cells = np.empty((len(order), len(order), 4), np.uint8)
    cells[..., :3] = HEAT
    cells[..., 3] = np.rint(235 * stage.together[np.ix_(order, order)])
    names = [found.taxonomy.names[c] for c in order]
    title = f"{stage.stage}: how often two classes are together"
    canvas = _square(cells, names, title, (), [len(group) for group in stage.grouping.groups])
    low, high = stage.interval()
    caption = f"Full colour: in every draw. Frames: the {stage.grouping.num_groups} groups from all images."
    label = f"{title}; agreement {stage.mean:.2f}, {low:.2f} to {high:.2f}"
    return Figure(f"together-{stage.stage}", canvas, label, caption, natural=True)


def _order(grouping: Grouping | None, count: int) -> list[int]:
    return [c for group in grouping.groups for c in group] if grouping is not None else list(range(count))


def _square(
    cells: Pixels,
    names: Sequence[str],
    title: str,
    legend: Sequence[tuple[str, Pixels]] = (),
    blocks: Sequence[int] = (),
) -> Canvas:
    """A matrix of classes: RGBA cells (K, K, 4), names at two sides, a legend above, frames of blocks of classes."""
    grid = grid_of(names)
    left, top = grid.margin + 12, grid.margin + 34 + (20 if legend else 0)
    side, cell = grid.side, grid.cell
    entries = sum(text_width(text, 11) + 34 for text, _ in legend)
    canvas = Canvas(max(left + side, text_width(title, 13, bold=True), entries) + 6, top + side + 4)
    canvas.text(2, 10, title, "ink", 13, bold=True)
    x = 2.0
    for text, colour in legend:
        canvas.cells(x, 25, 12, 12, colour.reshape(1, 1, 4))
        canvas.box(x, 25, 12, 12, stroke="rule")
        canvas.text(x + 18, 31, text, "ink", 11)
        x += text_width(text, 11) + 34
    canvas.cells(left, top, side, side, np.ascontiguousarray(cells))
    canvas.box(left, top, side, side, stroke="rule")
    grid.draw_labels(canvas, left, top)
    start = 0
    for size in blocks:
        a, b = cell * start, cell * (start + size)
        corners = [(a, a), (b, a), (b, b), (a, b), (a, a)]
        canvas.line([(left + across, top + down) for across, down in corners], "ink", 1.4)
        start += size
    return canvas


def _labels(found: Explanation) -> str:
    if not found.hints_from:
        return ""
    words = (
        f"From {found.hints_from}, {found.num_images} images: pixels that the final output holds for another class than"
        " their label; where a stage does not say the same they count half. An image stands high where this is far more"
        " than usual for the label in the other images. A hint is no proof: look at the image. The weaker the network,"
        " the more of them are its own mistakes."
    )
    if not found.hints:
        return f"<p>{escape(words)}</p><p>No image stands out.</p>"
    rows = [_hint_row(found, hint) for hint in found.hints[:100]]
    head = ["Image", "labelled", "network says", "pixels", "of these all outputs"]
    head += ["of this label here, %", "usual, %", "score"]
    content = f"<p>{escape(words)}</p>" + table(head, rows[:_IMAGES])
    if len(rows) > _IMAGES:
        content += details(f"{len(rows) - _IMAGES} more images", table(head, rows[_IMAGES:]))
    return content + '<p class="note">Each image with its most unusual pair; explain.json has three of each.</p>'


def _hint_row(found: Explanation, hint: ImageHint) -> list[str]:
    names, colours, pair = found.taxonomy.names, found.taxonomy.colours, hint.pairs[0]
    return [
        escape(hint.name),
        swatch(colours[pair.label]) + escape(names[pair.label]),
        swatch(colours[pair.said]) + escape(names[pair.said]),
        data(pair.pixels, f"{pair.pixels:,}"),
        data(pair.agreed, f"{pair.agreed:,}"),
        data(pair.share, percent(pair.share)),
        data(pair.expected, percent(pair.expected)),
        data(pair.score, f"{pair.score:.2f}"),
    ]
