"""Config to objects: the only place that knows both sides.

Plain dictionaries map names to classes; nothing registers itself.
"""

from hs3seg.builders.datasets import make_dataset, make_subset, make_training_loader, make_training_set
from hs3seg.builders.evaluation import make_evaluation_loader, make_protocol
from hs3seg.builders.model import (
    check_loss,
    example_of,
    make_fuse,
    make_loss,
    make_network,
    make_online,
    make_runtime,
    make_stages,
    make_supervised,
    network_options,
    network_size,
    normalisation,
)
from hs3seg.builders.trained import Trained, bridged, describe, load_trained

__all__ = [
    "Trained",
    "bridged",
    "check_loss",
    "describe",
    "example_of",
    "load_trained",
    "make_dataset",
    "make_evaluation_loader",
    "make_fuse",
    "make_loss",
    "make_network",
    "make_online",
    "make_protocol",
    "make_runtime",
    "make_stages",
    "make_subset",
    "make_supervised",
    "make_training_loader",
    "make_training_set",
    "network_options",
    "network_size",
    "normalisation",
]
