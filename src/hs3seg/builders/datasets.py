"""Data sets, their splits and loaders."""

import hashlib
from pathlib import Path

from hs3seg.config import (
    Ade20kData,
    CamVidData,
    CityscapesData,
    CocoData,
    Config,
    DataConfig,
    DigitsData,
    FolderData,
    HuggingFaceData,
    NYUv2Data,
    PlantedData,
    VocData,
)
from hs3seg.data import (
    ADE20K,
    CachedDataset,
    CamVid,
    Cityscapes,
    Coco,
    DigitScenes,
    DiskCache,
    FolderDataset,
    HuggingFace,
    NYUv2,
    PascalVOC,
    PlantedScenes,
    SegmentationDataset,
    Subset,
    TrainingLoader,
    TrainTransform,
    analysis_split,
    drawn,
    taxonomy_of_folder,
)
from hs3seg.data.loader import Order
from hs3seg.engine import Runtime
from hs3seg.errors import ConfigError
from hs3seg.taxonomies.voc import VOC
from hs3seg.taxonomy import Taxonomy


def _open(data: DataConfig, split: str, seed: int) -> SegmentationDataset:
    root = Path(data.root)
    match data:
        case FolderData():
            return FolderDataset(root, split, folder_taxonomy(data), seed=seed, **data.reading)
        case CamVidData():
            return CamVid(root, split, data.classes, data.layout)
        case NYUv2Data():
            return NYUv2(
                root,
                split,
                data.depth,
                classes=data.classes or 40,
                labels=data.labels,
                depth_unit=data.depth_unit,
                hha_source=data.hha_source,
                hha_cache=Path(data.hha_cache) if data.hha_cache else None,
            )
        case CityscapesData():
            return Cityscapes(
                root,
                split,
                labels=data.labels,
                cv=data.cv,
                depth=data.depth,
                coarse_threshold=data.coarse_threshold,
                coarse_classes=data.coarse_classes,
                coarse_cut_border=data.coarse_cut_border,
            )
        case CocoData():
            return Coco(
                root,
                split,
                labels=data.labels,
                annotations=data.annotations,
                images=data.images,
                background=data.background,
            )
        case VocData():
            return PascalVOC(
                root, split, masks=data.masks, taxonomy=Taxonomy.load(Path(data.taxonomy)) if data.taxonomy else VOC
            )
        case Ade20kData():
            return ADE20K(root, split)
        case HuggingFaceData():
            return HuggingFace(
                data.source,
                split,
                Taxonomy.load(Path(data.taxonomy)),
                image=data.image_column,
                mask=data.mask_column,
                name=data.name_column,
                subset=data.subset,
                revision=data.revision,
                first_id=data.first_id,
                stream_samples=data.stream_samples,
                cache=Path(data.download_folder) if data.download_folder else None,
            )
        case DigitsData() | PlantedData():
            sizes = dict(zip(("train", "val", "test"), data.num_images, strict=True))
            if split not in sizes:
                raise ConfigError(f"{data.kind} has no split '{split}'; allowed: {', '.join(sizes)}")
            if isinstance(data, DigitsData):
                return DigitScenes(split, sizes[split], size=data.size, seed=seed)
            return PlantedScenes(split, sizes[split], data.size, seed, num_shapes=data.shapes, mixed=data.mixed)


def folder_taxonomy(data: FolderData) -> Taxonomy:
    """Classes of a folder: the file that the config names, ROOT/taxonomy.toml, or what the masks show.

    Raises:
        DataError: a file that cannot be used, or masks that do not tell.
    """
    return taxonomy_of_folder(Path(data.root), data.taxonomy, data.masks, data.mask_pattern)


def make_dataset(config: Config, split: str) -> SegmentationDataset:
    """A split of the config's data, by the data set's own name of it."""
    data = config.data
    if data.kind not in ("digits", "planted", "huggingface"):  # these have no root
        if not data.root:
            raise ConfigError(f"data.root is empty; say where the {data.kind} data is: --data.root FOLDER")
        if not Path(data.root).is_dir():
            raise ConfigError(
                f"data.root '{data.root}' is not a folder; give the data set's top folder: --data.root FOLDER"
            )
    dataset = _open(data, split, config.seed)
    if data.disk_cache:
        # Which images a split has may hang on the seed, and what made-up images show does.
        key = f"{data.options} seed {config.seed}" if data.kind in ("digits", "planted") else data.options
        depends = repr((key, tuple(dataset.names))).encode()
        name = f"{data.kind}-{split}-{hashlib.sha256(depends).hexdigest()[:8]}"
        dataset = DiskCache(dataset, Path(data.disk_cache) / name, max_gib=data.disk_cache_gib, key=key)
    return CachedDataset(dataset) if data.cache else dataset


def make_training_set(config: Config, split: SegmentationDataset) -> SegmentationDataset:
    """What the config trains on: its training split, or the images drawn from it.

    Raises:
        DataError: more images asked for than there are.
    """
    wanted = config.data.train_images
    return split if wanted is None else Subset(split, drawn(len(split), wanted, config.seed), split.split)


def make_subset(config: Config, train: SegmentationDataset, split: str) -> SegmentationDataset:
    """`reduced` or `analysis`: the two seeded parts of the training split (Sec. 3.1.1)."""
    reduced, analysis = analysis_split(
        len(train), config.data.analysis_fraction, config.seed, config.data.analysis_images
    )
    return Subset(train, {"reduced": reduced, "analysis": analysis}[split], split)


def make_training_loader(
    config: Config, dataset: SegmentationDataset, runtime: Runtime, order: Order | None = None
) -> TrainingLoader:
    """Augmented batches; the same ones for any number of workers and processes; `order` as in `TrainingLoader`."""
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
        order=order,
    )
