"""Segmentation of large images: overlapping tiles are blended, and only one strip of rows holds all classes.

Shapes: C channels, K classes, H x W the image as the network sees it, h x w the network's own output size.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from hs3seg.data.windows import windows
from hs3seg.errors import ConfigError

GRID = 64
"""Tiles begin at multiples of this, so that a network's strides meet the same pixels as on the whole image."""
STRIP_BYTES = 2**26
"""At most about this much is handed over at once (at least one row)."""

_TINY = torch.finfo(torch.float32).tiny

Strip = tuple[int, Tensor]
"""(top row, scores (K, rows, W) float32): the softmax over the classes gives probabilities."""
Score = Callable[[Tensor], Tensor]
"""Images (N, C, H, W) uint8 -> scores (N, K, h, w) float32 whose softmax gives probabilities, e.g. logits."""
Span = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Tiling:
    """How an image is cut.

    Args:
        height: Of a tile, a multiple of `GRID`; the last tile of a column may be up to `GRID` - 1 pixels higher.
        width: Likewise.
        overlap: Of neighbouring tiles, a multiple of `GRID` below height and width. 3/8 of it is discarded at each
            inner border of a tile, over the quarter between them the weight falls linearly. So the result equals that
            of the whole image where 3/8 of the overlap is at least the reach of the network: how far a pixel of the
            input acts.
    """

    height: int
    width: int
    overlap: int

    @classmethod
    def of(cls, tile: tuple[int, int], overlap: int | None = None) -> "Tiling":
        """From any sizes, which are rounded up to the grid.

        Args:
            tile: Height and width in pixels.
            overlap: In pixels; None = 128, or a quarter of a small tile.

        Raises:
            ConfigError: a size below 1, or an overlap that leaves no step to the next tile.
        """
        if min(tile) < 1:
            raise ConfigError(f"tile {tile[0]}x{tile[1]}; give a height and a width in pixels, e.g. 1024x1024")
        height, width = (_round_up(side) for side in tile)
        shorter = min(height, width)
        if overlap is None:
            return cls(height, width, 0 if shorter == GRID else min(128, _round_up(shorter // 4)))
        if overlap < 0 or _round_up(overlap) >= shorter:
            raise ConfigError(
                f"overlap {overlap} with tiles of {tile[0]}x{tile[1]}; allowed: 0..{shorter - GRID}, since sizes are"
                f" rounded up to multiples of {GRID} and the overlap must be smaller than the tile"
            )
        return cls(height, width, _round_up(overlap))

    def covers(self, size: tuple[int, int]) -> bool:
        """Whether one tile holds an image of (H, W)."""
        return size[0] <= self.height and size[1] <= self.width

    def strip_rows(self, height: int) -> int:
        """Rows of the accumulator for an image of this height."""
        return max(bottom - top for top, bottom in spans(height, self.height, self.overlap))


def segment_tiles(score: Score, image: Tensor, tiling: Tiling, *, align_corners: bool = False) -> Iterator[Strip]:
    """Scores of an image, tile by tile, from the top to the bottom.

    Softmax probabilities of the tiles are blended. What is held at a time: the image, one tile's scores and the
    accumulator of (K, `tiling.strip_rows(H)`, W) float32, whatever H is.

    Args:
        score: Called with single tiles (1, C, tile height, tile width).
        image: (C, H, W) uint8.
        tiling: Size and overlap.
        align_corners: How a tile's scores are enlarged, as in `F.interpolate`.

    Yields:
        Strips that cover each row once; their scores are logarithms of probabilities.
    """
    height, width = image.shape[-2:]
    rows = spans(height, tiling.height, tiling.overlap)
    columns = spans(width, tiling.width, tiling.overlap)
    row_weights = blend_weights(rows, tiling.overlap)
    column_weights = blend_weights(columns, tiling.overlap)
    strip: Tensor | None = None
    for number, (top, bottom) in enumerate(rows):
        for (left, right), across in zip(columns, column_weights, strict=True):
            scores = score(image[None, :, top:bottom, left:right])
            probabilities = _resized(scores, (bottom - top, right - left), align_corners)[0].softmax(0)
            if strip is None:
                strip = probabilities.new_zeros(len(probabilities), tiling.strip_rows(height), width)
            weights = row_weights[number][:, None] * across
            strip[:, : bottom - top, left:right] += probabilities.mul_(weights.to(strip.device))
        assert strip is not None
        done = rows[number + 1][0] if number + 1 < len(rows) else height
        step = rows_at_once(len(strip), width)
        for start in range(top, done, step):
            part = strip[:, start - top : min(start + step, done) - top]
            yield start, part.clamp(min=_TINY).log_()  # finite, so that it can be interpolated
        # The rows that the next tiles share move up.
        shared = strip[:, done - top : bottom - top].clone()
        strip[:, : bottom - done] = shared
        strip[:, bottom - done :] = 0
        del shared


def segment_whole(scores: Tensor, size: tuple[int, int], *, align_corners: bool = False) -> Iterator[Strip]:
    """Scores at another size, by strips: all classes at full resolution are never held at once.

    Args:
        scores: (K, h, w).
        size: (H, W).
        align_corners: As in `F.interpolate`.

    Yields:
        Strips of bilinear values, from the top to the bottom.
    """
    step = rows_at_once(len(scores), size[1])
    if step >= size[0]:
        yield 0, _resized(scores[None].float(), size, align_corners)[0]
        return
    height = scores.shape[-2]
    for top in range(0, size[0], step):
        bottom = min(top + step, size[0])
        rows = torch.arange(top, bottom, device=scores.device)
        if align_corners:
            at = rows * ((height - 1) / max(size[0] - 1, 1))
        else:
            at = ((rows + 0.5) * (height / size[0]) - 0.5).clamp(min=0)
        upper = at.long()
        lower = (upper + 1).clamp(max=height - 1)
        part = torch.lerp(scores[:, upper].float(), scores[:, lower].float(), (at - upper)[:, None])  # (K, rows, w)
        yield top, _resized(part[None], (bottom - top, size[1]), align_corners)[0]


def spans(length: int, tile: int, overlap: int) -> list[Span]:
    """Begin and end of the tiles along one axis; all begin on the grid, and the last one ends with the image."""
    if length <= tile:
        return [(0, length)]
    # Counted in cells of the grid; what the image has beyond its last whole cell goes to the last tile.
    found = windows((length // GRID, 1), (tile // GRID, 1), ((tile - overlap) // GRID, 1))
    starts = [GRID * top for top, *_ in found]
    return [*((start, start + tile) for start in starts[:-1]), (starts[-1], length)]


def blend_weights(parts: Sequence[Span], overlap: int) -> list[Tensor]:
    """Weight of each tile's pixels along one axis, (length of the tile,) float32 each; they add up to 1 everywhere."""
    margin = 3 * overlap // 8
    ramp = max(1, overlap - 2 * margin)
    end = parts[-1][1]
    weights = []
    for start, stop in parts:
        place = torch.arange(stop - start) + 0.5
        before = (place - margin) / ramp if start > 0 else torch.ones(len(place))
        after = (stop - start - place - margin) / ramp if stop < end else torch.ones(len(place))
        weights.append(torch.minimum(before, after).clamp(0, 1))
    total = torch.zeros(end)
    for (start, stop), weight in zip(parts, weights, strict=True):
        total[start:stop] += weight
    return [weight / total[start:stop] for (start, stop), weight in zip(parts, weights, strict=True)]


def rows_at_once(num_classes: int, width: int) -> int:
    """Rows of a strip of about `STRIP_BYTES`."""
    return max(1, STRIP_BYTES // (4 * num_classes * width))


def _resized(scores: Tensor, size: tuple[int, int], align_corners: bool = False) -> Tensor:
    if tuple(scores.shape[-2:]) == size:
        return scores
    return F.interpolate(scores, size=size, mode="bilinear", align_corners=align_corners)


def _round_up(pixels: int) -> int:
    return -(-pixels // GRID) * GRID
