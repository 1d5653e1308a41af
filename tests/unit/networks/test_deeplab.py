import json

import pytest
import torch
from torch import nn

from hs3seg import networks
from hs3seg.errors import NetworkError
from hs3seg.networks.deeplab import _Pyramid
from hs3seg.nn import count_cost
from tests.conftest import shared
from tests.unit.networks import parity


def test_names_and_shapes_are_the_official_ones() -> None:
    with torch.device("meta"):
        state = networks.create("deeplabv3plus_wrn38", 19).state_dict()
    shapes = {name: list(tensor.shape) for name, tensor in state.items()}
    keys = shared("reference", "keys", "keys_hms_deepv3plus_wrn38.json")
    assert shapes == json.loads(keys.read_text())["keys"]
    assert shapes == parity.golden("05_deepv3plus_w38.json")["state_dict_shapes"]


@pytest.mark.slow
@pytest.mark.parametrize("fill", ["standard", "damped"])
def test_parity_with_the_official_code(fill: str) -> None:
    found = parity.golden("05_deepv3plus_w38.json")
    net = networks.create("deeplabv3plus_wrn38", 19).double().eval()
    net.load_state_dict(parity.official_state(found, fill))
    with torch.no_grad():
        parity.agree(net(parity.image(found)), parity.expected(found, fill)["pred"])


def test_cost_is_the_methods() -> None:
    with torch.device("meta"):
        net = networks.create("deeplabv3plus_wrn38", 19)
    cost = count_cost(net, (1, 3, 1024, 2048))
    assert cost.conv_macs == pytest.approx(5824.8e9, rel=1e-3)
    assert cost.parameters == 137_103_936


def test_any_image_size_works_and_the_trunk_can_be_tapped() -> None:
    sizes = {}
    with torch.device("meta"):
        net = networks.create("deeplabv3plus_wrn38", 7).eval()
        for name in ("mod2", "mod3", "mod4", "mod7"):
            net.get_submodule(f"backbone.{name}").register_forward_hook(
                lambda _m, _i, output, name=name: sizes.update({name: tuple(output.shape[1:])})
            )
        assert net(torch.zeros(1, 3, 65, 97)).shape == (1, 7, 65, 97)
    assert sizes == {"mod2": (128, 33, 49), "mod3": (256, 17, 25), "mod4": (512, 9, 13), "mod7": (4096, 9, 13)}


@pytest.mark.parametrize(
    ("given", "rates"), [(None, [0.3, 0.5]), (0.2, [0.2, 0.2]), ((0.1, 0.4), [0.1, 0.4]), (0.0, []), (0, [])]
)
def test_dropout_rates_of_the_last_two_blocks(given: float | tuple[float, float] | None, rates: list[float]) -> None:
    with torch.device("meta"):
        net = networks.DeepLabV3Plus(5) if given is None else networks.DeepLabV3Plus(5, dropout=given)
    assert [part.p for name, part in net.named_modules() if name.endswith("dropout")] == rates


def test_one_image_to_train_on_is_refused_in_words() -> None:
    pyramid = _Pyramid(8, 4, align_corners=False).train()
    with pytest.raises(NetworkError, match="1 image to train on; .* 2 images per batch"):
        pyramid(torch.zeros(1, 8, 4, 4))
    nn.SyncBatchNorm.convert_sync_batchnorm(pyramid).eval()(torch.zeros(1, 8, 4, 4))
    assert pyramid.train()(torch.zeros(2, 8, 4, 4)).shape == (2, 20, 4, 4)


def test_dropout_takes_whole_channels() -> None:
    with torch.device("meta"):
        dropout = networks.DeepLabV3Plus(5).get_submodule("backbone.mod7.block1.convs.dropout")
    torch.manual_seed(0)
    kept = dropout.train()(torch.ones(2, 64, 4, 4)) != 0
    assert torch.equal(kept, kept[..., :1, :1].expand_as(kept))
    assert 0 < kept.sum() < kept.numel()
