"""Commands beside the run: one training, prediction on image files, cost of networks, the check of a data set."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from hs3seg import networks
from hs3seg.analysis import SupervisionPlan, deep_supervision, no_supervision
from hs3seg.builders import (
    Trained,
    load_trained,
    make_dataset,
    make_network,
    make_runtime,
    make_stages,
)
from hs3seg.config import Config
from hs3seg.data import IMAGE_SUFFIXES, check_dataset, read_image
from hs3seg.engine import Reporter, Runtime
from hs3seg.errors import DataError, NetworkError
from hs3seg.files import write_atomically
from hs3seg.nn import count_cost, count_outputs, count_parts, find_stages
from hs3seg.pipeline.steps import Session, profile_step, train_step


def train_command(session: Session, out: Path, *, arm: str, plan: str | None, split: str) -> dict[str, Any]:
    """Trains one network by a plan file or as a baseline; `split` may be `reduced` (Sec. 3.1.1)."""
    config = session.config
    taxonomy = session.dataset("train").taxonomy
    if plan is not None:
        chosen, arm = SupervisionPlan.load(Path(plan)), "plan"
    elif arm == "none":
        chosen = no_supervision(taxonomy.names)
    else:
        stages = make_stages(config, make_network(config, taxonomy))
        chosen = deep_supervision(taxonomy.names, stages, config.supervision.gamma)
    began = time.monotonic()
    train_step(session, chosen, out, arm=arm, split=split)
    return {"weights": str(out / "weights.safetensors"), "seconds": round(time.monotonic() - began, 1)}


def predict_step(weights: Path, images: Sequence[Path], out: Path, *, output: str) -> dict[str, Any]:
    """Segments image files.

    Args:
        weights: Weight file, or its folder; the heads in it are dropped.
        images: Files, or folders whose image files are taken.
        out: Folder; NAME.png holds class ids with a palette of the class colours, NAME-overlay.png the picture.
        output: `palette`, `overlay` or `both`.

    Raises:
        DataError: no such file, no image in a folder, or an unreadable image.
        NetworkError: the network needs more than RGB.
    """
    trained = load_trained(weights)
    if len(trained.mean) != 3:
        raise NetworkError(
            f"{weights}: '{trained.config.network.name}' takes {len(trained.mean)} channels, an image file has 3;"
            f" RGB-D prediction needs a data set: hs3 evaluate {weights} --split SPLIT"
        )
    runtime = make_runtime(trained.config)
    network = runtime.place(trained.model.strip()).eval()
    files = list(_image_files(images))
    names = _output_names(files)
    written: list[str] = []
    with Reporter(enabled=True).task("predict", len(files)) as task:
        for file, name in zip(files, names, strict=True):
            pixels = read_image(file)  # (3, H, W) uint8
            ids = _segment(network, pixels, trained, runtime)
            if output in ("palette", "both"):
                written.append(_save_picture(out / f"{name}.png", _palette(ids, trained)))
            if output in ("overlay", "both"):
                written.append(_save_picture(out / f"{name}-overlay.png", _overlay(pixels, ids, trained)))
            task.advance(1)
    return {"num_images": len(files), "files": written}


def _image_files(images: Sequence[Path]) -> Iterator[Path]:
    for path in images:
        if path.is_dir():
            found = sorted(p for p in path.rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES)
            if not found:
                raise DataError(f"no image in '{path}'; images end in {', '.join(sorted(IMAGE_SUFFIXES))}")
            yield from found
        elif path.is_file():
            yield path
        else:
            raise DataError(f"image '{path}' does not exist; give image files or folders of them")


def _output_names(files: Sequence[Path]) -> list[str]:
    """File stems, with their folder's name in front where two would be the same."""
    stems = [file.stem for file in files]
    return [
        stem if stems.count(stem) == 1 else "_".join([*file.parts[-3:-1], file.name.replace(".", "_")])
        for stem, file in zip(stems, files, strict=True)
    ]


def _segment(network: torch.nn.Module, pixels: Tensor, trained: Trained, runtime: Runtime) -> np.ndarray[Any, Any]:
    """Class ids (H, W) uint8 at the image's own size."""
    image = pixels[None]
    size = trained.config.augment.resize
    if size is not None and image.shape[-2:] != size:
        image = F.interpolate(image.float(), size=size, mode="bilinear", antialias=True).round().clamp(0, 255).byte()
    with torch.inference_mode(), runtime.accelerator.autocast():
        logits = network(
            runtime.images(image, trained.mean.to(runtime.device), trained.std.to(runtime.device))
        )  # (1, K, h, w)
    logits = F.interpolate(logits.float(), size=pixels.shape[-2:], mode="bilinear", align_corners=False)
    return logits[0].argmax(0).to(torch.uint8).cpu().numpy()


