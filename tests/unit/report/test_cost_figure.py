import io
import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from hs3seg.report.canvas import text_width
from hs3seg.report.cost import CostPoint, cost_figure
from hs3seg.report.figure import spread

POINTS = [
    CostPoint("Plain", 2.0, {"val": 0.60, "test": 0.50}),
    CostPoint("Fuse", 4.0, {"val": 0.65, "test": 0.52}),
]


def test_every_network_is_a_named_point_at_its_cost_and_score():
    figure = cost_figure(POINTS, (240, 320))
    assert figure is not None
    drawn = figure.canvas.svg("figure")
    assert drawn.count(">Plain<") == drawn.count(">Fuse<") == 2  # one label per split
    assert "Fuse, test: 52.0 % at 4 GMACs" in drawn
    assert "one image of 240x320" in drawn
    picture = np.array(Image.open(io.BytesIO(figure.canvas.png())))
    assert picture.std() > 10


def test_no_picture_where_all_cost_the_same():
    assert cost_figure([POINTS[0], CostPoint("HS3", 2.0, {"val": 0.7})]) is None


def test_better_is_higher_and_dearer_is_further_right():
    figure = cost_figure(POINTS)
    assert figure is not None
    discs = [shape for shape in figure.canvas._shapes if type(shape).__name__ == "_Disc"]
    plain, fuse = discs[0], discs[1]  # on val
    assert fuse.x > plain.x
    assert fuse.y < plain.y
    assert fuse.x - 54 == pytest.approx(2 * (plain.x - 54))  # the axis begins at 0


def test_ticks_of_a_narrow_range_can_be_told_apart():
    """Networks of half a GMAC whose scores lie within a point and a half."""
    figure = cost_figure([CostPoint("Plain", 0.3, {"val": 0.448}), CostPoint("Fuse", 0.6, {"val": 0.463})])
    assert figure is not None
    texts = [shape for shape in figure.canvas._shapes if type(shape).__name__ == "_Text"]
    levels = [shape.text for shape in texts if shape.anchor == "end"]
    assert levels == ["44.5", "45.0", "45.5", "46.0", "46.5"]
    costs = [float(shape.text) for shape in texts if shape.anchor == "middle" and shape.text[0].isdigit()]
    assert costs == pytest.approx([0.1 * n for n in range(7)])


def test_labels_of_many_networks_at_one_cost_overlap_neither_each_other_nor_the_next_panel():
    names = ["HRNetv2-w18, no supervision", "HRNetv2-w18, deep supervision", "HRNetv2-w18, HS3"]
    points = [CostPoint(name, 0.8, {"val": 0.59 + i / 1e4, "test": 0.44}) for i, name in enumerate(names)]
    figure = cost_figure([*points, CostPoint("HRNetv2-w18-OCR", 1.5, {"val": 0.56, "test": 0.47})])
    assert figure is not None
    labels = [shape for shape in figure.canvas._shapes if getattr(shape, "text", None) in [*names, "HRNetv2-w18-OCR"]]
    assert len(labels) == 8
    for index, one in enumerate(labels):
        panel = index // 4
        assert one.x + text_width(one.text, 12, bold=True) < (panel + 1) * figure.canvas.width / 2
        for other in labels[4 * panel : index]:
            assert abs(one.y - other.y) >= 17.9


@given(
    st.lists(st.floats(0, 300), min_size=1, max_size=12).map(sorted),
    st.integers(1, 18),
)
def test_spread_positions_keep_their_order_their_distance_and_the_bounds(wanted, apart):
    found = spread(wanted, (10.0, 290.0), apart)
    assert all(b - a >= apart - 1e-9 for a, b in itertools.pairwise(found))
    assert min(found) >= 10 - 1e-9
    assert max(found) <= 290 + 1e-9
    within = all(10 <= value <= 290 for value in wanted)
    if within and all(b - a >= apart for a, b in itertools.pairwise(wanted)):
        assert found == pytest.approx(wanted)
