import base64
import io
import math
import re
import unicodedata
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from fabricated_run import confusion, fabricate, many_classes, street_taxonomy
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as stnp
from PIL import Image, ImageFont

from hs3seg.report.canvas import Canvas, shortened, text_width
from hs3seg.report.comparison_pictures import BOTH, ONLY_ARM, who_is_right
from hs3seg.report.curves import smoothed, thinned, tradeoff_figure, training_figures
from hs3seg.report.figure import Axes, Figure, ticks
from hs3seg.report.grid import grid_of
from hs3seg.report.groups import tree_figures
from hs3seg.report.load import load_run
from hs3seg.report.markup import clean, duration, escape, listed, number, percent, points
from hs3seg.report.matrices import analysis_figures, largest_confusions, row_shares, split_figures
from hs3seg.report.pictures import IGNORED, _grouped, _labels, has_class, sample_tiles
from hs3seg.report.theme import DARK, HEAT, LIGHT
from hs3seg.taxonomy import Grouping, Taxonomy


def texts_outside(figure: Figure) -> list[str]:
    """Texts of a figure that stick out of it, measured with the figure's own font."""
    root = ElementTree.fromstring(figure.canvas.svg("x"))
    _, _, width, height = map(float, root.attrib["viewBox"].split())
    outside = []
    for element in root.iter("text"):
        x, y, size = (float(element.attrib[key]) for key in ("x", "y", "font-size"))
        length = text_width(element.text or "", size, bold="font-weight" in element.attrib)
        shift = {"start": 0.0, "middle": 0.5, "end": 1.0}[element.attrib.get("text-anchor", "start")] * length
        if "transform" in element.attrib:
            box = (x - size / 2, y + shift - length, x + size / 2, y + shift)
        else:
            box = (x - shift, y - size / 2, x - shift + length, y + size / 2)
        if box[0] < -1 or box[1] < -1 or box[2] > width + 1 or box[3] > height + 1:
            outside.append(element.text or "")
    return outside


def test_a_stages_long_name_fits_into_its_tree(tmp_path: Path) -> None:
    run = load_run(fabricate(tmp_path / "run", epochs=3, num_samples=0))
    assert run.plan is not None
    for name in ("segformer.encoder.block.1", "backbone." * 20 + "conv"):
        plan = replace(run.plan, stages=tuple(replace(s, stage=f"{name}{i}") for i, s in enumerate(run.plan.stages)))
        for figure in tree_figures(run, plan, "hs3"):
            assert texts_outside(figure) == []
            assert figure.canvas.width < 600


@pytest.mark.parametrize("count", [12, 61, 150, 400, 1000])
def test_rows_of_a_matrix_can_be_told_whatever_the_number_of_classes(count: int) -> None:
    names = [f"c{i}" for i in range(count)]
    grid = grid_of(names)
    shown = [label for label in grid.labels if label]
    assert set(shown) <= set(names)
    assert grid.font >= 7
    assert grid.cell * (count / len(shown)) >= grid.font  # no two labels overlap
    assert len(shown) == count or grid.side > 1300
    assert grid.side <= max(1360, 3 * count)


@pytest.mark.parametrize("names", [None, ["x", "w"], [f"a very long name of class number {i}" for i in range(24)]])
def test_no_text_is_cut_off(tmp_path: Path, names: list[str] | None) -> None:
    taxonomy = Taxonomy.from_names(names) if names else None
    run = load_run(fabricate(tmp_path / "run", taxonomy=taxonomy, epochs=3, num_samples=0))
    assert run.plan is not None
    figures = [
        tradeoff_figure(run),
        *tree_figures(run, run.plan, "hs3"),
        *analysis_figures(run),
        *split_figures(run, "val"),
    ]
    figures += [figure for made in training_figures(run).values() for figure in made]
    for figure in figures:
        assert figure is not None
        assert texts_outside(figure) == []


def test_tradeoff_has_every_point_the_line_through_the_origin_and_the_chosen_points(street: Path) -> None:
    run = load_run(street)
    figure = tradeoff_figure(run)
    assert figure is not None
    root = ElementTree.fromstring(figure.canvas.svg("x"))
    dashed = next(e for e in root.iter("polyline") if "stroke-dasharray" in e.attrib)
    (x0, y0), (x1, y1) = (tuple(map(float, p.split(","))) for p in dashed.attrib["points"].split())
    reference = run.analysis["reference"]
    # The plot area has the aspect in which theta is defined: the angle on the picture is theta.
    assert math.degrees(math.atan2(x1 - x0, y0 - y1)) == pytest.approx(reference["theta_degrees"], abs=0.1)
    titles = [e.text for e in root.iter("title")]
    for stage, values in run.analysis["stages"].items():
        for k, miou in values["curve"]:
            assert f"{stage}, {k} groups: {100 * miou:.1f} %" in titles
        assert f"{stage}, chosen: {values['num_groups']} groups, {100 * values['miou']:.1f} %" in titles
    assert f"final, 11 classes: {100 * reference['miou']:.1f} %" in titles


