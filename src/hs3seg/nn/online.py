"""The loss of single-phase HS3: its groups follow what the stages tell apart while they train.

Shapes: N batch, K classes, k groups of a stage, H x W the labels' size, h x w the logits'.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from hs3seg.analysis import RunningGroups, SupervisionPlan
from hs3seg.errors import PlanError
from hs3seg.files import write_json
from hs3seg.nn.heads import group_logits, probe_name
from hs3seg.nn.losses import (
    HierarchicalLoss,
    Measure,
    PlanSource,
    apply_criterion,
    make_criteria,
    plan_and_traits,
)

Criteria = Callable[[SupervisionPlan], Mapping[str, nn.Module]]


class OnlineLoss(HierarchicalLoss):
    """Eq. 1 on groups that change; a group's logit is the log-sum-exp of its classes'.

    ```python
    loss = OnlineLoss(model)  # supervise(net, plan=single_phase(names, stages))
    for epoch in range(epochs):
        loss.start_epoch(epoch, epochs)
        ...  # loss(model(images), labels).backward() as ever
    loss.plan_now().save("groups.toml")
    ```

    Training batches are counted as they pass, at the logits' own resolution: that costs next to nothing, and over
    many batches the shares are those at the labels' resolution. With torch.distributed, counts are summed over all
    processes at each step, so that all of them decide alike.

    Args:
        plan: The supervised model, or its plan: with `online`; all stages have all classes. Or the path of a
            plan.toml.
        ignore_index: Label that does not count.
        criteria: Makes the stages' losses for a plan's groups, see `make_criteria`; default plain cross-entropy.
        auxiliary: As of `HierarchicalLoss`.
        extra: As of `HierarchicalLoss`.
        align_corners: As of `HierarchicalLoss`.

    Raises:
        PlanError: the plan has no [online] table.
    """

    _follows_groups = True

    def __init__(
        self,
        plan: PlanSource,
        ignore_index: int = 255,
        criteria: Criteria | None = None,
        auxiliary: Mapping[str, float] | None = None,
        extra: Mapping[str, tuple[nn.Module, float]] | None = None,
        align_corners: bool | None = None,
    ) -> None:
        plan, own, corners = plan_and_traits(plan)
        auxiliary = own if auxiliary is None else auxiliary
        align_corners = corners if align_corners is None else align_corners
        if plan.online is None:
            raise PlanError("the plan has no [online] table; use HierarchicalLoss, or a plan of `single_phase`")
        # A partial, not a closure: it can be pickled.
        self._make: Criteria = criteria or partial(
            make_criteria, ignore_index=ignore_index, align_corners=align_corners
        )
        super().__init__(plan, ignore_index, self._make(plan), auxiliary, extra, align_corners)
        self.settings = plan.online
        self.running = RunningGroups(plan.taxonomy_names, plan.stage_names, plan.online)
        # For the probes, which always learn all classes.
        self.class_criteria = nn.ModuleList([self._make(plan)[stage] for stage in plan.stage_names])
        count = plan.num_classes
        self.register_buffer(
            "counts", torch.zeros(len(plan.stages) + 1, count, count, dtype=torch.int64), persistent=False
        )

    def plan_now(self) -> SupervisionPlan:
        """A plan with the groups of this moment, as for training in two phases."""
        stages = tuple(replace(s, grouping=self.running.groupings[s.stage]) for s in self.plan.stages)
        notes = {"progress": self.running.history[-1]["progress"] if self.running.history else 0.0}
        return SupervisionPlan(self.plan.taxonomy_names, stages, "online", notes)

    def start_epoch(self, epoch: int, epochs: int, measure: Measure | None = None) -> dict[str, Any] | None:
        """Analyses and changes groups, when it is time to.

        Raises:
            PlanError: the plan wants a held-out split to be measured, and `measure` is missing.
        """
        if self.settings.source == "held_out" and measure is None:
            raise PlanError("online.source = 'held_out' needs `measure` in start_epoch; or set it to 'training'")
        progress = epoch / epochs
        counts = self.get_buffer("counts")
        if not self.running.due(progress):
            if progress <= self.settings.warmup - self.settings.interval:
                counts.zero_()  # what the network knew at the very start says little
            return None
        names = [*self.plan.stage_names, "final"]
        if self.settings.source == "held_out" and measure is not None:
            found = measure()
        else:
            found = dict(zip(names, counts.cpu().numpy(), strict=True))
        if not found["final"].any():
            return None  # only ignored pixels since the last time: there is nothing to group by
        entry = self.running.update(progress, found)
        counts.zero_()
        if entry["changed"]:
            self._regroup()
        return entry

    def terms(self, outputs: Mapping[str, Tensor], labels: Tensor) -> dict[str, Tensor]:
        """As of `HierarchicalLoss`; a stage's value is that of its groups, whatever its probe learns."""
        found = super().terms(outputs, labels)
        labels = labels.long()
        for number, stage in enumerate(self.plan.stage_names):
            probe = outputs.get(probe_name(stage))
            if probe is not None:
                value = apply_criterion(self.class_criteria[number], probe, labels, self.align_corners)
                found[stage] = found[stage] + value - value.detach()  # its gradient, not its value
        return found

    def _taken(self, outputs: Mapping[str, Tensor], labels: Tensor) -> Mapping[str, Tensor]:
        """The outputs with the logits of the stages' present groups; counts them."""
        if self.training and torch.is_grad_enabled() and self.settings.source == "training":
            self._count(outputs, labels)
        merged = {}
        for number, stage in enumerate(self.plan.stage_names):
            grouping = self._groupings[number]
            if not grouping.is_identity:
                table = self.get_buffer(f"_table{number}")[: self.plan.num_classes]
                merged[stage] = group_logits(outputs[stage], table, grouping.num_groups)
        return {**outputs, **merged}

    def save_decisions(self, folder: Path) -> None:
        """Writes groups.json, the history, and groups.toml, a plan with the last groups."""
        write_json(folder / "groups.json", self.running.history)
        self.plan_now().save(folder / "groups.toml")

    def memory(self) -> dict[str, Any]:
        """Counts and groups; plain values and tensors."""
        memory = self.running.memory()
        memory["counts"] = {name: torch.from_numpy(counts) for name, counts in memory["counts"].items()}
        return {"running": memory, "counts": self.get_buffer("counts").cpu().clone()}

    def restore(self, memory: Mapping[str, Any]) -> None:
        """Takes what `memory` gave."""
        running = dict(memory["running"])
        running["counts"] = {name: counts.numpy() for name, counts in running["counts"].items()}
        self.running.restore(running)
        self.get_buffer("counts").copy_(memory["counts"])
        self._regroup()

    def _regroup(self) -> None:
        plan = self.plan_now()
        device = self.get_buffer("counts").device
        own = self._make(plan)
        for number, stage in enumerate(plan.stage_names):
            self.criteria[number] = own[stage].to(device)
        self._use(plan)

    @torch.no_grad()
    def _count(self, outputs: Mapping[str, Tensor], labels: Tensor) -> None:
        classes, counts = self.plan.num_classes, self.get_buffer("counts")
        found = torch.zeros_like(counts)
        for number, name in enumerate([*self.plan.stage_names, "final"]):
            prediction = outputs[name].argmax(1)  # (N, h, w)
            truth = _at_centres(labels, prediction.shape[-2], prediction.shape[-1])
            known = truth != self.ignore_index
            cells = torch.where(known, truth * classes + prediction, 0).flatten()
            found[number].view(-1).index_add_(0, cells, known.flatten().to(counts.dtype))
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            torch.distributed.all_reduce(found)
        counts += found


def _at_centres(labels: Tensor, height: int, width: int) -> Tensor:
    """Labels (N, H, W) at the centres of the cells of a grid: (N, height, width)."""
    rows = ((torch.arange(height, device=labels.device) + 0.5) * labels.shape[-2] / height).long()
    columns = ((torch.arange(width, device=labels.device) + 0.5) * labels.shape[-1] / width).long()
    return labels[:, rows][:, :, columns]
