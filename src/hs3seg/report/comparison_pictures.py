"""Images on which two arms disagree most, with a map of who is right where.

Legend: H x W pixels.
"""

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from hs3seg.report.canvas import Canvas, text_width
from hs3seg.report.load import Arm, Run
from hs3seg.report.markup import TIMES, arm_title, escape, hex_colour, in_sentence, percent, points, swatch, tag
from hs3seg.report.pictures import IGNORED, Tile, coloured, contact_sheet, has_class
from hs3seg.taxonomy import Colour

ONLY_ARM, ONLY_REFERENCE, BOTH, NEITHER = range(4)
COLOURS = ((0, 114, 178), (230, 159, 0), (228, 228, 226), (96, 98, 104))
"""Of the map. Blue and orange after Okabe and Ito, told apart by colour-blind readers and by lightness in grey."""

_WIDTH = 320  # largest of a picture, pixels


@dataclass(frozen=True)
class Disagreement:
    """One sample of one split, seen by two arms.

    Args:
        arm: The arm.
        name: Of the image.
        gain: Share of labelled pixels that the arm has right, minus that of the reference.
        tiles: Image, truth, the reference's prediction, the arm's, and the map.
    """

    arm: str
    name: str
    gain: float
    tiles: list[Tile]


def who_is_right(arm: NDArray[Any], reference: NDArray[Any], truth: NDArray[Any]) -> NDArray[np.uint8]:
    """(H, W) map: ONLY_ARM, ONLY_REFERENCE, BOTH or NEITHER; IGNORED where there is no truth.

    Args:
        arm: (H, W) classes.
        reference: (H, W) classes.
        truth: (H, W) classes, or the ignore label of samples, see `has_class`.
    """
    one, other = arm == truth, reference == truth
    found = np.full(truth.shape, NEITHER, np.uint8)
    found[one & ~other], found[other & ~one], found[one & other] = ONLY_ARM, ONLY_REFERENCE, BOTH
    found[~has_class(truth)] = IGNORED
    return found


