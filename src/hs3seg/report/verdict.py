"""What the numbers allow to say, and what they do not."""

from collections.abc import Mapping
from dataclasses import dataclass

from hs3seg.report.load import MEASURED, Run
from hs3seg.report.markup import arm_title, in_sentence, listed, percent, points

SEED_NOISE = 0.01
"""mIoU fraction below which one run per arm cannot tell two arms apart (method.md, section 3)."""


@dataclass(frozen=True)
class Verdict:
    """The page's opening.

    Args:
        headline: One sentence.
        findings: What holds on each split, and for HS3 against each baseline.
        caveats: What the reader must know before believing it.
        best: Split -> arm with the highest mIoU, where there are several.
    """

    headline: str
    findings: tuple[str, ...]
    caveats: tuple[str, ...]
    best: dict[str, str]


def baseline_of(run: Run) -> str | None:
    """The arm that the others are compared with: no supervision, else deep supervision, else the first evaluated."""
    scored = [name for name, arm in run.arms.items() if arm.scores]
    return next((name for name in ("none", "deep_supervision") if name in scored), scored[0] if scored else None)


def ranking(run: Run, split: str) -> list[tuple[str, float]]:
    """Arms with a mIoU on a split, best first; a fraction each."""
    values = [
        (name, arm.scores[split].miou)
        for name, arm in run.arms.items()
        if split in arm.scores and arm.scores[split].miou is not None
    ]
    return sorted(((name, float(miou)) for name, miou in values if miou is not None), key=lambda item: -item[1])


def judge(run: Run) -> Verdict:
    """Compares the arms on every split."""
    ranked = {split: order for split in run.splits if (order := ranking(run, split))}
    best = {split: order[0][0] for split, order in ranked.items() if len(order) > 1}
    if not ranked:
        return Verdict("Nothing is evaluated yet, so there is nothing to compare.", (), (), {})
    return Verdict(_headline(ranked), tuple(_findings(run, ranked)), tuple(_caveats(run, ranked)), best)


def _headline(ranked: Mapping[str, list[tuple[str, float]]]) -> str:
    compared = {split: order for split, order in ranked.items() if len(order) > 1}
    if not compared:
        split, ((name, miou),) = next(iter(ranked.items()))
        return (
            f"{arm_title(name)} reaches {percent(miou)} % mIoU on {split}; there is no other arm yet to compare with."
        )
    leads = {split: order[0][1] - order[1][1] for split, order in compared.items()}
    clear = [split for split, lead in leads.items() if lead >= SEED_NOISE]
    reach = "" if len(clear) == len(leads) else f" Only on {listed(clear)} is that more than one seed moves."
    reach = reach if clear else " That is too little for one seed to tell them apart."
    winners = {order[0][0] for order in compared.values()}
    if len(winners) > 1:
        heads = [
            f"{in_sentence(order[0][0])} on {split} (by {percent(leads[split])})" for split, order in compared.items()
        ]
        return f"The splits disagree on who is ahead: {listed(heads)}.{reach}"
    winner = winners.pop()
    seconds = {order[1][0] for order in compared.values()}
    second = in_sentence(seconds.pop()) if len(seconds) == 1 else "the next best arm"
    if not any(leads.values()):
        return f"A tie: {in_sentence(winner)} and {second} have the same mIoU."
    ahead = [f"{percent(lead)} points on {split}" for split, lead in leads.items()]
    return f"{arm_title(winner)} has the highest mIoU, ahead of {second} by {listed(ahead)}.{reach}"


