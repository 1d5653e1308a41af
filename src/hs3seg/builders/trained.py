"""Networks from weight files that describe themselves."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hs3seg.analysis import SupervisionPlan, no_supervision
from hs3seg.builders.model import example_of, make_supervised, network_size, normalisation
from hs3seg.config import Config, apply_overrides, config_from_dict, without_other_kinds
from hs3seg.engine import load_into, read_weights
from hs3seg.errors import CheckpointError
from hs3seg.export import load_runner
from hs3seg.export.runners import SUFFIXES
from hs3seg.nn import Supervised, supervise
from hs3seg.nn.bridge import BridgedNetwork
from hs3seg.taxonomies.bridge import Bridge
from hs3seg.taxonomy import Taxonomy


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
        path: A weights.safetensors file, or the folder that holds one; or what `hs3 export` wrote.
        overrides: `--section.key value` words laid over the stored config, e.g. another data.root.

    Raises:
        CheckpointError: no such file, truncated, a pickle, or weights of another network.
    """
    if path.suffix in SUFFIXES or (path / "config.json").is_file():
        return _exported(path, overrides)
    if path.is_dir():
        path = path / "weights.safetensors"
    tensors, description = read_weights(path)
    try:
        values, plan_text, names = description["config"], description["plan"], description["taxonomy"]
    except (KeyError, TypeError):
        raise CheckpointError(f"{path}: its description lacks config, plan or taxonomy; train again") from None
    without_other_kinds(values)
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


def _exported(path: Path, overrides: Sequence[str]) -> Trained:
    """An exported file in the place of the network; its stages were left behind."""
    runner = load_runner(path)
    found = runner.description
    if not found.get("taxonomy") or not found.get("mean"):
        raise CheckpointError(
            f"{path}: does not say which classes it has and how its images are normalised; export it with `hs3 export`,"
            " or with description={'taxonomy': ..., 'mean': ..., 'std': ...}"
        )
    values = found.get("config") or {"name": path.stem, "data": {"kind": "folder"}, "augment": {"crop": [256, 256]}}
    without_other_kinds(values)
    apply_overrides(values, overrides)
    config = config_from_dict(values, str(path))
    taxonomy = Taxonomy.from_dict(found["taxonomy"])
    mean, std = torch.tensor(found["mean"]), torch.tensor(found["std"])
    example = torch.zeros(2, len(mean), *network_size(config))
    model = supervise(runner, plan=no_supervision(taxonomy.names), example=example)
    return Trained(model.eval(), taxonomy, mean, std, config, {})


def bridged(trained: Trained, path: Path, target: Taxonomy) -> Trained:
    """The network alone, answering in the classes of another label set.

    Args:
        trained: Knows the bridge's source classes.
        path: Bridge file, see `hs3seg.taxonomies.bridge.Bridge.load`.
        target: Classes of the data.

    Raises:
        DataError: the file does not fit both sides.
    """
    bridge = Bridge.load(path, trained.taxonomy, target)
    net = trained.model.strip()
    network = BridgedNetwork(net, bridge.assignment, target.num_classes).eval()
    example = example_of(trained.config, net)
    model = supervise(network, plan=no_supervision(target.names), example=example).eval()
    return replace(trained, model=model, taxonomy=target)
