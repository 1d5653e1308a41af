"""Network, stages, fusion, loss and runtime."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from hs3seg import networks
from hs3seg.analysis import FusePlan, OnlinePlan, SupervisionPlan
from hs3seg.analysis.online_plan import Order
from hs3seg.config import CityscapesData, Config, DataConfig, NYUv2Data
from hs3seg.data import LabelStatistics
from hs3seg.engine import Runtime
from hs3seg.errors import ConfigError
from hs3seg.nn import (
    HierarchicalLoss,
    InverseFormLoss,
    OnlineLoss,
    Supervised,
    find_stages,
    load_inverse_net,
    make_criteria,
    supervise,
)
from hs3seg.taxonomy import Taxonomy


def make_network(config: Config, taxonomy: Taxonomy) -> nn.Module:
    """The network with initial weights that depend on the seed alone: all arms start from the same ones.

    Raises:
        ConfigError: it takes another number of channels than the data has.
    """
    torch.manual_seed(config.seed)
    settings = config.network
    channels = config.data.channels
    options = network_options(config)
    network = networks.create(settings.name, taxonomy.num_classes, pretrained=settings.pretrained, **options)
    taken = int(getattr(network, "in_channels", 3))
    if taken != channels:
        raise ConfigError(
            f"{_source(config.data)} gives {channels} channels, network '{settings.name}' takes {taken};"
            f" {_remedy(config.data)}"
        )
    return network


def network_options(config: Config) -> dict[str, Any]:
    """What the network is created with, beside its name and classes: the options that are set."""
    settings = config.network
    with_depth = settings.name in networks.names() and "depth_channels" in networks.options_of(settings.name)
    options = {
        "align_corners": settings.align_corners,
        "bn_momentum": settings.bn_momentum,
        "dropout": settings.dropout,
        "mid": settings.mid,
        "key": settings.key,
        "depth_channels": max(1, config.data.channels - 3) if with_depth else None,
    }
    return {name: value for name, value in options.items() if value is not None}


def _source(data: DataConfig) -> str:
    """What decides the number of channels."""
    return (
        f"data.depth = '{data.depth}'"
        if isinstance(data, (NYUv2Data, CityscapesData))
        else f"data.kind = '{data.kind}'"
    )


def _remedy(data: DataConfig) -> str:
    """What to set where data and network do not fit."""
    if not isinstance(data, (NYUv2Data, CityscapesData)):
        return f"{data.kind} data has no depth: set a network for RGB, e.g. network.name = 'hrnet_w18'"
    if data.depth != "none":
        return "set data.depth = 'none', or network.name = 'sagate_resnet101'"
    some = "raw" if isinstance(data, NYUv2Data) else "disparity"
    return f"set data.depth = '{some}', or a network for RGB, e.g. network.name = 'hrnet_w18'"


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


def make_online(config: Config, plan: SupervisionPlan, order: Order | None = None) -> SupervisionPlan:
    """A plan of deep supervision as one of single-phase HS3, with the settings in `[online]` and `[supervision]`."""
    settings, analysis = config.online, config.supervision
    online = OnlinePlan(
        **settings.model_dump() | ({"order": order} if order else {}),
        normalize=analysis.normalize,
        diagonal=analysis.diagonal,
        rule=analysis.rule,
        theta_degrees=analysis.theta_degrees,
        aspect=analysis.aspect,
    )
    return replace(plan, name="online", online=online)


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


def check_loss(config: Config) -> None:
    """Refuses what the loss would pass over.

    Raises:
        ConfigError: label smoothing for a loss that has none.
    """
    if config.loss.label_smoothing and config.loss.kind != "cross_entropy":
        raise ConfigError(
            f"loss.label_smoothing = {config.loss.label_smoothing:g} with loss.kind = '{config.loss.kind}', which has"
            " none; set it to 0, or loss.kind = 'cross_entropy'"
        )


def make_loss(config: Config, model: Supervised, taxonomy: Taxonomy, labels: LabelStatistics) -> HierarchicalLoss:
    """Eq. 1 with the config's per-pixel loss; class weights are recomputed for the groups of each stage.

    The network's own auxiliary outputs have their official weights, in every arm.
    """
    plan = model.plan
    settings = config.loss
    check_loss(config)
    options: dict[str, Any] = {}
    if settings.kind == "ohem":
        options = {"threshold": settings.ohem_threshold, "min_kept": settings.ohem_min_kept}
    elif settings.kind == "cross_entropy":
        options = {"label_smoothing": settings.label_smoothing}

    def criteria(own: SupervisionPlan) -> dict[str, nn.Module]:
        return make_criteria(
            own,
            kind=settings.kind,
            class_weights=settings.class_weights,
            frequencies=labels.frequencies,
            ignore_index=taxonomy.ignore_index,
            auxiliary=model.auxiliary,
            align_corners=model.align_corners,
            **options,
        )

    extra: dict[str, tuple[nn.Module, float]] = {}
    if settings.inverseform:
        term = InverseFormLoss(
            load_inverse_net(Path(settings.inverseform)),
            ignore_index=taxonomy.ignore_index,
            align_corners=model.align_corners,
        )
        extra["inverseform"] = (term, settings.inverseform_weight)
    corners = model.align_corners
    if plan.online is not None:
        return OnlineLoss(plan, taxonomy.ignore_index, criteria, model.auxiliary, extra, corners)
    return HierarchicalLoss(plan, taxonomy.ignore_index, criteria(plan), model.auxiliary, extra, corners)


def make_runtime(config: Config) -> Runtime:
    """Device, precision and processes as the config says."""
    settings = config.train
    return Runtime(settings.precision, settings.channels_last, sync_bn=settings.sync_bn, threads=settings.threads)


def normalisation(network: nn.Module) -> tuple[Tensor, Tensor]:
    """Input mean and standard deviation (C,) of a network, 0..1."""
    return torch.tensor(network.mean, dtype=torch.float32), torch.tensor(network.std, dtype=torch.float32)
