"""Confusion matrices of every stage, counted in anybody's evaluation loop."""

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hs3seg.analysis import SupervisionPlan, analyze, save_confusions
from hs3seg.errors import PlanError
from hs3seg.nn.counting import ConfusionCounter, check_outputs
from hs3seg.nn.losses import PlanSource, check_ignore_index, plan_and_traits
from hs3seg.taxonomy import Grouping


class ConfusionRecorder:
    """Counts (Sec. 3.1.1) what each stage of a supervised network confuses, at label resolution.

    ```python
    recorder = hs3seg.ConfusionRecorder(model)
    model.eval()
    with torch.no_grad():
        for images, labels in held_out:
            recorder.update(model(images), labels)
    plan = recorder.make_plan()
    ```

    With torch.distributed each process counts its own images; `confusions`, `save` and `make_plan` sum them up, so that
    every process has to call them, not the first one alone.

    Args:
        plan: The supervised model that is measured, or its plan: deep supervision in phase one. Or the path of a
            plan.toml.
        ignore_index: Label that does not count.
        align_corners: How logits are enlarged; default the model's, of a plan False.

    Raises:
        PlanError: the ignore label is a class; no such plan.
    """

    def __init__(self, plan: PlanSource, ignore_index: int = 255, align_corners: bool | None = None) -> None:
        plan, _, corners = plan_and_traits(plan)
        align_corners = corners if align_corners is None else align_corners
        check_ignore_index(plan, ignore_index)
        self.plan, self.ignore_index = plan, ignore_index
        self._warned = False
        groupings = {stage.stage: stage.grouping for stage in plan.stages}
        groupings["final"] = Grouping.identity(plan.num_classes)
        self._counter = ConfusionCounter(groupings, ignore_index, align_corners=align_corners)

    @torch.no_grad()
    def update(self, outputs: Mapping[str, Tensor], labels: Tensor) -> None:
        """Counts one batch.

        Args:
            outputs: What the supervised network gave, stage -> (N, k_i, h_i, w_i) and `final`; further names are not
                looked at.
            labels: (N, H, W) integer class ids, on any device.

        Raises:
            PlanError: there is but one output, a stage is missing or has another number of groups, or shapes do not
                fit.
            DataError: a label is no class, or labels are not whole numbers.
        """
        check_outputs(outputs, "the recorder")
        for name in self._counter.groupings:
            if name not in outputs:
                raise PlanError(f"no output '{name}'; the network gave {', '.join(outputs)}, and the plan needs it")
        if any(outputs[name].requires_grad for name in self._counter.groupings) and not self._warned:
            self._warned = True
            warnings.warn(
                "outputs that are measured carry gradients: call model.eval() before, and the model under"
                " torch.no_grad(), or the analysis images change it and are seen as training images are",
                stacklevel=3,
            )
        self._counter.add({name: outputs[name] for name in self._counter.groupings}, labels)

    def confusions(self) -> dict[str, NDArray[np.int64]]:
        """Stage -> (k_i, k_i) counts, rows truth; `final` last. Summed over the processes, all of which call it."""
        counts = {name: value.clone() for name, value in self._counter.counts.items()}
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            device = "cuda" if torch.distributed.get_backend() == "nccl" else "cpu"
            for name, value in counts.items():
                moved = value.to(device)
                torch.distributed.all_reduce(moved)
                counts[name] = moved.cpu()
        return {name: value.numpy() for name, value in counts.items()}

    def save(self, path: Path | str) -> None:
        """Writes the matrices for `hs3 plan --confusion FILE`; with several processes, call it on all of them."""
        confusions = self.confusions()
        if not (torch.distributed.is_available() and torch.distributed.is_initialized()) or not _rank():
            save_confusions(Path(path), confusions)

    def make_plan(self, **options: Any) -> SupervisionPlan:
        """The plan of phase two, the same on all processes, all of which call it.

        Args:
            options: Of `hs3seg.analyze`: method, normalize, theta_degrees, gamma, ...

        Raises:
            PlanError: nothing was counted, or the network was not supervised with all classes on every stage.
        """
        merged = [stage.stage for stage in self.plan.stages if not stage.grouping.is_identity]
        if merged:
            raise PlanError(
                f"stage '{merged[0]}' was supervised with groups; measure a network of deep supervision, whose stages"
                " have all classes"
            )
        return analyze(self.confusions(), self.plan.taxonomy_names, **options).plan


def _rank() -> int:
    return int(torch.distributed.get_rank())
