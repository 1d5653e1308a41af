import copy

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

from hs3seg.config import TrainConfig
from hs3seg.engine.optimization import MovingAverage, learning_rate, make_optimizer


def rates(settings: TrainConfig, epochs: int = 4, per_epoch: int = 5) -> list[float]:
    total = epochs * per_epoch
    return [learning_rate(step, total, per_epoch, settings) for step in range(total)]


def test_poly_follows_its_formula() -> None:
    got = rates(TrainConfig(learning_rate=0.01, schedule="poly", poly_power=0.9))
    assert got == pytest.approx([0.01 * (1 - step / 20) ** 0.9 for step in range(20)])


def test_cosine_falls_from_peak_to_nearly_zero() -> None:
    got = rates(TrainConfig(learning_rate=0.01, schedule="cosine"))
    assert got[0] == pytest.approx(0.01)
    assert got[10] == pytest.approx(0.005)
    assert got == sorted(got, reverse=True)
    assert got[-1] < 0.0001


def test_warmup_rises_linearly_to_the_peak() -> None:
    got = rates(TrainConfig(learning_rate=0.01, warmup_epochs=1.0))
    assert got[:5] == pytest.approx([0.002, 0.004, 0.006, 0.008, 0.01])
    assert max(got) == pytest.approx(0.01)


def test_after_the_warmup_poly_falls_from_the_peak_or_from_where_it_would_be() -> None:
    peak, power = 0.01, 0.9
    usual = rates(TrainConfig(learning_rate=peak, poly_power=power, warmup_epochs=1.0))
    assert usual[5:] == pytest.approx([peak * (1 - i / 15) ** power for i in range(15)])
    furnace = rates(TrainConfig(learning_rate=peak, poly_power=power, warmup_epochs=1.0, poly_from_start=True))
    assert furnace[:5] == usual[:5]
    assert furnace[5:] == pytest.approx([peak * (1 - i / 20) ** power for i in range(5, 20)])
    alone = TrainConfig(learning_rate=peak, poly_power=power)
    assert rates(alone) == rates(alone.model_copy(update={"poly_from_start": True}))


def test_warmup_longer_than_training_still_ends() -> None:
    got = rates(TrainConfig(learning_rate=0.01, warmup_epochs=99.0))
    assert len(got) == 20
    assert all(rate > 0 for rate in got)


@pytest.mark.parametrize("decay_norms", [True, False])
def test_decay_of_norms_and_biases_is_a_choice(decay_norms: bool) -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
    settings = TrainConfig(weight_decay=0.1, decay_norms=decay_norms)
    decays = {p.data_ptr(): g["weight_decay"] for g in make_optimizer(net, settings).param_groups for p in g["params"]}
    assert len(decays) == 4
    assert decays[net[0].weight.data_ptr()] == 0.1
    assert decays[net[0].bias.data_ptr()] == decays[net[1].weight.data_ptr()] == (0.1 if decay_norms else 0.0)


def test_moving_average_equals_its_recurrence() -> None:
    net = nn.BatchNorm1d(2)
    average = MovingAverage(net, decay=0.9)
    expected = None
    for update in range(30):
        with torch.no_grad():
            net.weight.copy_(torch.tensor([float(update), 1.0]))
            net.num_batches_tracked += 1
        average.update_parameters(net)
        value = float(update)
        keep = min(0.9, (1 + update) / (10 + update))
        expected = value if expected is None else keep * expected + (1 - keep) * value
    assert average.module.weight[0].item() == pytest.approx(expected, rel=1e-5)
    assert average.module.weight[1].item() == pytest.approx(1.0)
    assert average.module.num_batches_tracked.item() == 30


def test_moving_average_is_torchs_with_shared_weights_and_buffers() -> None:
    torch.manual_seed(0)
    shared = nn.Linear(3, 3)
    net = nn.Sequential(shared, nn.BatchNorm1d(3), shared, nn.BatchNorm1d(3, affine=False))

    def average(means: object, values: object, updates: object) -> None:
        keep = min(0.5, (1 + int(updates)) / (10 + int(updates)))  # type: ignore[call-overload]
        for mean, value in zip(means, values, strict=True):  # type: ignore[call-overload]
            mean.lerp_(value, 1 - keep) if mean.is_floating_point() else mean.copy_(value)

    found, oracle = MovingAverage(net, 0.5), AveragedModel(net, multi_avg_fn=average, use_buffers=True)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    for _ in range(6):
        net(torch.randn(5, 3)).square().sum().backward()
        optimizer.step()
        # A module may put a new tensor in a buffer's place.
        net[1].running_var = net[1].running_var + 1
        for model in (found, oracle):
            model.update_parameters(net)
    assert set(found.state_dict()) == set(oracle.state_dict())
    for name, value in oracle.state_dict().items():
        assert torch.equal(found.state_dict()[name], value), name
    # What an earlier version saved goes on.
    found.load_state_dict(oracle.state_dict())


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_the_fused_kernel_takes_the_steps_of_torchs_plain_loop(optimizer: str, layout: torch.memory_format) -> None:
    torch.manual_seed(0)
    # A bias before BatchNorm has no gradient but rounding, which AdamW makes full steps of.
    net = nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4), nn.Conv2d(4, 2, 1)).to(memory_format=layout)
    plain = copy.deepcopy(net)
    settings = TrainConfig(optimizer=optimizer, weight_decay=0.1, learning_rate=0.01)  # type: ignore[arg-type]
    fused = make_optimizer(net, settings)
    loop = make_optimizer(plain, settings)
    for group in loop.param_groups:
        assert group["fused"]
        group["fused"] = False  # and what is saved with False stays so when it is loaded
    for _ in range(5):
        images = torch.randn(2, 3, 9, 8).to(memory_format=layout)
        for model, steps in ((net, fused), (plain, loop)):
            model(images).square().sum().backward()
            steps.step()
            steps.zero_grad()
    for found, expected in zip(net.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    fused.load_state_dict(loop.state_dict())
    assert not any(group["fused"] for group in fused.param_groups)
