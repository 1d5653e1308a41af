import threading
from functools import partial
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision import tv_tensors

from hs3seg import networks
from hs3seg.data import EvaluationTransform, Sample
from hs3seg.engine import Runtime
from hs3seg.engine.tiles import Tiling
from hs3seg.errors import DataError
from hs3seg.networks.hms import MultiScale
from hs3seg.pipeline.predict import reading, segment
from hs3seg.pipeline.predict.memory import peak_activation_bytes
from hs3seg.pipeline.predict.segment import Segmenter

GIB = 2**30


def network(classes: int = 3) -> nn.Module:
    """A stride of 2 and a short reach."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, classes, 3, 1, 1)).eval()


@pytest.fixture(scope="module")
def runtime() -> Runtime:
    return Runtime("float32")


def segmenter(runtime: Runtime, resize: tuple[int, int] | None = None, **options: Any) -> Segmenter:
    net = network()
    trained = SimpleNamespace(
        model=SimpleNamespace(strip=lambda: net),
        mean=torch.tensor([0.5, 0.5, 0.5]),
        std=torch.tensor([0.25, 0.25, 0.25]),
        taxonomy=SimpleNamespace(num_classes=3),
        config=SimpleNamespace(augment=SimpleNamespace(resize=resize)),
    )
    options = {"batch_size": 4, "tiling": None, "memory_bytes": 4 * GIB, **options}
    return Segmenter(trained, runtime, **options)


def images(*sizes: tuple[int, int]) -> list[Tensor]:
    rng = np.random.default_rng(0)
    return [torch.from_numpy(rng.integers(0, 256, (3, *size), np.uint8)) for size in sizes]


def whole(image: Tensor, size: tuple[int, int] | None = None, via: tuple[int, int] | None = None) -> Tensor:
    """Probabilities, straight from the network, resized as in evaluation."""
    seen = EvaluationTransform(size)(Sample(tv_tensors.Image(image), tv_tensors.Mask(image[0]), ""))[0]
    with torch.inference_mode():
        logits = network()((seen[None].float() / 255 - 0.5) / 0.25)
    for following in (via, image.shape[-2:]):
        logits = logits if following is None else F.interpolate(logits, size=following, mode="bilinear")
    return logits[0].softmax(0)


def probabilities(strips: Any) -> Tensor:
    return torch.cat([scores for _, scores in strips], dim=1).softmax(0)


@torch.inference_mode()
def test_batches_whole_and_in_tiles_equal_the_network(runtime: Runtime) -> None:
    given = images((192, 256), (192, 256))
    own = segmenter(runtime)
    for tiling in (None, Tiling(64, 128, 0), Tiling(128, 128, 64)):
        results = own.segment(given, tiling)
        for image, strips in zip(given, results, strict=True):
            found = probabilities(strips)
            if tiling != Tiling(64, 128, 0):  # without an overlap the borders of tiles differ
                torch.testing.assert_close(found, whole(image), rtol=1e-4, atol=1e-5)
            assert found.shape == (3, 192, 256)


@torch.inference_mode()
def test_images_of_several_sizes_are_one_batch_where_they_are_resized(runtime: Runtime) -> None:
    given = images((80, 100), (64, 300))
    own = segmenter(runtime, resize=(128, 192))
    assert [own.network_size(image) for image in given] == [(128, 192)] * 2
    for tiling, via in ((None, None), (Tiling(128, 128, 64), (128, 192))):  # tiles are put together at that size
        for image, strips in zip(given, own.segment(given, tiling), strict=True):
            torch.testing.assert_close(probabilities(strips), whole(image, (128, 192), via), rtol=1e-4, atol=1e-5)


def test_another_forward_pass(runtime: Runtime) -> None:
    def flipped(net: nn.Module) -> Any:
        return lambda x: (net(x).softmax(1) + net(x.flip(-1)).flip(-1).softmax(1)).log()

    (image,) = images((64, 96))
    own = segmenter(runtime, protocol=flipped)
    with torch.inference_mode():
        (found,) = map(probabilities, own.segment([image], None))
        (mirrored,) = map(probabilities, own.segment([image.flip(-1)], None))
    torch.testing.assert_close(found, mirrored.flip(-1), rtol=1e-4, atol=1e-5)
    assert own.layout((64, 96)).tiling is None  # the estimate runs the other pass too


def test_an_image_is_cut_where_it_needs_more_than_the_memory(runtime: Runtime) -> None:
    # Activations of the small network: 8 channels at 1/4 of the pixels in float32, twice; more in the estimate.
    large = segmenter(runtime, memory_bytes=8 * GIB).layout((6000, 8000))
    assert large.tiling is None
    assert large.need_bytes is not None
    assert 4 * 48_000_000 * 8 < large.need_bytes < 8 * GIB
    enough = segmenter(runtime, memory_bytes=large.need_bytes)
    assert enough.layout((6000, 8000)).tiling is None
    little = segmenter(runtime, memory_bytes=large.need_bytes - 1).layout((6000, 8000))
    assert little.tiling is not None
    assert little.need_bytes == large.need_bytes
    less = segmenter(runtime, memory_bytes=GIB).layout((6000, 8000))
    assert less.tiling is not None
    assert less.tiling.height <= little.tiling.height


def test_a_batch_is_as_large_as_the_memory_allows(runtime: Runtime) -> None:
    one = segmenter(runtime, batch_size=1).layout((1000, 1000)).need_bytes
    assert one is not None
    assert segmenter(runtime, batch_size=8).layout((1000, 1000)).batch_size == 8
    assert segmenter(runtime, batch_size=8, memory_bytes=one).layout((1000, 1000)).batch_size == 1
    assert segmenter(runtime, batch_size=8, memory_bytes=2 * one).layout((1000, 1000)).batch_size > 2


def test_what_does_not_fit_at_all_says_what_it_needs(runtime: Runtime) -> None:
    with pytest.raises(DataError, match=r"8000x6000 pixels needs about 0.\d\d GiB .* 0.10 GiB are allowed.*memory_gib"):
        segmenter(runtime, memory_bytes=int(0.1 * GIB)).layout((6000, 8000))


def test_a_tile_that_is_asked_for_is_taken(runtime: Runtime) -> None:
    own = segmenter(runtime, tiling=Tiling(128, 256, 64))
    assert own.layout((128, 256)).tiling is None
    assert own.layout((129, 256)).tiling == Tiling(128, 256, 64)
    assert segmenter(runtime, resize=(128, 256), tiling=Tiling(128, 256, 64)).layout((999, 999)).tiling is None


def test_activations_are_counted_without_computing_them() -> None:
    net = nn.Sequential(nn.Conv2d(3, 10, 1, bias=False), nn.ReLU(), nn.Conv2d(10, 2, 1, bias=False)).eval()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    # At most the first convolution's result and the ReLU's: 10 channels each.
    assert peak_activation_bytes(net, net, (1, 3, 500, 700)) == 2 * 10 * 4 * 500 * 700
    in_place = nn.Sequential(net[0], nn.ReLU(inplace=True), net[2])
    assert peak_activation_bytes(in_place, in_place, (2, 3, 500, 700)) == 2 * 12 * 4 * 500 * 700
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


def test_weights_stay_where_a_module_has_two_names_or_two_modules_one_weight() -> None:
    first, second = nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1)
    second.weight = first.weight
    net = nn.Sequential(first, nn.BatchNorm2d(3), first, second).eval()
    values = [value.clone() for value in net.state_dict().values()]
    assert peak_activation_bytes(net, net, (1, 3, 20, 30)) > 0
    assert second.weight is first.weight
    assert all(torch.equal(a, b) for a, b in zip(net.state_dict().values(), values, strict=True))


@pytest.mark.parametrize("name", ["hrnet_w18_small_ocr", "deeplabv3plus_wrn38", "sagate_resnet101", "hms"])
def test_every_kind_of_network_is_counted_in_proportion_to_the_pixels(name: str) -> None:
    with torch.device("meta"):
        kind = "hrnet_w18_small_ocr" if name == "hms" else name
        net = networks.create(kind, 5).eval()
        net = MultiScale(net, 192).eval() if name == "hms" else net
    channels: int = net.in_channels
    small, large = (peak_activation_bytes(net, net, (1, channels, side, side)) for side in (256, 512))
    assert small > 4 * channels * 256 * 256
    assert large == pytest.approx(4 * small, rel=0.05)


def test_calls_are_made_ahead_in_order_and_only_while_their_pixels_are_few() -> None:
    made: list[int] = []
    main = threading.get_ident()

    def call(number: int) -> int:
        assert threading.get_ident() != main
        made.append(number)
        return number

    quarter = reading.AHEAD_PIXELS // 4
    for pixels, most, ahead in ((1, 3, 3), (1, 1, 1), (quarter * 2, 9, 2), (reading.AHEAD_PIXELS + 1, 9, 0)):
        made.clear()
        results = reading.read_ahead(((pixels, partial(call, i)) for i in range(8)), most)
        assert next(results) == 0
        results.close()  # waits for what was begun
        assert made in [list(range(i)) for i in range(1, 2 + ahead)]
        assert list(reading.read_ahead(((pixels, partial(call, i)) for i in range(8)), most)) == list(range(8))
    assert list(reading.read_ahead([], 3)) == []


def test_an_error_of_a_call_comes_at_its_place() -> None:
    def fail() -> int:
        raise DataError("second")

    results = reading.read_ahead([(1, lambda: 1), (1, fail), (1, lambda: 3)], 3)
    assert next(results) == 1
    with pytest.raises(DataError, match="second"):
        next(results)


def test_the_tiles_of_the_estimate_become_smaller(runtime: Runtime) -> None:
    budgets = [0.58, 0.65, 0.8, 1.5]
    sides = []
    for budget in budgets:
        tiling = segmenter(runtime, memory_bytes=int(budget * GIB)).layout((4000, 9000)).tiling
        sides.append(99999 if tiling is None else tiling.height)
    assert sides == sorted(sides)
    assert sides[0] < sides[-1]
    assert {*sides} - {99999} <= {Tiling.of((side, side)).height for side in segment._TILE_SIDES}
