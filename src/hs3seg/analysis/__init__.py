"""Confusion matrices, affinity, clustering, trade-off and plan: numpy alone, no torch, so that it starts at once."""

from hs3seg.analysis.affinity import class_affinity
from hs3seg.analysis.agreement import adjusted_rand
from hs3seg.analysis.baselines import deep_supervision, no_supervision, random_control, reversed_order, single_phase
from hs3seg.analysis.boundaries import BoundaryCounter
from hs3seg.analysis.clustering import (
    cluster_classes,
    halved_sizes,
    kmeans_groupings,
    random_grouping,
    spectral_groupings,
)
from hs3seg.analysis.comparison import Comparison, compare_arms, sign_test
from hs3seg.analysis.confusion import (
    absent_classes,
    confusion_matrix,
    iou_per_class,
    load_confusions,
    load_embeddings,
    mean_iou,
    pixel_accuracy,
    save_arrays,
    save_confusions,
)
from hs3seg.analysis.label_noise import label_hints
from hs3seg.analysis.metrics import frequency_weighted_iou, level_miou, mean_accuracy, share_of_errors_inside
from hs3seg.analysis.online_plan import OnlinePlan
from hs3seg.analysis.per_image import PerImage, PerImageCounter, load_per_image, save_per_image
from hs3seg.analysis.plan import FusePlan, StagePlan, SupervisionPlan
from hs3seg.analysis.power import detectable_difference, pairs_needed, pooled_spread, power
from hs3seg.analysis.regrouping import RunningGroups
from hs3seg.analysis.separability import separability
from hs3seg.analysis.stability import group_stability
from hs3seg.analysis.study import METHODS, Study, analyze
from hs3seg.analysis.tradeoff import (
    DEFAULT_ASPECT,
    Knee,
    Reference,
    TradeoffCurve,
    choose_num_groups,
    knee_of,
    line,
    theta_of_ratio,
    tradeoff_curve,
)

__all__ = [
    "DEFAULT_ASPECT",
    "METHODS",
    "BoundaryCounter",
    "Comparison",
    "FusePlan",
    "Knee",
    "OnlinePlan",
    "PerImage",
    "PerImageCounter",
    "Reference",
    "RunningGroups",
    "StagePlan",
    "Study",
    "SupervisionPlan",
    "TradeoffCurve",
    "absent_classes",
    "adjusted_rand",
    "analyze",
    "choose_num_groups",
    "class_affinity",
    "cluster_classes",
    "compare_arms",
    "confusion_matrix",
    "deep_supervision",
    "detectable_difference",
    "frequency_weighted_iou",
    "group_stability",
    "halved_sizes",
    "iou_per_class",
    "kmeans_groupings",
    "knee_of",
    "label_hints",
    "level_miou",
    "line",
    "load_confusions",
    "load_embeddings",
    "load_per_image",
    "mean_accuracy",
    "mean_iou",
    "no_supervision",
    "pairs_needed",
    "pixel_accuracy",
    "pooled_spread",
    "power",
    "random_control",
    "random_grouping",
    "reversed_order",
    "save_arrays",
    "save_confusions",
    "save_per_image",
    "separability",
    "share_of_errors_inside",
    "sign_test",
    "single_phase",
    "spectral_groupings",
    "theta_of_ratio",
    "tradeoff_curve",
]
