from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from benchmarks.scaling import (
    Machine,
    Work,
    activation_elements,
    all_gather_bytes,
    all_reduce_bytes,
    fit_power,
    predict,
)

WORK = Work(macs=1e9, parameters=1_000_000, norm_channels=1000, norms=10)


def noisy(values: np.ndarray, repeats: int, noise: float, seed: int) -> list[list[float]]:
    random = np.random.default_rng(seed)
    return (values[:, None] * np.exp(noise * random.standard_normal((len(values), repeats)))).tolist()


@settings(max_examples=30, deadline=None)
@given(st.floats(0.3, 3.5), st.floats(1e-6, 1e3))
def test_an_exact_power_law_is_found_again(exponent: float, scale: float) -> None:
    xs = [10.0, 20.0, 50.0, 100.0, 300.0]
    fit = fit_power(xs, [[scale * x**exponent] * 3 for x in xs])
    assert fit.exponent == pytest.approx(exponent, rel=1e-3)
    assert fit.at(70.0) == pytest.approx(scale * 70.0**exponent, rel=1e-3)


@pytest.mark.parametrize("exponent", [0.5, 1.0, 2.0])
def test_a_constant_that_dominates_is_told_from_the_power(exponent: float) -> None:
    xs = [11.0, 19.0, 40.0, 80.0, 150.0]
    fit = fit_power(xs, [[5.0 + 0.02 * x**exponent] * 3 for x in xs])
    assert fit.constant == pytest.approx(5.0, rel=1e-2)
    assert fit.exponent == pytest.approx(exponent, rel=1e-2)


def test_a_pure_power_law_with_noise_gets_no_constant() -> None:
    xs = np.array([1.0, 2.0, 4.0, 8.0, 16.0, 32.0])
    constants = [fit_power(xs.tolist(), noisy(xs**1.5, 9, 0.05, seed)).constant for seed in range(20)]
    assert sum(constant == 0 for constant in constants) >= 15


def test_zero_is_allowed_and_brings_a_constant() -> None:
    fit = fit_power([0, 1, 2, 3], [[2.0 + 0.5 * n] * 3 for n in range(4)])
    assert fit.constant == pytest.approx(2.0, rel=1e-3)
    assert fit.exponent == pytest.approx(1.0, rel=1e-2)


def test_the_interval_holds_the_truth_about_as_often_as_it_says() -> None:
    xs = np.array([1.0, 2.0, 4.0])  # three points: never a constant
    fits = [fit_power(xs.tolist(), noisy(3 * xs**1.2, 8, 0.1, seed)) for seed in range(200)]
    held = np.mean([fit.interval[0] <= 1.2 <= fit.interval[1] for fit in fits])
    assert 0.85 <= held <= 0.99  # of 0.95, around a median instead of a mean


def test_one_repeat_has_no_interval() -> None:
    assert fit_power([1.0, 2.0, 4.0], [[1.0], [2.0], [4.0]]).interval == (-np.inf, np.inf)


@pytest.mark.parametrize("count", [2, 3, 8])
def test_ring_volumes_are_what_a_ring_sends(count: int) -> None:
    parts = count  # a tensor in `count` parts; per step every GPU passes one part on
    assert all_reduce_bytes(1.0, count) == pytest.approx(sum(1 / parts for _ in range(2 * (count - 1))))
    assert all_gather_bytes(1.0, count) == sum(1 for _ in range(count - 1))


def test_one_gpu_sends_nothing_and_only_computes() -> None:
    found = predict(WORK, Machine(), 1)
    sent = [found[key] for key in ("gradient_bytes", "sync_bytes", "buffer_bytes", "matrix_bytes", "matrix_time")]
    assert sent == [0.0] * 5
    assert found["efficiency"] == 1.0
    # 2 crops, three passes of 2 x 10^9 operations, at a fifth of 312 TFLOP/s
    assert found["arithmetic"] == pytest.approx(2 * 3 * 2e9 / (0.2 * 312e12))
    assert found["launches"] == pytest.approx(10 * 10 * 5e-6)
    assert found["step"] == found["launches"]  # the larger one


def test_the_slowest_of_arithmetic_memory_and_launches_decides() -> None:
    machine = replace(Machine(), launch_us=0.0)
    assert predict(WORK, machine, 1)["step"] == predict(WORK, machine, 1)["arithmetic"]
    found = predict(replace(WORK, activations=10**9), machine, 1)
    # 2 crops of 10^9 values of 2 bytes, touched five times, at 2000 GB/s
    assert found["step"] == found["touched"] == pytest.approx(2 * 1e9 * 2 * 5 / 2e12)


def test_the_volumes_of_eight_gpus_by_hand() -> None:
    found = predict(replace(WORK, classes=20, stages=2), Machine(), 8)
    assert found["gradient_bytes"] == pytest.approx(2 * 7 / 8 * 4e6)
    assert found["matrix_bytes"] == pytest.approx(2 * 7 / 8 * 3 * 400 * 8)
    assert found["sync_bytes"] == pytest.approx(7 * 4 * 2010 + 2 * 7 / 8 * 4 * 2000)
    assert found["buffer_bytes"] == 8000 + 80
    assert found["checkpoint_bytes"] == 8e6


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 512), st.floats(1e8, 1e12))
def test_more_gpus_are_never_faster_than_ideal(gpus: int, macs: float) -> None:
    work = replace(WORK, macs=macs)
    one, many = predict(work, Machine(), 1), predict(work, Machine(), gpus)
    assert many["images_per_second"] <= gpus * one["images_per_second"] * (1 + 1e-9)
    assert many["epoch"] * many["images_per_second"] == pytest.approx(work.images)


def test_activations_are_counted_per_leaf() -> None:
    net = nn.Sequential(nn.Conv2d(3, 5, 3, padding=1), nn.Sequential(nn.BatchNorm2d(5), nn.MaxPool2d(2)))
    before = {name: value.clone() for name, value in net.state_dict().items()}
    assert activation_elements(net, (1, 3, 8, 6)) == 5 * 48 + 5 * 48 + 5 * 12
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
