"""Bilinear enlarging in strips of rows; the enlarged maps are never held as a whole.

A strip fits into the processor's cache, where each step is many times as fast as on maps that are fetched from memory.
Interpolation along an axis is a product with a small matrix, so all steps are ordinary tensor operations.
Shapes: N images, n of them seen at once, k groups, h x w the small size, H x W the large one; a strip has R of the H
rows, made from L of the h. It is laid out (R, n, k, W), so that rows and columns both are products of matrices.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

# Numbers in a strip. On a CPU it has to stay in the cache; elsewhere it has to be worth a kernel's launch.
_CPU_STRIP, _STRIP = 2**20, 2**24
_LEAST_ROWS = 8  # of a strip, even if it is larger then: neighbouring strips both need the row between them
_ENOUGH_ROWS = 24  # of a strip: with more, products of matrices are mostly zeros; rather more images at once
_LOWEST = -60.0  # logit below which e^logit comes near to the smallest normal float32, e^-87
_CPU_COLUMNS = 128  # made by one product: enough for the kernel, few enough that many of its weights are not zero


@dataclass(frozen=True)
class Block:
    """Some neighbouring rows (or columns) of the large map, and those of the small one that they are made from.

    Args:
        large: Their range, of length R.
        small: Range of their sources, of length L.
        weights: (L, R) of linear interpolation; None where both maps have the same size.
    """

    large: slice
    small: slice
    weights: Tensor | None

    def enlarge(self, small: Tensor, out: Tensor) -> None:
        """Rows, (L, X) -> (R, X)."""
        if self.weights is None:
            out.copy_(small)
        else:
            torch.mm(self.weights.t(), small, out=out)

    def reduce(self, large: Tensor, out: Tensor) -> None:
        """The transpose of `enlarge`, (R, X) -> (L, X)."""
        if self.weights is None:
            out.copy_(large)
        else:
            torch.mm(self.weights, large, out=out)


@lru_cache(maxsize=64)
def blocks(
    small: int, large: int, align_corners: bool, most: int, dtype: torch.dtype, device: torch.device
) -> tuple[Block, ...]:
    """An axis of `large` rows made from `small`, cut into blocks of about `most` rows."""
    if small == large:
        parts = [slice(start, min(start + most, large)) for start in range(0, large, most)]
        return tuple(Block(part, part, None) for part in parts)
    first, share = _sources(small, large, align_corners, dtype)
    sources = most * small // large
    # Rows between the same sources stay together, where a block has room for them.
    key = first // sources if sources else torch.arange(large) // most
    found, start = [], 0
    for rows in torch.unique_consecutive(key, return_counts=True)[1].tolist():
        part = slice(start, start + rows)
        low, high = int(first[start]), min(int(first[start + rows - 1]) + 1, small - 1)
        place, row = first[part] - low, torch.arange(rows)
        weights = torch.zeros(high - low + 1, rows, dtype=dtype)
        weights[place, row] = 1 - share[part]
        weights[(place + 1).clamp(max=high - low), row] += share[part]
        found.append(Block(part, slice(low, high + 1), weights.to(device)))
        start += rows
    return tuple(found)


def _sources(small: int, large: int, align_corners: bool, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Of each large row the earlier source and the share of the later one, in the precision of `F.interpolate`."""
    row = torch.arange(large, dtype=dtype)
    if align_corners:
        place = row * (torch.tensor(small - 1, dtype=dtype) / max(large - 1, 1))
    else:
        place = ((row + 0.5) * (torch.tensor(small, dtype=dtype) / large) - 0.5).clamp(min=0)
    first = place.long().clamp(max=small - 1)
    return first, (place - first).clamp(0, 1)


