import math
from fractions import Fraction
from typing import Any

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torchvision import tv_tensors
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as tvf

from hs3seg.data import EvaluationTransform, Sample, TrainTransform
from hs3seg.data.transforms import FILL, resize_image, resize_labels
from hs3seg.errors import DataError


def checked(height: int = 40, width: int = 60) -> Sample:
    """Blocks of a quarter of the height whose colour says their class."""
    side = height // 4
    rows, columns = torch.arange(height) // side, torch.arange(width) // side
    mask = (rows[:, None] * 7 + columns) % 5
    image = (mask * 50).to(torch.uint8).repeat(3, 1, 1)
    return Sample(tv_tensors.Image(image), tv_tensors.Mask(mask), "x")


@pytest.mark.parametrize("scale", [(1.0, 1.0), (0.6, 0.8), (1.5, 2.0), (0.5, 2.0)])
@pytest.mark.parametrize("resize", [None, (80, 120)])
def test_image_and_mask_move_together(scale: tuple[float, float], resize: tuple[int, int] | None) -> None:
    transform = TrainTransform((32, 48), resize, scale, flip=0.5)
    for seed in range(20):
        torch.manual_seed(seed)
        image, mask = transform(checked(60, 90))
        assert image.shape == (3, 32, 48)
        assert image.dtype == torch.uint8
        assert mask.shape == (32, 48)
        assert mask.dtype == torch.int64
        valid = mask != 255
        assert valid.any()
        agree = (image[0].float() / 50 - mask).abs() < 0.25
        # Only block borders are blurred.
        assert agree[valid].float().mean() > 0.6
        padded = image.permute(1, 2, 0)[~valid]
        assert (padded == torch.tensor(FILL, dtype=torch.uint8)).all()


def test_without_scale_a_crop_is_a_piece_of_the_image() -> None:
    sample = checked()
    torch.manual_seed(0)
    image, mask = TrainTransform((20, 20), scale=(1.0, 1.0), flip=0.0)(sample)
    found = any(
        torch.equal(image, sample.image[:, y : y + 20, x : x + 20])
        and torch.equal(mask, sample.mask[y : y + 20, x : x + 20])
        for y in range(21)
        for x in range(41)
    )
    assert found


def test_the_same_generator_gives_the_same_crop_and_flips_happen_as_often_as_asked() -> None:
    transform = TrainTransform((16, 16), flip=0.5, color_jitter=(0.3, 0.3, 0.3, 0.1))
    torch.manual_seed(5)
    first = transform(checked())
    torch.manual_seed(5)
    assert all(torch.equal(a, b) for a, b in zip(first, transform(checked()), strict=True))
    whole = TrainTransform((40, 60), scale=(1.0, 1.0), flip=0.3)
    flipped = sum(not torch.equal(whole(checked())[1], checked().mask) for _ in range(400))
    assert 80 < flipped < 160


def test_colour_changes_the_image_alone() -> None:
    transform = TrainTransform((40, 60), scale=(1.0, 1.0), flip=0.0, color_jitter=(0.5, 0.5, 0.5, 0.1))
    torch.manual_seed(0)
    image, mask = transform(checked())
    assert torch.equal(mask, checked().mask)
    assert not torch.equal(image, checked().image)


def test_evaluation_keeps_labels_at_their_resolution() -> None:
    image, mask = EvaluationTransform((20, 30))(checked())
    assert image.shape == (3, 20, 30)
    assert torch.equal(mask, checked().mask)
    image, mask = EvaluationTransform()(checked())
    assert torch.equal(image, checked().image)


def deep(sample: Sample) -> Sample:
    """The sample with its first channel again as depth."""
    image = sample.image.as_subclass(torch.Tensor)
    return Sample(tv_tensors.Image(torch.cat([image, image[:1]])), sample.mask, sample.name)


@pytest.mark.parametrize("crop", [(32, 48), (70, 100)])  # without and with padding
def test_depth_moves_with_the_colours(crop: tuple[int, int]) -> None:
    transform = TrainTransform(crop, scale=(0.75, 1.5), flip=0.5)
    for seed in range(10):
        torch.manual_seed(seed)
        image, mask = transform(checked(60, 90))
        torch.manual_seed(seed)
        with_depth, same_mask = transform(deep(checked(60, 90)))
        assert with_depth.shape == (4, *crop)
        assert torch.equal(mask, same_mask)
        assert torch.equal(with_depth[:3], image)
        padding = (image == torch.tensor(FILL)[:, None, None]).all(0) & (mask == 255)
        assert torch.equal(with_depth[3][~padding], with_depth[0][~padding])
        assert (with_depth[3][padding] == 115).all()
    resized, _ = EvaluationTransform((20, 30))(deep(checked()))
    assert resized.shape == (4, 20, 30)
    assert torch.equal(resized[3], resized[0])


