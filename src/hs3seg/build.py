"""Config to objects: the only place that knows both sides.

Plain dictionaries map names to classes; nothing registers itself.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from hs3seg import networks
from hs3seg.analysis import FusePlan, SupervisionPlan
from hs3seg.config import Config, DataConfig, apply_overrides, config_from_dict
from hs3seg.data import (
    CachedDataset,
    CamVid,
    DigitScenes,
    EvaluationLoader,
    EvaluationTransform,
    FolderDataset,
    LabelStatistics,
    NYUv2,
    SegmentationDataset,
    Subset,
    TrainingLoader,
    TrainTransform,
    analysis_split,
    infer_taxonomy,
)
from hs3seg.engine import Runtime, load_into, read_weights
from hs3seg.errors import CheckpointError, ConfigError
from hs3seg.nn import (
    HierarchicalLoss,
    InverseFormLoss,
    Supervised,
    find_stages,
    load_inverse_net,
    make_criteria,
    supervise,
)
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
    return NYUv2(Path(data.root), split, depth=data.depth)


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


_WITH_DEPTH = ("nyuv2",)  # kinds


def make_dataset(config: Config, split: str) -> SegmentationDataset:
    """A split of the config's data, by the data set's own name of it."""
    data = config.data
    _channels(data)
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
    reduced, analysis = analysis_split(len(train), config.data.analysis_fraction, config.seed)
    return Subset(train, {"reduced": reduced, "analysis": analysis}[split], split)


def make_network(config: Config, taxonomy: Taxonomy) -> nn.Module:
    """The network with initial weights that depend on the seed alone: all arms start from the same ones.

    Raises:
        ConfigError: it takes another number of channels than the data has.
    """
    torch.manual_seed(config.seed)
    settings = config.network
    channels = _channels(config.data)
    with_depth = settings.name in networks.names() and "depth_channels" in networks.options_of(settings.name)
    network = networks.create(
        settings.name,
        taxonomy.num_classes,
        pretrained=settings.pretrained,
        align_corners=settings.align_corners,
        bn_momentum=settings.bn_momentum,
        dropout=settings.dropout,
        mid=settings.mid,
        key=settings.key,
        depth_channels=max(1, channels - 3) if with_depth else None,
    )
    taken = int(getattr(network, "in_channels", 3))
    if taken != channels:
        raise ConfigError(
            f"data.depth = '{config.data.depth}' gives {channels} channels, network '{settings.name}' takes {taken};"
            f" {_remedy(config.data)}"
        )
    return network


def _channels(data: DataConfig) -> int:
    """Channels of the data's images."""
    if data.depth != "none" and data.kind not in _WITH_DEPTH:
        raise ConfigError(
            f"data.depth = '{data.depth}', but {data.kind} data has no depth; set data.depth = 'none'"
            f" (data.kind with depth: {', '.join(_WITH_DEPTH)})"
        )
    return {"none": 3, "raw": 4}[data.depth]


def _remedy(data: DataConfig) -> str:
    """What to set where data and network do not fit."""
    if data.depth != "none":
        return "set data.depth = 'none', or network.name = 'sagate_resnet101'"
    if data.kind in _WITH_DEPTH:
        return "set data.depth = 'raw', or a network for RGB, e.g. network.name = 'hrnet_w18'"
    return f"{data.kind} data has no depth: set a network for RGB, e.g. network.name = 'hrnet_w18'"


def make_stages(config: Config, network: nn.Module) -> tuple[str, ...]:
    """Names of the supervised stages, shallow to deep."""
    return find_stages(network, example_of(config, network), config.supervision.stages)


def make_fuse(config: Config, plan: SupervisionPlan, taxonomy: Taxonomy) -> SupervisionPlan:
    """The plan with the widths of HS3-Fuse, chosen or found for the budget in `[fuse]`."""
    settings = config.fuse
    network = networks.fuse(
        make_network(config, taxonomy),
        plan,
        mid=settings.mid,
        key=settings.key,
        gmacs=settings.gmacs,
        size=network_size(config),
    )
    mid, key = network.widths
    return replace(plan, name=f"{plan.name}, fused", fuse=FusePlan(mid, key))


def example_of(config: Config, network: nn.Module) -> Tensor:
    """An image (1, channels, H, W) of zeros, of the size at which the network is examined."""
    return torch.zeros(1, getattr(network, "in_channels", 3), *network_size(config))


def network_size(config: Config) -> tuple[int, int]:
    """Height and width at which the network is examined: the resize, else the training crop."""
    return config.augment.resize or config.augment.crop


