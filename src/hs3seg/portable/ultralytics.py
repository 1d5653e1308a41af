"""Groups as `label_mapping` of an ultralytics data set.

Source: docs.ultralytics.com/datasets/semantic (docs/en/datasets/semantic/index.md: `names` is class id -> name,
`label_mapping` is source id -> training id or `ignore_label`) and ultralytics/cfg/datasets/cityscapes.yaml.
"""

from pathlib import Path
from typing import Any

from hs3seg.errors import DataError
from hs3seg.portable.files import grouping_of_map, mapping_of, read_yaml, write_yaml
from hs3seg.taxonomy import Grouping, Taxonomy

_HEAD = """\
Groups of hs3seg for semantic segmentation of ultralytics; masks hold the ids on the left of label_mapping.
Still to be given, unless they stand here: path, train, val, masks_dir."""


def write(grouping: Grouping, taxonomy: Taxonomy, path: Path) -> None:
    """Writes `names` and `label_mapping` into a data set's YAML file; its other keys are kept, its comments are not."""
    others = read_yaml(path) if path.is_file() else {}
    names = dict(enumerate(grouping.group_names(taxonomy.names)))
    mapping = {**dict(enumerate(grouping.assignment)), taxonomy.ignore_index: "ignore_label"}
    write_yaml(path, {**others, "names": names, "label_mapping": mapping}, _HEAD)


def read(path: Path, taxonomy: Taxonomy) -> Grouping:
    """Reads `label_mapping`; source ids that are no classes may be `ignore_label`.

    Raises:
        DataError: not YAML, no mapping, an ignored or missing class, a group without a name.
    """
    values = read_yaml(path)
    given = mapping_of(values, "label_mapping", path, "label_mapping: {0: 0, 1: 0, 2: 1}")
    mapping = {_number(source): _target(group, taxonomy.ignore_index) for source, group in given.items()}
    if len(mapping) != len(given):
        raise DataError(f"{path}: an id stands twice in label_mapping, as a number and as text; remove one")
    ignored = [source for source, group in mapping.items() if group is None and source in range(taxonomy.num_classes)]
    if ignored:
        name = taxonomy.names[ignored[0]]
        raise DataError(f"{path}: class '{name}' ({ignored[0]}) is mapped to ignore_label; give it a group")
    kept = {source: group for source, group in mapping.items() if group is not None}
    grouping = grouping_of_map(kept, taxonomy.num_classes, path)
    names = values.get("names")
    known = set(names) if isinstance(names, dict) else set(range(len(names))) if isinstance(names, list) else None
    if known is not None and known != set(kept.values()):
        raise DataError(
            f"{path}: names has the ids {sorted(known, key=str)}, label_mapping the groups"
            f" {sorted(set(kept.values()))}; they must be the same"
        )
    return grouping


def _number(value: Any) -> Any:
    """Numbers may be written as text, as ultralytics reads them."""
    text = value.strip() if isinstance(value, str) else ""
    return int(text) if text.isascii() and text.isdigit() else value


def _target(value: Any, ignore_index: int) -> Any:
    """A group; None = ignored, which ultralytics reads off `ignore_label`, nothing, and 255."""
    number = _number(value)
    text = number.strip() if isinstance(number, str) else number
    return None if text in (None, "ignore_label", 255, ignore_index) else number