@pytest.mark.parametrize("theta", [0.0, 20.0, 60.0, 85.0, 90.0])
def test_tradeoff_line_at_theta(street: Path, theta: float) -> None:
    run = load_run(street)
    run.analysis["reference"] |= {"theta_degrees": theta, "rule": "theta"}
    figure = tradeoff_figure(run)
    assert figure is not None
    root = ElementTree.fromstring(figure.canvas.svg("x"))
    dashed = next(e for e in root.iter("polyline") if "stroke-dasharray" in e.attrib)
    (x0, y0), (x1, y1) = (tuple(map(float, p.split(","))) for p in dashed.attrib["points"].split())
    assert math.degrees(math.atan2(x1 - x0, y0 - y1)) == pytest.approx(theta, abs=0.2)


def test_matrix_cells_are_row_shares_in_group_order_and_groups_are_framed(street: Path) -> None:
    run = load_run(street)
    assert run.plan is not None
    for stage, figure in zip(run.plan.stages, analysis_figures(run), strict=False):
        order = [c for group in stage.grouping.groups for c in group]
        matrix = run.confusions[stage.stage]
        shares = (matrix / matrix.sum(1, keepdims=True))[np.ix_(order, order)]
        root = ElementTree.fromstring(figure.canvas.svg("x"))
        image = next(root.iter("image"))
        cells = np.asarray(Image.open(io.BytesIO(base64.b64decode(image.attrib["href"].split(",")[1]))))
        assert np.array_equal(cells[..., 3], np.rint(255 * shares).astype(np.uint8))
        assert tuple(cells[0, 0, :3]) == HEAT
        frames = [e for e in root.iter("polyline") if e.attrib["stroke"] == "var(--ink)"]
        sides = []
        for frame in frames:
            (x0, _), (x1, _), *_ = (tuple(map(float, p.split(","))) for p in frame.attrib["points"].split())
            sides.append(round((x1 - x0) / 30))
        assert sides == [len(group) for group in stage.grouping.groups]


def test_every_figure_is_valid_xml_and_its_png_has_its_size(street: Path) -> None:
    run = load_run(street)
    for figure in [*analysis_figures(run), *training_figures(run)["hs3"]]:
        ElementTree.fromstring(figure.canvas.svg('<&">'))
        picture = Image.open(io.BytesIO(figure.canvas.png()))
        assert picture.width == pytest.approx(2 * figure.canvas.width + 32, abs=2)
        assert picture.height == pytest.approx(2 * figure.canvas.height + 32, abs=2)


def test_canvas_paints_what_it_is_told() -> None:
    canvas = Canvas(40, 20)
    canvas.box(0, 0, 20, 20, "#ff0000")
    canvas.cells(20, 0, 20, 20, np.full((1, 1, 4), (0, 0, 255, 255), np.uint8))
    picture = Image.open(io.BytesIO(canvas.png(scale=1)))
    assert picture.getpixel((8 + 10, 8 + 10)) == (255, 0, 0)
    assert picture.getpixel((8 + 30, 8 + 10)) == (0, 0, 255)
    assert picture.getpixel((2, 2)) == (255, 255, 255)


def test_dashes_cover_half_of_a_line() -> None:
    canvas = Canvas(200, 20)
    canvas.line([(0, 10), (200, 10)], "#000000", 4, dash=10)
    row = np.asarray(Image.open(io.BytesIO(canvas.png(scale=1))).convert("L"))[18, 8:208]
    assert (row < 128).mean() == pytest.approx(0.5, abs=0.04)


def test_a_drawing_of_straight_edges_has_no_mixed_colours() -> None:
    """It is painted at its own size: faster, and sharp."""
    canvas = Canvas(40, 20)
    canvas.cells(0, 0, 20, 20, np.array([[(255, 0, 0, 255), (255, 0, 0, 0)]], np.uint8))
    canvas.box(20, 0, 20, 20, "#00ff00")
    pixels = np.asarray(Image.open(io.BytesIO(canvas.png(scale=2))).convert("RGB"))[16:56, 16:96].reshape(-1, 3)
    colours, counts = np.unique(pixels, axis=0, return_counts=True)
    card = tuple(int(LIGHT["card"][i : i + 2], 16) for i in (1, 3, 5))
    assert dict(zip(map(tuple, colours.tolist()), counts.tolist(), strict=True)) == {
        (0, 255, 0): 1600,
        (255, 0, 0): 800,
        card: 800,
    }


