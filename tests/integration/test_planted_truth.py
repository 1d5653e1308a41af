"""Groups that are known beforehand are found again: in fabricated confusions, and (slow) in a trained network's."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from hs3seg.analysis import adjusted_rand, analyze, class_affinity, cluster_classes, deep_supervision, load_confusions
from hs3seg.config import load_config
from hs3seg.data.planted import planted_grouping, planted_taxonomy
from hs3seg.pipeline import analyze_step, open_session, train_step
from hs3seg.taxonomy import Grouping

PIXELS = 100_000
NAMES = planted_taxonomy().names
CONFIG = Path(__file__).parents[2] / "configs" / "planted.toml"


def block_confusion(truth: Grouping, inside: float, outside: float, seed: int) -> NDArray[np.int64]:
    """Counts (K, K) of a stage that confuses the classes of a group and, by a share of `outside`, any others.

    Args:
        truth: The groups.
        inside: How far the classes of a group are mixed: 0 = told apart, 1 = not at all.
        outside: Share of a class's pixels that is spread over all classes in random parts.
        seed: Of the parts, and of how often each class occurs.
    """
    random = np.random.default_rng(seed)
    same = np.equal.outer(truth.assignment, truth.assignment)
    shares = inside * same / same.sum(1, keepdims=True) + (1 - inside) * np.eye(truth.num_classes)
    noise = random.dirichlet(np.ones(truth.num_classes), truth.num_classes)
    frequency = random.uniform(0.2, 5, (truth.num_classes, 1))
    counts: NDArray[np.int64] = (PIXELS * frequency * ((1 - outside) * shares + outside * noise)).round().astype(int)
    return counts


@pytest.mark.parametrize("num_shapes", [2, 3])
@pytest.mark.parametrize(
    ("inside", "outside"), [(0.9, 0.0), (0.9, 0.05), (1.0, 0.0), (1.0, 0.02), (1.0, 0.05), (1.0, 0.1)]
)
def test_the_analysis_finds_the_planted_groups_and_their_number(inside: float, outside: float, num_shapes: int) -> None:
    truth, names = planted_grouping("local", num_shapes), planted_taxonomy(num_shapes).names
    for seed in range(5):
        early = block_confusion(truth, inside, outside, seed)
        final = block_confusion(planted_grouping("global", num_shapes), 0, outside, seed + 50)
        study = analyze({"early": early, "late": final, "final": final}, names, theta_degrees=85)
        assert study.plan.stage("early").grouping == truth
        assert adjusted_rand(study.curves[0].groupings[truth.num_groups], truth) == 1
        assert study.plan.stage("late").grouping.is_identity


# Groups of one class are left out: the Laplacian drops a class's affinity to itself, so that cutting off a class which
# is told apart from all others costs as much as cutting a block.
@given(
    sizes=st.lists(st.integers(2, 5), min_size=2, max_size=7),
    outside=st.floats(0, 0.1),
    seed=st.integers(0, 2**31),
)
@settings(max_examples=150, deadline=None)
def test_random_blocks_are_found_at_their_number(sizes: list[int], outside: float, seed: int) -> None:
    members = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(sizes)), sizes))
    truth = Grouping.from_labels(members)
    confusion = block_confusion(truth, 1, outside, seed)
    assert adjusted_rand(cluster_classes(class_affinity(confusion), truth.num_groups), truth) == 1


@pytest.mark.slow
def test_a_trained_network_finds_the_planted_groups(tmp_path: Path) -> None:
    config = load_config(CONFIG).model_copy(update={"run_dir": str(tmp_path)})
    session = open_session(config, quiet=True)
    stages = config.supervision.stages
    assert isinstance(stages, tuple)
    plan = deep_supervision(NAMES, stages, config.supervision.gamma)
    train_step(session, plan, tmp_path / "phase_one", arm="phase_one", split="reduced")
    found = load_confusions(analyze_step(session, tmp_path / "phase_one", tmp_path / "analysis"))
    study = analyze(found, NAMES, theta_degrees=config.supervision.theta_degrees)
    truth = planted_grouping("local")
    assert adjusted_rand(study.curves[0].groupings[truth.num_groups], truth) >= 0.8
    assert adjusted_rand(study.plan.stages[0].grouping, truth) >= 0.8
