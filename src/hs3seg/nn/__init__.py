"""Taps, heads, the supervised wrapper and the hierarchical loss; plain arguments, no config."""

from hs3seg.nn.cost import Cost, count_cost, count_outputs, count_parts
from hs3seg.nn.counting import ConfusionCounter, predict
from hs3seg.nn.embeddings import ClassMeans
from hs3seg.nn.fused_cross_entropy import enlarged_cross_entropy, hardest_cross_entropy
from hs3seg.nn.heads import ClassHead, ProbedHead, StageHead, group_logits
from hs3seg.nn.image_weighted import ImageWeightedCrossEntropy
from hs3seg.nn.inverseform import InverseFormLoss, InverseNet, load_inverse_net, train_inverse_net
from hs3seg.nn.losses import CrossEntropy, HierarchicalLoss, Ohem, group_class_weights, make_criteria
from hs3seg.nn.maps import final_logits, merge_maps
from hs3seg.nn.online import OnlineLoss
from hs3seg.nn.recorder import ConfusionRecorder
from hs3seg.nn.rmi import RMI
from hs3seg.nn.supervised import Supervised, supervise
from hs3seg.nn.taps import find_stages

__all__ = [
    "RMI",
    "ClassHead",
    "ClassMeans",
    "ConfusionCounter",
    "ConfusionRecorder",
    "Cost",
    "CrossEntropy",
    "HierarchicalLoss",
    "ImageWeightedCrossEntropy",
    "InverseFormLoss",
    "InverseNet",
    "Ohem",
    "OnlineLoss",
    "ProbedHead",
    "StageHead",
    "Supervised",
    "count_cost",
    "count_outputs",
    "count_parts",
    "enlarged_cross_entropy",
    "final_logits",
    "find_stages",
    "group_class_weights",
    "group_logits",
    "hardest_cross_entropy",
    "load_inverse_net",
    "make_criteria",
    "merge_maps",
    "predict",
    "supervise",
    "train_inverse_net",
]
