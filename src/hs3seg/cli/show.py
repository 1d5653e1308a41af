"""Results for a person, as tables on standard output."""

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from hs3seg.analysis import Comparison, Knee, SupervisionPlan
from hs3seg.report.comparison_words import HEAD, SplitComparison, scores_rows, sentence
from hs3seg.report.markup import in_sentence


class Table(RichTable):
    """A table of plain words: names in square brackets, as in `lane [dashed]`, are not taken for styles."""

    def __init__(self, title: str | None = None, **options: Any) -> None:
        super().__init__(title=None if title is None else Text(title), **options)

    def add_row(self, *cells: str) -> None:  # type: ignore[override]  # of words alone
        """One row."""
        super().add_row(*(Text(cell) for cell in cells))


def _console() -> Console:
    """Standard output, for plain words: people give classes, arms and folders whatever names they like."""
    return Console(markup=False, emoji=False, highlight=False)


def run(result: dict[str, Any]) -> None:
    """Table of arms, the groups, the honest end state, the report's place."""
    console = _console()
    for split, arms in result["splits"].items():
        table = Table(title=f"{split}, seed {result['seed']}")
        for column in ("arm", "mIoU %", "pixel accuracy %"):
            table.add_column(column, justify="left" if column == "arm" else "right")
        for arm, values in arms.items():
            table.add_row(in_sentence(arm), _percent(values["miou"]), _percent(values["pixel_accuracy"]))
        console.print(table)
    for stage, groups in result.get("groups", {}).items():
        console.print(f"{stage}: {len(groups)} groups", style="bold")
        merged = [" + ".join(group) for group in groups if len(group) > 1]
        console.print("  merged: " + ("; ".join(merged) or "nothing, every class on its own"))
    for line in verdict(result):
        console.print(line)
    if result["plan"]:
        console.print(f"plan:   {result['plan']}", soft_wrap=True)
    console.print(f"report: {result['report']}", soft_wrap=True)
    console.print(f"time:   {result['seconds'] / 60:.1f} minutes")


def verdict(result: Mapping[str, Any]) -> list[str]:
    """Who won on each split, and how much one run is worth."""
    lines = []
    for split, arms in result["splits"].items():
        scores = {arm: values["miou"] for arm, values in arms.items() if values["miou"] is not None}
        if len(scores) < 2:
            continue
        first, second = sorted(scores, key=lambda arm: -scores[arm])[:2]
        gap = 100 * (scores[first] - scores[second])
        line = f"{split}: {in_sentence(first)} is ahead of {in_sentence(second)} by {gap:.1f} points"
        if "hs3" in scores and first != "hs3":
            line += f"; HS3 did not win (it is {100 * (scores[first] - scores['hs3']):.1f} points behind)"
        lines.append(line + ".")
    if lines:
        lines.append("One seed: differences of about a point are within what the seed alone moves.")
        arms = {arm for own in result["splits"].values() for arm in own}
        if "hs3" in arms and result.get("phase_one") and "deep_supervision_long" not in arms:
            lines.append(
                "HS3 trained twice, once to find its groups: of equal compute is the arm deep_supervision_long."
            )
    return lines


def train(result: dict[str, Any]) -> None:
    """Where the weights are."""
    _console().print(f"weights: {result['weights']} ({result['seconds'] / 60:.1f} minutes)", soft_wrap=True)


def files(result: dict[str, Any]) -> None:
    """Plain `key: value` lines."""
    console = _console()
    for key, value in result.items():
        for item in value if isinstance(value, list) else [value]:
            console.print(f"{key}: {item}", soft_wrap=True)


def plan(result: dict[str, Any], plan: SupervisionPlan) -> None:
    """The reference, and the groups of each stage by name."""
    console = _console()
    reference = result["reference"]
    console.print(
        f"final output: mIoU {_percent(reference['miou'])} % on {reference['num_classes']} classes,"
        f" ratio {reference['ratio']:.5f} per class"
    )
    for stage in plan.stages:
        found = result["stages"].get(stage.stage, {})
        console.print(
            f"{stage.stage}: {stage.grouping.num_groups} groups, mIoU {_percent(found.get('miou'))} %"
            f"{_knee(found.get('knee'))}",
            style="bold",
        )
        for group in stage.grouping.groups:
            console.print("  " + ", ".join(plan.taxonomy_names[c] for c in group))
    if result["absent_classes"]:
        absent = ", ".join(plan.taxonomy_names[c] for c in result["absent_classes"])
        console.print(f"no pixel of {absent} in these matrices: where they are grouped means nothing")
    if "plan" in result:
        console.print(f"plan: {result['plan']}", soft_wrap=True)


