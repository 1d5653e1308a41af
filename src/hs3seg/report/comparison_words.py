"""What a comparison found, and what its numbers allow to say."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from hs3seg.analysis import Comparison, detectable_difference, pairs_needed, pooled_spread
from hs3seg.analysis.comparison import smallest_sign_p
from hs3seg.report.comparison_cost import Spent
from hs3seg.report.markup import arm_title, in_sentence, listed, percent, points


@dataclass(frozen=True)
class SplitComparison:
    """All arms on one split.

    Args:
        split: Name.
        reference: The arm that the others are compared with.
        arms: Arm -> comparison.
        per_class: Arm -> class -> differences of IoU to the reference by the comparison's seeds; may be empty.
        reference_iou: Class -> mean IoU of the reference over all its seeds, nan where no such pixel is.
        without_pair: Arm -> its seeds, for arms that share none with the reference.
        spent: Arm -> what its trainings cost, on the comparison's seeds.
        titles: Arm -> what it is called here, where `arm_title` does not know it.
        place: What the split is of, where several are shown; empty = nothing need be said.
    """

    split: str
    reference: str
    arms: Mapping[str, Comparison]
    per_class: Mapping[str, Mapping[str, Sequence[float]]]
    reference_iou: Mapping[str, float] = field(default_factory=dict)
    without_pair: Mapping[str, Sequence[int]] = field(default_factory=dict)
    spent: Mapping[str, Spent] = field(default_factory=dict)
    titles: Mapping[str, str] = field(default_factory=dict)
    place: str = ""

    @property
    def others(self) -> dict[str, Comparison]:
        """All arms but the reference."""
        return {arm: c for arm, c in self.arms.items() if arm != self.reference}

    @property
    def where(self) -> str:
        """`val`, or `CamVid, val`."""
        return f"{self.place}, {self.split}" if self.place else self.split

    def title(self, arm: str) -> str:
        """What an arm is called in print."""
        return self.titles.get(arm) or arm_title(arm)

    def in_sentence(self, arm: str) -> str:
        """The same inside a sentence."""
        return self.titles.get(arm) or in_sentence(arm)


def sentence(found: SplitComparison, comparison: Comparison) -> str:
    """What one arm's numbers allow to say."""
    split, name, base = found.where, found.title(comparison.arm), found.in_sentence(found.reference)
    n = len(comparison.seeds)
    gain = f"{points(comparison.difference)} points of mIoU"
    if comparison.interval is None:
        return f"{split}: {name} against {base}: {gain} with one seed, which decides nothing."
    low, high = (points(value) for value in comparison.interval)
    between = f"{gain}, {low} to {high} at {100 * comparison.confidence:.0f} %, {n} seeds"
    if not comparison.is_significant:
        return f"{split}: {name} and {base} cannot be told apart ({between})."
    better = "better" if comparison.difference > 0 else "worse"
    if comparison.holds_among_all:
        return f"{split}: {name} is {better} than {base} ({between})."
    return (
        f"{split}: {name} is {better} than {base} taken alone, but not among all arms that were compared"
        f" ({between}; p = {p_value(comparison.adjusted_p)} after Holm)."
    )


def caveats(found: SplitComparison) -> list[str]:
    """What a reader must know of these numbers: how many comparisons, how few seeds, who lacks which."""
    lines = []
    base, others = found.in_sentence(found.reference), list(found.others.values())
    tested = [c for c in others if c.p is not None]
    if len(tested) > 1:
        lines.append(
            f"{len(tested)} arms are compared with {base}. Without any real difference, one interval in twenty would"
            f" leave out zero, so in {100 * (1 - 0.95 ** len(tested)):.0f} % of such comparisons at least one of"
            f" {len(tested)} independent ones; the p after Holm allows for all {len(tested)} of this split, the"
            " intervals for none."
        )
    few = sorted({len(c.seeds) for c in others if smallest_sign_p(len(c.seeds)) > 0.05})
    if few:
        floors = listed([f"{p_value(smallest_sign_p(n))} with {n} seed{'s' * (n > 1)}" for n in few])
        lines.append(
            f"The sign test cannot go below {floors}: it reaches 5 % from six seeds on, where all agree. With fewer"
            " seeds the interval rests on the differences being spread as Student's law has it."
        )
    if limit := _limit(others, base):
        lines.append(limit)
    if not others:
        return lines
    most = found.arms[found.reference].seeds
    for comparison in others:
        if comparison.seeds != most:
            shared = [i for i, seed in enumerate(most) if seed in comparison.seeds]
            own = found.arms[found.reference].values
            mean = sum(own[i] for i in shared) / len(shared)
            lines.append(
                f"{found.title(comparison.arm)} is compared on {_seeds(comparison.seeds)} of {_numbers(most)} only,"
                f" where {base} has {percent(mean)} %."
            )
    for arm, seeds in found.without_pair.items():
        lines.append(f"{found.title(arm)} has no seed in common with {base} (only {_numbers(seeds)}): it is left out.")
    return lines


_HALF_A_POINT = 0.005
"""About what the paper gains over deep supervision (its Tables 1 and 3: 0.3 to 0.6 points)."""


def _limit(others: Sequence[Comparison], base: str) -> str:
    """What so many seeds can find at all; empty where nothing varies visibly or there is one seed."""
    spread, pairs = pooled_spread(c.differences for c in others), max((len(c.seeds) for c in others), default=0)
    if pairs < 2 or not spread > 0.0005:
        return ""
    found, needed = detectable_difference(spread, pairs), pairs_needed(_HALF_A_POINT, spread)
    words = (
        f"Differences to {base} vary by {100 * spread:.1f} points from seed to seed (standard deviation, pooled"
        f" over the arms). So {pairs} seeds find a real difference of {100 * found:.1f} points four times out of five,"
        " and smaller ones more rarely"
    )
    if needed is None or needed > pairs:
        return f"{words}; half a point asks for about {needed or 'a million'} seeds."
    return f"{words}."


HEAD = ("arm", "seeds", "mIoU %", "spread", "difference", "interval", "p", "p, Holm", "sign test p")


def scores_rows(found: SplitComparison) -> list[list[str]]:
    """A row of plain text per arm, below `HEAD`."""
    rows = []
    whole = len(found.arms[found.reference].seeds)
    for arm, c in found.arms.items():
        n = str(len(c.seeds)) if len(c.seeds) == whole else f"{len(c.seeds)} of {whole}"
        interval = "-" if c.interval is None else f"{points(c.interval[0])} to {points(c.interval[1])}"
        spread = "-" if math.isnan(c.spread) else f"{100 * c.spread:.1f}"
        told = ["reference", "", "", "", ""]
        if arm != found.reference:
            told = [points(c.difference), interval, p_value(c.p), p_value(c.adjusted_p), p_value(c.sign_p)]
        rows.append([found.title(arm), n, percent(c.mean), spread, *told])
    return rows


def p_value(p: float | None) -> str:
    """`0.25`, `0.031` or `< 0.001`."""
    if p is None:
        return "-"
    if p < 0.001:
        return "< 0.001"
    return f"{p:.3f}" if p < 0.0995 else f"{p:.2f}"


def _seeds(seeds: Sequence[int]) -> str:
    return f"seed {seeds[0]}" if len(seeds) == 1 else f"seeds {_numbers(seeds)}"


def _numbers(seeds: Sequence[int]) -> str:
    return listed([str(seed) for seed in seeds])
