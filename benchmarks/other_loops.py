"""Images per second of our training loop against two usual ones, and where the factor comes from.

    .venv/bin/python -m benchmarks.other_loops --root CAMVID --out docs/benchmarks

One other loop is written as the examples of segmentation_models_pytorch are, on Lightning: Dice loss, Adam, statistics
of every batch. The other one is as torchvision's references/segmentation: cross-entropy, SGD, a learning rate per step.
Both keep their defaults: float32, channels first, a DataLoader that decodes and augments with Pillow. All have the same
network (HRNet-w18-small), files, scale of 0.5 to 2, crop, flip, batch and threads.
"""

import argparse
import logging
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import functional as v1

from benchmarks.loader import PlainDataset
from benchmarks.loop import BATCH, Ours, Window, make_config, speeds_in_turn
from benchmarks.rows import Row, ratios, save_rows
from hs3seg import networks
from hs3seg.data import CamVid
from hs3seg.data.camvid import VOID

CLASSES = 11
WORKERS = 2
GOAL = 2.0
SWITCHES = {
    "bf16": ("--train.precision", "float32", "--train.channels_last", "yes"),
    "channels_last": ("--train.channels_last", "no"),
    "bf16 and channels_last": ("--train.precision", "float32", "--train.channels_last", "no"),
    "the cache": ("--data.cache", "false"),
}


class _Images(Dataset[tuple[Tensor, Tensor]]):
    """Decoded, augmented and normalised by Pillow and torchvision's v1 transforms, in float32."""

    def __init__(self, root: Path, images: int) -> None:
        dataset = CamVid(root, "train")
        self._plain = PlainDataset(dataset, VOID, (360, 480), (0, 0, 0, 0))
        self._length = min(images, len(dataset))

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        image, labels = self._plain[index]
        image = v1.convert_image_dtype(image, torch.float32)
        return v1.normalize(image, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]), labels


class _Network(nn.Module):
    """Logits at the size of the images, as smp's and torchvision's networks give them."""

    def __init__(self) -> None:
        super().__init__()
        self.net = networks.create("hrnet_w18_small", CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        logits = self.net(images)
        logits = logits["out"] if isinstance(logits, dict) else logits
        return F.interpolate(logits, size=images.shape[-2:], mode="bilinear", align_corners=False)


class _Theirs:
    """What both have: the loader, and the steps that count."""

    def __init__(self, root: Path, window: Window, threads: int) -> None:
        self.window, self.threads = window, threads
        # More than is timed, so that their loader, too, is busy to the end.
        data = _Images(root, BATCH * (window.steps + 2 * WORKERS))
        self.loader: DataLoader[Any] = DataLoader(data, BATCH, shuffle=True, drop_last=True, num_workers=WORKERS)

    def speed(self, ends: list[float]) -> float:
        """Images per second, of the ends of the steps."""
        first, last = self.window.skip - 1, self.window.skip + self.window.timed - 1
        return BATCH * self.window.timed / (ends[last] - ends[first])


class Torchvision(_Theirs):
    """A loop as in torchvision's references/segmentation; `faster` = with bf16 autocast and channels_last."""

    def __init__(self, root: Path, window: Window, threads: int, *, faster: bool = False) -> None:
        super().__init__(root, window, threads)
        self.faster = faster

    def __call__(self) -> float:
        """Images per second of the timed steps."""
        torch.set_num_threads(self.threads)
        model = _Network().train()
        layout = torch.channels_last if self.faster else torch.contiguous_format
        model = model.to(memory_format=layout)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, weight_decay=1e-4)
        schedule = torch.optim.lr_scheduler.PolynomialLR(optimizer, total_iters=1000, power=0.9)
        ends: list[float] = []
        meter = 0.0
        for images, labels in self.loader:
            images = images.to("cpu", memory_format=layout)
            with torch.autocast("cpu", torch.bfloat16, enabled=self.faster):
                logits = model(images)
                loss = F.cross_entropy(logits, labels, ignore_index=255)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]  # torch's stub
            optimizer.step()
            schedule.step()
            meter += loss.item()
            ends.append(time.perf_counter())
            if len(ends) == self.window.skip + self.window.timed:
                break
        return self.speed(ends)


