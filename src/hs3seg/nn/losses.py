"""Per-pixel losses, and their sum over the stages (Eq. 1).

Shapes: N batch, k groups of a stage, H x W the labels' size, h x w the logits'.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from hs3seg.analysis import SupervisionPlan
from hs3seg.errors import ConfigError, PlanError, nearest
from hs3seg.nn.counting import check_outputs, check_range, check_shapes, whole_labels
from hs3seg.nn.fused_cross_entropy import enlarged_cross_entropy, hardest_cross_entropy
from hs3seg.nn.heads import probe_name
from hs3seg.nn.image_weighted import ImageWeightedCrossEntropy
from hs3seg.nn.inverseform import InverseFormLoss
from hs3seg.nn.resize import resize
from hs3seg.nn.rmi import RMI
from hs3seg.taxonomy import Grouping

PlanLike = SupervisionPlan | Path | str
"""A plan, or the path of a plan.toml."""
PlanSource = PlanLike | nn.Module
"""A supervised model, whose own plan, auxiliary outputs and way of enlarging are taken; or a plan."""
Measure = Callable[[], Mapping[str, NDArray[Any]]]
"""Gives stage -> (K, K) pixel counts, and `final`."""
LossKind = Literal["cross_entropy", "ohem", "image_weighted", "rmi"]
LOSS_KINDS: tuple[LossKind, ...] = ("cross_entropy", "ohem", "image_weighted", "rmi")
WeightKind = Literal["none", "inverse_log", "inverse_sqrt", "median"]
WEIGHT_KINDS: tuple[WeightKind, ...] = ("none", "inverse_log", "inverse_sqrt", "median")
# Batches whose labels are looked at where that waits for the device: enough for a wrong mask format or taxonomy.
_LOOKS = 3
_TABLE = 2**16  # entries that a table of labels may have


class CrossEntropy(nn.Module):
    """Cross-entropy at label resolution: logits are upsampled bilinearly and taken in float32.

    Args:
        class_weights: (k,) or None.
        label_smoothing: Share of the target spread over all groups, 0..1.
        ignore_index: Label that does not count.
        align_corners: How logits are enlarged, as in `F.interpolate`.
    """

    class_weights: Tensor | None

    def __init__(
        self,
        class_weights: Tensor | None = None,
        label_smoothing: float = 0.0,
        ignore_index: int = 255,
        align_corners: bool = False,
    ) -> None:
        super().__init__()
        if not 0 <= label_smoothing <= 1:
            raise ConfigError(f"label_smoothing = {label_smoothing}; give a share between 0 and 1, e.g. 0.1")
        self.register_buffer("class_weights", class_weights)
        self.label_smoothing = label_smoothing
        self.ignore_index, self.align_corners = ignore_index, align_corners

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Mean over the labelled pixels (weighted, if there are weights).

        Args:
            logits: (N, k, h, w).
            labels: (N, H, W) integers.

        Returns:
            Scalar; a batch without a labelled pixel gives a zero that has a gradient.

        Raises:
            PlanError: shapes do not fit.
            DataError: labels are not whole numbers.
        """
        losses, weight = enlarged_cross_entropy(
            logits,
            labels,
            self.class_weights,
            self.label_smoothing,
            self.ignore_index,
            self.align_corners,
        )
        # At least a tiny number: torch divides zero by zero where nothing is labelled.
        return losses / weight.clamp(min=1e-12)


