"""A first taxonomy and config for an unknown folder, by looking at all its masks: `hs3 data init FOLDER`."""

import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from hs3seg.data.guess import FoundLayout, guess_layout
from hs3seg.data.mask_values import MaskValues, is_black_void, look, put_together, totals, unpacked
from hs3seg.data.parallel import in_order
from hs3seg.errors import DataError
from hs3seg.taxonomy import Colour, Taxonomy, distinct_colours

_MOST_CLASSES = 200


@dataclass(frozen=True, slots=True)
class ClassFound:
    """A class, and where it was seen.

    Args:
        value: Id or colour in the files.
        share: Of all labelled and unlabelled pixels.
        num_files: Masks that have it.
    """

    value: int | Colour
    share: float
    num_files: int


@dataclass(frozen=True)
class Proposal:
    """What an unknown folder probably holds.

    Args:
        taxonomy: With names to be edited.
        classes: In the taxonomy's order.
        ignored: Id or colour -> share of pixels, of what is taken for unlabelled.
        data: Keys of the config's data section, as `FolderDataset` has them.
        splits: Names, train first.
        num_masks: That were read.
        size: Median height and width of the masks.
        notes: What was found; those that begin with `WRONG` are to be mended.
    """

    taxonomy: Taxonomy
    classes: tuple[ClassFound, ...]
    ignored: dict[int | Colour, float]
    data: dict[str, Any]
    splits: tuple[str, ...]
    num_masks: int
    size: tuple[int, int]
    notes: tuple[str, ...]


def propose_taxonomy(
    folder: Path | str, num_workers: int = 0, progress: Callable[[int, int], object] | None = None
) -> tuple[Proposal, tuple[str, ...]]:
    """Reads every mask of a folder and says which classes they probably hold.

    Args:
        folder: Data set in any layout that `guess_layout` understands.
        num_workers: Processes; the result does not depend on it.
        progress: Called with the number of masks read and of all.

    Returns:
        The proposal, and its notes.

    Raises:
        DataError: no pairs of images and masks, no mask that can be read, or values that cannot be classes.
    """
    layout = guess_layout(Path(folder))
    files = list(dict.fromkeys(mask for _, mask in layout.pairs))
    seen: list[MaskValues] = []
    for values in in_order(partial(_look_at, files), len(files), num_workers):
        seen.append(values)
        if progress is not None:
            progress(len(seen), len(files))
    proposal = propose(layout, seen)
    return proposal, proposal.notes


def propose(layout: FoundLayout, seen: list[MaskValues]) -> Proposal:
    """Classes of a folder from what its masks hold; see `propose_taxonomy`."""
    notes = list(layout.notes)
    if len(layout.splits) == 1:
        notes.append(
            f"WRONG: '{layout.splits[0]}' is the only split, so networks are scored on what they were trained on."
        )
    broken = [values for values in seen if values.kind == "error"]
    if broken:
        notes.append(f"WRONG: {len(broken)} masks cannot be read, e.g. {broken[0].error}")
    seen = [values for values in seen if values.kind != "error"]
    if not seen:
        raise DataError(f"none of the masks can be read, e.g. {broken[0].error if broken else 'there is none'}")
    lossy = [values for values in seen if values.is_lossy]
    if lossy:
        notes.append(
            f"WRONG: {len(lossy)} masks are JPEG, which changes labels at every border, e.g. {lossy[0].file}; save them"
            " again from their source as PNG. The classes are those that remain when near values are put together."
        )
    kinds = Counter(values.kind for values in seen)
    kind = "colours" if kinds["colours"] > kinds["ids"] else "ids"
    if len(kinds) > 1:
        odd = next(values for values in seen if values.kind != kind)
        notes.append(f"WRONG: most masks hold {kind}, but {len(seen) - kinds[kind]} do not, e.g. {odd.file}")
    seen = [values for values in seen if values.kind == kind]
    pixels, files = totals(seen)
    # Colours of clean masks are few; smoothed ones look as JPEG does, whatever their suffix.
    if lossy or (kind == "colours" and len(pixels) > _MOST_CLASSES):
        if not lossy:
            notes.append(
                f"WRONG: the masks have {len(pixels)} colours, as smoothed or once lossy ones do; save them again"
                " without smoothing. The classes are those that remain when near colours are put together."
            )
        pixels, files = put_together(pixels, files, kind)
    made = _of_colours(pixels, notes) if kind == "colours" else _of_ids(pixels, seen, notes)
    total = sum(pixels.values())
    values, ignored = made.values, {value: pixels[value] / total for value in made.ignored}
    if len(values) > _MOST_CLASSES or not values:
        raise DataError(
            f"the masks, e.g. {seen[0].file}, hold {len(values)} {kind}; at most {_MOST_CLASSES} can be classes: are"
            " these images, or masks of instances? Name the masks in data.mask_pattern, or write taxonomy.toml"
        )
    found = [ClassFound(_shown(value, kind), pixels.get(value, 0) / total, files.get(value, 0)) for value in values]
    colours = made.colours or distinct_colours(len(values))
    sizes = np.array([values.size for values in seen])
    return Proposal(
        Taxonomy(tuple(f"class_{number}" for number in range(len(values))), tuple(colours)),
        tuple(found),
        {_shown(value, kind): share for value, share in ignored.items()},
        {**layout.data, **made.data},
        layout.splits,
        len(seen),
        (int(np.median(sizes[:, 0])), int(np.median(sizes[:, 1]))),
        tuple(notes),
    )


