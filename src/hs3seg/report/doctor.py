"""The page of `hs3 data check`: a verdict, the finds by kind with pictures, and histograms of classes and sizes."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hs3seg.files import write_atomically, write_json
from hs3seg.report.doctor_pictures import picture_tiles
from hs3seg.report.document import document, sections
from hs3seg.report.markup import DASH, TIMES, data, definitions, details, escape, listed, swatch, table, tag

_ROWS, _SIZES = 8, 12  # finds of a kind, and sizes, that are shown unfolded
_WORDS = {"error": ("error", "errors"), "warning": ("warning", "warnings"), "note": ("note", "notes")}
_SECTIONS = {
    "error": ("Errors", "Training stops at these, or cannot start."),
    "warning": ("Warnings", "Training runs, but this is probably not meant."),
    "note": ("Notes", "Nothing is wrong; it is good to know."),
}


def write_doctor_page(
    diagnosis: Mapping[str, Any], folder: Path, pictures: Mapping[str, NDArray[np.uint8]], title: str = "data"
) -> Path:
    """Writes one self-contained page of a diagnosis, and its values beside it.

    Args:
        diagnosis: `hs3seg.data.doctor.Diagnosis.to_dict()`.
        folder: For index.html and findings.json.
        pictures: `Diagnosis.pictures`: `NUMBER/image`, `NUMBER/mask`, ... -> (h, w, 3) uint8.
        title: Name of the data set, e.g. its top folder.

    Returns:
        Path of index.html.
    """
    folder = Path(folder)
    html = _document(diagnosis, pictures, title)
    write_json(folder / "findings.json", dict(diagnosis))
    write_atomically(folder / "index.html", lambda temporary: temporary.write_text(html, encoding="utf-8") and None)
    return folder / "index.html"


def verdict(diagnosis: Mapping[str, Any]) -> str:
    """One sentence that says whether the data can be trained on."""
    counts, images = diagnosis["counts"], _number_of_images(diagnosis)
    kinds = diagnosis["kinds"]
    for severity, words in (("error", "Training will stop at"), ("warning", "Training will run, but look at")):
        if not counts[severity]:
            continue
        of = dict.fromkeys(found["kind"] for found in diagnosis["findings"] if found["severity"] == severity)
        names = [kinds[kind][0].lower() + kinds[kind][1:] for kind in of]
        shown = listed(names) if len(names) <= 3 else ", ".join(names[:3]) + f" and {len(names) - 3} more kinds"
        return f"{words} {_counted(counts[severity], severity)}: {shown}."
    return f"No fault was found in the {images} images." if images else "There is no image to look at."


def _document(diagnosis: Mapping[str, Any], pictures: Mapping[str, NDArray[np.uint8]], title: str) -> str:
    root = _common_folder([found["file"] for found in diagnosis["findings"]])
    made = {
        severity: (name, _finds(severity, words, diagnosis, pictures, root))
        for severity, (name, words) in _SECTIONS.items()
    }
    made |= {"classes": ("Classes", _classes(diagnosis)), "sizes": ("Sizes", _sizes(diagnosis))}
    opening = _opening(diagnosis, root)
    return document(title, "hs3seg data check", opening, sections(made), styles=("doctor.css",))


def _opening(diagnosis: Mapping[str, Any], root: str) -> str:
    counts = diagnosis["counts"]
    found = [_counted(counts[severity], severity) for severity in _WORDS if counts[severity]]
    splits = diagnosis["splits"]
    facts: dict[str, object] = {f"images of {split}": _images_of(values) for split, values in splits.items()}
    facts |= {"classes": len(diagnosis["classes"]) or DASH, "found": listed(found) or "nothing"}
    if root:
        facts["files below"] = root
    return tag("p", escape(verdict(diagnosis)), class_="verdict") + definitions(facts)


def _finds(
    severity: str,
    words: str,
    diagnosis: Mapping[str, Any],
    pictures: Mapping[str, NDArray[np.uint8]],
    root: str,
) -> str:
    """The finds of a severity by kind: what to do, a table, pictures."""
    by_kind: dict[str, list[int]] = {}
    for number, found in enumerate(diagnosis["findings"]):
        if found["severity"] == severity:
            by_kind.setdefault(found["kind"], []).append(number)
    unlisted = {(more["kind"], more["severity"]): more["count"] for more in diagnosis["unlisted"]}
    parts = []
    for kind, numbers in by_kind.items():
        finds = [diagnosis["findings"][number] for number in numbers]
        more = unlisted.get((kind, severity), 0)
        head = f'<span class="badge {severity}">{severity}</span>{escape(diagnosis["kinds"][kind])}'
        parts.append(f'<h3>{head} <span class="count">{len(finds) + more} {TIMES} {escape(kind)}</span></h3>')
        remedies = list(dict.fromkeys(found["remedy"] for found in finds))
        if len(remedies) == 1:
            parts.append(tag("p", f"<strong>Remedy:</strong> {escape(remedies[0])}.", class_="remedy"))
        parts.append(_table(finds[:_ROWS], root, len(remedies) > 1))
        if len(finds) > _ROWS:
            rest = _table(finds[_ROWS:], root, len(remedies) > 1)
            parts.append(details(f"{len(finds) - _ROWS} more of this kind", rest))
        if more:
            parts.append(f'<p class="note">{more} more of this kind are counted, but not listed.</p>')
        parts += [picture_tiles(diagnosis, pictures, number, severity) for number in numbers]
    return f"<p>{words}</p>" + "".join(parts) if parts else ""


def _table(finds: Sequence[Mapping[str, Any]], root: str, remedies: bool) -> str:
    head = ["file", "place", "split", "what was found", *(["remedy"] if remedies else [])]
    rows = []
    for found in finds:
        place = found["place"]
        where = f"x {place['x']}, y {place['y']}" if place else DASH
        cells = [escape(_short(found["file"], root)), escape(where), escape(found["split"]), escape(found["message"])]
        rows.append([*cells, *([escape(found["remedy"])] if remedies else [])])
    return table(head, rows, "finds")


def _classes(diagnosis: Mapping[str, Any]) -> str:
    """Share of the labelled pixels per class and split, with the number of images that have it."""
    splits, classes = diagnosis["splits"], diagnosis["classes"]
    if not splits or not classes:
        return ""
    totals = {s: max(1, sum(entry["pixels"] for entry in values["classes"].values())) for s, values in splits.items()}
    shares = {
        split: {name: entry["pixels"] / totals[split] for name, entry in values["classes"].items()}
        for split, values in splits.items()
    }
    highest = max((share for of in shares.values() for share in of.values()), default=0) or 1
    rows = []
    for entry in classes:
        name, cells = entry["name"], [swatch(entry["colour"]) + escape(entry["name"])]
        for split, values in splits.items():
            images = values["classes"][name]["images"]
            cells.append(_bar(shares[split][name] / highest, shares[split][name], images))
        rows.append(cells)
    void = ["no class"]
    for split, values in splits.items():
        whole = totals[split] + values["num_ignored_pixels"]
        void.append(f'<span class="share">{_percent(values["num_ignored_pixels"] / whole)}</span><small>of all</small>')
    words = "Share of the labelled pixels, and number of images that have the class. All bars have one scale."
    return f"<p>{words}</p>" + table(["class", *(escape(split) for split in splits)], [*rows, void], "classes")


def _sizes(diagnosis: Mapping[str, Any]) -> str:
    """Images per size and split."""
    splits = {split: values["sizes"] for split, values in diagnosis["splits"].items()}
    totals: dict[str, int] = {}
    for sizes in splits.values():
        for size, count in sizes.items():
            totals[size] = totals.get(size, 0) + count
    if not totals:
        return ""
    ordered = sorted(totals, key=lambda size: -totals[size])
    highest = max(count for sizes in splits.values() for count in sizes.values())
    rows = []
    for size in ordered:
        cells = [escape(size.replace("x", f" {TIMES} "))]
        for sizes in splits.values():
            count = sizes.get(size, 0)
            cells.append(_line(count / highest) + data(count, str(count)))
        rows.append(cells)
    head = ["width and height", *(escape(split) for split in splits)]
    content = table(head, rows[:_SIZES], "sizes")
    if len(rows) > _SIZES:
        content += details(f"{len(rows) - _SIZES} more sizes", table(head, rows[_SIZES:], "sizes"))
    return "<p>Images of each size, in pixels.</p>" + content


def _bar(length: float, share: float, images: int) -> str:
    number = f'<span class="share">{data(share, _percent(share))}</span>'
    words = f"<small>in {images}</small>" if images else '<small class="absent">absent</small>'
    return _line(length) + number + words


def _line(length: float) -> str:
    return f'<span class="bar"><i style="width:{100 * length:.1f}%"></i></span>'


def _percent(share: float) -> str:
    """`12.3 %`, with more digits for what is rare."""
    if share and share < 0.001:
        return f"{100 * share:.4f} %"
    return f"{100 * share:.2f} %" if share < 0.01 else f"{100 * share:.1f} %"


def _counted(count: int, severity: str) -> str:
    return f"{count} {_WORDS[severity][count != 1]}"


def _images_of(values: Mapping[str, Any]) -> str:
    """Images that could be opened, and those whose labels can be used where these are fewer."""
    opened, used = sum(values["sizes"].values()), values["num_images"]
    return str(used) if opened == used else f"{opened}, labels of {used}"


def _number_of_images(diagnosis: Mapping[str, Any]) -> int:
    return sum(values["num_images"] for values in diagnosis["splits"].values())


def _common_folder(paths: Sequence[str]) -> str:
    """The folder that all files lie in; empty where there are too few to tell."""
    absolute = [path for path in paths if Path(path).is_absolute()]
    if len(absolute) < 2:
        return ""
    common = os.path.commonpath([str(Path(path).parent) for path in absolute])
    return "" if common == Path(common).anchor else common


def _short(path: str, root: str) -> str:
    if root and Path(path).is_absolute() and Path(path).is_relative_to(root):
        return Path(path).relative_to(root).as_posix()
    return path