class Ohem(nn.Module):
    """Cross-entropy of the hardest pixels: those whose true class has a probability below a threshold.

    Args:
        threshold: Probability, 0..1.
        min_kept: At least this many pixels of the batch are kept (all labelled ones if fewer).
        class_weights: (k,) or None.
        ignore_index: Label that does not count.
        align_corners: How logits are enlarged, as in `F.interpolate`.
    """

    class_weights: Tensor | None

    def __init__(
        self,
        threshold: float = 0.9,
        min_kept: int = 131072,
        class_weights: Tensor | None = None,
        ignore_index: int = 255,
        align_corners: bool = False,
    ) -> None:
        super().__init__()
        if not 0 <= threshold <= 1 or min_kept < 1:
            raise ConfigError(
                f"ohem with threshold = {threshold}, min_kept = {min_kept}; threshold is a probability (0..1), min_kept"
                " a number of pixels (at least 1)"
            )
        self.register_buffer("class_weights", class_weights)
        self.threshold, self.min_kept = threshold, min_kept
        self.ignore_index, self.align_corners = ignore_index, align_corners

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Mean loss of the kept pixels; logits (N, k, h, w), labels (N, H, W) integers; raises as `CrossEntropy`."""
        losses, kept = hardest_cross_entropy(
            logits,
            labels,
            self.threshold,
            self.min_kept,
            self.class_weights,
            self.ignore_index,
            self.align_corners,
        )
        return losses / kept.clamp(min=1)


class HierarchicalLoss(nn.Module):
    """The loss of Eq. 1: sum over stages of gamma_i L_i on the stage's groups, plus the loss of the final output.

    Args:
        plan: The supervised model, also inside DistributedDataParallel or compiled: groups and gamma of each stage,
            its auxiliary outputs and its way of enlarging. Or a plan, or the path of a plan.toml.
        ignore_index: Label that does not count; it stays as it is in every grouping.
        criteria: Stage, `final` or auxiliary output -> module of (logits, labels); default plain cross-entropy, for
            auxiliary outputs that of `final`. The losses of `hs3seg.nn` enlarge the logits by themselves; any other
            module, such as torch's, gets them at the labels' size, (N, k, H, W).
        auxiliary: Weights of the network's own auxiliary outputs, which have all classes; one with a criterion that is
            not of `hs3seg.nn` may have anything. Default the model's; {} leaves them without a loss.
        extra: Name -> (module of (logits, labels), weight): further terms on the final output, such as InverseForm's;
            logits as for criteria.
        align_corners: How logits are enlarged, as in `F.interpolate`; default the model's, of a plan False. Only
            HRNet-OCR's own has true.

    Raises:
        PlanError: a criterion for no stage, or, as an extra term, with another ignore label or way of enlarging; an
            ignore label that is a class; no such plan; a plan of single-phase HS3, which wants `OnlineLoss`.
    """

    _follows_groups = False

    def __init__(
        self,
        plan: PlanSource,
        ignore_index: int = 255,
        criteria: Mapping[str, nn.Module] | None = None,
        auxiliary: Mapping[str, float] | None = None,
        extra: Mapping[str, tuple[nn.Module, float]] | None = None,
        align_corners: bool | None = None,
    ) -> None:
        super().__init__()
        plan, own, corners = plan_and_traits(plan)
        auxiliary = own if auxiliary is None else auxiliary
        align_corners = corners if align_corners is None else align_corners
        check_ignore_index(plan, ignore_index)
        if plan.online is not None and not self._follows_groups:
            raise PlanError(
                "a plan of single-phase HS3 needs OnlineLoss(model): HierarchicalLoss would leave the last layer of"
                " every stage's head untrained"
            )
        self.plan = plan
        self._looks = 0
        self.extra = nn.ModuleDict({name: module for name, (module, _) in (extra or {}).items()})
        self.extra_weights = {name: weight for name, (_, weight) in (extra or {}).items()}
        self.ignore_index, self.align_corners = ignore_index, align_corners
        # Where tables of labels have the ignore label: at its own place, or behind the classes if that is too far.
        self._ignored = ignore_index if 0 <= ignore_index < _TABLE else plan.num_classes
        self._knows_auxiliary = auxiliary is not None
        self.auxiliary = dict(auxiliary or {})
        criteria = dict(criteria or {})
        names = [*plan.stage_names, "final", *self.auxiliary]
        self._free = {name for name in self.auxiliary if name in criteria and not isinstance(criteria[name], _ENLARGE)}
        if "final" in criteria:
            criteria = dict.fromkeys(self.auxiliary, criteria["final"]) | criteria
        unknown = [name for name in criteria if name not in names]
        if unknown:
            raise PlanError(
                f"a criterion for '{unknown[0]}', which is not a stage of the plan; {nearest(unknown[0], names)}"
            )
        for name, criterion in criteria.items():
            self._check_criterion(f"the criterion for '{name}'", criterion)
        for name, term in self.extra.items():
            self._check_criterion(f"the extra term '{name}'", term)
        plain = partial(CrossEntropy, ignore_index=ignore_index, align_corners=align_corners)
        self.criteria = nn.ModuleList(criteria.get(name) or plain() for name in names)
        self.register_buffer("_place", torch.empty(0), persistent=False)
        self._use(plan)

    def _check_criterion(self, name: str, criterion: nn.Module) -> None:
        ignored = getattr(criterion, "ignore_index", self.ignore_index)
        if ignored != self.ignore_index:
            raise PlanError(
                f"{name} ignores label {ignored}, the loss {self.ignore_index}; make both with"
                f" ignore_index={self.ignore_index}"
            )
        corners = getattr(criterion, "align_corners", self.align_corners)
        if corners != self.align_corners:
            raise PlanError(
                f"{name} enlarges logits with align_corners={corners}, the loss with {self.align_corners}; make both as"
                " the network: align_corners=model.align_corners"
            )

    def _use(self, plan: SupervisionPlan) -> None:
        """Takes the stages' groups from a plan."""
        self._groupings = tuple(stage.grouping for stage in plan.stages)
        for number, grouping in enumerate(self._groupings):
            device = self.get_buffer("_place").device
            assignment = torch.tensor(grouping.assignment, dtype=torch.int64, device=device)
            # Entries that are no label's lie below every group: kernels on a device stop at them.
            table = assignment.new_full((max(len(assignment), self._ignored) + 1,), -1)
            table[: len(assignment)] = assignment
            table[self._ignored] = self.ignore_index
            self.register_buffer(f"_table{number}", table, persistent=False)

    def start_epoch(
        self,
        epoch: int,  # noqa: ARG002
        epochs: int,  # noqa: ARG002
        measure: Measure | None = None,  # noqa: ARG002
    ) -> dict[str, Any] | None:
        """To be called before each epoch, on every process; a plan with fixed groups has nothing to do.

        Args:
            epoch: From 0.
            epochs: Of the whole training.
            measure: Gives a held-out split's confusion matrices; for plans that want them.

        Returns:
            What was decided, for the log; None if nothing was.
        """
        return None

    def save_decisions(self, folder: Path) -> None:
        """Writes what was decided while training, if anything can be."""

    def memory(self) -> dict[str, Any]:
        """What a training that goes on later needs of this loss: plain values and tensors."""
        return {}

    def restore(self, memory: Mapping[str, Any]) -> None:
        """Takes what `memory` gave."""

    def forward(self, outputs: Mapping[str, Tensor], labels: Tensor) -> Tensor:
        """The scalar of Eq. 1.

        Args:
            outputs: Of `Supervised`: stage -> (N, k_i, h, w), and `final` -> (N, K, h, w).
            labels: (N, H, W) integer class ids, 0..K-1 or the ignore label.
        """
        return self.combine(self.terms(outputs, labels))

    def terms(self, outputs: Mapping[str, Tensor], labels: Tensor) -> dict[str, Tensor]:
        """The unweighted loss of each stage, of `final`, of each auxiliary output, and the extra terms.

        Raises:
            PlanError: an output is missing or has another number of groups than the plan, there is but one, or shapes
                do not fit.
            DataError: labels are not whole numbers, or one is no class. On a CPU every batch is looked at, elsewhere
                the first few, as a look waits for the device.
        """
        check_outputs(outputs, "the loss")
        labels = whole_labels(labels)
        self._check(outputs, labels)
        # A loss without parameters is seldom moved by hand: it follows the labels.
        if self.get_buffer("_place").device != labels.device:
            self.to(labels.device)
        outputs = self._taken(outputs, labels)
        found = {}
        stages = self.plan.stage_names
        for number, name in enumerate([*stages, "final", *self.auxiliary]):
            if name in outputs:  # networks give auxiliary outputs in training only
                targets = self._remap(labels, number) if number < len(stages) else labels
                found[name] = apply_criterion(self.criteria[number], outputs[name], targets, self.align_corners)
        for name, module in self.extra.items():
            found[name] = apply_criterion(module, outputs["final"], labels, self.align_corners)
        return found

    def _taken(self, outputs: Mapping[str, Tensor], labels: Tensor) -> Mapping[str, Tensor]:  # noqa: ARG002
        """What the criteria are given: the outputs as they are; `labels` (N, H, W) int64."""
        return outputs

    def _check(self, outputs: Mapping[str, Tensor], labels: Tensor) -> None:
        """Raises what `terms` does."""
        known = {"final", *self.plan.stage_names, *map(probe_name, self.plan.stage_names)}
        if not self._knows_auxiliary and (unknown := [name for name in outputs if name not in known]):
            raise PlanError(
                f"the network gives '{unknown[0]}', which would have no loss; make the loss of the model,"
                f" {type(self).__name__}(model), or say which outputs it is to learn with which weight:"
                " auxiliary=model.auxiliary, {} for none"
            )
        wanted = {**self.plan.num_groups, **dict.fromkeys(["final", *self.auxiliary], self.plan.num_classes)}
        for name, groups in wanted.items():
            if name not in outputs:
                if name in self.auxiliary and not self.training:
                    continue
                advice = "call loss.eval() with model.eval()" if name in self.auxiliary else nearest(name, outputs)
                raise PlanError(f"no output '{name}' for the plan's loss; {advice}")
            if name in self._free:
                continue
            check_shapes(outputs[name], labels)
            if outputs[name].shape[1] != groups:
                # More channels than groups would be trained without a word.
                kind = "groups" if name in self.plan.num_groups else "classes"
                raise PlanError(
                    f"output '{name}' has {outputs[name].shape[1]} channels, the loss's plan {groups} {kind} there;"
                    " supervise the network with this plan, or make the loss of the model: HierarchicalLoss(model)"
                )
        device = labels.device.type
        if torch.compiler.is_compiling() or device == "meta" or (device != "cpu" and self._looks >= _LOOKS):
            return
        self._looks += device != "cpu"
        check_range(labels, labels != self.ignore_index, self.plan.num_classes, self.ignore_index)

    def combine(self, terms: Mapping[str, Tensor]) -> Tensor:
        """Eq. 1 from its terms."""
        total = terms["final"]
        for stage in self.plan.stages:
            total = total + stage.gamma * terms[stage.stage]
        for name, weight in (self.auxiliary | self.extra_weights).items():
            if name in terms:
                total = total + weight * terms[name]
        return total

    def _remap(self, labels: Tensor, number: int) -> Tensor:
        if self._groupings[number].is_identity:
            return labels
        table = self.get_buffer(f"_table{number}")
        if self._ignored != self.ignore_index:
            labels = labels.where(labels != self.ignore_index, self._ignored)
        # A tenth of the time of `where` before and after `table[labels]`.
        return table.index_select(0, labels.flatten()).view_as(labels)