@dataclass
class _Made:
    values: list[int]
    ignored: list[int] = field(default_factory=list)
    colours: list[Colour] = field(default_factory=list)
    data: dict[str, Any] = field(default_factory=dict)


def _of_colours(pixels: dict[int, int], notes: list[str]) -> _Made:
    ranked = sorted(pixels, key=lambda value: -pixels[value])
    share = pixels.get(0, 0) / sum(pixels.values())
    made = _Made(ranked)
    if is_black_void(pixels):
        ranked.remove(0)
        made.ignored = [0]
        notes.append(f"Black is on {100 * share:.1f} % of the pixels and taken for void; to make it a class, add it.")
    elif share:
        notes.append("Black is a class; if it means unlabelled, delete that class: black is then ignored.")
    if all(value >> 16 == value & 255 == value >> 8 & 255 for value in ranked):
        notes.append("All colours are grey, so these may be ids saved as colours; each is a class all the same.")
    made.colours = [unpacked(value) for value in ranked]
    return made


def _of_ids(pixels: dict[int, int], seen: list[MaskValues], notes: list[str]) -> _Made:
    ignored, values = _void_ids(pixels, max(values.top for values in seen))
    made = _Made(values, ignored)
    beyond = [value for value in ignored if value != 255]
    if beyond:
        made.data["ignore_ids"] = beyond
    for value in ignored:
        share = 100 * pixels[value] / sum(pixels.values())
        notes.append(f"Id {value} is on {share:.1f} % of the pixels and taken for unlabelled.")
    if not values:
        return made
    if values[0] >= 0 and len(values) > values[-1] / 2 and values[-1] < _MOST_CLASSES and values[0] == 0:
        absent = sorted(set(range(values[-1])) - set(values))
        if absent:
            notes.append(f"Ids {_some(absent)} are in no mask, but have a class, so that ids stay as they are.")
        made.values = list(range(values[-1] + 1))
    else:
        made.data["ids"] = values
        notes.append(f"The ids in the files are {_some(values)}; data.ids says which class each one is.")
        if len(values) > 2 and math.gcd(*values) > 2:
            notes.append(f"All ids are multiples of {math.gcd(*values)}: they were stretched to be told apart by eye.")
    if 0 in values:
        notes.append(
            "Id 0 is a class; if it means unlabelled, delete its class, give the ids of the others in data.ids, and set"
            " data.ignore_ids = [0]."
        )
    made.colours = _palette_colours(made.values, seen, notes)
    return made


def _void_ids(pixels: dict[int, int], top: int) -> tuple[list[int], list[int]]:
    """Ids that probably mean unlabelled, and the others in order.

    255, -1 and the largest possible id stand apart from the others, unless all were stretched to 0..255.
    """
    values = sorted(pixels)
    classes = [value for value in values if value not in (-1, 255, top)]
    ends = np.linspace(0, 255, len(values))
    stretched = values[-1] == 255 and len(values) > 1 and np.abs(ends - values).max() <= 1
    if stretched or not classes:
        return [value for value in values if value == -1], [value for value in values if value != -1]
    if 255 in values and set(range(200, 255)) & set(classes):
        classes = sorted({*classes, 255})  # one of many large ids
    return [value for value in values if value not in classes], classes


def _palette_colours(values: list[int], seen: list[MaskValues], notes: list[str]) -> list[Colour]:
    """Colours that palette files give to the ids, if all agree and tell them apart."""
    table: dict[int, Colour] = {}
    for mask in seen:
        for value in mask.counts:
            if 0 <= value < len(mask.palette) and table.setdefault(value, mask.palette[value]) != mask.palette[value]:
                notes.append(
                    f"WRONG: id {value} has the palette colour {table[value]} in some masks and {mask.palette[value]}"
                    f" in others, e.g. {mask.file}; if the colours are right, not the ids, set data.encoding ="
                    " 'palette' and write the colours into taxonomy.toml"
                )
                return []
    if not all(value in table for value in values if any(value in mask.counts for mask in seen)):
        return []
    spare = (colour for colour in distinct_colours(2 * len(values)) if colour not in table.values())
    colours = [table[value] if value in table else next(spare) for value in values]
    return colours if len(set(colours)) == len(colours) else []


def _look_at(files: list[Path], index: int) -> MaskValues:
    return look(files[index])


def _shown(value: int, kind: str) -> int | Colour:
    return unpacked(value) if kind == "colours" else value


def _some(values: list[int]) -> str:
    return ", ".join(str(value) for value in values[:12]) + (", ..." if len(values) > 12 else "")
