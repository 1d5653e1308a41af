import pytest

from hs3seg.data import analysis_split
from hs3seg.errors import DataError


def test_a_count_instead_of_a_fraction():
    reduced, analysis = analysis_split(2975, 0.1, 0, count=300)
    assert (len(reduced), len(analysis)) == (2675, 300)
    assert sorted(reduced + analysis) == list(range(2975))


@pytest.mark.parametrize("count", [0, 10, 11])
def test_a_count_that_leaves_nothing_is_refused(count):
    with pytest.raises(DataError, match=r"allowed: 1\.\.9"):
        analysis_split(10, 0.1, 0, count=count)