def _knee(found: dict[str, Any] | None) -> str:
    if found is None:
        return ""
    knee = Knee(**found)
    return f"; its curve bends at {knee.num_groups}" if knee.is_clear else "; its curve has no knee"


def evaluation(result: dict[str, Any]) -> None:
    """mIoU, pixel accuracy and IoU per class."""
    console = _console()
    console.print(
        f"{result['split']}: mIoU {_percent(result['miou'])} %, pixel accuracy {_percent(result['pixel_accuracy'])} %,"
        f" {result['num_images']} images"
    )
    table = Table()
    table.add_column("class")
    table.add_column("IoU %", justify="right")
    for name, value in result["iou"].items():
        table.add_row(name, _percent(value))
    console.print(table)
    for stage, values in result["stages"].items():
        console.print(f"{stage}: mIoU {_percent(values['miou'])} % on its {values['num_groups']} groups")


def comparison(result: dict[str, Any]) -> None:
    """Arms over seeds, with intervals, and what these allow to say."""
    console = _console()
    for split, arms in result["comparisons"].items():
        found = SplitComparison(split, result["reference"][split], {a: Comparison(**v) for a, v in arms.items()}, {})
        table = Table(title=split)
        for head in HEAD:
            table.add_column(head, justify="left" if head == HEAD[0] else "right")
        for row in scores_rows(found):
            table.add_row(*row)
        console.print(table)
        for one in found.others.values():
            console.print(sentence(found, one))
    console.print(f"report: {result['report']}", soft_wrap=True)


def study(result: dict[str, Any]) -> None:
    """The paper's rows beside ours."""
    console = _console()
    head, rows = result["table"]["head"], result["table"]["rows"]
    if rows:
        table = Table(title=result["title"])
        for number, name in enumerate(head):
            table.add_column(name, justify="right" if number else "left")
        for row in rows:
            table.add_row(*row)
        console.print(table)
    console.print(f"report: {result['report']}", soft_wrap=True)


def studies(result: dict[str, Any]) -> None:
    """What `hs3 reproduce` knows."""
    table = Table(box=None)
    for head in ("name", "what", "in the paper"):
        table.add_column(head)
    for name, values in result["studies"].items():
        table.add_row(name, values["title"], values["source"])
    _console().print(table)


def scores(result: dict[str, Any]) -> None:
    """Scores of predictions on disk."""
    console = _console()
    plain = {k: v for k, v in result.items() if isinstance(v, (float, type(None)))}
    console.print(f"{result['split']}: " + ", ".join(f"{name} {_percent(value)} %" for name, value in plain.items()))
    table = Table()
    table.add_column("class")
    table.add_column("IoU %", justify="right")
    instances = result.get("iiou_per_class")
    if instances:
        table.add_column("iIoU %", justify="right")
    for name, value in result["iou"].items():
        table.add_row(name, _percent(value), *([_percent(instances.get(name))] if instances else []))
    console.print(table)


def exported(result: dict[str, Any]) -> None:
    """What was written, and how near it is."""
    console = _console()
    console.print(f"{result['path']}", soft_wrap=True)
    if "max_difference" in result:
        console.print(
            f"largest difference of a logit {result['max_difference']:.2g}, {result['size_bytes'] / 2**20:.1f} MiB"
        )
    if "int8" in result:
        small = result["int8"]
        console.print(
            f"{small['path']}: {small['size_bytes'] / 2**20:.1f} MiB, {100 * small['agreement']:.1f} % of the pixels of"
            " the first calibration image have the same class; measure its mIoU with hs3 evaluate",
            soft_wrap=True,
        )


def certificate(result: dict[str, Any]) -> None:
    """Costs before and after, and the verdict."""
    console = _console()
    table = Table()
    for head in ("", "before", "after"):
        table.add_column(head, justify="right" if head else "left")
    for name in ("parameters", "conv_macs", "matmul_macs"):
        table.add_row(name, f"{result['before'][name]:,}", f"{result['after'][name]:,}")
    table.add_row("bytes of weights", *(f"{value:,}" for value in result["weight_bytes"]))
    console.print(table)
    difference = result["max_difference"]
    console.print(
        f"largest difference of a logit: {'shapes differ' if difference is None else f'{difference:.3g}'}; latency"
        f" ratio {result['latency_ratio']:.2f} (not judged); weights: {result['weights']}"
    )
    for reason in result["reasons"]:
        console.print(f"failed: {reason}", style="bold", soft_wrap=True)
    if not result["reasons"]:
        console.print("passed: nothing of the training is left", style="bold")


