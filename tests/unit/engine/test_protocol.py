import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hs3seg.analysis import StagePlan, SupervisionPlan, mean_iou
from hs3seg.data import EvaluationLoader, EvaluationTransform
from hs3seg.engine import PRESETS, Protocol, Runtime, evaluate, forward_by, segment
from hs3seg.errors import ConfigError
from hs3seg.networks import HRNetOCR, MultiScale
from hs3seg.nn import supervise
from hs3seg.taxonomy import Grouping
from tests.unit.engine.conftest import MEAN, SILENT, STD, Colours, Small


class Slanted(nn.Module):
    """Says other things of a mirrored image and of another place."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.convolution = nn.Conv2d(3, 4, 3, padding=1)
        self.seen: list[tuple[int, int]] = []

    def forward(self, images: Tensor) -> Tensor:
        self.seen.append((images.shape[-2], images.shape[-1]))
        ramp = torch.linspace(0, 1, images.shape[-1])
        logits: Tensor = self.convolution(images) + ramp
        return logits[..., ::2, ::2]


IMAGES = torch.randn(2, 3, 20, 28, generator=torch.Generator().manual_seed(1))


def up(maps: Tensor, size: tuple[int, int] = (20, 28)) -> Tensor:
    return F.interpolate(maps, size=size, mode="bilinear", align_corners=False)


def test_a_single_look_is_the_network_itself() -> None:
    net = Slanted()
    assert torch.equal(segment(net, IMAGES, Protocol())["final"], net(IMAGES))


def test_mirrored_probabilities_are_averaged() -> None:
    net = Slanted()
    found = segment(net, IMAGES, Protocol(flip=True))["final"]
    mirrored = up(net(IMAGES.flip(-1))).softmax(1).flip(-1)
    torch.testing.assert_close(found, (up(net(IMAGES)).softmax(1) + mirrored) / 2)
    torch.testing.assert_close(found.sum(1), torch.ones(2, 20, 28))


def test_mirroring_twice_gives_the_mirrored_answer() -> None:
    protocol = Protocol((0.5, 1.0), flip=True)
    net = Slanted()
    found = segment(net, IMAGES.flip(-1), protocol)["final"]
    torch.testing.assert_close(found.flip(-1), segment(net, IMAGES, protocol)["final"])


def test_scales_are_averaged_at_the_images_size() -> None:
    net = Slanted()
    found = segment(net, IMAGES, Protocol((0.5, 1.5), merge="logits"))["final"]
    assert net.seen == [(10, 14), (30, 42)]
    parts = [up(up(net(up(IMAGES, size)), size)) for size in ((10, 14), (30, 42))]
    torch.testing.assert_close(found, (parts[0] + parts[1]) / 2)


@pytest.mark.parametrize("merge", ["probabilities", "logits", "mean_exp", "sum_exp"])
def test_windows_equal_a_slow_loop(merge: str) -> None:
    net = Slanted()
    protocol = Protocol((1.0,), True, (8, 12), (5, 7), merge)  # type: ignore[arg-type]
    found = segment(net, IMAGES, protocol)["final"]
    total, covered = torch.zeros(2, 4, 20, 28), torch.zeros(20, 28)
    for top in (0, 5, 10, 12):
        for left in (0, 7, 14, 16):
            window = IMAGES[..., top : top + 8, left : left + 12]
            both = [up(net(window), (8, 12)), up(net(window.flip(-1)), (8, 12)).flip(-1)]
            scores = {
                "probabilities": (both[0].softmax(1) + up(net(window.flip(-1)), (8, 12)).softmax(1).flip(-1)) / 2,
                "logits": (both[0] + both[1]) / 2,
                "mean_exp": ((both[0] + both[1]) / 2).exp(),
                "sum_exp": (both[0] + both[1]).exp(),
            }[merge]
            total[..., top : top + 8, left : left + 12] += scores
            covered[top : top + 8, left : left + 12] += 1
    torch.testing.assert_close(found, total if merge == "sum_exp" else total / covered)


def test_an_image_smaller_than_the_window_is_padded_on_all_sides() -> None:
    net = Slanted()
    found = segment(net, IMAGES, Protocol(crop=(26, 32), merge="logits"))["final"]
    assert net.seen == [(26, 32)]
    padded = F.pad(IMAGES, (2, 2, 3, 3))
    torch.testing.assert_close(found, up(net(padded), (26, 32))[..., 3:23, 2:30])


def test_a_window_as_large_as_the_image_changes_nothing() -> None:
    net = Slanted()
    found = segment(net, IMAGES, Protocol(crop=(20, 28), merge="logits"))["final"]
    torch.testing.assert_close(found, up(net(IMAGES)))


def test_stages_are_looked_at_like_the_final_output() -> None:
    plan = SupervisionPlan(("a", "b", "c"), (StagePlan("first", Grouping.from_labels([0, 1, 1])),))
    model = supervise(Small(), plan=plan, example=IMAGES).eval()
    found = segment(model, IMAGES, Protocol((0.5, 1.0), True, (16, 16)))
    assert {name: tuple(scores.shape) for name, scores in found.items()} == {
        "final": (2, 3, 20, 28),
        "first": (2, 2, 20, 28),
    }


class Attending(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        return images[:, :2]

    def multi_scale(self, images: Tensor, scales: tuple[float, ...]) -> Tensor:
        ramp = torch.linspace(0, 1, images.shape[-1])
        return images[:, :2] * sum(scales) + ramp


def test_the_networks_own_attention_joins_the_scales() -> None:
    net = Attending()
    for merge in ("auto", "hms"):
        found = segment(net, IMAGES, Protocol((0.5, 1.0, 2.0), True, merge=merge))["final"]  # type: ignore[arg-type]
        ramp = torch.linspace(0, 1, 28)
        torch.testing.assert_close(found, IMAGES[:, :2] * 3.5 + (ramp + ramp.flip(0)) / 2)
    with pytest.raises(ConfigError, match="hierarchical attention"):
        segment(Slanted(), IMAGES, Protocol((0.5, 1.0), merge="hms"))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"scales": ()}, "at least one"),
        ({"scales": (1.0, -1.0)}, "above 0"),
        ({"scales": (1.0, 1.0)}, "twice"),
        ({"merge": "sumexp"}, "sum_exp"),
        ({"stride": (4, 4)}, "give the window's size"),
        ({"crop": (8, 8), "stride": (9, 8)}, "leaves gaps"),
        ({"crop": (8, 8), "merge": "hms"}, "whole images"),
    ],
)
def test_values_that_do_not_go_together_are_refused(values: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Protocol(**values)  # type: ignore[arg-type]


def test_published_protocols_are_those_of_the_official_codes() -> None:
    multi = (0.5, 0.75, 1.0, 1.25, 1.5, 1.75)
    hrnet = PRESETS["hrnet"]
    assert (set(hrnet.scales), hrnet.flip, hrnet.merge) == (set(multi), True, "mean_exp")
    assert hrnet.crop == hrnet.steps == (1024, 2048)
    sagate, several = PRESETS["sagate"], PRESETS["sagate_multi_scale"]
    assert (set(several.scales), several.flip) == ({0.75, 1.0, 1.25}, True)
    for protocol in (sagate, several):
        assert (protocol.crop, protocol.steps, protocol.merge) == ((480, 480), (320, 320), "sum_exp")
    assert (sagate.scales, sagate.flip) == ((1.0,), False)
    assert (set(PRESETS["hms"].scales), PRESETS["hms"].flip, PRESETS["hms"].merge) == ({0.5, 1.0, 2.0}, True, "hms")
    assert PRESETS["hms"].crop is None
    assert PRESETS["single"] == Protocol()


class Coarse(nn.Module):
    """Logits at 1/32 that depend on the place in the window and on zeros beside the image; cheap on large ones."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[int, int]] = []

    def forward(self, images: Tensor) -> Tensor:
        self.seen.append((images.shape[-2], images.shape[-1]))
        pooled = F.avg_pool2d(images, 32, ceil_mode=True)
        return pooled[:, :2] + torch.linspace(0, 1, pooled.shape[-1]) + images.mean((2, 3))[:, 2:, None, None]


