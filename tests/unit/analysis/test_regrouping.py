import numpy as np
import pytest
from numpy.typing import NDArray

from hs3seg.analysis import OnlinePlan, RunningGroups
from hs3seg.errors import PlanError
from hs3seg.taxonomy import Grouping

NAMES = ("a", "b", "c", "d", "e", "f")
PAIRS = Grouping.from_groups([[0, 1], [2, 3], [4, 5]], 6)
OTHERS = Grouping.from_groups([[0, 2], [1, 3], [4, 5]], 6)
THIRD = Grouping.from_groups([[0, 5], [1, 4], [2, 3]], 6)
FOURTH = Grouping.from_groups([[0, 4], [1, 2], [3, 5]], 6)


def confused(grouping: Grouping, pixels: int = 1000) -> NDArray[np.int64]:
    """A stage that tells groups apart without a fault and classes inside a group not at all."""
    same = np.equal.outer(grouping.assignment, grouping.assignment)
    return np.where(same, pixels, 0).astype(np.int64)


def counts(grouping: Grouping) -> dict[str, NDArray[np.int64]]:
    final = np.full((6, 6), 10, np.int64) + 900 * np.eye(6, dtype=np.int64)
    return {"early": confused(grouping), "final": final}


def running(**settings: object) -> RunningGroups:
    return RunningGroups(
        NAMES,
        ["early"],
        OnlinePlan(**{"warmup": 0.2, "interval": 0.1, "momentum": 0.0, "theta_degrees": 90.0} | settings),
    )  # type: ignore[arg-type]


def test_analyses_come_after_the_warm_up_and_at_intervals_never_at_the_ends() -> None:
    groups = running(warmup=0.2, interval=0.25)
    times = []
    for epoch in range(21):
        if groups.due(epoch / 20):
            times.append(epoch)
            groups.update(epoch / 20, counts(PAIRS))
    assert times == [4, 9, 14, 19]
    assert not running(warmup=0.0).due(0.0)
    assert running(warmup=0.0).due(0.05)


def test_the_first_groups_are_those_of_the_two_phase_analysis() -> None:
    groups = running()
    assert groups.groupings["early"].is_identity
    entry = groups.update(0.2, counts(PAIRS))
    assert groups.groupings["early"] == PAIRS
    assert entry["changed"] == ["early"]
    assert entry["stages"]["early"] | {"miou": 0.0} == {
        "proposed": [[0, 1], [2, 3], [4, 5]],
        "similarity": 0.0,
        "adopted": True,
        "num_groups": 3,
        "chosen": 3,
        "miou": 0.0,
    }


def test_one_odd_analysis_changes_nothing_and_lasting_change_is_followed() -> None:
    groups = running(patience=2)
    changes = []
    for number, seen in enumerate([PAIRS, OTHERS, PAIRS, OTHERS, OTHERS, PAIRS, OTHERS]):
        changes.append(bool(groups.update(0.2 + 0.1 * number, counts(seen))["changed"]))
    assert changes == [True, False, False, False, True, False, False]
    assert groups.groupings["early"] == OTHERS
    eager = running(patience=1)
    flips = [bool(eager.update(0.2 + 0.1 * n, counts(g))["changed"]) for n, g in enumerate([PAIRS, OTHERS, PAIRS])]
    assert flips == [True, True, True]


def test_analyses_that_agree_neither_with_the_groups_nor_with_each_other_change_nothing() -> None:
    groups = running(patience=2)
    seen = [PAIRS, *[OTHERS, THIRD, FOURTH] * 4]
    changes = [bool(groups.update(0.2 + 0.05 * n, counts(g))["changed"]) for n, g in enumerate(seen)]
    assert changes == [True, *[False] * 12]
    assert groups.groupings["early"] == PAIRS
    assert groups.update(0.9, counts(FOURTH))["changed"] == ["early"]  # the second in a row


def test_what_is_similar_enough_is_not_a_change() -> None:
    groups = running(patience=1, similarity=-0.0)
    groups.update(0.2, counts(PAIRS))
    assert groups.update(0.3, counts(OTHERS))["stages"]["early"]["similarity"] > 0
    assert groups.groupings["early"] == PAIRS


def test_earlier_counts_fade_by_the_momentum() -> None:
    forgetful, mindful = running(momentum=0.0, patience=1), running(momentum=1.0, patience=1)
    for groups in (forgetful, mindful):
        for number in range(3):
            groups.update(0.2 + 0.1 * number, {name: 100 * value for name, value in counts(PAIRS).items()})
        groups.update(0.6, counts(OTHERS))
    assert forgetful.groupings["early"] == OTHERS
    assert mindful.groupings["early"] == PAIRS


def test_coarse_to_fine_grows_from_the_first_choice_to_all_classes() -> None:
    groups = running(order="coarse_to_fine")
    noisy = counts(PAIRS)
    noisy["early"] = noisy["early"] + np.diag(np.arange(1, 7) * 40)
    sizes = []
    for progress in np.arange(0.2, 1.0, 0.1):
        groups.update(float(progress), noisy)
        sizes.append(groups.groupings["early"].num_groups)
    assert sizes == sorted(sizes)
    assert sizes[0] == groups.history[0]["stages"]["early"]["chosen"]
    assert sizes[-1] >= 5


def test_it_goes_on_from_its_memory_to_the_same_history() -> None:
    seen = [PAIRS, OTHERS, OTHERS, PAIRS, PAIRS]
    whole, first, second = running(momentum=0.5), running(momentum=0.5), running(momentum=0.5)
    for number, grouping in enumerate(seen):
        whole.update(0.2 + 0.1 * number, counts(grouping))
        if number < 2:
            first.update(0.2 + 0.1 * number, counts(grouping))
    second.restore(first.memory())
    for number, grouping in list(enumerate(seen))[2:]:
        second.update(0.2 + 0.1 * number, counts(grouping))
    assert second.history == whole.history
    assert second.groupings == whole.groupings


@pytest.mark.parametrize("stages", [["early"], ["early", "late"]])
def test_each_stage_has_its_own_groups(stages: list[str]) -> None:
    groups = RunningGroups(NAMES, stages, OnlinePlan(theta_degrees=90.0))
    values = counts(PAIRS)
    values["late"] = confused(OTHERS)
    groups.update(0.2, {name: values[name] for name in [*stages, "final"]})
    assert groups.groupings["early"] == PAIRS
    assert "late" not in stages or groups.groupings["late"] == OTHERS


def test_the_number_of_groups_may_be_that_of_the_knee() -> None:
    by_line = running(theta_degrees=None)
    by_line.update(0.2, counts(PAIRS))
    by_knee = running(theta_degrees=None, rule="knee")
    by_knee.update(0.2, counts(PAIRS))
    assert by_knee.groupings["early"] == PAIRS
    assert by_line.groupings["early"].num_groups > 3  # the line lies below the knee's neighbour
    with pytest.raises(PlanError, match="unknown rule 'bend'; allowed: line, knee"):
        OnlinePlan(rule="bend")  # type: ignore[arg-type]
    assert OnlinePlan.from_dict(OnlinePlan(rule="knee").to_dict()).rule == "knee"
