"""How often `hs3 explain`'s first hints are wrong labels, measured with wrong labels planted in held-out images.

A deeply supervised network looks at a split it has not been trained on; then, seed by seed, 5 % of the images get one
class, or one connected region of it, relabelled as another class, and the images are ranked. The precision is the share
of planted images among as many first ones; chance is 0.05.

    python tools/planted_labels.py RUN/arms/deep_supervision --split val --data.root CAMVID
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage

from hs3seg.analysis import mean_iou
from hs3seg.analysis.label_noise import label_hints
from hs3seg.analysis.per_image import PerImageCounter
from hs3seg.builders import make_evaluation_loader
from hs3seg.nn import ConfusionCounter
from hs3seg.pipeline import load_trained, open_session
from hs3seg.taxonomy import Grouping

SHARE, SMALLEST = 0.05, 0.005  # of the images; of an image's pixels that a planted class or region has at least

Scene = tuple[NDArray[np.int64], dict[str, NDArray[np.uint8]]]


def look(weights: Path, split: str, overrides: list[str]) -> tuple[list[Scene], dict[str, Grouping], float]:
    """Labels and predictions of every image, the outputs' groups, and the final mIoU."""
    trained = load_trained(weights, overrides)
    session = open_session(trained.config)
    dataset = session.dataset(split)
    loader = make_evaluation_loader(session.config, dataset, session.runtime)
    model = session.runtime.place(trained.model).eval()
    groupings = {stage.stage: stage.grouping for stage in model.plan.stages}
    groupings["final"] = Grouping.identity(dataset.taxonomy.num_classes)
    matrices = ConfusionCounter(groupings, dataset.taxonomy.ignore_index, session.runtime.device)
    scenes: list[Scene] = []
    with torch.inference_mode(), session.reporter.task(f"look at {split}", len(dataset)) as task:
        for batch in loader:
            images = session.runtime.images(batch.images, trained.mean, trained.std)
            with session.runtime.accelerator.autocast():
                outputs = model(images)
            found = matrices.add(outputs, batch.masks.to(session.runtime.device))
            for i in range(len(batch.names)):
                own = {output: value[i].cpu().numpy() for output, value in found.items()}
                scenes.append((batch.masks[i].numpy(), own))
            task.advance(len(batch.names))
    return scenes, groupings, mean_iou(matrices.counts["final"].cpu().numpy())


def plant(truth: NDArray[np.int64], classes: int, rng: np.random.Generator, *, region: bool) -> NDArray[np.int64]:
    """The labels with one class, or one region of it, relabelled."""
    present, pixels = np.unique(truth[truth != 255], return_counts=True)
    true = rng.choice(present[(pixels >= SMALLEST * truth.size) | (pixels == pixels.max())])
    where = truth == true
    if region:
        parts, _ = ndimage.label(where)
        sizes = np.bincount(parts.ravel())[1:]
        where = parts == 1 + rng.choice(np.flatnonzero((sizes >= SMALLEST * truth.size) | (sizes == sizes.max())))
    return np.where(where, rng.choice([c for c in range(classes) if c != true]), truth)


def precision(scenes: list[Scene], groupings: dict[str, Grouping], seed: int, *, region: bool) -> tuple[float, float]:
    """Of the hints, and of a ranking by the number of contradicted pixels alone."""
    rng = np.random.default_rng(seed)
    usable = [i for i, (truth, _) in enumerate(scenes) if (truth != 255).any()]
    wrong = rng.choice(usable, max(1, round(SHARE * len(scenes))), replace=False).tolist()
    counter = PerImageCounter(groupings)
    for index, (truth, found) in enumerate(scenes):
        labels = plant(truth, groupings["final"].num_classes, rng, region=region) if index in wrong else truth
        counter.add(index, str(index), labels, found)
    counts = counter.result()
    hints = [hint.image for hint in label_hints(counts, limit=len(wrong))]
    pixels = np.bincount(counts.agreed.image, counts.agreed.count, counts.num_images)
    raw = np.argsort(-pixels, kind="stable")[: len(wrong)]
    return float(np.isin(hints, wrong).sum() / len(wrong)), float(np.isin(raw, wrong).mean())


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("weights", type=Path)
    parser.add_argument("--split", default="val")
    parser.add_argument("--seeds", type=int, default=10)
    options, overrides = parser.parse_known_args()
    scenes, groupings, miou = look(options.weights, options.split, overrides)
    print(f"{len(scenes)} images, final mIoU {100 * miou:.1f} %")
    for region in (False, True):
        found = [precision(scenes, groupings, seed, region=region) for seed in range(options.seeds)]
        hints, raw = np.mean(found, axis=0)
        what = "one region" if region else "all pixels of a class"
        print(f"{what}: precision {hints:.2f}, by pixels alone {raw:.2f}")


if __name__ == "__main__":
    main()
