"""HHA: three channels made from depth - horizontal disparity, height above the lowest point, angle with gravity.

The encoding is that of Gupta, Girshick, Arbelaez, Malik (ECCV 2014), with the constants of the widely used public
encoders (github charlesCXK/Depth2HHA and Depth2HHA-python), so that the pictures are equal to theirs.

How it is computed, for a pixel with coordinates (u, v) counted from 1 and depth z:

1. Its point in space is ((u - cx) z / fx, (v - cy) z / fy, z), in centimetres, y downwards.
2. A plane n . p = 1 is fitted by least squares to the points of the square around the pixel, each equation divided by
   its depth z. The normal n is scaled to length 1 and turned away from the camera. Radius 3 gives the normals of the
   result, radius 10 smoother ones for gravity. Pixels without depth take no part.
3. Gravity begins as the image's own down, (0, 1, 0). In each of ten rounds, normals nearly parallel to it (floors; 45
   degrees at first, 15 in the last five rounds) and nearly across it (walls) are chosen; the new direction is the unit
   vector that is most parallel to the floors' normals and most across the walls', an eigenvector of a 3x3 matrix.
4. Disparity is 31000 / max(z, 100). Height is the distance against gravity from the lowest point of the frame (from
   -130 where that is not more than 90 below the camera). The angle between normal and gravity in degrees is raised by
   38; a pixel whose whole square has no depth has no normal: 180 degrees.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage

from hs3seg.errors import DataError

Floats = NDArray[np.float64]

_NORMAL_RADIUS, _GRAVITY_RADIUS = 3, 10  # pixels, at every image size
_ROUNDS = ((45.0, 5), (15.0, 5))  # degrees, number of rounds
_NEAREST_CM = 100.0
_DISPARITY = 31000.0  # at 1 m: 310, written as 255
_ANGLE_SHIFT = 38.0  # 128 - 90
_CAMERA_ABOVE_LOWEST_CM, _FALLBACK_LOWEST_CM = 90.0, -130.0


@dataclass(frozen=True, slots=True)
class Camera:
    """A pinhole camera; the pixel in the upper left corner has the coordinates (1, 1).

    Args:
        fx: Focal length in pixels, horizontally.
        fy: Vertically.
        cx: Where the optical axis meets the image, in pixels from the left.
        cy: From the top.
        height: Of the image that these values are for, in pixels.
        width: Of that image.
    """

    fx: float
    fy: float
    cx: float
    cy: float
    height: int = 480
    width: int = 640

    def scaled(self, height: int, width: int) -> "Camera":
        """The camera of the same view at another size.

        fx and cx are multiplied by the ratio of widths, fy and cy by that of heights, as the public encoders' users do.
        (Since coordinates count from 1, this is off by at most half a pixel, whichever way the frame was made smaller.)
        """
        across, down = width / self.width, height / self.height
        return Camera(self.fx * across, self.fy * down, self.cx * across, self.cy * down, height, width)

    def cropped(self, top: int, left: int, height: int, width: int) -> "Camera":
        """The camera of a part that begins `top` and `left` pixels inside the image."""
        return Camera(self.fx, self.fy, self.cx - left, self.cy - top, height, width)


NYU_CAMERA = Camera(518.8579011745019, 519.4696111212749, 325.58244941119034, 253.73616633400465)
"""The colour camera of NYU-Depth-v2, onto which its depth is projected; from the data set's toolbox."""

TOOLBOX_CROP = (427, 561)
"""Height and width after the toolbox has cut off the white frame: rows 45..471, columns 41..601."""


@dataclass(frozen=True)
class HHA:
    """An encoded frame before rounding.

    Args:
        values: (H, W, 3) float64: disparity, height in cm, angle + 38 in degrees.
        gravity: (3,) float64 unit vector, downwards, in the camera's axes (right, down, forward).
    """

    values: Floats
    gravity: Floats

    def pixels(self) -> NDArray[np.uint8]:
        """(H, W, 3) uint8: rounded, values above 255 set to 255."""
        return np.clip(np.rint(self.values), 0, 255).astype(np.uint8)


def camera_for(height: int, width: int) -> Camera:
    """NYU-Depth-v2's camera for frames of a size: scaled, or moved where the size is that of the toolbox's crop."""
    if (height, width) == TOOLBOX_CROP:
        return NYU_CAMERA.cropped(44, 40, height, width)
    return NYU_CAMERA.scaled(height, width)


def hha(depth: ArrayLike, missing: ArrayLike | None = None, camera: Camera | None = None) -> NDArray[np.uint8]:
    """Encodes a depth image.

    Args:
        depth: (H, W) metres; 0 or not finite = no depth.
        missing: (H, W) bool, pixels that take no part in normals; default: those without depth. The public encoders
            take the in-filled depth and, here, the holes of the raw one, or, as for SA-Gate's data, no holes.
        camera: Of an image of this size; default NYU-Depth-v2's, see `camera_for`.

    Returns:
        (H, W, 3) uint8: disparity, height, angle. (Tools whose first channel is blue list them as angle, height,
        disparity; the picture files are the same.)

    Raises:
        DataError: not a 2-D depth image, or one without any depth, or the sizes of depth, missing and camera differ.
    """
    return encode_hha(depth, missing, camera).pixels()


