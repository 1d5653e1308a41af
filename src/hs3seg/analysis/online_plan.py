"""When and how single-phase HS3 groups classes anew while it trains."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, get_args

from hs3seg.analysis.clustering import Diagonal
from hs3seg.analysis.tradeoff import DEFAULT_ASPECT, Rule
from hs3seg.errors import PlanError, nearest

Source = Literal["training", "held_out"]
Order = Literal["chosen", "coarse_to_fine"]


@dataclass(frozen=True, slots=True)
class OnlinePlan:
    """Settings of single-phase HS3: one training, groups found on the way (the paper leaves this open, Sec. 5).

    Every stage head keeps all classes. After the warm-up, which is deep supervision, the stages' running confusion
    matrices are analysed again and again, and each stage's loss is taken over the groups found.

    Args:
        warmup: Share of the training with all classes, 0..1.
        interval: Share of the training between two analyses, above 0, at most 1; at least one epoch.
        momentum: Share of the earlier counts that is kept at each analysis, 0..1 (1 = all of them).
        patience: So many analyses in a row must differ from a stage's groups, and agree with each other, before these
            are changed, at least 1.
        similarity: Adjusted Rand index, 0..1, from which on two groupings do not count as different.
        source: Where stages are measured: on the `training` batches as they come, or by passes over a `held_out` split.
        order: `chosen` = the number of groups is chosen by the trade-off at every analysis; `coarse_to_fine` = it grows
            from the first choice to all classes at the end.
        probe: A head's last layer learns all classes, the features below it the groups only. Without it nothing
            teaches a head to tell the classes of a group apart, so that a group once made never seems separable.
        normalize: How affinities are made: `true` or `none`, see `class_affinity`.
        diagonal: How they are clustered: `drop` or `keep`, see `spectral_groupings`.
        rule: How a number of groups is chosen: `line` or `knee`, see `choose_num_groups`.
        theta_degrees: Angle of the trade-off line; None = the ratio rule.
        aspect: width:height of the plot in which theta is measured.
    """

    warmup: float = 0.15
    interval: float = 0.05
    momentum: float = 0.5
    patience: int = 2
    similarity: float = 0.95
    source: Source = "training"
    order: Order = "chosen"
    probe: bool = True
    normalize: Literal["true", "none"] = "true"
    diagonal: Diagonal = "drop"
    rule: Rule = "line"
    theta_degrees: float | None = None
    aspect: float = DEFAULT_ASPECT

    def __post_init__(self) -> None:
        for name in ("warmup", "interval", "momentum", "similarity"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= 1:
                raise PlanError(f"online: {name} = {value!r}; must be a share, 0 to 1")
        if not self.interval:
            raise PlanError("online: interval = 0; must be a share above 0, e.g. 0.05")
        if isinstance(self.patience, bool) or not isinstance(self.patience, int) or self.patience < 1:
            raise PlanError(f"online: patience = {self.patience!r}; must be a whole number, 1 or more")
        if not isinstance(self.probe, bool):
            raise PlanError(f"online: probe = {self.probe!r}; must be true or false")
        choices = {"source": get_args(Source), "order": get_args(Order), "normalize": ("true", "none")}
        choices |= {"diagonal": get_args(Diagonal), "rule": get_args(Rule)}
        for name, allowed in choices.items():
            if getattr(self, name) not in allowed:
                raise PlanError(f"online: unknown {name} {getattr(self, name)!r}; allowed: {', '.join(allowed)}")

    def to_dict(self) -> dict[str, Any]:
        """Plain values for TOML; what is None is left out."""
        return {name: value for name, value in asdict(self).items() if value is not None}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "OnlinePlan":
        """The opposite of `to_dict`.

        Raises:
            PlanError: an unknown key, or a value that is not allowed.
        """
        known = [field.name for field in fields(cls)]
        for key in values:
            if key not in known:
                raise PlanError(f"online: unknown key '{key}'; {nearest(key, known)}")
        return cls(**values)
