import json
from pathlib import Path

import numpy as np
import pytest

from hs3seg.analysis import load_confusions
from hs3seg.analysis.confusion import load_embeddings
from hs3seg.files import write_json
from hs3seg.pipeline.kept import PHASE_ONE, add_facts, commits_of, commits_under, is_complete, is_kept, restore, store


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run folder with an arm that is evaluated, one that is only trained, and phase one."""
    path = tmp_path / "run"
    rng = np.random.default_rng(0)
    for name in ("arms/hs3", "arms/none", PHASE_ONE):
        write_json(path / name / "train.json", {"identity": {"arm": name}, "commits": ["f00d", "beef"]})
        (path / name / "plan.toml").write_text("name = 'x'\n")
    write_json(path / "arms/hs3/evaluation-val.json", {"miou": 0.5})
    write_json(path / "arms/hs3/multi-scale/evaluation-val.json", {"miou": 0.6, "protocol": {"flip": True}})
    np.savez(path / "arms/hs3/confusion-val.npz", final=rng.integers(0, 2**40, (3, 3)), stage=np.eye(2, dtype=np.int64))
    (path / "arms/hs3/log.jsonl").write_text('{"event": "step"}\n{"event": "groups", "epoch": 2}\n')
    (path / "analysis").mkdir()
    np.savez(path / "analysis/confusion.npz", final=rng.integers(0, 9, (3, 3)))
    embeddings = rng.standard_normal((3, 2)).astype(np.float32)
    embeddings[1] = np.nan  # a class that never occurs
    np.savez(path / "analysis/embeddings.npz", final=embeddings)
    return path


def test_numbers_come_back_as_they_were(run: Path, tmp_path: Path) -> None:
    kept, other = tmp_path / "kept", tmp_path / "other"
    assert store(run, "hs3", kept / "hs3.json", "abc")
    assert store(run, PHASE_ONE, kept / "phase_one.json", "abc")
    assert not store(run, "none", kept / "none.json", "abc")  # not evaluated yet
    assert not store(run, "hs3", kept / "hs3.json", "abc")  # kept already
    assert restore(other, kept, "abc", ["val"], print) == ["hs3", PHASE_ONE]
    folder = other / "arms/hs3"
    assert is_complete(folder, ["val"])
    assert is_kept(folder)
    assert not is_kept(run / "arms/hs3")
    assert commits_of(folder, other) == ["f00d", "beef"]
    again = json.loads((folder / "multi-scale" / "evaluation-val.json").read_text())
    assert again == {"miou": 0.6, "protocol": {"flip": True}}
    for file in ("arms/hs3/confusion-val.npz", "analysis/confusion.npz"):
        with np.load(run / file) as one, np.load(other / file) as two:
            assert all(np.array_equal(one[key], two[key]) for key in one.files)
            assert {two[key].dtype for key in two.files} == {np.dtype(np.int64)}
    assert load_confusions(other / "analysis/confusion.npz")["final"].shape == (3, 3)
    one, two = (load_embeddings(path / "analysis/embeddings.npz")["final"] for path in (run, other))
    np.testing.assert_allclose(two, one, atol=1e-6)  # and nan where there was none
    assert (folder / "log.jsonl").read_text() == '{"event": "groups", "epoch": 2}\n'
    assert (folder / "plan.toml").read_text() == (run / "arms/hs3/plan.toml").read_text()


def test_numbers_that_do_not_fit_stay_where_they_are(run: Path, tmp_path: Path) -> None:
    kept, other, said = tmp_path / "kept", tmp_path / "other", list[str]()
    store(run, "hs3", kept / "hs3.json", "abc")
    assert restore(other, kept, "another", ["val"], said.append) == []
    assert "hs3.json: of other config values" in said[0]
    assert restore(other, kept, "abc", ["val", "test"], said.append) == []  # never seen on test
    (other / "arms/hs3").mkdir(parents=True)
    (other / "arms/hs3/state.pt").touch()
    assert restore(other, kept, "abc", ["val"], said.append) == []  # a training under way is not given up
    assert restore(other, tmp_path / "nowhere", "abc", ["val"], said.append) == []


def test_kept_numbers_are_completed_and_never_lessened(run: Path, tmp_path: Path) -> None:
    kept, other, said = tmp_path / "kept", tmp_path / "other", list[str]()
    assert store(run, "hs3", kept / "hs3.json", "abc")
    assert restore(other, kept, "abc", ["val", "test"], said.append) == []
    assert "hs3.json: has no numbers of test; it is trained anew, and completed then" in said[0]
    write_json(run / "arms/hs3/evaluation-test.json", {"miou": 0.4})
    np.savez(run / "arms/hs3/confusion-test.npz", final=np.eye(3, dtype=np.int64))
    assert not store(run, "hs3", kept / "hs3.json", "of another recipe")
    assert store(run, "hs3", kept / "hs3.json", "abc")
    assert set(json.loads((kept / "hs3.json").read_text())["evaluations"]) == {"val", "test"}
    (run / "arms/hs3/evaluation-test.json").unlink()
    write_json(run / "arms/hs3/more/evaluation-val.json", {"miou": 0.7})
    assert not store(run, "hs3", kept / "hs3.json", "abc")  # test would be lost
    assert restore(other, kept, "abc", ["val", "test"], said.append) == ["hs3"]
    # A training anew, in the place of restored numbers, has weights.
    (other / "arms/hs3/weights.safetensors").touch()
    assert not is_kept(other / "arms/hs3")


def test_early_trainings_name_the_commit_that_they_were_kept_with_or_that_the_run_began_with(
    run: Path, tmp_path: Path
) -> None:
    kept, other = tmp_path / "kept", tmp_path / "other"
    write_json(run / "arms/hs3/train.json", {"identity": {}})
    write_json(run / "run.json", {"commit": "5eed"})
    assert commits_of(run / "arms/hs3", run) == ["5eed"]
    store(run, "hs3", kept / "hs3.json", "abc")
    write_json(run / "run.json", {"commit": "1a7e"})
    restore(other, kept, "abc", ["val"], print)
    write_json(other / "run.json", {"commit": "1a7e"})
    assert commits_of(other / "arms/hs3", other) == ["5eed"]
    assert commits_under([other]) == "5eed"
    assert commits_under([run]) == "1a7e, beef, f00d"
    assert commits_under(iter([run]), {"hs3"}) == "1a7e, beef, f00d"  # phase one is a part of every study
    write_json(run / PHASE_ONE / "train.json", {"identity": {}, "commits": ["0ne"]})
    assert commits_under([run], {"hs3"}) == "0ne, 1a7e"
    assert commits_under([run], {"none"}) == "0ne, beef, f00d"


def test_facts_are_added_to(tmp_path: Path) -> None:
    path = tmp_path / "study.json"
    add_facts(path, {"trained_as": {"a": "b"}})
    add_facts(path, {"trained_as": {"c": "c"}, "gmacs": {"b": 1.5}})
    assert json.loads(path.read_text()) == {"trained_as": {"a": "b", "c": "c"}, "gmacs": {"b": 1.5}}
