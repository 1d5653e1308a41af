"""Images per second of the training loader against a plain torch `DataLoader` with PIL and torchvision's v1 transforms.

    .venv/bin/python -m benchmarks.loader --root CAMVID --out docs/benchmarks/loader

Both sides read the same files, scale, crop, flip and jitter in the same way with the same number of workers, and give
uint8 images and int64 labels. They are run in turn, so that whatever else the machine does slows both.
"""

import argparse
import json
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import ColorJitter, InterpolationMode, RandomCrop
from torchvision.transforms import functional as v1

from hs3seg.data import CachedDataset, CamVid, FolderDataset, SegmentationDataset, TrainingLoader, TrainTransform
from hs3seg.data.disk_cache import DiskCache
from hs3seg.taxonomy import Taxonomy

SCALE = (0.5, 2.0)
_REPORT = """# Throughput of the training loader

Written by `{command}` (torch {torch}, {workers} worker processes on each side).

{table}

![ratios](loader.png)

The plain side is a torch `DataLoader` (its workers stay alive between epochs) with PIL and torchvision's v1
transforms. It resizes the whole image and then crops; ours cuts first and resamples what the crop shows. Both scale
log-uniformly by 0.5 to 2, crop, jitter the colours (0.3 each of brightness, contrast, saturation; with hue: 0.25 of
all four), flip, and give uint8 images and int64 labels. The plain side has no cache in any row. All sides are run in
turn; the ratio is the median over the repeats, and a row's goal is the least that it should be.

Without a cache most of the time is decoding, which both sides leave to Pillow.
"""
CACHES = ("no cache", "memory cache", "disk cache")
GOALS = {"no cache": 1.0, "memory cache": 1.5, "disk cache": 1.5}


class PlainDataset(Dataset[tuple[Tensor, Tensor]]):
    """What one writes by hand: PIL, and torchvision's v1 transforms.

    Args:
        dataset: Whose files are read; masks hold ids.
        void: Id that means ignore.
        crop: (height, width).
        jitter: Brightness, contrast, saturation, hue.
    """

    def __init__(
        self, dataset: SegmentationDataset, void: int, crop: tuple[int, int], jitter: tuple[float, ...]
    ) -> None:
        self.files = [dataset.files(index) for index in range(len(dataset))]
        self.void, self.crop = void, crop
        self.jitter = ColorJitter(*jitter)

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        image, mask = Image.open(self.files[index][0]).convert("RGB"), Image.open(self.files[index][1])
        factor = SCALE[0] * (SCALE[1] / SCALE[0]) ** float(torch.rand(()))
        size = [max(1, round(side * factor)) for side in (image.height, image.width)]
        image = v1.resize(image, size, InterpolationMode.BILINEAR)
        mask = v1.resize(mask, size, InterpolationMode.NEAREST)
        missing = [max(0, want - have) for have, want in zip(size, self.crop, strict=True)]
        if any(missing):
            top, left = (int(torch.randint(0, n + 1, ())) for n in missing)
            edges = [left, top, missing[1] - left, missing[0] - top]
            image, mask = v1.pad(image, edges, fill=(124, 116, 104)), v1.pad(mask, edges, fill=255)
        box = RandomCrop.get_params(image, self.crop)
        image, mask = self.jitter(v1.crop(image, *box)), v1.crop(mask, *box)
        if float(torch.rand(())) < 0.5:
            image, mask = v1.hflip(image), v1.hflip(mask)
        labels = torch.from_numpy(np.array(mask)).to(torch.int64)
        labels[labels == self.void] = 255
        return v1.pil_to_tensor(image), labels


@dataclass(frozen=True)
class Case:
    """Files, crop and jitter of a group of rows."""

    name: str
    dataset: SegmentationDataset
    void: int
    crop: tuple[int, int]
    jitter: tuple[float, float, float, float] = (0.3, 0.3, 0.3, 0.0)


