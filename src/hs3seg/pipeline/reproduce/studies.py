"""All studies by name."""

from collections.abc import Mapping

from hs3seg.errors import ConfigError, nearest
from hs3seg.pipeline.reproduce.own import OWN
from hs3seg.pipeline.reproduce.paper import PAPER
from hs3seg.pipeline.reproduce.study import Study, Version

STUDIES: Mapping[str, Study] = {study.name: study for study in (*PAPER, *OWN)}


def find_study(name: str) -> Study:
    """A study by name.

    Raises:
        ConfigError: unknown; the nearest name is said.
    """
    if name not in STUDIES:
        raise ConfigError(f"unknown study '{name}'; {nearest(name, STUDIES)}")
    return STUDIES[name]


def find_version(study: Study, *, small: bool) -> Version:
    """The paper's settings or the small ones.

    Raises:
        ConfigError: the study has the small version only.
    """
    if small:
        return study.small
    if study.full is None:
        raise ConfigError(f"study '{study.name}' is ours and has the small version only; add --small")
    return study.full
