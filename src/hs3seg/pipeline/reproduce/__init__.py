"""`hs3 reproduce`: the paper's tables and figures, and studies of ours, one command each."""

from hs3seg.pipeline.reproduce.command import reproduce
from hs3seg.pipeline.reproduce.studies import STUDIES

__all__ = ["STUDIES", "reproduce"]