def photographs(folder: Path, count: int = 24, height: int = 1024, width: int = 2048) -> FolderDataset:
    """Writes PNGs of street size: coloured clouds with a camera's noise, and 19 classes in patches."""
    rng = np.random.default_rng(0)
    for kind in ("images", "masks"):
        (folder / kind / "train").mkdir(parents=True)
    for number in range(count):
        clouds = Image.fromarray(rng.integers(0, 256, (12, 24, 3), np.uint8)).resize((width, height), Image.BICUBIC)
        noise = rng.normal(0, 3, (height, width, 1))
        pixels = np.clip(np.asarray(clouds) + noise, 0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(folder / "images" / "train" / f"{number:02}.png")
        patches = rng.integers(0, 19, (height // 64, width // 64), np.uint8).repeat(64, 0).repeat(64, 1)
        Image.fromarray(patches).save(folder / "masks" / "train" / f"{number:02}.png")
    return FolderDataset(folder, "train", Taxonomy.from_names(tuple(f"class {i}" for i in range(19))))


def plain_epochs(case: Case, batch: int, workers: int) -> Callable[[int], Iterator[Any]]:
    """Epochs of the plain side; its workers stay alive too."""
    loader = DataLoader(
        PlainDataset(case.dataset, case.void, case.crop, case.jitter),
        batch,
        shuffle=True,
        drop_last=True,
        num_workers=workers,
        persistent_workers=workers > 0,
    )
    return lambda _epoch: iter(loader)


def our_epochs(case: Case, dataset: SegmentationDataset, batch: int, workers: int) -> Callable[[int], Iterator[Any]]:
    """Epochs of our side."""
    transform = TrainTransform(case.crop, scale=SCALE, color_jitter=case.jitter)
    return TrainingLoader(dataset, transform, batch, 0, num_workers=workers).epoch


def images_per_second(epochs: Callable[[int], Iterator[Any]], number: int, seconds: float, batch: int) -> float:
    """Speed over whole epochs, at least one, for about so many seconds."""
    began, images, epoch = time.perf_counter(), 0, number * 1000
    while images == 0 or time.perf_counter() - began < seconds:
        images += batch * sum(1 for _ in epochs(epoch))
        epoch += 1
    return images / (time.perf_counter() - began)


def measure(case: Case, folder: Path, batch: int, workers: int, repeats: int, seconds: float) -> dict[str, Any]:
    """Rows of one case: per kind of cache the speeds of both sides and their ratios, repeat by repeat."""
    datasets = {"no cache": case.dataset, "memory cache": CachedDataset(case.dataset)}
    datasets["disk cache"] = DiskCache(case.dataset, folder)
    sides = {"plain": plain_epochs(case, batch, workers)}
    sides |= {name: our_epochs(case, data, batch, workers) for name, data in datasets.items()}
    for epochs in sides.values():  # fills the caches, starts the workers
        images_per_second(epochs, 999, 0, batch)
    speeds: dict[str, list[float]] = {name: [] for name in sides}
    for repeat in range(repeats):
        for name, epochs in sides.items():
            speeds[name].append(images_per_second(epochs, repeat, seconds, batch))
    rows = {}
    for name in CACHES:
        ratios = [ours / plain for ours, plain in zip(speeds[name], speeds["plain"], strict=True)]
        rows[f"{case.name}, {name}"] = {
            "ratio": round(median(ratios), 3),
            "goal": GOALS[name],
            "runs": [round(ratio, 3) for ratio in ratios],
            "images_per_second": [round(speed, 1) for speed in speeds[name]],
            "plain_images_per_second": [round(speed, 1) for speed in speeds["plain"]],
        }
    return rows


def table(rows: dict[str, Any]) -> str:
    """Rows as Markdown."""
    lines = ["| row | ours, images/s | plain, images/s | ratio (lowest to highest) | goal |", "|---|---|---|---|---|"]
    for name, row in rows.items():
        ours, plain = (median(row[key]) for key in ("images_per_second", "plain_images_per_second"))
        lines.append(
            f"| {name} | {ours:.0f} | {plain:.0f} | {row['ratio']:.2f} ({min(row['runs']):.2f} to"
            f" {max(row['runs']):.2f}) | {row['goal']:.2f} |"
        )
    return "\n".join(lines)


def draw(rows: dict[str, Any], path: Path) -> None:
    """Ratios as bars, each with its runs as dots."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(8, 0.8 + 0.36 * len(rows)), layout="constrained")
    colours = dict(zip(CACHES, ("#8da0cb", "#66c2a5", "#fc8d62"), strict=True))
    for place, (name, row) in enumerate(rows.items()):
        axes.barh(place, row["ratio"], color=colours[name.rsplit(", ", 1)[1]])
        axes.plot(row["runs"], [place] * len(row["runs"]), "k.", markersize=3)
    axes.axvline(1, color="black", linewidth=0.8)
    axes.set_yticks(range(len(rows)), list(rows))
    axes.invert_yaxis()
    axes.set_xlabel("images per second, ours / plain")
    figure.savefig(path, dpi=110)


def main() -> None:
    """Measures all cases and writes results.json, loader.png and README.md."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, required=True, help="CamVid in SegNet's layout")
    parser.add_argument("--out", type=Path, required=True, help="folder of the results")
    parser.add_argument("--workers", type=int, default=1, help="loader processes of either side")
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=4.0, help="of each side and repeat, at least one epoch")
    options = parser.parse_args()
    torch.set_num_threads(1)
    camvid = CamVid(options.root, "train")
    rows: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        large = photographs(folder / "large")
        cases = (
            Case("CamVid, crop 240x320", camvid, 11, (240, 320)),
            Case("CamVid, crop 360x480", camvid, 11, (360, 480)),
            Case("CamVid, crop 360x480, with hue", camvid, 11, (360, 480), (0.25, 0.25, 0.25, 0.25)),
            Case("1024x2048 PNG, crop 512x1024", large, 255, (512, 1024)),
        )
        for number, case in enumerate(cases):
            found = measure(
                case, folder / f"cache{number}", options.batch_size, options.workers, options.repeats, options.seconds
            )
            print(table(found), flush=True)
            rows |= found
    options.out.mkdir(parents=True, exist_ok=True)
    git = subprocess.run(["git", "describe", "--always", "--dirty"], capture_output=True, text=True, check=False)
    command = f"python -m benchmarks.loader --root CAMVID --out {options.out} --workers {options.workers}"
    command += f" --batch-size {options.batch_size} --repeats {options.repeats} --seconds {options.seconds:g}"
    for row in rows.values():
        row |= {"command": command, "commit": git.stdout.strip()}
    (options.out / "results.json").write_text(json.dumps(rows, indent=1) + "\n")
    draw(rows, options.out / "loader.png")
    text = _REPORT.format(command=command, table=table(rows), torch=torch.__version__, workers=options.workers)
    (options.out / "README.md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
