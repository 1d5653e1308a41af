import numpy as np
import pytest
import torch
from torch.nn import functional as F

from hs3seg.errors import ConfigError, PlanError
from hs3seg.nn.image_weighted import ImageWeightedCrossEntropy, group_weights


def oracle(logits: np.ndarray, labels: np.ndarray, per: str) -> float:
    """Pixel by pixel, in numpy."""

    def weights(truth: np.ndarray) -> np.ndarray:
        counts = np.array([(truth == c).sum() for c in range(logits.shape[1])], float)
        return np.where(counts > 0, 2 - counts / counts.sum(), 1.0)

    losses = []
    for n, truth in enumerate(labels):
        if (truth == 255).all():
            continue
        table = weights(truth if per == "image" else labels)
        total = weight = 0.0
        for (y, x), c in np.ndenumerate(truth):
            if c != 255:
                scores = logits[n, :, y, x]
                total += table[c] * (np.log(np.exp(scores).sum()) - scores[c])
                weight += table[c]
        losses.append(total / weight)
    return float(np.mean(losses))


def example(k: int = 4, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Three images, of which the last has no label; the last group is nowhere."""
    rng = np.random.default_rng(seed)
    logits = rng.standard_normal((3, k, 5, 6)).astype(np.float32)
    labels = rng.choice(k - 1, p=rng.dirichlet(np.ones(k - 1)), size=(3, 10, 18))
    labels[rng.random(labels.shape) < 0.2] = 255
    labels[2] = 255
    return torch.from_numpy(logits).requires_grad_(), torch.from_numpy(labels)


@pytest.mark.parametrize("per", ["image", "batch"])
@pytest.mark.parametrize("k", [2, 4, 19])
def test_against_the_definition_at_label_resolution(per: str, k: int) -> None:
    logits, labels = example(k)
    large = F.interpolate(logits, size=(10, 18), mode="bilinear", align_corners=False)
    loss = ImageWeightedCrossEntropy(k, per=per)(logits, labels)
    assert loss.item() == pytest.approx(oracle(large.detach().numpy(), labels.numpy(), per), rel=1e-5)


def test_per_batch_is_the_released_sum_by_the_number_of_images_and_its_gradient() -> None:
    logits, labels = example()
    logits, labels = logits[:2], labels[:2]
    table = group_weights(torch.bincount(labels[labels != 255], minlength=4))
    large = F.interpolate(logits, size=(10, 18), mode="bilinear", align_corners=False)
    summed = sum(F.cross_entropy(large[i : i + 1], labels[i : i + 1], table, ignore_index=255) for i in range(2))
    loss = ImageWeightedCrossEntropy(4, per="batch")(logits, labels)
    torch.testing.assert_close(2 * loss, summed)
    torch.testing.assert_close(torch.autograd.grad(2 * loss, logits), torch.autograd.grad(summed, logits))


def test_images_count_alike_in_any_batch_and_those_without_labels_not_at_all() -> None:
    logits, labels = example()
    loss = ImageWeightedCrossEntropy(4)
    alone = torch.stack([loss(logits[i : i + 1], labels[i : i + 1]) for i in range(2)])
    torch.testing.assert_close(loss(logits, labels), alone.mean())
    torch.testing.assert_close(loss(logits[:2], labels[:2]), alone.mean())


def test_weights_lie_between_one_and_two_and_fall_with_the_share() -> None:
    weights = group_weights(torch.tensor([70, 30, 0]))
    torch.testing.assert_close(weights, torch.tensor([1.3, 1.7, 2.0]))
    torch.testing.assert_close(group_weights(torch.tensor([5, 0])), torch.tensor([1.0, 2.0]))


@pytest.mark.parametrize("per", ["image", "batch"])
def test_nothing_labelled_is_a_zero_with_a_gradient(per: str) -> None:
    logits, labels = example()
    loss = ImageWeightedCrossEntropy(4, per=per)(logits, torch.full_like(labels, 255))
    loss.backward()
    assert loss.item() == 0
    assert logits.grad is not None
    assert not logits.grad.any()


def test_autocast_changes_nothing_and_saturated_logits_have_a_gradient() -> None:
    logits, labels = example()
    values = (1e6 * logits.detach()).requires_grad_()
    loss = ImageWeightedCrossEntropy(4)(values, labels)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(ImageWeightedCrossEntropy(4)(values, labels), loss)
    loss.backward()
    assert torch.isfinite(values.grad).all()


def test_another_ignore_label() -> None:
    logits, labels = example()
    expected = ImageWeightedCrossEntropy(4)(logits, labels)
    for ignore in (-1, 30):
        moved = torch.where(labels == 255, ignore, labels)
        assert torch.equal(ImageWeightedCrossEntropy(4, ignore_index=ignore)(logits, moved), expected)


def test_wrong_settings_are_told() -> None:
    with pytest.raises(ConfigError, match="per = 'pixel'; allowed"):
        ImageWeightedCrossEntropy(3, per="pixel")
    with pytest.raises(ConfigError, match="num_groups = 0"):
        ImageWeightedCrossEntropy(0)
    with pytest.raises(PlanError, match="logits of 4 groups for a loss of 3; make it with num_groups = 4"):
        ImageWeightedCrossEntropy(3)(*example())


def test_a_batch_of_no_image_has_no_loss() -> None:
    logits = torch.zeros(0, 3, 4, 4, requires_grad=True)
    loss = ImageWeightedCrossEntropy(3)(logits, torch.zeros(0, 8, 8, dtype=torch.int64))
    loss.backward()
    assert loss == 0
