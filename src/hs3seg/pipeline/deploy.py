"""From a training to what runs elsewhere: exported files, and the certificate that they cost what they should."""

import ast
import importlib
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from hs3seg import networks
from hs3seg.builders import Trained, example_of, load_trained, make_dataset, network_options, network_size
from hs3seg.data import EvaluationTransform
from hs3seg.engine import Reporter
from hs3seg.errors import ConfigError, nearest
from hs3seg.export import (
    PretrainedSegmenter,
    certify,
    export_onnx,
    export_openvino,
    export_program,
    quantize,
)
from hs3seg.export.certificate import network_of
from hs3seg.nn.resize import aligns_corners

Format = Literal["onnx", "openvino", "pt2", "folder"]
_TRACED = 96  # pixels
FORMATS: dict[str, str] = {"onnx": ".onnx", "openvino": ".xml", "pt2": ".pt2", "folder": ""}


def export_step(
    weights: Path,
    out: Path,
    *,
    format: str = "onnx",  # noqa: A002
    dynamic: bool = True,
    tolerance: float = 1e-4,
    int8_images: int = 0,
    overrides: tuple[str, ...] = (),
) -> dict[str, Any]:
    """Writes a trained network for another runtime, its stage heads left behind.

    The file says of itself what `hs3 predict` and `hs3 evaluate` need: config, taxonomy, normalisation.

    Args:
        weights: Folder or weights.safetensors of a training.
        out: File, or folder for the format `folder`.
        format: onnx, openvino, pt2 (torch.export) or folder (safetensors and config.json).
        dynamic: Batch, height and width are free; False = those of the training crops.
        tolerance: Largest difference of a logit from eager; above it nothing is written.
        int8_images: For openvino: also NAME-int8.xml, calibrated on so many training images; 0 = no.
        overrides: `--section.key value` words laid over the stored config, e.g. where the training data is.

    Raises:
        ConfigError: unknown format, or int8 of another than openvino.
        NetworkError: a library is missing, or the network cannot be exported as it is.
    """
    if format not in FORMATS:
        raise ConfigError(f"--format {format}; {nearest(format, FORMATS)}")
    if int8_images and format != "openvino":
        raise ConfigError(f"int8 is made for OpenVINO, not for --format {format}; give --format openvino")
    trained = load_trained(weights, overrides)
    net = trained.model.strip()
    if format == "folder":
        options = network_options(trained.config)
        PretrainedSegmenter(net, trained.config.network.name, options, trained.taxonomy).save_pretrained(out)
        return {"format": format, "path": str(out)}
    description = {
        "config": trained.config.model_dump(mode="json") | {"run_dir": ""},
        "taxonomy": trained.taxonomy.to_dict(),
        "mean": trained.mean.tolist(),
        "std": trained.std.tolist(),
        "align_corners": aligns_corners(net),
    }
    make = {"onnx": export_onnx, "openvino": export_openvino, "pt2": export_program}[format]
    _, channels, height, width = example_of(trained.config, net).shape
    # At 32 pixels the deepest maps are single pixels, and a traced graph would take them for constants.
    size = (height, width) if not dynamic else (max(height, _TRACED), max(width, _TRACED))
    example = torch.randn(1, channels, *size, generator=torch.Generator().manual_seed(0))
    report = make(net, out, example, dynamic=dynamic, tolerance=tolerance, description=description)  # type: ignore[operator]
    result: dict[str, Any] = {**asdict(report), "path": str(report.path)}
    if int8_images:
        small = out.with_name(f"{out.stem}-int8.xml")
        made = quantize(out, small, _calibration(trained, int8_images), description=description)
        result["int8"] = {**asdict(made), "path": str(made.path), "num_images": int8_images}
    return result


