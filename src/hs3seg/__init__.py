"""hs3seg: hierarchically supervised semantic segmentation (HS3, BMVC 2021)."""

__version__ = "0.1.0"
