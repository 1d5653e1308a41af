"""What a study is: the paper's rows beside trainings of ours, as values."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Picture = Literal["cost", "tradeoff", "samples", "sweep"]


@dataclass(frozen=True)
class Row:
    """A row of the paper's table, or one that it lacks.

    Args:
        title: What was trained.
        paper: Column -> the number as printed; empty = the paper has no such row.
        setting: Name of the setting that holds ours; empty = there is none.
        arm: Arm or variant of that setting.
        protocol: How it was evaluated; empty = as the setting's config says.
    """

    title: str
    paper: Mapping[str, str] = field(default_factory=dict)
    setting: str = ""
    arm: str = ""
    protocol: str = ""


@dataclass(frozen=True)
class Variant:
    """A plan that differs from an arm's in one respect; phase one and the analysis are the arm's own.

    Args:
        name: Of its folder; letters, digits and dashes.
        of: The arm whose plan is changed.
        supervision: Values of `[supervision]` with which the groups are found from the same matrices.
        gamma: Weight of every stage's loss; None = as it is.
        keep: Only these stages are supervised; empty = all.
        fuse: Values of `[fuse]`.
        lighter: HS3-Fuse of the plain network's inference cost.
        online: Values of `[online]`, of single-phase HS3.
    """

    name: str
    of: str = "hs3"
    supervision: Mapping[str, Any] = field(default_factory=dict)
    gamma: float | None = None
    keep: tuple[str, ...] = ()
    fuse: Mapping[str, Any] = field(default_factory=dict)
    lighter: bool = False
    online: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Setting:
    """One network on one data set: a config, values laid over it, and what is trained.

    Args:
        name: Of its folder. Studies with equal names share trainings, so equal names must mean equal values.
        config: A file below the folder of configs.
        arms: Of `hs3 run`.
        variants: Trained after them.
        overrides: Words as on the command line.
        protocols: Name -> values with which the trained networks are evaluated once more.
        manual_plan: A file below the folder of configs, for the arm `manual`.
        size: Height and width that inference costs are counted at; None = as the network is trained.
        submit: Also write the predictions of the test split, packed for the test server.
        title: In sentences; empty = its name.
        starts_from: Weights of the paper's network that no library has, so that `network.pretrained` must name a file.
    """

    name: str
    config: str
    arms: tuple[str, ...] = ()
    variants: tuple[Variant, ...] = ()
    overrides: tuple[str, ...] = ()
    protocols: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    manual_plan: str = ""
    size: tuple[int, int] | None = None
    submit: bool = False
    title: str = ""
    starts_from: str = ""

    @property
    def names(self) -> tuple[str, ...]:
        """Arms and variants."""
        return (*self.arms, *(variant.name for variant in self.variants))


@dataclass(frozen=True)
class Version:
    """The trainings behind a study.

    Args:
        settings: What is trained.
        rows: The table, in the paper's order; then rows of ours.
        seeds: Unless others are asked for.
        note: How this differs from the paper.
        split: That the table shows; empty = the first that is evaluated.
    """

    settings: tuple[Setting, ...]
    rows: tuple[Row, ...]
    seeds: tuple[int, ...] = (0, 1, 2)
    note: str = ""
    split: str = ""


@dataclass(frozen=True)
class Study:
    """A table or figure of the paper, or a question of ours.

    Args:
        name: On the command line.
        title: Of the page.
        source: Where the paper's numbers stand; empty = the paper has none.
        question: What it asks, one or two sentences.
        columns: Of the table; each is `mIoU`, `pixel accuracy`, `iIoU`, `GMACs`, `groups` or a word of the paper's.
        pictures: Besides the intervals.
        sweep: Variant -> its place on the x axis of the picture `sweep`.
        sweep_title: Of that axis.
        against: Arms that the others are compared with besides deep supervision.
        small: This machine's version.
        full: The paper's own settings; None = the study is ours and has the small version only.
    """

    name: str
    title: str
    source: str
    question: str
    small: Version
    full: Version | None = None
    columns: tuple[str, ...] = ("mIoU",)
    pictures: tuple[Picture, ...] = ()
    sweep: Mapping[str, float] = field(default_factory=dict)
    sweep_title: str = ""
    against: tuple[str, ...] = ()
