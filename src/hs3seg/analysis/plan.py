"""The plan: per stage, which classes are one group, and the weight of its loss.

plan.toml is the hinge between the phases. The program writes it, a person may edit it (that is the paper's manual
clustering, Sec. 3.1.3), and training reads it. Identity groupings are deep supervision; no stages, the plain network.
"""

import math
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from pathlib import Path
from typing import Any, Literal

import tomli_w

from hs3seg.analysis.online_plan import OnlinePlan
from hs3seg.errors import PlanError, nearest
from hs3seg.files import write_atomically
from hs3seg.taxonomy import Grouping

DEFAULT_GAMMA = 0.4
"""Weight of a stage's loss in Eq. 1; the paper states none, this is the auxiliary weight of its code base."""

_HEADER = """\
# Supervision plan of hs3seg. You may edit it by hand; `hs3 train CONFIG --plan THIS_FILE --out FOLDER` trains by it.
# Every stage lists its groups: classes in one list are one class for this stage. Each class of `classes` must stand
# in exactly one group of every stage. To split a group, close its list and open a new one; to merge, join two lists.
# gamma is the weight of the stage's loss (Eq. 1). Remove a whole [[stage]] to leave that stage unsupervised.

"""


@dataclass(frozen=True, slots=True)
class StagePlan:
    """One supervised stage.

    Args:
        stage: Module name in the network.
        grouping: Its K_i groups, at least two.
        gamma: Weight of its loss (Eq. 1), finite, >= 0.
    """

    stage: str
    grouping: Grouping
    gamma: float = DEFAULT_GAMMA

    def __post_init__(self) -> None:
        if not 0 <= self.gamma < math.inf:
            raise PlanError(f"stage '{self.stage}' has gamma {self.gamma}; a loss weight is a number, 0 or more")
        if self.grouping.num_groups < 2:
            raise PlanError(
                f"stage '{self.stage}' has all classes in one group, which leaves it nothing to learn; split the group,"
                " or remove the stage"
            )


@dataclass(frozen=True, slots=True)
class FusePlan:
    """Widths of HS3-Fuse (Sec. 3.2), which feeds what the stages learned back into the final segmentation.

    Args:
        mid: Channels of the final OCR block; each earlier stage has half of the next one's.
        key: Channels of its attention, halved likewise.
    """

    mid: int
    key: int

    def __post_init__(self) -> None:
        for name, value in (("mid", self.mid), ("key", self.key)):
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise PlanError(f"fuse: {name} = {value!r}; must be a number of channels, e.g. 192")


