"""Augmentation for training and the resize of evaluation, on torchvision's transforms v2.

Images have C channels. What moves pixels treats all alike, so depth is resampled bilinearly too: at the edge of an
object a value between the near and the far one may come out. Depth values do not change with the scale. Colour changes
the first three channels only.

Images stay uint8: normalisation is done on the device. Random numbers come from torch's global generator, which the
loader seeds per sample.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as tvf

from hs3seg.data.sample import Sample

FILL = (124, 116, 104)
"""Colour of padding: ImageNet's mean, which normalises to about zero."""
_DEPTH_FILL = 115  # padding of further channels: about zero for a network that has the mean of ImageNet's there


class TrainTransform:
    """Random scale, crop, flip and colour.

    Only the part of the image that the crop shows is resampled. Where the scaled image is smaller than the crop it is
    padded with the mean colour and the ignore label.

    Args:
        crop: (height, width) of the result.
        resize: (height, width) every image counts as having, before the random scale.
        scale: Range of the scale factor, drawn log-uniformly: halving is as likely as doubling.
        flip: Probability of a horizontal flip.
        color_jitter: Brightness, contrast, saturation, hue of RGB; None = off.
        ignore_index: Label of padding.
    """

    def __init__(
        self,
        crop: tuple[int, int],
        resize: tuple[int, int] | None = None,
        scale: tuple[float, float] = (0.5, 2.0),
        flip: float = 0.5,
        color_jitter: Sequence[float] | None = None,
        ignore_index: int = 255,
    ) -> None:
        self.crop, self.resize, self.scale, self.flip = crop, resize, scale, flip
        self.ignore_index = ignore_index
        self._jitter = v2.ColorJitter(*color_jitter) if color_jitter and any(color_jitter) else None

    def __call__(self, sample: Sample) -> tuple[Tensor, Tensor]:
        """Image (C, h, w) uint8 and mask (h, w) int64 of the crop's size."""
        height, width = sample.image.shape[-2:]
        full = self.resize or (height, width)
        low, high = self.scale
        factor = low * (high / low) ** float(torch.rand(()))
        size = [max(1, round(side * factor)) for side in full]
        # Place of the crop in the scaled image; negative = the image is smaller and is padded.
        top, left = (_offset(have, want) for have, want in zip(size, self.crop, strict=True))
        box_top, box_left = max(top, 0), max(left, 0)
        box_height, box_width = (min(have, want) for have, want in zip(size, self.crop, strict=True))
        # The same box in the pixels of the file: cut first, so that only these are resampled.
        y0, y1 = box_top * height / size[0], (box_top + box_height) * height / size[0]
        x0, x1 = box_left * width / size[1], (box_left + box_width) * width / size[1]
        rows = slice(int(y0), max(int(y0) + 1, round(y1)))
        columns = slice(int(x0), max(int(x0) + 1, round(x1)))
        image = tvf.resize(sample.image[:, rows, columns].as_subclass(Tensor), [box_height, box_width], antialias=True)
        mask = tvf.resize(
            sample.mask[None, rows, columns].as_subclass(Tensor),
            [box_height, box_width],
            interpolation=v2.InterpolationMode.NEAREST_EXACT,
        )[0]
        if self._jitter is not None:
            colour = self._jitter(tv_tensors.Image(image[:3])).as_subclass(Tensor)
            image = colour if len(image) == 3 else torch.cat([colour, image[3:]])
        if float(torch.rand(())) < self.flip:
            image, mask = image.flip(-1), mask.flip(-1)
        return self._pad(image, mask, max(-top, 0), max(-left, 0))

    def _pad(self, image: Tensor, mask: Tensor, top: int, left: int) -> tuple[Tensor, Tensor]:
        height, width = image.shape[-2:]
        if (height, width) == self.crop:
            return image.contiguous(), mask.contiguous()
        fill = torch.tensor([*FILL, *[_DEPTH_FILL] * (len(image) - 3)], dtype=torch.uint8)
        whole = fill.view(-1, 1, 1).repeat(1, *self.crop)
        labels = torch.full(self.crop, self.ignore_index, dtype=torch.int64)
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
        image = sample.image.as_subclass(Tensor)
        if self.resize is not None and tuple(image.shape[-2:]) != self.resize:
            image = tvf.resize(image, list(self.resize), antialias=True)
        return image, sample.mask.as_subclass(Tensor)


def _offset(have: int, want: int) -> int:
    """Start of a crop of `want` pixels along `have`, at random; negative where it must be padded in front."""
    slack = have - want
    draw = int(torch.randint(0, abs(slack) + 1, ()))
    return draw if slack >= 0 else -draw
