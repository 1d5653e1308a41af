"""Public layouts on fabricated weights; the official names and shapes come from the reference's key lists."""

import json
import warnings
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from hs3seg import networks
from hs3seg.errors import CheckpointError
from hs3seg.networks import MultiScale, load_public_checkpoint, save_public_checkpoint
from tests.conftest import shared

# Files are written here in layouts whose networks are enlarged another way; a test below looks at what is said.
pytestmark = pytest.mark.filterwarnings("ignore:.*align_corners")

# network, its options, file of official names, layout
CASES = [
    ("hrnet_w18", {}, "keys_hrnet_seg_w18smallv2.json", "hrnet"),
    ("hrnet_w18_ocr", {}, "keys_hrnet_ocr_w18smallv2_mid192.json", "hrnet-ocr"),
    ("hrnet_w18_ocr", {"mid": 512, "key": 256}, "keys_hrnet_ocr_w18smallv2_mid512.json", "hrnet-ocr"),
    ("hrnet_w18_full_ocr", {"mid": 512, "key": 256}, "keys_hrnet_ocr_w18full_mid512.json", "hrnet-ocr"),
    ("hrnet_w18_ocr", {"mid": 512, "key": 256}, "keys_inverseform_ocrnet_w18_mid512.json", "hms-ocr"),
    ("hrnet_w18", {}, "keys_inverseform_onlyhrnet_w18.json", "inverseform"),
    ("hrnet_w48_ocr", {}, "keys_hms_ocr_w48.json", "hms-ocr"),
    ("hrnet_w48_ocr_hms", {}, "keys_hms_mscale_ocr_w48.json", "hms"),
    ("deeplabv3plus_wrn38", {}, "keys_hms_deepv3plus_wrn38.json", "wrn38"),
    ("sagate_resnet101", {}, "keys_sagate_r101_nyu40.json", "sagate"),
]


def small(classes: int = 5) -> networks.HRNetOCR:
    net = networks.create("hrnet_w18_small_ocr", classes, mid=16, key=8, align_corners=False)
    assert isinstance(net, networks.HRNetOCR)
    return net.eval()


def official(net: torch.nn.Module, layout: str, folder: Path) -> dict[str, Tensor]:
    """A network's weights as the official file has them."""
    save_public_checkpoint(net, folder / "official.pth", layout)
    found: dict[str, Tensor] = torch.load(folder / "official.pth", weights_only=True)
    return found


@pytest.mark.parametrize(("name", "options", "file", "layout"), CASES)
def test_every_official_name_and_shape_has_its_place(
    name: str, options: dict[str, int], file: str, layout: str
) -> None:
    """On the meta device, so that no memory is needed: names and shapes are what is tested."""
    keys = json.loads(shared("reference", "keys", file).read_text())["keys"]
    with torch.device("meta"):
        net = networks.create(name, 40 if layout == "sagate" else 19, **options)
        tensors = {
            f"module.{key}": torch.empty(shape, dtype=torch.long if key.endswith("tracked") else torch.float32)
            for key, shape in keys.items()
        }
    report = load_public_checkpoint(net, tensors)
    assert report.layout == layout
    assert report.missing == ()
    assert all(unused.startswith("aux_head.") for unused in report.unused)  # InverseForm's second head


@pytest.mark.parametrize("layout", ["hrnet-ocr", "hms-ocr"])
def test_written_in_an_official_layout_and_read_back(layout: str, tmp_path: Path) -> None:
    source, target = small(), small()
    names = official(source, layout, tmp_path)
    if layout == "hms-ocr":
        assert "module.ocr.aux_head.1.0.weight" in names["state_dict"]
        assert "module.ocr.aux_head.2.weight" in names["state_dict"]
    else:
        assert "model.aux_head.3.weight" in names
    report = load_public_checkpoint(target, tmp_path / "official.pth")
    assert report.layout == layout
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(source(images), target(images))
    assert f"tensors loaded from a checkpoint of layout '{layout}'" in str(report)


def test_hms_is_written_and_read_back_and_starts_from_ocr(tmp_path: Path) -> None:
    source, target = MultiScale(small(), 16, bottleneck=8).eval(), MultiScale(small(), 16, bottleneck=8).eval()
    save_public_checkpoint(source, tmp_path / "hms.pth", "hms")
    load_public_checkpoint(target, tmp_path / "hms.pth")
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(source(images), target(images))
    save_public_checkpoint(small(), tmp_path / "ocr.pth", "hrnet-ocr")
    with pytest.raises(CheckpointError, match=r"missing \(scale_attn\.\*\)"):
        load_public_checkpoint(target, tmp_path / "ocr.pth")
    report = load_public_checkpoint(target, tmp_path / "ocr.pth", allow_missing=("scale_attn.",))
    assert all(name.startswith("scale_attn.") for name in report.missing)