def _findings(run: Run, ranked: Mapping[str, list[tuple[str, float]]]) -> list[str]:
    found = []
    for split, order in ranked.items():
        images = next(arm.scores[split].num_images for arm in run.arms.values() if split in arm.scores)
        shown = ", ".join(f"{in_sentence(name)} {percent(miou)} %" for name, miou in order)
        found.append(f"{split} ({images} images): {shown} mIoU.")
    for other in ("none", "deep_supervision", "random", "reversed"):
        differences = {
            split: dict(order)["hs3"] - dict(order)[other]
            for split, order in ranked.items()
            if "hs3" in dict(order) and other in dict(order)
        }
        if differences:
            shown = listed([f"{points(value)} points on {split}" for split, value in differences.items()])
            found.append(f"HS3 against {in_sentence(other)}: {shown}{_judgement(differences)}.")
    return found


def _judgement(differences: Mapping[str, float]) -> str:
    gains = [split for split, value in differences.items() if value >= SEED_NOISE]
    losses = [split for split, value in differences.items() if value <= -SEED_NOISE]
    if not gains and not losses:
        return "; within what one seed moves"
    if len(gains) == len(differences):
        return "; more than one seed usually moves"
    if len(losses) == len(differences):
        return "; HS3 is worse, by more than one seed usually moves"
    words = [f"better on {listed(gains)}"] * bool(gains) + [f"worse on {listed(losses)}"] * bool(losses)
    rest = ", elsewhere within what one seed moves" if len(gains) + len(losses) < len(differences) else ""
    return f"; {' and '.join(words)}{rest}"


def _caveats(run: Run, ranked: Mapping[str, list[tuple[str, float]]]) -> list[str]:
    seed = run.config.get("seed", run.facts.get("seed"))
    compared = any(len(order) > 1 for order in ranked.values())
    found = []
    if compared:
        one = "One seed per arm" + (f" (seed {seed})" if isinstance(seed, int) else "")
        found.append(
            f"{one}: a difference below about 1 point of mIoU is within what one seed moves, and is printed in grey."
            " Several seeds are needed to claim more."
        )
    found += _budget(run)
    if "hs3" in run.arms and not {"random", "reversed"} & run.arms.keys() and compared:
        found.append(
            "No control was trained (random groups of the same sizes, reversed order): a gain of HS3 may come from"
            " easier tasks as such, not from the groups that were found."
        )
    for split in ranked:
        scores = [arm.scores[split] for arm in run.arms.values() if split in arm.scores]
        absent = [name for name, value in scores[0].iou.items() if value is None]
        if absent:
            found.append(f"{split} has no pixel of {listed(absent)}; left out of its means.")
        if scores[0].all_ignored:
            count = len(scores[0].all_ignored)
            found.append(
                f"{count} image{'s' * (count > 1)} of {split} without a labelled pixel: kept, but counting for nothing."
            )
        if len({score.num_images for score in scores}) > 1:
            found.append(f"The arms saw different numbers of images on {split}; their figures are not comparable.")
    return found


def _budget(run: Run) -> list[str]:
    """What arms took, with phase one where their groups come from it."""
    arms = [arm for arm in run.arms.values() if arm.train]
    by_hand = bool((run.config.get("supervision") or {}).get("plan"))
    first = (run.phase_one.train.get("steps") if run.phase_one is not None else None) or 0
    # k-means takes its groups from phase one even where their numbers come from a plan by hand.
    needs = {arm.name: arm.name in MEASURED and (not by_hand or arm.name == "kmeans") for arm in arms}
    steps = {arm.name: (arm.train.get("steps") or 0) + first * needs[arm.name] for arm in arms}
    found = []
    if len(set(steps.values())) > 1:
        shown = ", ".join(
            f"{in_sentence(arm.name)} {f'{first} + ' if first and needs[arm.name] else ''}{arm.train.get('steps')}"
            for arm in arms
        )
        words = ", those of phase one first" if first and any(needs.values()) else ""
        found.append(f"The arms were not trained for the same number of steps ({shown}{words}).")
    unfinished = [in_sentence(arm.name) for arm in run.arms.values() if not arm.train]
    if unfinished:
        found.append(f"Not trained to the end: {listed(unfinished)}.")
    return found
