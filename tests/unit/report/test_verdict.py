from dataclasses import replace
from pathlib import Path

import pytest

from hs3seg.report.load import Arm, Run, Scores
from hs3seg.report.verdict import baseline_of, judge


def run_of(values: dict[str, dict[str, float]], **changes: dict) -> Run:
    """A run that knows nothing but arm -> split -> mIoU."""
    splits = tuple(dict.fromkeys(split for arm in values.values() for split in arm))
    arms = {}
    for name, scores in values.items():
        arms[name] = Arm(name, train={"steps": 100})
        for split, miou in scores.items():
            arms[name].scores[split] = Scores(split, miou, 0.9, {"sky": miou}, {}, 10, [])
        for key, value in changes.get(name, {}).items():
            setattr(arms[name], key, value)
    return Run(Path(), {"seed": 3}, "", None, {}, arms, None, splits, {}, {}, None, {}, {}, [])


def test_clear_winner_is_named_with_its_lead() -> None:
    verdict = judge(run_of({"none": {"val": 0.50}, "deep_supervision": {"val": 0.51}, "hs3": {"val": 0.54}}))
    assert verdict.headline == "HS3 has the highest mIoU, ahead of deep supervision by 3.0 points on val."
    assert verdict.best == {"val": "hs3"}
    assert any(
        "HS3 against no supervision: +4.0 points on val; more than one seed" in line for line in verdict.findings
    )


def test_lead_below_a_point_is_no_win() -> None:
    verdict = judge(run_of({"none": {"val": 0.50}, "hs3": {"val": 0.507}}))
    assert verdict.headline.endswith("by 0.7 points on val. That is too little for one seed to tell them apart.")
    assert verdict.findings[-1] == "HS3 against no supervision: +0.7 points on val; within what one seed moves."


def test_it_says_so_when_hs3_loses() -> None:
    verdict = judge(run_of({"none": {"val": 0.50}, "deep_supervision": {"val": 0.56}, "hs3": {"val": 0.48}}))
    assert verdict.headline.startswith("Deep supervision has the highest mIoU")
    assert verdict.findings[1:] == (
        "HS3 against no supervision: \u22122.0 points on val; HS3 is worse, by more than one seed usually moves.",
        "HS3 against deep supervision: \u22128.0 points on val; HS3 is worse, by more than one seed usually moves.",
    )


def test_splits_that_disagree_are_said() -> None:
    verdict = judge(run_of({"none": {"val": 0.50, "test": 0.45}, "hs3": {"val": 0.52, "test": 0.40}}))
    assert (
        verdict.headline
        == "The splits disagree on who is ahead: HS3 on val (by 2.0) and no supervision on test (by 5.0)."
    )
    assert verdict.findings[-1].endswith("; better on val and worse on test.")


def test_gain_on_one_split_only() -> None:
    verdict = judge(run_of({"none": {"val": 0.50, "test": 0.45}, "hs3": {"val": 0.52, "test": 0.455}}))
    assert verdict.headline.endswith(
        "2.0 points on val and 0.5 points on test. Only on val is that more than one seed moves."
    )
    assert verdict.findings[-1].endswith("; better on val, elsewhere within what one seed moves.")


def test_tie_lonely_arm_and_nothing() -> None:
    assert judge(run_of({"none": {"val": 0.5}, "hs3": {"val": 0.5}})).headline.startswith("A tie")
    lonely = judge(run_of({"hs3": {"val": 0.5}}))
    assert lonely.headline == "HS3 reaches 50.0 % mIoU on val; there is no other arm yet to compare with."
    assert lonely.findings == ("val (10 images): HS3 50.0 % mIoU.",)
    nothing = judge(run_of({}))
    assert "nothing to compare" in nothing.headline
    assert nothing.best == {}


def test_caveats_name_seed_controls_budget_and_unfinished_arms() -> None:
    values = {"none": {"val": 0.5}, "hs3": {"val": 0.6}}
    caveats = " ".join(judge(run_of(values, hs3={"train": {"steps": 50}})).caveats)
    assert "(seed 3)" in caveats
    assert "No control was trained" in caveats
    assert "same number of steps (no supervision 100, HS3 50)" in caveats
    assert "Not trained to the end: HS3" in " ".join(judge(run_of(values, hs3={"train": {}})).caveats)
    controlled = judge(run_of(values | {"random": {"val": 0.61}}))
    assert "No control" not in " ".join(controlled.caveats)
    assert any("HS3 against random groups (control): \u22121.0 points" in line for line in controlled.findings)


def test_phase_one_counts_as_part_of_what_needs_it() -> None:
    values = {"deep_supervision": {"val": 0.5}, "hs3": {"val": 0.6}, "deep_supervision_long": {"val": 0.6}}

    def told(names: list[str], by_hand: str = "") -> str:
        run = run_of({name: values[name] for name in names}, deep_supervision_long={"train": {"steps": 190}})
        phase_one = Arm("phase_one", train={"steps": 90})
        return " ".join(judge(replace(run, phase_one=phase_one, config={"supervision": {"plan": by_hand}})).caveats)

    assert "steps (deep supervision 100, HS3 90 + 100, those of phase one first)" in told(["deep_supervision", "hs3"])
    assert "number of steps" not in told(["hs3", "deep_supervision_long"])  # equal compute
    assert "number of steps" not in told(["deep_supervision", "hs3"], "plan.toml")  # a plan by hand needs none


def test_score_without_a_value_is_left_out() -> None:
    run = run_of({"none": {"val": 0.5}, "hs3": {"val": 0.4}})
    run.arms["hs3"].scores["val"] = Scores("val", None, None, {}, {}, 10, [])
    assert judge(run).headline.startswith("No supervision reaches 50.0 %")
    assert judge(run).best == {}


@pytest.mark.parametrize(
    ("arms", "expected"),
    [(("hs3", "none"), "none"), (("hs3", "deep_supervision"), "deep_supervision"), (("hs3", "x"), "hs3"), ((), None)],
)
def test_baseline(arms: tuple[str, ...], expected: str | None) -> None:
    assert baseline_of(run_of({arm: {"val": 0.5} for arm in arms})) == expected
