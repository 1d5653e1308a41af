"""How alike two groupings are."""

import numpy as np
from numpy.typing import NDArray

from hs3seg.errors import PlanError
from hs3seg.taxonomy import Grouping


def adjusted_rand(one: Grouping, other: Grouping) -> float:
    """Adjusted Rand index of two groupings of the same classes (Hubert and Arabie, 1985).

    Returns:
        1 for the same groups, 0 on average for random ones of these sizes, below 0 for less agreement than that.

    Raises:
        PlanError: they are groupings of different numbers of classes.
    """
    if one.num_classes != other.num_classes:
        raise PlanError(
            f"groupings of {one.num_classes} and {other.num_classes} classes; only those of the same classes can be"
            " compared"
        )
    table = np.zeros((one.num_groups, other.num_groups), np.int64)
    np.add.at(table, (list(one.assignment), list(other.assignment)), 1)
    together, rows, columns = _pairs(table), _pairs(table.sum(1)), _pairs(table.sum(0))
    expected = rows * columns / max(_pairs(np.array([one.num_classes])), 1)
    most = (rows + columns) / 2
    return 1.0 if most == expected else float((together - expected) / (most - expected))


def _pairs(counts: NDArray[np.int64]) -> int:
    return int((counts * (counts - 1) // 2).sum())