@dataclass(frozen=True)
class SupervisionPlan:
    """What every stage learns.

    Args:
        taxonomy_names: All K class names, in id order.
        stages: Shallow to deep; may be empty.
        name: What made it: `deep_supervision`, `spectral`, ...
        notes: Plain values that say how it came about; they change nothing.
        fuse: Widths of HS3-Fuse; None = the stages help in training only.
        heads: What a stage's head gives logits of: its `groups`, or all `classes`, of which a group's log-probability
            is the log-sum-exp.
        online: Settings of single-phase HS3, which finds groups while it trains; its stages begin with all classes.
    """

    taxonomy_names: tuple[str, ...]
    stages: tuple[StagePlan, ...]
    name: str = "manual"
    notes: Mapping[str, Any] = field(default_factory=dict)
    fuse: FusePlan | None = None
    heads: Literal["groups", "classes"] = "groups"
    online: OnlinePlan | None = None

    def __post_init__(self) -> None:
        if self.heads not in ("groups", "classes"):
            raise PlanError(f"heads = {self.heads!r}; must be 'groups' or 'classes'")
        if self.fuse is not None and (self.online is not None or self.heads == "classes"):
            raise PlanError("HS3-Fuse feeds back the logits of fixed groups; remove [online] and heads, or [fuse]")
        merged = next((stage.stage for stage in self.stages if not stage.grouping.is_identity), None)
        if self.online is not None and merged is not None:
            raise PlanError(
                f"stage '{merged}' has groups in a plan with [online], which finds them while it trains; give it all"
                " classes, or remove [online]"
            )
        doubled = [name for name in self.taxonomy_names if self.taxonomy_names.count(name) > 1]
        if doubled:
            raise PlanError(f"class '{doubled[0]}' stands twice among the classes; names must be unique")
        if self.fuse is not None and not self.stages:
            raise PlanError("the plan has a [fuse] table but no stage to fuse; add a [[stage]] or remove [fuse]")
        names = [stage.stage for stage in self.stages]
        for stage in self.stages:
            if names.count(stage.stage) > 1:
                raise PlanError(f"stage '{stage.stage}' stands twice in the plan; remove one")
            if stage.stage == "final":
                raise PlanError("'final' is the output, not a stage; it always has all classes")
            if stage.grouping.num_classes != self.num_classes:
                raise PlanError(
                    f"stage '{stage.stage}' has {stage.grouping.num_classes} classes, the plan {self.num_classes}"
                )

    @property
    def num_classes(self) -> int:
        """K."""
        return len(self.taxonomy_names)

    @property
    def stage_names(self) -> tuple[str, ...]:
        """Names of the supervised stages, shallow to deep."""
        return tuple(stage.stage for stage in self.stages)

    @property
    def num_groups(self) -> dict[str, int]:
        """K_i of each stage."""
        return {stage.stage: stage.grouping.num_groups for stage in self.stages}

    def stage(self, name: str) -> StagePlan:
        """The plan of one stage.

        Raises:
            PlanError: no such stage; near names are listed.
        """
        for stage in self.stages:
            if stage.stage == name:
                return stage
        raise PlanError(f"stage '{name}' is not in the plan; {nearest(name, self.stage_names)}")

    def check(self, names: Sequence[str]) -> None:
        """Makes sure that the plan was made for these classes.

        Raises:
            PlanError: number, names or order of the classes differ; the first difference is named.
        """
        names = tuple(names)
        if names == self.taxonomy_names:
            return
        pairs = enumerate(zip_longest(self.taxonomy_names, names))
        at, ours, theirs = next((i, a, b) for i, (a, b) in pairs if a != b)
        ours, theirs = (f"'{name}'" if name is not None else "missing" for name in (ours, theirs))
        counts = "" if len(names) == self.num_classes else f"it has {self.num_classes}, the data has {len(names)}; "
        raise PlanError(
            f"the plan was made for other classes: {counts}class {at} is {ours} in the plan and {theirs} in the data;"
            " names and order must be equal, so make a new plan from this data's confusion matrices"
        )

    def to_toml(self) -> str:
        """The text of plan.toml.

        Raises:
            PlanError: a note that TOML cannot hold.
        """
        lines = [_HEADER + tomli_w.dumps({"name": self.name, "classes": list(self.taxonomy_names)})]
        if self.heads != "groups":
            lines.append("# A head gives logits of all classes; a group's is the log-sum-exp of its classes'.\n")
            lines.append(tomli_w.dumps({"heads": self.heads}))
        for stage in self.stages:
            lines.append(
                f"\n[[stage]]\n{tomli_w.dumps({'name': stage.stage, 'gamma': float(stage.gamma)})}groups = [\n"
            )
            for group in stage.grouping.groups:
                members = ", ".join(_toml_string(self.taxonomy_names[c]) for c in group)
                lines.append(f"  [{members}],\n")
            lines.append("]\n")
        if self.fuse is not None:
            lines.append("\n# HS3-Fuse: channels of the final OCR block; each earlier stage has half of the next.\n")
            lines.append(tomli_w.dumps({"fuse": {"mid": self.fuse.mid, "key": self.fuse.key}}))
        if self.online is not None:
            lines.append("\n# Single-phase HS3: the groups are found while the network trains.\n")
            lines.append(tomli_w.dumps({"online": self.online.to_dict()}))
        if self.notes:
            try:
                notes = tomli_w.dumps({"notes": dict(self.notes)})
            except TypeError as error:
                raise PlanError(f"notes of the plan: {error}; use text, numbers, lists and tables") from None
            lines.append("\n# How it came about; for information only, edits above do not change it.\n" + notes)
        return "".join(lines)

    @classmethod
    def from_toml(cls, text: str, origin: str = "plan") -> "SupervisionPlan":
        """Reads the text of plan.toml; `origin` names it in errors.

        Raises:
            PlanError: what is wrong, in which stage, and what is allowed.
        """
        try:
            values = tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            raise PlanError(f"{origin}: not a TOML file: {error}") from None
        _known(values, ("name", "classes", "heads", "stage", "fuse", "online", "notes"), origin)
        classes = values.get("classes")
        if not isinstance(classes, list) or not classes or not all(isinstance(c, str) and c for c in classes):
            raise PlanError(
                f'{origin}: `classes` must list all class names in id order, e.g. classes = ["road", "sidewalk", "sky"]'
            )
        doubled = [name for name in classes if classes.count(name) > 1]
        if doubled:
            raise PlanError(f"{origin}: class '{doubled[0]}' stands twice in `classes`")
        name, notes = values.get("name", "manual"), values.get("notes", {})
        if not isinstance(name, str):
            raise PlanError(f'{origin}: name = {name!r}; must be text, e.g. name = "manual"')
        if not isinstance(notes, dict):
            raise PlanError(f"{origin}: notes = {notes!r}; must be a [notes] table, or remove it")
        entries = values.get("stage", [])
        if not isinstance(entries, list) or not all(isinstance(e, dict) for e in entries):
            raise PlanError(f"{origin}: write one [[stage]] table (double brackets) per stage")
        try:
            stages = tuple(_read_stage(entry, classes) for entry in entries)
            fuse, online = _read_fuse(values.get("fuse")), _read_online(values.get("online"))
            return cls(tuple(classes), stages, name, notes, fuse, values.get("heads", "groups"), online)
        except PlanError as error:
            raise PlanError(f"{origin}: {error}") from None

    @classmethod
    def load(cls, path: Path | str) -> "SupervisionPlan":
        """Reads plan.toml.

        Raises:
            PlanError: missing, or wrong inside.
        """
        path = Path(path)
        if path.is_dir():
            raise PlanError(f"plan '{path}' is a folder; give the plan.toml inside it")
        if not path.is_file():
            raise PlanError(f"plan '{path}' does not exist; `hs3 plan --confusion FILE.npz --out {path}` writes one")
        try:
            text = path.read_text(encoding="utf-8-sig")  # editors on Windows put a mark at the start
        except UnicodeDecodeError as error:
            raise PlanError(f"{path}: not a text file in UTF-8: {error}") from None
        except OSError as error:
            raise PlanError(f"plan '{path}' cannot be read: {error.strerror}") from None
        return cls.from_toml(text, str(path))

    def save(self, path: Path | str) -> None:
        """Writes plan.toml, atomically."""
        write_atomically(Path(path), lambda temporary: temporary.write_text(self.to_toml(), encoding="utf-8"))


