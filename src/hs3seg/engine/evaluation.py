"""The evaluation pass: one run over a split, one confusion matrix per stage, all at label resolution."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from hs3seg.analysis import iou_per_class, mean_iou, pixel_accuracy
from hs3seg.data import EvaluationLoader
from hs3seg.engine.progress import Reporter
from hs3seg.engine.runtime import Runtime
from hs3seg.nn import ClassMeans, Supervised


@dataclass
class Evaluation:
    """What one pass counted.

    Args:
        split: Name of the split.
        confusions: Per stage (k_i, k_i) int64 in that stage's own groups, and `final` (K, K); rows truth.
        group_names: Names of the rows.
        num_images: Images seen.
        num_ignored_pixels: Pixels without a class.
        all_ignored: Names of images in which no pixel has a class; they are kept and count as ignored.
        samples: Arrays for the report: `names`, and per sample `i/image` (RGB), `i/truth`, `i/STAGE`, `i/final`.
        embeddings: Per stage (K, C) mean feature of each class, where asked for.
    """

    split: str
    confusions: dict[str, NDArray[np.int64]]
    group_names: dict[str, tuple[str, ...]]
    num_images: int = 0
    num_ignored_pixels: int = 0
    all_ignored: list[str] = field(default_factory=list)
    samples: dict[str, NDArray[Any]] = field(default_factory=dict)
    embeddings: dict[str, NDArray[np.float64]] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; a class that the truth lacks has the value null."""
        final = self.confusions["final"]
        return {
            "split": self.split,
            "num_images": self.num_images,
            "num_pixels": int(final.sum()),
            "num_ignored_pixels": self.num_ignored_pixels,
            "all_ignored_images": self.all_ignored,
            "miou": _number(mean_iou(final)),
            "pixel_accuracy": _number(pixel_accuracy(final)),
            "iou": _by_name(self.group_names["final"], final),
            "stages": {
                stage: {
                    "num_groups": len(confusion),
                    "miou": _number(mean_iou(confusion)),
                    "pixel_accuracy": _number(pixel_accuracy(confusion)),
                    "iou": _by_name(self.group_names[stage], confusion),
                }
                for stage, confusion in self.confusions.items()
                if stage != "final"
            },
        }


def evaluate(
    model: Supervised,
    loader: EvaluationLoader,
    runtime: Runtime,
    reporter: Reporter,
    *,
    mean: Tensor,
    std: Tensor,
    num_samples: int = 0,
    with_embeddings: bool = False,
    label: str = "evaluate",
) -> Evaluation:
    """Runs a model over a split and counts.

    Logits are upsampled bilinearly to the labels' size, image by image, so that memory does not grow with the batch.
    The counts are summed over all processes; each image is seen by exactly one.

    Args:
        model: Network with its stage heads; left in the mode it came in.
        loader: Batches with masks at label resolution.
        runtime: Device, precision and processes.
        reporter: Progress.
        mean: (C,) input mean, 0..1.
        std: (C,) input standard deviation.
        num_samples: Images kept for the report, spread evenly over the split.
        with_embeddings: Also average each stage's features per class (for k-means).
        label: Shown in progress.
    """
    taxonomy = loader.dataset.taxonomy
    was_training = model.training
    model = runtime.place(model).eval()
    counter = _Counter(model, taxonomy.num_classes, taxonomy.ignore_index, runtime.device)
    means = ClassMeans(taxonomy.num_classes, model.stages) if with_embeddings else None
    total = len(loader.dataset)
    wanted = {round(i) for i in np.linspace(0, total - 1, min(num_samples, total))} if num_samples else set()
    samples: list[tuple[int, str, dict[str, NDArray[Any]]]] = []
    mean, std = mean.to(runtime.device), std.to(runtime.device)
    with torch.inference_mode(), reporter.task(label, total) as task:
        for batch in loader:
            masks = batch.masks.to(runtime.device)
            with runtime.accelerator.autocast():
                # {stage: (n, k_i, h, w)}, {stage: (n, C_i, h, w)}
                outputs, features = model.forward_with_features(runtime.images(batch.images, mean, std))
            if means is not None:
                means.update(features, masks, taxonomy.ignore_index)
            for i, (index, name) in enumerate(zip(batch.indices, batch.names, strict=True)):
                predictions = counter.add(name, {s: o[i : i + 1] for s, o in outputs.items()}, masks[i])
                if index in wanted:
                    samples.append(
                        (index, name, _sample(batch.images[i], batch.masks[i], predictions, taxonomy.ignore_index))
                    )
            task.advance(min(len(batch.names) * runtime.world_size, total))
    model.train(was_training)
    return Evaluation(
        split=loader.dataset.split,
        confusions={stage: runtime.sum(count).cpu().numpy() for stage, count in counter.counts.items()},
        group_names={
            **{stage.stage: stage.grouping.group_names(taxonomy.names) for stage in model.plan.stages},
            "final": taxonomy.names,
        },
        num_images=int(runtime.sum(torch.tensor(counter.images, device=runtime.device))),
        num_ignored_pixels=int(runtime.sum(torch.tensor(counter.ignored, device=runtime.device))),
        all_ignored=sorted(runtime.gather(counter.all_ignored)),
        samples=_pack(sorted(runtime.gather(samples), key=lambda sample: sample[0])),
        embeddings=_embeddings(means, runtime) if means is not None else {},
    )