@pytest.mark.parametrize("inside_hms", [False, True])
def test_an_ocr_checkpoint_into_hs3_fuse_leaves_the_function_as_it_was(inside_hms: bool, tmp_path: Path) -> None:
    plain = small()
    save_public_checkpoint(plain, tmp_path / "ocr.pth", "hrnet-ocr")
    fused = networks.fuse(small(), {"stage2": 3, "stage3": 4}, mid=16, key=8).eval()
    assert isinstance(fused, networks.FusedSegmenter)
    target: torch.nn.Module = MultiScale(fused, 16, bottleneck=8).eval() if inside_hms else fused
    report = load_public_checkpoint(target, tmp_path / "ocr.pth", allow_missing=("scale_attn.",))
    assert any("conv3x3_ocr.0.weight" in name for name in report.widened)
    assert all("blocks." in name or name.startswith("scale_attn.") for name in report.missing)
    images = torch.randn(2, 3, 64, 96)
    with torch.no_grad():
        before, after = plain.outputs(images), fused.outputs(images)
    torch.testing.assert_close(after["final"], before["final"], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(after["aux"], before["aux"], rtol=1e-4, atol=1e-5)
    # ... and what the stages add can be learned: their new inputs get a gradient, though they start at zero.
    fused.train().outputs(images)["final"].square().mean().backward()
    gradient = fused.ocr.conv3x3_ocr[0].weight.grad
    assert gradient is not None
    assert gradient[:, plain.feature_channels :].abs().sum() > 0


def test_a_trunk_alone_from_timm_or_imagenet_fills_the_trunk(tmp_path: Path) -> None:
    source, target = small(), small(classes=9)
    trunk = {n: v for n, v in source.state_dict().items() if not n.startswith(("ocr.", "cls_head."))}
    extra = {"classifier.weight": torch.zeros(10, 4), "incre_modules.0.0.conv1.weight": torch.zeros(2, 2, 1, 1)}
    save_file({n: v.clone() for n, v in (trunk | extra).items()}, tmp_path / "imagenet.safetensors")
    head = target.cls_head.weight.clone()
    report = load_public_checkpoint(target, tmp_path / "imagenet.safetensors")
    assert report.layout == "imagenet"
    assert set(report.unused) == set(extra)
    assert torch.equal(target.conv1.weight, source.conv1.weight)
    assert torch.equal(target.cls_head.weight, head)
    save_public_checkpoint(target, tmp_path / "trunk.pth", "imagenet")
    assert load_public_checkpoint(small(), tmp_path / "trunk.pth").layout == "imagenet"


@pytest.mark.parametrize("channels", [1, 2, 4, 7])
def test_a_trunk_for_three_channels_starts_a_network_of_another_number(channels: int, tmp_path: Path) -> None:
    source = small()
    save_public_checkpoint(source, tmp_path / "trunk.pth", "imagenet")
    target = networks.create("hrnet_w18_small_ocr", 5, in_channels=channels).eval()
    report = load_public_checkpoint(target, tmp_path / "trunk.pth")
    assert report.adapted == ("conv1.weight",)
    assert "made for other input channels (conv1.*)" in str(report)
    grey = torch.rand(1, 1, 32, 32)
    expected = source.conv1(grey.expand(-1, 3, -1, -1))
    # timm's rule for one channel is the sum, so that grey images give what they gave; for more, the mean is kept.
    if channels == 1 or channels % 3 == 0:
        torch.testing.assert_close(target.conv1(grey.expand(-1, channels, -1, -1)), expected)
    weight = source.conv1.weight
    own = torch.cat([weight[:, i % 3 : i % 3 + 1] for i in range(channels)], 1) * (3 / channels)
    torch.testing.assert_close(target.conv1.weight, weight.sum(1, keepdim=True) if channels == 1 else own)
    save_public_checkpoint(source, tmp_path / "whole.pth", "hms-ocr")
    target = networks.create("hrnet_w18_small_ocr", 5, mid=16, key=8, in_channels=channels)
    with pytest.raises(CheckpointError, match="'conv1.weight' has shape"):
        load_public_checkpoint(target, tmp_path / "whole.pth")


@pytest.mark.parametrize(
    ("layout", "own", "told"),
    [("hms-ocr", True, True), ("hms-ocr", False, False), ("hrnet-ocr", False, True), ("hrnet-ocr", True, False)],
)
def test_another_way_of_enlarging_than_the_files_is_told(layout: str, own: bool, told: bool, tmp_path: Path) -> None:
    save_public_checkpoint(small(), tmp_path / "ocr.pth", layout)
    net = networks.create("hrnet_w18_small_ocr", 5, mid=16, key=8, align_corners=own)
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        load_public_checkpoint(net, tmp_path / "ocr.pth")
        load_public_checkpoint(net, tmp_path / "ocr.pth", parts="trunk")
    messages = [str(one.message) for one in found if "align_corners" in str(one.message)]
    assert len(messages) == told
    if told:
        assert f"layout '{layout}' are trained with align_corners={not own}, this one has {own}" in messages[0]


def test_other_class_counts_and_widths_are_told_and_nothing_is_loaded(tmp_path: Path) -> None:
    save_public_checkpoint(small(19), tmp_path / "19.pth", "hrnet-ocr")
    net = small(5)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    with pytest.raises(CheckpointError, match=r"made for 19 classes, the network has 5 .*num_classes = 19.*'trunk'"):
        load_public_checkpoint(net, tmp_path / "19.pth")
    fused = networks.fuse(small(5), {"stage2": 3}, mid=16, key=8)
    with pytest.raises(CheckpointError, match="made for 19 classes, the network has 5"):
        load_public_checkpoint(fused, tmp_path / "19.pth")
    wide = networks.create("hrnet_w18_small_ocr", 19, mid=24, key=8)
    with pytest.raises(CheckpointError, match="checkpoint's widths"):
        load_public_checkpoint(wide, tmp_path / "19.pth")
    assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())
    report = load_public_checkpoint(net, tmp_path / "19.pth", parts="trunk")
    assert any(name.startswith("ocr.") for name in report.missing)


