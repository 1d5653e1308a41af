import weakref
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from hs3seg.engine import tiles
from hs3seg.engine.tiles import GRID, Tiling, blend_weights, segment_tiles, segment_whole, spans
from hs3seg.errors import ConfigError


class LiveBytes(TorchDispatchMode):
    """Counts the storage of the tensors that were made in it and are still alive."""

    def __init__(self, *known: Tensor) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._seen = {tensor.untyped_storage()._cdata for tensor in known}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(out):
            if isinstance(tensor, Tensor):
                storage = tensor.untyped_storage()
                if storage._cdata not in self._seen:
                    self._seen.add(storage._cdata)
                    self.now += storage.nbytes()
                    self.peak = max(self.peak, self.now)
                    weakref.finalize(storage, self._gone, storage._cdata, storage.nbytes())
        return out

    def _gone(self, key: int, size: int) -> None:
        self._seen.discard(key)
        self.now -= size


def strided_network(classes: int = 3) -> nn.Module:
    """Logits at 1/4, as HRNet; a pixel reaches 1 + 2 + 4 pixels, and the upsampling 4 more."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 6, 3, 2, 1), nn.ReLU(), nn.Conv2d(6, 6, 3, 2, 1), nn.ReLU(), nn.Conv2d(6, classes, 3, 1, 1)
    ).eval()


def image(height: int, width: int) -> Tensor:
    return torch.from_numpy(np.random.default_rng(0).integers(0, 256, (3, height, width), np.uint8))


def joined(strips: Any) -> Tensor:
    """All strips as one, after a check that they follow each other."""
    parts = []
    row = 0
    for top, scores in strips:
        assert top == row
        row += scores.shape[1]
        parts.append(scores.clone())
    return torch.cat(parts, dim=1)


@given(st.integers(1, 1500), st.integers(1, 8), st.data())
def test_tiles_lie_on_the_grid_and_share_their_overlap(length: int, cells: int, data: Any) -> None:
    overlap = GRID * data.draw(st.integers(0, cells - 1))
    tile = GRID * cells
    found = spans(length, tile, overlap)
    assert found[0][0] == 0
    assert found[-1][1] == length
    for (_, stop), (start, _) in pairwise(found):
        assert stop - start >= overlap
    assert all(start % GRID == 0 for start, _ in found)
    assert all(stop - start < tile + GRID for start, stop in found)


@given(st.integers(1, 1500), st.integers(1, 8), st.data())
def test_weights_add_up_to_one_and_fall_to_the_inner_borders(length: int, cells: int, data: Any) -> None:
    overlap = GRID * data.draw(st.integers(0, cells - 1))
    parts = spans(length, GRID * cells, overlap)
    total = torch.zeros(length)
    for (start, stop), weight in zip(parts, blend_weights(parts, overlap), strict=True):
        assert weight.min() >= 0
        total[start:stop] += weight
        margin = 3 * overlap // 8
        assert start == 0 or not weight[:margin].any()
        assert stop == length or not weight[len(weight) - margin :].any()
    torch.testing.assert_close(total, torch.ones(length))


@pytest.mark.parametrize("size", [(320, 448), (332, 252), (64, 700), (640, 132)])
def test_tiles_equal_the_whole_image_where_the_network_reaches_less_than_the_overlap(size: tuple[int, int]) -> None:
    net = strided_network()
    pixels = image(*size)

    def score(images: Tensor) -> Tensor:
        return net(images.float() / 64 - 2)

    with torch.inference_mode():
        whole = F.interpolate(score(pixels[None]), size=size, mode="bilinear", align_corners=False)[0].softmax(0)
        tiled = joined(segment_tiles(score, pixels, Tiling.of((128, 192), 64))).exp()
    assert tiled.shape == whole.shape
    torch.testing.assert_close(tiled, whole, rtol=1e-5, atol=1e-6)


def test_a_network_of_single_pixels_is_tiled_exactly_at_any_size() -> None:
    def score(images: Tensor) -> Tensor:
        return images.float() / 32

    pixels = image(301, 277)
    for tiling in (Tiling(64, 64, 0), Tiling(128, 64, 0), Tiling(192, 256, 128)):
        tiled = joined(segment_tiles(score, pixels, tiling)).exp()
        torch.testing.assert_close(tiled, (pixels.float() / 32).softmax(0), rtol=1e-5, atol=1e-7)


def peak_bytes(height: int, width: int, tiling: Tiling) -> int:
    """Live bytes while the strips of an image are taken, the image itself not counted."""
    net = strided_network(19)
    pixels = image(height, width)
    with torch.inference_mode(), LiveBytes(pixels) as live:
        for _strip in segment_tiles(lambda images: net(images.float()), pixels, tiling):
            pass
    return live.peak


def test_memory_depends_on_the_tile_and_the_width_and_not_on_the_height(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiles, "STRIP_BYTES", 2**18)
    tiling = Tiling(128, 128, 64)
    low, high = peak_bytes(256, 300, tiling), peak_bytes(1280, 300, tiling)
    assert high <= low * 1.01
    accumulator = 4 * 19 * 300 * tiling.strip_rows(256)
    assert accumulator < high < accumulator + 3 * 4 * 19 * 192 * 192 + 4 * 19 * 64 * 300 + 2**19
    assert high < 4 * 19 * 1280 * 300  # all classes of the whole image would be more


@settings(max_examples=30)
@given(*[st.integers(1, most) for most in (40, 40, 90, 90, 6)], st.booleans())
def test_strips_of_the_whole_equal_one_interpolation(
    h: int, w: int, height: int, width: int, rows: int, align_corners: bool
) -> None:
    scores = torch.from_numpy(np.random.default_rng(0).normal(size=(3, h, w)).astype(np.float32))
    whole = F.interpolate(scores[None], size=(height, width), mode="bilinear", align_corners=align_corners)[0]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tiles, "STRIP_BYTES", rows * 4 * 3 * width)
        strips = list(segment_whole(scores, (height, width), align_corners=align_corners))
    assert len(strips) == -(-height // rows)
    torch.testing.assert_close(joined(strips), whole, rtol=1e-5, atol=1e-5)


def test_sizes_are_rounded_up_to_the_grid() -> None:
    assert Tiling.of((1000, 513)) == Tiling(1024, 576, 128)
    assert Tiling.of((200, 300), 65) == Tiling(256, 320, 128)
    assert Tiling.of((10, 10)) == Tiling(64, 64, 0)
    assert Tiling.of((128, 128)) == Tiling(128, 128, 64)
    assert Tiling(128, 64, 0).covers((128, 64))
    assert not Tiling(128, 64, 0).covers((128, 65))


@pytest.mark.parametrize(
    ("tile", "overlap", "message"),
    [
        ((0, 128), None, "tile 0x128; give a height and a width"),
        ((128, 128), 128, r"overlap 128 with tiles of 128x128; allowed: 0..64"),
        ((128, 128), -1, "allowed: 0..64"),
    ],
)
def test_tiles_that_make_no_sense(tile: tuple[int, int], overlap: int | None, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Tiling.of(tile, overlap)
