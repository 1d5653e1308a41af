r"""How often `hs3 explain`'s first hints are wrong labels, measured with wrong labels planted in held-out images.

A deeply supervised network looks at a split it has not been trained on; then, seed by seed, 5 % of the images get one
class, or one connected region of it, relabelled as another class, and the images are ranked. The precision is the share
of planted images among as many first ones; chance is 0.05.

    python tools/planted_labels.py RUNS/seed-*/arms/deep_supervision --split val --out docs/results/label-hints \
        --data.root CAMVID

Writes results.json, into which further calls for other splits and data sets go, and the page README.md.
"""

import argparse
import shlex
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage

from hs3seg.analysis import mean_iou
from hs3seg.analysis.label_noise import label_hints
from hs3seg.analysis.per_image import PerImageCounter
from hs3seg.builders import make_evaluation_loader
from hs3seg.files import read_json, write_json
from hs3seg.nn import ConfusionCounter
from hs3seg.pipeline import load_trained, open_session
from hs3seg.pipeline.kept import commits_of
from hs3seg.report.comparison_section import markdown_table
from hs3seg.taxonomy import Grouping

KINDS = ("class", "region")
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
    wrong = rng.choice(usable, num_planted(len(scenes)), replace=False).tolist()
    counter = PerImageCounter(groupings)
    for index, (truth, found) in enumerate(scenes):
        labels = plant(truth, groupings["final"].num_classes, rng, region=region) if index in wrong else truth
        counter.add(index, str(index), labels, found)
    counts = counter.result()
    hints = [hint.image for hint in label_hints(counts, limit=len(wrong))]
    pixels = np.bincount(counts.agreed.image, counts.agreed.count, counts.num_images)
    raw = np.argsort(-pixels, kind="stable")[: len(wrong)]
    return float(np.isin(hints, wrong).sum() / len(wrong)), float(np.isin(raw, wrong).mean())


def num_planted(images: int) -> int:
    """Of so many images."""
    return max(1, round(SHARE * images))


def measure(weights: Path, split: str, seeds: int, overrides: list[str]) -> dict[str, Any]:
    """What one network finds: per kind of error, the precision with each planting seed."""
    scenes, groupings, miou = look(weights, split, overrides)
    found: dict[str, Any] = {"miou": miou, "images": len(scenes), "planted": num_planted(len(scenes))}
    for kind in KINDS:
        pairs = [precision(scenes, groupings, seed, region=kind == "region") for seed in range(seeds)]
        found[kind] = {"hints": [hints for hints, _ in pairs], "by_pixels": [raw for _, raw in pairs]}
    return found


def page(results: dict[str, Any]) -> list[str]:
    """Lines of README.md."""
    rows = []
    for name, networks in results["arms"].items():
        for seed, found in networks.items():
            row = [name, seed, f"{100 * found['miou']:.1f}", str(found["images"]), str(found["planted"])]
            for kind in KINDS:
                values = found[kind]["hints"]
                row.append(f"{np.mean(values):.2f} ({min(values):.2f} to {max(values):.2f})")
                row.append(f"{np.mean(found[kind]['by_pixels']):.2f}")
            rows.append(row)
    head = ("data, split", "network's seed", "mIoU %", "images", "planted", "a class: hints", "by pixels alone")
    return [
        "# Label hints: how many of the first are wrong labels?",
        "",
        f"In {100 * SHARE:.0f} % of the images that a deeply supervised network has not been trained on, one class"
        " (all its pixels, or one connected region) is labelled as another one; then `hs3 explain`'s ranking is asked"
        " for as many images as were planted. Numbers are the share of planted images among them, mean over the"
        f" planting seeds (lowest to highest); by chance {SHARE:.2f}. Wrong labels that the data set has already count"
        " as mistakes of the hints. `by pixels alone` ranks by the number of pixels that all outputs contradict.",
        "",
        *markdown_table((*head, "a region: hints", "by pixels alone"), rows),
        "",
        *(f"- `{command}`" for command in results["command"].split("; ")),
        "",
        f"Networks of {results['commit']}.",
    ]


def main() -> None:
    """Measures, adds to results.json and writes the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("weights", type=Path, nargs="+", metavar="FOLDER", help="an arm's folder in a run folder")
    parser.add_argument("--split", default="val")
    parser.add_argument("--seeds", type=int, default=10, help="plantings per network")
    parser.add_argument("--out", type=Path, default=Path("docs/results/label-hints"))
    options, overrides = parser.parse_known_args()
    path = options.out / "results.json"
    results = read_json(path) if path.exists() else {"command": "", "commit": "", "arms": {}}
    commits = {commit for commit in results["commit"].split(", ") if commit}
    for folder in options.weights:
        config = load_trained(folder, overrides).config
        found = measure(folder, options.split, options.seeds, overrides)
        results["arms"].setdefault(f"{config.name}, {options.split}", {})[str(config.seed)] = found
        commits.update(commit[:7] for commit in commits_of(folder, folder.parents[1]))
        print(f"{folder}: " + ", ".join(f"{kind} {np.mean(found[kind]['hints']):.2f}" for kind in KINDS), flush=True)
    known = [command for command in results["command"].split("; ") if command]
    command = shlex.join(["python", "tools/planted_labels.py", *_without_folder(sys.argv[1:])])
    results["command"] = "; ".join([*known, *([] if command in known else [command])])
    results["commit"] = ", ".join(sorted(commits))
    write_json(path, results)
    (options.out / "README.md").write_text("\n".join(page(results)) + "\n", encoding="utf-8")


def _without_folder(words: list[str]) -> list[str]:
    """The command's words without where this machine has its data."""
    return ["FOLDER" if before == "--data.root" else word for before, word in zip(["", *words], words, strict=False)]


if __name__ == "__main__":
    main()
