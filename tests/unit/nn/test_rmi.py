import json

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from hs3seg.errors import ConfigError, DataError, PlanError
from hs3seg.nn.rmi import RMI
from tests.conftest import shared


def example(k: int, size: tuple[int, int] = (33, 49), seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Small logits, and labels with ignored pixels."""
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(2, k, 9, 13, generator=generator)
    labels = torch.randint(0, k, (2, *size), generator=generator)
    labels[torch.rand(2, *size, generator=generator) < 0.1] = 255
    return logits.requires_grad_(), labels


@pytest.mark.parametrize("number", [0, 1])
def test_value_and_gradient_are_the_official_codes(number: int) -> None:
    golden = json.loads(shared("reference", "golden", "07_rmi_loss.json").read_text())["outputs"][number]
    k = golden["num_classes"]
    logits = torch.from_numpy(3 * np.random.default_rng(21).standard_normal((2, k, 48, 64))).requires_grad_()
    labels = torch.from_numpy(np.random.default_rng(22).integers(0, k, (2, 48, 64)))
    labels[torch.from_numpy(np.random.default_rng(23).random((2, 48, 64)) < 0.1)] = 255
    value = RMI(k)(logits, labels)
    assert value.dtype == torch.float64
    assert value.item() == pytest.approx(golden["loss"], rel=1e-12)
    assert RMI(k, bce_only=True)(logits, labels).item() == pytest.approx(golden["bce_term"], rel=1e-12)
    assert RMI(k, bce_weight=1.0)(logits, labels).item() == pytest.approx(golden["bce_term"], rel=1e-12)
    assert RMI(k, bce_weight=0.0)(logits, labels).item() == pytest.approx(golden["rmi_term"], rel=1e-12)
    value.backward()
    expected = golden["gradient_of_loss_wrt_logits"]
    found = logits.grad.reshape(-1)[torch.tensor(expected["indices"])].numpy()
    np.testing.assert_allclose(found, expected["values"], rtol=0, atol=1e-12 * expected["abs_max"])
    assert logits.grad.mean().item() == pytest.approx(expected["mean"], rel=1e-9)
    assert logits.grad.std(correction=0).item() == pytest.approx(expected["std"], rel=1e-9)
    released = golden["as_released"]["loss"]
    assert RMI(k)(logits.detach().float(), labels).item() == pytest.approx(released, rel=1e-6)


def oracle(scores: np.ndarray, labels: np.ndarray, radius: int, pool: int, epsilon: float) -> tuple[float, float]:
    """Both parts in plain numpy, from logits at label resolution."""
    n, k = scores.shape[:2]
    valid = (labels < k)[:, None]
    truth = (labels[:, None] == np.arange(k)[:, None, None]) * valid
    probability = 1 / (1 + np.exp(-scores))
    bce = -np.where(valid, np.log(np.where(truth, probability, 1 - probability)), 0).sum() / (valid.sum() + 1)

    def vectors(image: np.ndarray) -> np.ndarray:
        pad = pool // 2
        image = np.pad(image, pad)
        rows, columns = image.shape[0] // pool, image.shape[1] // pool
        if pool > 1:
            image = image[: rows * pool, : columns * pool].reshape(rows, pool, columns, pool).mean((1, 3))
        windows = np.lib.stride_tricks.sliding_window_view(image, (radius, radius)).reshape(-1, radius**2).T
        return windows - windows.mean(1, keepdims=True)

    total = 0.0
    for i in range(n):
        for c in range(k):
            t, p = vectors(truth[i, c].astype(float)), vectors(probability[i, c] * valid[i, 0] + 1e-6)
            ridge = epsilon * np.eye(radius**2)
            left = t @ t.T - (t @ p.T) @ np.linalg.inv(p @ p.T + ridge) @ (t @ p.T).T + ridge
            total += np.log(np.diag(np.linalg.cholesky((left + left.T) / 2)) + 1e-8).sum() / radius**2 / n
    return float(bce), float(total)


@pytest.mark.parametrize("k", [2, 5, 19])
@pytest.mark.parametrize("options", [{}, {"radius": 2, "pool": 1, "epsilon": 1e-2, "bce_weight": 0.2}])
def test_any_number_of_groups_equals_numpy_at_label_resolution(k: int, options: dict[str, float]) -> None:
    logits, labels = example(k)
    logits = logits.detach().double()
    large = F.interpolate(logits, size=(33, 49), mode="bilinear", align_corners=False)
    loss = RMI(k, **options)
    bce, information = oracle(large.numpy(), labels.numpy(), loss.radius, loss.pool, loss.epsilon)
    share = options.get("bce_weight", 0.5)
    assert loss(logits, labels).item() == pytest.approx(share * bce + (1 - share) * information, rel=1e-9)


@pytest.mark.parametrize("k", [2, 5, 19])
def test_autocast_changes_nothing(k: int) -> None:
    logits, labels = example(k)
    for options in ({}, {"bce_only": True}):
        plain = RMI(k, **options)(logits, labels)
        assert plain.dtype == torch.float32
        with torch.autocast("cpu", torch.bfloat16):
            cast = RMI(k, **options)(logits, labels)
        assert torch.equal(cast, plain)
        torch.testing.assert_close(
            torch.autograd.grad(cast, logits), torch.autograd.grad(plain, logits), rtol=0, atol=0
        )
    half = logits.detach().bfloat16()
    torch.testing.assert_close(RMI(k)(half, labels), RMI(k)(half.float(), labels), rtol=0, atol=0)


@pytest.mark.parametrize("scale", [0.0, 1e3, 1e6, 1e20])
def test_gradient_is_finite_for_flat_and_saturated_logits(scale: float) -> None:
    for k in (2, 5, 19):
        logits, labels = example(k)
        values = (logits.detach() * scale).requires_grad_()
        loss = RMI(k)(values, labels)
        loss.backward()
        assert torch.isfinite(loss)
        assert torch.isfinite(values.grad).all()


def test_a_right_and_saturated_prediction_of_a_large_image() -> None:
    """Where prediction explains the label wholly, only epsilon keeps the unexplained covariance positive definite."""
    labels = torch.zeros(1, 256, 512, dtype=torch.int64)
    labels[:, 50:150, 100:250] = 1
    labels[:, 120:, 300:] = 2
    logits = (2000.0 * F.one_hot(labels, 5).permute(0, 3, 1, 2) - 1000).requires_grad_()
    loss = RMI(5)(logits, labels)
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(logits.grad).all()


@pytest.mark.parametrize("options", [{}, {"bce_only": True}])
def test_an_all_ignored_batch_gives_a_zero_with_a_gradient(options: dict[str, bool]) -> None:
    logits, labels = example(3)
    loss = RMI(3, **options)(logits, torch.full_like(labels, 255))
    assert loss.item() == 0
    loss.backward()
    assert logits.grad is not None
    assert not logits.grad.any()


def test_labels_beyond_the_groups_are_ignored_and_ignored_pixels_have_no_influence() -> None:
    logits, labels = example(5, (9, 13))
    loss = RMI(5, pool=1)
    expected = loss(logits, labels)
    for other in (5, 30, -1):
        torch.testing.assert_close(loss(logits, torch.where(labels == 255, other, labels)), expected, rtol=0, atol=0)
    moved = torch.where(labels[:, None] == 255, logits + 7, logits)
    torch.testing.assert_close(loss(moved, labels), expected, rtol=0, atol=0)
    assert loss(moved, labels.clamp(max=4)).item() != pytest.approx(loss(logits, labels.clamp(max=4)).item())
    own = RMI(5, pool=1, ignore_index=2)(logits, labels)
    torch.testing.assert_close(own, loss(logits, torch.where(labels == 2, 255, labels)), rtol=0, atol=0)


def test_a_shifted_prediction_costs_more_than_the_right_one() -> None:
    """What the region term is for."""
    labels = torch.zeros(1, 64, 64, dtype=torch.int64)
    labels[:, 16:40, 20:44] = 1
    right = 8.0 * F.one_hot(labels, 2).permute(0, 3, 1, 2) - 4
    values = [RMI(2, bce_weight=0.0)(right.roll(shift, dims=3), labels).item() for shift in (0, 4, 12)]
    assert values[0] < values[1] < values[2]


def test_what_is_no_number_stays_visible() -> None:
    logits, labels = example(3)
    assert torch.isnan(RMI(3)(logits * float("nan"), labels))


def test_wrong_settings_and_small_crops_are_told() -> None:
    for options, message in (
        ({"radius": 0}, "radius = 0"),
        ({"pool": 0}, "pool = 0"),
        ({"bce_weight": 1.5}, r"bce_weight = 1\.5"),
        ({"epsilon": 0.0}, r"epsilon = 0\.0"),
    ):
        with pytest.raises(ConfigError, match=message):
            RMI(3, **options)
    with pytest.raises(ConfigError, match="num_groups = 0"):
        RMI(0)
    with pytest.raises(PlanError, match="logits of 4 groups for RMI of 3; make it with num_groups = 4"):
        RMI(3)(torch.zeros(1, 4, 8, 8), torch.zeros(1, 8, 8, dtype=torch.int64))
    loss = RMI(3)
    with pytest.raises(DataError, match="labels of 7 x 9 pixels are too small.*at least 8 x 8"):
        loss(torch.zeros(1, 3, 7, 9), torch.zeros(1, 7, 9, dtype=torch.int64))
    assert torch.isfinite(loss(torch.zeros(1, 3, 8, 8), torch.zeros(1, 8, 8, dtype=torch.int64)))
