"""Groups as a plain table: CSV (RFC 4180) with a header, one row per class."""

import csv
import io
from pathlib import Path

from hs3seg.errors import DataError, nearest
from hs3seg.portable.files import read_text, write_text
from hs3seg.taxonomy import Grouping, Taxonomy

COLUMNS = ("class_id", "class", "group", "group_name")


def write(grouping: Grouping, taxonomy: Taxonomy, path: Path) -> None:
    """Writes the columns class_id, class, group, group_name."""
    names = grouping.group_names(taxonomy.names)
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(COLUMNS)
    for class_id, group in enumerate(grouping.assignment):
        writer.writerow((class_id, taxonomy.names[class_id], group, names[group]))
    write_text(path, text.getvalue())


def read(path: Path, taxonomy: Taxonomy) -> Grouping:
    """Reads the columns `class` (its name; or `class_id`) and `group`; equal entries in `group` are one group.

    Rows may be in any order, and separated by commas or, as some spreadsheets write them, by semicolons.

    Raises:
        DataError: no such columns, a row that is too short, an unknown, doubled or missing class.
    """
    text = read_text(path)
    head = text.partition("\n")[0]
    rows = list(csv.reader(io.StringIO(text, newline=""), delimiter=";" if ";" in head and "," not in head else ","))
    columns = [cell.strip() for cell in rows[0]] if rows else []
    by = "class" if "class" in columns else "class_id"
    for wanted in (by, "group"):
        if wanted not in columns:
            raise DataError(f"{path}: no column '{wanted}' in its first line ({', '.join(columns) or 'empty'});"
                            f" expected {','.join(COLUMNS)}")  # fmt: skip
    groups: dict[int, str] = {}
    for line, row in enumerate(rows[1:], start=2):
        if not any(cell.strip() for cell in row):
            continue
        if len(row) < len(columns):
            raise DataError(f"{path}: row {line} has {len(row)} cells, the header {len(columns)}")
        class_id = _class_id(row[columns.index(by)], by, taxonomy, f"{path}: row {line}")
        group = row[columns.index("group")].strip()
        if not group:
            raise DataError(f"{path}: row {line}: class '{taxonomy.names[class_id]}' has an empty group")
        if class_id in groups:
            raise DataError(f"{path}: row {line}: class '{taxonomy.names[class_id]}' stands twice; remove one row")
        groups[class_id] = group
    missing = [name for class_id, name in enumerate(taxonomy.names) if class_id not in groups]
    if missing:
        raise DataError(f"{path}: class '{missing[0]}' has no row ({len(missing)} such classes)")
    numbers = {group: number for number, group in enumerate(dict.fromkeys(groups.values()))}
    return Grouping.from_labels([numbers[groups[class_id]] for class_id in range(taxonomy.num_classes)])


def _class_id(cell: str, by: str, taxonomy: Taxonomy, where: str) -> int:
    if by == "class":
        if cell not in taxonomy.names:
            raise DataError(f"{where}: unknown class '{cell}'; {nearest(cell, taxonomy.names)}")
        return taxonomy.names.index(cell)
    text = cell.strip()
    if not (text.isascii() and text.isdigit()) or int(text) >= taxonomy.num_classes:
        raise DataError(f"{where}: class_id '{cell}'; allowed: 0..{taxonomy.num_classes - 1}")
    return int(text)
