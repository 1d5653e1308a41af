"""Augmentation for training and the resize of evaluation, on torchvision's transforms v2.

Images have C channels. What moves pixels treats all alike, so depth is resampled bilinearly too: at the edge of an
object a value between the near and the far one may come out. Depth values do not change with the scale. Colour and blur
change the first three channels only.

Images stay uint8: normalisation is done on the device. Random numbers come from torch's global generator, which the
loader seeds per sample. A sample is never written to: its tensors may be views of a cache.
"""

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as tvf

from hs3seg.data.colour import blurred, jittered
from hs3seg.data.sample import Sample
from hs3seg.errors import DataError

FILL = (124, 116, 104)
"""Colour of padding: ImageNet's mean, which normalises to about zero."""
_DEPTH_FILL = 115  # padding of further channels: about zero for a network that has the mean of ImageNet's there
_BLUR_PROBABILITY = 0.5

ScaleLaw = Literal["log", "uniform"]


class TrainTransform:
    """Random scale, crop, flip, colour and blur.

    Only the part of the image that the crop shows is resampled. Where the scaled image is smaller than the crop it is
    padded with the mean colour and the ignore label.

    Args:
        crop: (height, width) of the result.
        resize: (height, width) every image counts as having, before the random scale.
        scale: Range of the scale factor.
        flip: Probability of a horizontal flip.
        color_jitter: Brightness, contrast, saturation, hue of RGB; None = off.
        ignore_index: Label of padding.
        scale_choices: Scale factors to draw from with equal chances, instead of `scale`.
        scale_law: `log` draws from `scale` log-uniformly: halving is as likely as doubling; `uniform` as it says.
        blur: Range of the standard deviation, in pixels of the crop, of a Gaussian blur of RGB that every second image
            gets; None = off.

    Raises:
        DataError: a range or choice that cannot be drawn from.
    """

    def __init__(
        self,
        crop: tuple[int, int],
        resize: tuple[int, int] | None = None,
        scale: tuple[float, float] = (0.5, 2.0),
        flip: float = 0.5,
        color_jitter: Sequence[float] | None = None,
        ignore_index: int = 255,
        *,
        scale_choices: Sequence[float] | None = None,
        scale_law: ScaleLaw = "log",
        blur: tuple[float, float] | None = None,
    ) -> None:
        if scale_choices is not None and (not scale_choices or min(scale_choices) <= 0):
            raise DataError(f"scale choices {list(scale_choices)} cannot be drawn from; give at least one, all above 0")
        if scale_law not in ("log", "uniform"):
            raise DataError(f"scale law '{scale_law}' does not exist; allowed: log, uniform")
        if blur is not None and not 0 < blur[0] <= blur[1]:
            raise DataError(f"blur {list(blur)} is no range of standard deviations; give 0 < low <= high, in pixels")
        self.crop, self.resize, self.scale, self.flip = crop, resize, scale, flip
        self.ignore_index = ignore_index
        self.scale_choices = tuple(scale_choices) if scale_choices is not None else None
        self.scale_law, self.blur = scale_law, blur
        self._jitter = v2.ColorJitter(*color_jitter) if color_jitter and any(color_jitter) else None

    def __call__(self, sample: Sample, center: tuple[float, float] | None = None) -> tuple[Tensor, Tensor]:
        """Augments a sample.

        Args:
            sample: Of any size; not written to.
            center: (y, x) in pixels of the sample, where (0, 0) is the middle of the first pixel: the crop covers this
                place. None = anywhere.

        Returns:
            Image (C, h, w) uint8 and mask (h, w) int64 of the crop's size.
        """
        image, mask = self.compact(sample, center)
        return image, mask.to(torch.int64)

    def compact(self, sample: Sample, center: tuple[float, float] | None = None) -> tuple[Tensor, Tensor]:
        """Like a call, but the mask keeps its data type: uint8 labels of a cache stay as small as they are."""
        height, width = sample.image.shape[-2:]
        full = self.resize or (height, width)
        factor = self._factor()
        size = [max(1, round(side * factor)) for side in full]
        seen = _scaled(center, (height, width), size)
        # Place of the crop in the scaled image; negative = the image is smaller and is padded.
        top, left = (_offset(have, want, at) for have, want, at in zip(size, self.crop, seen, strict=True))
        box_top, box_left = max(top, 0), max(left, 0)
        box = [min(have, want) for have, want in zip(size, self.crop, strict=True)]
        # The same box in the pixels of the file: cut first, so that only these are resampled.
        y0, y1 = box_top * height / size[0], (box_top + box[0]) * height / size[0]
        x0, x1 = box_left * width / size[1], (box_left + box[1]) * width / size[1]
        rows = slice(int(y0), max(int(y0) + 1, round(y1)))
        columns = slice(int(x0), max(int(x0) + 1, round(x1)))
        image = resize_image(sample.image.as_subclass(Tensor)[:, rows, columns], box)
        mask = resize_labels(sample.mask.as_subclass(Tensor)[rows, columns], box)
        image = self._colour(image)
        if float(torch.rand(())) < self.flip:
            image, mask = image.flip(-1), mask.flip(-1)
        return self._pad(image, mask, max(-top, 0), max(-left, 0))

    def _factor(self) -> float:
        if self.scale_choices is not None:
            return self.scale_choices[int(torch.randint(0, len(self.scale_choices), ()))]
        low, high = self.scale
        draw = float(torch.rand(()))
        return low * (high / low) ** draw if self.scale_law == "log" else low + (high - low) * draw

    def _colour(self, image: Tensor) -> Tensor:
        if self._jitter is None and self.blur is None:
            return image
        colour = image[:3]
        if self._jitter is not None:
            colour = jittered(colour, self._jitter)
        if self.blur is not None and float(torch.rand(())) < _BLUR_PROBABILITY:
            colour = blurred(colour, float(torch.empty(()).uniform_(*self.blur)))
        return colour if len(image) == 3 else torch.cat([colour, image[3:]])

    def _pad(self, image: Tensor, mask: Tensor, top: int, left: int) -> tuple[Tensor, Tensor]:
        height, width = image.shape[-2:]
        if (height, width) == self.crop:
            return image.contiguous(), mask.contiguous()
        fill = torch.tensor([*FILL, *[_DEPTH_FILL] * (len(image) - 3)], dtype=torch.uint8)
        whole = fill.view(-1, 1, 1).repeat(1, *self.crop)
        small = mask.dtype == torch.uint8 and 0 <= self.ignore_index <= 255
        labels = torch.full(self.crop, self.ignore_index, dtype=torch.uint8 if small else torch.int64)
        whole[:, top : top + height, left : left + width] = image
        labels[top : top + height, left : left + width] = mask
        return whole, labels


