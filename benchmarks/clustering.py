"""All clusterings of a matrix, against scikit-learn once per number of groups; and the analysis of 1000 classes.

    .venv/bin/python -m benchmarks.clustering --out docs/benchmarks

One BLAS thread on both sides. A ratio is scikit-learn's time over ours: 10 = ten times as fast.
"""

import json
import sys
import time
import warnings
from argparse import SUPPRESS
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.cluster import SpectralClustering  # loads every BLAS, so that all of them can be limited
from threadpoolctl import threadpool_limits

from benchmarks.rows import Row, arguments, in_fresh_process, in_turn, peak_bytes, ratios, save_told
from hs3seg.analysis import adjusted_rand, analyze, class_affinity, spectral_groupings
from hs3seg.taxonomy import Grouping

GOAL, SECONDS_GOAL, GIBIBYTES_GOAL = 10.0, 60.0, 1.0


def confusion(classes: int, skill: float, seed: int) -> NDArray[np.int64]:
    """Pixel counts of classes in families of about six that are mistaken for each other, some frequent, some rare."""
    rng = np.random.default_rng([seed, classes])
    family = rng.permutation(classes) % max(2, classes // 6)
    share = rng.dirichlet(np.full(classes, 1.5)) + 1e-6
    wrong = (0.02 + (family[:, None] == family)) * rng.gamma(0.5, 1, (classes, classes))
    np.fill_diagonal(wrong, 0)
    right = np.clip(skill + 0.1 * rng.standard_normal(classes), 0.05, 0.95)
    rates = np.diag(right) + (1 - right)[:, None] * wrong / wrong.sum(1, keepdims=True)
    return np.asarray(rng.poisson(share[:, None] * rates * 1e8), np.int64)


def scikit_learn(affinity: NDArray[np.float64], sizes: range) -> dict[int, Grouping]:
    """One clustering per size, each with an eigendecomposition of its own."""
    found = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for size in sizes:
            model = SpectralClustering(size, affinity="precomputed", assign_labels="cluster_qr", random_state=0)
            found[size] = Grouping.from_labels(model.fit_predict(affinity))
    return found


def agreement(one: dict[int, Grouping], other: dict[int, Grouping]) -> dict[str, Any]:
    """Over the sizes: how many partitions are the same, and the adjusted Rand index of those that are not."""
    alike = {size: adjusted_rand(one[size], other[size]) for size in other if size in one}
    unlike = {str(size): round(value, 4) for size, value in alike.items() if value < 1 - 1e-12}
    return {
        "sizes": len(other),
        "same_partitions": len(alike) - len(unlike),
        "lowest_adjusted_rand": min(alike.values()),
        "mean_adjusted_rand": float(np.mean(list(alike.values()))),
        "unlike": unlike,
    }


def speed_row(classes: int, repeats: int) -> Row:
    """scikit-learn's seconds over ours."""
    affinity = class_affinity(confusion(classes, 0.6, 0))
    sizes = range(2, classes)
    with threadpool_limits(1):
        equal = agreement(spectral_groupings(affinity), scikit_learn(affinity, sizes))
        sides = {"ours": lambda: spectral_groupings(affinity), "sklearn": lambda: scikit_learn(affinity, sizes)}
        seconds = in_turn(sides, repeats, warm_up=0)
    told = {side: [round(value, 4) for value in values] for side, values in seconds.items()}
    name = f"all clusterings k = 2..K-1, K = {classes}: speed"
    against = 'scikit-learn SpectralClustering(assign_labels="cluster_qr") once per k'
    speed = ratios(seconds["sklearn"], seconds["ours"])
    return Row(name, against, speed, GOAL, "higher", details={"seconds": told, **equal})


def probe(classes: int) -> dict[str, float]:
    """Seconds of the analysis of one stage, and the most memory of the whole process."""
    matrices = {"stage": confusion(classes, 0.6, 0), "final": confusion(classes, 0.75, 1)}
    began = time.perf_counter()
    study = analyze(matrices)
    seconds = time.perf_counter() - began
    return {"seconds": seconds, "bytes": peak_bytes(), "groups": study.plan.stages[0].grouping.num_groups}


def large_rows(classes: int, repeats: int) -> list[Row]:
    """The analysis of one stage of many classes, in fresh processes."""
    command = [sys.executable, "-m", "benchmarks.clustering", "--probe", str(classes)]
    found = [in_fresh_process(command) for _ in range(repeats)]
    details = {"groups": [one["groups"] for one in found]}
    name = f"analysis of one stage, K = {classes}"
    seconds = tuple(one["seconds"] for one in found)
    memory = tuple(one["bytes"] / 2**30 for one in found)
    return [
        Row(f"{name}: time", "-", seconds, SECONDS_GOAL, unit="s", details=details),
        Row(f"{name}: peak memory of the process", "-", memory, GIBIBYTES_GOAL, unit="GiB", details=details),
    ]


def rows(*, quick: bool = False, repeats: int = 9) -> Iterator[Row]:
    """All rows, one after another."""
    yield speed_row(20 if quick else 150, 2 if quick else repeats)
    yield from large_rows(60 if quick else 1000, 1 if quick else 2)


def main() -> None:
    """Measures and adds the rows to results.json."""
    parser = arguments(__doc__)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--probe", type=int, help=SUPPRESS)
    options = parser.parse_args()
    if options.probe:
        print(json.dumps(probe(options.probe)))
        return
    save_told(options, "clustering", rows(quick=options.quick, repeats=options.repeats))


if __name__ == "__main__":
    main()
