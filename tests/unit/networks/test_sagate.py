import copy
import json
import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hs3seg import networks
from hs3seg.analysis import deep_supervision
from hs3seg.errors import NetworkError
from hs3seg.networks.sagate import SAGate
from hs3seg.nn import HierarchicalLoss, count_cost, find_stages, supervise
from tests.conftest import shared
from tests.unit.networks.parity import agree, value


def filled(gain: float, blocks: tuple[int, ...] = (3, 4, 23, 3)) -> SAGate:
    """In float64, strictly by the official names; aliases get the values of their first name."""
    with torch.device("meta"):
        net = SAGate(40, blocks=blocks)
    state = {
        name: torch.as_tensor(value(name.replace("hha_downsample", "downsample"), tuple(t.shape), gain))
        for name, t in net.state_dict().items()
    }
    net.load_state_dict(state, assign=True)
    return net.eval()


def inputs(seed: int, n: int, h: int, w: int) -> Tensor:
    both = [np.random.default_rng(s).standard_normal((n, 3, h, w)) for s in (seed, seed + 1000)]
    return torch.from_numpy(np.concatenate(both, axis=1))


class Catch:
    """The outputs of modules by name, in a forward pass of the whole network."""

    def __init__(self, net: nn.Module, names: tuple[str, ...]) -> None:
        self.found: dict[str, Any] = {}
        for name in names:
            net.get_submodule(name).register_forward_hook(lambda _m, _x, y, name=name: self.found.update({name: y}))


@pytest.fixture(scope="module")
def small() -> SAGate:
    """One block per layer; tests that change it take a copy."""
    torch.manual_seed(0)
    return SAGate(5, blocks=(1, 1, 1, 1)).eval()


def test_names_and_shapes_are_the_official_ones() -> None:
    keys = json.loads(shared("reference", "keys", "keys_sagate_r101_nyu40.json").read_text())
    with torch.device("meta"):
        net = SAGate(40)
    assert [(name, list(t.shape)) for name, t in net.state_dict().items()] == list(keys["keys"].items())
    assert sum(p.numel() for p in net.parameters()) == keys["meta"]["n_params"]  # aliases are counted once
    norms = [m for m in net.modules() if isinstance(m, nn.BatchNorm2d)]
    assert {(m.eps, m.momentum) for m in norms} == {(1e-5, 0.1)}


@pytest.mark.parametrize("fill", ["standard", "damped"])
def test_parity_with_the_official_code(fill: str) -> None:
    golden = json.loads(shared("reference", "golden", "06_sagate_r101_nyu40.json").read_text())
    expected = next(o for o in golden["outputs"] if o["fill"] == fill)
    spec = golden["inputs"][0]
    n, _, h, w = spec["shape"]
    net = filled(golden["config"]["gain"][fill])
    caught = Catch(net, ("backbone.merge1", "backbone.merge2", "backbone.merge3", "backbone.merge4", "head.aspp"))
    with torch.no_grad():
        outputs = net.outputs(inputs(spec["seed"], n, h, w))
    for i in range(4):
        agree(caught.found[f"backbone.merge{i + 1}"], expected["intermediates"][f"merge[{i}]"])
    agree(caught.found["head.aspp"], expected["intermediates"]["aspp"])
    agree(outputs["final"], expected["tensors"]["main"])
    agree(outputs["aux"], expected["tensors"]["aux"])


# Made with the official code, layers cut to 1, 1, 1, 2 blocks, damped fill, input seed 3: final and aux per size.
ODD = {
    (65, 97): (
        {
            "mean": 0.0372178463131117,
            "std": 0.12545828075047685,
            "abs_max": 0.3743139933752822,
            "argmax_channel_sum": 238094,
            "values": [0.10024757082006538, 0.046757562561156214, -0.14146303093500648, 0.1101238521390004],
        },
        {
            "mean": -0.012496538906397034,
            "std": 0.17032477103417987,
            "abs_max": 0.4367941479575274,
            "argmax_channel_sum": 152054,
            "values": [0.05609006969809526, -0.06233117120087882, 0.13107651464501452, 0.06949328192441168],
        },
    ),
    (33, 50): (
        {
            "mean": 0.03542801042040813,
            "std": 0.12303301868132852,
            "abs_max": 0.3773541969061325,
            "argmax_channel_sum": 61850,
            "values": [0.10674307619385445, 0.04576476045162032, -0.1387082708841651, 0.10960386140732406],
        },
        {
            "mean": -0.009798129331581123,
            "std": 0.15849146595920702,
            "abs_max": 0.38528841017726595,
            "argmax_channel_sum": 37790,
            "values": [0.06681857772571653, -0.061124575056239416, 0.13170990998823315, 0.06624761797219077],
        },
    ),
}


def test_odd_sizes_give_the_official_numbers() -> None:
    net = filled(0.65, (1, 1, 1, 2))
    for size, statistics in ODD.items():
        with torch.no_grad():
            outputs = net.outputs(inputs(3, 1, *size))
        places = range(0, 40 * math.prod(size), 10 * math.prod(size) + 1)
        for name, expected in zip(("final", "aux"), statistics, strict=True):
            agree(outputs[name], expected | {"shape": [1, 40, *size], "indices": list(places)})