def certify_step(
    before: str, after: str, *, size: tuple[int, int] | None = None, num_classes: int = 19, repeats: int = 5
) -> dict[str, Any]:
    """The zero-cost certificate of two networks.

    A network is the folder or weight file of a training (the stage heads are dropped, as for deployment), a folder of
    `hs3 export --format folder`, the name of a network of ours, or `module:function(key=value, ...)`, which is called.
    Where `after` has all the weights that `before` needs, they are copied into `before`, so that the outputs can be
    compared.

    Args:
        before: The plain network.
        after: What is deployed.
        size: Height and width of the images; None = the training's crop, else 256x256.
        num_classes: Of networks by name.
        repeats: Timed runs of each, in turn.

    Returns:
        The certificate, `weights` (how the outputs could be compared), and `exit_code` 2 where it failed.

    Raises:
        ConfigError: a specification that is none of these.
        NetworkError: an exported file, whose parameters are not known.
    """
    (plain, _), (deployed, shape) = (_network(word, num_classes) for word in (before, after))
    own, other = plain.state_dict(), deployed.state_dict()
    fits = all(name in other and other[name].shape == value.shape for name, value in own.items())
    if fits:
        plain.load_state_dict({name: other[name] for name in own})
    height, width = size or shape or (256, 256)
    channels = int(getattr(deployed, "in_channels", 3))
    example = torch.randn(1, channels, height, width, generator=torch.Generator().manual_seed(0))
    certificate = certify(plain.eval(), deployed.eval(), example, repeats=repeats)
    return {
        **certificate.to_dict(),
        "size": [height, width],
        "weights": "copied from after to before" if fits else "each its own: the names or shapes differ",
        "exit_code": 0 if certificate.passed else 2,
    }


def _network(word: str, num_classes: int) -> tuple[nn.Module, tuple[int, int] | None]:
    """A network, and the image size that it was trained with."""
    path = Path(word)
    if path.exists():
        trained = load_trained(path)
        return network_of(trained.model.strip(), word), network_size(trained.config)
    if word in networks.names():
        torch.manual_seed(0)
        return networks.create(word, num_classes), None
    if ":" in word:
        return _called(word), None
    raise ConfigError(
        f"'{word}' is no file, no network's name and no 'module:function'; {nearest(word, networks.names())}"
    )


def _called(word: str) -> nn.Module:
    """Calls `module:function` or `module:function(key=value, ...)` with plain values."""
    module, _, call = word.partition(":")
    try:
        expression = ast.parse(call, mode="eval").body
        keywords = {}
        if isinstance(expression, ast.Call):
            if expression.args:
                raise ConfigError(f"'{word}': give the function's values by name, e.g. num_classes=19")
            keywords = {str(pair.arg): ast.literal_eval(pair.value) for pair in expression.keywords}
            expression = expression.func
        if not isinstance(expression, ast.Name):
            raise ConfigError(f"'{word}': write module:function or module:function(key=value)")
        torch.manual_seed(0)
        net = getattr(importlib.import_module(module), expression.id)(**keywords)
    except (SyntaxError, ValueError, ImportError, AttributeError, TypeError) as error:
        raise ConfigError(f"'{word}' cannot be called: {error}") from None
    if not isinstance(net, nn.Module):
        raise ConfigError(f"'{word}' gave a {type(net).__name__}; it must give a network (nn.Module)")
    return net


def _calibration(trained: Trained, count: int) -> Iterator[Tensor]:
    """Normalised training images, spread evenly over the split."""
    dataset = make_dataset(trained.config, trained.config.data.train_split)
    transform = EvaluationTransform(trained.config.augment.resize)
    chosen = torch.linspace(0, len(dataset) - 1, min(count, len(dataset))).round().long().tolist()
    with Reporter().task("calibration images", len(chosen)) as task:
        for index in chosen:
            image, _ = transform(dataset.read(index))
            yield (image.float() / 255 - trained.mean.view(-1, 1, 1)) / trained.std.view(-1, 1, 1)
            task.advance(1)
