from pathlib import Path

import numpy as np
import pytest
from fabricated_run import STAGES, fabricate, many_classes
from parsed_page import check_page

from hs3seg.analysis import SupervisionPlan, analyze, load_confusions, save_confusions
from hs3seg.analysis.per_image import PerImage, PerImageCounter, load_per_image, save_per_image
from hs3seg.errors import PlanError, RunFolderError
from hs3seg.report.explain import build_explanation
from hs3seg.taxonomy import Grouping, Taxonomy


def drawn(run: Path, count: int = 12, seed: int = 0) -> PerImage:
    """Images that a network with the run's confusions could have left."""
    rng = np.random.default_rng(seed)
    confusions = load_confusions(run / "analysis" / "confusion.npz")
    final = confusions["final"]
    size = len(final)
    counter = PerImageCounter({output: Grouping.identity(size) for output in confusions})
    for index in range(count):
        classes = rng.choice(size, 5, replace=False)
        truth = rng.choice(classes, (20, 30))
        lucky = rng.random(truth.shape)
        said = {}
        for output, matrix in confusions.items():
            steps = (matrix / matrix.sum(1, keepdims=True)).cumsum(1)
            said[output] = np.minimum((lucky[..., None] > steps[truth]).sum(-1), size - 1)
        counter.add(index, f"frame {index} <b>.png", truth, said)
    return counter.result()


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run folder with counts per image, from which all else was made."""
    folder = fabricate(tmp_path / "street <i>", num_samples=1, size=(20, 30))
    counts = drawn(folder)
    save_per_image(folder / "analysis" / "per_image.npz", counts)
    save_confusions(folder / "analysis" / "confusion.npz", counts.total())
    analyze(counts.total(), Taxonomy.load(folder / "taxonomy.toml").names).plan.save(folder / "plan.toml")
    return folder


def test_the_page_shows_pairs_groups_and_labels(run: Path) -> None:
    found = build_explanation(run, bootstraps=20)
    page = check_page(Path(found["page"]))
    assert [a["id"] for tag, a in page.elements if tag == "section"] == ["pairs", "stability", "labels"]
    for line in found["summary"]:
        assert line in page.text
    for stage in STAGES:
        mean = found["stability"][stage]["adjusted_rand"]["mean"]
        rows = [row for row in page.rows if row and row[0][0] == stage and row[2][1] == [(mean, f"{mean:.2f}")]]
        assert [row[1][0] for row in rows] == [str(found["stability"][stage]["num_groups"])]
    hint = found["labels"]["hints"][0]
    assert page.table_row(hint["image"])[3][1] == [(hint["pairs"][0]["pixels"], f"{hint['pairs'][0]['pixels']:,}")]
    hardest = found["separability"]["hardest"][0]
    row = page.table_row(hardest["classes"][0])
    assert row[1][0] == hardest["classes"][1]
    assert [value for cell in row[2:6] for value, _ in cell[1]] == [
        hardest["confused"],
        *hardest["accuracy"].values(),
    ]


def test_an_older_run_says_what_to_do_and_shows_the_pairs(run: Path) -> None:
    (run / "analysis" / "per_image.npz").unlink()
    found = build_explanation(run)
    page = check_page(Path(found["page"]))
    assert [a["id"] for tag, a in page.elements if tag == "section"] == ["pairs"]
    assert "hs3 analyze" in found["missing"][0]
    assert found["missing"][0] in page.text
    assert found["stability"] == {}
    assert found["labels"] == {"from": None, "images": 0, "hints": []}


def test_only_the_stages_that_were_asked_for(run: Path) -> None:
    found = build_explanation(run, stages=["stage3"], bootstraps=3)
    assert found["separability"]["outputs"] == ["stage3", "final"]
    assert list(found["stability"]) == ["stage3"]
    check_page(Path(found["page"]))


def test_a_plan_that_was_edited_is_pointed_out(run: Path) -> None:
    plan = SupervisionPlan.load(run / "plan.toml")
    stage = plan.stages[0]
    sizes = [len(group) for group in stage.grouping.groups]
    other = Grouping.from_labels(np.repeat(np.arange(len(sizes)), sizes)[::-1])
    assert other != stage.grouping
    text = SupervisionPlan(plan.taxonomy_names, (type(stage)(stage.stage, other), *plan.stages[1:]), plan.name)
    text.save(run / "plan.toml")
    found = build_explanation(run, bootstraps=2)
    assert any("stage2" in line and "edited by hand" in line for line in found["missing"])


def test_a_plan_made_with_the_diagonal_is_made_again_with_it(run: Path) -> None:
    counts = load_per_image(run / "analysis" / "per_image.npz")
    names = Taxonomy.load(run / "taxonomy.toml").names
    kept = analyze(counts.total(), names, diagonal="keep").plan
    assert kept.stages != SupervisionPlan.load(run / "plan.toml").stages
    kept.save(run / "plan.toml")
    found = build_explanation(run, bootstraps=2)
    assert found["missing"] == []
    for stage in kept.stages:
        assert found["stability"][stage.stage]["groups"] == [list(group) for group in stage.grouping.groups]


def test_one_image_leaves_stability_out_and_shows_the_rest(run: Path) -> None:
    counts = drawn(run, count=1)
    save_per_image(run / "analysis" / "per_image.npz", counts)
    found = build_explanation(run)
    assert "Fewer than two labelled images" in found["missing"][0]
    page = check_page(Path(found["page"]))
    assert [a["id"] for tag, a in page.elements if tag == "section"] == ["pairs", "labels"]


def test_a_plan_that_is_not_spectral_or_missing_leaves_stability_out(run: Path) -> None:
    plan = SupervisionPlan.load(run / "plan.toml")
    SupervisionPlan(plan.taxonomy_names, plan.stages, "manual").save(run / "plan.toml")
    assert "The plan is 'manual'" in build_explanation(run)["missing"][0]
    (run / "plan.toml").unlink()
    found = build_explanation(run)
    assert "plan.toml is not there" in found["missing"][0]
    check_page(Path(found["page"]))


def test_another_networks_hints_may_have_groups(run: Path) -> None:
    plan = SupervisionPlan.load(run / "plan.toml")
    groupings = {s.stage: s.grouping for s in plan.stages} | {"final": Grouping.identity(plan.num_classes)}
    counter = PerImageCounter(groupings)
    truth = np.zeros((4, 4), np.int64)
    counter.add(0, "good", truth, dict.fromkeys(groupings, truth))
    far = next(
        c for c in range(plan.num_classes) if all(g.assignment[c] != g.assignment[0] for g in groupings.values())
    )
    counter.add(1, "bad", truth, {o: np.full((4, 4), g.assignment[far]) for o, g in groupings.items()})
    save_per_image(run / "arms" / "hs3" / "confusion-per-image-val.npz", counter.result())
    found = build_explanation(run, bootstraps=2, arm="hs3", split="val")
    assert found["labels"]["from"] == "hs3 on val"
    assert [(h["image"], h["pairs"][0]["said"]) for h in found["labels"]["hints"]] == [
        ("bad", plan.taxonomy_names[far])
    ]


def test_files_of_other_classes_are_refused(run: Path) -> None:
    counts = load_per_image(run / "analysis" / "per_image.npz")
    many_classes(7).save(run / "taxonomy.toml")
    with pytest.raises(PlanError, match="counts 11 classes"):
        build_explanation(run)
    save_confusions(run / "analysis" / "confusion.npz", {"final": np.eye(7, dtype=int)})
    (run / "plan.toml").unlink()
    assert counts.outputs["final"].size == 11
    with pytest.raises(PlanError, match="are of other classes"):
        build_explanation(run)


def test_a_folder_without_an_analysis_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunFolderError, match=r"has no analysis/confusion.npz"):
        build_explanation(tmp_path)
