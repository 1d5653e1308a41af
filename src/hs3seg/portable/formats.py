"""The formats by name."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from hs3seg.analysis import SupervisionPlan
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
    places = {stage: Path(folder) / f"{stage.replace('/', '_')}{chosen.suffix}" for stage in plan.stage_names}
    for stage in plan.stages:
        write_groups(stage.grouping, taxonomy, format, places[stage.stage])
    return places


def _chosen(name: str) -> PortableFormat:
    if name not in FORMATS:
        raise DataError(f"unknown format '{name}' of groups; {nearest(name, FORMATS)}")
    return FORMATS[name]
