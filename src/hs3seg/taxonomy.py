"""Classes and their groups: the full label set of a data set, and maps from K classes to k groups."""

import colorsys
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tomli_w
from numpy.typing import ArrayLike, NDArray

from hs3seg.errors import DataError, PlanError, nearest
from hs3seg.files import write_atomically

Colour = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class Taxonomy:
    """The label set: class c has `names[c]` and `colours[c]`.

    Args:
        names: One per class, unique.
        colours: (r, g, b) per class, 0..255.
        ignore_index: Label of pixels without a class; outside 0..K-1.
    """

    names: tuple[str, ...]
    colours: tuple[Colour, ...]
    ignore_index: int = 255

    def __post_init__(self) -> None:
        if not self.names:
            raise DataError("a taxonomy needs at least one class")
        doubled = [name for name in self.names if self.names.count(name) > 1]
        if doubled:
            raise DataError(f"class '{doubled[0]}' stands twice in the taxonomy; names must be unique")
        if len(self.colours) != len(self.names):
            raise DataError(
                f"the taxonomy has {len(self.names)} classes and {len(self.colours)} colours; give one each"
            )
        for name, colour in zip(self.names, self.colours, strict=True):
            if len(colour) != 3 or not all(isinstance(v, (int, np.integer)) and 0 <= v <= 255 for v in colour):
                raise DataError(f"class '{name}' has colour {colour}; a colour is three integers 0..255")
        if 0 <= self.ignore_index < len(self.names):
            raise DataError(
                f"ignore_index {self.ignore_index} is also the id of class '{self.names[self.ignore_index]}'; take"
                f" {_free_label(len(self.names))}"
            )

    @property
    def num_classes(self) -> int:
        """K."""
        return len(self.names)

    def index(self, name: str) -> int:
        """Id of a class.

        Raises:
            DataError: no such class; the nearest are named.
        """
        if name not in self.names:
            raise DataError(f"unknown class '{name}'; {nearest(name, self.names)}")
        return self.names.index(name)

    @classmethod
    def from_names(
        cls, names: Iterable[str], colours: Iterable[Colour] | None = None, ignore_index: int | None = None
    ) -> "Taxonomy":
        """Makes a taxonomy; without colours, distinct ones are generated, and pixels of no class are 255 or 65535."""
        names = tuple(names)
        ignore_index = _free_label(len(names)) if ignore_index is None else ignore_index
        return cls(names, tuple(colours) if colours is not None else distinct_colours(len(names)), ignore_index)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for TOML or JSON."""
        classes = [
            {"name": name, "colour": list(colour)} for name, colour in zip(self.names, self.colours, strict=True)
        ]
        return {"ignore_index": self.ignore_index, "class": classes}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], origin: str = "taxonomy") -> "Taxonomy":
        """Inverse of `to_dict`; `origin` names the source in errors.

        Raises:
            DataError: unknown key, missing name, or a wrong colour.
        """
        unknown = [key for key in values if key not in ("ignore_index", "class")]
        if unknown:
            raise DataError(f"{origin}: unknown key '{unknown[0]}'; {nearest(unknown[0], ('ignore_index', 'class'))}")
        classes = values.get("class")
        if not isinstance(classes, list) or not classes or not all(isinstance(c, dict) for c in classes):
            raise DataError(f'{origin}: no classes; write one [[class]] table with name = "..." for each, in id order')
        names = [entry.get("name") for entry in classes]
        wrong = [i for i, name in enumerate(names) if not isinstance(name, str) or not name]
        if wrong:
            raise DataError(f'{origin}: class {wrong[0]} has no name; write name = "..." in its [[class]] table')
        generated = distinct_colours(len(classes))
        colours: list[Colour] = []
        for entry, fallback in zip(classes, generated, strict=True):
            extra = [key for key in entry if key not in ("name", "colour")]
            if extra:
                raise DataError(f"{origin}: unknown key '{extra[0]}' of class '{entry['name']}'; allowed: name, colour")
            colour = entry.get("colour", list(fallback))
            if not isinstance(colour, list) or len(colour) != 3 or not all(type(v) is int for v in colour):
                raise DataError(
                    f"{origin}: class '{entry['name']}' has colour {colour!r}; write colour = [r, g, b], 0..255"
                )
            colours.append((colour[0], colour[1], colour[2]))
        ignore = values.get("ignore_index", 255)
        if type(ignore) is not int:
            raise DataError(f"{origin}: ignore_index = {ignore!r}; must be an integer such as 255")
        try:
            return cls(tuple(names), tuple(colours), ignore)
        except DataError as error:
            raise DataError(f"{origin}: {error}") from None

    @classmethod
    def load(cls, path: Path | str) -> "Taxonomy":
        """Reads taxonomy.toml.

        Raises:
            DataError: missing, not TOML, or wrong inside.
        """
        try:
            values = tomllib.loads(Path(path).read_text(encoding="utf-8-sig"))  # editors on Windows add a mark
        except FileNotFoundError:
            raise DataError(f"taxonomy file '{path}' does not exist") from None
        except OSError as error:
            raise DataError(f"taxonomy file '{path}' cannot be read: {error.strerror}") from None
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise DataError(f"{path}: not a TOML file: {error}") from None
        return cls.from_dict(values, str(path))

    def save(self, path: Path | str) -> None:
        """Writes taxonomy.toml; a class's id is its place in the file."""
        head = "# Classes in id order: the first is label 0. Pixels labelled ignore_index belong to no class.\n"
        text = head + tomli_w.dumps(self.to_dict())
        write_atomically(Path(path), lambda temporary: temporary.write_text(text, encoding="utf-8"))


