"""Sample images with their truth and the predictions of each stage, small enough to live inside the page."""

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from hs3seg.analysis import SupervisionPlan
from hs3seg.report.canvas import Canvas
from hs3seg.report.groups import group_colours
from hs3seg.report.load import Arm, Run
from hs3seg.report.markup import TIMES, arm_title, data_uri, escape, percent, swatch, tag
from hs3seg.taxonomy import Colour, Grouping, Taxonomy

IGNORED, IGNORED_OF_16_BITS = 255, 65535
"""Label of pixels without a class in samples-SPLIT.npz, whatever the data set's own ignore label is."""
_LIMIT, _WIDTH = 6, 320  # pictures per split, and their largest width in pixels


@dataclass(frozen=True)
class Tile:
    """One picture of a sample.

    Args:
        title: Above it.
        note: Below it.
        image: RGB(A) picture, already small.
        photo: Stored lossy; label maps are not.
    """

    title: str
    note: str
    image: Image.Image
    photo: bool = False

    def html(self, name: str) -> str:
        """A `<figure>` with the picture inside."""
        buffer = io.BytesIO()
        if self.photo:
            self.image.save(buffer, "WEBP", quality=78, method=2)
        else:
            self.image.save(buffer, "PNG", compress_level=7)
        width, height = self.image.size
        source = data_uri(buffer.getvalue(), "webp" if self.photo else "png")
        words = f"{escape(name)}: {escape(self.title)}"
        return (
            f'<figure class="tile"><img src="{source}" width="{width}" height="{height}" alt="{words}">'
            f"<figcaption>{escape(self.title)}<small>{escape(self.note)}</small></figcaption></figure>"
        )


def shown_arm(run: Run, split: str) -> Arm | None:
    """The arm whose stages are shown: HS3, else the last one that has samples and stages, else any with samples."""
    arms = [arm for arm in run.arms.values() if arm.samples.get(split)]
    staged = [arm for arm in arms if arm.plan is not None and arm.plan.stages]
    candidates = [arm for arm in arms if arm.name == "hs3"] or staged or arms
    return candidates[-1] if candidates else None


def sample_tiles(run: Run, split: str) -> Iterator[tuple[str, list[Tile]]]:
    """Yields (name, tiles) of the samples of a split: image, truth, every arm's output, the shown arm's stages."""
    main = shown_arm(run, split)
    if main is None or run.taxonomy is None:
        return
    arrays = main.samples[split]
    names = [str(name) for name in arrays.get("names", ())]
    for i, name in enumerate(names[:_LIMIT]):
        image, truth = arrays.get(f"{i}/image"), arrays.get(f"{i}/truth")
        if image is None or truth is None or truth.ndim != 2 or image.ndim != 3:
            continue
        image = image[..., :3]  # RGB, whatever channels follow
        if image.shape != (*truth.shape, 3):
            continue
        tiles = [
            Tile("image", f"{image.shape[1]} {TIMES} {image.shape[0]}", _small(Image.fromarray(image)), photo=True)
        ]
        labelled = float(has_class(truth).mean())
        tiles.append(Tile("truth", f"{percent(labelled)} % labelled", _labels(truth, run.taxonomy.colours)))
        for arm in (*(a for a in run.arms.values() if a is not main), main):
            other = arm.samples.get(split, {})
            place = next((j for j, n in enumerate(other.get("names", ())) if str(n) == name), None)
            prediction = other.get(f"{place}/final")
            if arm is main:
                tiles += _stages(run, main, main.plan, arrays, i, truth)
            if prediction is not None and prediction.shape == truth.shape:
                title = f"{arm_title(arm.name)}, final"
                tiles.append(Tile(title, _right(prediction, truth), _labels(prediction, run.taxonomy.colours)))
        yield name, tiles


def has_class(truth: NDArray[Any]) -> NDArray[np.bool_]:
    """(H, W) whether a pixel has a class; samples of more than 255 classes have 16 bits, and another ignore label."""
    return np.asarray(truth != _ignored(truth))


def coloured(labels: NDArray[Any], colours: Sequence[Colour]) -> Image.Image:
    """Label map (H, W) of more classes than a palette holds as an RGBA picture; ignored pixels are transparent."""
    table = np.full((IGNORED_OF_16_BITS + 1, 4), (128, 128, 128, 255), np.uint8)
    table[: len(colours), :3] = np.reshape(colours, (-1, 3))
    table[-1] = 0
    return Image.fromarray(table[labels])


