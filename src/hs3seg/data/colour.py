"""Colour changes of uint8 images: torchvision's values, bit for bit, in less time.

torchvision makes float32 copies of the whole image at every step. They outgrow the processor's cache, and each costs
fresh memory from the operating system. Here bands of rows that fit are taken through all steps. Shapes: (3, h, w) RGB.
"""

import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as tvf

_BAND = 196_608  # values per band

Step = Callable[[Tensor], None]  # changes a band (3, rows, w), float32 of whole numbers 0..255, in place


def jittered(image: Tensor, jitter: v2.ColorJitter) -> Tensor:
    """What `jitter` makes of an image (3, h, w) uint8 with the same state of torch's global generator."""
    drawn = jitter.make_params([])
    waiting: list[Step] = []
    for number in drawn["fn_idx"].tolist():
        name = ("brightness", "contrast", "saturation", "hue")[number]
        factor = drawn[f"{name}_factor"]
        if factor is None:
            continue
        if name == "contrast":  # needs the mean of the whole image as it is by then
            image, waiting = _changed(image, waiting), []
            waiting.append(_contrast(factor, _mean_grey(image)))
        else:
            waiting.append({"brightness": _brightness, "saturation": _saturation, "hue": _hue}[name](factor))
    return _changed(image, waiting)


def blurred(image: Tensor, sigma: float) -> Tensor:
    """Gaussian blur of an image (3, h, w) uint8; three standard deviations to each side, less in a tiny image."""
    radius = [min(math.ceil(3 * sigma), side - 1) for side in reversed(image.shape[-2:])]
    result: Tensor = tvf.gaussian_blur(image, [2 * r + 1 for r in radius], [sigma, sigma])
    return result


def _changed(image: Tensor, steps: list[Step]) -> Tensor:
    if not steps:
        return image
    changed = torch.empty_like(image)
    for rows in _bands(image):
        band = image[:, rows].to(torch.float32)
        for step in steps:
            step(band)
        changed[:, rows] = band
    return changed


def _bands(image: Tensor) -> Iterator[slice]:
    height = image.shape[-2]
    step = math.ceil(height / max(1, round(image.numel() / _BAND)))
    return (slice(start, start + step) for start in range(0, height, step))


def _grey(band: Tensor) -> Tensor:
    """Luma (rows, w) of a band, rounded down."""
    r, g, b = band
    grey: Tensor = r.mul(0.2989).add_(g, alpha=0.587).add_(b, alpha=0.114).floor_()
    return grey


def _mean_grey(image: Tensor) -> Tensor:
    grey = torch.empty((1, *image.shape[-2:]))
    for rows in _bands(image):
        grey[0, rows] = _grey(image[:, rows].to(torch.float32))
    return grey.mean(dim=(-3, -2, -1), keepdim=True)


def _brightness(factor: float) -> Step:
    return lambda band: _settle(band.mul_(factor))


def _contrast(factor: float, mean: Tensor) -> Step:
    """Away from the mean grey of the image, or towards it."""
    return lambda band: _settle(band.mul_(factor).add_(mean, alpha=1.0 - factor))


def _saturation(factor: float) -> Step:
    """Away from grey, or towards it."""

    def change(band: Tensor) -> None:
        grey = _grey(band)  # before the band changes
        _settle(band.mul_(factor).add_(grey, alpha=1.0 - factor))

    return change


def _settle(band: Tensor) -> None:
    band.clamp_(0, 255).floor_()


def _hue(factor: float) -> Step:
    return lambda band: _turn(band, factor)


def _turn(band: Tensor, factor: float) -> None:
    """Turns the hue of a band (3, rows, w) by `factor` of the circle, by way of HSV (Smith, 1978).

    torch chooses between values (`where`, masks, `gather`) some twenty times slower than it multiplies. So each choice
    is a sum of products with 0 and 1, which is exact; the order of all other operations is torchvision's.
    """
    r, g, b = band.mul(1.0 / 255)
    value = torch.maximum(torch.maximum(r, g), b)
    spread = value - torch.minimum(torch.minimum(r, g), b)
    flat = 1.0 - _positive(spread)  # 1 where all three are equal: nothing is divided by 0
    saturation = spread / (value + flat)
    not_r, not_g = _positive(value - r), _positive(value - g)
    spread.add_(flat)
    r, g, b = ((value - channel).div_(spread) for channel in (r, g, b))
    hue = (g + 4.0).sub_(r).mul_(not_g)
    hue.add_((r + 2.0).sub_(b).mul_(1.0 - not_g)).mul_(not_r)
    hue.add_((b - g).mul_(1.0 - not_r)).mul_(1.0 / 6.0).add_(1.0)
    hue.sub_(hue.floor()).add_(factor)
    hue.sub_(hue.floor()).mul_(6)  # 0..6
    sector = hue.floor()
    part = hue.sub_(sector).mul_(saturation)
    pale = 1.0 - saturation
    falling = (1.0 - part).mul_(value).clamp_(0, 1)
    rising = part.add_(pale).mul_(value).clamp_(0, 1)
    low = pale.mul_(value).clamp_(0, 1)
    one, two, three, four, five = ((sector - k).abs_().neg_().add_(1.0).clamp_(0, 1) for k in range(1, 6))
    zero = 1.0 - (one + two + three + four + five)  # sector 6 is sector 0
    # Per colour the sectors where it is the highest, falling, the lowest, rising.
    sectors = (
        (zero + five, one, two + three, four),
        (one + two, three, four + five, zero),
        (three + four, five, zero + one, two),
    )
    for channel, (at_top, at_fall, at_low, at_rise) in enumerate(sectors):
        mixed = at_top.mul_(value).add_(at_fall * falling).add_(at_low.mul_(low)).add_(at_rise * rising)
        torch.floor(mixed.mul_(256 - 1e-3), out=band[channel])


def _positive(values: Tensor) -> Tensor:
    """1.0 where a difference of two levels k/255 is above 0, else 0.0."""
    return values.mul(1024).clamp_(0, 1)
