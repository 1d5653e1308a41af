"""The page of a study."""

from dataclasses import replace
from pathlib import Path

import pytest
from parsed_page import check_page

from hs3seg.pipeline.scores import compare_evaluations
from hs3seg.report.comparison_figures import class_figure, interval_figure
from hs3seg.report.comparison_section import markdown_table
from hs3seg.report.comparison_words import SplitComparison, caveats
from hs3seg.report.study_page import Picture, StudyPage, publish_study, write_study


def evaluations(gain: float) -> dict[str, dict[int, dict[str, object]]]:
    """Two arms, three seeds; the second is better by a gain."""
    base = {seed: {"miou": 0.5 + seed / 100, "iou": {"car": 0.6, "bus": 0.4 + seed / 50}} for seed in range(3)}
    better = {
        seed: {"miou": one["miou"] + gain, "iou": {"car": 0.6 + 2 * gain, "bus": None}}  # type: ignore[operator]
        for seed, one in base.items()
    }
    return {"deep_supervision": base, "deep-late": better}


def compared(place: str, gain: float = 0.02) -> SplitComparison:
    found = compare_evaluations(evaluations(gain), "val")
    assert found is not None
    return replace(found, titles={"deep-late": "deep supervision, stage 3 alone"}, place=place)


@pytest.fixture
def page() -> StudyPage:
    photo = Picture("samples", b"photo", "as they are", b"")
    return StudyPage(
        title="Places",
        source="A study of ours",
        question="Where?",
        notes=["From scratch."],
        head=["", "mIoU"],
        rows=[["stage 3", "50.0"]],
        comparisons=[("camvid-small", compared("CamVid")), ("other-small", compared("Other", -0.02))],
        figures=[],
        pictures=[photo],
        facts={"camvid-small": "a network"},
        links={},
        command="hs3 reproduce stages",
    )


def test_arms_and_settings_are_called_by_their_titles(page: StudyPage, tmp_path: Path) -> None:
    text = publish_study(tmp_path, page).read_text()
    assert "CamVid, val: deep supervision, stage 3 alone is better than deep supervision (+2.0 points" in text
    assert "Other, val: deep supervision, stage 3 alone is worse than deep supervision (\u22122.0 points" in text
    assert "deep-late" not in text
    assert "## CamVid, val" in text
    assert "## All rows" in text
    assert "The sign test cannot go below 0.25 with 3 seeds" in text


def test_comparisons_against_other_arms_share_a_table_and_the_sources_are_named(
    page: StudyPage, tmp_path: Path
) -> None:
    found = compare_evaluations(evaluations(0.02), "val", "deep-late")
    assert found is not None
    commits = "1234567890abcdef+, fedcba0987654321"
    page = replace(page, others=[("camvid-small", replace(found, place="CamVid"))], commits=commits)
    text = publish_study(tmp_path, page).read_text()
    assert "## Against other arms" in text
    assert "| CamVid, val | Deep supervision | deep-late | 3 | \u22122.0 | \u22122.0 to \u22122.0 |" in text
    assert "(trained at commit 1234567+, fedcba0)" in text
    page = replace(page, pictures=[])
    check_page(write_study(tmp_path / "html", page))
    assert "<h2>Against other arms</h2>" in (tmp_path / "html" / "index.html").read_text()


def test_every_picture_that_is_named_is_there_and_no_photograph_is_published(page: StudyPage, tmp_path: Path) -> None:
    readme = publish_study(tmp_path, page)
    named = {line.split("](")[1][:-1] for line in readme.read_text().splitlines() if line.startswith("![")}
    assert named == {
        f"{kind}-val-{name}.png" for kind in ("intervals", "classes") for name in ("camvid-small", "other-small")
    }
    assert {file.name for file in tmp_path.glob("*.png")} == named


def test_a_table_with_the_papers_numbers_says_so(page: StudyPage, tmp_path: Path) -> None:
    page = replace(page, head=["", "mIoU, paper", "mIoU, ours"], rows=[["stage 3", "41.2", "50.0"]], pictures=[])
    path = write_study(tmp_path, page)
    check_page(path)
    html = path.read_text()
    assert "<h2>The paper's rows and ours</h2>" in html
    assert html.count("<svg") == 4


def test_what_so_few_seeds_can_find_is_said() -> None:
    known = evaluations(0.0)
    for seed, gain in enumerate((0.01, 0.0, -0.01)):  # spread 1 point
        known["deep-late"][seed]["miou"] = known["deep_supervision"][seed]["miou"] + gain  # type: ignore[operator]
    found = compare_evaluations(known, "val")
    assert found is not None
    (said,) = [line for line in caveats(found) if "four times out of five" in line]
    # Power 0.80 of a paired t-test with three pairs takes 3.26 standard deviations; for half of one, 34 pairs.
    assert "vary by 1.0 points" in said
    assert "3 seeds find a real difference of 3.3 points" in said
    assert said.endswith("half a point asks for about 34 seeds.")
    assert not any("four times out of five" in line for line in caveats(compared("")))  # the same gain with every seed


def test_classes_that_are_not_there_have_no_difference() -> None:
    found = compared("")
    assert found.where == "val"
    assert found.per_class["deep-late"]["car"] == pytest.approx([0.04] * 3)
    assert all(value != value for value in found.per_class["deep-late"]["bus"])
    assert found.reference_iou == pytest.approx({"car": 0.6, "bus": 0.42})
    assert compare_evaluations({"none": {0: {"miou": None, "iou": {}}}}, "val") is None


def test_a_bar_in_a_name_does_not_end_a_markdown_cell() -> None:
    assert markdown_table(["a|b", "c"], [["d", "e|f|g"]]) == ["| a\\|b | c |", "|---|---|", "| d | e\\|f\\|g |"]


def test_a_long_title_is_cut_and_the_number_of_seeds_is_not() -> None:
    found = replace(compared("CamVid"), titles={"deep-late": "deep supervision of " + "very " * 9 + "late stages"})
    drawn = interval_figure(found)
    assert drawn is not None
    (label,) = [shape.text for shape in drawn.canvas._shapes if "(3)" in str(getattr(shape, "text", ""))]
    assert label.startswith("deep supervision of very")
    assert label.endswith("\u2026 (3)")


@pytest.mark.parametrize("swing", [(0.4, 0.0), (-0.4, 0.0), (-0.4, 0.4), (0.0, 0.0)])
def test_what_goes_on_beyond_the_axis_ends_in_an_arrow_on_its_side(swing: tuple[float, float]) -> None:
    found = compared("")
    per_class = {"deep-late": {f"class {n}": [0.01, -0.01] for n in range(60)} | {"rare": list(swing)}}
    drawn = class_figure(replace(found, per_class=per_class, reference_iou=dict.fromkeys(per_class["deep-late"], 0.5)))
    assert drawn is not None
    zero = next(shape.points[0][0] for shape in drawn.canvas._shapes if getattr(shape, "colour", "") == "faint")
    tips = [
        shape.points[1][0]
        for shape in drawn.canvas._shapes
        if len(getattr(shape, "points", ())) == 3 and shape.colour == "ink"
    ]
    assert [tip > zero for tip in tips] == [side > 0 for side in sorted(swing) if side]