class EvaluationTransform:
    """Resizes the image to the network's size; the mask stays at label resolution.

    Args:
        resize: (height, width), or None for the image's own size.
    """

    def __init__(self, resize: tuple[int, int] | None = None) -> None:
        self.resize = resize

    def __call__(self, sample: Sample) -> tuple[Tensor, Tensor]:
        """Image (C, h, w) uint8 and mask (H, W) int64."""
        image, mask = self.compact(sample)
        return image, mask.to(torch.int64)

    def compact(self, sample: Sample) -> tuple[Tensor, Tensor]:
        """Like a call, but the mask keeps its data type."""
        image = sample.image.as_subclass(Tensor)
        if self.resize is not None and tuple(image.shape[-2:]) != self.resize:
            image = resize_image(image, list(self.resize))
        return image, sample.mask.as_subclass(Tensor)


def resize_image(image: Tensor, size: Sequence[int]) -> Tensor:
    """Bilinear with antialiasing, as torchvision's; (C, H, W) uint8 in, (C, h, w) contiguous out.

    The same values come out of planar pixels and of a (H, W, C) array seen as (C, H, W), which is two to four times as
    fast.
    """
    if tuple(image.shape[-2:]) == tuple(size):
        return image.contiguous()
    # torchvision copies a view slowly; so it gets a dense block, in the order that the pixels have in memory.
    interleaved = image.stride(0) == 1 and len(image) > 1
    image = image.permute(1, 2, 0).contiguous().permute(2, 0, 1) if interleaved else image.contiguous()
    if tuple(size) == (1, 1):  # torch 2.14 fails an assertion of its own where three channels become one pixel
        return torch.cat([tvf.resize(channel[None], [1, 1], antialias=True) for channel in image])
    resized: Tensor = tvf.resize(image, list(size), antialias=True)
    return resized.contiguous()


def resize_labels(mask: Tensor, size: Sequence[int]) -> Tensor:
    """Nearest neighbour by pixel centres; (H, W) in, (h, w) of the same data type out."""
    if tuple(mask.shape) == tuple(size):
        return mask
    rows, columns = (_nearest_centres(have, want) for have, want in zip(mask.shape, size, strict=True))
    # Twice along one axis is faster than pairs of indices, and numpy's `take` than torch's.
    return torch.from_numpy(mask.numpy().take(rows, 0).take(columns, 1))


def _nearest_centres(have: int, want: int) -> NDArray[np.int64]:
    """For each of `want` places the nearest of `have` pixels, by torch's own rule."""
    places = torch.arange(have, dtype=torch.float32)[None, None]  # exact up to 2**24
    nearest = F.interpolate(places, want, mode="nearest-exact")[0, 0]
    return np.asarray(nearest.to(torch.int64).numpy())


def _scaled(
    place: tuple[float, float] | None, old: tuple[int, int], new: Sequence[int]
) -> tuple[int, int] | tuple[None, None]:
    """The pixel of the scaled image that shows a place (y, x) of the image."""
    if place is None:
        return None, None
    y, x = (
        min(max(int((at + 0.5) * after / before), 0), after - 1)
        for at, before, after in zip(place, old, new, strict=True)
    )
    return y, x


def _offset(have: int, want: int, seen: int | None = None) -> int:
    """Start of a crop of `want` pixels along `have`, at random; negative where it must be padded in front.

    A crop that is smaller than the image covers the pixel `seen`.
    """
    slack = have - want
    if slack <= 0 or seen is None:
        draw = int(torch.randint(0, abs(slack) + 1, ()))
        return draw if slack >= 0 else -draw
    low, high = max(0, seen - want + 1), min(slack, seen)
    return int(torch.randint(low, high + 1, ()))
