"""Bridges: a file that says what each class of one label set is in another.

With one, a network that knows the classes of one data set is evaluated on another, e.g. Cityscapes' 19 on CamVid's 11.
Shapes: N images, K classes of the source (the network), T of the target (the data), H x W pixels.
"""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hs3seg.errors import DataError, nearest
from hs3seg.taxonomies.camvid import CAMVID11, CAMVID32
from hs3seg.taxonomies.cityscapes import CITYSCAPES
from hs3seg.taxonomies.nyuv2 import NYU4, NYU13, NYU40
from hs3seg.taxonomies.voc import VOC
from hs3seg.taxonomy import Taxonomy

KNOWN = {
    "cityscapes": CITYSCAPES,
    "camvid": CAMVID11,
    "camvid-32": CAMVID32,
    "nyuv2-40": NYU40,
    "nyuv2-13": NYU13,
    "nyuv2-4": NYU4,
    "voc": VOC,
}
"""Taxonomies that a bridge file can name."""

_KEYS = ("source", "target", "classes", "unmapped")


@dataclass(frozen=True, slots=True)
class Bridge:
    """What each class of a source is in a target: many to one, or nothing.

    Args:
        source: K classes, e.g. the network's.
        target: T classes, e.g. the data's.
        assignment: Target class of each source class, or the target's ignore label where it has no counterpart.

    Raises:
        DataError: not one target class per source class, or none at all that is one.
    """

    source: Taxonomy
    target: Taxonomy
    assignment: tuple[int, ...]

    def __post_init__(self) -> None:
        if len(self.assignment) != self.source.num_classes:
            raise DataError(
                f"a bridge of {len(self.assignment)} classes does not fit a source of {self.source.num_classes}"
            )
        ids = range(self.target.num_classes)
        wrong = [value for value in self.assignment if value not in ids and value != self.target.ignore_index]
        if wrong:
            raise DataError(
                f"a bridge leads to class {wrong[0]}; allowed: 0..{len(ids) - 1} and {self.target.ignore_index} (none)"
            )
        if not any(value in ids for value in self.assignment):
            raise DataError("a bridge maps no class at all; give at least one source class a target class")

    @classmethod
    def load(cls, path: Path | str, source: Taxonomy | None = None, target: Taxonomy | None = None) -> "Bridge":
        """Reads a bridge file.

        Its table `classes` has, per class of the target, the list of the source's classes that become it (`[]` where
        none does). The list `unmapped` holds the source's classes without a counterpart. So every class of both sides
        stands in the file once. `source` and `target` name the label sets: one of `KNOWN`, or a taxonomy.toml, whose
        path is relative to the bridge file.

        Args:
            path: The file.
            source: The network's classes, by whose ids `table` is made; otherwise the file's `source`.
            target: The data's classes, likewise.

        Raises:
            DataError: the file cannot be read, or a name is unknown, missing, or there twice.
        """
        path = Path(path)
        try:
            values = tomllib.loads(path.read_text(encoding="utf-8-sig"))  # editors on Windows add a mark
        except FileNotFoundError:
            raise DataError(f"bridge file '{path}' does not exist") from None
        except OSError as error:
            raise DataError(f"bridge file '{path}' cannot be read: {error.strerror}") from None
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise DataError(f"{path}: not a TOML file: {error}") from None
        return cls.from_dict(values, source, target, path)

    @classmethod
    def from_dict(
        cls,
        values: Mapping[str, Any],
        source: Taxonomy | None = None,
        target: Taxonomy | None = None,
        origin: Path = Path("bridge"),
    ) -> "Bridge":
        """From the plain values of a file; see `load`. `origin` names the file in errors."""
        unknown = [key for key in values if key not in _KEYS]
        if unknown:
            raise DataError(f"{origin}: unknown key '{unknown[0]}'; {nearest(unknown[0], _KEYS)}")
        source = source or _taxonomy(values, "source", origin)
        target = target or _taxonomy(values, "target", origin)
        classes = values.get("classes")
        if not isinstance(classes, dict) or not classes:
            raise DataError(f'{origin}: no table [classes]; write one line `target class = ["source class", ...]` each')
        for name in classes:
            if name not in target.names:
                raise DataError(f"{origin}: '{name}' is no class of the target; {nearest(name, target.names)}")
        places: dict[str, str] = {}
        for place, names in (*classes.items(), ("unmapped", values.get("unmapped", []))):
            for name in _names(names, place, origin):
                if name not in source.names:
                    raise DataError(
                        f"{origin}: '{name}' under '{place}' is no class of the source; {nearest(name, source.names)}"
                    )
                if name in places:
                    raise DataError(
                        f"{origin}: '{name}' stands under '{places[name]}' and under '{place}'; a class becomes one"
                        " other, remove it from one of them"
                    )
                places[name] = place
        _check_whole(source, target, places, classes, origin)
        in_target = {name: index for index, name in enumerate(target.names) if name in classes}
        unmapped = set(values.get("unmapped", []))
        assignment = (target.ignore_index if name in unmapped else in_target[places[name]] for name in source.names)
        try:
            return cls(source, target, tuple(assignment))
        except DataError as error:
            raise DataError(f"{origin}: {error}") from None

    @property
    def table(self) -> NDArray[np.int64]:
        """(K,) target id of each source id, or the target's ignore label."""
        return np.array(self.assignment, np.int64)

    @property
    def matrix(self) -> NDArray[np.float32]:
        """(T, K) of 0 and 1: target probabilities = matrix @ source probabilities."""
        ids = np.arange(self.target.num_classes)
        return np.asarray(ids[:, None] == self.table[None, :], np.float32)

    @property
    def unmapped(self) -> tuple[str, ...]:
        """Classes of the source without a counterpart."""
        pairs = zip(self.source.names, self.assignment, strict=True)
        return tuple(name for name, value in pairs if value == self.target.ignore_index)

    @property
    def unreached(self) -> tuple[str, ...]:
        """Classes of the target that nothing becomes: their IoU is 0 wherever the data has them."""
        reached = set(self.assignment)
        return tuple(name for index, name in enumerate(self.target.names) if index not in reached)

    def map(self, ids: ArrayLike) -> NDArray[np.int64]:
        """Target ids of source ids.

        Args:
            ids: Integers of any shape, 0..K-1 or the source's ignore label, e.g. the labels of a picture. A predicted
                unmapped class becomes the ignore label; `merge` then takes the next best class instead.

        Raises:
            DataError: another id, or no integers.
        """
        ids = np.asarray(ids)
        if ids.dtype.kind not in "iu":
            raise DataError(f"ids of type {ids.dtype}; class ids are integers")
        inside = (ids >= 0) & (ids < self.source.num_classes)
        wrong = ids[~inside & (ids != self.source.ignore_index)]
        if wrong.size:
            raise DataError(
                f"id {wrong.flat[0]} is no class of the bridge's source; allowed: 0..{self.source.num_classes - 1} and"
                f" the ignore label {self.source.ignore_index}"
            )
        return np.where(inside, self.table[np.where(inside, ids, 0)], self.target.ignore_index)

    def merge(self, log_probabilities: ArrayLike) -> NDArray[np.floating[Any]]:
        """Log-probabilities of the target's classes: those that become one are summed as probabilities.

        The probability of unmapped classes is left out without scaling the rest, which changes no argmax. A tensor is
        taken likewise, and on its device, by `einsum("tk,nkhw->nthw", matrix, probabilities)`.

        Args:
            log_probabilities: (N, K, H, W), or any shape with K in the second place; a constant per pixel added to all
                classes, as in logits, is in the result, too.

        Returns:
            (N, T, H, W), float32 or as the input's floating type; -inf for classes that nothing becomes.

        Raises:
            DataError: the second dimension is not K.
        """
        values = np.asarray(log_probabilities)
        if values.ndim < 2 or values.shape[1] != self.source.num_classes:
            raise DataError(
                f"log-probabilities of shape {values.shape} do not fit the bridge; it wants"
                f" (N, {self.source.num_classes}, H, W)"
            )
        if values.dtype.kind != "f":
            values = values.astype(np.float32)
        merged = np.full((values.shape[0], self.target.num_classes, *values.shape[2:]), -np.inf, values.dtype)
        for index in range(self.target.num_classes):
            members = np.flatnonzero(self.table == index)
            if members.size:
                merged[:, index] = np.logaddexp.reduce(values[:, members], axis=1)
        return merged


