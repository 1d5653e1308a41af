"""What the doctor says: findings of a stable kind, and the diagnosis that holds them."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hs3seg.data.statistics import LabelStatistics
from hs3seg.taxonomy import Taxonomy

Severity = Literal["error", "warning", "note"]
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "note")

TITLES = {
    "unopened-split": "Split cannot be opened",
    "empty-split": "Split without a sample",
    "missing-folder": "Folder without its partner",
    "bad-list-line": "Wrong line in a list",
    "image-without-mask": "Image without a mask",
    "mask-without-image": "Mask without an image",
    "ambiguous-name": "Name that stands for two samples",
    "missing-file": "File does not exist",
    "empty-file": "Empty file",
    "corrupt-file": "File is damaged or no image",
    "image-too-large": "More pixels than are safe to open",
    "unreadable-sample": "Sample cannot be read",
    "fatal-sample": "Sample that ends the process",
    "size-mismatch": "Image and mask differ in size",
    "exif-rotated": "Image is turned by its EXIF tag",
    "swapped-pair": "Image and mask are swapped",
    "mask-is-image": "Mask is a copy of the image",
    "float-mask": "Mask of floating-point values",
    "sixteen-bit-mask": "Ids scaled from 8 to 16 bit",
    "binary-255": "Binary mask of 0 and 255",
    "off-by-one": "Labels are shifted by one",
    "scaled-ids": "Ids stretched for looking at",
    "ids-as-colours": "Ids written as grey colours",
    "unknown-id": "Id that is no class",
    "unknown-colour": "Colour that is no class",
    "lossy-mask": "Mask went through lossy compression",
    "smoothed-mask": "Mask with smoothed edges",
    "mask-with-alpha": "Mask with transparency",
    "palette-order": "Palette and taxonomy name different classes",
    "several-frames": "File with several pictures",
    "one-class": "Fewer than two classes",
    "all-ignored": "Mask without a labelled pixel",
    "specks": "Label noise: single pixels",
    "mirrored-mask": "Mask is mirrored",
    "constant-image": "Image of one colour",
    "dark-image": "Image is almost black",
    "transparent-image": "Image with transparency",
    "duplicate-across-splits": "One image in two splits",
    "near-duplicate-across-splits": "Nearly the same image in two splits",
    "duplicate-image": "One image twice in a split",
    "near-duplicate": "Nearly the same image in a split",
    "duplicate-mask": "One mask under different images",
    "absent-class": "Class that never occurs",
    "untrained-class": "Class that only other splits have",
    "dominant-class": "One class is nearly everything",
    "rare-class": "Very rare class",
    "single-image-split": "Split of one image",
    "unusual-size": "Image of unusual size",
    "grey-image": "Grey image stored as colour",
}
"""Every kind, in the order of print, and what it is called."""


class Place(NamedTuple):
    """A box of pixels: upper left corner, width and height."""

    x: int
    y: int
    width: int = 1
    height: int = 1


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing worth knowing.

    Args:
        kind: Stable name of the kind, a key of `TITLES`.
        severity: `error` = training will stop here; `warning` = probably not meant; `note` = so that it is known.
        split: Where.
        file: Where, as exactly as is known: a file, else the split.
        message: What was found.
        remedy: What to do.
        place: Pixels that show it.
        index: Position of the sample in its split.
        other: Split and position of a second sample that takes part.
    """

    kind: str
    severity: Severity
    split: str
    file: str
    message: str
    remedy: str
    place: Place | None = None
    index: int | None = None
    other: tuple[str, int] | None = None

    def located(self, split: str, index: int) -> "Finding":
        """The same finding, with the sample's place in the data set."""
        return replace(self, split=split, index=index)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "kind": self.kind,
            "severity": self.severity,
            "split": self.split,
            "file": self.file,
            "message": self.message,
            "remedy": self.remedy,
            "place": self.place._asdict() if self.place is not None else None,
        }


@dataclass(frozen=True, slots=True)
class Picture:
    """What shows a finding.

    Args:
        finding: Position in the diagnosis' findings.
        name: Of the sample.
        size: Width and height of the image in pixels; of the mask where the image cannot be read.
        mask_size: Of the mask; None where it cannot be read.
        crop: The part that is shown larger; None = there is no place, or it is most of the picture.
        arrays: `image` and `mask` (h, w, 3) uint8; `image-crop` and `mask-crop`, the part; `other`, the image of the
            second sample; all at most 480 pixels wide and high. What cannot be read is left out.
    """

    finding: int
    name: str
    size: tuple[int, int]
    mask_size: tuple[int, int] | None
    crop: Place | None
    arrays: Mapping[str, NDArray[np.uint8]]


