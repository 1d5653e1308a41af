"""Data sets, their splits and loaders."""

from collections.abc import Callable
from pathlib import Path

from hs3seg.config import Config, DataConfig
from hs3seg.data import (
    CachedDataset,
    CamVid,
    DigitScenes,
    FolderDataset,
    NYUv2,
    SegmentationDataset,
    Subset,
    TrainingLoader,
    TrainTransform,
    analysis_split,
    infer_taxonomy,
)
from hs3seg.engine import Runtime
from hs3seg.errors import ConfigError
from hs3seg.taxonomy import Taxonomy


def _folder(data: DataConfig, split: str, seed: int) -> SegmentationDataset:
    root = Path(data.root)
    if data.taxonomy:
        taxonomy = Taxonomy.load(Path(data.taxonomy))
    elif (root / "taxonomy.toml").exists():
        taxonomy = Taxonomy.load(root / "taxonomy.toml")
    else:
        taxonomy = infer_taxonomy(root, masks=data.masks)
    return FolderDataset(root, split, taxonomy, images=data.images, masks=data.masks, encoding=data.encoding, seed=seed)


def _camvid(data: DataConfig, split: str, _seed: int) -> SegmentationDataset:
    return CamVid(Path(data.root), split)


def _nyuv2(data: DataConfig, split: str, _seed: int) -> SegmentationDataset:
    return NYUv2(
        Path(data.root),
        split,
        data.depth,
        classes=data.classes or 40,
        labels=data.labels,
        depth_unit=data.depth_unit,
        hha_source=data.hha_source,
        hha_cache=Path(data.hha_cache) if data.hha_cache else None,
    )


def _digits(data: DataConfig, split: str, seed: int) -> SegmentationDataset:
    sizes = dict(zip(("train", "val", "test"), data.num_images, strict=True))
    if split not in sizes:
        raise ConfigError(f"digits has no split '{split}'; allowed: {', '.join(sizes)}")
    return DigitScenes(split, sizes[split], size=data.size, seed=seed)


_DATASETS: dict[str, Callable[[DataConfig, str, int], SegmentationDataset]] = {
    "folder": _folder,
    "camvid": _camvid,
    "nyuv2": _nyuv2,
    "digits": _digits,
}


WITH_DEPTH = ("nyuv2",)  # kinds


def make_dataset(config: Config, split: str) -> SegmentationDataset:
    """A split of the config's data, by the data set's own name of it."""
    data = config.data
    channels_wanted(data)
    if data.kind != "digits":
        if not data.root:
            raise ConfigError(f"data.root is empty; say where the {data.kind} data is: --data.root FOLDER")
        if not Path(data.root).is_dir():
            raise ConfigError(
                f"data.root '{data.root}' is not a folder; give the data set's top folder: --data.root FOLDER"
            )
    dataset = _DATASETS[data.kind](data, split, config.seed)
    return CachedDataset(dataset) if data.cache else dataset


def make_subset(config: Config, train: SegmentationDataset, split: str) -> SegmentationDataset:
    """`reduced` or `analysis`: the two seeded parts of the training split (Sec. 3.1.1)."""
    reduced, analysis = analysis_split(
        len(train), config.data.analysis_fraction, config.seed, config.data.analysis_images
    )
    return Subset(train, {"reduced": reduced, "analysis": analysis}[split], split)


def make_training_loader(config: Config, dataset: SegmentationDataset, runtime: Runtime) -> TrainingLoader:
    """Augmented batches; the same ones for any number of workers and processes."""
    augment = config.augment
    transform = TrainTransform(
        augment.crop,
        resize=augment.resize,
        scale=augment.scale,
        flip=augment.flip,
        color_jitter=augment.color_jitter,
        scale_choices=augment.scale_choices,
        scale_law=augment.scale_law,
        blur=augment.blur,
        ignore_index=dataset.taxonomy.ignore_index,
    )
    batch = config.train.batch_size
    if batch % runtime.world_size:
        raise ConfigError(
            f"train.batch_size = {batch} does not divide among {runtime.world_size} processes; take a multiple"
        )
    return TrainingLoader(
        dataset,
        transform,
        batch,
        config.seed,
        num_workers=config.data.num_workers,
        rank=runtime.rank,
        world_size=runtime.world_size,
    )


def channels_wanted(data: DataConfig) -> int:
    """Channels of the images that the config asks for.

    Raises:
        ConfigError: depth from data that has none.
    """
    if data.depth != "none" and data.kind not in WITH_DEPTH:
        raise ConfigError(
            f"data.depth = '{data.depth}', but {data.kind} data has no depth; set data.depth = 'none'"
            f" (data.kind with depth: {', '.join(WITH_DEPTH)})"
        )
    return 3 + {"none": 0, "raw": 1, "filled": 1, "hha": 3}[data.depth]