def test_themes_have_the_same_names() -> None:
    assert LIGHT.keys() == DARK.keys()


@given(stnp.arrays(np.float64, st.integers(1, 200), elements=st.floats(-1e3, 1e3)))
def test_smoothing_keeps_length_and_bounds(values: np.ndarray) -> None:
    smooth = smoothed(values)
    assert smooth.shape == values.shape
    assert smooth.min() >= values.min() - 1e-9
    assert smooth.max() <= values.max() + 1e-9
    if len(values) < 12:
        assert np.allclose(smooth, values)


def test_smoothing_is_a_centred_mean() -> None:
    values = np.arange(100.0) ** 2
    assert smoothed(values)[50] == pytest.approx(values[45:56].mean())
    assert smoothed(values)[0] == pytest.approx(values[:6].mean())


@given(stnp.arrays(np.float64, st.integers(1, 3000), elements=st.floats(-10, 10)))
def test_thinning_loses_no_spike(values: np.ndarray) -> None:
    epochs, kept = thinned((np.arange(len(values)), values), 100)
    assert len(kept) <= max(100, 0) or len(values) <= 100
    assert kept.min() == values.min()
    assert kept.max() == values.max()
    assert (np.diff(epochs) > 0).all()
    assert np.array_equal(values[epochs], kept)


@given(st.floats(-100, 100), st.floats(0.01, 1000), st.integers(3, 10))
def test_ticks_lie_inside_and_are_not_too_many(low: float, span: float, count: int) -> None:
    found = ticks(low, low + span, count)
    assert 1 <= len(found) <= count + 2
    assert all(low - span * 1e-6 - 1e-9 <= value <= low + span * (1 + 1e-6) + 1e-9 for value in found)


def test_axes_place_and_clip() -> None:
    axes = Axes(Canvas(100, 100), 10, 10, 80, 60, (0, 4), (0, 2))
    assert axes.place(0, 0) == (10, 70)
    assert axes.place(4, 2) == (90, 10)
    assert axes.place(2, 9) == (50, 10)


@given(st.integers(1, 12), st.integers(0, 1000))
def test_row_shares_add_up(count: int, seed: int) -> None:
    matrix = np.random.default_rng(seed).integers(0, 5, (count, count))
    shares = row_shares(matrix)
    assert np.allclose(shares.sum(1), matrix.sum(1) > 0)


def test_largest_confusions_are_named_truth_first() -> None:
    taxonomy = Taxonomy.from_names(["a", "b", "c"])
    matrix = np.array([[9, 1, 0], [5, 5, 0], [0, 0, 0]])
    assert largest_confusions(matrix, taxonomy) == "Most often taken for another: b as a (50 %) and a as b (10 %)."
    assert largest_confusions(np.eye(3, dtype=np.int64), taxonomy) == "No pixel is taken for another class."


def test_label_pictures_have_class_colours_and_empty_ignored_pixels() -> None:
    labels = np.array([[0, 1, 255], [1, 0, 255]], np.uint8)
    buffer = io.BytesIO()
    _labels(labels, ((10, 20, 30), (40, 50, 60))).save(buffer, "PNG")
    pixels = np.asarray(Image.open(buffer).convert("RGBA"))
    assert pixels[0, 0].tolist() == [10, 20, 30, 255]
    assert pixels[0, 1].tolist() == [40, 50, 60, 255]
    assert pixels[:, 2, 3].tolist() == [0, 0]


def test_stage_tiles_are_judged_in_their_own_groups(street: Path) -> None:
    run = load_run(street)
    arm = run.arms["hs3"]
    assert arm.plan is not None
    name, tiles = next(sample_tiles(run, "val"))
    assert name == "val_frame_000.png"
    assert [tile.title.split(",")[0] for tile in tiles] == [
        "image", "truth", "No supervision", "Deep supervision", "HS3", "HS3", "HS3",
    ]  # fmt: skip
    truth = arm.samples["val"]["0/truth"]
    for stage, tile in zip(arm.plan.stages, tiles[4:6], strict=True):
        grouped = stage.grouping.remap(truth.astype(np.int64))
        right = (arm.samples["val"][f"0/{stage.stage}"] == grouped)[truth != 255].mean()
        assert tile.note == f"{100 * right:.1f} % right"


