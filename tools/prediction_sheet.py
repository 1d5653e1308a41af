"""Draws what several evaluations of one split predict, beside the truth, in class colours; no photographs.

.venv/bin/python tools/prediction_sheet.py OUT.png TAXONOMY.toml SPLIT "one look=EVALUATION FOLDER" "mirrored=ANOTHER"
"""

import sys
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from hs3seg.taxonomy import Taxonomy


def main(out: Path, taxonomy: Taxonomy, split: str, folders: dict[str, Path], rows: int = 4, width: int = 240) -> None:
    """Writes the sheet: a column for the truth and one per folder."""
    table = np.zeros((256, 3), np.uint8)
    table[: taxonomy.num_classes] = taxonomy.colours
    arrays = {name: np.load(folder / f"samples-{split}.npz") for name, folder in folders.items()}
    first = next(iter(arrays.values()))
    count = min(rows, len(first["names"]))
    columns = [("truth", [first[f"{i}/truth"] for i in range(count)])]
    columns += [(name, [found[f"{i}/final"] for i in range(count)]) for name, found in arrays.items()]
    height = round(width * columns[0][1][0].shape[0] / columns[0][1][0].shape[1])
    sheet = Image.new("RGB", (len(columns) * (width + 6), 18 + count * (height + 6)), "white")
    for x, (name, maps) in enumerate(columns):
        ImageDraw.Draw(sheet).text((x * (width + 6), 2), name, fill="black")
        for y, ids in enumerate(maps):
            picture = Image.fromarray(table[ids]).resize((width, height), Image.Resampling.NEAREST)
            sheet.paste(picture, (x * (width + 6), 18 + y * (height + 6)))
    sheet.save(out, optimize=True)


if __name__ == "__main__":
    out, taxonomy, split, *pairs = sys.argv[1:]
    folders = {name: Path(folder) for name, _, folder in (pair.partition("=") for pair in pairs)}
    main(Path(out), Taxonomy.load(Path(taxonomy)), split, folders)
