"""The page and the picture of all rows, from results.json alone."""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

TITLES = {
    "stage_loss": "Loss of a stage at label resolution",
    "stage_counting": "Confusion matrices of several outputs",
    "clustering": "Clusterings and the analysis",
    "stripped": "Inference of a stripped network",
    "commands": "Commands from saved matrices",
    "step": "Training step with two supervised stages",
    "loop": "Training loop against its own steps",
    "other_loops": "Training loop against other tools",
    "phases": "HS3's two phases",
    "scaling": "Scale",
    "runtimes": "Exported networks",
    "loader": "Training loader",
}
_PAGE = """# Benchmarks

Written by `python -m benchmarks` (`make bench`) from [results.json](results.json). Every ratio is the median over
repeats of two sides that ran in turn in one process, in brackets the lowest and the highest; memory is measured in
fresh processes. A row without a goal is only reported. {reached} of {number} goals are reached{missed}.

![goals](goals.png)

{sections}
"""
_TICKS = (0.1, 0.2, 0.5, 0.7, 1, 1.5, 2, 3, 5, 10, 20, 50, 100, 200, 500)
Values = Mapping[str, Any]


def benchmark(row: Values) -> str:
    """The module that measured a row, by the command that it keeps."""
    found = re.search(r"benchmarks\.(\w+)", row["command"])
    assert found is not None, f"no benchmark in the command '{row['command']}'"
    return found.group(1)


def borrowed(folder: Path) -> dict[str, dict[str, Any]]:
    """The main rows of the benchmarks that have a page of their own: runtimes and loader.

    Args:
        folder: docs/benchmarks.
    """
    found: dict[str, dict[str, Any]] = {}
    runtimes = _load(folder / "runtimes" / "results.json")
    for network in dict.fromkeys(name.rsplit(", ", 1)[0] for name in runtimes):
        own = {name: row for name, row in runtimes.items() if name.rsplit(", ", 1)[0] == network}
        for rows in (own, {name: row for name, row in own.items() if not name.endswith("int8")}):
            best = max(rows, key=lambda name: rows[name]["ratio"])
            found[f"inference of {best}: speed"] = {**rows[best], "against": "eager float32"}
    for name, row in _load(folder / "loader" / "results.json").items():
        if ("CamVid, crop 360x480, " in name and "hue" not in name) or "PNG" in name:
            found[f"loader, {name}: speed"] = {**row, "against": "DataLoader with PIL and torchvision v1"}
    return {name: {**row, "better": "higher", "reached": row["ratio"] >= row["goal"]} for name, row in found.items()}


def _load(path: Path) -> dict[str, dict[str, Any]]:
    values: dict[str, dict[str, Any]] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    return values


def headroom(row: Values, value: float) -> float:
    """How many times better than its goal a value is; at least 1 = reached."""
    goal = float(row["goal"])
    if row["better"] == "near":
        return 1 + float(row["tolerance"]) - abs(value - goal)
    return value / goal if row["better"] == "higher" else goal / value


def figure(value: float) -> str:
    """Three digits."""
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:#.3g}"


def measured(row: Values) -> str:
    """Median, and lowest to highest."""
    unit = f" {row['unit']}" if row.get("unit") else ""
    return f"{figure(row['ratio'])}{unit} ({figure(min(row['runs']))} to {figure(max(row['runs']))})"


def wanted(row: Values) -> str:
    """The goal in words."""
    if row["goal"] is None:
        return ""
    if row["better"] == "near":
        return f"{row['goal']:.2f} ± {row['tolerance']:g}"
    unit = f" {row['unit']}" if row.get("unit") else ""
    return f"{'at least' if row['better'] == 'higher' else 'at most'} {figure(row['goal'])}{unit}"