def test_pictures_of_images_with_depth_show_their_colours(street: Path) -> None:
    run = load_run(street)
    before = [tile.html("x") for _, tiles in sample_tiles(run, "val") for tile in tiles]
    for arm in run.arms.values():
        arrays = arm.samples["val"]
        for key in [key for key in arrays if key.endswith("/image")]:
            arrays[key] = np.concatenate([arrays[key], arrays[key][..., :1]], axis=-1)
    assert [tile.html("x") for _, tiles in sample_tiles(run, "val") for tile in tiles] == before


@given(st.lists(st.integers(0, 4), min_size=1, max_size=8), st.integers(0, 100))
def test_grouped_truth_equals_remap(assignment: list[int], seed: int) -> None:
    grouping = Grouping.from_labels(assignment)
    labels = np.random.default_rng(seed).integers(0, grouping.num_classes + 1, (5, 6))
    labels[labels == grouping.num_classes] = 255
    assert np.array_equal(_grouped(labels, grouping), grouping.remap(labels))


def test_names_are_shortened_to_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    assert shortened("sky", 100) == "sky"
    for text in ("a" * 100, "road marking, dashed " * 9, "W" * 40):
        for width in (9, 60, 61.5, 130):
            fits = [n for n in range(len(text)) if text_width(text[:n] + "…") <= width]
            assert shortened(text, width) == text[: max(fits, default=0)].rstrip() + "…"
    calls = []
    whole = ImageFont.FreeTypeFont.getlength
    monkeypatch.setattr(ImageFont.FreeTypeFont, "getlength", lambda *own: calls.append(1) or whole(*own))
    shortened("long " * 2000, 60)
    assert len(calls) < 20
    short = shortened("a" * 100, 60)
    assert short.endswith("…")
    assert text_width(short) <= 60


@given(st.text())
def test_escaped_text_is_harmless(text: str) -> None:
    found = escape(text)
    assert not re.search(r"[<>\"']", found)
    assert found.encode("utf-8").decode() == found
    shown = clean(text)
    assert not {unicodedata.category(c) for c in shown} & {"Cc", "Cs", "Zl", "Zp"}
    assert not re.search("[\u202a-\u202e\u2066-\u2069\ufffe\uffff]", shown)
    ElementTree.fromstring(f"<text>{found}</text>")


def test_joiners_of_scripts_that_need_them_stay() -> None:
    for name in ("\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645", "\U0001f468\u200d\U0001f469"):
        assert clean(name) == name
    assert clean("a\u202eb\x07") == "a\ufffdb\ufffd"


def test_characters_of_east_asia_are_as_wide_as_they_are_high() -> None:
    name = "\u9053\u8def\u6a19\u8b58"
    assert text_width(name, 12.5) == 50
    assert text_width(f"a{name}", 12.5) == pytest.approx(50 + text_width("a", 12.5))
    assert shortened(name, 45, 12.5) == name[:2] + "\u2026"


def test_numbers_in_print() -> None:
    assert percent(0.5631) == "56.3"
    assert percent(None) == "\u2013"
    assert points(0.0123) == "+1.2"
    assert points(-0.0123) == "\u22121.2"
    assert points(-0.0001) == "0.0"
    assert [duration(s) for s in (3.21, 245, 11520)] == ["3.2 s", "4 min 05 s", "3 h 12 min"]
    assert [number(v) for v in (1, 0.5, True, "1", None, float("nan"))] == [1.0, 0.5, None, None, None, None]
    assert [listed(w) for w in ([], ["a"], ["a", "b"], ["a", "b", "c"])] == ["", "a", "a and b", "a, b and c"]


def test_fabricated_matrices_are_plausible() -> None:
    matrix = confusion(street_taxonomy(), 0.8, 0)
    assert 0.5 < np.trace(matrix) / matrix.sum() < 0.95
    assert confusion(many_classes(40), 0.8, 0).shape == (40, 40)


def test_labels_of_more_than_255_classes_keep_their_ids_and_colours() -> None:
    colours = [(number % 256, number // 256, 7) for number in range(300)]
    labels = np.array([[299, 43, 255, 65535]], np.uint16)
    pixels = np.asarray(_labels(labels, colours).convert("RGBA"))
    assert pixels[0, :3].tolist() == [[43, 1, 7, 255], [43, 0, 7, 255], [255, 0, 7, 255]]
    assert pixels[0, 3, 3] == 0
    assert has_class(labels).tolist() == [[True, True, True, False]]
    grouping = Grouping.from_labels([min(number, 280) for number in range(300)])
    assert _grouped(labels, grouping).tolist() == [[280, 43, 255, 65535]]
    assert has_class(labels.astype(np.uint8)).tolist() == [[True, True, False, False]]
    found = who_is_right(labels, np.full_like(labels, 43), labels)
    assert found.tolist() == [[ONLY_ARM, BOTH, ONLY_ARM, IGNORED]]
