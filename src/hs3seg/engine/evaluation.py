"""The evaluation pass: one run over a split, one confusion matrix per stage, all at label resolution."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, runtime_checkable
from typing import Protocol as Protocol_

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hs3seg.analysis import (
    BoundaryCounter,
    frequency_weighted_iou,
    iou_per_class,
    level_miou,
    mean_accuracy,
    mean_iou,
    pixel_accuracy,
    share_of_errors_inside,
)
from hs3seg.analysis.per_image import PerImage, PerImageCounter
from hs3seg.data import EvaluationLoader
from hs3seg.engine.progress import Reporter
from hs3seg.engine.protocol import Protocol, segment
from hs3seg.engine.runtime import Runtime
from hs3seg.errors import ConfigError
from hs3seg.nn import ClassMeans, ConfusionCounter, Supervised
from hs3seg.taxonomy import Grouping, Taxonomy


@runtime_checkable
class Counter(Protocol_):
    """Something else that is counted from the final predictions; its counts are summed over all processes."""

    counts: dict[str, NDArray[np.int64]]

    def add(self, index: int, truth: NDArray[np.int64], prediction: NDArray[np.int64]) -> None:
        """Adds one image: its position in the split, labels (H, W) and predicted classes (H, W)."""

    def scores(self) -> dict[str, Any]:
        """Plain values for the evaluation's JSON."""


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
        samples: Arrays for the report: `names`, and per sample `i/image` (RGB), `i/truth`, `i/STAGE`, `i/final`; labels
            are uint8, 255 = ignored, or uint16, 65535 = ignored, where there are more than 255 classes.
        embeddings: Per stage (K, C) mean feature of each class, where asked for.
        groupings: Per stage its classes' groups.
        protocol: How the images were looked at.
        boundaries: Boundary pixels, where asked for.
        counters: What else was counted.
        per_image: The counts of every image by itself, where asked for.
    """

    split: str
    confusions: dict[str, NDArray[np.int64]]
    group_names: dict[str, tuple[str, ...]]
    num_images: int = 0
    num_ignored_pixels: int = 0
    all_ignored: list[str] = field(default_factory=list)
    samples: dict[str, NDArray[Any]] = field(default_factory=dict)
    embeddings: dict[str, NDArray[np.float64]] = field(default_factory=dict)
    groupings: dict[str, Grouping] = field(default_factory=dict)
    protocol: Protocol = field(default_factory=Protocol)
    boundaries: BoundaryCounter | None = None
    counters: Sequence[Counter] = ()
    per_image: PerImage | None = None

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
            "mean_accuracy": _number(mean_accuracy(final)),
            "frequency_weighted_iou": _number(frequency_weighted_iou(final)),
            "iou": _by_name(self.group_names["final"], final),
            "protocol": asdict(self.protocol),
            **(self._boundary_scores() if self.boundaries is not None else {}),
            # The final output at the level of detail of each stage.
            "levels": {
                stage: {
                    "num_groups": grouping.num_groups,
                    "miou": _number(level_miou(final, grouping)),
                    "share_of_errors_inside_groups": _number(share_of_errors_inside(final, grouping)),
                }
                for stage, grouping in self.groupings.items()
            },
            **{key: value for counter in self.counters for key, value in counter.scores().items()},
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

    def _boundary_scores(self) -> dict[str, Any]:
        assert self.boundaries is not None
        scores = self.boundaries.scores()
        names = self.group_names["final"]
        return {
            f"boundary_{kind}": {
                "mean": _number(float(np.nanmean(values)) if not np.isnan(values).all() else math.nan),
                "per_class": {name: _number(v) for name, v in zip(names, values, strict=True)},
            }
            for kind, values in scores.items()
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
    protocol: Protocol | None = None,
    boundaries: bool = False,
    counters: Sequence[Counter] = (),
    per_image: bool = False,
    label: str = "evaluate",
) -> Evaluation:
    """Runs a model over a split and counts.

    Logits are upsampled bilinearly to the labels' size, strip by strip, so that memory does not grow with the classes.
    The counts are summed over all processes; each image is seen by exactly one.

    Args:
        model: Network with its stage heads; left in the mode it came in.
        loader: Batches with masks at label resolution.
        runtime: Device, precision and processes.
        reporter: Progress.
        mean: (C,) input mean, 0..1.
        std: (C,) input standard deviation.
        num_samples: Images kept for the report, spread evenly over the split.
        with_embeddings: Also average each stage's features per class (for k-means); only with a single look.
        protocol: Scales, mirrored, sliding window; None = one look at every image.
        boundaries: Also count for boundary F and boundary IoU.
        counters: What else to count from the final predictions.
        per_image: Also keep the counts of every image by itself.
        label: Shown in progress.
    """
    taxonomy = loader.dataset.taxonomy
    protocol = protocol or Protocol()
    if with_embeddings and not protocol.is_single:
        raise ConfigError("features of classes are averaged from one look at every image; leave out scales and flip")
    edges = BoundaryCounter(taxonomy.num_classes, taxonomy.ignore_index) if boundaries else None
    was_training = model.training
    model = runtime.place(model).eval()
    groupings = {stage.stage: stage.grouping for stage in model.plan.stages}
    all_groupings = groupings | {"final": Grouping.identity(taxonomy.num_classes)}
    counter = ConfusionCounter(all_groupings, taxonomy.ignore_index, runtime.device, align_corners=model.align_corners)
    single = PerImageCounter(all_groupings, taxonomy.ignore_index) if per_image else None
    all_ignored: list[str] = []
    num_images = 0
    means = ClassMeans(taxonomy.num_classes, model.stages) if with_embeddings else None
    total = len(loader.dataset)
    wanted = {round(i) for i in np.linspace(0, total - 1, min(num_samples, total))} if num_samples else set()
    samples: list[tuple[int, str, dict[str, NDArray[Any]]]] = []
    mean, std = mean.to(runtime.device), std.to(runtime.device)
    with torch.inference_mode(), reporter.task(label, total) as task:
        for batch in loader:
            masks = batch.masks.to(runtime.device)
            with runtime.accelerator.autocast():
                images = runtime.images(batch.images, mean, std)
                if means is None:
                    outputs = segment(model, images, protocol)  # {stage: (n, k_i, h, w)}
                else:
                    outputs, features = model.forward_with_features(images)  # and {stage: (n, C_i, h, w)}
                    means.update(features, masks, taxonomy.ignore_index)
            predictions = counter.add(outputs, masks)  # {stage: (n, H, W)}
            num_images += len(batch.names)
            for i, (index, name) in enumerate(zip(batch.indices, batch.names, strict=True)):
                if bool((batch.masks[i] == taxonomy.ignore_index).all()):
                    all_ignored.append(name)
                if single is not None:
                    outcome = {stage: value[i].cpu().numpy() for stage, value in predictions.items()}
                    single.add(index, name, batch.masks[i].numpy(), outcome)
                if edges is not None or counters:
                    truth, final = batch.masks[i].numpy(), predictions["final"][i].long().cpu().numpy()
                    if edges is not None:
                        edges.add(truth, final)
                    for other in counters:
                        other.add(index, truth, final)
                if index in wanted:
                    own = {stage: value[i] for stage, value in predictions.items()}
                    samples.append((index, name, _sample(batch.images[i], batch.masks[i], own, taxonomy)))
            task.advance(min(len(batch.names) * runtime.world_size, total))
    model.train(was_training)
    if edges is not None:
        edges.counts = {name: _summed(value, runtime) for name, value in edges.counts.items()}
    for other in counters:
        other.counts = {name: _summed(value, runtime) for name, value in other.counts.items()}
    if single is not None:
        single.images = runtime.gather(single.images)
    return Evaluation(
        split=loader.dataset.split,
        confusions={stage: runtime.sum(count).cpu().numpy() for stage, count in counter.counts.items()},
        group_names={
            **{stage.stage: stage.grouping.group_names(taxonomy.names) for stage in model.plan.stages},
            "final": taxonomy.names,
        },
        num_images=int(runtime.sum(torch.tensor(num_images, device=runtime.device))),
        num_ignored_pixels=int(runtime.sum(torch.tensor(counter.ignored, device=runtime.device))),
        all_ignored=sorted(runtime.gather(all_ignored)),
        samples=_pack(sorted(runtime.gather(samples), key=lambda sample: sample[0])),
        embeddings=_embeddings(means, runtime) if means is not None else {},
        groupings=groupings,
        protocol=protocol,
        boundaries=edges,
        counters=counters,
        per_image=single.result() if single is not None else None,
    )


def _summed(counts: NDArray[np.int64], runtime: Runtime) -> NDArray[np.int64]:
    return runtime.sum(torch.from_numpy(counts).to(runtime.device)).cpu().numpy()


def _sample(
    image: Tensor, mask: Tensor, predictions: Mapping[str, Tensor], taxonomy: Taxonomy
) -> dict[str, NDArray[Any]]:
    # The type's largest number means ignored, so that 8 bits hold 255 classes.
    kind, ignored = ("uint8", 255) if taxonomy.num_classes <= 255 else ("uint16", 65535)
    truth = torch.where(mask == taxonomy.ignore_index, ignored, mask)
    sample = {
        "image": image[:3].permute(1, 2, 0).numpy(),  # RGB, whatever channels follow
        "truth": truth.numpy().astype(kind),
    }
    return sample | {stage: value.cpu().numpy().astype(kind) for stage, value in predictions.items()}


def _pack(samples: Sequence[tuple[int, str, dict[str, NDArray[Any]]]]) -> dict[str, NDArray[Any]]:
    packed: dict[str, NDArray[Any]] = {"names": np.array([name for _, name, _ in samples])}
    for number, (_, _, arrays) in enumerate(samples):
        packed |= {f"{number}/{key}": value for key, value in arrays.items()}
    return packed


def _embeddings(means: ClassMeans, runtime: Runtime) -> dict[str, NDArray[np.float64]]:
    # Gathered, not summed tensor by tensor: a process without an image knows no stage's number of channels.
    totals: dict[str, tuple[Tensor, Tensor]] = {}
    for part in runtime.gather([means.totals()]):
        for stage, (sums, counts) in part.items():
            before = totals.get(stage)
            totals[stage] = (sums, counts) if before is None else (before[0] + sums, before[1] + counts)
    return ClassMeans.means(totals)


def _number(value: float) -> float | None:
    return None if math.isnan(value) else float(value)


def _by_name(names: Sequence[str], confusion: NDArray[np.int64]) -> dict[str, float | None]:
    return {name: _number(value) for name, value in zip(names, iou_per_class(confusion), strict=True)}
