"""How single-phase HS3 changed its groups while it trained."""

from typing import Any

from hs3seg.report.canvas import Canvas, Point
from hs3seg.report.figure import Axes, Figure, legend
from hs3seg.report.load import Arm
from hs3seg.report.markup import arm_title, number
from hs3seg.report.theme import stage_colour


def history_figure(arm: Arm) -> Figure | None:
    """Number of groups of each stage over the epochs: in use (line), proposed (ring), adopted (disc)."""
    if arm.plan is None or not arm.regrouped:
        return None
    stages, classes = arm.plan.stage_names, arm.plan.num_classes
    found = {stage: _series(arm, stage) for stage in stages}
    last = max([_epoch(event) for event in arm.regrouped] + [_epoch(event) for event in arm.steps[-1:]])
    canvas = Canvas(478, 0)
    used = legend(canvas, 50, 12, 470, [(stage, stage_colour(i)) for i, stage in enumerate(stages)])
    canvas.height = used + 246
    axes = Axes(canvas, 50, used + 8, 414, 190, (0, last), (0, 1.06 * classes))
    axes.frame("epoch", "groups")
    for i, stage in enumerate(stages):

        def place(epoch: float, size: int, lift: float = 3 * (i - (len(stages) - 1) / 2)) -> Point:
            """Stages with the same number of groups lie beside each other."""
            x, y = axes.place(epoch, size)
            return x, y - lift

        places, size = [place(0, classes)], classes
        for epoch, in_use, _, _ in found[stage]:
            places += [place(epoch, size), place(epoch, in_use)]
            size = in_use
        canvas.line([*places, place(last, size)], stage_colour(i), 2)
        for epoch, in_use, proposed, adopted in found[stage]:
            words = f"{stage}, epoch {epoch:g}: {proposed} groups proposed, {in_use} in use"
            canvas.disc(*place(epoch, proposed), 4.5 if adopted else 2.5, stage_colour(i), title=words)
    label = f"{arm_title(arm.name)}: number of groups of each stage over the epochs"
    return Figure(f"history-{arm.name}", canvas, label)


def history_words(arm: Arm) -> str:
    """How often groups were looked at and changed."""
    if not arm.regrouped:
        return "Its groups were never looked at: the training was too short for its warm-up."
    settings = arm.plan.online if arm.plan is not None else None
    changes = {
        stage: sum(stage in event.get("changed", []) for event in arm.regrouped)
        for stage in (arm.plan.stage_names if arm.plan is not None else ())
    }
    counts = ", ".join(f"{stage} {count} times" for stage, count in changes.items())
    first = _epoch(arm.regrouped[0])
    words = (
        f"Groups are found while the network trains: all classes until epoch {first:g}, then {len(arm.regrouped)}"
        f" analyses. Changed: {counts}. Small dots: proposed; large dots: adopted."
    )
    if settings is not None and settings.order == "coarse_to_fine":
        return words + " The number of groups grows from the first choice to all classes at the end."
    patience = settings.patience if settings is not None else 1
    return words + f" {patience} analyses in a row have to agree on a change." if patience > 1 else words


def _series(arm: Arm, stage: str) -> list[tuple[float, int, int, bool]]:
    """(epoch, groups in use, groups proposed, adopted) of each analysis that names the stage."""
    found = []
    for event in arm.regrouped:
        own = event.get("stages", {})
        own = own.get(stage) if isinstance(own, dict) else None
        in_use = number(own.get("num_groups")) if isinstance(own, dict) else None
        if isinstance(own, dict) and in_use is not None and isinstance(own.get("proposed"), list):
            found.append((_epoch(event), int(in_use), len(own["proposed"]), own.get("adopted") is True))
    return found


def _epoch(event: dict[str, Any]) -> float:
    return number(event.get("epoch")) or 0.0
