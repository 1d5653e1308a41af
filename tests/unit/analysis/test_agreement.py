import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import adjusted_rand_score

from hs3seg.analysis import adjusted_rand
from hs3seg.errors import PlanError
from hs3seg.taxonomy import Grouping

labels = st.lists(st.integers(0, 4), min_size=2, max_size=12)


@given(data=st.data(), one=labels)
def test_it_is_scikit_learns(data: st.DataObject, one: list[int]) -> None:
    other = data.draw(st.lists(st.integers(0, 4), min_size=len(one), max_size=len(one)))
    found = adjusted_rand(Grouping.from_labels(one), Grouping.from_labels(other))
    assert found == pytest.approx(adjusted_rand_score(one, other))
    assert adjusted_rand(Grouping.from_labels(one), Grouping.from_labels(one)) == 1


def test_groupings_of_other_classes_are_not_compared() -> None:
    with pytest.raises(PlanError, match="groupings of 2 and 3 classes"):
        adjusted_rand(Grouping.identity(2), Grouping.identity(3))
