"""Commands beside the run: one training, cost of networks, the check of a data set."""

import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

import torch

from hs3seg import networks
from hs3seg.analysis import SupervisionPlan, deep_supervision, no_supervision
from hs3seg.builders import make_dataset, make_network, make_stages
from hs3seg.config import Config
from hs3seg.errors import NetworkError
from hs3seg.nn import count_cost, count_outputs, count_parts, find_stages
from hs3seg.pipeline.steps import Session, profile_step, train_step


def train_command(session: Session, out: Path, *, arm: str, plan: str | None, split: str) -> dict[str, Any]:
    """Trains one network by a plan file or as a baseline; `split` may be `reduced` (Sec. 3.1.1)."""
    config = session.config
    taxonomy = session.dataset("train").taxonomy
    if plan is not None:
        chosen, arm = SupervisionPlan.load(Path(plan)), "plan"
    elif arm == "none":
        chosen = no_supervision(taxonomy.names)
    else:
        stages = make_stages(config, make_network(config, taxonomy))
        chosen = deep_supervision(taxonomy.names, stages, config.supervision.gamma)
    began = time.monotonic()
    train_step(session, chosen, out, arm=arm, split=split)
    return {"weights": str(out / "weights.safetensors"), "seconds": round(time.monotonic() - began, 1)}


def profile_network(
    name: str,
    num_classes: int,
    size: tuple[int, int],
    *,
    fuse: Sequence[int] = (),
    widths: tuple[int, int] | None = None,
    gmacs: float | None = None,
) -> dict[str, Any]:
    """Exact multiply-accumulates and parameters of a network at inference, for one image, in total and per part.

    Args:
        name: Of a network.
        num_classes: K.
        size: Height and width.
        fuse: HS3-Fuse with these numbers of groups, shallow to deep, on the network's stages.
        widths: Mid and key channels of the (final) OCR block.
        gmacs: With fuse, instead of widths: the budget to come nearest to.

    Returns:
        `conv_macs`, `matmul_macs`, `parameters` and the same per part. SA-Gate is counted with its auxiliary head, as
        its code runs and published figures have it; `conv_macs_forward` is then what this package runs at inference.
    """
    options: dict[str, Any] = {} if widths is None or fuse else {"mid": widths[0], "key": widths[1]}
    with torch.device("meta"):  # nothing is computed: a network of 100 million parameters needs no memory
        network = networks.create(name, num_classes, **options)
        if fuse:
            stages = find_stages(network, torch.zeros(1, cast("Any", network).in_channels, 128, 128))
            if len(stages) != len(fuse):
                raise NetworkError(
                    f"--fuse {','.join(map(str, fuse))} gives {len(fuse)} numbers of groups; '{name}' has the stages"
                    f" {', '.join(stages)}"
                )
            mid, key = widths or (None, None)
            groups = dict(zip(stages, fuse, strict=True))
            network = networks.fuse(network, groups, mid=mid, key=key, gmacs=gmacs, size=size)
    shape = (1, int(cast("Any", network).in_channels), *size)
    cost = forward = count_cost(network, shape)
    if getattr(network, "counted_with_auxiliary", False):
        cost = count_outputs(network, shape)
    parts = count_parts(network, shape, inside=("backbone", "net", "blocks"))
    return {
        "network": name,
        "num_classes": num_classes,
        "input_size": list(size),
        **({"fuse": list(fuse), "widths": list(cast("Any", network).widths)} if fuse else {}),
        "conv_macs": cost.conv_macs,
        "matmul_macs": cost.matmul_macs,
        "parameters": cost.parameters,
        **({"conv_macs_forward": forward.conv_macs} if forward != cost else {}),
        "parts": {part: asdict(value) for part, value in parts.items()},
    }


def list_networks(num_classes: int = 19, size: tuple[int, int] = (1024, 2048)) -> dict[str, Any]:
    """Every network with its cost and where it comes from."""
    rows = []
    for name, entry in networks.NETWORKS.items():
        found = profile_network(name, num_classes, size)
        cost = {key: found[key] for key in ("conv_macs", "matmul_macs", "parameters")}
        rows.append({"name": name, **cost, "options": list(networks.options_of(name)), "source": entry.source})
    return {"num_classes": num_classes, "input_size": list(size), "networks": rows}


def profile_config(config: Config) -> dict[str, Any]:
    """Cost of a config's network at inference, and with the heads of deep supervision in training."""
    taxonomy = make_dataset(config, config.data.train_split).taxonomy
    stages = make_stages(config, make_network(config, taxonomy))
    plans = {
        "none": no_supervision(taxonomy.names),
        "deep_supervision": deep_supervision(taxonomy.names, stages, config.supervision.gamma),
    }
    return profile_step(config, taxonomy, plans)
