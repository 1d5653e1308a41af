"""Colour changes equal torchvision's, value by value."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as tvf

from hs3seg.data.colour import blurred, jittered

RANGES = [(0.4, 0, 0, 0), (0, 0.4, 0, 0), (0, 0, 0.9, 0), (0, 0, 0, 0.5), (0.3, 0.3, 0.3, 0), (0.25, 0.25, 0.25, 0.25)]


def noise(seed: int, height: int, width: int) -> Tensor:
    """Noise with grey, black, white and pure colours in it."""
    generator = torch.Generator().manual_seed(seed)
    image = torch.randint(0, 256, (3, height, width), dtype=torch.uint8, generator=generator)
    level = torch.randint(0, 4, (3, height, width), generator=generator)
    image[(level == 0) & (level[0] < 2)] = 0
    image[(level == 1) & (level[0] < 2)] = 255
    image[:, level[1] == 3] = image[:1, level[1] == 3]
    return image


@settings(deadline=None, max_examples=60)
@given(
    seed=st.integers(0, 2**20),
    height=st.integers(1, 70),
    width=st.integers(1, 70),
    ranges=st.sampled_from(RANGES),
    band=st.integers(1, 9000),
)
def test_jitter_is_torchvisions(
    seed: int, height: int, width: int, ranges: tuple[float, float, float, float], band: int
) -> None:
    jitter, image = v2.ColorJitter(*ranges), noise(seed, height, width)
    before = image.clone()
    torch.manual_seed(seed)
    expected = jitter(image)
    after = torch.get_rng_state()
    torch.manual_seed(seed)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("hs3seg.data.colour._BAND", band)
        found = jittered(image, jitter)
    assert torch.equal(found, expected)
    assert torch.equal(torch.get_rng_state(), after)
    assert torch.equal(image, before)


@pytest.mark.parametrize("factor", [-0.5, -1 / 3, -0.01, 0.0, 0.1, 0.5])
def test_every_colour_turns_as_in_torchvision(factor: float) -> None:
    levels = torch.cartesian_prod(*[torch.cat([torch.arange(0, 256, 6), torch.tensor([1, 254, 255])])] * 3)
    image = levels.T.to(torch.uint8).reshape(3, 46, -1)
    jitter = v2.ColorJitter(hue=(factor, factor))
    assert torch.equal(jittered(image, jitter), tvf.adjust_hue(image, factor))


@pytest.mark.parametrize("size", [(1, 1), (1, 40), (3, 2), (30, 40)])
def test_blur_keeps_the_mean_and_lowers_the_contrast(size: tuple[int, int]) -> None:
    image = noise(0, *size)
    weak, strong = blurred(image, 0.15).float(), blurred(image, 1.3).float()
    assert weak.shape == strong.shape == image.shape
    assert strong.std(dim=(1, 2), correction=0).sum() <= image.float().std(dim=(1, 2), correction=0).sum()
    assert (weak - image.float()).abs().mean() <= (strong - image.float()).abs().mean()
    flat = torch.full((3, *size), 77, dtype=torch.uint8)
    assert torch.equal(blurred(flat, 1.0), flat)
    if size == (30, 40):
        assert (strong.mean(dim=(1, 2)) - image.float().mean(dim=(1, 2))).abs().max() < 3
        assert torch.equal(blurred(image, 1.0), v2.GaussianBlur(7, (1.0, 1.0))(image))