class WithAux(nn.Module):
    """Runs the auxiliary head, as the official code does."""

    def __init__(self, net: SAGate) -> None:
        super().__init__()
        self.net = net

    def forward(self, images: Tensor) -> Tensor:
        return self.net.outputs(images)["aux"]


def test_cost_is_the_official_networks_less_the_auxiliary_head() -> None:
    with torch.device("meta"):
        net, raw = SAGate(40), SAGate(40, depth_channels=1)
    cost = count_cost(WithAux(net), (1, 6, 480, 640))
    assert (cost.conv_macs, cost.matmul_macs, cost.parameters) == (192_580_214_784, 0, 110_875_160)
    head = 30 * 40 * (9 * 2048 * 512 + 512 * 40)
    assert count_cost(net, (1, 6, 480, 640)).conv_macs == cost.conv_macs - head == 181_231_017_984
    # Raw depth lacks two of three input channels of one 3x3 convolution to 64 channels at 1/2.
    assert count_cost(raw, (1, 4, 480, 640)).conv_macs == 181_231_017_984 - 2 * 9 * 64 * 240 * 320
    assert sum(p.numel() for p in raw.parameters()) == 110_875_160 - 2 * 9 * 64


def test_taps_are_the_merged_maps(small: SAGate) -> None:
    net = copy.deepcopy(small)
    assert net.backbone.layer1[0].downsample is net.backbone.layer1[0].hha_downsample
    images = torch.randn(1, 6, 64, 96)
    assert find_stages(net, images) == ("backbone.merge1", "backbone.merge2")
    caught = Catch(net, ("backbone.merge1", "backbone.merge2", "backbone.merge3", "head.auxlayer"))
    with torch.no_grad():
        merges = net.backbone(images)
        features = net.decode(merges)
        assert torch.equal(net(images), net.classify(features, (64, 96)))
        assert "head.auxlayer" not in caught.found  # costs nothing where only `forward` is called
        assert torch.equal(net(images[:, :3], images[:, 3:]), net(images))
        assert torch.equal(net.features(images), features)
    assert features.shape == (1, net.feature_channels, 16, 24)
    shapes = [(1, 256, 16, 24), (1, 512, 8, 12), (1, 1024, 4, 6)]
    for i, shape in enumerate(shapes):
        assert caught.found[f"backbone.merge{i + 1}"].shape == shape
        assert torch.equal(caught.found[f"backbone.merge{i + 1}"], merges[i])


def test_one_training_step_moves_every_parameter(small: SAGate) -> None:
    """With two supervised stages, in channels-last."""
    torch.manual_seed(0)
    images = torch.randn(2, 6, 33, 64).contiguous(memory_format=torch.channels_last)
    labels = torch.randint(5, (2, 33, 64))
    stages = ("backbone.merge1", "backbone.merge2")
    model = supervise(copy.deepcopy(small), stages, num_classes=5, example=images)
    model.train().to(memory_format=torch.channels_last)
    outputs = model(images)
    assert list(outputs) == [*stages, "final", "aux"]
    loss = sum(F.cross_entropy(F.interpolate(logits, (33, 64)), labels) for logits in outputs.values())
    loss.backward()
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    torch.optim.SGD(model.parameters(), lr=1.0).step()
    assert [name for name, p in model.named_parameters() if torch.equal(p, before[name])] == []
    with pytest.raises(NetworkError, match="1 image to train on.* at least 2 images per batch"):
        model.net(images[:1])


def test_hs3_fuse_keeps_the_auxiliary_head_in_training_and_its_loss(small: SAGate) -> None:
    torch.manual_seed(0)
    plan = deep_supervision(tuple("abcde"), ("backbone.merge1", "backbone.merge2"))
    net = networks.fuse(copy.deepcopy(small), plan, mid=16, key=8)
    assert isinstance(net, networks.FusedSegmenter)
    model = supervise(net, plan=plan)
    assert model.auxiliary == {"aux": 0.4, "backbone_aux": 0.2}
    images, labels = torch.randn(2, 6, 64, 96), torch.randint(5, (2, 64, 96))
    caught = Catch(net, ("backbone.backbone.merge4", "backbone.head.auxlayer"))
    outputs = model.train()(images)
    assert list(outputs) == [*plan.stage_names, "final", "aux", "backbone_aux"]
    logits = caught.found["backbone.head.auxlayer"]
    assert logits.shape[-2:] == caught.found["backbone.backbone.merge4"].shape[-2:]
    expected = F.interpolate(logits, (64, 96), mode="bilinear", align_corners=True)
    torch.testing.assert_close(outputs["backbone_aux"], expected)
    loss = HierarchicalLoss(plan, auxiliary=model.auxiliary, align_corners=model.align_corners)
    terms = loss.terms(outputs, labels)
    torch.testing.assert_close(terms["backbone_aux"], F.cross_entropy(expected, labels))
    others = terms["final"] + 0.4 * sum(terms[name] for name in (*plan.stage_names, "aux"))
    total = loss.combine(terms)
    torch.testing.assert_close(total, others + 0.2 * terms["backbone_aux"])
    total.backward()
    assert [name for name, p in model.named_parameters() if p.grad is None] == []
    # At inference it does not run, whoever asks.
    caught.found.clear()
    with torch.no_grad():
        assert list(model.eval()(images)) == [*plan.stage_names, "final"]
        assert "backbone_aux" not in net.outputs(images)
        assert model.strip() is net
        net(images)
    assert "backbone.head.auxlayer" not in caught.found
    cost, without = count_cost(net, (1, 6, 64, 96)), copy.deepcopy(net)
    del without.backbone.head.auxlayer
    bare = count_cost(without, (1, 6, 64, 96))
    assert (cost.conv_macs, cost.matmul_macs) == (bare.conv_macs, bare.matmul_macs)
    head = sum(p.numel() for p in small.head.auxlayer.parameters())
    assert cost.parameters == bare.parameters + head