def test_colour_leaves_depth_alone() -> None:
    transform = TrainTransform((40, 60), scale=(1.0, 1.0), flip=0.0, color_jitter=(0.5, 0.5, 0.5, 0.1))
    torch.manual_seed(0)
    image, _ = transform(deep(checked()))
    assert torch.equal(image[3], checked().image[0])
    torch.manual_seed(0)
    assert torch.equal(image[:3], transform(checked())[0])
    assert not torch.equal(image[:3], checked().image)


def noise(height: int = 60, width: int = 90, channels: int = 3) -> Sample:
    generator = torch.Generator().manual_seed(0)
    image = torch.randint(0, 256, (channels, height, width), dtype=torch.uint8, generator=generator)
    mask = torch.randint(0, 20, (height, width), generator=generator)
    return Sample(tv_tensors.Image(image), tv_tensors.Mask(mask), "x")


def as_cached(sample: Sample) -> Sample:
    """The sample as a cache stores it: (H, W, C) in memory, labels as uint8."""
    image = sample.image.as_subclass(torch.Tensor).permute(1, 2, 0).contiguous().permute(2, 0, 1)
    return Sample(tv_tensors.Image(image), tv_tensors.Mask(sample.mask.to(torch.uint8)), sample.name)


@settings(deadline=None, max_examples=60)
@given(
    old=st.tuples(st.integers(1, 60), st.integers(1, 60)),
    new=st.tuples(st.integers(1, 90), st.integers(1, 90)),
    channels=st.integers(1, 4),
)
@example(old=(2, 1), new=(1, 1), channels=3)
@example(old=(2, 1), new=(41, 1), channels=1)
def test_resizing_is_torchvisions(old: tuple[int, int], new: tuple[int, int], channels: int) -> None:
    sample = noise(*old, channels)
    # Channel by channel: torch 2.14 fails an assertion of its own where three of them become one pixel.
    parts = sample.image.as_subclass(torch.Tensor).split(1)
    expected = torch.cat([tvf.resize(part, list(new), antialias=True) for part in parts])
    labels = tvf.resize(sample.mask[None].as_subclass(torch.Tensor), list(new), v2.InterpolationMode.NEAREST_EXACT)[0]
    for stored in (sample, as_cached(sample)):
        found = resize_image(stored.image.as_subclass(torch.Tensor), new)
        assert torch.equal(found, expected)
        assert found.is_contiguous()
        small = resize_labels(stored.mask.as_subclass(torch.Tensor), new)
        assert small.dtype == stored.mask.dtype
        # Where a centre lies on the border of two pixels, torch's kernels round to either: 2 -> 41 by shape and layout.
        rows, columns = (nearest(have, want) for have, want in zip(old, new, strict=True))
        either = [stored.mask.as_subclass(torch.Tensor)[y][:, x] == small for y in rows for x in columns]
        assert torch.stack(either).any(0).all()
        tie = (rows[0] != rows[1])[:, None] | (columns[0] != columns[1])[None]
        assert torch.equal(small.to(torch.int64)[~tie], labels[~tie])


