"""What supervision must do on other people's networks: their real code with random weights. A new one adds a line."""

import copy
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from hs3seg.nn import HierarchicalLoss, count_cost, final_logits, supervise

smp = pytest.importorskip("segmentation_models_pytorch")
tf = pytest.importorskip("transformers")
models = pytest.importorskip("torchvision").models.segmentation
timm = pytest.importorskip("timm")

K, SIDE = 5, 128


def of_smp(name: str, encoder: str = "resnet18") -> Callable[[], nn.Module]:
    return lambda: smp.create_model(name, encoder, encoder_weights=None, classes=K)


def of_torchvision(name: str) -> Callable[[], nn.Module]:
    return lambda: getattr(models, name)(weights=None, weights_backbone=None, num_classes=K)


SWIN: dict[str, Any] = {
    "image_size": SIDE,
    "embed_dim": 12,
    "depths": [1, 1, 2, 1],
    "num_heads": [1, 2, 2, 4],
    "window_size": 4,
    "out_features": ["stage1", "stage2", "stage3", "stage4"],
}
VIT: dict[str, Any] = {"image_size": SIDE, "hidden_size": 24, "num_attention_heads": 2, "intermediate_size": 48}


def segformer() -> nn.Module:
    return tf.SegformerForSemanticSegmentation(
        tf.SegformerConfig(
            num_labels=K,
            depths=[1, 1, 1, 1],
            hidden_sizes=[8, 16, 32, 64],
            num_attention_heads=[1, 1, 2, 4],
            decoder_hidden_size=32,
        )
    )


def upernet() -> nn.Module:
    backbone = tf.ConvNextConfig(
        depths=[1, 1, 2, 1], hidden_sizes=[8, 16, 32, 64], out_features=["stage1", "stage2", "stage3", "stage4"]
    )
    config = tf.UperNetConfig(backbone_config=backbone, num_labels=K, hidden_size=32, use_auxiliary_head=False)
    return tf.UperNetForSemanticSegmentation(config)


def upernet_swin() -> nn.Module:
    config = tf.UperNetConfig(
        backbone_config=tf.SwinConfig(**SWIN), num_labels=K, hidden_size=32, use_auxiliary_head=False
    )
    return tf.UperNetForSemanticSegmentation(config)


def beit() -> nn.Module:
    config = tf.BeitConfig(
        **VIT, num_labels=K, num_hidden_layers=12, out_indices=[3, 5, 7, 11], use_auxiliary_head=False
    )
    return tf.BeitForSemanticSegmentation(config)


def dpt() -> nn.Module:
    config = tf.DPTConfig(
        **VIT,
        patch_size=16,
        num_labels=K,
        num_hidden_layers=4,
        backbone_out_indices=[0, 1, 2, 3],
        neck_hidden_sizes=[8, 16, 24, 24],
        fusion_hidden_size=16,
        is_hybrid=False,
        use_auxiliary_head=False,
        readout_type="ignore",
    )
    return tf.DPTForSemanticSegmentation(config)


def mask2former() -> nn.Module:
    config = tf.Mask2FormerConfig(
        backbone_config=tf.SwinConfig(**SWIN),
        num_labels=K,
        hidden_dim=32,
        feature_size=32,
        mask_feature_size=32,
        encoder_layers=1,
        decoder_layers=2,
        num_queries=10,
        encoder_feedforward_dim=32,
        dim_feedforward=32,
        num_attention_heads=2,
    )
    return tf.Mask2FormerForUniversalSegmentation(config)


class TimmDecoder(nn.Module):
    """A timm encoder with a small decoder."""

    def __init__(self, encoder: str, last: bool = False, **options: Any) -> None:
        super().__init__()
        self.encoder = timm.create_model(encoder, features_only=True, **options)
        self.last = last
        self.project = nn.ModuleList(nn.Conv2d(c, 8, 1) for c in self.encoder.feature_info.channels())
        self.head = nn.Conv2d(8, K, 1)

    def forward(self, x: Tensor) -> Tensor:
        maps = [m.permute(0, 3, 1, 2) if self.last else m for m in self.encoder(x)]
        size = maps[0].shape[-2:]
        maps = [nn.functional.interpolate(p(m), size=size) for p, m in zip(self.project, maps, strict=True)]
        return self.head(torch.stack(maps).sum(0))


