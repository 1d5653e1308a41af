"""The official HRNet-OCR enlarges its logits with align_corners, in the loss and in every prediction."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hs3seg import networks
from hs3seg.analysis import deep_supervision
from hs3seg.engine.protocol import Protocol, forward_by, segment
from hs3seg.engine.tiles import Tiling, segment_tiles
from hs3seg.errors import PlanError
from hs3seg.nn import ConfusionRecorder, CrossEntropy, HierarchicalLoss, Supervised, make_criteria, supervise
from hs3seg.nn.resize import aligns_corners

SIZE = (64, 96)


class Smooth(nn.Module):
    """Logits at 1/16 that differ from pixel to pixel, so that the way of enlarging shows."""

    def __init__(self, *, align_corners: bool) -> None:
        super().__init__()
        self.align_corners = align_corners
        self.stage = nn.AvgPool2d(16)
        self.last = nn.Conv2d(3, 4, 1)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.last(self.stage(images))
        return logits


def enlarged(logits: Tensor, *, align_corners: bool) -> Tensor:
    return F.interpolate(logits.float(), size=SIZE, mode="bilinear", align_corners=align_corners)


@pytest.fixture(params=[True, False])
def model(request: pytest.FixtureRequest) -> Supervised:
    torch.manual_seed(0)
    net = Smooth(align_corners=request.param)
    return supervise(net, plan=deep_supervision(list("abcd"), ["stage"]), example=torch.zeros(1, 3, *SIZE)).eval()


@pytest.fixture
def images() -> Tensor:
    return torch.randn(2, 3, *SIZE, generator=torch.Generator().manual_seed(1)) * 20


def test_networks_say_how_they_are_enlarged() -> None:
    assert aligns_corners(networks.create("hrnet_w18_small_ocr", 5))
    assert not aligns_corners(networks.create("hrnet_w18_small_ocr", 5, align_corners=False))
    assert not aligns_corners(networks.create("hrnet_w18_small", 5))
    assert not aligns_corners(nn.Conv2d(3, 5, 1))


def test_the_loss_is_that_of_logits_enlarged_as_the_network_says(model: Supervised, images: Tensor) -> None:
    labels = torch.randint(0, 4, (2, *SIZE), generator=torch.Generator().manual_seed(2))
    outputs = {name: value.detach() for name, value in model(images).items()}
    loss = HierarchicalLoss(model.plan, align_corners=model.align_corners)
    own = model.net.align_corners
    for name, value in loss.terms(outputs, labels).items():
        wanted, other = (F.cross_entropy(enlarged(outputs[name], align_corners=a), labels) for a in (own, not own))
        torch.testing.assert_close(value, wanted, rtol=1e-5, atol=1e-6)
        assert abs(float(value - other)) > 1e-4
    for kind in ("cross_entropy", "ohem", "image_weighted", "rmi"):
        criteria = make_criteria(model.plan, kind, align_corners=own)
        values = [
            make_criteria(model.plan, kind, align_corners=a)["final"](outputs["final"], labels) for a in (own, not own)
        ]
        assert float(criteria["final"](outputs["final"], labels)) == float(values[0]) != float(values[1])
        HierarchicalLoss(model.plan, criteria=criteria, align_corners=own)
    with pytest.raises(PlanError, match="make both as the network"):
        HierarchicalLoss(model.plan, criteria={"final": CrossEntropy(align_corners=not own)}, align_corners=own)
    torchs = HierarchicalLoss(model.plan, criteria={"final": nn.CrossEntropyLoss(ignore_index=255)}, align_corners=own)
    wanted = F.cross_entropy(enlarged(outputs["final"], align_corners=own), labels)
    torch.testing.assert_close(torchs.terms(outputs, labels)["final"], wanted)


@torch.no_grad()
def test_predictions_are_those_of_logits_enlarged_as_the_network_says(model: Supervised, images: Tensor) -> None:
    logits = model(images)["final"]
    own = model.net.align_corners
    wanted, other = (enlarged(logits, align_corners=a).argmax(1) for a in (own, not own))
    assert (wanted != other).float().mean() > 0.01
    recorder = ConfusionRecorder(model.plan, align_corners=model.align_corners)
    recorder.update(model(images), wanted)
    counts = torch.from_numpy(recorder.confusions()["final"])
    assert counts.trace() == counts.sum()
    for protocol in (Protocol(crop=SIZE), Protocol(crop=SIZE, merge="logits"), Protocol(crop=SIZE, merge="mean_exp")):
        torch.testing.assert_close(segment(model, images, protocol)["final"].argmax(1), wanted, rtol=0, atol=0)
    net = model.strip()
    scores = forward_by(Protocol())(net)(images)
    assert scores.shape == logits.shape
    pixels = images[0].clamp(0, 255).byte()
    strips = segment_tiles(
        lambda tile: net(tile.float()), pixels, Tiling(64, 128, 64), align_corners=aligns_corners(net)
    )
    tiled = torch.cat([scores for _, scores in strips], 1)  # a single tile
    alone = enlarged(net(pixels[None].float()), align_corners=own)[0].log_softmax(0)
    torch.testing.assert_close(tiled, alone, rtol=1e-4, atol=1e-4)