def disagreements(run: Run, split: str, reference: str, *, per_arm: int = 2) -> list[Disagreement]:
    """Of the samples kept, those with the largest difference of accuracy: the arm's best first, then its worst.

    Args:
        run: One seed's run.
        split: An evaluated split.
        reference: The arm that the others are compared with.
        per_arm: At most so many images per arm.
    """
    base = run.arms.get(reference)
    found: list[Disagreement] = []
    for name, arm in run.arms.items():
        if base is None or name == reference:
            continue
        seen = sorted(_gains(arm, base, split), key=lambda entry: -entry[0])
        # From both ends: only gains, or only losses, would tell half of it.
        order = [seen[i // 2] if i % 2 == 0 else seen[-1 - i // 2] for i in range(len(seen))]
        for gain, own, other in order[:per_arm]:
            found.append(Disagreement(name, *_drawn(run, split, arm, base, gain, own, other)))
    return found


def disagreement_html(found: Sequence[Disagreement], run: Run, reference: str) -> str:
    """The pictures, a row per image, with the map's legend and that of the classes."""
    if not found or run.taxonomy is None:
        return ""
    base = in_sentence(reference)
    key = "".join(f"<li>{swatch(c)}{escape(m)}</li>" for c, m in zip(COLOURS, _meanings(base), strict=True))
    classes = zip(run.taxonomy.names, run.taxonomy.colours, strict=True)
    names = "".join(f"<li>{swatch(colour)}{escape(name)}</li>" for name, colour in classes)
    parts = [
        tag("ul", f"<li><b>who is right</b></li>{key}", class_="legend"),
        tag("ul", f"<li><b>classes</b></li>{names}", class_="legend"),
    ]
    for arm in dict.fromkeys(entry.arm for entry in found):
        parts.append(tag("h3", escape(f"{arm_title(arm)} against {base}")))
        for entry in found:
            if entry.arm == arm:
                parts.append(tag("h4", escape(f"{entry.name}: {points(entry.gain)} points of pixel accuracy")))
                tiles = "".join(tile.html(entry.name) for tile in entry.tiles)
                parts.append(tag("div", tiles, class_="tiles", style=f"--count:{len(entry.tiles)}"))
    return "".join(parts)


def disagreement_sheet(found: Sequence[Disagreement], reference: str) -> bytes:
    """All of it on one PNG file: a block per arm, a row per image."""
    base, blocks = in_sentence(reference), []
    for arm in dict.fromkeys(entry.arm for entry in found):
        rows = [entry for entry in found if entry.arm == arm]
        sheet = Image.open(io.BytesIO(contact_sheet([(entry.name, entry.tiles) for entry in rows])))
        head = Canvas(sheet.width - 16, 12)
        told = ", ".join(f"{entry.name} {points(entry.gain)}" for entry in rows)
        head.text(0, 8, f"{arm_title(arm)} against {base}; points of accuracy: {told}", size=13, bold=True)
        blocks += [Image.open(io.BytesIO(head.png(scale=1))), sheet]
    key = Canvas(blocks[0].width - 16, 16)
    x = 0.0
    for colour, text in zip(COLOURS, _meanings(base), strict=True):
        key.box(x, 2, 12, 12, hex_colour(colour), stroke="faint")
        key.text(x + 18, 8, text, "ink", 12)
        x += 34 + text_width(text, 12)
    blocks.append(Image.open(io.BytesIO(key.png(scale=1))))
    whole = Image.new("RGB", (max(b.width for b in blocks), sum(b.height for b in blocks)), "white")
    y = 0
    for block in blocks:
        whole.paste(block, (0, y))
        y += block.height
    buffer = io.BytesIO()
    whole.save(buffer, "PNG", compress_level=6)
    return buffer.getvalue()


def _gains(arm: Arm, base: Arm, split: str) -> Iterator[tuple[float, int, int]]:
    """(gain of accuracy, place in the arm's samples, place in the reference's) of the images that both kept."""
    own, other = arm.samples.get(split, {}), base.samples.get(split, {})
    places = {str(name): place for place, name in enumerate(other.get("names", ()))}
    for place, name in enumerate(str(name) for name in own.get("names", ())):
        if name not in places:
            continue
        truth, mine = own.get(f"{place}/truth"), own.get(f"{place}/final")
        image, theirs = own.get(f"{place}/image"), other.get(f"{places[name]}/final")
        if truth is None or mine is None or theirs is None or image is None:
            continue
        if truth.ndim != 2 or mine.shape != truth.shape or theirs.shape != truth.shape:
            continue
        if image.ndim != 3 or image.shape[2] < 3:
            continue
        valid = has_class(truth)
        if valid.any():
            gain = float((mine == truth)[valid].mean()) - float((theirs == truth)[valid].mean())
            yield gain, place, places[name]


def _drawn(
    run: Run, split: str, arm: Arm, base: Arm, gain: float, own: int, other: int
) -> tuple[str, float, list[Tile]]:
    arrays = arm.samples[split]
    truth, mine = arrays[f"{own}/truth"], arrays[f"{own}/final"]
    theirs = base.samples[split][f"{other}/final"]
    colours = run.taxonomy.colours if run.taxonomy is not None else ()
    valid = has_class(truth)
    right = who_is_right(mine, theirs, truth)
    shares = [float((right[valid] == kind).mean()) for kind in (ONLY_ARM, ONLY_REFERENCE)]
    height, width = truth.shape
    # The network may see a smaller image than the one that is labelled.
    seen = Image.fromarray(np.ascontiguousarray(arrays[f"{own}/image"][..., :3]))
    photo = seen if seen.size == (width, height) else seen.resize((width, height), Image.Resampling.BILINEAR)
    only = f"{percent(shares[0])} % only the arm, {percent(shares[1])} % only the reference"
    tiles = [
        Tile("image", f"{width} {TIMES} {height}", _small(photo, Image.Resampling.BOX), photo=True),
        Tile("truth", f"{percent(float(valid.mean()))} % labelled", _palette(truth, colours)),
        Tile(arm_title(base.name), _accuracy(theirs, truth), _palette(theirs, colours)),
        Tile(arm_title(arm.name), _accuracy(mine, truth), _palette(mine, colours)),
        Tile("who is right", only, _palette(right, COLOURS)),
    ]
    return str(arrays["names"][own]), gain, tiles


def _meanings(base: str) -> tuple[str, ...]:
    """Of COLOURS, in order."""
    return "only the arm is right", f"only {base} is right", "both are right", "neither is right"


def _accuracy(prediction: NDArray[Any], truth: NDArray[Any]) -> str:
    return f"{percent(float((prediction == truth)[has_class(truth)].mean()))} % right"


def _palette(labels: NDArray[Any], colours: Sequence[Colour]) -> Image.Image:
    """Label map as a small palette picture; IGNORED is transparent."""
    if labels.dtype == np.uint16:
        return _small(coloured(labels, colours), Image.Resampling.NEAREST)
    picture = _small(Image.fromarray(labels.astype(np.uint8)), Image.Resampling.NEAREST).convert("P")
    flat = [value for colour in colours[:IGNORED] for value in colour]
    picture.putpalette(flat + [128] * (768 - len(flat)))
    picture.info["transparency"] = IGNORED
    return picture


def _small(picture: Image.Image, how: Image.Resampling) -> Image.Image:
    if picture.width <= _WIDTH:
        return picture
    return picture.resize((_WIDTH, max(1, round(picture.height * _WIDTH / picture.width))), how)
