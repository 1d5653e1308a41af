"""What arms cost: means over the seeds that tell it."""

import math

import pytest

from hs3seg.report.comparison_cost import COST_HEAD, Spent, cost_rows, mean_spent, spent_values
from hs3seg.report.markup import DASH, TIMES


def test_a_seed_under_way_takes_nothing_from_the_mean() -> None:
    done, under_way = Spent(100, 80, 60.0, 3.0), Spent(100, 80, 80.0, math.nan)
    mean = mean_spent([done, under_way])
    assert mean is not None
    assert (mean.seconds, mean.tmacs) == (70.0, 3.0)


def test_what_no_seed_tells_is_null_in_the_file() -> None:
    mean = mean_spent([Spent(100, 0, 60.0, math.nan)])
    assert mean is not None
    assert spent_values(mean) == {"steps": 100, "first_steps": 0, "seconds": 60.0, "tmacs": None}


def test_no_seed_at_all_costs_nothing_that_could_be_told() -> None:
    assert mean_spent([]) is None


def test_compute_is_relative_to_the_reference() -> None:
    rows = cost_rows({"none": Spent(10, 0, 60, 2.0), "hs3": Spent(10, 8, 120, 5.0)}, "none")
    by_arm = [dict(zip(COST_HEAD, row, strict=True)) for row in rows]
    assert [row["compute"] for row in by_arm] == [f"{TIMES} 1.00", f"{TIMES} 2.50"]
    assert [row["steps"] for row in by_arm] == ["10", "8 + 10"]


@pytest.mark.parametrize("tmacs", [math.nan, 0.0])
def test_no_ratio_where_the_reference_is_not_told(tmacs: float) -> None:
    rows = cost_rows({"none": Spent(10, 0, 60, tmacs), "hs3": Spent(10, 8, 120, 5.0)}, "none")
    assert [row[-1] for row in rows][1] == DASH
