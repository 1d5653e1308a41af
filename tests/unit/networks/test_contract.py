"""What every network must do: plain, supervised and fused; a new one is tested by standing in the catalogue."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from hs3seg import networks
from hs3seg.analysis import deep_supervision
from hs3seg.nn import HierarchicalLoss, Supervised, supervise

NAMES = tuple("abcde")
BIG = {"hrnet_w48", "hrnet_w48_ocr", "hrnet_w48_ocr_hms", "deeplabv3plus_wrn38", "sagate_resnet101"}


def plain(name: str) -> nn.Module:
    torch.manual_seed(0)
    return networks.create(name, len(NAMES))


def supervised(name: str) -> Supervised:
    return supervise(plain(name), num_classes=len(NAMES))


def fused(name: str) -> Supervised:
    stages = supervised(name).stages
    net = networks.fuse(plain(name), dict.fromkeys(stages, len(NAMES)), mid=16, key=8)
    return supervise(net, plan=deep_supervision(NAMES, stages))


def images(net: Any, size: tuple[int, int] = (64, 64), number: int = 2) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(number, net.in_channels, *size, generator=generator)


def big(names: list[str]) -> list[Any]:
    return [pytest.param(name, marks=pytest.mark.slow) if name in BIG else name for name in names]


CASES = [
    *[(plain, name) for name in networks.names()],
    *[(supervised, name) for name in networks.names()],
    *[(fused, name) for name in networks.names()],
]


@pytest.mark.parametrize("precision", [torch.float32, pytest.param(torch.bfloat16, marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    ("make", "name"),
    [pytest.param(m, n, id=f"{m.__name__}-{n}", marks=[pytest.mark.slow] if n in BIG else []) for m, n in CASES],
)
def test_one_step_moves_every_weight_and_one_evaluation_has_the_right_shape(
    make: Callable[[str], nn.Module], name: str, precision: torch.dtype
) -> None:
    model = make(name)
    if not isinstance(model, Supervised):
        model = supervise(model, plan=deep_supervision(NAMES, ()))
    # HMS halves the image first: BatchNorm over two pixels would have gradients without bounds.
    side = 128 if isinstance(model.net, networks.MultiScale) else 64
    batch = images(model.net, (side, side))
    labels = torch.randint(0, len(NAMES), (2, side, side), generator=torch.Generator().manual_seed(2))
    loss = HierarchicalLoss(model.plan, auxiliary=model.auxiliary)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == torch.bfloat16):
        outputs = model.train()(batch)
    total = loss(outputs, labels)
    total.backward()
    assert torch.isfinite(total)
    assert [n for n, p in model.named_parameters() if p.grad is None] == []
    optimizer.step()
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=precision == torch.bfloat16):
        final = model.eval()(batch)["final"]
        stripped = model.strip()(batch)
    assert torch.equal(final, stripped)
    assert final.shape[:2] == (2, len(NAMES))
    assert tuple(final.shape[2:]) in {(side, side), (side // 4, side // 4)}
    assert torch.isfinite(final).all()


@pytest.mark.parametrize("make", [plain, supervised, fused], ids=lambda m: m.__name__)
@pytest.mark.parametrize("name", big(["hrnet_w18_small_ocr", "deeplabv3plus_wrn38", "sagate_resnet101"]))
def test_copies_and_exported_programs_compute_the_same(make: Callable[[str], nn.Module], name: str) -> None:
    model = make(name).eval()
    net = model.strip() if isinstance(model, Supervised) and make is not supervised else model
    batch = images(getattr(net, "net", net), number=1)
    with torch.no_grad():
        expected = net(batch)
        copied = copy.deepcopy(net)(batch)
        exported = torch.export.export(net, (batch,), strict=False).module()(batch)
    for found in (copied, exported):
        if isinstance(expected, dict):
            for key, value in expected.items():
                torch.testing.assert_close(found[key], value, rtol=1e-4, atol=1e-5)
        else:
            torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("make", [plain, fused], ids=lambda m: m.__name__)
@pytest.mark.parametrize(
    "name", big(["hrnet_w18_small_ocr", "hrnet_w48_ocr_hms", "deeplabv3plus_wrn38", "sagate_resnet101"])
)
def test_an_exported_program_takes_other_batches_and_sizes(make: Callable[[str], nn.Module], name: str) -> None:
    model = make(name).eval()
    net: Any = model.strip() if isinstance(model, Supervised) else model
    free = torch.export.Dim.AUTO
    shapes = ({0: free, 2: free, 3: free},)
    program = torch.export.export(net, (images(net, (96, 128)),), dynamic_shapes=shapes, strict=False).module()
    other = images(net, (160, 96), number=3)
    with torch.no_grad():
        torch.testing.assert_close(program(other), net(other), rtol=1e-4, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("make", [supervised, fused], ids=lambda m: m.__name__)
def test_compiled_models_compute_the_same(make: Callable[[str], Supervised]) -> None:
    model = make("hrnet_w18_small_ocr").eval()
    batch = images(model.net)
    with torch.no_grad():
        expected = model(batch)
        found = torch.compile(model, fullgraph=True, backend="aot_eager")(batch)
    for key, value in expected.items():
        torch.testing.assert_close(found[key], value, rtol=1e-4, atol=1e-5)