def table(rows: Mapping[str, Values]) -> str:
    """Rows as Markdown."""
    lines = ["| what | against | measured | goal | reached |", "|---|---|---|---|---|"]
    for name, row in rows.items():
        reached = {True: "yes", False: "**no**", None: ""}[row["reached"]]
        lines.append(f"| {name} | {row['against']} | {measured(row)} | {wanted(row)} | {reached} |")
    return "\n".join(lines)


def section(name: str, rows: Mapping[str, Values]) -> str:
    """Title, command and table of one benchmark."""
    commits: dict[str, dict[str, None]] = {}
    for row in rows.values():
        commits.setdefault(row["command"], {})[row["commit"]] = None
    sources = [f"`{command}` (commit {', '.join(found)})" for command, found in commits.items()]
    page = f" All rows: [{name}]({name}/README.md)." if name in ("runtimes", "loader") else ""
    return f"## {TITLES.get(name, name)}\n\n{', '.join(sources)}.{page}\n\n{table(rows)}"


def in_order(rows: Mapping[str, Values], order: Sequence[str]) -> dict[str, dict[str, Values]]:
    """Benchmark -> its rows; those that the order does not name come last."""
    grouped: dict[str, dict[str, Values]] = {name: {} for name in order}
    for name, row in rows.items():
        grouped.setdefault(benchmark(row), {})[name] = row
    return {name: found for name, found in grouped.items() if found}


def draw(rows: Mapping[str, Values], path: Path) -> None:
    """Every row with a goal as a bar: how far it is above its goal, its repeats as dots."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt
    from matplotlib.ticker import NullLocator

    judged = {name: row for name, row in rows.items() if row["goal"] is not None}
    picture, axes = plt.subplots(figsize=(12, 1.2 + 0.27 * len(judged)), layout="constrained")
    for place, row in enumerate(judged.values()):
        reach = headroom(row, row["ratio"])
        axes.barh(place, reach - 1, left=1, color="#66c2a5" if row["reached"] else "#d7301f")
        runs = [headroom(row, run) for run in row["runs"]]
        axes.plot(runs, [place] * len(runs), "k.", markersize=2.5, alpha=0.6)
    axes.set_xscale("log")
    low, high = axes.get_xlim()
    ticks = [tick for tick in _TICKS if low <= tick <= high]
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.axvline(1, color="black", linewidth=0.8)
    axes.set_yticks(range(len(judged)), list(judged), fontsize=8)
    axes.set_ylim(len(judged) - 0.4, -0.6)
    beside = axes.twinx()
    beside.set_ylim(axes.get_ylim())
    told = [f"{figure(row['ratio'])}; {wanted(row)}" for row in judged.values()]
    beside.set_yticks(range(len(judged)), told, fontsize=8)
    axes.grid(axis="x", alpha=0.3)
    axes.set_xlabel("times better than the goal (right of 1: reached); dots: repeats")
    picture.savefig(path, dpi=110)
    plt.close(picture)


def page(rows: Mapping[str, Values], order: Sequence[str]) -> str:
    """The whole README.md."""
    judged = {name: row for name, row in rows.items() if row["goal"] is not None}
    lacking = [name for name, row in judged.items() if not row["reached"]]
    missed = f"; not: {'; '.join(lacking)}" if lacking else ""
    sections = "\n\n".join(section(name, found) for name, found in in_order(rows, order).items())
    return _PAGE.format(reached=len(judged) - len(lacking), number=len(judged), missed=missed, sections=sections)


def write(folder: Path, order: Sequence[str]) -> None:
    """Adds the borrowed rows to results.json and writes README.md and goals.png.

    Args:
        folder: Of results.json.
        order: Of the benchmarks on the page.
    """
    path = folder / "results.json"
    measured_here = {name: row for name, row in _load(path).items() if benchmark(row) not in ("runtimes", "loader")}
    grouped = in_order(measured_here | borrowed(folder), order)
    rows = {name: row for found in grouped.values() for name, row in found.items()}
    path.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    draw(rows, folder / "goals.png")
    (folder / "README.md").write_text(page(rows, order), encoding="utf-8")
