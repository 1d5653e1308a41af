import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from hs3seg.analysis import (
    METHODS,
    SupervisionPlan,
    analyze,
    load_confusions,
    load_embeddings,
    mean_iou,
    save_confusions,
)
from hs3seg.errors import PlanError


def noisy(seed: int, accuracy: float, count: int = 6) -> np.ndarray:
    rng = np.random.default_rng(seed)
    rates = rng.dirichlet(np.ones(count), count) * (1 - accuracy) + np.eye(count) * accuracy
    return np.round(rates * 10000).astype(np.int64)


CONFUSIONS = {"early": noisy(0, 0.3), "late": noisy(1, 0.6), "final": noisy(2, 0.8)}


def test_result_is_the_documented_json() -> None:
    values = analyze(CONFUSIONS).to_dict()
    assert json.loads(json.dumps(values, allow_nan=False)) == values
    reference = values["reference"]
    assert reference["num_classes"] == 6
    assert reference["miou"] == mean_iou(CONFUSIONS["final"])
    assert reference["ratio"] == reference["miou"] / 6
    assert list(values["stages"]) == ["early", "late"]
    for stage in values["stages"].values():
        assert sorted(c for group in stage["groups"] for c in group) == list(range(6))
        assert stage["num_groups"] == len(stage["groups"])
        assert dict(map(tuple, stage["curve"]))[stage["num_groups"]] == stage["miou"]
        assert [k for k, _ in stage["curve"]] == [2, 3, 4, 5, 6]


def test_the_chosen_point_is_the_last_on_or_above_the_line() -> None:
    values = analyze(CONFUSIONS).to_dict()
    ratio = values["reference"]["ratio"]
    for stage in values["stages"].values():
        above = [k for k, miou in stage["curve"] if miou >= ratio * k]
        assert stage["num_groups"] == max(above)
    assert values["stages"]["early"]["num_groups"] < values["stages"]["late"]["num_groups"]


def blocks(sizes: Sequence[int], within: float) -> np.ndarray:
    """Counts of classes that are confused with those of their own block only; `within` is the share that is right."""
    owner = np.repeat(np.arange(len(sizes)), sizes)
    same = owner[:, None] == owner
    rates = np.where(same, (1 - within) / np.maximum(same.sum(1, keepdims=True) - 1, 1), 0.0)
    np.fill_diagonal(rates, np.where(same.sum(1) > 1, within, 1.0))
    return np.round(rates * 10000).astype(np.int64)


def test_the_knee_finds_planted_blocks_where_the_line_asks_for_more() -> None:
    planted = [2, 2, 2, 2, 2, 2]
    confusions = {"early": blocks(planted, 0.55), "late": np.diag([10000] * 12), "final": noisy(2, 0.7, 12)}
    study = analyze(confusions, rule="knee")
    assert study.plan.num_groups == {"early": 6, "late": 12}
    assert study.plan.stage("early").grouping.groups == tuple((2 * i, 2 * i + 1) for i in range(6))
    assert study.plan.notes["rule"] == "knee"
    assert study.to_dict()["stages"]["early"]["knee"]["num_groups"] == 6
    assert study.to_dict()["stages"]["late"]["knee"]["height"] == 0
    assert analyze(confusions).plan.num_groups["early"] > 6
    assert analyze(confusions, rule="knee", method="deep_supervision").plan.num_groups["early"] == 12


def test_methods() -> None:
    embeddings = {stage: np.random.default_rng(1).normal(size=(6, 4)) for stage in ("early", "late")}
    sizes = {m: analyze(CONFUSIONS, method=m, embeddings=embeddings).plan.num_groups for m in METHODS}
    assert sizes["deep_supervision"] == {"early": 6, "late": 6}
    assert sizes["none"] == {}
    assert sizes["constant_ratio"] == {"early": 2, "late": 3}
    assert analyze(CONFUSIONS, theta_degrees=0.0).plan.num_groups == {"early": 6, "late": 6}


def test_absent_classes_are_said_in_the_plan() -> None:
    confusions = {name: matrix.copy() for name, matrix in CONFUSIONS.items()}
    for matrix in confusions.values():
        matrix[3] = 0
    study = analyze(confusions, ["a", "b", "c", "d", "e", "f"])
    assert study.plan.notes["absent_classes"] == ["d"]
    assert study.to_dict()["absent_classes"] == [3]


def test_notes_say_how_the_plan_came_about_and_survive_the_file(tmp_path: Path) -> None:
    study = analyze(CONFUSIONS, theta_degrees=60.0)
    study.plan.save(tmp_path / "plan.toml")
    notes = SupervisionPlan.load(tmp_path / "plan.toml").notes
    assert notes == study.plan.notes
    values = study.to_dict()
    assert notes["theta_degrees"] == 60.0
    assert (notes["aspect"], notes["ratio"]) == (1.652, values["reference"]["ratio"])
    assert notes["num_groups"] == study.plan.num_groups
    assert notes["miou"] == {stage: found["miou"] for stage, found in values["stages"].items()}


def test_a_stage_that_no_number_of_groups_lifts_to_the_line_is_named() -> None:
    hopeless = np.full((6, 6), 100)
    study = analyze({"hopeless": hopeless, **CONFUSIONS}, theta_degrees=90.0)
    assert study.plan.num_groups["hopeless"] == 2
    assert study.to_dict()["stages"]["hopeless"]["reaches_line"] is False
    assert "hopeless" in study.plan.notes["stages_below_line"]
    assert analyze(CONFUSIONS).plan.notes["stages_below_line"] == []