@dataclass(frozen=True)
class Diagnosis:
    """Findings, class counts and sizes of all splits.

    Args:
        findings: Errors first, then in the order of `TITLES`.
        statistics: Split -> class counts of what could be read.
        taxonomy: Classes; None where no split could be opened.
        sizes: Split -> (width, height) -> images.
        unlisted: Kind and severity -> findings that are counted, but not among `findings`.
        shown: Pictures of the worst finds.
    """

    findings: tuple[Finding, ...]
    statistics: Mapping[str, LabelStatistics] = field(default_factory=dict)
    taxonomy: Taxonomy | None = None
    sizes: Mapping[str, Mapping[tuple[int, int], int]] = field(default_factory=dict)
    unlisted: Mapping[tuple[str, Severity], int] = field(default_factory=dict)
    shown: tuple[Picture, ...] = ()

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes."""
        return self.taxonomy.names if self.taxonomy is not None else ()

    @property
    def errors(self) -> int:
        """Findings at which training would stop, listed or not."""
        return self._count("error")

    @property
    def warnings(self) -> int:
        """Findings that are probably not meant, listed or not."""
        return self._count("warning")

    @property
    def notes(self) -> int:
        """Findings to know of, listed or not."""
        return self._count("note")

    @property
    def has_errors(self) -> bool:
        """Whether training would stop."""
        return self.errors > 0

    def exit_code(self, strict: bool = False) -> int:
        """2 where training would stop, with `strict` also where there are warnings; else 0."""
        return 2 if self.errors or (strict and self.warnings) else 0

    @property
    def pictures(self) -> dict[str, NDArray[np.uint8]]:
        """Arrays of the pictures, `NUMBER/image`, `NUMBER/mask`, ...; the numbers are those of `to_dict`."""
        return {f"{n}/{key}": array for n, shown in enumerate(self.shown) for key, array in shown.arrays.items()}

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON: counts, findings, classes, splits, and what the pictures show."""
        taxonomy = self.taxonomy
        named = zip(taxonomy.names, taxonomy.colours, strict=True) if taxonomy is not None else ()
        return {
            "counts": {"error": self.errors, "warning": self.warnings, "note": self.notes},
            "findings": [finding.to_dict() for finding in self.findings],
            "unlisted": [
                {"kind": kind, "severity": severity, "count": count}
                for (kind, severity), count in self.unlisted.items()
            ],
            "kinds": {kind: TITLES[kind] for kind in dict.fromkeys(finding.kind for finding in self.findings)},
            "classes": [{"name": name, "colour": [int(v) for v in colour]} for name, colour in named],
            "splits": {
                split: values.to_dict(self.class_names)
                | {"sizes": {f"{w}x{h}": count for (w, h), count in _by_count(self.sizes.get(split, {}))}}
                for split, values in self.statistics.items()
            },
            "pictures": [
                {
                    "finding": shown.finding,
                    "name": shown.name,
                    "size": list(shown.size),
                    "mask_size": list(shown.mask_size) if shown.mask_size is not None else None,
                    "crop": shown.crop._asdict() if shown.crop is not None else None,
                }
                for shown in self.shown
            ],
        }

    def _count(self, severity: Severity) -> int:
        listed = sum(finding.severity == severity for finding in self.findings)
        return listed + sum(count for (_, of), count in self.unlisted.items() if of == severity)


def in_order(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """Errors first, then by kind as in `TITLES`; what is of one kind stays as it is."""
    kinds = list(TITLES)
    return tuple(sorted(findings, key=lambda f: (SEVERITIES.index(f.severity), kinds.index(f.kind))))


def limited(
    findings: Iterable[Finding], most: int | None
) -> tuple[tuple[Finding, ...], dict[tuple[str, Severity], int]]:
    """The first `most` findings of each kind and severity, and how many more there are; None = all."""
    kept: list[Finding] = []
    seen: Counter[tuple[str, Severity]] = Counter()
    for finding in findings:
        seen[finding.kind, finding.severity] += 1
        if most is None or seen[finding.kind, finding.severity] <= most:
            kept.append(finding)
    more = {key: count - most for key, count in seen.items() if most is not None and count > most}
    return tuple(kept), more


def _by_count(sizes: Mapping[tuple[int, int], int]) -> list[tuple[tuple[int, int], int]]:
    return sorted(sizes.items(), key=lambda entry: (-entry[1], entry[0]))
