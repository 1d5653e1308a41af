import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from hs3seg import networks
from hs3seg.errors import CheckpointError, NetworkError
from hs3seg.nn import count_cost
from tests.unit.networks import parity

# conv MACs and parameters of the design's table, made with the official code.
TABLE = [
    ("hrnet_w18", (1024, 2048), 19, 76_856_885_248, 3_939_579),
    ("hrnet_w18", (480, 640), 40, 11_367_196_800, 3_945_270),
    ("hrnet_w48", (480, 640), 40, 109_789_286_400, 65_874_520),
    ("hrnet_w48", (1024, 2048), 19, 747_513_053_184, 65_859_379),
]


@pytest.mark.parametrize(("name", "size", "classes", "macs", "parameters"), TABLE)
def test_cost_is_the_official_networks(
    name: str, size: tuple[int, int], classes: int, macs: int, parameters: int
) -> None:
    cost = count_cost(networks.create(name, classes), (1, 3, *size))
    assert (cost.conv_macs, cost.matmul_macs, cost.parameters) == (macs, 0, parameters)


@pytest.mark.parametrize("size", [(64, 96), (360, 480), (65, 97), (33, 129)])
def test_any_image_size_works(size: tuple[int, int]) -> None:
    net = networks.create("hrnet_w18_small", 7).eval()
    with torch.no_grad():
        logits = net(torch.zeros(1, 3, *size))
    assert logits.shape == (1, 7, math.ceil(size[0] / 4), math.ceil(size[1] / 4))


@pytest.mark.parametrize("fill", ["standard", "damped"])
def test_parity_with_the_official_code(fill: str) -> None:
    found = parity.golden("01_hrnetv2_w18_small_v2.json")
    net = networks.create("hrnet_w18", 19).double().eval()
    assert set(net.state_dict()) == set(found["state_dict_shapes"])
    net.load_state_dict(parity.official_state(found, fill))
    with torch.no_grad():
        parity.agree(net(parity.image(found)), parity.expected(found, fill)["logits"])


def test_initial_weights_follow_torchs_seed() -> None:
    states = []
    for _ in range(2):
        torch.manual_seed(3)
        states.append(networks.create("hrnet_w18_small", 5).state_dict())
    assert all(torch.equal(a, b) for a, b in zip(states[0].values(), states[1].values(), strict=True))


def test_properties_are_set() -> None:
    net = networks.create("hrnet_w18_small", 5, align_corners=True, bn_momentum=0.01, in_channels=1)
    assert net.align_corners
    assert {m.momentum for m in net.modules() if isinstance(m, torch.nn.BatchNorm2d)} == {0.01}
    assert net(torch.zeros(2, 1, 64, 64)).shape == (2, 5, 16, 16)


def test_unknown_names_and_class_counts() -> None:
    with pytest.raises(NetworkError, match="nearest: 'hrnet_w18"):
        networks.create("hrnet_w19", 5)
    with pytest.raises(NetworkError, match="at least 2"):
        networks.create("hrnet_w18", 1)


def test_trunk_weights_from_a_local_file(tmp_path: Path) -> None:
    torch.manual_seed(0)
    source = networks.create("hrnet_w18_small", 3)
    state = {k: v for k, v in source.state_dict().items() if not k.startswith("last_layer")}
    save_file(state, tmp_path / "trunk.safetensors")
    torch.save({"state_dict": {f"module.{k}": v for k, v in source.state_dict().items()}}, tmp_path / "official.pth")
    for file in ("trunk.safetensors", "official.pth"):
        net = networks.create("hrnet_w18_small", 7, pretrained=tmp_path / file)
        assert torch.equal(net.stage3[0].branches[0][0].conv1.weight, source.stage3[0].branches[0][0].conv1.weight)


def test_partial_or_foreign_trunk_weights_are_refused(tmp_path: Path) -> None:
    state = networks.create("hrnet_w18_small", 3).state_dict()
    state.pop("conv1.weight")
    save_file(state, tmp_path / "partial.safetensors")
    with pytest.raises(CheckpointError, match=r"1 of \d+ tensors are missing \(conv1"):
        networks.create("hrnet_w18_small", 3, pretrained=tmp_path / "partial.safetensors")
    with pytest.raises(CheckpointError, match="shape|missing"):
        networks.create("hrnet_w18", 3, pretrained=tmp_path / "partial.safetensors")
    with pytest.raises(CheckpointError, match="do not exist"):
        networks.create("hrnet_w18", 3, pretrained=tmp_path / "no.pth")
    (tmp_path / "broken.pth").write_bytes(b"nonsense")
    with pytest.raises(CheckpointError, match=r"broken.pth.*not a weight file"):
        networks.create("hrnet_w18", 3, pretrained=tmp_path / "broken.pth")


def test_a_failed_download_names_the_offline_way(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_args: object, **_options: object) -> None:
        raise OSError("no route to host")

    monkeypatch.setattr("timm.create_model", refuse)
    with pytest.raises(NetworkError, match=r"could not be fetched \(no route to host\).*network.pretrained"):
        networks.create("hrnet_w18", 3, pretrained=True)
