from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from hs3seg.errors import CheckpointError, ConfigError, DataError
from hs3seg.nn.inverseform import (
    InverseFormLoss,
    InverseNet,
    boundary_map,
    cut_tiles,
    label_boundaries,
    load_inverse_net,
    train_inverse_net,
)

SIDE, TILE = 64, 32


def scenes(count: int, seed: int) -> torch.Tensor:
    """Labels (count, 64, 64) of boxes and ellipses, 4 classes."""
    generator = torch.Generator().manual_seed(seed)
    y, x = torch.meshgrid(torch.arange(SIDE), torch.arange(SIDE), indexing="ij")
    labels = torch.zeros(count, SIDE, SIDE, dtype=torch.int64)
    for image in labels:
        for group in (1, 2, 3):
            cx, cy = torch.rand(2, generator=generator) * SIDE
            rx, ry = (torch.rand(2, generator=generator) * 0.2 + 0.08) * SIDE
            box = ((x - cx).abs() < rx) & ((y - cy).abs() < ry)
            ellipse = ((x - cx) / rx) ** 2 + ((y - cy) / ry) ** 2 < 1
            image[ellipse if group % 2 else box] = group
    return labels


def certain(labels: torch.Tensor, groups: int = 4) -> torch.Tensor:
    """Logits that are sure of these labels."""
    return 20.0 * F.one_hot(labels, groups).permute(0, 3, 1, 2)


def disc_logits(shift: torch.Tensor, x: float, y: float, radius: float) -> torch.Tensor:
    """Two groups, a disc with a soft rim, moved to the right by `shift` pixels."""
    rows, columns = torch.meshgrid(torch.arange(float(SIDE)), torch.arange(float(SIDE)), indexing="ij")
    inside = radius - ((columns - x - shift) ** 2 + (rows - y) ** 2 + 0.01).sqrt()
    return torch.stack([-inside, inside])[None]


@pytest.fixture(scope="module")
def trained() -> tuple[InverseNet, list[float]]:
    maps = label_boundaries(scenes(48, 0), 2)
    return train_inverse_net(maps, 800, 0, tile=TILE, parameters=2, hidden=(128, 32), max_shift=0.5, learning_rate=2e-3)


@pytest.fixture
def loss(trained: tuple[InverseNet, list[float]]) -> InverseFormLoss:
    return InverseFormLoss(trained[0], tiles=(2, 2))


def test_the_network_learns(trained: tuple[InverseNet, list[float]]) -> None:
    losses = trained[1]
    assert sum(losses[:10]) / 10 > 0.25  # 1/3 is that of always answering zero
    assert sum(losses[-50:]) / 50 < 0.08


def test_shifted_boundaries_cost_more_the_farther_they_are(loss: InverseFormLoss) -> None:
    labels = scenes(32, 9)  # not those of the training
    values = [loss(certain(labels.roll((s, s), (1, 2))), labels).item() for s in (0, 2, 4, 6)]
    assert values == sorted(values)
    assert values[0] < 0.4 * values[2]


@pytest.mark.parametrize("place", [(32, 32, 10), (30, 36, 14), (20, 20, 9)])
def test_the_gradient_pulls_a_boundary_home(loss: InverseFormLoss, place: tuple[float, float, float]) -> None:
    labels = disc_logits(torch.tensor(0.0), *place).argmax(1)
    for start in (-4.0, -3.0, 3.0, 4.0):
        shift = torch.tensor(start, requires_grad=True)
        loss(disc_logits(shift, *place), labels).backward()
        assert shift.grad.item() * start > 0


def test_the_gradient_reaches_small_logits_and_not_the_network(loss: InverseFormLoss) -> None:
    labels = scenes(2, 3)
    logits = torch.randn(2, 4, 16, 16, generator=torch.Generator().manual_seed(0)).requires_grad_()
    value = loss(logits, labels)
    value.backward()
    assert value.shape == ()
    assert torch.isfinite(logits.grad).all()
    assert all(logits.grad[i].any() for i in range(2))
    assert all(weight.grad is None for weight in loss.net.parameters())
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(loss(logits, labels), value)


def test_saturated_logits_have_a_finite_gradient(loss: InverseFormLoss) -> None:
    logits = (1e6 * certain(scenes(2, 4))).requires_grad_()
    loss(logits, scenes(2, 3)).backward()
    assert torch.isfinite(logits.grad).all()