@dataclass(frozen=True, slots=True)
class Grouping:
    """A map from K classes to k groups, in canonical form: groups are numbered by first appearance.

    Args:
        assignment: Group of each class, e.g. (0, 1, 0) = classes 0 and 2 together.
    """

    assignment: tuple[int, ...]

    def __post_init__(self) -> None:
        if not self.assignment:
            raise PlanError("a grouping needs at least one class")
        if any(found != number for number, found in enumerate(dict.fromkeys(self.assignment))):
            raise PlanError(f"grouping {self.assignment} is not canonical; use Grouping.from_labels")

    @classmethod
    def identity(cls, num_classes: int) -> "Grouping":
        """Every class on its own."""
        return cls(tuple(range(num_classes)))

    @classmethod
    def from_labels(cls, labels: ArrayLike) -> "Grouping":
        """From any labels, e.g. of a clustering; equal labels are one group."""
        return cls(_canonical(np.asarray(labels).tolist()))

    @classmethod
    def from_groups(cls, groups: Iterable[Iterable[int]], num_classes: int) -> "Grouping":
        """From lists of class ids that together hold each of 0..K-1 once.

        Raises:
            PlanError: a class twice, missing or unknown; an empty group.
        """
        labels = [-1] * num_classes
        for number, group in enumerate(groups):
            members = list(group)
            if not members:
                raise PlanError(f"group {number} is empty; remove it or give it a class")
            for member in members:
                if not 0 <= member < num_classes:
                    raise PlanError(f"group {number} holds class {member}; allowed: 0..{num_classes - 1}")
                if labels[member] >= 0:
                    raise PlanError(f"class {member} is in groups {labels[member]} and {number}; it must be in one")
                labels[member] = number
        if -1 in labels:
            raise PlanError(f"class {labels.index(-1)} is in no group; each of 0..{num_classes - 1} must be in one")
        return cls.from_labels(labels)

    @property
    def num_classes(self) -> int:
        """K."""
        return len(self.assignment)

    @property
    def num_groups(self) -> int:
        """The number of groups, k."""
        return max(self.assignment) + 1

    @property
    def is_identity(self) -> bool:
        """Whether every class is on its own (deep supervision)."""
        return self.num_groups == self.num_classes

    @property
    def groups(self) -> tuple[tuple[int, ...], ...]:
        """Class ids of each group."""
        members: list[list[int]] = [[] for _ in range(self.num_groups)]
        for index, group in enumerate(self.assignment):
            members[group].append(index)
        return tuple(tuple(m) for m in members)

    def remap(self, labels: NDArray[Any], ignore_index: int = 255) -> NDArray[Any]:
        """Group of each label.

        Args:
            labels: Integer array of any shape, values 0..K-1 or `ignore_index`.
            ignore_index: Stays as it is.

        Raises:
            PlanError: another label occurs, or the labels are not integers.
        """
        labels = np.asarray(labels)
        if labels.dtype.kind not in "iu":
            raise PlanError(f"labels of type {labels.dtype}; class ids are integers")
        valid = labels != ignore_index
        inside = (labels >= 0) & (labels < self.num_classes)
        if not bool((inside | ~valid).all()):
            found = labels[valid & ~inside].flat[0]
            raise PlanError(
                f"label {found} is outside 0..{self.num_classes - 1} and not the ignore label {ignore_index}"
            )
        table = np.asarray(self.assignment, dtype=np.int64)
        # Groups are numbered by first appearance, so a group's number never exceeds its class's: the type holds it.
        return np.where(valid, table[np.where(valid, labels, 0)].astype(labels.dtype), labels)

    def merge(self, confusion: NDArray[Any]) -> NDArray[np.int64]:
        """Confusion matrix of the groups: G^T C G.

        Args:
            confusion: (K, K) pixel counts, rows truth.

        Returns:
            (k, k) int64.

        Raises:
            PlanError: not (K, K), or not whole numbers (a normalised matrix: its shares would all become 0).
        """
        confusion = np.asarray(confusion)
        if confusion.dtype.kind not in "iu" and not (confusion == np.floor(confusion)).all():
            raise PlanError("confusion matrix with fractions; merge raw pixel counts and normalise afterwards")
        if confusion.shape != (self.num_classes, self.num_classes):
            raise PlanError(f"confusion matrix of shape {confusion.shape} for a grouping of {self.num_classes} classes")
        merged = np.zeros((self.num_groups, self.num_groups), np.int64)
        index = np.asarray(self.assignment)
        np.add.at(merged, (index[:, None], index[None, :]), confusion.astype(np.int64))
        return merged

    def group_names(self, names: Sequence[str]) -> tuple[str, ...]:
        """Names such as `building + sign_symbol`."""
        return tuple(" + ".join(names[c] for c in group) for group in self.groups)

    def group_colours(self, colours: Sequence[Colour], weights: Sequence[float] | None = None) -> tuple[Colour, ...]:
        """A colour per group: that of its heaviest (default: first) class."""
        weights = list(weights) if weights is not None else [0.0] * self.num_classes
        return tuple(colours[max(group, key=lambda c: weights[c])] for group in self.groups)


def _free_label(num_classes: int) -> int:
    """The usual label of pixels without a class that is none of the classes' ids."""
    return next((label for label in (255, 65535) if label >= num_classes), -1)


def distinct_colours(count: int) -> tuple[Colour, ...]:
    """Colours that differ in hue, then in lightness; the same ones for the same count."""
    colours: list[Colour] = []
    for i in range(count):
        hue = (i * 0.618033988749895) % 1.0  # golden ratio: neighbours lie far apart
        lightness = (0.50, 0.66, 0.38)[(i // 9) % 3]
        red, green, blue = colorsys.hls_to_rgb(hue, lightness, 0.65)
        colour = (round(255 * red), round(255 * green), round(255 * blue))
        while colour in colours:  # after some hundred colours, rounding makes the first twins
            colour = (colour[0], colour[1], (colour[2] + 1) % 256)
        colours.append(colour)
    return tuple(colours)


def _canonical(labels: Iterable[int]) -> tuple[int, ...]:
    labels = list(labels)
    numbers = {label: number for number, label in enumerate(dict.fromkeys(labels))}
    return tuple(map(numbers.__getitem__, labels))