class Lightning(_Theirs):
    """A LightningModule as smp's examples have it, under a Trainer with its defaults; it writes no files."""

    def __call__(self) -> float:
        """Images per second of the timed steps."""
        import lightning.pytorch as pl
        import segmentation_models_pytorch as smp

        torch.set_num_threads(self.threads)
        ends: list[float] = []

        class Module(pl.LightningModule):
            def __init__(self) -> None:
                super().__init__()
                self.model = _Network()
                self.criterion = smp.losses.DiceLoss("multiclass", from_logits=True, ignore_index=255)
                self.kept: list[Any] = []

            def training_step(self, batch: tuple[Tensor, Tensor], _index: int) -> Tensor:
                images, labels = batch
                logits = self.model(images)
                loss: Tensor = self.criterion(logits, labels)
                guess = logits.softmax(1).argmax(1)
                self.kept.append(
                    smp.metrics.get_stats(guess, labels, mode="multiclass", num_classes=CLASSES, ignore_index=255)
                )
                self.log("train_loss", loss, prog_bar=True)
                return loss

            def configure_optimizers(self) -> Any:
                optimizer = torch.optim.Adam(self.parameters(), lr=2e-4)
                schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=50, eta_min=1e-5)
                return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

        class Clock(pl.Callback):
            def on_train_batch_end(self, *_values: Any, **_named: Any) -> None:
                ends.append(time.perf_counter())

        trainer = pl.Trainer(
            accelerator="cpu",
            max_steps=self.window.skip + self.window.timed,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            callbacks=[Clock()],
        )
        trainer.fit(Module(), self.loader)
        return self.speed(ends)


class _TorchCrossEntropy(nn.Module):
    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Mean over the labelled pixels; logits (N, k, h, w), labels (N, H, W)."""
        logits = F.interpolate(logits, size=labels.shape[-2:], mode="bilinear", align_corners=False)
        return F.cross_entropy(logits, labels, ignore_index=255)


def make_sides(root: Path, window: Window, threads: int) -> dict[str, Callable[[], float]]:
    """Ours, ours with one thing switched off, and theirs."""
    same = (
        *("--train.threads", str(threads)),
        *("--augment.scale", "[0.5, 2.0]", "--augment.color_jitter", "[0.0, 0.0, 0.0, 0.0]"),
        *("--loss.class_weights", "none"),
    )

    def ours(*overrides: str, final: nn.Module | None = None) -> Ours:
        return Ours(make_config(root, *same, *overrides), window, supervised=False, final=final)

    sides: dict[str, Callable[[], float]] = {"ours": ours()}
    sides |= {f"ours without {name}": ours(*overrides) for name, overrides in SWITCHES.items()}
    sides["ours without the fused loss"] = ours(final=_TorchCrossEntropy())
    sides["torchvision"] = Torchvision(root, window, threads)
    sides["torchvision with bf16 and channels_last"] = Torchvision(root, window, threads, faster=True)
    sides["smp + Lightning"] = Lightning(root, window, threads)
    return sides


def rows(root: Path, *, quick: bool = False, threads: int = 1, repeats: int = 3) -> list[Row]:
    """The two rows with a goal, the ratios at equal precision, and each switch alone."""
    window = Window(2, 2, 0) if quick else Window(2, 4, 2)
    speeds = speeds_in_turn(make_sides(root, window, threads), 1 if quick else repeats)
    details = {
        "images_per_second": {name: [round(speed, 2) for speed in values] for name, values in speeds.items()},
        "threads": threads,
        "workers": {"ours": 1, "theirs": WORKERS},
        "batch": BATCH,
        "crop": [360, 480],
        "timed_steps": window.timed,
    }
    slow, fast = "ours without bf16 and channels_last", "torchvision with bf16 and channels_last"
    pairs: list[tuple[str, str, str, str, float | None]] = [
        ("training loop against smp + Lightning", "its defaults", "ours", "smp + Lightning", GOAL),
        ("training loop against torchvision's reference", "its defaults", "ours", "torchvision", GOAL),
        ("training loop, all in float32, channels first", "smp + Lightning", slow, "smp + Lightning", None),
        ("training loop, both in float32, channels first", "torchvision's reference", slow, "torchvision", None),
        ("training loop, both in bf16, channels_last", "torchvision's reference", "ours", fast, None),
        ("torchvision's reference with bf16 and channels_last", "its defaults", fast, "torchvision", None),
    ]
    pairs += [
        (f"training loop {name.removeprefix('ours ')}", "ours", name, "ours", None)
        for name in speeds
        if name.startswith("ours without")
    ]
    return [
        Row(name, against, ratios(speeds[of], speeds[over]), goal, "higher", details=details)
        for name, against, of, over, goal in pairs
    ]


def main() -> None:
    """Measures and adds the rows to results.json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, required=True, help="CamVid in SegNet's layout")
    parser.add_argument("--out", type=Path, default=Path("docs/benchmarks"), help="folder of results.json")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    warnings.filterwarnings("ignore", module="lightning")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    found = rows(options.root, quick=options.quick, threads=options.threads, repeats=options.repeats)
    for row in found:
        print(f"{row.name}: {row.ratio:.3f} ({min(row.runs):.3f} to {max(row.runs):.3f}), goal {row.goal}")
    command = f"python -m benchmarks.other_loops --root CAMVID --out docs/benchmarks --repeats {options.repeats}"
    command += f" --threads {options.threads}"
    command += " --quick" if options.quick else ""
    save_rows(options.out / "results.json", found, command)


if __name__ == "__main__":
    main()