def _read_fuse(entry: Any) -> FusePlan | None:
    if entry is None:
        return None
    if not isinstance(entry, dict) or set(entry) != {"mid", "key"}:
        raise PlanError("fuse: write a [fuse] table with mid and key, e.g. mid = 192 and key = 96")
    return FusePlan(entry["mid"], entry["key"])


def _read_online(entry: Any) -> OnlinePlan | None:
    if entry is None:
        return None
    if not isinstance(entry, dict):
        raise PlanError(f"online = {entry!r}; write an [online] table, empty for the defaults")
    return OnlinePlan.from_dict(entry)


def _read_stage(entry: Mapping[str, Any], classes: Sequence[str]) -> StagePlan:
    name = entry.get("name")
    if not isinstance(name, str) or not name:
        raise PlanError('a [[stage]] has no name; write name = "..." (a module of the network)')
    where = f"stage '{name}'"
    _known(entry, ("name", "gamma", "groups"), where)
    gamma = entry.get("gamma", DEFAULT_GAMMA)
    if isinstance(gamma, bool) or not isinstance(gamma, (int, float)):
        raise PlanError(f"{where}: gamma = {gamma!r}; must be a number such as {DEFAULT_GAMMA}")
    groups = entry.get("groups")
    if not isinstance(groups, list) or not all(
        isinstance(g, list) and all(isinstance(c, str) for c in g) for g in groups
    ):
        raise PlanError(f'{where}: groups must be a list of lists of class names, e.g. [["road", "sidewalk"], ["sky"]]')
    seen: dict[str, int] = {}
    for number, group in enumerate(groups, start=1):
        if not group:
            raise PlanError(f"{where}: an empty group; remove it or give it a class")
        for member in group:
            if member not in classes:
                raise PlanError(f"{where}: unknown class '{member}'; {nearest(member, classes)}")
            if member in seen:
                places = f"groups {seen[member]} and {number}" if seen[member] != number else f"group {number}"
                raise PlanError(f"{where}: class '{member}' stands twice, in {places}; it must stand in one group once")
            seen[member] = number
    missing = [c for c in classes if c not in seen]
    if missing:
        what = f"class '{missing[0]}' is" if len(missing) == 1 else f"classes {_listed(missing)} are"
        raise PlanError(f"{where}: {what} in no group; add to one, or as a group of its own")
    ids = [[classes.index(member) for member in group] for group in groups]
    return StagePlan(name, Grouping.from_groups(ids, len(classes)), float(gamma))


def _known(values: Mapping[str, Any], allowed: Sequence[str], where: str) -> None:
    for key in values:
        if key not in allowed:
            raise PlanError(f"{where}: unknown key '{key}'; {nearest(key, allowed)}")


def _listed(names: Sequence[str], limit: int = 5) -> str:
    return ", ".join(f"'{name}'" for name in names[:limit]) + (", ..." if len(names) > limit else "")


def _toml_string(text: str) -> str:
    return tomli_w.dumps({"x": text}).removeprefix("x = ").strip()