def shifted(last: int, crop: int, step: int) -> list[int]:
    """Starts of windows as the official codes have them: the last one is moved back to the border."""
    return [min(i * step, last - crop) for i in range(-(-(last - crop) // step) + 1)]


def test_hrnets_protocol_looks_as_its_code_does() -> None:
    """Cityscapes.multi_scale_inference and BaseDataset.inference, written anew."""
    images = torch.randn(1, 3, 1024, 2048, generator=torch.Generator().manual_seed(1))
    net = Coarse()
    found = segment(net, images, PRESETS["hrnet"])["final"]
    # Small scales whole and unpadded, the others in four windows of the full size; each mirrored, too.
    assert sorted(net.seen) == sorted([(512, 1024), (768, 1536), *[(1024, 2048)] * (1 + 3 * 4)] * 2)

    def look(part: Tensor) -> Tensor:
        size = (part.shape[-2], part.shape[-1])
        return ((up(net(part), size) + up(net(part.flip(-1)), size).flip(-1)) / 2).exp()

    total = torch.zeros(1, 2, 1024, 2048)
    for scale in (0.5, 0.75, 1.0, 1.25, 1.5, 1.75):
        height, width = int(1024 * scale), int(2048 * scale)
        scaled = images if scale == 1 else up(images, (height, width))
        if scale <= 1:
            total += up(look(scaled), (1024, 2048))
            continue
        scores, count = torch.zeros(1, 2, height, width), torch.zeros(height, width)
        for top in shifted(height, 1024, 1024):
            for left in shifted(width, 2048, 2048):
                scores[..., top : top + 1024, left : left + 2048] += look(
                    scaled[..., top : top + 1024, left:][..., :2048]
                )
                count[top : top + 1024, left : left + 2048] += 1
        total += up(scores / count, (1024, 2048))
    torch.testing.assert_close(found, total / 6)


@pytest.mark.parametrize("name", ["sagate", "sagate_multi_scale"])
def test_sagates_protocol_looks_as_its_code_does(name: str) -> None:
    """Evaluator.scale_process and sliding_eval, written anew; unlike HRNet's, it pads small scales."""
    flip, scales = name != "sagate", (1.0,) if name == "sagate" else (1.0, 0.75, 1.25)
    images = torch.randn(1, 3, 480, 640, generator=torch.Generator().manual_seed(1))
    net = Coarse()
    found = segment(net, images, PRESETS[name])["final"]
    assert net.seen == [(480, 480)] * (2 if name == "sagate" else (2 + 1 + 4) * 2)
    total = torch.zeros(1, 2, 480, 640)
    for scale in scales:
        height, width = int(480 * scale), int(640 * scale)
        margin = max(0, 480 - height) // 2
        padded = F.pad(images if scale == 1 else up(images, (height, width)), (0, 0, margin, margin))
        scores = torch.zeros(1, 2, *padded.shape[-2:])
        for top in shifted(padded.shape[-2], 480, 320):
            for left in shifted(width, 480, 320):
                part = padded[..., top : top + 480, left : left + 480]
                logits = up(net(part), (480, 480))
                if flip:
                    logits = logits + up(net(part.flip(-1)), (480, 480)).flip(-1)
                scores[..., top : top + 480, left : left + 480] += logits.exp()
        total += up(scores[..., margin : margin + height, :], (480, 640))
    torch.testing.assert_close(found, total)


def test_hms_protocol_looks_as_its_code_does() -> None:
    """MscaleBasic.nscale_forward on the image and on the mirrored one, written anew."""
    torch.manual_seed(0)
    inner = HRNetOCR("hrnet_w18_small", 4, mid=16, key=8, align_corners=False)
    net = MultiScale(inner, 16, bottleneck=8).eval()
    images = torch.randn(1, 3, 64, 96)

    def at(given: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
        logits, features = inner.parts(up(given, size))
        return up(logits["final"], size), up(net.scale_attn(features), size)

    def joined(given: Tensor) -> Tensor:
        whole, half = (64, 96), (32, 48)
        (high, _), (middle, weight), (low, low_weight) = (at(given, size) for size in ((128, 192), whole, half))
        joint = weight * middle + (1 - weight) * up(high, whole)
        return up(low_weight * low, whole) + (1 - up(low_weight, whole)) * joint

    with torch.no_grad():
        found = segment(net, images, PRESETS["hms"])["final"]
        expected = (joined(images) + joined(images.flip(-1)).flip(-1)) / 2
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    assert (found - joined(images).detach()).abs().max() > 1e-3  # mirrored and not differ


def test_boundaries_and_levels_are_counted(runtime: Runtime) -> None:
    torch.manual_seed(0)
    plan = SupervisionPlan(Colours.taxonomy.names, (StagePlan("first", Grouping.from_labels([0, 1, 1])),))
    model = supervise(Small(), plan=plan, example=IMAGES)
    loader = EvaluationLoader(Colours(5), EvaluationTransform(), 2)
    protocol = Protocol((0.5, 1.0), True)
    found = evaluate(model, loader, runtime, SILENT, mean=MEAN, std=STD, protocol=protocol, boundaries=True)
    values = found.to_dict()
    assert values["protocol"]["scales"] == (0.5, 1.0)
    assert 0 <= values["boundary_f"]["mean"] <= 1
    assert set(values["boundary_iou"]["per_class"]) == set(Colours.taxonomy.names)
    level = values["levels"]["first"]
    assert level["num_groups"] == 2
    merged = np.zeros((2, 2), np.int64)
    np.add.at(merged, np.ix_([0, 1, 1], [0, 1, 1]), found.confusions["final"])
    assert level["miou"] == pytest.approx(mean_iou(merged))
    assert 0 <= level["share_of_errors_inside_groups"] <= 1
    with pytest.raises(ConfigError, match="one look"):
        evaluate(model, loader, runtime, SILENT, mean=MEAN, std=STD, protocol=protocol, with_embeddings=True)


@pytest.mark.parametrize("merge", ["auto", "logits", "sum_exp", "mean_exp"])
def test_prediction_gives_the_same_classes(merge: str) -> None:
    net = Slanted()
    protocol = Protocol((0.5, 1.0), True, (16, 16), merge=merge)  # type: ignore[arg-type]
    scores = forward_by(protocol)(net)(IMAGES)
    assert torch.equal(scores.argmax(1), segment(net, IMAGES, protocol)["final"].argmax(1))
    if merge == "auto":
        torch.testing.assert_close(scores.softmax(1), segment(net, IMAGES, protocol)["final"])
    assert torch.equal(forward_by(Protocol())(net)(IMAGES), net(IMAGES))


def test_hierarchical_attention_is_found_behind_a_network_of_its_own() -> None:
    class Outer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = nn.Identity()  # as NVIDIA's network has its trunk
            self.multi_scale = Attending().multi_scale

        def forward(self, images: Tensor) -> Tensor:
            return images[:, :2]

    protocol = Protocol((0.5, 1.0), merge="hms")
    expected = segment(Attending(), IMAGES, protocol)["final"]
    torch.testing.assert_close(segment(Outer(), IMAGES, protocol)["final"], expected)
    torch.testing.assert_close(forward_by(protocol)(Outer())(IMAGES), expected)