# These enlarge the logits by themselves, most of them without holding them as a whole.
_ENLARGE = (CrossEntropy, Ohem, ImageWeightedCrossEntropy, RMI, InverseFormLoss)


def apply_criterion(criterion: nn.Module, logits: Tensor, labels: Tensor, align_corners: bool = False) -> Tensor:
    """A criterion's value; one that is not ours is given logits of the labels' size.

    Args:
        criterion: Module of (logits, labels).
        logits: (N, k, h, w); other shapes are given as they are.
        labels: (N, H, W) int64.
        align_corners: As in `F.interpolate`.
    """
    if logits.ndim == 4 and not isinstance(criterion, _ENLARGE):
        logits = resize(logits, (labels.shape[-2], labels.shape[-1]), align_corners)
    value: Tensor = criterion(logits, labels)
    return value


def as_plan(plan: PlanLike) -> SupervisionPlan:
    """A plan, or the one in a file.

    Raises:
        PlanError: no such file, wrong inside, or neither of both.
    """
    given: object = plan
    if isinstance(given, (str, Path)):
        return SupervisionPlan.load(Path(given))
    if not isinstance(given, SupervisionPlan):
        raise PlanError(
            f"the plan is of type {type(given).__name__}; give a SupervisionPlan, or the path of a plan.toml"
        )
    return given


