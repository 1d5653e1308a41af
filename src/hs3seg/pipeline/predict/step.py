"""The step: every input through the network, whatever fails named at the end."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from hs3seg.builders import load_trained, make_protocol, make_runtime
from hs3seg.engine import Reporter, forward_by
from hs3seg.engine.tiles import Tiling
from hs3seg.errors import ConfigError, DataError, NetworkError
from hs3seg.pipeline.predict.depth import DepthFolder
from hs3seg.pipeline.predict.inputs import Item, find_items
from hs3seg.pipeline.predict.outputs import Outputs
from hs3seg.pipeline.predict.predictor import Done, Predictor
from hs3seg.pipeline.predict.segment import Protocol, Segmenter


def predict_step(
    weights: Path,
    inputs: Sequence[Path | str],
    out: Path,
    *,
    output: str | Sequence[str] = ("palette",),
    batch_size: int = 1,
    tile: tuple[int, int] | None = None,
    overlap: int | None = None,
    memory_gib: float = 4.0,
    depth: Path | None = None,
    ids: Sequence[int] | None = None,
    skip_existing: bool = False,
    protocol: Protocol | None = None,
    overrides: Sequence[str] = (),
) -> dict[str, Any]:
    """Segments image and video files.

    Of an image NAME (H x W, K classes): `palette` NAME.png, class ids with the class colours as palette; `index`
    NAME-index.png, plain labels of 8 or, above 255, 16 bits; `colour` NAME-colour.png; `overlay` NAME-overlay.png, half
    colour and half image; `probability` NAME-probability.npz, `probabilities` (K, H, W) float16 and `names` (K,), and
    NAME-confidence.png, the largest probability as 0..255. `both` = palette and overlay. Of a video, `colour` and
    `overlay` are NAME-colour.mp4 and NAME-overlay.mp4 without sound, all else is NAME/000000.png and so on, one per
    frame from 0.

    Memory: an image whose estimated need is above `memory_gib` is cut into overlapping tiles whose blended scores are
    held for one strip of rows. What then grows with the image's height is 3 + 9 bytes per pixel (image, ids, one
    picture to be written), or 11 while Pillow decodes it, which it does whole; an image for which that is too much is
    reported as failed. Weights and libraries are not counted, nor waiting images of together 2**24 pixels.

    Args:
        weights: Weight file, or its folder; the heads in it are dropped.
        inputs: Files, folders, or patterns such as `photos/**/*.jpg`.
        out: Folder of the results.
        output: One or several of `OUTPUTS`, also as one text with commas.
        batch_size: Images of one size, or frames, at once; fewer where the memory is short.
        tile: Height and width in pixels of the image as the network sees it: every image that is larger is cut, and
            `memory_gib` is not looked at. None = as the memory asks for.
        overlap: Of tiles, in pixels; None = 128, or a quarter of a small tile.
        memory_gib: Bound of the working memory.
        depth: Folder of depth files, or of HHA images for a network of six channels, each with its image's stem and in
            the same place below it, or in it. 8 bits are the fourth channel itself; others mean what the config of the
            training says: disparities of Cityscapes, `data.depth_unit` of NYU-Depth-v2 (also as an override).
        ids: Value of every class in `index` files, e.g. the label ids of Cityscapes; None = class ids.
        skip_existing: Leave out what has its results already, e.g. of an interrupted prediction.
        protocol: Makes another forward pass of the network; None = by the config's `[evaluation]`: its scales, mirrored
            looks and sliding window, so that predictions are those of `hs3 evaluate`.
        overrides: `--section.key value` words laid over the stored config, e.g. `--augment.resize none`.

    Returns:
        `num_images`, `num_videos`, `num_frames`, `num_skipped` (inputs and frames), `files` (of videos the folder of
        frames), `tiled` (per cut image `file`, `tile`, `overlap`, `need_gib`), `failed` (`file` and `error`), and
        `exit_code`: 2 where something failed.

    Raises:
        ConfigError: an option is unknown or out of range.
        DataError: an input does not exist, none is found, results would overwrite each other or an input, or the unit
            of depth files cannot be found out.
        NetworkError: depth is missing, or the network takes none.
    """
    _check_options(batch_size, memory_gib)
    tiling = None if tile is None else Tiling.of(tile, overlap)
    if tiling is None and overlap is not None:
        raise ConfigError(f"overlap {overlap} is given without a tile; give both, e.g. tile 1024x1024")
    trained = load_trained(weights, overrides)
    outputs = Outputs(out, output, trained.taxonomy, ids)
    items = find_items(inputs, out, outputs.results)
    channels = len(trained.mean)
    _check_depth(weights, trained.config.network.name, channels, depth, items)
    further = None if depth is None else DepthFolder(depth, channels, trained.config.data, items)
    runtime = make_runtime(trained.config)
    segmenter = Segmenter(
        trained,
        runtime,
        batch_size=batch_size,
        tiling=tiling,
        memory_bytes=int(memory_gib * 2**30),
        protocol=protocol or forward_by(make_protocol(trained.config.evaluation)),
    )
    reporter = Reporter(enabled=runtime.is_main)
    if further is not None and further.note:
        reporter.say(further.note)
    done = Done()
    own = items[runtime.rank :: runtime.world_size]
    predictor = Predictor(segmenter, outputs, done, batch_size, further, skip_existing)
    with torch.inference_mode():
        predictor.run(own, reporter)
    return _gathered(runtime.gather([done]), reporter)


def _check_options(batch_size: int, memory_gib: float) -> None:
    if batch_size < 1:
        raise ConfigError(f"batch size {batch_size}; must be at least 1")
    if not memory_gib > 0:
        raise ConfigError(f"memory_gib = {memory_gib}; give the GiB that the working memory may take, e.g. 4")


def _check_depth(weights: Path, name: str, channels: int, depth: Path | None, items: Sequence[Item]) -> None:
    if channels == 3:
        if depth is not None:
            raise NetworkError(f"{weights}: '{name}' takes RGB images only; leave --depth away")
        return
    if depth is None:
        raise NetworkError(
            f"{weights}: '{name}' takes {channels} channels, an image file has 3; RGB-D prediction needs a data set:"
            f" hs3 evaluate {weights} --split SPLIT, or the depth of each image: --depth FOLDER"
        )
    if not depth.is_dir():
        raise DataError(f"depth folder '{depth}' does not exist; it holds a depth image of equal stem for each image")
    video = next((item.path for item in items if item.is_video), None)
    if video is not None:
        raise NetworkError(f"{video}: a video has no depth, which '{name}' needs; give images")


def _gathered(parts: Sequence[Done], reporter: Reporter) -> dict[str, Any]:
    """The result of all processes; failures are said."""
    counts = {
        key: sum(getattr(part, key) for part in parts)
        for key in ("num_images", "num_videos", "num_frames", "num_skipped")
    }
    tiled, failed = ([entry for part in parts for entry in getattr(part, key)] for key in ("tiled", "failed"))
    if tiled:
        height, width = tiled[0]["tile"]
        reporter.say(
            f"{len(tiled)} inputs were cut into tiles, '{tiled[0]['file']}' into {height}x{width} with an overlap of"
            f" {tiled[0]['overlap']}"
        )
    if failed:
        reporter.say(f"{len(failed)} inputs could not be segmented, the others are done:")
        for entry in failed:
            reporter.say(f"  {entry['error']}")
    return {
        **counts,
        "files": [file for part in parts for file in part.files],
        "tiled": tiled,
        "failed": failed,
        "exit_code": 2 if failed else 0,
    }
