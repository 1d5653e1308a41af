"""Groups as regions of nnU-Net.

Source: MIC-DKFZ/nnUNet v2, documentation/region_based_training.md (`labels`: name -> label or list of labels;
`regions_class_order`: the label put down for each region, in order), dataset_format.md (background is 0 and nothing
else is; labels are consecutive), ignore_label.md (`ignore` is the highest label); LabelManager in
nnunetv2/utilities/label_handling/label_handling.py.
"""

from pathlib import Path
from typing import Any

from hs3seg.errors import DataError
from hs3seg.files import write_json
from hs3seg.portable.files import grouping_of, is_integer, mapping_of, read_json
from hs3seg.taxonomy import Grouping, Taxonomy

_EXAMPLE = '"labels": {"background": 0, "vehicle": [1, 2], "sky": 3}'
_RESERVED = ("background", "ignore")


def write(grouping: Grouping, taxonomy: Taxonomy, path: Path) -> None:
    """Writes `labels` and `regions_class_order` into a dataset.json; its other keys are kept.

    nnU-Net's label 0 is the background and part of no region. Where class 0 is called `background` and is a group of
    its own, labels are class ids and the ignore label is K; else labels are class ids + 1, ignore is K + 1, and no
    pixel has label 0. The masks must be written accordingly.
    """
    others = read_json(path) if path.is_file() else {}
    shift = _shift(grouping, taxonomy)
    labels: dict[str, Any] = {"background": 0}
    for name, members in zip(grouping.group_names(taxonomy.names), grouping.groups, strict=True):
        if shift or members != (0,):
            numbers = [member + shift for member in members]
            labels[_unique(name, labels)] = numbers if len(numbers) > 1 else numbers[0]
    order = [value[0] if isinstance(value, list) else value for value in labels.values() if value != 0]
    labels["ignore"] = taxonomy.num_classes + shift
    others.pop("regions_class_order", None)
    regions = {} if grouping.is_identity else {"regions_class_order": order}
    write_json(path, {**others, "labels": labels, **regions})


def read(path: Path, taxonomy: Taxonomy) -> Grouping:
    """Reads `labels`, with class ids or class ids + 1, whichever of them fills K classes.

    Raises:
        DataError: not JSON, no labels, overlapping regions, no background, a missing class or
            `regions_class_order` that does not fit.
    """
    values = read_json(path)
    labels = mapping_of(values, "labels", path, _EXAMPLE)
    if labels.get("background") != 0 or isinstance(labels.get("background"), bool):
        raise DataError(f"{path}: 'background' of labels is {labels.get('background')!r}; nnU-Net wants 0")
    regions = [value if isinstance(value, list) else [value] for name, value in labels.items() if name not in _RESERVED]
    numbers = [number for region in regions for number in region]
    wrong = [number for number in numbers if not is_integer(number) or number < 1]
    if wrong:
        raise DataError(f"{path}: label {wrong[0]!r} in labels; labels besides the background are integers from 1")
    if any(len(region) > 1 for region in regions):
        _check_order(values.get("regions_class_order"), regions, path)
    count = taxonomy.num_classes
    if set(numbers) == set(range(1, count)):
        return grouping_of([[0], *regions], count, path, "label")
    if set(numbers) != set(range(1, count + 1)):
        found = f"{min(numbers)}..{max(numbers)}, {len(set(numbers))} of them" if numbers else "none"
        raise DataError(
            f"{path}: labels ({found}) do not fit {count} classes; expected 1..{count} (class ids + 1), or"
            f" 1..{count - 1} where class 0 is the background"
        )
    return grouping_of([[number - 1 for number in region] for region in regions], count, path, "label")


def _shift(grouping: Grouping, taxonomy: Taxonomy) -> int:
    return 0 if taxonomy.names[0].lower() == "background" and grouping.groups[0] == (0,) else 1


def _unique(name: str, taken: dict[str, Any]) -> str:
    """Names are keys here; two groups may have one where classes are called `a`, `b` and `a + b`."""
    candidate, number = name, 2
    while candidate in taken or candidate in _RESERVED:
        candidate, number = f"{name} ({number})", number + 1
    return candidate


def _check_order(order: Any, regions: list[list[int]], path: Path) -> None:
    if not isinstance(order, list) or len(order) != len(regions):
        found = "no" if order is None else f"{len(order) if isinstance(order, list) else order!r}"
        raise DataError(
            f"{path}: {found} regions_class_order for {len(regions)} regions; list one label of each region, in order"
        )
    for place, (label, region) in enumerate(zip(order, regions, strict=True)):
        if label not in region:
            raise DataError(f"{path}: regions_class_order[{place}] = {label!r} is not in its region {region}")