def legend(taxonomy: Taxonomy, run: Run, split: str) -> str:
    """Class colours, and per stage the colours of its groups."""
    classes = "".join(f"<li>{swatch(c)}{escape(n)}</li>" for n, c in zip(taxonomy.names, taxonomy.colours, strict=True))
    lines = [tag("ul", f"<li><b>classes</b></li>{classes}", class_="legend")]
    main = shown_arm(run, split)
    for stage in main.plan.stages if main is not None and main.plan is not None else ():
        if stage.grouping.is_identity:
            continue
        pairs = zip(stage.grouping.group_names(taxonomy.names), group_colours(run, taxonomy, stage), strict=True)
        groups = "".join(f"<li>{swatch(colour)}{escape(name)}</li>" for name, colour in pairs)
        lines.append(tag("ul", f"<li><b>{escape(stage.stage)}</b></li>{groups}", class_="legend"))
    return "".join(lines)


def contact_sheet(samples: Sequence[tuple[str, list[Tile]]]) -> bytes:
    """All tiles of a split on one PNG: a row per sample."""
    width = max(tile.image.width for _, tiles in samples for tile in tiles)
    heights = [max(tile.image.height for tile in tiles) for _, tiles in samples]
    columns = max(len(tiles) for _, tiles in samples)
    sheet = Image.new("RGB", (columns * (width + 6) + 6, sum(heights) + 6 * len(heights) + 26), "white")
    head = Canvas(sheet.width - 16, 24)
    for column, tile in enumerate(samples[0][1]):
        head.text(column * (width + 6) + width / 2 - 2, 6, tile.title, size=12, anchor="middle")
    sheet.paste(Image.open(io.BytesIO(head.png(scale=1))), (0, 0))
    y = 26
    for (_, tiles), height in zip(samples, heights, strict=True):
        for column, tile in enumerate(tiles):
            picture = tile.image.convert("RGBA")
            sheet.paste(picture, (6 + column * (width + 6), y), picture)
        y += height + 6
    buffer = io.BytesIO()
    sheet.save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def _stages(
    run: Run, arm: Arm, plan: SupervisionPlan | None, arrays: dict[str, NDArray[Any]], number: int, truth: NDArray[Any]
) -> Iterator[Tile]:
    if plan is None or run.taxonomy is None:
        return
    for stage in plan.stages:
        prediction = arrays.get(f"{number}/{stage.stage}")
        if prediction is None or prediction.shape != truth.shape:
            continue
        colours = group_colours(run, run.taxonomy, stage)
        note = _right(prediction, _grouped(truth, stage.grouping))
        title = f"{arm_title(arm.name)}, {stage.stage} ({stage.grouping.num_groups} groups)"
        yield Tile(title, note, _labels(prediction, colours))


def _grouped(truth: NDArray[Any], grouping: Grouping) -> NDArray[Any]:
    ignored = _ignored(truth)
    table = np.full(ignored + 1, ignored, np.min_scalar_type(ignored))
    table[: grouping.num_classes] = grouping.assignment
    return np.asarray(table[truth])


def _ignored(labels: NDArray[Any]) -> int:
    return IGNORED_OF_16_BITS if labels.dtype == np.uint16 else IGNORED


def _right(prediction: NDArray[Any], truth: NDArray[Any]) -> str:
    valid = has_class(truth)
    return f"{percent(float((prediction == truth)[valid].mean()))} % right" if valid.any() else "nothing labelled"


def _labels(labels: NDArray[Any], colours: Sequence[Colour]) -> Image.Image:
    """Label map as a palette picture; pixels without a class are transparent."""
    if labels.dtype == np.uint16:
        return _small(coloured(labels, colours), Image.Resampling.NEAREST)
    picture = Image.fromarray(labels.astype(np.uint8)).convert("L")
    picture = _small(picture, Image.Resampling.NEAREST)
    palette = picture.convert("P")
    flat = [value for colour in colours[:255] for value in colour]
    palette.putpalette(flat + [128] * (768 - len(flat)))
    palette.info["transparency"] = IGNORED
    return palette


def _small(picture: Image.Image, how: Image.Resampling = Image.Resampling.BOX) -> Image.Image:
    """At most `_WIDTH` wide."""
    if picture.width <= _WIDTH:
        return picture
    return picture.resize((_WIDTH, max(1, round(picture.height * _WIDTH / picture.width))), how)