def test_two_classes_are_enough() -> None:
    study = analyze({"s": np.array([[9, 1], [2, 8]]), "final": np.array([[9, 1], [1, 9]])})
    assert study.plan.num_groups == {"s": 2}


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        ({"early": None, "late": None}, {}, "no matrix besides 'final'"),
        ({"late": np.zeros((6, 6))}, {}, "'late' holds no labelled pixel"),
        ({"late": np.full((6, 6), 0.5)}, {}, "'late' holds fractions"),
        ({"late": np.full((6, 6), np.nan)}, {}, "'late' holds negative, infinite or nan"),
        ({}, {"names": ["a", "a", "b", "c", "d", "e"]}, "'a' stands twice"),
        ({}, {"aspect": -1.0}, "aspect = -1"),
        ({}, {"aspect": 0.0, "method": "constant_ratio"}, "aspect = 0"),
        ({}, {"theta_degrees": float("nan")}, "theta = nan"),
        ({}, {"epsilon": -1.0}, "epsilon = -1"),
        ({}, {"gamma": -1.0}, "gamma -1"),
        ({"final": None}, {}, "no matrix named 'final'"),
        ({"late": np.ones((5, 5))}, {}, r"'late' has shape \(5, 5\)"),
        ({"final": np.zeros((6, 6))}, {}, "no labelled pixel"),
        ({}, {"names": ["a"]}, "1 class names"),
        ({}, {"method": "spectrl"}, "nearest: 'spectral'"),
        ({}, {"theta_degrees": 91}, "theta = 91"),
        ({}, {"method": "kmeans"}, "embeddings of stage 'early'"),
        ({}, {"rule": "kne"}, "nearest: 'knee'"),
        ({}, {"normalize": "rows"}, "allowed: 'true'"),
    ],
)
def test_wrong_input(change: dict, options: dict, message: str) -> None:
    confusions = {k: v for k, v in (CONFUSIONS | change).items() if v is not None}
    with pytest.raises(PlanError, match=message):
        analyze(confusions, **options)


def test_matrices_round_trip_with_final_last(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "confusion.npz"
    save_confusions(path, {"final": CONFUSIONS["final"], "encoder.layer2": CONFUSIONS["early"]})
    found = load_confusions(path)
    assert list(found) == ["encoder.layer2", "final"]
    assert (found["final"] == CONFUSIONS["final"]).all()


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"early": CONFUSIONS["early"]}, "no array named 'final'"),
        ({"final": np.ones((3, 4))}, "square"),
        ({"final": np.eye(3), "early": np.eye(4)}, "'early' has 4 classes, 'final' has 3"),
        ({"final": -np.eye(3)}, "negative"),
        ({"final": np.eye(3) / 2}, "fractions"),
        ({"final": np.array([["a", "b"], ["c", "d"]])}, "type"),
    ],
)
def test_wrong_matrix_files(tmp_path: Path, arrays: dict, message: str) -> None:
    path = tmp_path / "m.npz"
    np.savez(path, **arrays)
    with pytest.raises(PlanError, match=message) as error:
        load_confusions(path)
    assert str(path) in str(error.value)


def test_files_that_are_no_archives(tmp_path: Path) -> None:
    with pytest.raises(PlanError, match="does not exist"):
        load_confusions(tmp_path / "no.npz")
    (tmp_path / "text.npz").write_text("hello")
    with pytest.raises(PlanError, match="not a readable"):
        load_confusions(tmp_path / "text.npz")
    np.save(tmp_path / "one.npy", np.eye(3))
    with pytest.raises(PlanError, match="single array"):
        load_confusions(tmp_path / "one.npy")
    np.savez(tmp_path / "pickle.npz", final=np.array([{"a": 1}], dtype=object))
    with pytest.raises(PlanError, match="not a readable"):
        load_confusions(tmp_path / "pickle.npz")


def test_embeddings_must_be_matrices(tmp_path: Path) -> None:
    np.savez(tmp_path / "e.npz", early=np.ones(3))
    with pytest.raises(PlanError, match="'early' has shape"):
        load_embeddings(tmp_path / "e.npz")


def test_many_classes_are_tried_on_a_grid_that_is_refined_where_it_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    from hs3seg.analysis import study as module

    rng = np.random.default_rng(0)
    count = 90
    blocks = np.repeat(np.arange(30), 3)
    counts = {}
    for stage, leak in (("early", 0.6), ("final", 0.2)):
        matrix = np.where(
            blocks[:, None] == blocks, 400 * leak * rng.random((count, count)), rng.random((count, count))
        )
        np.fill_diagonal(matrix, 1000 * (1 - leak))
        counts[stage] = matrix.astype(np.int64)
    whole = analyze(counts)
    monkeypatch.setattr(module, "ALL_SIZES", 50)
    monkeypatch.setattr(module, "_GRID", 12)
    grid = analyze(counts)
    assert grid.plan.num_groups == whole.plan.num_groups
    assert grid.plan.stages[0].grouping == whole.plan.stages[0].grouping
    assert len(grid.curves[0].sizes) < len(whole.curves[0].sizes) / 2
    chosen = grid.plan.stages[0].grouping.num_groups
    assert chosen + 1 in grid.curves[0].sizes  # nothing is left untried next to it
    knee = analyze(counts, rule="knee")
    monkeypatch.undo()
    assert knee.plan.stages == analyze(counts, rule="knee").plan.stages
    assert analyze(counts, method="constant_ratio").plan.num_groups["early"] == 45
