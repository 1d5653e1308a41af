import copy
import json
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torchvision.models.segmentation import fcn_resnet50, lraspp_mobilenet_v3_large

import hs3seg
from hs3seg.errors import NetworkError
from hs3seg.export import PretrainedSegmenter, Runner, certify, export_program, find_idle, load_runner
from hs3seg.networks import create

K, SIDE = 3, 64


class TwoHeads(nn.Module):
    def __init__(self, leaks: bool) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU())
        self.last = nn.Conv2d(8, K, 1)
        self.aux = nn.Sequential(nn.Conv2d(8, 4, 3, padding=1), nn.Conv2d(4, K, 1))
        self.leaks = leaks

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        x = self.body(images)
        found = {"out": self.last(x)}
        if self.leaks or self.training:
            found["aux"] = self.aux(x)
        return found


@pytest.fixture
def example() -> Tensor:
    return torch.randn(2, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))


def test_a_stripped_network_passes_bit_equal(example: Tensor) -> None:
    net = create("hrnet_w18_small", K)
    before = copy.deepcopy(net)
    model = hs3seg.supervise(net, example=example)
    model.train()(example)
    after = model.strip().to(memory_format=torch.channels_last)
    before.load_state_dict(after.state_dict())
    certificate = certify(before, after, example, repeats=1)
    assert certificate.passed
    assert certificate.before == certificate.after
    assert certificate.max_difference == 0
    assert certificate.weight_bytes[0] == certificate.weight_bytes[1]
    assert certificate.idle == {}


def test_a_network_with_its_stage_heads_fails(example: Tensor) -> None:
    net = create("hrnet_w18_small", K)
    plain = copy.deepcopy(net)
    model = hs3seg.supervise(net, ["stage2"], example=example)
    heads = sum(p.numel() for p in model.heads.parameters())
    certificate = certify(plain, model, example, repeats=1)
    assert not certificate.passed
    assert certificate.after.parameters - certificate.before.parameters == heads
    assert certificate.idle.keys() == {"heads.stage2"}
    assert certificate.after.conv_macs - certificate.before.conv_macs == certificate.idle["heads.stage2"]


def test_torchvisions_auxiliary_head_leaks_into_inference() -> None:
    example = torch.randn(1, 3, 32, 32)
    leaking = fcn_resnet50(weights=None, weights_backbone=None, num_classes=K, aux_loss=True).eval()
    plain = copy.deepcopy(leaking)
    plain.aux_classifier = None  # what aux_loss=False makes
    certificate = certify(plain, leaking, example, repeats=1)
    # 3x3 from 1024 to 256 channels and 1x1 to K, on a map of 4x4
    macs = 16 * (1024 * 256 * 9 + 256 * K)
    assert certificate.idle == {"aux_classifier": macs}
    assert certificate.after.conv_macs - certificate.before.conv_macs == macs
    assert certificate.max_difference == 0
    assert not certificate.passed
    assert "aux_classifier" in " ".join(certificate.reasons)


def test_a_leak_is_found_without_a_network_to_compare(example: Tensor) -> None:
    net = TwoHeads(leaks=True)
    certificate = certify(net, net, example, repeats=1)
    assert list(certificate.idle) == ["aux"]
    assert len(certificate.reasons) == 1


def test_a_head_that_only_training_runs_is_no_leak(example: Tensor) -> None:
    net = TwoHeads(leaks=False).train()
    assert certify(net, net, example, repeats=1).passed
    assert net.training


def test_everything_that_the_logits_need_is_needed(example: Tensor) -> None:
    assert find_idle(create("hrnet_w18_small_ocr", K), example) == {}
    assert find_idle(lraspp_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=K), example) == {}


def test_other_weights_are_a_reason(example: Tensor) -> None:
    one, two = TwoHeads(False).eval(), TwoHeads(False).eval()
    certificate = certify(one, two, example, repeats=1)
    expected = (one(example)["out"] - two(example)["out"]).abs().max().item()
    assert certificate.max_difference == pytest.approx(expected)
    assert not certificate.passed
    assert certify(one, two, example, repeats=1, tolerance=2 * expected).passed


def test_other_shapes_are_a_reason_and_json_has_no_nan(example: Tensor) -> None:
    one, two = TwoHeads(False), TwoHeads(False)
    two.last = nn.Conv2d(8, K - 1, 1)
    certificate = certify(one, two, example, repeats=1)
    assert any("shape" in reason for reason in certificate.reasons)
    read = json.loads(json.dumps(certificate.to_dict(), allow_nan=False))
    assert read["max_difference"] is None
    assert read["passed"] is False
    assert read["before"]["parameters"] == sum(p.numel() for p in one.parameters())


def test_a_cheaper_network_passes_on_cost(example: Tensor) -> None:
    one = TwoHeads(leaks=False)
    two = copy.deepcopy(one)
    del two.aux
    assert certify(one.eval(), two.eval(), example, repeats=1).passed
    assert not certify(two.eval(), one.eval(), example, repeats=1).passed


def test_an_exported_file_cannot_be_certified(example: Tensor, tmp_path) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(NetworkError, match="'after' has no parameters"):
        certify(TwoHeads(False), Runner(tmp_path, lambda images: images, {}), example)


def test_of_exported_files_only_a_folder_has_a_network_to_certify(example: Tensor, tmp_path: Path) -> None:
    net = create("hrnet_w18_small", K).eval()
    PretrainedSegmenter(net, "hrnet_w18_small").save_pretrained(tmp_path / "net")
    certificate = certify(net, load_runner(tmp_path / "net"), example, repeats=1)
    assert certificate.passed
    assert certificate.before == certificate.after
    other = copy.deepcopy(net)
    with torch.no_grad():
        next(iter(other.parameters())).add_(1)
    assert not certify(other, load_runner(tmp_path / "net"), example, repeats=1).passed
    graph = export_program(TwoHeads(False).eval(), tmp_path / "net.pt2", example)
    with pytest.raises(NetworkError, match="'after' has no parameters"):
        certify(TwoHeads(False), load_runner(graph.path), example)
