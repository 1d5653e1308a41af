import pytest
import torch
from torch.nn import functional as F

from hs3seg import networks
from hs3seg.analysis import deep_supervision
from hs3seg.errors import NetworkError
from hs3seg.networks import FusedSegmenter, HRNetOCR, MultiScale
from hs3seg.nn import HierarchicalLoss, find_stages, supervise
from tests.unit.networks import parity

NAMES = tuple("abcdefg")


def small(fused: bool = False) -> MultiScale:
    torch.manual_seed(0)
    net = MultiScale(HRNetOCR("hrnet_w18_small", len(NAMES), mid=16, key=8, align_corners=False), 16, bottleneck=8)
    if fused:
        fuse = networks.fuse(net, {"net.stage2": 7, "net.stage3": 7}, mid=24, key=8)
        assert fuse is net
        assert net.widths == (24, 8)
        assert net.scale_attn.conv0.in_channels == 24
    return net


@pytest.mark.slow
@pytest.mark.parametrize("fill", ["standard", "damped"])
def test_parity_with_the_official_code(fill: str) -> None:
    found = parity.golden("04_hms_mscale_ocr_w48.json")
    net = networks.create("hrnet_w48_ocr_hms", 19).double().eval()
    report = networks.load_public_checkpoint(net, parity.official_state(found, fill))
    assert (report.layout, report.missing, report.unused) == ("hms", (), ())
    images, tensors = parity.image(found), parity.expected(found, fill)
    with torch.no_grad():
        parts = net.multi_scale_outputs(images, [0.5, 1.0, 2.0])
        for name in ("pred_2.0x", "pred_1.0x", "attn_1.0x", "pred_0.5x", "attn_0.5x"):
            parity.agree(parts[name], tensors[f"nscale_0.5_1.0_2.0/{name}"])
        parity.agree(parts["final"], tensors["nscale_0.5_1.0_2.0/pred"])
        parity.agree(parts["aux"], tensors["nscale_0.5_1.0_2.0/aux (joint)"])
        parity.agree(net.multi_scale(images, [1.0]), tensors["single_scale_1.0/pred"])
        two = net.outputs(images)
        parity.agree(two["final"], tensors["two_scale_0.5_1.0/pred"])
        parity.agree(two["aux"], tensors["two_scale_0.5_1.0/aux (joint)"])


def test_two_scales_are_joined_by_the_lower_ones_attention() -> None:
    """The same numbers from the parts, pixel by pixel, at sizes that do not halve."""
    net = small().eval()
    images = torch.randn(1, 3, 65, 97)
    with torch.no_grad():
        outputs = net.outputs(images)
        halved = F.interpolate(images, size=(32, 48), mode="bilinear")
        low, enhanced = net.net.parts(halved)
        attention = F.interpolate(net.scale_attn(enhanced), size=(32, 48), mode="bilinear")
        weighed = attention * F.interpolate(low["final"], size=(32, 48), mode="bilinear")
        wide = F.interpolate(attention, size=(65, 97), mode="bilinear")
        joint = F.interpolate(weighed, size=(65, 97), mode="bilinear") + (1 - wide) * outputs["pred_1.0x"]
    torch.testing.assert_close(outputs["final"], joint)
    torch.testing.assert_close(net.multi_scale(images, [0.5, 1.0]), joint)
    assert outputs["attention"].shape == (1, 1, 32, 48)


def test_one_scale_is_the_network_itself() -> None:
    net = small().eval()
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        alone = F.interpolate(net.net(images), size=(64, 64), mode="bilinear")
        torch.testing.assert_close(net.multi_scale(images, [1.0]), alone)


@pytest.mark.parametrize("scales", [[0.5, 2.0], [1.0, 1.0], [1.0, -1.0]])
def test_wrong_scales_are_refused(scales: list[float]) -> None:
    with pytest.raises(NetworkError, match=r"give different positive scales with 1\.0 among them"):
        small().multi_scale(torch.randn(1, 3, 32, 32), scales)


@pytest.mark.parametrize("fused", [False, True])
def test_stages_are_joined_too_and_every_parameter_learns(fused: bool) -> None:
    """With heads on a plain network, or with HS3-Fuse inside; Eq. 1 and the network's own terms."""
    net = small(fused)
    assert isinstance(net.net, FusedSegmenter) == fused
    stages = ("net.stage2", "net.stage3")
    assert fused or stages == find_stages(net, torch.zeros(1, 3, 64, 64))
    model = supervise(net, plan=deep_supervision(NAMES, stages))
    outputs = model.train()(torch.randn(2, 3, 64, 64))
    assert list(outputs) == [*stages, "final", "aux", "pred_0.5x", "pred_1.0x"]
    loss = HierarchicalLoss(model.plan, auxiliary=model.auxiliary)
    terms = loss.terms(outputs, torch.randint(0, len(NAMES), (2, 64, 64)))
    expected = terms["final"] + 0.4 * sum(terms[s] for s in (*stages, "aux"))
    expected = expected + 0.05 * (terms["pred_0.5x"] + terms["pred_1.0x"])
    torch.testing.assert_close(loss.combine(terms), expected)
    loss.combine(terms).backward()
    assert [name for name, p in model.named_parameters() if p.grad is None] == []


def test_a_stages_logits_of_two_scales_are_joined_with_the_same_attention() -> None:
    net = small().eval()
    model = supervise(net, stages=("net.stage2",), num_classes=len(NAMES)).eval()
    images = torch.randn(1, 3, 64, 64)
    caught = []
    model.heads["net/stage2"].register_forward_hook(lambda _m, _i, output: caught.append(output))
    with torch.no_grad():
        joint = model(images)["net.stage2"]
        low, high = caught
        assert (tuple(low.shape), tuple(high.shape)) == ((1, 7, 8, 8), (1, 7, 16, 16))
        attention = net.outputs(images)["attention"]  # (1, 1, 32, 32)
        weighed = attention * F.interpolate(low, size=(32, 32), mode="bilinear")
        wide = F.interpolate(attention, size=(16, 16), mode="bilinear")
        torch.testing.assert_close(joint, F.interpolate(weighed, size=(16, 16), mode="bilinear") + (1 - wide) * high)
