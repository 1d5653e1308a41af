import math

import pytest
import torch

from hs3seg import networks
from hs3seg.errors import NetworkError
from hs3seg.nn import count_cost
from hs3seg.nn.ocr import OCRBlock, gather_regions
from tests.unit.networks import parity

# conv MACs, matmul MACs and parameters of the method's table, made with the official code.
TABLE = [
    ("hrnet_w18_ocr", (1024, 2048), 19, 154_192_337_920, 956_301_312, 4_577_998),
    ("hrnet_w18_ocr", (480, 640), 40, 22_774_761_600, 294_912_000, 4_587_742),
    ("hrnet_w48_ocr", (1024, 2048), 19, 1_295_328_935_936, 2_550_136_832, 70_372_678),
    ("hrnet_w48_ocr", (480, 640), 40, 190_254_387_200, 786_432_000, 70_398_592),
]


@pytest.mark.parametrize(("name", "size", "classes", "conv", "matmul", "parameters"), TABLE)
def test_cost_is_the_official_networks(
    name: str, size: tuple[int, int], classes: int, conv: int, matmul: int, parameters: int
) -> None:
    cost = count_cost(networks.create(name, classes), (1, 3, *size))
    assert (cost.conv_macs, cost.matmul_macs, cost.parameters) == (conv, matmul, parameters)


@pytest.mark.parametrize("fill", ["standard", "damped"])
@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("hrnet_w18_ocr", "02_hrnet_ocr_w18_small_v2_mid192.json"),
        pytest.param("hrnet_w48_ocr", "03_hrnet_ocr_w48.json", marks=pytest.mark.slow),
    ],
)
def test_parity_with_the_official_code(name: str, file: str, fill: str) -> None:
    found = parity.golden(file)
    net = networks.create(name, 19).double().eval()
    report = networks.load_public_checkpoint(net, parity.official_state(found, fill))
    assert (report.layout, report.missing, report.unused) == ("hrnet-ocr", (), ())
    with torch.no_grad():
        outputs = net.outputs(parity.image(found))
        for output, tensor in (("aux", "aux"), ("final", "main")):
            parity.agree(outputs[output], parity.expected(found, fill)[tensor])
        assert torch.equal(net(parity.image(found)), outputs["final"])


def test_a_region_is_the_weighted_mean_of_its_pixels() -> None:
    """Against the definition, pixel by pixel."""
    torch.manual_seed(0)
    pixels, logits = torch.randn(2, 5, 3, 4), torch.randn(2, 7, 3, 4)
    regions = gather_regions(pixels, logits)
    assert regions.shape == (2, 5, 7, 1)
    for n in range(2):
        for k in range(7):
            weights = torch.exp(logits[n, k]) / torch.exp(logits[n, k]).sum()
            torch.testing.assert_close(regions[n, :, k, 0], (weights * pixels[n]).sum((1, 2)))


def test_regions_are_gathered_in_float32_in_low_precision() -> None:
    """A Cityscapes frame has 131,072 pixels at 1/4: one pixel's weight is below fp16's normal range."""
    torch.manual_seed(0)
    pixels, logits = torch.rand(1, 4, 256, 512) + 1, torch.randn(1, 3, 256, 512)
    exact = gather_regions(pixels.double(), logits.double())
    low = gather_regions(pixels.half(), logits.half())
    assert low.dtype == torch.float16
    torch.testing.assert_close(low.double(), exact, rtol=2e-3, atol=0)


def test_block_has_one_logit_per_region_and_enhanced_features() -> None:
    logits, enhanced = OCRBlock(6, 8, 4, 3).eval()(torch.randn(2, 6, 5, 7))
    assert logits.shape == (2, 3, 5, 7)
    assert enhanced.shape == (2, 8, 5, 7)


def test_properties_and_their_defaults() -> None:
    assert networks.create("hrnet_w18_small_ocr", 5).align_corners  # as the official HRNet-OCR code
    assert not networks.create("hrnet_w18_small", 5).align_corners
    net = networks.create("hrnet_w18_small_ocr", 5, mid=32, key=8, dropout=0.3, align_corners=False, bn_momentum=0.2)
    assert {m.momentum for m in net.modules() if isinstance(m, torch.nn.BatchNorm2d)} == {0.2}
    assert {m.p for m in net.modules() if isinstance(m, torch.nn.Dropout2d)} == {0.3}
    assert net.cls_head.weight.shape == (5, 32, 1, 1)
    with pytest.raises(NetworkError, match="'hrnet_w18' has no option 'mid'; it has in_channels"):
        networks.create("hrnet_w18", 5, mid=32)


@pytest.mark.parametrize("size", [(64, 96), (65, 97)])
def test_any_image_size_works(size: tuple[int, int]) -> None:
    net = networks.create("hrnet_w18_small_ocr", 7, mid=16, key=8).eval()
    with torch.no_grad():
        outputs = net.outputs(torch.zeros(1, 3, *size))
    shape = (1, 7, math.ceil(size[0] / 4), math.ceil(size[1] / 4))
    assert outputs["final"].shape == outputs["aux"].shape == shape
