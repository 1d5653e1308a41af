import io

import numpy as np
import pytest
from PIL import Image

from hs3seg.report.cost import CostPoint, cost_figure

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
    fuse, plain = discs[0], discs[1]  # on val, the best first
    assert fuse.x > plain.x
    assert fuse.y < plain.y
    assert fuse.x - 54 == pytest.approx(2 * (plain.x - 54))  # the axis begins at 0
