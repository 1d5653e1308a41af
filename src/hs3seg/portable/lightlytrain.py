"""Groups as `classes` of LightlyTrain's `train_semantic_segmentation`.

Source: docs.lightly.ai/train/stable/semantic_segmentation.html, "Specify Training Classes" (docs/source/
semantic_segmentation.md of lightly-ai/lightly-train): class id -> name, or {"name": ..., "labels": [ids in the masks]}
to merge; every id in the masks must be named, and `ignore_classes` lists those not trained on. YAML since 0.12.3.
"""

from pathlib import Path
from typing import Any

from hs3seg.errors import DataError
from hs3seg.portable.files import grouping_of, is_integer, mapping_of, read_yaml, write_yaml
from hs3seg.taxonomy import Grouping, Taxonomy

_HEAD = """\
Groups of hs3seg as data of LightlyTrain's train_semantic_segmentation; masks hold the ids in labels.
Still to be given, unless they stand here: train and val, each with images and masks."""
_EXAMPLE = 'classes: {0: {name: "vehicle", labels: [0, 1]}, 1: {name: "sky", labels: [2]}}'


def write(grouping: Grouping, taxonomy: Taxonomy, path: Path) -> None:
    """Writes `classes` and `ignore_classes` into a YAML file; its other keys are kept, its comments are not."""
    others = read_yaml(path) if path.is_file() else {}
    names = grouping.group_names(taxonomy.names)
    classes: dict[int, dict[str, Any]] = {
        number: {"name": name, "labels": list(members)}
        for number, (name, members) in enumerate(zip(names, grouping.groups, strict=True))
    }
    # As a class of its own that is left out: LightlyTrain stops at an id that it does not know.
    classes[taxonomy.ignore_index] = {"name": "ignore", "labels": [taxonomy.ignore_index]}
    write_yaml(path, {**others, "classes": classes, "ignore_classes": [taxonomy.ignore_index]}, _HEAD)


def read(path: Path, taxonomy: Taxonomy) -> Grouping:
    """Reads `classes`; those of `ignore_classes` may hold no class of the taxonomy.

    Raises:
        DataError: not YAML, no classes, colours instead of ids, an ignored, doubled or missing class.
    """
    values = read_yaml(path)
    classes = mapping_of(values, "classes", path, _EXAMPLE)
    ignored = [] if values.get("ignore_classes") is None else values["ignore_classes"]
    if not isinstance(ignored, list):
        raise DataError(f"{path}: ignore_classes = {ignored!r}; must be a list of class ids")
    groups = []
    for number, entry in classes.items():
        labels = _labels(number, entry, path)
        if number not in ignored:
            groups.append(labels)
            continue
        inside = [label for label in labels if is_integer(label) and 0 <= label < taxonomy.num_classes]
        if inside:
            name = taxonomy.names[inside[0]]
            raise DataError(f"{path}: class '{name}' ({inside[0]}) is in ignore_classes; give it a group")
    return grouping_of(groups, taxonomy.num_classes, path, "label")


def _labels(number: Any, entry: Any, path: Path) -> list[Any]:
    if isinstance(entry, str):
        return [number]  # a name alone: the class id is the label
    labels = entry.get("labels", entry.get("values", [number])) if isinstance(entry, dict) else None  # values: < 0.12
    if not isinstance(labels, list):
        raise DataError(f"{path}: class {number!r} is {entry!r}; write e.g. {_EXAMPLE}")
    if any(isinstance(label, list | tuple) for label in labels):
        raise DataError(f"{path}: class {number!r} has colours as labels; groups are read from integer masks alone")
    return labels
