import pytest
import torch

from hs3seg import networks
from hs3seg.nn import count_cost
from tests.unit.networks import parity


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
