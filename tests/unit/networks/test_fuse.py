import copy

import pytest
import torch

from hs3seg import networks
from hs3seg.analysis import StagePlan, SupervisionPlan, deep_supervision
from hs3seg.errors import NetworkError
from hs3seg.nn import HierarchicalLoss, count_cost, supervise
from hs3seg.taxonomy import Grouping

NAMES = tuple("abcdefg")
# name, size, classes, groups, widths, then the method's table: conv MACs, matmul MACs, parameters.
TABLE = [
    ("hrnet_w18", (1024, 2048), 19, (8, 12), None, 225_028_002_304, 1_358_954_496, 5_135_550),
    ("hrnet_w18_ocr", (1024, 2048), 19, (8, 12), (116, 58), 154_067_977_464, 819_986_432, 4_553_954),
    ("hrnet_w48_ocr", (1024, 2048), 19, (8, 12), None, 1_796_322_918_400, 3_623_878_656, 74_304_570),
    ("hrnet_w18_ocr", (480, 640), 40, (20, 27), None, 33_258_215_040, 431_308_800, 5_150_883),
    ("hrnet_w48_ocr", (480, 640), 40, (20, 27), None, 263_929_405_440, 1_150_156_800, 74_345_343),
]


def small(groups: tuple[int, int] = (3, 5)) -> networks.FusedSegmenter:
    net = networks.create("hrnet_w18_small_ocr", len(NAMES))
    return networks.fuse(net, {"stage2": groups[0], "stage3": groups[1]}, mid=16, key=8)


@pytest.mark.parametrize(("name", "size", "classes", "groups", "widths", "conv", "matmul", "parameters"), TABLE)
def test_cost_is_the_methods(
    name: str,
    size: tuple[int, int],
    classes: int,
    groups: tuple[int, int],
    widths: tuple[int, int] | None,
    conv: int,
    matmul: int,
    parameters: int,
) -> None:
    mid, key = widths or (None, None)
    net = networks.fuse(networks.create(name, classes), {"stage2": groups[0], "stage3": groups[1]}, mid=mid, key=key)
    cost = count_cost(net, (1, 3, *size))
    assert (cost.conv_macs, cost.matmul_macs, cost.parameters) == (conv, matmul, parameters)


def test_a_budget_finds_the_papers_lighter_network() -> None:
    """Sec. 4: the Lighter variant costs as much as plain HRNet-OCR; 116 and 58 come nearest to its 154 GMACs."""
    net = networks.fuse(networks.create("hrnet_w18_ocr", 19), {"stage2": 8, "stage3": 12}, gmacs=154)
    assert net.widths == (116, 58)


def test_budgets_that_cannot_be_met_and_widths_that_cannot_be_halved() -> None:
    with pytest.raises(NetworkError, match=r"gmacs = 50 cannot be met: .* costs \d+\.\d+ GMACs at 1024x2048"):
        networks.fuse(networks.create("hrnet_w18_ocr", 19), {"stage2": 8, "stage3": 12}, gmacs=50)
    with pytest.raises(NetworkError, match="halved for each of 2 stages, so give both at least 4"):
        networks.fuse(networks.create("hrnet_w18_small", 7), {"stage2": 3, "stage3": 4}, mid=16, key=3)
    with pytest.raises(NetworkError, match="gmacs or widths"):
        networks.fuse(networks.create("hrnet_w18_small", 7), {"stage2": 3}, mid=16, gmacs=10)


def test_unknown_stages_and_foreign_networks_are_refused() -> None:
    with pytest.raises(NetworkError, match="stage 'stage9' is not in the net; modules that begin with 'stage'"):
        networks.fuse(networks.create("hrnet_w18_small", 7), {"stage9": 3})
    with pytest.raises(NetworkError, match=r"networks\.create.*Conv2d cannot"):
        networks.fuse(torch.nn.Conv2d(3, 7, 1), {"stage2": 3})


def test_outputs_are_the_stages_groups_the_regions_and_the_final_logits() -> None:
    net = small().eval()
    with torch.no_grad():
        outputs = net.outputs(torch.randn(2, 3, 65, 97))
        shapes = {name: tuple(value.shape) for name, value in outputs.items()}
        assert shapes == {
            "stage2": (2, 3, 17, 25),
            "stage3": (2, 5, 17, 25),
            "aux": (2, 7, 17, 25),
            "final": (2, 7, 17, 25),
        }


def test_an_ocr_network_keeps_its_own_widths() -> None:
    net = networks.fuse(networks.create("hrnet_w18_small_ocr", 5, mid=96, key=48), {"stage2": 3, "stage3": 4})
    assert net.widths == (96, 48)
    plain = networks.fuse(networks.create("hrnet_w18_small", 5), {"stage2": 3, "stage3": 4})
    assert plain.widths == (192, 96)


def test_widths_halve_per_earlier_stage_and_the_deepest_is_concatenated_first() -> None:
    net = small()
    assert [net.blocks[s].conv3x3_ocr[0].out_channels for s in ("stage2", "stage3")] == [4, 8]
    assert [net.blocks[s].ocr_distri_head.object_context_block.f_down[0].out_channels for s in net.blocks] == [2, 4]
    assert net.ocr.conv3x3_ocr[0].in_channels == net.backbone.feature_channels + 8 + 4
    # Only the stage 3 part of the concatenation moves when stage 3's enhanced features do.
    seen = []
    net.ocr.register_forward_pre_hook(lambda _m, inputs: seen.append(inputs[0]))
    net.eval()
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        net(images)
        net.blocks["stage3"].ocr_distri_head.conv_bn_dropout[1][0].bias.add_(1)
        net(images)
    moved = (seen[0] - seen[1]).abs().amax((0, 2, 3)) > 0
    channels = net.backbone.feature_channels
    assert moved[channels : channels + 8].any()
    assert not moved[:channels].any()
    assert not moved[channels + 8 :].any()


