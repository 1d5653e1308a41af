"""What the trainings of a study came to: results.json, and the page with the paper's rows beside ours."""

import os
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from hs3seg.analysis import SupervisionPlan
from hs3seg.files import read_json
from hs3seg.pipeline.compare import check_protocols
from hs3seg.pipeline.kept import STUDY, commits_under
from hs3seg.pipeline.reproduce.queue import Ready
from hs3seg.pipeline.reproduce.settings import describe
from hs3seg.pipeline.reproduce.study import Row, Study, Version
from hs3seg.pipeline.scores import compare_evaluations
from hs3seg.report.comparison_words import SplitComparison
from hs3seg.report.cost import CostPoint, cost_figure
from hs3seg.report.curves import tradeoff_figure
from hs3seg.report.figure import Figure
from hs3seg.report.load import load_run
from hs3seg.report.markup import ARM_TITLES, DASH, arm_title
from hs3seg.report.pictures import contact_sheet, sample_tiles
from hs3seg.report.study_page import Picture, StudyPage, sweep_figure

Found = dict[str, dict[str, dict[int, dict[str, Any]]]]
"""Setting -> arm -> seed -> what was measured."""
_SCORES = ("miou", "pixel_accuracy", "iiou")


def collect(ready: Sequence[Ready], seeds: Sequence[int]) -> Found:
    """Reads what is there of the settings' runs; an arm that was trained as another has that one's numbers."""
    found: Found = {}
    for own in ready:
        arms = found.setdefault(own.setting.name, {})
        for seed in seeds:
            path = own.folder / f"seed-{seed}"
            file = path / STUDY
            facts = read_json(file) if file.exists() else {}
            for name in own.setting.names or ("hs3",):
                trained = facts.get("trained_as", {}).get(name, name)
                values = _measured(own, path, trained, facts.get("gmacs", {}).get(trained))
                if values is not None:
                    arms.setdefault(name, {})[seed] = values | {"trained_as": trained}
        _check_protocols(own, arms)
    return found


def _check_protocols(own: Ready, arms: dict[str, dict[int, dict[str, Any]]]) -> None:
    """Numbers of two protocols in one table would be compared by whoever reads it."""
    seeds = {seed for values in arms.values() for seed in values}
    for split in own.config.data.evaluate_splits:
        found = {
            seed: {
                values[seed]["trained_as"]: {split: _evaluation(own, seed, values[seed]["trained_as"], split)}
                for values in arms.values()
                if seed in values and values[seed]["splits"]
            }
            for seed in seeds
        }
        check_protocols(own.folder, split, found)


def _measured(own: Ready, path: Path, arm: str, gmacs: float | None) -> dict[str, Any] | None:
    folder = path / "arms" / arm
    if not own.setting.names:  # an analysis alone
        plan = path / "plan.toml"
        return {"num_groups": SupervisionPlan.load(plan).num_groups, "splits": {}} if plan.exists() else None
    splits = {split: _scores(folder / f"evaluation-{split}.json") for split in own.config.data.evaluate_splits}
    if not all(splits.values()):
        return None  # not evaluated to the end: no split may stand for another
    protocols = {
        name: {split: _scores(folder / name / f"evaluation-{split}.json") for split in splits}
        for name in own.setting.protocols
    }
    # Single-phase HS3 begins with all classes; what it ended with is told.
    plan = next(file for file in (folder / "groups.toml", folder / "plan.toml") if file.exists())
    values: dict[str, Any] = {
        "miou": next(iter(splits.values()))["miou"],
        "splits": splits,
        "num_groups": SupervisionPlan.load(plan).num_groups,
    }
    if gmacs is not None:
        values["gmacs"] = gmacs
    if protocols:
        values["protocols"] = protocols
    return values


def _scores(path: Path) -> dict[str, float]:
    if not path.exists():
        return {}
    values = read_json(path)
    return {key: values[key] for key in _SCORES if values.get(key) is not None}


def by_arm(found: Found) -> dict[str, dict[str, dict[str, Any]]]:
    """Arm -> seed -> values, for results.json; with several settings an arm is SETTING/ARM."""
    return {
        arm if len(found) == 1 else f"{setting}/{arm}": {str(seed): value for seed, value in values.items()}
        for setting, arms in found.items()
        for arm, values in arms.items()
    }


