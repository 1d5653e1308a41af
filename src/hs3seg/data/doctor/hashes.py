"""Fingerprints of images: equal pixels have equal digests, nearly equal pictures have near signatures."""

import hashlib
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from PIL import Image

# Measured on CamVid and NYU-Depth-v2. JPEG quality 60, half size, half size + JPEG 75, 10 % brighter, and the last
# three together move at most 38 of the 512 difference bits and 6 of the 63 frequency bits, and the thumbnail by at most
# 0.071 of its standard deviation; flat drawings move by up to 68 bits. Neighbouring frames at 15 Hz differ by 26
# bits or more, 42 in the median. No two images of different splits are nearer than 110 bits and 12 frequency bits.
MAX_DIFFERENCE_BITS = 64
MAX_FREQUENCY_BITS = 6
MAX_THUMBNAIL = 0.08
SAME_VIEW_BITS = 22
"""Difference bits up to which two frames of one sequence show the same, as of a camera that stands still."""
_FLAT = 2.0  # grey levels of standard deviation below which a thumbnail says nothing
_ROWS = 512  # signatures that are compared with all others at once


def digest(values: NDArray[np.generic]) -> bytes:
    """16 bytes that are equal for equal arrays of one type."""
    hashed = hashlib.blake2b(np.ascontiguousarray(values).data, digest_size=16)
    hashed.update(repr(values.shape).encode())
    return hashed.digest()


def signature(image: NDArray[np.uint8]) -> tuple[NDArray[np.uint64], NDArray[np.uint8]] | None:
    """What a picture looks like, whatever its size and compression.

    Args:
        image: (H, W, 3) RGB.

    Returns:
        9 words: 512 bits of a difference hash (16x16, brighter than the left and the upper neighbour), 64 bits of a
        frequency hash (the lowest 8x8 of a 32x32 cosine transform against their median, without the mean); and a
        thumbnail (16, 16). None for a flat image, whose bits would be noise.
    """
    grey = Image.fromarray(image).convert("L")
    across = np.asarray(grey.resize((17, 16), Image.Resampling.BOX), np.int16)
    down = np.asarray(grey.resize((16, 17), Image.Resampling.BOX), np.int16)
    thumbnail = np.asarray(grey.resize((16, 16), Image.Resampling.BOX))
    if thumbnail.std() < _FLAT:
        return None
    low = (_COSINES @ np.asarray(grey.resize((32, 32), Image.Resampling.BOX), np.float64) @ _COSINES.T).ravel()
    frequency = low > np.median(low[1:])
    frequency[0] = False
    bits = np.concatenate([(np.diff(across, axis=1) > 0).ravel(), (np.diff(down, axis=0) > 0).ravel(), frequency])
    return np.packbits(bits).view(np.uint64), thumbnail


def near_pairs(words: NDArray[np.uint64], thumbnails: NDArray[np.uint8]) -> Iterator[tuple[int, int, int]]:
    """Pairs of nearly equal pictures, by brute force in bounded memory.

    Args:
        words: (N, 9) signatures.
        thumbnails: (N, 16, 16) of the same pictures.

    Yields:
        (i, j, difference bits of 512), i < j, in order.
    """
    flat = thumbnails.reshape(len(thumbnails), -1)
    for start in range(0, len(words), _ROWS):
        rows = words[start : start + _ROWS]
        # The cheap hash first: one word instead of nine for the pairs that are far apart, i.e. nearly all.
        apart = np.bitwise_count(rows[:, None, 8] ^ words[None, start:, 8])
        for i, j in np.argwhere(apart <= MAX_FREQUENCY_BITS).tolist():
            if i < j:
                first, second = start + i, start + j
                bits = int(np.bitwise_count(words[first, :8] ^ words[second, :8]).sum())
                if bits <= MAX_DIFFERENCE_BITS and _thumbnail_distance(flat[first], flat[second]) <= MAX_THUMBNAIL:
                    yield first, second, bits


def _thumbnail_distance(first: NDArray[np.uint8], second: NDArray[np.uint8]) -> float:
    """Mean difference after both have mean 0 and standard deviation 1, i.e. whatever their brightness and contrast."""
    a, b = (values.astype(np.float64) for values in (first, second))
    return float(np.abs((a - a.mean()) / a.std() - (b - b.mean()) / b.std()).mean())


def _cosines() -> NDArray[np.float64]:
    """First 8 rows of the cosine transform (type 2) of 32 values."""
    k, n = np.arange(8)[:, None], np.arange(32)[None]
    return np.asarray(np.cos(np.pi * k * (2 * n + 1) / 64), np.float64)


_COSINES = _cosines()