def test_partial_foreign_and_unsafe_checkpoints_are_refused(tmp_path: Path) -> None:
    state = dict(official(small(), "hrnet-ocr", tmp_path))
    state.pop("model.conv1.weight")
    with pytest.raises(CheckpointError, match=r"1 of \d+ tensors are missing \(conv1\.\*\)"):
        load_public_checkpoint(small(), state)
    with pytest.raises(CheckpointError, match="of no known layout; known are sagate, wrn38"):
        load_public_checkpoint(small(), {"encoder.weight": torch.zeros(1)})
    with pytest.raises(CheckpointError, match="tensors are missing"):
        load_public_checkpoint(networks.create("hrnet_w18_small", 5), official(small(), "hrnet-ocr", tmp_path))
    with pytest.raises(CheckpointError, match="do not exist"):
        load_public_checkpoint(small(), tmp_path / "no.pth")
    torch.save({"state_dict": _Code()}, tmp_path / "code.pth")
    with pytest.raises(CheckpointError, match="not a weight file that can be trusted"):
        load_public_checkpoint(small(), tmp_path / "code.pth")
    with pytest.raises(CheckpointError, match="unknown layout 'hrnet-orc'; nearest: 'hrnet-ocr'"):
        save_public_checkpoint(small(), tmp_path / "x.pth", "hrnet-orc")
    with pytest.raises(CheckpointError, match="HRNetOCR cannot be written in the layout 'hrnet'"):
        save_public_checkpoint(small(), tmp_path / "x.pth", "hrnet")


class _Code:
    pass


def test_a_place_may_be_text(tmp_path: Path) -> None:
    save_public_checkpoint(small(), str(tmp_path / "ours.pth"), "hrnet-ocr")
    assert load_public_checkpoint(small(), str(tmp_path / "ours.pth")).layout == "hrnet-ocr"


@pytest.mark.parametrize(
    "content", [b"", b"abc", b"0", b".", b"a", b"u.", b"\x80\x02h\x00.", b"<html>not found</html>", b"PK"]
)
def test_files_that_are_no_checkpoint_are_refused_with_a_reason(tmp_path: Path, content: bytes) -> None:
    for name in ("junk.pth", "junk.safetensors"):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(CheckpointError, match=r"not a weight file that can be trusted \(.+\)"):
            load_public_checkpoint(small(), tmp_path / name)