class _Counter:
    def __init__(self, model: Supervised, num_classes: int, ignore_index: int, device: torch.device) -> None:
        self.ignore_index = ignore_index
        self.groups: dict[str, Tensor | None] = {"final": None}
        sizes = {}
        for stage in model.plan.stages:
            self.groups[stage.stage] = torch.tensor(stage.grouping.assignment, device=device)
            sizes[stage.stage] = stage.grouping.num_groups
        sizes["final"] = num_classes
        self.counts = {name: torch.zeros(k, k, dtype=torch.int64, device=device) for name, k in sizes.items()}
        self.images = self.ignored = 0
        self.all_ignored: list[str] = []

    def add(self, name: str, outputs: Mapping[str, Tensor], mask: Tensor) -> dict[str, Tensor]:
        """Counts one image; returns the predictions (H, W) per stage."""
        valid = mask != self.ignore_index
        truth = mask[valid]  # (pixels,)
        self.images += 1
        self.ignored += mask.numel() - truth.numel()
        if truth.numel() == 0:
            self.all_ignored.append(name)
        predictions = {}
        for stage, logits in outputs.items():  # (1, k, h, w)
            if logits.shape[-2:] != mask.shape:
                logits = F.interpolate(logits.float(), size=mask.shape, mode="bilinear", align_corners=False)
            prediction = logits[0].argmax(0)  # (H, W)
            groups = self.groups[stage]
            rows = truth if groups is None else groups[truth]
            k = len(self.counts[stage])
            self.counts[stage] += torch.bincount(rows * k + prediction[valid], minlength=k * k).view(k, k)
            predictions[stage] = prediction
        return predictions


def _sample(
    image: Tensor, mask: Tensor, predictions: Mapping[str, Tensor], ignore_index: int
) -> dict[str, NDArray[Any]]:
    truth = torch.where(mask == ignore_index, 255, mask)
    sample = {
        "image": image[:3].permute(1, 2, 0).numpy(),  # RGB, whatever channels follow
        "truth": truth.to(torch.uint8).numpy(),
    }
    return sample | {stage: value.to(torch.uint8).cpu().numpy() for stage, value in predictions.items()}


def _pack(samples: Sequence[tuple[int, str, dict[str, NDArray[Any]]]]) -> dict[str, NDArray[Any]]:
    packed: dict[str, NDArray[Any]] = {"names": np.array([name for _, name, _ in samples])}
    for number, (_, _, arrays) in enumerate(samples):
        packed |= {f"{number}/{key}": value for key, value in arrays.items()}
    return packed


def _embeddings(means: ClassMeans, runtime: Runtime) -> dict[str, NDArray[np.float64]]:
    totals = {
        stage: (runtime.sum(sums.to(runtime.device)).cpu(), runtime.sum(counts.to(runtime.device)).cpu())
        for stage, (sums, counts) in means.totals().items()
    }
    return ClassMeans.means(totals)


def _number(value: float) -> float | None:
    return None if math.isnan(value) else float(value)


def _by_name(names: Sequence[str], confusion: NDArray[np.int64]) -> dict[str, float | None]:
    return {name: _number(value) for name, value in zip(names, iou_per_class(confusion), strict=True)}