def plan_and_traits(source: PlanSource) -> tuple[SupervisionPlan, Mapping[str, float] | None, bool]:
    """A plan, the weights of its network's auxiliary outputs (None = not known) and how its logits are enlarged.

    Raises:
        PlanError: neither a plan nor a supervised model.
    """
    if not isinstance(source, nn.Module):
        return as_plan(source), None, False
    model: Any = source
    while not isinstance(getattr(model, "plan", None), SupervisionPlan):
        # DistributedDataParallel and FSDP, torch.compile.
        name = next((name for name in ("module", "_orig_mod") if isinstance(getattr(model, name, None), nn.Module)), "")
        if not name:
            raise PlanError(
                f"{type(source).__name__} is no supervised model; give what hs3seg.supervise(net) gave, or its plan"
            )
        model = getattr(model, name)
    return model.plan, model.auxiliary, model.align_corners


def check_ignore_index(plan: SupervisionPlan, ignore_index: int) -> None:
    """Refuses an ignore label that is a class: in merged groups it would take other classes along.

    Raises:
        PlanError: it is one.
    """
    if 0 <= ignore_index < plan.num_classes:
        free = next((label for label in (255, 65535) if label >= plan.num_classes), -100)
        raise PlanError(
            f"ignore_index = {ignore_index} is also class '{plan.taxonomy_names[ignore_index]}'; take a label that no"
            f" class has, such as {free}, in masks and loss"
        )


