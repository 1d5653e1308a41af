"""A function over all samples: order, errors, and the global generator."""

import os

import pytest
import torch

from hs3seg.data.parallel import in_order
from hs3seg.errors import DataError


def squared(index: int) -> tuple[int, int]:
    if index == 5:
        raise DataError("sample 5 is broken")
    return index * index, os.getpid()


@pytest.mark.parametrize("num_workers", [0, 1, 2])
def test_results_come_in_order(num_workers: int) -> None:
    results = list(in_order(squared, 5, num_workers))
    assert [value for value, _ in results] == [0, 1, 4, 9, 16]
    assert (os.getpid() in {process for _, process in results}) == (num_workers == 0)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_an_error_is_raised_as_it_is(num_workers: int) -> None:
    values = in_order(squared, 9, num_workers)
    assert [next(values)[0] for _ in range(5)] == [0, 1, 4, 9, 16]
    with pytest.raises(DataError, match=r"^sample 5 is broken$"):
        next(values)


def test_nothing_is_drawn_from_the_global_generator() -> None:
    before = torch.get_rng_state()
    list(in_order(squared, 3, num_workers=1))
    assert torch.equal(torch.get_rng_state(), before)


def test_no_samples_give_nothing() -> None:
    assert list(in_order(squared, 0, num_workers=2)) == []