def _palette(ids: np.ndarray[Any, Any], trained: Trained) -> Image.Image:
    picture = Image.fromarray(ids, mode="P")
    picture.putpalette([value for colour in trained.taxonomy.colours for value in colour])
    return picture


def _overlay(pixels: Tensor, ids: np.ndarray[Any, Any], trained: Trained) -> Image.Image:
    colours = np.array(trained.taxonomy.colours, np.float32)[ids]
    mixed = 0.5 * pixels.permute(1, 2, 0).numpy() + 0.5 * colours
    return Image.fromarray(mixed.astype(np.uint8))


def _save_picture(path: Path, picture: Image.Image) -> str:
    write_atomically(path, lambda temporary: picture.save(temporary, format="PNG"))
    return str(path)


def profile_network(
    name: str,
    num_classes: int,
    size: tuple[int, int],
    *,
    fuse: Sequence[int] = (),
    widths: tuple[int, int] | None = None,
    gmacs: float | None = None,
) -> dict[str, Any]:
    """Exact multiply-accumulates and parameters of a network at inference, for one image, in total and per part.

    Args:
        name: Of a network.
        num_classes: K.
        size: Height and width.
        fuse: HS3-Fuse with these numbers of groups, shallow to deep, on the network's stages.
        widths: Mid and key channels of the (final) OCR block.
        gmacs: With fuse, instead of widths: the budget to come nearest to.

    Returns:
        `conv_macs`, `matmul_macs`, `parameters` and the same per part. SA-Gate is counted with its auxiliary head, as
        its code runs and published figures have it; `conv_macs_forward` is then what this package runs at inference.
    """
    options: dict[str, Any] = {} if widths is None or fuse else {"mid": widths[0], "key": widths[1]}
    with torch.device("meta"):  # nothing is computed: a network of 100 million parameters needs no memory
        network = networks.create(name, num_classes, **options)
        if fuse:
            stages = find_stages(network, torch.zeros(1, cast("Any", network).in_channels, 128, 128))
            if len(stages) != len(fuse):
                raise NetworkError(
                    f"--fuse {','.join(map(str, fuse))} gives {len(fuse)} numbers of groups; '{name}' has the stages"
                    f" {', '.join(stages)}"
                )
            mid, key = widths or (None, None)
            groups = dict(zip(stages, fuse, strict=True))
            network = networks.fuse(network, groups, mid=mid, key=key, gmacs=gmacs, size=size)
    shape = (1, int(cast("Any", network).in_channels), *size)
    cost = forward = count_cost(network, shape)
    if getattr(network, "counted_with_auxiliary", False):
        cost = count_outputs(network, shape)
    parts = count_parts(network, shape, inside=("backbone", "net", "blocks"))
    return {
        "network": name,
        "num_classes": num_classes,
        "input_size": list(size),
        **({"fuse": list(fuse), "widths": list(cast("Any", network).widths)} if fuse else {}),
        "conv_macs": cost.conv_macs,
        "matmul_macs": cost.matmul_macs,
        "parameters": cost.parameters,
        **({"conv_macs_forward": forward.conv_macs} if forward != cost else {}),
        "parts": {part: asdict(value) for part, value in parts.items()},
    }


def list_networks(num_classes: int = 19, size: tuple[int, int] = (1024, 2048)) -> dict[str, Any]:
    """Every network with its cost and where it comes from."""
    rows = []
    for name, entry in networks.NETWORKS.items():
        found = profile_network(name, num_classes, size)
        cost = {key: found[key] for key in ("conv_macs", "matmul_macs", "parameters")}
        rows.append({"name": name, **cost, "options": list(networks.options_of(name)), "source": entry.source})
    return {"num_classes": num_classes, "input_size": list(size), "networks": rows}


def profile_config(config: Config) -> dict[str, Any]:
    """Cost of a config's network at inference, and with the heads of deep supervision in training."""
    taxonomy = make_dataset(config, config.data.train_split).taxonomy
    stages = make_stages(config, make_network(config, taxonomy))
    plans = {
        "none": no_supervision(taxonomy.names),
        "deep_supervision": deep_supervision(taxonomy.names, stages, config.supervision.gamma),
    }
    return profile_step(config, taxonomy, plans)


def check_step(config: Config) -> dict[str, Any]:
    """Reads every image and mask of every split and lists what is wrong; `exit_code` is 2 where something is."""
    splits = dict.fromkeys([config.data.train_split, *config.data.evaluate_splits])
    datasets, unopened = {}, {}
    for split in splits:
        try:
            datasets[split] = make_dataset(config, split)
        except DataError as error:
            unopened[split] = error
    with Reporter().task("check", sum(len(d) for d in datasets.values())) as task:
        report = check_dataset(datasets, progress=lambda: task.advance(1), unopened=unopened)
    return report.to_dict() | {"exit_code": 2 if report.has_errors else 0}