def submission(result: dict[str, Any]) -> None:
    """What was packed."""
    console = _console()
    console.print(
        f"{result['path']}: {result['num_frames']} frames, {result['num_bytes'] / 2**20:.1f} MiB", soft_wrap=True
    )
    for note in result["notes"]:
        console.print(note, soft_wrap=True)


def cost(result: dict[str, Any]) -> None:
    """Cost of one network."""
    height, width = result["input_size"]
    console = _console()
    fused = f", HS3-Fuse {result['fuse']} at mid, key = {result['widths']}" if "fuse" in result else ""
    console.print(f"{result['network']}{fused}, {height}x{width}, {result['num_classes']} classes")
    console.print(f"  convolutions and linear  {result['conv_macs']:,} MACs ({result['conv_macs'] / 1e9:.2f} GMACs)")
    console.print(f"  attention matmuls        {result['matmul_macs']:,} MACs")
    console.print(f"  parameters               {result['parameters']:,}")
    if "conv_macs_forward" in result:
        console.print(
            f"  without the auxiliary head, as it runs here at inference: {result['conv_macs_forward']:,} MACs"
        )
    table = Table()
    for column in ("part", "GMACs", "attention GMACs", "parameters"):
        table.add_column(column, justify="left" if column == "part" else "right")
    for name, part in result["parts"].items():
        matmul = f"{part['matmul_macs'] / 1e9:.3f}" if part["matmul_macs"] else ""
        table.add_row(name, f"{part['conv_macs'] / 1e9:.3f}", matmul, f"{part['parameters']:,}")
    console.print(table)


def networks(result: dict[str, Any]) -> None:
    """All networks."""
    height, width = result["input_size"]
    table = Table(title=f"{height}x{width}, {result['num_classes']} classes")
    for column in ("network", "GMACs", "parameters, M", "source"):
        table.add_column(column, justify="left" if column in ("network", "source") else "right")
    for row in result["networks"]:
        table.add_row(row["name"], f"{row['conv_macs'] / 1e9:.1f}", f"{row['parameters'] / 1e6:.2f}", row["source"])
    _console().print(table)


def profile(result: dict[str, Any]) -> None:
    """Cost of a config's arms."""
    height, width = result["input_size"]
    table = Table(title=f"{result['network']}, {height}x{width}, {result['num_classes']} classes")
    for column in ("", "GMACs", "parameters"):
        table.add_column(column, justify="right" if column else "left")
    rows = {"inference": result["inference"]} | {f"training, {k}": v for k, v in result["training"].items()}
    for name, values in rows.items():
        table.add_row(name, f"{values['gmacs']:.3f}", f"{values['parameters']:,}")
    _console().print(table)


def findings(result: dict[str, Any]) -> None:
    """What a data check found."""
    console = _console()

    def line(text: str) -> None:
        console.print(text, soft_wrap=True)

    for note in result["notes"]:
        line(note)
    for finding in result["findings"]:
        place = finding["place"]
        where = f" at x={place['x']}, y={place['y']}" if place else ""
        line(f"{finding['severity']}: {finding['file']}{where}: {finding['message']}; {finding['remedy']}")
    for rest in result["unlisted"]:
        line(f"... and {rest['count']} more of {rest['kind']} ({rest['severity']})")
    counts = result["counts"]
    line(f"{counts['error']} errors, {counts['warning']} warnings, {counts['note']} notes")
    if result["page"]:
        line(f"page: {result['page']}")


def proposal(result: dict[str, Any]) -> None:
    """What a folder seems to hold, and what to do next."""
    console = _console()

    def line(text: str) -> None:
        console.print(text, soft_wrap=True)

    table = Table(title=f"{len(result['classes'])} classes in {result['masks']} masks")
    for head in ("class", "value in the masks", "pixels %", "masks"):
        table.add_column(head, justify="left" if head == "class" else "right")
    for found in result["classes"]:
        table.add_row(found["name"], str(found["value"]), f"{100 * found['share']:.2f}", str(found["files"]))
    console.print(table)
    for note in result["notes"]:
        line(note)
    line(f"splits: {', '.join(result['splits'])}")
    line(f"taxonomy: {result['taxonomy']} (give the classes their names)")
    line(f"config: {result['config']}")
    line(f"next: hs3 data check {result['config']}, then hs3 run {result['config']}")


def keys(result: dict[str, Any]) -> None:
    """All config values."""
    for row in result["keys"]:
        _console().print(f"{row['key']} = {row['default']}\n    {row['meaning']}", soft_wrap=True)


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f}"