def test_without_labels_or_boundaries_it_is_a_zero_with_a_gradient(loss: InverseFormLoss) -> None:
    for labels in (torch.full((2, 64, 64), 255), torch.zeros(2, 64, 64, dtype=torch.int64)):
        logits = torch.randn(2, 4, 16, 16, requires_grad=True)
        value = loss(logits, labels)
        assert value.item() == 0
        value.backward()
        assert not logits.grad.any()


def test_ignored_pixels_have_no_influence(loss: InverseFormLoss) -> None:
    labels = scenes(2, 5)
    hidden = torch.zeros(2, SIDE, SIDE, dtype=torch.bool)
    hidden[:, 10:30, 5:50] = True
    ignored = labels.masked_fill(hidden, 255)
    logits = certain(labels)
    moved = torch.where(hidden[:, None], certain(labels.flip(2)), logits)
    expected = loss(logits, ignored)
    assert torch.equal(loss(moved, ignored), expected)
    assert torch.equal(loss(logits, labels.masked_fill(hidden, 4)), expected)  # beyond the groups
    assert not torch.equal(loss(moved, labels), loss(logits, labels))


def test_the_loss_is_the_mean_norm_over_tiles_that_have_a_boundary() -> None:
    """As the released code computes it; a network that sums its inputs stands in."""
    net = InverseNet(8, 4, (1, 1))
    with torch.no_grad():
        for weight in net.parameters():
            weight.zero_()
        net.fc[0].weight.fill_(1)
        net.fc[2].weight.fill_(1)
        net.fc[4].weight.copy_(torch.tensor([[3.0], [4.0], [0.0], [0.0]]))
    labels = torch.zeros(1, 16, 24, dtype=torch.int64)
    labels[:, :, 12:] = 1  # the boundary is columns 10 to 13, in the middle two of 2 x 3 tiles
    value = InverseFormLoss(net, tiles=(2, 3))(certain(labels, 2), labels)
    edges_per_tile = 2 * 8 * 4  # two maps, 8 rows, 4 columns
    assert value.item() == pytest.approx(5 * edges_per_tile, rel=1e-5)


@pytest.mark.parametrize("radius", [1, 2, 3])
def test_boundaries_of_labels_are_those_of_one_hot_maps(radius: int) -> None:
    labels = scenes(4, 1)
    maps = label_boundaries(labels, radius)
    assert torch.equal(boundary_map(F.one_hot(labels, 4).permute(0, 3, 1, 2).float(), radius), maps)
    for (n, y, x), value in zip(
        torch.cartesian_prod(*map(torch.arange, (4, 64, 64))).tolist(), maps.flatten(), strict=True
    ):
        if y % 7 == 0 and x % 5 == 0:
            window = labels[n, max(y - radius, 0) : y + radius + 1, max(x - radius, 0) : x + radius + 1]
            assert value.item() == (len(window.unique()) > 1)
    soft = boundary_map(torch.rand(1, 3, 8, 8).softmax(1), radius)
    assert ((soft >= 0) & (soft <= 1)).all()


def test_tiles_are_cut_where_they_are_said_to_be() -> None:
    maps = torch.rand(2, 20, 30)
    identity = torch.tensor([[1.0, 0, 0, 0, 1, 0]]).repeat(2, 1)
    centres = torch.tensor([[11.5, 7.5], [19.5, 11.5]])  # between pixels: an 8 x 8 tile of whole ones
    tiles = cut_tiles(maps, centres, identity, 8)
    torch.testing.assert_close(tiles[0], maps[0, 4:12, 8:16])
    torch.testing.assert_close(tiles[1], maps[1, 8:16, 16:24])
    shifted = identity.index_add(1, torch.tensor([2, 5]), torch.tensor([[0.5, 0.25]]).repeat(2, 1))
    torch.testing.assert_close(cut_tiles(maps, centres, shifted, 8)[0], maps[0, 5:13, 10:18])
    assert not cut_tiles(maps, centres - 100, identity, 8).any()