def test_hs3_fuse_has_the_auxiliary_head_of_the_plain_networks_checkpoint(small: SAGate) -> None:
    torch.manual_seed(1)
    other = SAGate(5, blocks=(1, 1, 1, 1))
    assert not torch.equal(other.head.auxlayer.block[0].weight, small.head.auxlayer.block[0].weight)
    taken = networks.fuse(copy.deepcopy(small), {"backbone.merge1": 3}, mid=16, key=8)
    loaded = networks.fuse(other, {"backbone.merge1": 3}, mid=16, key=8)
    report = networks.load_public_checkpoint(loaded, small.state_dict(), allow_missing=("ocr.", "cls_head."))
    assert set(report.unused) == {"head.classify.weight", "head.classify.bias"}
    for net in (taken, loaded):
        for name, tensor in small.head.auxlayer.state_dict().items():
            assert torch.equal(net.state_dict()[f"backbone.head.auxlayer.{name}"], tensor), name


def test_low_precision_and_export(small: SAGate) -> None:
    images = torch.randn(1, 6, 64, 64)
    with torch.no_grad():
        exact = small(images)
        with torch.autocast("cpu", torch.bfloat16):
            low = small.outputs(images)
        assert low["final"].dtype == low["aux"].dtype == torch.bfloat16
        assert (low["final"] - exact).abs().max() < 0.05 * exact.abs().max()
        torch.testing.assert_close(torch.export.export(small, (images,)).module()(images), exact)


def test_properties_and_their_defaults() -> None:
    with torch.device("meta"):
        net = SAGate(5, depth_channels=1, align_corners=False, bn_momentum=0.2, dropout=0.3, blocks=(1, 1, 1, 1))
        default = SAGate(5, blocks=(1, 1, 1, 1))
    assert (net.in_channels, net.num_classes, net.align_corners) == (4, 5, False)
    assert (default.in_channels, default.align_corners) == (6, True)
    assert net.mean == pytest.approx((0.485, 0.456, 0.406, 0.449))
    assert net.std == pytest.approx((0.229, 0.224, 0.225, 0.226))
    assert default.mean == (0.485, 0.456, 0.406) * 2
    assert default.std == (0.229, 0.224, 0.225) * 2
    for network, momentum, dropout in ((net, 0.2, 0.3), (default, 0.1, 0.1)):
        assert {m.momentum for m in network.modules() if isinstance(m, nn.BatchNorm2d)} == {momentum}
        drops = [m for m in network.modules() if isinstance(m, (nn.Dropout, nn.Dropout2d))]
        assert [(type(m), m.p) for m in drops] == [(nn.Dropout2d, dropout), (nn.Dropout, dropout)]


def test_the_head_starts_with_kaiming_weights_of_torchs_seed(small: SAGate) -> None:
    torch.manual_seed(0)
    assert torch.equal(SAGate(5, blocks=(1, 1, 1, 1)).head.classify.weight, small.head.classify.weight)
    for name in ("aspp.map_convs.1", "last_conv.0", "auxlayer.block.0"):
        weight = small.head.get_submodule(name).weight
        assert weight.std().item() == pytest.approx(math.sqrt(2 / math.prod(weight.shape[1:])), rel=0.01)


def test_missing_or_swapped_modalities_are_told(small: SAGate) -> None:
    rgb = torch.zeros(1, 3, 32, 32)
    with pytest.raises(NetworkError, match=r"\(1, 3, 32, 32\); one modality is missing \(HHA\?\).* RGB, then 3 chan"):
        small(rgb)
    with pytest.raises(NetworkError, match=r"\(1, 4, 32, 32\); it needs both RGB and HHA, in this order"):
        small.outputs(torch.zeros(1, 4, 32, 32))
    with pytest.raises(NetworkError, match=r"\(1, 1, 32, 32\) and \(1, 3, 32, 32\); it needs both RGB and HHA"):
        small(rgb[:, :1], rgb)
    with pytest.raises(NetworkError, match="differ in number or size"):
        small(rgb, rgb[..., :16])
    with pytest.raises(NetworkError, match=r"depth_channels = 2; .*3 \(HHA\) or 1 \(raw depth\)"):
        SAGate(5, depth_channels=2)
