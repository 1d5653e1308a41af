import hashlib
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from hs3seg import networks
from hs3seg.errors import CheckpointError, NetworkError
from hs3seg.nn import count_cost
from tests.conftest import shared

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


def value(name: str, shape: tuple[int, ...], gain: float) -> np.ndarray:
    """The reference's fill: every weight is made from its official name."""
    seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") % 2**32
    if name.endswith("num_batches_tracked"):
        return np.zeros(shape, np.int64)
    drawn = np.random.default_rng(seed).standard_normal(shape)
    if name.endswith("running_var"):
        return 0.5 + np.abs(drawn)
    if name.endswith("running_mean"):
        return 0.1 * drawn
    if len(shape) == 1:
        return 1 + 0.1 * drawn if name.endswith("weight") else 0.1 * drawn
    return drawn * (gain * math.sqrt(2.0 / math.prod(shape[1:])))


@pytest.mark.parametrize("fill", ["standard", "damped"])
def test_parity_with_the_official_code(fill: str) -> None:
    golden: dict[str, Any] = json.loads(shared("reference", "golden", "01_hrnetv2_w18_small_v2.json").read_text())
    gain = golden["config"]["gain"][fill]
    net = networks.create("hrnet_w18", 19).double().eval()
    names = golden["state_dict_shapes"]
    assert set(net.state_dict()) == set(names)
    net.load_state_dict({n: torch.as_tensor(value(n, tuple(shape), gain)) for n, shape in names.items()})
    spec = golden["inputs"][0]
    image = np.random.default_rng(spec["seed"]).standard_normal(spec["shape"])
    with torch.no_grad():
        logits = net(torch.from_numpy(image))
    expected = next(o for o in golden["outputs"] if o["fill"] == fill)["tensors"]["logits"]
    assert list(logits.shape) == expected["shape"]
    flat = logits.reshape(-1)[torch.tensor(expected["indices"])].numpy()
    tolerance = 1e-9 * expected["abs_max"]
    np.testing.assert_allclose(flat, expected["values"], rtol=0, atol=tolerance)
    assert logits.mean().item() == pytest.approx(expected["mean"], abs=tolerance)
    assert logits.argmax(1).sum().item() == expected["argmax_channel_sum"]


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
    with pytest.raises(CheckpointError, match=r"1 tensors missing.*'conv1.weight'"):
        networks.create("hrnet_w18_small", 3, pretrained=tmp_path / "partial.safetensors")
    with pytest.raises(CheckpointError, match="another shape|missing"):
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
