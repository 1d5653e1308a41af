"""The check of a data set: every problem at once, instead of one per training run."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor

from hs3seg.data.sample import SegmentationDataset
from hs3seg.data.statistics import LabelCounter, LabelStatistics
from hs3seg.errors import DataError


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing worth knowing.

    Args:
        level: `error` = training will stop here; `warning` = probably not meant; `info` = so that it is known.
        file: Where.
        message: What, and what to do.
    """

    level: Literal["error", "warning", "info"]
    file: str
    message: str


@dataclass(frozen=True)
class CheckReport:
    """Findings and class counts of all splits."""

    findings: tuple[Finding, ...]
    statistics: Mapping[str, LabelStatistics]
    class_names: tuple[str, ...]

    @property
    def has_errors(self) -> bool:
        """Whether training would stop."""
        return any(finding.level == "error" for finding in self.findings)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "findings": [{"level": f.level, "file": f.file, "message": f.message} for f in self.findings],
            "splits": {split: values.to_dict(self.class_names) for split, values in self.statistics.items()},
        }


def check_dataset(
    datasets: Mapping[str, SegmentationDataset],
    progress: Callable[[], None] | None = None,
    unopened: Mapping[str, DataError] | None = None,
) -> CheckReport:
    """Reads every sample of every split and collects what is wrong or odd.

    Args:
        datasets: Split name -> data set; the first is the training split.
        progress: Called after each sample.
        unopened: Split name -> why it could not be opened at all, e.g. an image without a mask.
    """
    findings = [Finding("error", split, str(error)) for split, error in (unopened or {}).items()]
    statistics = {}
    names: tuple[str, ...] = ()
    for split, dataset in datasets.items():
        names = dataset.taxonomy.names
        counter = LabelCounter(dataset.taxonomy.num_classes, dataset.taxonomy.ignore_index)
        for index in range(len(dataset)):
            try:
                sample = dataset.read(index)
                counter.add(sample.mask.as_subclass(Tensor), sample.name)
            except DataError as error:
                findings.append(Finding("error", dataset.files(index)[-1], str(error)))
            if progress:
                progress()
        result = counter.result()
        statistics[split] = result
        findings += [
            Finding("warning", f"{split}/{name}", "no pixel has a class; it is kept, but teaches nothing")
            for name in result.all_ignored
        ]
        findings += _class_findings(split, names, result, training=split == next(iter(datasets)))
    return CheckReport(tuple(findings), statistics, names)


def _class_findings(split: str, names: tuple[str, ...], values: LabelStatistics, training: bool) -> list[Finding]:
    total = sum(values.frequencies)
    findings = []
    for name, pixels, images in zip(names, values.frequencies, values.images_with, strict=True):
        if not pixels:
            level: Literal["warning", "info"] = "warning" if training else "info"
            hint = "it cannot be learned" if training else "it is left out of every mean"
            findings.append(Finding(level, split, f"class '{name}' never occurs; {hint}"))
        elif training and (pixels < 1e-4 * total or images < 3):
            findings.append(
                Finding(
                    "info", split, f"class '{name}' is rare: {100 * pixels / total:.3f} % of pixels, {images} images"
                )
            )
    return findings
