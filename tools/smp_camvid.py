"""Somebody else's network and loop on real data: smp's U-Net, a pretrained timm encoder, Lightning, CamVid.

    .venv/bin/python tools/smp_camvid.py CAMVID runs/smp-camvid docs/results/camvid-smp-unet

Trains phase one, then the arms none, deep_supervision and hs3 with examples/lightning_smp.py's module, with the same
initial weights, data order and augmentation; goes on after the last whole epoch if it was interrupted. Scores are those
of hs3seg's own confusion matrices at label resolution, on the stripped network. Writes OUT/results.json and pictures.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from PIL import Image, ImageDraw
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Sampler

sys.path.insert(0, str(Path(__file__).parents[1]))

import hs3seg
from examples.lightning_smp import Segmenter, make_net
from hs3seg.data import CamVid, TrainTransform
from hs3seg.integrations.data import TorchDataset, cut_parts
from hs3seg.integrations.lightning import ConfusionCallback

CROP, BATCH = (192, 256), 8


class Shuffled(Sampler[int]):
    """An order that depends on seed and epoch alone, so that a resumed training sees what the whole one saw."""

    def __init__(self, size: int, seed: int) -> None:
        self.size, self.seed, self.epoch = size, seed, 0

    def set_epoch(self, epoch: int) -> None:
        """Lightning calls it at the start of every epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.size

    def __iter__(self) -> Any:
        generator = torch.Generator().manual_seed(self.seed * 10_007 + self.epoch)
        return iter(torch.randperm(self.size, generator=generator).tolist())


class Seeded(Callback):
    """Augmentation by seed and epoch; progress with the time left."""

    def __init__(self, seed: int, name: str) -> None:
        self.seed, self.name = seed, name

    def on_train_epoch_start(self, trainer: Trainer, _module: Any) -> None:
        """Seeds the augmentation."""
        torch.manual_seed(self.seed * 10_007 + trainer.current_epoch)

    def on_train_epoch_end(self, trainer: Trainer, module: Any) -> None:
        """Says where it is."""
        print(
            f"{self.name}: epoch {trainer.current_epoch + 1} of {trainer.max_epochs}, loss {module.last_loss:.3f}",
            flush=True,
        )


class Scheduled(Segmenter):
    """The example's module with a polynomial schedule, and a rate a tenth as high for the pretrained encoder."""

    def configure_optimizers(self) -> Any:
        """AdamW, poly."""
        encoder = {id(p) for p in self.model.net.encoder.parameters()}
        groups = [
            {"params": [p for p in self.parameters() if id(p) in encoder], "lr": 2e-4},
            {"params": [p for p in self.parameters() if id(p) not in encoder], "lr": 2e-3},
        ]
        optimizer = torch.optim.AdamW(groups, weight_decay=0.01)
        steps = self.trainer.estimated_stepping_batches
        schedule = torch.optim.lr_scheduler.PolynomialLR(optimizer, total_iters=int(steps), power=0.9)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def fit(name: str, plan: hs3seg.SupervisionPlan, data: TorchDataset, folder: Path, epochs: int, seed: int) -> Scheduled:
    """Trains by a plan, from the last whole epoch if there is one."""
    torch.manual_seed(seed)
    net = make_net(plan.num_classes, pretrained=True)
    module = Scheduled(net, plan=plan, example=torch.zeros(1, 3, *CROP))
    plan.save(folder / f"{name}-plan.toml")
    keep = ModelCheckpoint(folder / name, save_last=True, save_top_k=0)
    last = folder / name / "last.ckpt"
    trainer = Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        precision="bf16-mixed",
        callbacks=[keep, Seeded(seed, name)],
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        gradient_clip_val=5.0,
        use_distributed_sampler=False,
    )
    loader = DataLoader(data, BATCH, sampler=Shuffled(len(data), seed), drop_last=True)
    trainer.fit(module, loader, ckpt_path=last if last.exists() else None, weights_only=False)
    return module


def measure(module: Scheduled, data: TorchDataset, folder: Path) -> hs3seg.SupervisionPlan:
    """Phase one's matrices on the analysis images, and the plan they make."""
    confusion = ConfusionCallback(folder / "confusion.npz")
    trainer = Trainer(accelerator="cpu", callbacks=[confusion], logger=False, enable_progress_bar=False)
    trainer.validate(module, DataLoader(data, BATCH), verbose=False)
    assert confusion.recorder is not None
    return confusion.recorder.make_plan()


