"""Copies what may be published of a run to docs/results/NAME: numbers, curves and our own predictions, no photographs.

    .venv/bin/python tools/collect_results.py RUN docs/results/NAME "COMMAND THAT ANYONE CAN GIVE" [COMMIT]

Writes results.json ({"command", "commit", "arms": {arm: {seed: {"miou", ...}}}}), the report's figures without the data
set's images, and predictions-SPLIT.png: what each arm and stage predicts on the run's sample images.
"""

import json
import shutil
import sys
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from hs3seg.analysis import SupervisionPlan
from hs3seg.taxonomy import Taxonomy


def main(run: Path, out: Path, command: str, commit: str | None = None) -> None:
    """Collects one run."""
    out.mkdir(parents=True, exist_ok=True)
    facts = json.loads((run / "run.json").read_text())
    arms: dict[str, dict[str, dict[str, object]]] = {}
    for folder in sorted((run / "arms").iterdir()):
        values: dict[str, object] = {}
        for path in sorted(folder.glob("evaluation-*.json")):
            found = json.loads(path.read_text())
            values[path.stem.removeprefix("evaluation-")] = {
                key: found[key] for key in ("miou", "pixel_accuracy", "iou", "stages")
            }
        training = json.loads((folder / "train.json").read_text())
        values |= {key: training[key] for key in ("seconds", "epochs", "precision", "threads", "weights_sha256")}
        best = json.loads((run / "results.json").read_text())["arms"][folder.name]
        arms[folder.name] = {str(facts["seed"]): best | values}
    result = {"command": command, "commit": commit or facts.get("commit"), "arms": arms}
    (out / "results.json").write_text(json.dumps(result, indent=1) + "\n")
    for path in (run / "report").glob("*.png"):
        if not path.name.startswith("samples"):
            shutil.copy(path, out / path.name)
    for name in ("plan.toml", "analysis/analysis.json"):  # a run of baselines alone has neither
        if (run / name).exists():
            shutil.copy(run / name, out / Path(name).name)
    for split in sorted({p.stem.removeprefix("samples-") for p in run.glob("arms/*/samples-*.npz")}):
        _predictions(run, split, sorted(arms)).save(out / f"predictions-{split}.png", optimize=True)


def _predictions(run: Path, split: str, arms: list[str], side: int = 200, rows: int = 4) -> Image.Image:
    taxonomy = Taxonomy.load(run / "taxonomy.toml")
    columns: list[tuple[str, list[Image.Image]]] = []
    for arm in arms:
        arrays = np.load(run / "arms" / arm / f"samples-{split}.npz")
        plan = SupervisionPlan.load(run / "arms" / arm / "plan.toml")
        colours = {stage.stage: stage.grouping.group_colours(taxonomy.colours) for stage in plan.stages}
        for stage in (*plan.stage_names, "final"):
            table = np.zeros((256, 3), np.uint8)
            own = colours.get(stage, taxonomy.colours)
            table[: len(own)] = own
            count = min(rows, len(arrays["names"]))
            pictures = [Image.fromarray(table[arrays[f"{i}/{stage}"]]) for i in range(count)]
            columns.append((f"{arm}, {stage}", pictures))
    height = side * columns[0][1][0].height // columns[0][1][0].width
    sheet = Image.new("RGB", (len(columns) * (side + 6), 18 + rows * (height + 6)), "white")
    pen = ImageDraw.Draw(sheet)
    for x, (title, pictures) in enumerate(columns):
        pen.text((x * (side + 6) + 2, 3), title, fill="black")
        for y, picture in enumerate(pictures):
            small = picture.resize((side, height), Image.Resampling.NEAREST)
            sheet.paste(small, (x * (side + 6), 18 + y * (height + 6)))
    return sheet


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), *sys.argv[3:5])
