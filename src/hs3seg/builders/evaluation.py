"""The evaluation pass by its config: what is read, and how it is looked at."""

from hs3seg.config import Config
from hs3seg.config.sections import EvaluationConfig
from hs3seg.data import EvaluationLoader, EvaluationTransform, SegmentationDataset
from hs3seg.engine import Protocol, Runtime


def make_evaluation_loader(config: Config, dataset: SegmentationDataset, runtime: Runtime) -> EvaluationLoader:
    """Whole images at the network's size, masks at label resolution."""
    return EvaluationLoader(
        dataset,
        EvaluationTransform(config.augment.resize),
        config.evaluation.batch_size,
        num_workers=config.data.num_workers,
        rank=runtime.rank,
        world_size=runtime.world_size,
    )


def make_protocol(settings: EvaluationConfig) -> Protocol:
    """How images are looked at.

    Raises:
        ConfigError: values that do not go together.
    """
    return Protocol(settings.scales, settings.flip, settings.crop, settings.stride, settings.merge)