def make_supervised(config: Config, plan: SupervisionPlan, taxonomy: Taxonomy) -> Supervised:
    """The network with one head per stage of the plan, or fused where the plan says so."""
    plan.check(taxonomy.names)
    network = make_network(config, taxonomy)
    example = example_of(config, network)
    if plan.fuse is not None:
        network = networks.fuse(network, plan, mid=plan.fuse.mid, key=plan.fuse.key)
    return supervise(network, plan=plan, example=example)


def make_loss(config: Config, model: Supervised, taxonomy: Taxonomy, labels: LabelStatistics) -> HierarchicalLoss:
    """Eq. 1 with the config's per-pixel loss; class weights are recomputed for the groups of each stage.

    The network's own auxiliary outputs have their official weights, in every arm.
    """
    plan = model.plan
    settings = config.loss
    options: dict[str, Any] = {}
    if settings.kind == "ohem":
        options = {"threshold": settings.ohem_threshold, "min_kept": settings.ohem_min_kept}
    elif settings.kind == "cross_entropy":
        options = {"label_smoothing": settings.label_smoothing}
    criteria = make_criteria(
        plan,
        kind=settings.kind,
        class_weights=settings.class_weights,
        frequencies=labels.frequencies,
        auxiliary=model.auxiliary,
        **options,
    )
    extra: dict[str, tuple[nn.Module, float]] = {}
    if settings.inverseform:
        term = InverseFormLoss(load_inverse_net(Path(settings.inverseform)), ignore_index=taxonomy.ignore_index)
        extra["inverseform"] = (term, settings.inverseform_weight)
    return HierarchicalLoss(
        plan, ignore_index=taxonomy.ignore_index, criteria=criteria, auxiliary=model.auxiliary, extra=extra
    )


def make_training_loader(config: Config, dataset: SegmentationDataset, runtime: Runtime) -> TrainingLoader:
    """Augmented batches; the same ones for any number of workers and processes."""
    augment = config.augment
    transform = TrainTransform(
        augment.crop,
        resize=augment.resize,
        scale=augment.scale,
        flip=augment.flip,
        color_jitter=augment.color_jitter,
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


def make_evaluation_loader(config: Config, dataset: SegmentationDataset, runtime: Runtime) -> EvaluationLoader:
    """Whole images at the network's size, masks at label resolution."""
    return EvaluationLoader(
        dataset,
        EvaluationTransform(config.augment.resize),
        config.evaluation.batch_size,
        num_workers=config.data.num_workers,
        rank=runtime.rank,
        world_size=runtime.world_size,
    )


def make_runtime(config: Config) -> Runtime:
    """Device, precision and processes as the config says."""
    settings = config.train
    return Runtime(settings.precision, settings.channels_last, sync_bn=settings.sync_bn, threads=settings.threads)


@dataclass(frozen=True)
class Trained:
    """A network that came out of a training, with what is needed to use it."""

    model: Supervised
    taxonomy: Taxonomy
    mean: Tensor
    std: Tensor
    config: Config
    identity: dict[str, Any]


def describe(config: Config, plan: SupervisionPlan, taxonomy: Taxonomy, identity: dict[str, Any]) -> dict[str, Any]:
    """What a weight file says about itself, so that it can be used without its run folder."""
    return {
        # Where the run lies says nothing about its weights: equal trainings shall give equal files.
        "config": config.model_dump(mode="json") | {"run_dir": ""},
        "plan": plan.to_toml(),
        "taxonomy": taxonomy.to_dict(),
        "identity": identity,
    }


def load_trained(path: Path, overrides: Sequence[str] = ()) -> Trained:
    """Builds the network that a weight file describes and fills it.

    Args:
        path: A weights.safetensors file, or the folder that holds one.
        overrides: `--section.key value` words laid over the stored config, e.g. another data.root.

    Raises:
        CheckpointError: no such file, truncated, a pickle, or weights of another network.
    """
    if path.is_dir():
        path = path / "weights.safetensors"
    tensors, description = read_weights(path)
    try:
        values, plan_text, names = description["config"], description["plan"], description["taxonomy"]
    except (KeyError, TypeError):
        raise CheckpointError(f"{path}: its description lacks config, plan or taxonomy; train again") from None
    apply_overrides(values, overrides)
    # The file holds all weights: the pretrained ones are not needed again.
    values["network"]["pretrained"] = False
    config = config_from_dict(values, str(path))
    taxonomy = Taxonomy.from_dict(names)
    plan = SupervisionPlan.from_toml(plan_text, str(path))
    model = make_supervised(config, plan, taxonomy)
    load_into(model, tensors, str(path))
    mean, std = normalisation(model.net)
    return Trained(model.eval(), taxonomy, mean, std, config, dict(description.get("identity", {})))


def normalisation(network: nn.Module) -> tuple[Tensor, Tensor]:
    """Input mean and standard deviation (C,) of a network, 0..1."""
    return torch.tensor(network.mean, dtype=torch.float32), torch.tensor(network.std, dtype=torch.float32)