def comparisons(
    version: Version, ready: Sequence[Ready], found: Found, against: str = ""
) -> list[tuple[str, SplitComparison]]:
    """Every arm against one, split by split; settings of one arm have none.

    Args:
        version: Of the study.
        ready: Its settings.
        found: What was measured.
        against: The arm that the others are compared with, where a setting has it; empty = the usual reference.
    """
    compared = []
    for own in ready:
        arms = _distinct(found[own.setting.name])
        if len(arms) < 2 or (against and against not in arms):
            continue
        title = own.setting.title or own.setting.name
        titles = {
            row.arm: row.title.removeprefix(f"{title}: ")
            for row in version.rows
            if row.setting == own.setting.name and row.arm not in ARM_TITLES
        }
        for split in own.config.data.evaluate_splits:
            evaluations = {
                arm: {s: e for s, v in values.items() if (e := _evaluation(own, s, v["trained_as"], split))}
                for arm, values in arms.items()
            }
            result = compare_evaluations(evaluations, split, against)
            if result is not None:
                place = title if len(ready) > 1 else ""
                compared.append((own.setting.name, replace(result, titles=titles, place=place)))
    return compared


def _distinct(arms: dict[str, dict[int, dict[str, Any]]]) -> dict[str, dict[int, dict[str, Any]]]:
    """Arms without those whose every training is that of earlier ones: they would be counted twice."""
    trained: set[tuple[int, str]] = set()
    distinct = {}
    for arm, values in arms.items():
        own = {(seed, value["trained_as"]) for seed, value in values.items()}
        if not own <= trained:
            distinct[arm] = values
        trained |= own
    return distinct


def _evaluation(own: Ready, seed: int, arm: str, split: str) -> dict[str, Any]:
    path = own.folder / f"seed-{seed}" / "arms" / arm / f"evaluation-{split}.json"
    return read_json(path) if path.exists() else {}


def rows_of(study: Study, version: Version, found: Found) -> tuple[list[str], list[list[str]]]:
    """The table: for every column the paper's number and ours."""
    printed = [column for column in study.columns if any(column in row.paper for row in version.rows)]
    head = [""]
    for column in study.columns:
        head += [f"{column}, paper", f"{column}, ours"] if column in printed else [column]
    rows = []
    for row in version.rows:
        cells = [row.title]
        for column in study.columns:
            cells += [row.paper.get(column, DASH)] if column in printed else []
            cells.append(_cell(row, column, version, found))
        rows.append([*cells, str(len(found.get(row.setting, {}).get(row.arm, {})) or DASH)])
    return [*head, "seeds"], rows


def _cell(row: Row, column: str, version: Version, found: Found) -> str:
    values = list(found.get(row.setting, {}).get(row.arm, {}).values())
    if not values:
        return DASH
    if column == "GMACs":
        return f"{values[0]['gmacs']:.3g}" if "gmacs" in values[0] else DASH
    if column == "groups" or column.startswith("K "):
        sizes = [list(v["num_groups"].values()) for v in values]
        if column.startswith("K "):
            sizes = [[own[int(column[2:]) - 1]] for own in sizes if len(own) >= int(column[2:])]
        told = dict.fromkeys(", ".join(map(str, own)) for own in sizes if own)
        return " / ".join(told) or DASH
    key = {"mIoU": "miou", "pixel accuracy": "pixel_accuracy", "iIoU": "iiou"}[column]
    scores = []
    for value in values:
        splits = value.get("protocols", {}).get(row.protocol, {}) if row.protocol else value["splits"]
        split = version.split or next(iter(value["splits"]), "")
        if key in splits.get(split, {}):
            scores.append(splits[split][key])
    if not scores:
        return DASH
    spread = f" \u00b1 {100 * float(np.std(scores, ddof=1)):.1f}" if len(scores) > 1 else ""
    return f"{100 * float(np.mean(scores)):.1f}{spread}"


def make_page(
    study: Study,
    version: Version,
    ready: Sequence[Ready],
    found: Found,
    out: Path,
    *,
    command: str,
    commits: str,
    notes: Sequence[str],
) -> StudyPage:
    """What the page says; addresses are relative to `out`."""
    head, rows = rows_of(study, version, found)
    links = {}
    for own in ready:
        for seed in sorted({seed for arms in found[own.setting.name].values() for seed in arms}):
            target = own.folder / f"seed-{seed}" / "report" / "index.html"
            links[f"{own.setting.name} seed {seed}"] = _relative(target, out)
    return StudyPage(
        title=study.title,
        source=f"HS3 paper, {study.source}" if study.source else "A study of ours",
        question=study.question,
        notes=[note for note in (version.note, _scores_note(version, rows), _missing(version, found), *notes) if note],
        head=head,
        rows=rows,
        comparisons=comparisons(version, ready, found),
        others=[pair for arm in study.against for pair in comparisons(version, ready, found, arm)],
        figures=_figures(study, version, ready, found),
        pictures=_pictures(study, ready, found),
        facts={own.setting.name: describe(own.config) for own in ready},
        links=links,
        command=command,
        commits=commits,
    )


def _scores_note(version: Version, rows: Sequence[Sequence[str]]) -> str:
    if not rows:
        return ""
    split = f"the split {version.split}" if version.split else "the first split that a setting is evaluated on"
    return f"Scores of ours are those of {split}: mean \u00b1 standard deviation over seeds, %."


