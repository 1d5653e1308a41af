"""Draws what each stage of a trained arm tells apart, the README's picture: group colours per stage, final, truth.

.venv/bin/python tools/overview_picture.py ARM_FOLDER TAXONOMY.toml SPLIT OUT.png [NUMBER OF THE SAMPLE ...]
"""

import sys
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from hs3seg.analysis import SupervisionPlan
from hs3seg.taxonomy import Taxonomy

_WIDTH, _GAP, _HEAD = 300, 10, 26


def main(arm: Path, taxonomy: Taxonomy, split: str, out: Path, samples: list[int]) -> None:
    """One column per stage, shallow to deep, then the final output and the truth."""
    plan = SupervisionPlan.load(arm / "plan.toml")
    arrays = np.load(arm / f"samples-{split}.npz")
    columns = [
        (
            f"{stage.stage}: {stage.grouping.num_groups} groups",
            stage.stage,
            stage.grouping.group_colours(taxonomy.colours),
        )
        for stage in plan.stages
    ]
    columns += [
        (f"output: {taxonomy.num_classes} classes", "final", taxonomy.colours),
        ("truth", "truth", taxonomy.colours),
    ]
    height = round(_WIDTH * arrays[f"{samples[0]}/final"].shape[0] / arrays[f"{samples[0]}/final"].shape[1])
    size = (len(columns) * (_WIDTH + _GAP) - _GAP, _HEAD + len(samples) * (height + _GAP) - _GAP)
    sheet = Image.new("RGB", size, "white")
    for x, (title, key, colours) in enumerate(columns):
        table = np.zeros((256, 3), np.uint8)
        table[: len(colours)] = colours
        left = x * (_WIDTH + _GAP)
        ImageDraw.Draw(sheet).text((left, 4), title, fill="black", font=ImageFont.load_default(16))
        for y, number in enumerate(samples):
            picture = Image.fromarray(table[arrays[f"{number}/{key}"]]).resize(
                (_WIDTH, height), Image.Resampling.NEAREST
            )
            sheet.paste(picture, (left, _HEAD + y * (height + _GAP)))
    sheet.save(out, optimize=True)


if __name__ == "__main__":
    arm, taxonomy, split, out, *numbers = sys.argv[1:]
    main(Path(arm), Taxonomy.load(Path(taxonomy)), split, Path(out), [int(n) for n in numbers] or [0, 1])