class ListOutput(nn.Module):
    """Gives a list, the logits first, as detection frameworks do."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.down = nn.Conv2d(3, 8, 3, 2, 1), nn.Conv2d(8, 16, 3, 2, 1)
        self.deep, self.head = nn.Conv2d(16, 16, 3, 2, 1), nn.Conv2d(16, K, 1)

    def forward(self, x: Tensor) -> list[Tensor]:
        middle = self.down(self.stem(x).relu()).relu()
        return [self.head(self.deep(middle).relu()), middle]


NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[str, ...]]] = {
    "smp-unet": (of_smp("unet"), ("encoder.layer2", "encoder.layer3")),
    "smp-unet++": (of_smp("unetplusplus"), ("encoder.layer2", "encoder.layer3")),
    "smp-fpn": (of_smp("fpn"), ("encoder.layer2", "encoder.layer3")),
    "smp-deeplabv3+": (of_smp("deeplabv3plus"), ("encoder.layer1", "encoder.layer2")),
    "smp-upernet": (of_smp("upernet"), ("encoder.layer2", "encoder.layer3")),
    "smp-segformer": (of_smp("segformer", "mit_b0"), ("encoder.norm2", "encoder.norm3")),
    "smp-unet-mobilenet": (
        of_smp("unet", "tu-mobilenetv3_small_100"),
        ("encoder.model.blocks.1", "encoder.model.blocks.3"),
    ),
    "torchvision-fcn": (of_torchvision("fcn_resnet50"), ("backbone.relu", "backbone.layer1")),
    "torchvision-deeplabv3": (of_torchvision("deeplabv3_mobilenet_v3_large"), ("backbone.3", "backbone.6")),
    "torchvision-lraspp": (of_torchvision("lraspp_mobilenet_v3_large"), ("backbone.3", "backbone.6")),
    "transformers-segformer": (segformer, ("segformer.stages.1", "segformer.stages.2")),
    "transformers-upernet": (upernet, ("backbone.encoder.stages.1", "backbone.encoder.stages.2")),
    "transformers-upernet-swin": (upernet_swin, ()),
    "transformers-beit": (beit, ()),
    "transformers-dpt": (dpt, ()),
    "transformers-mask2former": (mask2former, ()),
    "timm-convnext": (lambda: TimmDecoder("convnext_atto"), ()),
    "timm-swin": (lambda: TimmDecoder("swin_tiny_patch4_window7_224", last=True, img_size=SIDE, window_size=4), ()),
    "list": (ListOutput, ("stem", "down")),
}


def images(number: int = 2) -> Tensor:
    return torch.randn(number, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))


@pytest.fixture(params=NETWORKS)
def case(request: pytest.FixtureRequest) -> tuple[nn.Module, tuple[str, ...]]:
    torch.manual_seed(0)
    make, stages = NETWORKS[request.param]
    return make(), stages


def test_supervised_trained_and_stripped(case: tuple[nn.Module, tuple[str, ...]]) -> None:
    net, expected_stages = case
    names = {name: value.shape for name, value in net.state_dict().items()}
    modes = [module.training for module in net.modules()]
    cost = count_cost(net.eval(), (1, 3, SIDE, SIDE))
    with torch.no_grad():
        expected = final_logits(net(images()))
    for module, mode in zip(net.modules(), modes, strict=True):
        module.training = mode

    hooks = number_of_hooks(net)
    model = supervise(net, example=images(1))
    assert model.stages
    if expected_stages:
        assert model.stages == expected_stages
    with torch.no_grad():
        outputs = model.eval()(images())
    assert torch.equal(outputs["final"], expected)
    shapes = {name: tuple(value.shape[:2]) for name, value in outputs.items()}
    assert shapes == dict.fromkeys([*model.stages, "final"], (2, K))

    model.train()
    unused = without_gradient(net)
    labels = torch.randint(0, K, (2, SIDE, SIDE), generator=torch.Generator().manual_seed(1))
    loss = HierarchicalLoss(model.plan)(model(images()), labels)
    loss.backward()
    silent = {name.removeprefix("net.") for name, p in model.named_parameters() if p.grad is None}
    assert silent <= unused  # only what the network itself does not use has no gradient
    torch.optim.SGD(model.parameters(), lr=1e-3).step()

    copies = [copy.deepcopy(model)]
    if not type(net).__module__.startswith("transformers"):  # it puts closures of its own on its modules
        copies.append(pickle.loads(pickle.dumps(model)))
    stripped = model.strip()
    assert stripped is net
    assert {name: value.shape for name, value in net.state_dict().items()} == names
    assert number_of_hooks(net) == hooks
    net.eval()
    with torch.no_grad():
        trained = final_logits(net(images()))
        for other in copies:
            assert torch.equal(other.eval()(images())["final"], trained)
    assert count_cost(net, (1, 3, SIDE, SIDE)) == cost


def number_of_hooks(net: nn.Module) -> int:
    return sum(len(module._forward_hooks) for module in net.modules())


def without_gradient(net: nn.Module) -> set[str]:
    """Parameters that the network's own logits do not reach."""
    final_logits(net(images())).square().mean().backward()
    found = {name for name, parameter in net.named_parameters() if parameter.grad is None}
    net.zero_grad(set_to_none=True)
    return found
