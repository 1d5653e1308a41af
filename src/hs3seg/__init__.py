"""hs3seg: hierarchically supervised semantic segmentation (HS3, Borse et al., BMVC 2021).

Early stages of a network are supervised with groups of the classes that they can tell apart; at inference nothing of it
is left. Names are loaded when they are first used, so that `import hs3seg` costs nothing and needs no torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hs3seg.analysis import (
        Study,
        SupervisionPlan,
        analyze,
        class_affinity,
        cluster_classes,
        confusion_matrix,
        deep_supervision,
        iou_per_class,
        mean_iou,
        single_phase,
        tradeoff_curve,
    )
    from hs3seg.networks import FusedSegmenter, fuse
    from hs3seg.nn import (
        ConfusionRecorder,
        CrossEntropy,
        HierarchicalLoss,
        Ohem,
        OnlineLoss,
        Supervised,
        find_stages,
        supervise,
    )
    from hs3seg.taxonomy import Grouping, Taxonomy

__version__ = "0.1.0"

__all__ = [
    "ConfusionRecorder",
    "CrossEntropy",
    "FusedSegmenter",
    "Grouping",
    "HierarchicalLoss",
    "Ohem",
    "OnlineLoss",
    "Study",
    "Supervised",
    "SupervisionPlan",
    "Taxonomy",
    "analyze",
    "class_affinity",
    "cluster_classes",
    "confusion_matrix",
    "deep_supervision",
    "find_stages",
    "fuse",
    "iou_per_class",
    "mean_iou",
    "single_phase",
    "supervise",
    "tradeoff_curve",
]

_ROOMS = {
    "taxonomy": {"Grouping", "Taxonomy"},
    "nn": {
        "ConfusionRecorder",
        "CrossEntropy",
        "HierarchicalLoss",
        "Ohem",
        "OnlineLoss",
        "Supervised",
        "find_stages",
        "supervise",
    },
    "networks": {"FusedSegmenter", "fuse"},
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'hs3seg' has no attribute '{name}'")
    room = next((room for room, names in _ROOMS.items() if name in names), "analysis")
    return getattr(import_module(f"hs3seg.{room}"), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
