import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hs3seg.analysis import StagePlan, SupervisionPlan
from hs3seg.data import EvaluationLoader, EvaluationTransform
from hs3seg.engine import PRESETS, Protocol, Runtime, evaluate, forward_by, segment
from hs3seg.errors import ConfigError
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
    assert (set(hrnet.scales), hrnet.flip, hrnet.crop, hrnet.merge) == (set(multi), True, (1024, 2048), "mean_exp")
    sagate, several = PRESETS["sagate"], PRESETS["sagate_multi_scale"]
    assert (set(several.scales), several.flip) == ({0.75, 1.0, 1.25}, True)
    for protocol in (sagate, several):
        assert (protocol.crop, protocol.steps, protocol.merge) == ((480, 480), (320, 320), "sum_exp")
    assert (sagate.scales, sagate.flip) == ((1.0,), False)
    assert (set(PRESETS["hms"].scales), PRESETS["hms"].flip, PRESETS["hms"].merge) == ({0.5, 1.0, 2.0}, True, "hms")


def test_hrnets_code_sees_small_scales_whole_and_sagates_pads_them() -> None:
    # As PRESETS, all a hundredth as large.
    whole, padded = Slanted(), Slanted()
    images = IMAGES[..., :10, :20]
    found = segment(whole, images, Protocol((0.5, 1.0, 1.5), True, (10, 20), (10, 20), "mean_exp"))["final"]
    # Mirrored too; of the largest scale four windows of the full size.
    assert whole.seen == [(5, 10)] * 2 + [(10, 20)] * 2 + [(10, 20)] * 8
    segment(padded, images, Protocol((0.5, 1.0, 1.5), True, (10, 20), (10, 20), "sum_exp"))
    assert padded.seen == [(10, 20)] * 12
    size = (10, 20)
    total = torch.zeros_like(found)
    for scale in (0.5, 1.0):
        small = up(images, (int(10 * scale), int(20 * scale)))
        both = [up(net_of, small.shape[-2:]) for net_of in (whole(small), whole(small.flip(-1)).flip(-1))]
        total += up((sum(both) / 2).exp(), size) / 3
    large = segment(whole, images, Protocol((1.5,), True, (10, 20), (10, 20), "mean_exp"))["final"]
    assert found.shape == total.shape
    torch.testing.assert_close(found - large / 3, total, rtol=1e-3, atol=1e-3)


def test_published_protocols_run() -> None:
    for name, protocol in PRESETS.items():
        if protocol.merge != "hms":
            found = segment(Slanted(), IMAGES, protocol)["final"]
            assert found.isfinite().all(), name


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
    assert level["miou"] >= 0
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
