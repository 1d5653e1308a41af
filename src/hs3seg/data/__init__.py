"""Samples, transforms, splits and data sets; plain arguments, no config."""

from hs3seg.data.ade20k import ADE20K
from hs3seg.data.archive import unpack
from hs3seg.data.cache import CachedDataset
from hs3seg.data.camvid import CamVid
from hs3seg.data.cityscapes import Cityscapes
from hs3seg.data.coco import Coco
from hs3seg.data.depth import read_depth
from hs3seg.data.digits import DigitScenes
from hs3seg.data.discover import propose_taxonomy
from hs3seg.data.disk_cache import DiskCache
from hs3seg.data.folder import FolderDataset, infer_taxonomy, taxonomy_of_folder
from hs3seg.data.hha import NYU_CAMERA, Camera, encode_hha, hha
from hs3seg.data.huggingface import HuggingFace
from hs3seg.data.images import IMAGE_SUFFIXES, read_image, read_mask
from hs3seg.data.init_files import write_init
from hs3seg.data.loader import EvaluationLoader, TrainingLoader
from hs3seg.data.nyuv2 import NYUv2
from hs3seg.data.planted import PlantedScenes, planted_grouping, planted_taxonomy
from hs3seg.data.sample import Batch, Sample, SegmentationDataset, channels_of, notes_of, source_of
from hs3seg.data.splits import Subset, analysis_split, drawn
from hs3seg.data.statistics import LabelStatistics, class_frequencies
from hs3seg.data.transforms import EvaluationTransform, TrainTransform
from hs3seg.data.video import VIDEO_SUFFIXES
from hs3seg.data.voc import PascalVOC

__all__ = [
    "ADE20K",
    "IMAGE_SUFFIXES",
    "NYU_CAMERA",
    "VIDEO_SUFFIXES",
    "Batch",
    "CachedDataset",
    "CamVid",
    "Camera",
    "Cityscapes",
    "Coco",
    "DigitScenes",
    "DiskCache",
    "EvaluationLoader",
    "EvaluationTransform",
    "FolderDataset",
    "HuggingFace",
    "LabelStatistics",
    "NYUv2",
    "PascalVOC",
    "PlantedScenes",
    "Sample",
    "SegmentationDataset",
    "Subset",
    "TrainTransform",
    "TrainingLoader",
    "analysis_split",
    "channels_of",
    "class_frequencies",
    "drawn",
    "encode_hha",
    "hha",
    "infer_taxonomy",
    "notes_of",
    "planted_grouping",
    "planted_taxonomy",
    "propose_taxonomy",
    "read_depth",
    "read_image",
    "read_mask",
    "source_of",
    "taxonomy_of_folder",
    "unpack",
    "write_init",
]
