"""The examination of a data set: every problem at once, instead of one per training run."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping

from hs3seg.data.doctor.across import compare
from hs3seg.data.doctor.classes import class_findings, shifted, silently_shifted, statistics
from hs3seg.data.doctor.findings import Diagnosis, Finding, in_order, limited
from hs3seg.data.doctor.observe import Observation
from hs3seg.data.doctor.show import pictures
from hs3seg.data.doctor.workers import observe_all
from hs3seg.data.sample import SegmentationDataset

MAX_PICTURES = 24


def examine(
    datasets: Mapping[str, SegmentationDataset],
    *,
    workers: int = 0,
    progress: Callable[[], None] | None = None,
    max_findings_per_kind: int | None = 100,
    before: Iterable[Finding] = (),
    max_pictures: int = MAX_PICTURES,
) -> Diagnosis:
    """Looks at every sample of every split, then at all of them together.

    Args:
        datasets: Split name -> data set; the first is the training split. All have one taxonomy.
        workers: Processes that read; 0 = this one.
        progress: Called after each sample.
        max_findings_per_kind: So many are listed of each kind and severity, the others counted; None = all.
        before: Findings that were made before, e.g. by `open_splits` or `open_folder`.
        max_pictures: Finds that are shown.

    Returns:
        What was found. Nothing in the files makes it raise.
    """
    findings = list(before)
    observations: dict[str, list[Observation]] = {}
    for split, dataset in datasets.items():
        observations[split] = observe_all(dataset, workers, progress)
        findings += _of_split(split, dataset, observations[split])
    findings += compare(observations)
    taxonomy = next((dataset.taxonomy for dataset in datasets.values()), None)
    counted = {}
    if taxonomy is not None:
        counted = {split: statistics(several, taxonomy) for split, several in observations.items()}
        findings += silently_shifted(observations, taxonomy)
        findings += class_findings(counted, observations, taxonomy)
    listed, unlisted = limited(in_order(findings), max_findings_per_kind)
    sizes = {
        split: dict(Counter(seen.size for seen in several if seen.size is not None))
        for split, several in observations.items()
    }
    return Diagnosis(listed, counted, taxonomy, sizes, unlisted, pictures(datasets, listed, max_pictures))


def _of_split(split: str, dataset: SegmentationDataset, several: list[Observation]) -> list[Finding]:
    """Findings of single samples; ids that are shifted in a whole split are one finding instead of one per mask."""
    if not several:
        message = "has no sample"
        return [Finding("empty-split", "error", split, split, message, "add images, or leave the split out")]
    findings = [finding for seen in several for finding in seen.findings]
    shift = shifted(split, several, dataset.taxonomy)
    if shift is None:
        return findings
    return [shift, *(finding for finding in findings if finding.kind != "unknown-id")]