def group_class_weights(
    frequencies: Sequence[int], grouping: Grouping, kind: WeightKind | Sequence[float]
) -> Tensor | None:
    """Weights of a stage's groups from the pixels of each GROUP, so that a merged class does not count as rare.

    With p the group's share of the labelled pixels: inverse_log is 1 / ln(1.02 + p) (ENet), inverse_sqrt p^-1/2, median
    median(p) / p, at most 10 times the smallest for both. They are scaled so that the mean over pixels is 1.
    A group without pixels gets the largest weight of the others; nothing depends on it. Weights given by hand are taken
    as they are; a group has the mean of its classes', by their pixels, so that the sum over all pixels is the same.

    Args:
        frequencies: (K,) pixel counts per class.
        grouping: K classes -> k groups.
        kind: `none` gives None; (K,) weights are the classes' own.

    Returns:
        (k,) float32.
    """
    if kind == "none":
        return None
    if not isinstance(kind, str):
        return _by_hand(torch.tensor(list(kind), dtype=torch.float64), frequencies, grouping)
    if kind not in WEIGHT_KINDS:
        raise ConfigError(f"unknown class weights '{kind}'; {nearest(kind, WEIGHT_KINDS)}")
    counts = torch.zeros(grouping.num_groups, dtype=torch.float64)
    counts.index_add_(0, torch.tensor(grouping.assignment), torch.as_tensor(list(frequencies), dtype=torch.float64))
    present = counts > 0
    if not bool(present.any()):
        raise ConfigError("class weights need labelled pixels, and the training split has none")
    share = counts[present] / counts.sum()
    if kind == "inverse_log":
        raw = 1 / torch.log(1.02 + share)
    else:
        raw = share.rsqrt() if kind == "inverse_sqrt" else share.median() / share
        raw = raw.clamp(max=10 * raw.min())
    raw = raw / (share * raw).sum()
    weights = torch.full((grouping.num_groups,), float(raw.max()), dtype=torch.float64)
    weights[present] = raw
    return weights.to(torch.float32)


