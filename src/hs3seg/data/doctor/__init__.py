"""The mask doctor: what is wrong with a data set, with file, place and remedy."""

from hs3seg.data.doctor.examine import examine
from hs3seg.data.doctor.findings import SEVERITIES, TITLES, Diagnosis, Finding, Picture, Place, Severity
from hs3seg.data.doctor.pairing import Opened, PairsDataset, match, open_folder, open_splits

__all__ = [
    "SEVERITIES",
    "TITLES",
    "Diagnosis",
    "Finding",
    "Opened",
    "PairsDataset",
    "Picture",
    "Place",
    "Severity",
    "examine",
    "match",
    "open_folder",
    "open_splits",
]
