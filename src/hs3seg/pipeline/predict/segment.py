"""A trained network on images of any size, whole or in tiles as the memory allows.

Shapes: N images, C channels, K classes; H x W an image's own size, h x w the size at which the network sees it.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torchvision.transforms.v2 import functional as tvf

from hs3seg.builders import Trained
from hs3seg.engine import Runtime
from hs3seg.engine.tiles import STRIP_BYTES, Strip, Tiling, segment_tiles, segment_whole
from hs3seg.errors import DataError
from hs3seg.nn.resize import aligns_corners
from hs3seg.pipeline.predict.memory import peak_activation_bytes

Forward = Callable[[Tensor], Tensor]
"""Normalised images (N, C, h, w) -> scores (N, K, h', w') whose softmax over the classes gives probabilities."""
Protocol = Callable[[nn.Module], Forward]
"""Makes the forward pass of a network, e.g. one with several scales and flips."""

Size = tuple[int, int]
_TILE_SIDES = (1024, 768, 512, 384, 256)  # larger ones were slower on a processor
_READ_BYTES = 11  # per pixel: Pillow's image and its copy, 4 each, and the array
_WRITE_BYTES = 9  # per pixel: ids, colours, and Pillow's copy of them
_COUNTED_STEP = 128
_GIB = 2**30


@dataclass(frozen=True, slots=True)
class Layout:
    """How images of one size are segmented.

    Args:
        tiling: None = whole.
        batch_size: Images at once.
        need_bytes: Estimated need of the whole image; None where a tile was asked for, so that nothing was estimated.
    """

    tiling: Tiling | None
    batch_size: int
    need_bytes: int | None


class Segmenter:
    """Scores of images, strip by strip.

    Args:
        trained: The network; the heads of its stages are dropped.
        runtime: Device and precision.
        batch_size: Images at once, where memory allows.
        tiling: Taken for every image that is larger than a tile; None = only where an image needs more memory.
        memory_bytes: That the working memory shall stay below; the network's weights and the libraries come on top.
        protocol: Another forward pass; None = the network's own.
    """

    def __init__(
        self,
        trained: Trained,
        runtime: Runtime,
        *,
        batch_size: int,
        tiling: Tiling | None,
        memory_bytes: int,
        protocol: Protocol | None = None,
    ) -> None:
        self._runtime = runtime
        self._network = runtime.place(trained.model.strip()).eval()
        self._forward: Forward = self._network if protocol is None else protocol(self._network)
        self._align_corners = aligns_corners(self._network)
        self._mean, self._std = trained.mean.to(runtime.device), trained.std.to(runtime.device)
        self._resize = trained.config.augment.resize
        self._classes = trained.taxonomy.num_classes
        self._batch_size, self._tiling, self._memory = batch_size, tiling, memory_bytes
        self._layouts: dict[Size, Layout] = {}
        self._counted: dict[Size, int] = {}

    @property
    def channels(self) -> int:
        """C, of RGB and what follows."""
        return len(self._mean)

    def network_size(self, image: Tensor) -> Size:
        """(h, w) of an image (C, H, W)."""
        return self._resize or (image.shape[-2], image.shape[-1])

    def layout(self, size: Size) -> Layout:
        """How images of (H, W) are segmented.

        Raises:
            DataError: not even the smallest tiles fit into the memory.
        """
        if size not in self._layouts:
            self._layouts[size] = self._lay_out(size)
        return self._layouts[size]

    def segment(self, images: Sequence[Tensor], tiling: Tiling | None) -> Iterator[Iterator[Strip]]:
        """Strips of scores (K, rows, W) of every image (C, H, W) uint8, one image after the other.

        Args:
            images: Of one network size.
            tiling: Of their layout.
        """
        if tiling is None:
            scores = self._score(torch.stack([self._resized(image) for image in images]))
            for image, own in zip(images, scores, strict=True):
                # Scores of several looks have the size that the network saw: enlarging them is of images.
                small = _size_of(own) != self.network_size(image)
                yield segment_whole(own, _size_of(image), align_corners=self._align_corners and small)
            return
        for image in images:
            strips = segment_tiles(self._score, self._resized(image), tiling, align_corners=self._align_corners)
            if self._resize is None:
                yield strips
            else:  # the resize bounds what is kept
                yield segment_whole(torch.cat([scores for _, scores in strips], dim=1), _size_of(image))

    def _score(self, images: Tensor) -> Tensor:
        with self._runtime.accelerator.autocast():
            return self._forward(self._runtime.images(images, self._mean, self._std)).float()

    def _resized(self, image: Tensor) -> Tensor:
        """As `EvaluationTransform` does it."""
        if self._resize is None or _size_of(image) == self._resize:
            return image
        resized: Tensor = tvf.resize(image, list(self._resize), antialias=True)
        return resized

    def _lay_out(self, size: Size) -> Layout:
        seen = self._resize or size
        if self._tiling is not None:
            return Layout(None if self._tiling.covers(seen) else self._tiling, self._batch_size, None)
        around = _READ_BYTES * size[0] * size[1]
        held = (self.channels + _WRITE_BYTES) * size[0] * size[1]
        held += 0 if self._resize is None else self.channels * seen[0] * seen[1]
        one = self._pass_bytes(seen)
        need = max(around, held + one + 3 * STRIP_BYTES)
        if need <= self._memory:
            further = (self._memory - need) // (self.channels * size[0] * size[1] + one)
            return Layout(None, min(self._batch_size, 1 + further), need)
        smallest = need
        for side in _TILE_SIDES:
            tiling = Tiling.of((side, side))
            if tiling.covers(seen):
                continue
            smallest = max(around, held + self._tiles_bytes(tiling, seen))
            if smallest <= self._memory:
                return Layout(tiling, 1, need)
        raise DataError(
            f"an image of {size[1]}x{size[0]} pixels needs about {smallest / _GIB:.2f} GiB with this network, also in"
            f" small tiles, and {self._memory / _GIB:.2f} GiB are allowed; allow more with memory_gib"
        )

    def _pass_bytes(self, size: Size) -> int:
        """Of one image in the network: the input in float32, twice while it is normalised, and the activations.

        Counted for sides rounded up, since a folder may have as many sizes as images.
        """
        height, width = (-(-side // _COUNTED_STEP) * _COUNTED_STEP for side in size)
        if (height, width) not in self._counted:
            shape = (1, self.channels, height, width)
            activations = peak_activation_bytes(self._network, self._forward, shape)
            self._counted[height, width] = 8 * self.channels * height * width + activations
        return self._counted[height, width]

    def _tiles_bytes(self, tiling: Tiling, size: Size) -> int:
        tile = (min(tiling.height, size[0]), min(tiling.width, size[1]))
        value = 4 * self._classes  # bytes of a pixel's scores
        strip = value * size[1] * (tiling.strip_rows(size[0]) + tiling.overlap)
        # The tile's scores, resized, as probabilities and weighted.
        total = self._pass_bytes(tile) + 3 * value * tile[0] * tile[1] + strip + 2 * STRIP_BYTES
        return total + (0 if self._resize is None else 2 * value * size[0] * size[1])


def _size_of(image: Tensor) -> Size:
    return image.shape[-2], image.shape[-1]
