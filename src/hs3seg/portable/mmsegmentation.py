"""Groups as mmsegmentation's `label_map`.

Source: mmsegmentation 1.x, `BaseSegDataset` (mmseg/datasets/basesegdataset.py: METAINFO with `classes` and `palette`,
`get_label_map`) and `LoadAnnotations` (mmseg/datasets/transforms/loading.py: replaces every old id of `label_map` by
its new one); docs/en/advanced_guides/datasets.md. Of itself the library makes a `label_map` that only leaves classes
out (255), so that a data set with merged classes has to give its own.
"""

import ast
from pathlib import Path
from typing import Any

from hs3seg.errors import DataError
from hs3seg.portable.files import grouping_of_map, is_integer, read_text, write_text
from hs3seg.taxonomy import Grouping, Taxonomy

_HEAD = """\
# Groups of hs3seg for mmsegmentation 1.x; masks hold the class ids on the left of label_map.
# BaseSegDataset takes no label_map; give your data set these two members and this METAINFO:
#     METAINFO = metainfo
#     @classmethod
#     def get_label_map(cls, new_classes=None): return label_map
# and the decode head num_classes = {count}. Ids that label_map does not name stay as they are, as {ignore} (ignore).
"""


def write(grouping: Grouping, taxonomy: Taxonomy, path: Path) -> None:
    """Writes a Python file with `metainfo` (classes and palette of the groups) and `label_map` (class -> group)."""
    names = grouping.group_names(taxonomy.names)
    colours = grouping.group_colours(taxonomy.colours)
    lines = [_HEAD.format(count=grouping.num_groups, ignore=taxonomy.ignore_index)]
    lines.append("metainfo = dict(\n    classes=(\n")
    lines += [f"        {name!r},\n" for name in names]
    lines.append("    ),\n    palette=[\n")
    lines += [f"        {[int(v) for v in colour]},\n" for colour in colours]
    lines.append("    ],\n)\nlabel_map = {\n")
    for class_id, (name, group) in enumerate(zip(taxonomy.names, grouping.assignment, strict=True)):
        comment = " ".join(name.split())  # a name with a line end must not end the comment
        lines.append(f"    {class_id}: {group},  # {comment if comment.isprintable() else class_id}\n")
    lines.append("}\n")
    write_text(path, "".join(lines))


def read(path: Path, taxonomy: Taxonomy) -> Grouping:
    """Reads `label_map` (and checks `metainfo`) of a Python file without running it.

    Raises:
        DataError: not Python, no literal `label_map`, a class without a group, or other than K classes.
    """
    try:
        tree = ast.parse(read_text(path))
    except (SyntaxError, ValueError) as error:
        raise DataError(f"{path}: not a Python file: {error}") from None
    assigned = {
        target.id: node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    if "label_map" not in assigned:
        raise DataError(f"{path}: no 'label_map'; write e.g. label_map = {{0: 0, 1: 0, 2: 1}}")
    groups = _literal_mapping(assigned["label_map"], path)
    ignored = [
        key for key, group in groups.items() if group == taxonomy.ignore_index and key in range(len(taxonomy.names))
    ]
    if ignored:
        name = taxonomy.names[ignored[0]]
        raise DataError(f"{path}: class '{name}' is mapped to {taxonomy.ignore_index} (ignore); give it a group")
    # Ids that are no classes may be mapped to the ignore label.
    kept = {key: group for key, group in groups.items() if not (group == taxonomy.ignore_index and is_integer(key))}
    grouping = grouping_of_map(kept, taxonomy.num_classes, path)
    metainfo = assigned.get("metainfo", assigned.get("METAINFO"))
    classes = _classes(metainfo) if metainfo is not None else None
    if classes is not None and len(classes) != grouping.num_groups:
        raise DataError(f"{path}: {len(classes)} names in classes, label_map has {grouping.num_groups} groups")
    return grouping


def _literal_mapping(node: ast.expr, path: Path) -> dict[Any, Any]:
    try:
        keys = [ast.literal_eval(key) for key in node.keys if key is not None] if isinstance(node, ast.Dict) else []
        values = ast.literal_eval(node)
        if len(keys) != len(set(keys)):
            doubled = next(key for key in keys if keys.count(key) > 1)
            raise DataError(f"{path}: class {doubled!r} stands twice in label_map; remove one")
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        values = None
    if not isinstance(values, dict) or not values:
        raise DataError(f"{path}: label_map must be a plain mapping of integers, e.g. {{0: 0, 1: 0, 2: 1}}")
    return values


def _classes(node: ast.expr) -> list[Any] | None:
    """The literal `classes` of dict(classes=...) or {"classes": ...}."""
    found: ast.expr | None = None
    if isinstance(node, ast.Call):
        found = next((word.value for word in node.keywords if word.arg == "classes"), None)
    elif isinstance(node, ast.Dict):
        pairs = zip(node.keys, node.values, strict=True)
        found = next((value for key, value in pairs if isinstance(key, ast.Constant) and key.value == "classes"), None)
    return list(found.elts) if isinstance(found, ast.Tuple | ast.List) else None