@torch.inference_mode()
def score(net: nn.Module, data: CamVid, pictures: int = 4) -> tuple[dict[str, Any], list[np.ndarray[Any, Any]]]:
    """mIoU, pixel accuracy and IoU of a plain network, and some predictions."""
    net.eval()
    frames = TorchDataset(data)
    k = data.taxonomy.num_classes
    counts = np.zeros((k, k), np.int64)
    wanted = set(np.linspace(0, len(data) - 1, pictures).round().astype(int).tolist())
    kept = []
    for index in range(len(frames)):
        image, labels = frames[index]
        bottom, right = (-labels.shape[0] % 32, -labels.shape[1] % 32)
        padded = F.pad(image[None], (0, right, 0, bottom), mode="replicate")
        with torch.autocast("cpu", torch.bfloat16):
            prediction = net(padded)[0, :, : labels.shape[0], : labels.shape[1]].argmax(0).numpy()
        counts += hs3seg.confusion_matrix(labels.numpy(), prediction, k)
        if index in wanted:
            kept.append(prediction)
    iou = dict(zip(data.taxonomy.names, hs3seg.iou_per_class(counts).tolist(), strict=True))
    accuracy = float(np.trace(counts) / counts.sum())
    return {"miou": hs3seg.mean_iou(counts), "pixel_accuracy": accuracy, "iou": iou}, kept


def main(root: Path, folder: Path, out: Path, epochs: int, seed: int, only: str = "") -> None:
    """All arms of one seed; `only` trains one part of them, so that two processes can share the work."""
    torch.set_num_threads(1)
    folder.mkdir(parents=True, exist_ok=True)
    out.mkdir(parents=True, exist_ok=True)
    augment = TrainTransform(CROP, scale=(0.5, 1.5), flip=0.5, color_jitter=(0.3, 0.3, 0.3, 0.0))
    parts = cut_parts(CamVid(root, "train"), CamVid(root, "val"), augment=augment, fraction=0.1, seed=seed)
    names = parts.taxonomy.names
    net = make_net(len(names))
    supervised = hs3seg.deep_supervision(names, hs3seg.find_stages(net, torch.zeros(1, 3, *CROP)))
    if only == "baselines":
        for arm, plan in (("none", hs3seg.SupervisionPlan(names, (), "none")), ("deep_supervision", supervised)):
            fit(arm, plan, parts.train, folder, epochs, seed)
        return
    first = fit("phase-one", supervised, parts.reduced, folder, epochs, seed)
    plans = {
        "none": hs3seg.SupervisionPlan(names, (), "none"),
        "deep_supervision": supervised,
        "hs3": measure(first, parts.analysis, folder),
    }
    plans["hs3"].save(out / "plan.toml")
    if only == "hs3":
        fit("hs3", plans["hs3"], parts.train, folder, epochs, seed)
        return
    commit = subprocess.run(
        ["git", "rev-parse", "HEAD"], capture_output=True, text=True, cwd=Path(__file__).parent
    ).stdout
    result: dict[str, Any] = {
        "command": f"python tools/smp_camvid.py CAMVID {folder.name} OUT --epochs {epochs} --seed {seed}",
        "commit": commit.strip(),
        "arms": {},
    }
    columns = []
    for arm, plan in plans.items():
        module = fit(arm, plan, parts.train, folder, epochs, seed)
        stripped = module.strip()
        scores = {split: score(stripped, CamVid(root, split)) for split in ("val", "test")}
        result["arms"][arm] = {str(seed): {**scores["val"][0], "test": scores["test"][0], "groups": plan.num_groups}}
        columns.append((arm, scores["test"][1]))
        (out / "results.json").write_text(json.dumps(result, indent=1) + "\n")
        print(arm, {split: round(values[0]["miou"], 4) for split, values in scores.items()}, flush=True)
    draw(columns, CamVid(root, "test")).save(out / "predictions-test.png", optimize=True)


def draw(columns: list[tuple[str, list[Any]]], data: CamVid) -> Image.Image:
    """Predictions of every arm beside the truth, in class colours; no photographs."""
    table = np.zeros((256, 3), np.uint8)
    table[: data.taxonomy.num_classes] = data.taxonomy.colours
    chosen = np.linspace(0, len(data) - 1, len(columns[0][1])).round().astype(int)
    columns = [("truth", [data.read(int(i)).mask.numpy().astype(np.uint8) for i in chosen]), *columns]
    width, height = 240, 180
    sheet = Image.new("RGB", (len(columns) * (width + 6), len(chosen) * (height + 6) + 18), "white")
    for x, (name, maps) in enumerate(columns):
        ImageDraw.Draw(sheet).text((x * (width + 6), 2), name, fill="black")
        for y, ids in enumerate(maps):
            picture = Image.fromarray(table[ids]).resize((width, height), Image.Resampling.NEAREST)
            sheet.paste(picture, (x * (width + 6), 18 + y * (height + 6)))
    return sheet


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", choices=("", "baselines", "hs3"), default="")
    main(**vars(parser.parse_args()))
