"""What the trainings of each arm cost: time, and multiply-accumulates of all their forward passes."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields

from hs3seg.report.load import Arm, Run
from hs3seg.report.markup import DASH, TIMES, arm_title, duration, number

_SAME_AS_PHASE_ONE = ("deep_supervision", "deep_supervision_long", "online", "online_coarse_to_fine")
"""Arms whose network in training is that of phase one: a head of all classes at every stage."""


@dataclass(frozen=True)
class Spent:
    """Of one arm, mean over seeds; nan where a run does not tell.

    Args:
        steps: Of its own training.
        first_steps: Of phase one, 0 where it needs none.
        seconds: Of both, as they were measured.
        tmacs: Of both: images seen times multiply-accumulates of a forward pass in training, 1e12.
    """

    steps: float
    first_steps: float
    seconds: float
    tmacs: float


def spent_in(run: Run, arm: str, *, with_phase_one: bool) -> Spent | None:
    """What one arm of one run cost; None where it is not trained to its end.

    Args:
        run: The run.
        arm: Its name.
        with_phase_one: Whether its plan comes from phase one, which then counts as a part of it.
    """
    own = run.arms.get(arm)
    trainings = [(own, _gmacs(run, (arm,)))]
    if with_phase_one:
        trainings.append((run.phase_one, _gmacs(run, _SAME_AS_PHASE_ONE)))
    steps, seconds, tmacs = [], 0.0, 0.0
    batch = number((run.config.get("train") or {}).get("batch_size")) or math.nan
    for training, gmacs in trainings:
        if training is None or not training.train:
            return None
        steps.append(_told(training, "steps"))
        seconds += _told(training, "seconds")
        tmacs += steps[-1] * batch * gmacs / 1000
    return Spent(steps[0], sum(steps[1:]), seconds, tmacs)


def mean_spent(found: Sequence[Spent]) -> Spent | None:
    """Over seeds, of each figure over those that tell it (a seed under way has no profile yet); None of none."""
    return Spent(*(_mean([getattr(s, f.name) for s in found]) for f in fields(Spent))) if found else None


def spent_values(spent: Spent) -> dict[str, float | None]:
    """For a file: what no run tells is null."""
    return {name: value if math.isfinite(value) else None for name, value in asdict(spent).items()}


COST_HEAD = ("arm", "steps", "training time", "TMACs, forward", "compute")


def cost_rows(spent: Mapping[str, Spent], reference: str) -> list[list[str]]:
    """A row of plain text per arm, below `COST_HEAD`; compute is relative to the reference."""
    rows = []
    base = spent[reference].tmacs if reference in spent else math.nan
    for arm, s in spent.items():
        steps = f"{s.first_steps:.0f} + {s.steps:.0f}" if s.first_steps else f"{s.steps:.0f}"
        ratio = s.tmacs / base if base else math.nan
        rows.append(
            [
                arm_title(arm),
                steps if math.isfinite(s.steps + s.first_steps) else DASH,
                duration(s.seconds) if math.isfinite(s.seconds) else DASH,
                f"{s.tmacs:.3g}" if math.isfinite(s.tmacs) and s.tmacs < 1000 else _whole(s.tmacs),
                f"{TIMES} {ratio:.2f}" if math.isfinite(ratio) else DASH,
            ]
        )
    return rows


COST_NOTE = (
    "Mean over seeds. Steps of phase one + those of the arm's own training; phase one is counted with every arm whose"
    " plan comes from it, though it was trained once per seed for all of them. TMACs: images seen times"
    " multiply-accumulates of one forward pass in training; backward passes cost about twice as much again, in every"
    " arm. The analysis pass between the phases is not counted. Times are those of this machine, with whatever else"
    " it had to do."
)


def _mean(values: Sequence[float]) -> float:
    told = [value for value in values if math.isfinite(value)]
    return sum(told) / len(told) if told else math.nan


def _whole(value: float) -> str:
    return f"{value:.0f}" if math.isfinite(value) else DASH


def _gmacs(run: Run, names: Sequence[str]) -> float:
    """Of one image in training, by the first of the names that the profile has."""
    training = run.profile.get("training") or {}
    found = (number((training.get(name) or {}).get("gmacs")) for name in names)
    known = next((value for value in found if value is not None), None)
    if known is None and names == _SAME_AS_PHASE_ONE:
        # Heads of groups cost a little less than those of all classes; HS3-Fuse is another network.
        rest = [number(v.get("gmacs")) for name, v in training.items() if name not in ("none", "none_long", "hs3_fuse")]
        known = max((value for value in rest if value is not None), default=None)
    return math.nan if known is None else known


def _told(arm: Arm, key: str) -> float:
    value = number(arm.train.get(key))
    return math.nan if value is None else value
