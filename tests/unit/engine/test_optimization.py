import pytest
import torch
from torch import nn

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
