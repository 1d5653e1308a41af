"""Steps that decide whether what is there is what is asked for."""

from pathlib import Path

import numpy as np
import pytest

from hs3seg.analysis import SupervisionPlan, deep_supervision, save_confusions
from hs3seg.config import Config, load_config
from hs3seg.engine import Reporter, Runtime
from hs3seg.errors import NetworkError, PlanError
from hs3seg.files import read_json, write_json
from hs3seg.pipeline.run import check_plans
from hs3seg.pipeline.steps import Session, _way, is_evaluated, plan_step, write_profile
from hs3seg.taxonomy import Taxonomy

NAMES = tuple("abcdef")
TAXONOMY = Taxonomy.from_names(NAMES)


def config_of(folder: Path, *words: str) -> Config:
    (folder / "c.toml").write_text('name = "c"\n[data]\nkind = "digits"\n[augment]\ncrop = [32, 48]\n')
    return load_config(folder / "c.toml", list(words))


def confusions(pairs: list[tuple[int, int]], path: Path) -> None:
    """Each pair is confused half of the time, in a network that is otherwise right nine times out of ten."""
    matrix = np.full((6, 6), 20) + 900 * np.eye(6, dtype=np.int64)
    for a, b in pairs:
        matrix[[a, a, b, b], [a, b, a, b]] = 450
    save_confusions(path, {"early": matrix, "final": np.full((6, 6), 5) + 975 * np.eye(6, dtype=np.int64)})


@pytest.fixture
def runtime() -> Runtime:
    return Runtime("float32", "no")


class Said(Reporter):
    def __init__(self) -> None:
        super().__init__(enabled=False)
        self.lines: list[str] = []

    def say(self, text: str) -> None:
        self.lines.append(text)


def test_a_plan_follows_its_matrices_unless_somebody_has_edited_it(tmp_path: Path, runtime: Runtime) -> None:
    said = Said()
    session = Session(config_of(tmp_path), runtime, said)
    matrices, path = tmp_path / "analysis" / "confusion.npz", tmp_path / "plan.toml"
    matrices.parent.mkdir()

    def groups() -> set[tuple[int, ...]]:
        plan = plan_step(session, matrices, TAXONOMY, path)
        assert plan == SupervisionPlan.load(path)
        return {tuple(group) for group in plan.stages[0].grouping.groups if len(group) > 1}

    confusions([(0, 1), (2, 3)], matrices)
    first = groups()
    assert first & {(0, 1), (2, 3)}
    written = path.stat().st_mtime_ns
    confusions([(0, 1), (2, 3)], matrices)  # measured again, with the same result
    assert groups() == first
    assert path.stat().st_mtime_ns == written
    assert said.lines == []
    confusions([(0, 5), (1, 4)], matrices)
    assert groups() & {(0, 5), (1, 4)}
    assert "made of other matrices than are there now; it is made anew" in said.lines[0]
    path.write_text(path.read_text() + "# mine\n")
    confusions([(0, 1), (2, 3)], matrices)
    assert groups() & {(0, 5), (1, 4)}
    assert "edited since: it is kept; delete it" in said.lines[1]
    # Older versions did not tell what a plan was made of.
    facts = matrices.with_name("analysis.json")
    write_json(facts, {key: value for key, value in read_json(facts).items() if key not in ("made", "made_of")})
    groups()
    assert len(said.lines) == 2


def test_costs_of_earlier_arms_stay_where_network_and_size_are_the_same(tmp_path: Path) -> None:
    path = tmp_path / "profile.json"

    def profile(arm: str, size: int = 64) -> dict[str, object]:
        tables = {"training": {arm: {"gmacs": 1.0}}, "inference_of": {arm: {"gmacs": 1.0}}}
        return {"network": "x", "input_size": [size, size], **tables}

    write_profile(path, profile("none"))
    write_profile(path, profile("hs3"))
    assert list(read_json(path)["training"]) == list(read_json(path)["inference_of"]) == ["none", "hs3"]
    write_profile(path, profile("online", size=96))
    assert list(read_json(path)["training"]) == ["online"]


def test_an_evaluation_at_another_size_is_not_the_one_asked_for(tmp_path: Path) -> None:
    config = config_of(tmp_path)
    way = _way(config)
    assert way["protocol"]["flip"] is False
    write_json(tmp_path / "evaluation-val.json", {"miou": 0.5, **way})
    assert is_evaluated(config, tmp_path, "val")
    assert not is_evaluated(config_of(tmp_path, "--augment.resize", "32,64"), tmp_path, "val")
    assert not is_evaluated(config_of(tmp_path, "--evaluation.flip", "true"), tmp_path, "val")
    write_json(tmp_path / "evaluation-val.json", {"miou": 0.5, "protocol": way["protocol"]})  # of an older version
    assert is_evaluated(config, tmp_path, "val")


def test_a_plan_by_hand_is_put_on_the_network_before_anything_is_trained(tmp_path: Path) -> None:
    deep_supervision(NAMES, ["stage9"]).save(tmp_path / "nine.toml")
    deep_supervision(NAMES, ["layer1"]).save(tmp_path / "one.toml")
    for key in ("plan", "manual_plan"):
        config = config_of(tmp_path, f"--supervision.{key}", str(tmp_path / "nine.toml"))
        with pytest.raises(NetworkError, match="'stage9' is not in the net"):
            check_plans(config, TAXONOMY, ("stage2", "stage3"))
    words = ["--supervision.plan", str(tmp_path / "one.toml")]
    check_plans(config_of(tmp_path, *words), TAXONOMY, ("stage2", "stage3"))
    config = config_of(tmp_path, *words, "--arms", '["hs3", "kmeans"]')
    with pytest.raises(
        PlanError, match=r"stage 'layer1' is none of supervision.stages \(stage2, stage3\), .* 'kmeans'"
    ):
        check_plans(config, TAXONOMY, ("stage2", "stage3"))
