"""Which stage can tell which pair of classes apart, from the matrices of a network whose stages have all classes."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hs3seg.analysis.affinity import class_affinity
from hs3seg.analysis.confusion import checked_counts
from hs3seg.errors import PlanError

DEFAULT_THRESHOLD = 0.95
"""Pairwise accuracy from which a pair counts as told apart; 0.5 is guessing."""


def pairwise_accuracy(confusion: ArrayLike) -> NDArray[np.float64]:
    """How well each pair of classes is told apart, whatever else they are taken for.

    Of the pixels of a that are called a or b, the share that is called a; the same for b; and the mean of the two, so
    that a rare class counts as much as a frequent one.

    Args:
        confusion: (K, K) pixel counts, rows truth.

    Returns:
        (K, K) symmetric fractions; nan on the diagonal, and where no pixel of one of the two is called either.
    """
    counts = np.asarray(confusion, dtype=np.float64)
    hits = np.diagonal(counts)[:, None]
    either = hits + counts
    share = np.divide(hits, either, out=np.full(counts.shape, np.nan), where=either > 0)
    np.fill_diagonal(share, np.nan)
    return np.asarray((share + share.T) / 2)


@dataclass(frozen=True)
class HardPair:
    """Two classes and how well each output tells them apart.

    Args:
        first: Class id, the smaller one.
        second: Class id.
        confused: Of the final output: mean of the share of either class's pixels that is called the other.
        accuracies: Output -> pairwise accuracy, a fraction; nan where it cannot be said.
        first_stage: The earliest output that reaches the threshold; None = none does.
    """

    first: int
    second: int
    confused: float
    accuracies: Mapping[str, float]
    first_stage: str | None


@dataclass(frozen=True)
class Separability:
    """Pairwise accuracies of all outputs.

    Args:
        accuracies: Output -> (K, K), see `pairwise_accuracy`; stages shallow to deep, then `final`.
        confused: (K, K) of the final output: mean of the share of either class's pixels that is called the other.
        threshold: From which a pair counts as told apart.
    """

    accuracies: Mapping[str, NDArray[np.float64]]
    confused: NDArray[np.float64]
    threshold: float = DEFAULT_THRESHOLD

    @property
    def outputs(self) -> tuple[str, ...]:
        """Stages, shallow to deep, and `final`."""
        return tuple(self.accuracies)

    def first_stage(self, first: int, second: int, threshold: float | None = None) -> str | None:
        """The earliest output that tells two classes apart; None = none does."""
        wanted = self.threshold if threshold is None else threshold
        return next((name for name, values in self.accuracies.items() if values[first, second] >= wanted), None)

    def numbers(self) -> NDArray[np.int64]:
        """(K, K) positions in `outputs` of the earliest that tells a pair apart.

        The number of outputs stands for none of them; -1 for a pair of which nothing is known in any, and for the
        diagonal.
        """
        values = np.stack(list(self.accuracies.values()))  # (outputs, K, K)
        reached = values >= self.threshold
        numbers = np.where(reached.any(0), reached.argmax(0), len(values))
        numbers[np.isnan(values).all(0)] = -1
        return np.asarray(numbers, np.int64)

    def hardest(self, limit: int = 20) -> tuple[HardPair, ...]:
        """Pairs that the final output confuses most, hardest first; those that it never confuses are left out.

        Not by accuracy: a class that is hardly ever named is told apart from none, and would fill the list.
        """
        pairs = [(int(a), int(b)) for a, b in zip(*np.nonzero(np.triu(self.confused, 1)), strict=True)]
        pairs.sort(key=lambda pair: -self.confused[pair])
        return tuple(
            HardPair(
                a,
                b,
                float(self.confused[a, b]),
                {name: float(values[a, b]) for name, values in self.accuracies.items()},
                self.first_stage(a, b),
            )
            for a, b in pairs[:limit]
        )

    def counts(self) -> dict[str | None, int]:
        """Pairs by the earliest output that tells them apart; None = those that none does."""
        numbers = self.numbers()[np.triu_indices(len(self.accuracies["final"]), 1)]
        keys = [*self.outputs, None]
        return {key: int((numbers == number).sum()) for number, key in enumerate(keys)}


def separability(confusions: Mapping[str, NDArray[Any]], threshold: float = DEFAULT_THRESHOLD) -> Separability:
    """Measures on every output which pairs of classes it tells apart.

    Args:
        confusions: Stage -> (K, K) pixel counts, shallow to deep, and `final`.
        threshold: Pairwise accuracy from which a pair counts as told apart, 0.5..1.

    Raises:
        PlanError: no `final`, sizes differ, a matrix is none, or the threshold is out of range.
    """
    if not 0.5 <= threshold <= 1:
        raise PlanError(f"threshold = {threshold}; a pairwise accuracy from 0.5 (guessing) to 1, such as 0.95")
    if "final" not in confusions:
        raise PlanError("no matrix named 'final'; it is the last one that may tell a pair apart")
    counts = {name: checked_counts(matrix, f"matrix '{name}'") for name, matrix in confusions.items()}
    final = counts.pop("final")
    for name, matrix in counts.items():
        if matrix.shape != final.shape:
            raise PlanError(f"matrix '{name}' has shape {matrix.shape}; all must be ({len(final)}, {len(final)})")
    accuracies = {name: pairwise_accuracy(matrix) for name, matrix in {**counts, "final": final}.items()}
    return Separability(accuracies, class_affinity(final, epsilon=0), threshold)
