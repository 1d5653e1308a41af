"""HHA against the public encoder's golden values, and against rooms whose geometry is known."""

import json
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from hs3seg.data.hha import NYU_CAMERA, Camera, camera_for, encode_hha, hha
from hs3seg.errors import DataError
from tests.conftest import shared
from tests.fabricate.nyuv2 import make_room

CASES = ("full_480x640", "sub4_120x160_small_holes", "sub4_120x160_big_hole")


def golden(case: str) -> tuple[NDArray[np.float64], NDArray[np.bool_], dict[str, Any], dict[str, Any]]:
    """Depth, missing pixels, the description of the input, the expected output."""
    values = json.loads(shared("reference", "golden", "09_hha.json").read_text())
    described = next(i for i in values["inputs"] if i["id"] == case)
    depth = np.load(shared("reference", "golden", "hha", "depth_480x640.npy")).astype(np.float64)
    if case.startswith("sub4"):
        depth = depth[::4, ::4]
    raw = depth.copy()
    if case.endswith("small_holes"):
        raw[np.random.default_rng(51).random(depth.shape) < 0.02] = 0
        for y in range(12, depth.shape[0] - 12, 24):
            for x in range(12, depth.shape[1] - 12, 24):
                raw[y - 2 : y + 3, x - 2 : x + 3] = 0
    elif case.endswith("big_hole"):
        raw[30:70, 40:90] = 0
    return depth, raw == 0, described, next(o for o in values["outputs"] if o["case"] == case)


@pytest.mark.parametrize("case", CASES[:2])
def test_equal_to_the_public_encoder(case: str) -> None:
    depth, missing, described, expected = golden(case)
    assert int(missing.sum()) == described["missing_pixels"]
    found = encode_hha(depth, missing)
    whole = np.load(shared("reference", "golden", expected["whole_array"].split()[0]))
    assert np.array_equal(found.pixels()[..., ::-1], whole)
    assert np.array_equal(hha(depth, missing), found.pixels())
    listed = expected["before_rounding"]
    backwards = found.values[..., ::-1]  # the golden arrays begin with the angle
    np.testing.assert_allclose(backwards.reshape(-1)[listed["indices"]], listed["values"], rtol=0, atol=1e-4)
    np.testing.assert_allclose(backwards.mean((0, 1)), listed["channel_mean"], rtol=0, atol=1e-6)
    np.testing.assert_allclose(found.gravity, expected["gravity_direction"], rtol=0, atol=1e-7)


def test_a_big_hole_where_the_public_encoder_is_sure() -> None:
    depth, missing, _, expected = golden(CASES[2])
    values = encode_hha(depth, missing).values
    assert int((values[..., 2] == 218).sum()) == expected["n_nan_normals"]
    assert np.array_equal(values[..., 0], encode_hha(depth).values[..., 0])


@pytest.mark.parametrize("case", CASES)
def test_the_camera_of_other_sizes(case: str) -> None:
    depth, _, described, _ = golden(case)
    camera = camera_for(*depth.shape)
    matrix = described["camera_matrix"]
    assert (camera.fx, camera.fy) == pytest.approx((matrix[0][0], matrix[1][1]), abs=1e-12)
    assert (camera.cx, camera.cy) == pytest.approx((matrix[0][2], matrix[1][2]), abs=1e-12)


def test_the_toolboxs_crop_moves_the_camera() -> None:
    """The crop has the points of the whole frame, except that normals at its border see less."""
    room = make_room(3, (480, 640))
    whole = encode_hha(room.metres)
    part = encode_hha(room.metres[44:471, 40:601])
    assert part.values.shape == (427, 561, 3)
    inner = np.s_[3:-3, 3:-3]
    down = whole.gravity  # gravity differs a little, since fewer walls and floors are seen
    assert float(part.gravity @ down) > 0.9999
    assert np.array_equal(part.values[..., 0], whole.values[44:471, 40:601, 0])
    difference = np.abs(part.values[..., 2] - whole.values[44:471, 40:601, 2])[inner]
    assert float(np.median(difference)) < 0.5


@pytest.mark.parametrize("size", [(480, 640), (240, 320), (97, 129)])
def test_a_room_of_known_geometry(size: tuple[int, int]) -> None:
    room = make_room(1, size)
    found = encode_hha(room.metres)
    assert float(found.gravity @ room.gravity) > np.cos(np.radians(1.5))
    disparity, height, angle = np.moveaxis(found.values, 2, 0)
    np.testing.assert_allclose(disparity, 310 / np.maximum(room.metres, 1), rtol=1e-6)
    wall = room.labels == 1
    assert np.median(angle[room.floor]) == pytest.approx(38, abs=2)  # normals along gravity
    assert np.median(angle[wall]) == pytest.approx(128, abs=2)  # across it
    assert np.median(np.abs(height - 100 * room.height)) < 5  # cm
    assert np.abs(height - 100 * room.height).max() < 15


def test_pixels_without_depth_take_no_part() -> None:
    room = make_room(2, (120, 160))
    holes = np.zeros((120, 160), bool)
    holes[20:60, 90:130] = True
    for nothing in (0.0, np.nan, np.inf, -1.0):
        depth = np.where(holes, nothing, room.metres)
        found = encode_hha(depth)
        assert np.isfinite(found.values).all()
        assert (found.values[23:57, 93:127, 2] == 218).all()
        assert np.array_equal(found.values[~holes], encode_hha(np.where(holes, 0, room.metres)).values[~holes])


def test_a_frame_without_normals_keeps_the_images_down() -> None:
    found = encode_hha(np.full((12, 16), 2.0), np.ones((12, 16), bool))
    assert found.gravity.tolist() == [0, 1, 0]
    assert (found.values[..., 2] == 218).all()


@pytest.mark.parametrize(("metres", "lowest"), [(2.0, -130), (2.1, None)])
def test_heights_count_from_the_lowest_point_or_from_130_cm_below(metres: float, lowest: float | None) -> None:
    camera = camera_for(12, 16)
    below = 100 * metres * (12 - camera.cy) / camera.fy  # of the last row, in cm: 87.1 and 91.5
    found = encode_hha(np.full((12, 16), metres), np.ones((12, 16), bool))
    expected = 0 if lowest is None else -below - lowest
    assert found.values[-1, :, 1] == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize(
    ("depth", "missing", "camera", "message"),
    [
        (np.ones((3, 4, 5)), None, None, r"shape \(3, 4, 5\); give one \(H, W\) image"),
        (np.zeros((0, 4)), None, None, r"shape \(0, 4\)"),
        (np.zeros((6, 8)), None, None, "without any depth"),
        (np.ones((6, 8)), np.zeros((8, 6)), None, r"'missing' has shape \(8, 6\), depth has \(6, 8\)"),
        (np.ones((6, 8)), None, NYU_CAMERA, "of a 8x6 depth image with a camera for 640x480; use camera.scaled"),
    ],
)
def test_what_cannot_be_encoded(depth: Any, missing: Any, camera: Camera | None, message: str) -> None:
    with pytest.raises(DataError, match=message):
        hha(depth, missing, camera)