@pytest.mark.parametrize("parameters", [2, 4, 6])
def test_training_follows_its_seed_alone(parameters: int) -> None:
    maps = label_boundaries(scenes(4, 0), 1)
    options = {"tile": 16, "parameters": parameters, "hidden": (8, 8), "batch_size": 4}
    torch.manual_seed(1)
    state = torch.random.get_rng_state()
    first, losses = train_inverse_net(maps, 3, 5, **options)
    assert torch.equal(torch.random.get_rng_state(), state)
    torch.manual_seed(2)
    second, again = train_inverse_net(maps, 3, 5, **options)
    assert losses == again
    assert len(losses) == 3
    for name, value in first.state_dict().items():
        assert torch.equal(value, second.state_dict()[name])
    assert train_inverse_net(maps, 3, 6, **options)[1] != losses
    assert first(torch.zeros(3, 16, 16), torch.zeros(3, 16, 16)).shape == (3, parameters)


def test_the_public_networks_names_and_shapes() -> None:
    with torch.device("meta"):
        shapes = {name: tuple(value.shape) for name, value in InverseNet().state_dict().items()}
    assert shapes == {
        "fc.0.weight": (1000, 2 * 224 * 224),
        "fc.0.bias": (1000,),
        "fc.2.weight": (32, 1000),
        "fc.2.bias": (32,),
        "fc.4.weight": (4, 32),
        "fc.4.bias": (4,),
    }


@pytest.mark.parametrize("prefix", ["", "module.", "model.", "modules."])
def test_weights_are_loaded_whole(tmp_path: Path, prefix: str) -> None:
    net = InverseNet(8, 6, (5, 3))
    state = {f"{prefix}{name}": value for name, value in net.state_dict().items()}
    torch.save({"state_dict": state} if prefix == "module." else state, tmp_path / "net.pth")
    loaded = load_inverse_net(tmp_path / "net.pth")
    assert loaded.tile == 8
    maps = torch.rand(2, 3, 8, 8)
    torch.testing.assert_close(loaded(*maps), net(*maps), rtol=0, atol=0)


def test_weights_that_are_not_the_networks_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "net.pth"
    with pytest.raises(CheckpointError, match=r"net\.pth' do not exist; give distance_measures_regressor\.pth"):
        load_inverse_net(path)
    path.write_bytes(b"PK not a zip file")
    with pytest.raises(CheckpointError, match="not a weight file that can be trusted"):
        load_inverse_net(path)
    torch.save(InverseNet(4, 2, (3, 3)), path)  # a pickled module runs code when it is read
    with pytest.raises(CheckpointError, match="not a weight file that can be trusted"):
        load_inverse_net(path)
    whole = InverseNet(4, 2, (3, 3)).state_dict()
    partial = {name: value for name, value in whole.items() if name != "fc.2.bias"}
    for content, message in (
        (partial, "1 of 6 tensors missing, 0 unknown, e.g. 'fc.2.bias'"),
        (whole | {"fc.6.weight": torch.zeros(1)}, "0 of 6 tensors missing, 1 unknown, e.g. 'fc.6.weight'"),
        ([1, 2], "6 of 6 tensors missing"),
        (whole | {"fc.0.weight": torch.zeros(3, 31)}, r"'fc.0.weight' is \(3, 31\)"),
        (whole | {"fc.2.weight": torch.zeros(3, 4)}, r"'fc.2.weight' is \(3, 4\)"),
        (whole | {"fc.0.weight": torch.tensor(1.0)}, r"'fc.0.weight' is \(\)"),
        (whole | {"fc.4.weight": torch.zeros(3, 3), "fc.4.bias": torch.zeros(3)}, r"'fc.4.bias' is \(3,\).*2, 4 or 6"),
    ):
        torch.save(content, path)
        with pytest.raises(CheckpointError, match=message):
            load_inverse_net(path)


def test_wrong_settings_are_told() -> None:
    with pytest.raises(ConfigError, match="parameters = 3.*2, 4 or 6"):
        InverseNet(8, 3)
    with pytest.raises(ConfigError, match=r"tiles = \(0, 6\)"):
        InverseFormLoss(InverseNet(8), tiles=(0, 6))
    maps = label_boundaries(scenes(1, 0), 1)
    with pytest.raises(ConfigError, match="steps = 0"):
        train_inverse_net(maps, 0, 0, tile=8)
    with pytest.raises(ConfigError, match=r"max_shift = 1\.5"):
        train_inverse_net(maps, 1, 0, tile=8, max_shift=1.5)
    with pytest.raises(DataError, match=r"shape \(64, 64\); give \(maps, height, width\)"):
        train_inverse_net(maps[0], 1, 0, tile=8)
    with pytest.raises(DataError, match="none of 1 edge maps has a boundary"):
        train_inverse_net(torch.zeros_like(maps), 1, 0, tile=8)
