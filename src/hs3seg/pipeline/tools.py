"""Commands beside the run: one training, prediction on image files, cost of networks, the check of a data set."""

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from hs3seg import networks
from hs3seg.analysis import SupervisionPlan, deep_supervision, no_supervision
from hs3seg.build import (
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
from hs3seg.errors import DataError
from hs3seg.files import write_atomically
from hs3seg.nn import count_cost
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
    """
    trained = load_trained(weights)
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


def profile_network(name: str, num_classes: int, size: tuple[int, int]) -> dict[str, Any]:
    """Exact multiply-accumulates and parameters of a plain network for one image."""
    cost = count_cost(networks.create(name, num_classes), (1, 3, *size))
    return {
        "network": name,
        "num_classes": num_classes,
        "input_size": list(size),
        "conv_macs": cost.conv_macs,
        "matmul_macs": cost.matmul_macs,
        "parameters": cost.parameters,
    }


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