def _missing(version: Version, found: Found) -> str:
    """What is not there yet."""
    lacking = [row.title for row in version.rows if row.setting and not found.get(row.setting, {}).get(row.arm)]
    return f"Not trained yet: {'; '.join(lacking)}." if lacking else ""


def comparison_values(compared: Sequence[tuple[str, SplitComparison]]) -> dict[str, Any]:
    """The intervals, for results.json: setting -> split -> arm."""
    values: dict[str, Any] = {}
    for setting, found in compared:
        values.setdefault(setting, {})[found.split] = {arm: asdict(c) for arm, c in found.arms.items()}
    return values


def other_values(page: StudyPage) -> dict[str, Any]:
    """The same against other arms: arm -> setting -> split -> arm."""
    references = dict.fromkeys(found.reference for _, found in page.others)
    return {
        reference: comparison_values([pair for pair in page.others if pair[1].reference == reference])
        for reference in references
    }


def _relative(target: Path, out: Path) -> str:
    return Path(os.path.relpath(target, out)).as_posix()


def _first_seed(own: Ready, found: Found) -> Path | None:
    seeds = sorted({seed for arms in found[own.setting.name].values() for seed in arms})
    return own.folder / f"seed-{seeds[0]}" if seeds else None


def _figures(study: Study, version: Version, ready: Sequence[Ready], found: Found) -> list[Figure]:
    figures: list[Figure | None] = []
    if "cost" in study.pictures:
        figures.append(cost_figure(_cost_points(version, found)))
    if "sweep" in study.pictures:
        figures.append(_sweep(study, version, found))
    if "tradeoff" in study.pictures:
        for own in ready:
            path = _first_seed(own, found)
            drawn = tradeoff_figure(load_run(path)) if path is not None else None
            if drawn is not None:
                name = f"tradeoff-{own.setting.name}"
                figures.append(Figure(name, drawn.canvas, drawn.label, f"{own.setting.name}, {_seed(path)}", zoom=1.2))
    return [figure for figure in figures if figure is not None]


def _seed(path: Path | None) -> str:
    return path.name.replace("-", " ") if path is not None else ""


def _cost_points(version: Version, found: Found) -> list[CostPoint]:
    points = []
    for row in version.rows:
        values = [v for v in found.get(row.setting, {}).get(row.arm, {}).values() if "gmacs" in v]
        if values:
            splits = {
                split: float(np.mean([v["splits"][split]["miou"] for v in values if split in v["splits"]]))
                for split in values[0]["splits"]
            }
            points.append(CostPoint(row.title, values[0]["gmacs"], splits))
    return points


def _sweep(study: Study, version: Version, found: Found) -> Figure | None:
    setting = version.settings[0].name
    ours: dict[float, list[float]] = {}
    for name, x in study.sweep.items():
        values = [v["miou"] for v in found.get(setting, {}).get(name, {}).values()]
        if values:
            ours[x] = values
    paper = {
        study.sweep[row.arm]: float(row.paper["mIoU"]) / 100
        for row in version.rows
        if row.arm in study.sweep and "mIoU" in row.paper
    }
    levels = {
        arm_title(arm): float(np.mean([v["miou"] for v in found[setting][arm].values()]))
        for arm in ("none", "deep_supervision", "hs3")
        if arm in found.get(setting, {}) and arm not in study.sweep
    }
    return sweep_figure("sweep", study.sweep_title, ours, paper, levels)


def _pictures(study: Study, ready: Sequence[Ready], found: Found) -> list[Picture]:
    if "samples" not in study.pictures:
        return []
    pictures = []
    for own in ready:
        path = _first_seed(own, found)
        if path is None:
            continue
        run = load_run(path)
        for split in own.config.data.evaluate_splits:
            samples = list(sample_tiles(run, split))
            if samples:
                caption = (
                    f"{own.setting.name}, {split}, {_seed(path)}: spread evenly over the split, not chosen by quality."
                    " A stage's picture has its groups' colours."
                )
                drawn = [(name, [tile for tile in tiles if not tile.photo]) for name, tiles in samples]
                name = f"samples-{own.setting.name}-{split}"
                pictures.append(Picture(name, contact_sheet(samples), caption, contact_sheet(drawn)))
    return pictures


def commits(ready: Sequence[Ready], seeds: Sequence[int]) -> str:
    """Of the sources that trained this study's arms, as the trainings say; several with commas."""
    found: set[str] = set()
    for own in ready:
        for seed in seeds:
            path = own.folder / f"seed-{seed}"
            trained_as = (read_json(path / STUDY) if (path / STUDY).exists() else {}).get("trained_as", {})
            arms = {trained_as.get(name, name) for name in own.setting.names}
            found |= set(commits_under([path], arms).split(", "))
    return ", ".join(sorted(found - {""}))