class Strips:
    """A batch enlarged strip by strip. Not for autograd.

    Args:
        maps: (N, k, h, w), any precision and layout.
        size: (H, W).
        align_corners: As in `F.interpolate`.
        numbers: In a strip; default by device.
    """

    def __init__(
        self, maps: Tensor, size: tuple[int, int], align_corners: bool = False, numbers: int | None = None
    ) -> None:
        self.maps = maps.detach()
        self.dtype = torch.float64 if maps.dtype == torch.float64 else torch.float32
        count, k, h, w = maps.shape
        height, self.width = size
        on_cpu, least = maps.device.type == "cpu", 1
        if numbers is None:
            numbers, least = (_CPU_STRIP if on_cpu else _STRIP), _LEAST_ROWS
        # Seen at once.
        self.images = max(1, min(count, numbers // (min(height, _ENOUGH_ROWS) * k * self.width)))
        row = self.images * k * self.width
        self.rows = blocks(h, height, align_corners, max(least, numbers // row), self.dtype, maps.device)
        columns = _CPU_COLUMNS if on_cpu else self.width
        self.columns = blocks(w, self.width, align_corners, columns, self.dtype, maps.device)
        self._wide = maps.new_empty(max(length(block.small) for block in self.rows) * row, dtype=self.dtype)
        self._large = maps.new_empty(max(length(block.large) for block in self.rows) * row, dtype=self.dtype)
        # Views are made once: making them for each of some hundred small products takes as long as these.
        self._wide_parts: dict[int, list[Tensor]] = {}
        self._group: slice | None = None
        self._out: Tensor | None = None

    def groups(self) -> Iterator[slice]:
        """Ranges of images that are seen at once."""
        for start in range(0, len(self.maps), self.images):
            yield slice(start, min(start + self.images, len(self.maps)))

    def small(self, group: slice) -> Tensor:
        """The small maps (h, n, k, w), each pixel moved so that its largest logit is zero.

        That changes no probability and no arg max, and keeps rounding small where all logits of a pixel are large.
        """
        if group != self._group:
            maps = self.maps[group].permute(2, 0, 1, 3)
            small = torch.empty(maps.shape, dtype=self.dtype, device=maps.device).copy_(maps)
            self._small = small.sub_(small.amax(2, keepdim=True))
            self._small_parts = self._in_columns(self._small)
            self._group = group
        return self._small

    def exponentials_are_normal(self, group: slice) -> bool:
        """Whether e^logit of every enlarged pixel of `small` is far from the smallest number.

        Enlarged logits lie between the smallest of the small ones and zero. Elsewhere than on a CPU nobody looks: it
        would have to wait for the device.
        """
        return self.maps.device.type == "cpu" and float(self.small(group).amin()) > _LOWEST

    def enlarge(self, group: slice, block: Block) -> Tensor:
        """A strip (R, n, k, W), in the buffer that the next one is written to."""
        _, n, k, _ = self.small(group).shape
        lines = slice(block.small.start * n * k, block.small.stop * n * k)
        wide = self._wide_lines(length(lines))
        for column, part, out in zip(self.columns, self._small_parts, wide, strict=True):
            if column.weights is None:
                out.copy_(part[lines])
            else:
                torch.mm(part[lines], column.weights, out=out)
        rows = length(block.large)
        large = self._large[: rows * n * k * self.width]
        block.enlarge(self._wide[: length(lines) * self.width].view(length(block.small), -1), large.view(rows, -1))
        return large.view(rows, n, k, self.width)

    def reduce(self, strip: Tensor, block: Block, out: Tensor) -> None:
        """Adds the gradient of a strip (R, n, C, W) to that of the small maps (h, n, C, w); C is k or 1."""
        if out is not self._out:
            self._out, self._out_parts = out, self._in_columns(out)
        each = out.shape[1] * out.shape[2]
        lines = slice(block.small.start * each, block.small.stop * each)
        wide = self._wide[: length(lines) * self.width]
        block.reduce(strip.reshape(length(block.large), -1), wide.view(length(block.small), -1))
        for column, part, large in zip(self.columns, self._out_parts, self._wide_lines(length(lines)), strict=True):
            if column.weights is None:
                part[lines].add_(large)
            else:
                part[lines].addmm_(large, column.weights.t())

    def _in_columns(self, small: Tensor) -> list[Tensor]:
        """Of small maps (h, n, C, w) the columns that each block of columns is made from: (h n C, some)."""
        flat = small.view(-1, small.shape[-1])
        return [flat[:, column.small] for column in self.columns]

    def _wide_lines(self, lines: int) -> list[Tensor]:
        """Of so many lines of the buffer that is wide already the blocks of columns: (lines, some)."""
        if lines not in self._wide_parts:
            flat = self._wide[: lines * self.width].view(-1, self.width)
            self._wide_parts[lines] = [flat[:, column.large] for column in self.columns]
        return self._wide_parts[lines]


def length(part: slice) -> int:
    """Of a slice that has both ends."""
    return int(part.stop - part.start)


@contextmanager
def in_full_precision(device: str) -> Iterator[None]:
    """Products of float32 matrices are rounded to less by autocast, and where TF32 or bfloat16 are allowed."""
    matmul: Any = torch.backends.cuda.matmul if device == "cuda" else getattr(torch.backends.mkldnn, "matmul", None)
    name, full = ("fp32_precision", "ieee") if hasattr(matmul, "fp32_precision") else ("allow_tf32", False)
    before = getattr(matmul, name, full)
    with torch.autocast(device, enabled=False), torch.no_grad():
        if before in (full, "none"):
            yield
            return
        setattr(matmul, name, full)
        try:
            yield
        finally:
            setattr(matmul, name, before)