def _by_hand(weights: Tensor, frequencies: Sequence[int], grouping: Grouping) -> Tensor:
    if len(weights) != grouping.num_classes or bool((weights < 0).any()):
        raise ConfigError(
            f"class_weights has {len(weights)} values, the data has {grouping.num_classes} classes; give one per class,"
            " none of them negative"
        )
    groups = torch.tensor(grouping.assignment)
    # A class without pixels counts as one pixel, so that a group of such classes has a weight too.
    pixels = torch.as_tensor(list(frequencies), dtype=torch.float64).clamp(min=1)
    total = torch.zeros(grouping.num_groups, dtype=torch.float64).index_add_(0, groups, pixels)
    return (torch.zeros_like(total).index_add_(0, groups, pixels * weights) / total).to(torch.float32)


def make_criteria(
    plan: SupervisionPlan,
    kind: LossKind = "cross_entropy",
    class_weights: WeightKind | Sequence[float] = "none",
    frequencies: Sequence[int] | None = None,
    ignore_index: int = 255,
    auxiliary: Iterable[str] = (),
    align_corners: bool = False,
    **options: Any,
) -> dict[str, nn.Module]:
    """One per-pixel loss for each stage and `final`, made for that stage's number of groups and their frequencies.

    Args:
        plan: Stages and groups.
        kind: `cross_entropy`, `ohem`, `image_weighted` or `rmi`.
        class_weights: See `group_class_weights`; for `cross_entropy` and `ohem`.
        frequencies: (K,) pixel counts per class; needed with class weights.
        ignore_index: Label that does not count.
        auxiliary: Names of the network's auxiliary outputs. They have the loss of `final`; with `rmi` its
            cross-entropy alone, as HMS has it, and with `ohem` the cross-entropy of all pixels, as HRNet's code has it.
        align_corners: How logits are enlarged, as in `F.interpolate`.
        options: Of the loss's class.

    Raises:
        ConfigError: no such kind, or class weights where the loss takes none or without frequencies.
    """
    if kind not in LOSS_KINDS:
        raise ConfigError(f"unknown loss '{kind}'; {nearest(kind, LOSS_KINDS)}")
    if kind in ("image_weighted", "rmi"):
        if class_weights != "none":
            raise ConfigError(
                f"class_weights = '{class_weights}' with the loss '{kind}', which takes none; set class_weights ="
                " 'none'"
            )
        made = {"image_weighted": ImageWeightedCrossEntropy, "rmi": RMI}[kind]
        sizes = {**plan.num_groups, "final": plan.num_classes}
        criteria: dict[str, nn.Module] = {
            name: made(groups, ignore_index=ignore_index, align_corners=align_corners, **options)
            for name, groups in sizes.items()
        }
        if kind == "rmi":
            alone = RMI(plan.num_classes, ignore_index=ignore_index, bce_only=True, align_corners=align_corners)
            criteria |= dict.fromkeys(auxiliary, alone)
        return criteria
    if class_weights != "none" and frequencies is None:
        raise ConfigError(f"class_weights = '{class_weights}' needs the pixel frequencies of the training split")
    groupings = {stage.stage: stage.grouping for stage in plan.stages} | {"final": Grouping.identity(plan.num_classes)}
    make = {"cross_entropy": CrossEntropy, "ohem": Ohem}[kind]
    weights = {
        name: group_class_weights(frequencies or [], grouping, class_weights) for name, grouping in groupings.items()
    }
    shared: dict[str, Any] = {"ignore_index": ignore_index, "align_corners": align_corners}
    criteria = {name: make(class_weights=own, **shared, **options) for name, own in weights.items()}
    if kind == "ohem":
        criteria |= dict.fromkeys(auxiliary, CrossEntropy(weights["final"], **shared))
    return criteria