def _taxonomy(values: Mapping[str, Any], side: str, origin: Path) -> Taxonomy:
    """The label set that a file names."""
    name = values.get(side)
    if not isinstance(name, str) or not name:
        raise DataError(
            f'{origin}: does not say which label set its {side} is; write {side} = "..." at the top: a taxonomy.toml,'
            f" or one of {', '.join(KNOWN)}"
        )
    if name in KNOWN:
        return KNOWN[name]
    if not name.endswith(".toml"):
        raise DataError(f"{origin}: {side} = '{name}' is no known label set; {nearest(name, KNOWN)}, or a .toml file")
    return Taxonomy.load(origin.parent / name)


def _names(names: Any, place: str, origin: Path) -> list[str]:
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise DataError(f'{origin}: {place} = {names!r}; write a list of classes: {place} = ["...", "..."]')
    return names


def _check_whole(
    source: Taxonomy, target: Taxonomy, places: Mapping[str, str], classes: Mapping[str, Any], origin: Path
) -> None:
    """Every class is somewhere: what has no counterpart is said, never guessed."""
    missing = [name for name in source.names if name not in places]
    if missing:
        raise DataError(
            f"{origin}: class '{missing[0]}' of the source stands nowhere ({len(missing)} such classes); add it to a"
            " class of the target, or to the list 'unmapped' at the top"
        )
    missing = [name for name in target.names if name not in classes]
    if missing:
        raise DataError(
            f"{origin}: class '{missing[0]}' of the target is missing ({len(missing)} such classes); write"
            f' "{missing[0]}" = [] if nothing becomes it'
        )
