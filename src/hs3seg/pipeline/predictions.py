"""Scores of predictions on disk, whoever made them, and their submission to a test server."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

from hs3seg.builders import make_dataset
from hs3seg.config import CityscapesData, Config, apply_overrides, config_from_dict, lay_under
from hs3seg.data import SegmentationDataset
from hs3seg.data.cityscapes import Cityscapes
from hs3seg.data.cityscapes_scores import evaluate_predictions, official_json
from hs3seg.data.predictions import score_folder
from hs3seg.data.submission import write_submission
from hs3seg.engine import Reporter
from hs3seg.errors import ConfigError
from hs3seg.files import write_json


def score_step(
    folder: Path,
    split: str,
    overrides: Sequence[str],
    *,
    ids: Literal["label", "train"] = "label",
    out: Path | None = None,
    official: Path | None = None,
) -> dict[str, Any]:
    """Scores a folder of predictions against a split.

    Args:
        folder: Of one PNG per image: for Cityscapes label ids in files named as the official script wants them, for all
            other data class ids in files named as `hs3 predict` writes them.
        split: Of the data.
        overrides: `--data.kind`, `--data.root` and further keys of the data, laid over those in ROOT/hs3.toml.
        ids: What Cityscapes predictions hold: label or train (ids).
        out: A file for the scores, too.
        official: A file in the official script's own format, with the pixels of every image; for Cityscapes.

    Returns:
        Plain values for JSON; Cityscapes has miou, iiou, iou, iiou_per_class and the categories' scores.

    Raises:
        ConfigError: no kind or root of data. DataError: what is wrong with a file.
    """
    config, dataset = _labels(split, overrides, "--predictions")
    with Reporter().task(f"score {split}", len(dataset)) as task:

        def step() -> None:
            task.advance(1)

        workers = config.data.num_workers
        if isinstance(config.data, CityscapesData) and isinstance(dataset, Cityscapes):
            found = evaluate_predictions(
                folder, dataset, ids=ids, per_image=official is not None, num_workers=workers, progress=step
            )
            scores = found.result.to_dict()
            if official:
                write_json(official, official_json(found))
        elif official:
            raise ConfigError(f"--official_json is for Cityscapes, not for data.kind = '{config.data.kind}'")
        else:
            scores = score_folder(folder, dataset, step, num_workers=workers)
    scores = {"split": split, "predictions": str(folder), **scores}
    if out:
        write_json(out, scores)
    return scores


def submit_step(
    folder: Path, split: str, overrides: Sequence[str], out: Path, *, ids: Literal["label", "train"] = "train"
) -> dict[str, Any]:
    """Checks predictions and packs them for the test server of Cityscapes.

    Args:
        folder: Of one PNG of ids per frame, named as the official script wants them.
        split: test, or another one to try the format.
        overrides: `--data.root` and further keys of the data.
        out: The zip file.
        ids: What the predictions hold; `hs3 predict` writes train ids.

    Raises:
        ConfigError: no root of data. DataError: what is wrong with a file.
    """
    config, dataset = _labels(split, ["--data.kind", "cityscapes", *overrides], "hs3 submit")
    if not isinstance(dataset, Cityscapes):
        raise ConfigError(f"hs3 submit is for Cityscapes, not for data.kind = '{config.data.kind}'")
    with Reporter().task("submission", len(dataset)) as task:
        made = write_submission(
            folder,
            dataset,
            out,
            ids=ids,
            num_workers=config.data.num_workers,
            progress=lambda: task.advance(1),
        )
    return {**asdict(made), "path": str(made.path), "notes": list(made.notes)}


def _labels(split: str, overrides: Sequence[str], what: str) -> tuple[Config, SegmentationDataset]:
    """A split from nothing but `--data` words and what the data's own hs3.toml says."""
    # Only the data section is used; the rest of a config has to be there.
    values: dict[str, Any] = {"name": "predictions", "data": {}, "augment": {"crop": [1, 1]}}
    apply_overrides(values, overrides)
    lay_under(values)
    if "kind" not in values["data"]:
        raise ConfigError(f"{what} needs the labels: give --data.kind KIND --data.root FOLDER")
    config = config_from_dict(values, "the command line")
    return config, make_dataset(config, split)
