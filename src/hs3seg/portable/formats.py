"""The formats by name."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from hs3seg.analysis import StagePlan, SupervisionPlan
from hs3seg.errors import DataError, PlanError, nearest
from hs3seg.portable import lightlytrain, mmsegmentation, nnunet, table, ultralytics
from hs3seg.taxonomy import Grouping, Taxonomy


@dataclass(frozen=True, slots=True)
class PortableFormat:
    """How a tool writes down merged classes.

    Args:
        suffix: Of its files, with the dot.
        write: (grouping, taxonomy, path) writes a file.
        read: (path, taxonomy) gives the grouping back, or raises DataError.
    """

    suffix: str
    write: Callable[[Grouping, Taxonomy, Path], None]
    read: Callable[[Path, Taxonomy], Grouping]


FORMATS = {
    "csv": PortableFormat(".csv", table.write, table.read),
    "lightlytrain": PortableFormat(".yaml", lightlytrain.write, lightlytrain.read),
    "mmsegmentation": PortableFormat(".py", mmsegmentation.write, mmsegmentation.read),
    "nnunet": PortableFormat(".json", nnunet.write, nnunet.read),
    "ultralytics": PortableFormat(".yaml", ultralytics.write, ultralytics.read),
}
"""Name -> format; add your own."""


def write_groups(grouping: Grouping, taxonomy: Taxonomy, format: str, path: Path | str) -> None:  # noqa: A002
    """Writes one stage's groups for another tool.

    Where YAML and JSON files exist, only the keys that hold classes are replaced in them; `csv` and `mmsegmentation`
    are written anew.

    Args:
        grouping: K classes -> k groups.
        taxonomy: The K classes; masks hold its ids, and its ignore label.
        format: `mmsegmentation` (label_map), `ultralytics` (label_mapping), `lightlytrain` (classes), `nnunet`
            (regions, see `nnunet.write` for its labels), or `csv`.
        path: Of the file; its folder is made.

    Raises:
        DataError: unknown format, or an existing file that cannot be read.
        PlanError: the grouping is of another number of classes.
    """
    chosen = _chosen(format)
    if grouping.num_classes != taxonomy.num_classes:
        raise PlanError(
            f"a grouping of {grouping.num_classes} classes with a taxonomy of {taxonomy.num_classes}; give the"
            " taxonomy that the plan was made for"
        )
    chosen.write(grouping, taxonomy, Path(path))


def read_groups(format: str, path: Path | str, taxonomy: Taxonomy) -> Grouping:  # noqa: A002
    """Reads groups that `write_groups`, another tool or a person wrote.

    Args:
        format: See `write_groups`.
        path: Of the file.
        taxonomy: The K classes.

    Raises:
        DataError: unknown format; a file that is missing, malformed, or does not put each class into one group.
    """
    return _chosen(format).read(Path(path), taxonomy)


def write_plan(plan: SupervisionPlan, taxonomy: Taxonomy, format: str, folder: Path | str) -> dict[str, Path]:  # noqa: A002
    """Writes the groups of every stage of a plan, each in a file called like the stage.

    Returns:
        Stage -> its file.

    Raises:
        DataError: unknown format.
        PlanError: the plan is of other classes.
    """
    chosen = _chosen(format)
    plan.check(taxonomy.names)
    places = {stage: Path(folder) / f"{_stem(stage)}{chosen.suffix}" for stage in plan.stage_names}
    for stage in plan.stages:
        write_groups(stage.grouping, taxonomy, format, places[stage.stage])
    return places


def read_plan(
    files: Sequence[Path | str],
    taxonomy: Taxonomy,
    format: str,  # noqa: A002
    earlier: SupervisionPlan | None = None,
) -> SupervisionPlan:
    """Makes a plan of one file per stage, each called like its stage.

    Files hold groups alone. Order and weights of the stages and the plan's tables come from an earlier plan; without
    one, stages stand in the order of their names, numbers as numbers, with the default weight.

    Args:
        files: In any order.
        taxonomy: The K classes.
        format: See `write_groups`.
        earlier: Plan of the same classes; a stage that it does not have comes after those that it has.

    Raises:
        DataError: unknown format, or a file that cannot be read.
        PlanError: the earlier plan is of other classes, or its tables do not go with the groups.
    """
    if earlier is not None:
        earlier.check(taxonomy.names)
    before = {_stem(stage.stage): stage for stage in (earlier.stages if earlier is not None else ())}
    places = {Path(file).stem: Path(file) for file in files}
    known = [stem for stem in before if stem in places]
    stages = [replace(before[stem], grouping=read_groups(format, places[stem], taxonomy)) for stem in known]
    new = sorted(places.keys() - before.keys(), key=_by_number)
    stages += [StagePlan(stem, read_groups(format, places[stem], taxonomy)) for stem in new]
    notes = {"from": [place.name for place in places.values()]}
    if earlier is None:
        return SupervisionPlan(taxonomy.names, tuple(stages), "manual", notes)
    return replace(earlier, stages=tuple(stages), notes={**earlier.notes, **notes})


def _stem(stage: str) -> str:
    return stage.replace("/", "_")


def _by_number(name: str) -> list[tuple[int, str]]:
    """A key that puts `blocks.3` before `blocks.11`."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", name) if part]


def _chosen(name: str) -> PortableFormat:
    if name not in FORMATS:
        raise DataError(f"unknown format '{name}' of groups; {nearest(name, FORMATS)}")
    return FORMATS[name]
