"""Prediction on image files, folders, patterns and videos."""

from hs3seg.pipeline.predict.outputs import OUTPUTS
from hs3seg.pipeline.predict.step import predict_step

__all__ = ["OUTPUTS", "predict_step"]