def nearest(have: int, want: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Of each of `want` places the nearest of `have` pixels, and the one before it where it is as near; exactly."""
    centres = [Fraction((2 * place + 1) * have, 2 * want) for place in range(want)]
    after = torch.tensor([math.floor(centre) for centre in centres])
    return after, torch.tensor([math.floor(centre) - (centre.denominator == 1) for centre in centres])


@pytest.mark.parametrize("crop", [(32, 48), (100, 70)])  # without and with padding
def test_a_cached_sample_gives_the_same_and_no_sample_is_written_to(crop: tuple[int, int]) -> None:
    transform = TrainTransform(crop, color_jitter=(0.3, 0.3, 0.3, 0.1), blur=(0.2, 1.0))
    for sample in (noise(), noise(channels=4)):
        cached = as_cached(sample)
        kept = [t.clone() for s in (sample, cached) for t in (s.image, s.mask)]
        for seed in range(20):
            torch.manual_seed(seed)
            image, mask = transform(sample)
            for change in (transform, transform.compact):
                torch.manual_seed(seed)
                same_image, same_mask = change(cached)
                assert torch.equal(image, same_image)
                assert torch.equal(mask, same_mask.to(torch.int64))
                assert same_image.is_contiguous()
            assert (mask.dtype, same_mask.dtype) == (torch.int64, torch.uint8)
        for evaluation in (EvaluationTransform(), EvaluationTransform((20, 30))):
            assert all(torch.equal(a, b) for a, b in zip(evaluation(sample), evaluation(cached), strict=True))
            assert evaluation(cached)[1].dtype == torch.int64
        now = (sample.image, sample.mask, cached.image, cached.mask)
        assert all(torch.equal(a, b) for a, b in zip(kept, now, strict=True))


def test_an_ignore_label_that_is_no_uint8_survives_padding() -> None:
    for ignore in (-1, 1000):
        torch.manual_seed(0)
        _, mask = TrainTransform((100, 100), scale=(0.5, 0.5), ignore_index=ignore)(as_cached(noise()))
        assert set(mask.unique().tolist()) == {ignore, *range(20)}


def factors(transform: TrainTransform, count: int = 600) -> torch.Tensor:
    """Scale factors that come out, read from where a horizontal ramp of 0..255 over 256 pixels ends up."""
    ramp = torch.arange(256, dtype=torch.uint8).expand(3, 4, 256)
    sample = Sample(tv_tensors.Image(ramp), tv_tensors.Mask(torch.arange(256).expand(4, 256)), "x")
    widths = [int((transform(sample)[1] != 1000).any(0).sum()) for _ in range(count)]
    return torch.tensor(widths) / 256


def test_scale_choices_are_drawn_equally_often() -> None:
    torch.manual_seed(0)
    choices = (0.5, 0.75, 1.0, 1.25, 1.5, 1.75)
    drawn = factors(TrainTransform((8, 600), ignore_index=1000, scale_choices=choices))
    counts = [int((drawn == choice).sum()) for choice in choices]
    assert sum(counts) == 600
    assert min(counts) > 70


def test_scale_laws() -> None:
    torch.manual_seed(0)
    uniform = factors(TrainTransform((8, 600), ignore_index=1000, scale=(0.5, 2.0), scale_law="uniform"))
    log = factors(TrainTransform((8, 600), ignore_index=1000, scale=(0.5, 2.0)))
    for drawn in (uniform, log):
        assert float(drawn.min()) >= 0.5
        assert float(drawn.max()) <= 2.0
    assert abs(float(uniform.mean()) - 1.25) < 0.06
    assert abs(float(log.log2().mean())) < 0.07


def test_blur_strikes_half_of_the_images_and_rgb_alone() -> None:
    torch.manual_seed(0)
    transform = TrainTransform((60, 90), scale=(1.0, 1.0), flip=0.0, blur=(0.8, 1.3))
    sample = noise(channels=4)
    changed = 0
    for _ in range(200):
        image, mask = transform(sample)
        assert torch.equal(image[3], sample.image[3])
        assert torch.equal(mask, sample.mask)
        changed += not torch.equal(image[:3], sample.image[:3])
    assert 70 < changed < 130


@settings(deadline=None, max_examples=100)
@given(
    size=st.tuples(st.integers(1, 70), st.integers(1, 70)),
    place=st.tuples(st.floats(0, 1), st.floats(0, 1)),
    crop=st.tuples(st.integers(4, 40), st.integers(4, 40)),
    resize=st.sampled_from([None, (40, 30)]),
    seed=st.integers(0, 999),
)
def test_the_crop_covers_the_centre(
    size: tuple[int, int],
    place: tuple[float, float],
    crop: tuple[int, int],
    resize: tuple[int, int] | None,
    seed: int,
) -> None:
    center = tuple(at * (side - 1) for at, side in zip(place, size, strict=True))
    # Labels tell the row in one pass and the column in another; what is seen must reach the centre's neighbours.
    for axis in (0, 1):
        line = torch.arange(size[axis])
        mask = line[:, None].expand(size) if axis == 0 else line[None].expand(size)
        sample = Sample(tv_tensors.Image(torch.zeros((3, *size), dtype=torch.uint8)), tv_tensors.Mask(mask), "x")
        transform = TrainTransform(crop, resize, scale=(0.6, 1.8), ignore_index=1000)
        torch.manual_seed(seed)
        _, labels = transform(sample, center)
        seen = labels[labels != 1000]
        factor = float((resize or size)[axis] * 0.6 / size[axis])
        reach = 1 + 1 / factor  # pixels that one pixel of the smallest scaled image stands for
        assert int(seen.min()) - reach <= center[axis] <= int(seen.max()) + reach


def test_centred_crops_reach_every_place_and_without_scale_hold_the_pixel() -> None:
    mask = torch.arange(50 * 60).reshape(50, 60)
    sample = Sample(tv_tensors.Image(torch.zeros((3, 50, 60), dtype=torch.uint8)), tv_tensors.Mask(mask), "x")
    transform = TrainTransform((10, 12), scale=(1.0, 1.0), flip=0.0)
    corners = set()
    for y, x in ((0, 0), (49, 59), (25, 3), (30, 30)):
        for seed in range(150):
            torch.manual_seed(seed)
            labels = transform(sample, (y, x))[1]
            assert (labels == mask[y, x]).sum() == 1
            corners.add((y, x, int(labels[0, 0])))
    tops = {corner // 60 for y, _, corner in corners if y == 30}
    assert tops == set(range(21, 31))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"scale_choices": ()}, "scale choices"),
        ({"scale_choices": (1.0, 0.0)}, "all above 0"),
        ({"scale_law": "linear"}, "'linear' does not exist; allowed: log, uniform"),
        ({"blur": (1.0, 0.5)}, "0 < low <= high"),
    ],
)
def test_what_cannot_be_drawn_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        TrainTransform((8, 8), **options)
