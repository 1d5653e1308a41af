import pytest
import torch
from torchvision import tv_tensors

from hs3seg.data import EvaluationTransform, Sample, TrainTransform
from hs3seg.data.transforms import FILL


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
