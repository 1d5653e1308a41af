"""One self-contained page of a run: scores, groups, curves, matrices, pictures. Never imports torch."""

from hs3seg.report.page import build_report

__all__ = ["build_report"]