def test_supervised_with_its_plan_every_parameter_learns() -> None:
    plan = coarse_plan()
    net = networks.fuse(networks.create("hrnet_w18_small_ocr", len(NAMES)), plan, mid=16, key=8)
    model = supervise(net, plan=plan)
    assert not list(model.heads.children())
    loss = HierarchicalLoss(plan, auxiliary=model.auxiliary)
    outputs = model.train()(torch.randn(2, 3, 64, 64))
    assert list(outputs) == ["stage2", "stage3", "final", "aux"]
    terms = loss.terms(outputs, torch.randint(0, len(NAMES), (2, 64, 64)))
    total = loss.combine(terms)
    weighted = terms["final"] + 0.4 * (terms["stage2"] + terms["stage3"] + terms["aux"])
    torch.testing.assert_close(total, weighted)
    total.backward()
    assert [name for name, p in model.named_parameters() if p.grad is None] == []
    assert list(model.eval()(torch.randn(1, 3, 64, 64))) == ["stage2", "stage3", "final"]


def test_new_blocks_have_the_networks_precision() -> None:
    net = networks.create("hrnet_w18_small", 6).to(torch.bfloat16)
    fused = networks.fuse(net, {"stage2": 2, "stage3": 4})
    assert {parameter.dtype for parameter in fused.parameters()} == {torch.bfloat16}
    assert fused.eval()(torch.zeros(1, 3, 64, 64, dtype=torch.bfloat16)).dtype == torch.bfloat16


def test_a_plan_with_other_groups_is_refused() -> None:
    with pytest.raises(NetworkError, match="fused with 3 groups on stage 'stage2', the plan has 4"):
        supervise(small(), plan=coarse_plan(stage2=4))
    with pytest.raises(NetworkError, match="fused with 3 groups on stage 'stage2', the plan has no such stage"):
        supervise(small(), plan=deep_supervision(NAMES, ("stage3",)))


def coarse_plan(stage2: int = 3, stage3: int = 5) -> SupervisionPlan:
    """Classes beyond the number of groups share the last one."""
    groups = {"stage2": stage2, "stage3": stage3}
    stages = [
        StagePlan(stage, Grouping.from_labels([min(c, k - 1) for c in range(len(NAMES))]))
        for stage, k in groups.items()
    ]
    return SupervisionPlan(NAMES, tuple(stages))


@pytest.mark.parametrize(
    ("name", "options", "dropout", "momentum"),
    [
        ("hrnet_w18_small_ocr", {"dropout": 0.0, "bn_momentum": 0.02}, 0.0, 0.02),
        ("hrnet_w18_small_ocr", {}, 0.05, 0.1),
        ("hrnet_w18_small", {"bn_momentum": 0.03}, 0.05, 0.03),
    ],
)
def test_blocks_take_dropout_and_momentum_of_what_they_replace(
    name: str, options: dict[str, float], dropout: float, momentum: float
) -> None:
    net = networks.fuse(networks.create(name, 7, **options), {"stage2": 3}, mid=16, key=8)
    assert {part.p for part in net.modules() if isinstance(part, torch.nn.Dropout2d)} == {dropout}
    assert {part.momentum for part in net.modules() if isinstance(part, torch.nn.BatchNorm2d)} == {momentum}
    net = networks.fuse(networks.create(name, 7, **options), {"stage2": 3}, mid=16, key=8, dropout=0.4, bn_momentum=0.5)
    assert {part.p for part in net.modules() if isinstance(part, torch.nn.Dropout2d)} == {0.4}
    assert 0.5 in {part.momentum for part in net.modules() if isinstance(part, torch.nn.BatchNorm2d)}


@pytest.mark.parametrize("name", ["hrnet_w18_small", "hrnet_w18_small_ocr"])
def test_a_network_that_is_refused_is_as_it_was_and_none_is_fused_twice(name: str) -> None:
    net = networks.create(name, 7).eval()
    images = torch.randn(1, 3, 64, 64)
    before = net(images)
    for wrong in ({"gmacs": 1e-6}, {"mid": 1, "key": 1}):
        with pytest.raises(NetworkError):
            networks.fuse(net, {"stage2": 3, "stage3": 5}, **wrong)
        assert torch.equal(net(images), before)
    fused = networks.fuse(net, {"stage2": 3}, mid=16, key=8)
    for again in (net, fused, copy.deepcopy(net)):
        with pytest.raises(NetworkError, match="was fused before, and its classifier is gone"):
            networks.fuse(again, {"stage2": 3}, mid=16, key=8)


def test_nothing_is_held_after_checkpointing_or_calls_of_the_backbone() -> None:
    net = small().train()
    own = net.backbone.stage3.forward
    net.backbone.stage3.forward = lambda x: torch.utils.checkpoint.checkpoint(own, x, use_reentrant=False)
    images = torch.randn(2, 3, 64, 64)
    net.outputs(images)["final"].square().mean().backward()
    assert not net._caught
    net.backbone.features(images)
    assert not net._caught
    net.backbone.stage3.forward = own
    copy.deepcopy(net)
    net.backbone.stage4.forward = None  # type: ignore[assignment]
    with pytest.raises(TypeError):
        net(images)
    assert not net._caught
