"""The run's configuration: frozen sections, one TOML file, no inheritance.

A config file states a complete run. `load_config` reads it, lays `--section.key value` overrides over it and checks
every key and value in one place, so that a typo in the file and one on the command line get the same answer.
"""

from hs3seg.config.data import (
    Ade20kData,
    AugmentConfig,
    CamVidData,
    CityscapesData,
    CocoData,
    DataConfig,
    DigitsData,
    FolderData,
    HuggingFaceData,
    NYUv2Data,
    PlantedData,
    VocData,
)
from hs3seg.config.folder import config_of_folder, data_of_folder, lay_under
from hs3seg.config.load import apply_overrides, config_from_dict, describe_keys, load_config, without_other_kinds
from hs3seg.config.sections import (
    Config,
    EvaluationConfig,
    FuseConfig,
    LossConfig,
    NetworkConfig,
    SupervisionConfig,
    TrainConfig,
)

__all__ = [
    "Ade20kData",
    "AugmentConfig",
    "CamVidData",
    "CityscapesData",
    "CocoData",
    "Config",
    "DataConfig",
    "DigitsData",
    "EvaluationConfig",
    "FolderData",
    "FuseConfig",
    "HuggingFaceData",
    "LossConfig",
    "NYUv2Data",
    "NetworkConfig",
    "PlantedData",
    "SupervisionConfig",
    "TrainConfig",
    "VocData",
    "apply_overrides",
    "config_from_dict",
    "config_of_folder",
    "data_of_folder",
    "describe_keys",
    "lay_under",
    "load_config",
    "without_other_kinds",
]