def encode_hha(depth: ArrayLike, missing: ArrayLike | None = None, camera: Camera | None = None) -> HHA:
    """As `hha`, with the values before rounding and the direction of gravity."""
    metres = np.asarray(depth, np.float64)
    if metres.ndim != 2 or not metres.size:
        raise DataError(f"HHA of a depth array of shape {metres.shape}; give one (H, W) image in metres")
    known = np.isfinite(metres) & (metres > 0)
    if not known.any():
        raise DataError("HHA of a depth image without any depth; every pixel is 0 or not finite")
    camera = camera or camera_for(*metres.shape)
    if (camera.height, camera.width) != metres.shape:
        raise DataError(
            f"HHA of a {metres.shape[1]}x{metres.shape[0]} depth image with a camera for"
            f" {camera.width}x{camera.height}; use camera.scaled(height, width), or camera.cropped(...) for a part"
        )
    if missing is not None:
        holes = np.asarray(missing, bool)
        if holes.shape != metres.shape:
            raise DataError(f"HHA: 'missing' has shape {holes.shape}, depth has {metres.shape}; they must be equal")
        valid = known & ~holes
    else:
        valid = known
    points = _points(np.where(known, metres, 0.0) * 100, camera)  # (3, H, W) cm
    normals = _normals(points, valid, _NORMAL_RADIUS)
    gravity = _gravity(_normals(points, valid, _GRAVITY_RADIUS))
    values = np.empty((*metres.shape, 3))
    values[..., 0] = _DISPARITY / np.maximum(points[2], _NEAREST_CM)
    values[..., 1] = _height(points, gravity)
    values[..., 2] = _angle(normals, gravity) + _ANGLE_SHIFT
    return HHA(values, gravity)


def _points(z: Floats, camera: Camera) -> Floats:
    """Points in space (3, H, W) of depth (H, W), in its unit."""
    height, width = z.shape
    right = (np.arange(1, width + 1) - camera.cx) / camera.fx
    down = (np.arange(1, height + 1) - camera.cy) / camera.fy
    return np.stack([right[None, :] * z, down[:, None] * z, z])


def _normals(points: Floats, valid: NDArray[np.bool_], radius: int) -> Floats:
    """Unit normals (3, H, W) of planes fitted to squares; NaN where a square holds no point.

    With a = (x/z, y/z, 1) the equations are a . n = 1/z, so the normal equations are (sum a a^T) n = sum a/z. Only n's
    direction counts: the adjugate stands for the inverse, without its division by the determinant.
    """
    z = np.where(valid, points[2], 1.0)
    kept = valid.astype(np.float64)
    p, q = kept * points[0] / z, kept * points[1] / z

    def total(values: Floats) -> Floats:
        """Sums over the squares; at the border, over the part inside."""
        # Sums of few terms, not differences of running sums: squares without points must give exactly 0.
        ones = np.ones(2 * radius + 1)
        rows = ndimage.convolve1d(values, ones, axis=0, mode="constant")
        return ndimage.convolve1d(rows, ones, axis=1, mode="constant")

    pp, pq, p1, qq, q1, n = (total(v) for v in (p * p, p * q, p, q * q, q, kept))
    bp, bq, b1 = (total(v) for v in (p / z, q / z, kept / z))
    normals = np.stack(
        [
            (qq * n - q1 * q1) * bp + (p1 * q1 - pq * n) * bq + (pq * q1 - p1 * qq) * b1,
            (p1 * q1 - pq * n) * bp + (pp * n - p1 * p1) * bq + (pq * p1 - pp * q1) * b1,
            (pq * q1 - p1 * qq) * bp + (pq * p1 - pp * q1) * bq + (pp * qq - pq * pq) * b1,
        ]
    )
    length = np.sqrt((normals * normals).sum(axis=0))
    side = np.sign((normals * points).sum(axis=0))
    side[side == 0] = np.sign(normals[2])[side == 0]  # a pixel without depth: forwards
    side[side == 0] = 1.0
    with np.errstate(invalid="ignore"):
        return np.asarray(side * normals / length)


def _gravity(normals: Floats) -> Floats:
    """Direction of gravity (3,) that fits floors and walls best."""
    known = normals.reshape(3, -1)
    known = known[:, np.isfinite(known[0])]
    down = np.array([0.0, 1.0, 0.0])
    for degrees, rounds in _ROUNDS:
        across, along = np.sin(np.radians(degrees)), np.cos(np.radians(degrees))
        for _ in range(rounds):
            cosine = np.abs(down @ known)
            floors, walls = known[:, cosine > along], known[:, cosine < across]
            if not floors.size and not walls.size:
                return down
            best = np.linalg.eigh(walls @ walls.T - floors @ floors.T)[1][:, 0]  # of the smallest eigenvalue
            down = best if down @ best >= 0 else -best
    return np.asarray(down)


def _height(points: Floats, gravity: Floats) -> Floats:
    """Height (H, W) above the lowest point, in cm."""
    # Within 0.1 degrees the public encoders do not turn the points; equal values need the same.
    level = np.degrees(np.arccos(np.clip(gravity[1], -1, 1))) <= 0.1
    height = -(points[1] if level else np.tensordot(gravity, points, 1))
    lowest = float(height.min())
    if lowest > -_CAMERA_ABOVE_LOWEST_CM:
        lowest = _FALLBACK_LOWEST_CM
    return np.asarray(height - lowest)


def _angle(normals: Floats, gravity: Floats) -> Floats:
    """Angle (H, W) between normal and gravity in degrees; 180 where there is no normal."""
    cosine = np.clip(np.tensordot(gravity, normals, 1), -1, 1)
    return np.asarray(np.where(np.isfinite(cosine), np.degrees(np.arccos(cosine)), 180.0))
