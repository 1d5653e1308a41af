"""Segmentation networks by name, HS3-Fuse on them, and public checkpoints."""

from hs3seg.networks.catalogue import NETWORKS, create, names, options_of
from hs3seg.networks.checkpoints import LoadReport, load_public_checkpoint, save_public_checkpoint
from hs3seg.networks.deeplab import DeepLabV3Plus
from hs3seg.networks.fuse import FusedSegmenter, fuse
from hs3seg.networks.hms import MultiScale
from hs3seg.networks.hrnet import HRNetOCR, HRNetV2
from hs3seg.networks.lite0 import load_lite0_weights
from hs3seg.networks.sagate import SAGate

__all__ = [
    "NETWORKS",
    "DeepLabV3Plus",
    "FusedSegmenter",
    "HRNetOCR",
    "HRNetV2",
    "LoadReport",
    "MultiScale",
    "SAGate",
    "create",
    "fuse",
    "load_lite0_weights",
    "load_public_checkpoint",
    "names",
    "options_of",
    "save_public_checkpoint",
]
