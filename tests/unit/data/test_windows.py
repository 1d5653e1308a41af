import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hs3seg.data.windows import windows


@given(st.integers(1, 90), st.integers(1, 90), st.integers(1, 40), st.data())
def test_covered_without_gaps_by_windows_inside_the_image(height, width, crop, data):
    stride = data.draw(st.integers(1, crop))
    seen = np.zeros((height, width), int)
    found = windows((height, width), (crop, crop), (stride, stride))
    for top, left, bottom, right in found:
        assert (bottom - top, right - left) == (crop, crop)
        assert bottom <= max(height, crop)
        assert right <= max(width, crop)
        seen[top:bottom, left:right] += 1
    assert seen.min() >= 1
    assert len(set(found)) == len(found)


def test_the_last_window_is_moved_back():
    assert [w[1] for w in windows((10, 25), (10, 10), (10, 7))] == [0, 7, 14, 15]


@pytest.mark.parametrize("stride", [0, 11])
def test_a_stride_that_leaves_gaps_is_refused(stride):
    with pytest.raises(ValueError, match="allowed: 1..10"):
        windows((20, 20), (10, 10), (stride, 10))
