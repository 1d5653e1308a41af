"""Groups that follow a network while it trains: running confusion matrices, and when a stage's groups change."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hs3seg.analysis.agreement import adjusted_rand
from hs3seg.analysis.online_plan import OnlinePlan
from hs3seg.analysis.study import analyze
from hs3seg.analysis.tradeoff import TradeoffCurve
from hs3seg.taxonomy import Grouping

_ROUNDING = 1e-9  # progress is a quotient of epochs


class RunningGroups:
    """The state machine of single-phase HS3. It knows no network: counts go in, groupings come out.

    Args:
        names: K class names.
        stages: Names of the stages, shallow to deep.
        settings: Warm-up, interval, hysteresis.

    Attributes:
        groupings: Stage -> the grouping that its loss has now; all classes until the first analysis.
        history: One entry per analysis: progress, and per stage the groups proposed, how alike they are to those in
            use (adjusted Rand index), and whether they were adopted.
    """

    def __init__(self, names: Sequence[str], stages: Sequence[str], settings: OnlinePlan) -> None:
        self.names, self.settings = tuple(names), settings
        count = len(self.names)
        self.groupings = {stage: Grouping.identity(count) for stage in stages}
        self.history: list[dict[str, Any]] = []
        self._counts = {name: np.zeros((count, count), np.int64) for name in (*stages, "final")}
        # Other groups that the last analyses proposed, and how many in a row proposed these or such as are alike.
        self._rivals: dict[str, tuple[Grouping, int]] = {}
        self._first_sizes: dict[str, int] = {}

    def due(self, progress: float) -> bool:
        """Whether it is time for an analysis.

        Args:
            progress: Share of the training that is done, 0..1.
        """
        last = self.history[-1]["progress"] if self.history else -1.0
        after = max(self.settings.warmup, last + self.settings.interval)
        return _ROUNDING < progress < 1 and progress >= after - _ROUNDING

    def update(self, progress: float, counts: Mapping[str, NDArray[Any]]) -> dict[str, Any]:
        """Adds what was counted since the last analysis, analyses, and changes groups where hysteresis allows.

        Args:
            progress: Share of the training that is done, 0..1.
            counts: Stage and `final` -> (K, K) pixel counts, rows truth.

        Returns:
            The entry of the history; `changed` lists the stages whose groups are new.

        Raises:
            PlanError: no labelled pixel has been counted.
        """
        for name, earlier in self._counts.items():
            kept = (earlier * self.settings.momentum).astype(np.int64)
            self._counts[name] = kept + np.asarray(counts[name], np.int64)
        study = analyze(
            self._counts,
            self.names,
            normalize=self.settings.normalize,
            diagonal=self.settings.diagonal,
            rule=self.settings.rule,
            theta_degrees=self.settings.theta_degrees,
            aspect=self.settings.aspect,
        )
        stages = {}
        for curve in study.curves:
            chosen = study.plan.stage(curve.stage).grouping
            proposal = self._scheduled(curve, chosen, progress)
            stages[curve.stage] = self._consider(curve.stage, proposal) | {
                "chosen": chosen.num_groups,
                "miou": curve.mious[proposal.num_groups],
            }
        entry = {
            "progress": progress,
            "reference_miou": study.reference.miou,
            "changed": [stage for stage, found in stages.items() if found["adopted"]],
            "stages": stages,
        }
        self.history.append(entry)
        return entry

    def _scheduled(self, curve: TradeoffCurve, chosen: Grouping, progress: float) -> Grouping:
        """The grouping of the size that this moment asks for."""
        if self.settings.order == "chosen":
            return chosen
        first = self._first_sizes.setdefault(curve.stage, chosen.num_groups)
        began = self.history[0]["progress"] if self.history else progress
        share = (progress - began) / max(1 - began, _ROUNDING)
        wanted = round(first + share * (len(self.names) - first))
        return curve.groupings[min(curve.sizes, key=lambda k: (abs(k - wanted), k))]

    def _consider(self, stage: str, proposal: Grouping) -> dict[str, Any]:
        """Adopts the first proposal, one of another scheduled size, or one that enough analyses in a row agree on.

        Analyses that differ from the groups in use and from each other are noise: many groupings may be as good.
        """
        current = self.groupings[stage]
        alike = adjusted_rand(current, proposal)
        settings = self.settings
        in_a_row = 0
        if alike < settings.similarity:
            rival, times = self._rivals.get(stage, (proposal, 0))
            in_a_row = times + 1 if adjusted_rand(rival, proposal) >= settings.similarity else 1
            self._rivals[stage] = proposal, in_a_row
        else:
            self._rivals.pop(stage, None)
        scheduled = settings.order == "coarse_to_fine" and current.num_groups != proposal.num_groups
        adopted = current != proposal and (not self.history or scheduled or in_a_row >= settings.patience)
        if adopted:
            self.groupings[stage] = proposal
            self._rivals.pop(stage, None)
        return {
            "proposed": [list(group) for group in proposal.groups],
            "similarity": alike,
            "adopted": adopted,
            "num_groups": self.groupings[stage].num_groups,
        }

    def memory(self) -> dict[str, Any]:
        """Plain values and arrays that `restore` goes on from."""
        return {
            "groupings": {stage: list(grouping.assignment) for stage, grouping in self.groupings.items()},
            "counts": {name: counts.copy() for name, counts in self._counts.items()},
            "rivals": {stage: (list(rival.assignment), times) for stage, (rival, times) in self._rivals.items()},
            "first_sizes": dict(self._first_sizes),
            "history": list(self.history),
        }

    def restore(self, memory: Mapping[str, Any]) -> None:
        """Goes on where `memory` was asked for."""
        self.groupings = {stage: Grouping.from_labels(labels) for stage, labels in memory["groupings"].items()}
        self._counts = {name: np.asarray(counts, np.int64) for name, counts in memory["counts"].items()}
        rivals = memory["rivals"].items()
        self._rivals = {stage: (Grouping.from_labels(labels), times) for stage, (labels, times) in rivals}
        self._first_sizes = dict(memory["first_sizes"])
        self.history = list(memory["history"])
