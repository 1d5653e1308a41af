"""Devices and precision, the training loop, the evaluation pass, checkpoints and the run log."""

from hs3seg.engine.evaluation import Evaluation, evaluate
from hs3seg.engine.lock import alone_in
from hs3seg.engine.loop import Job, check_finished, finished, train
from hs3seg.engine.progress import Reporter
from hs3seg.engine.protocol import PRESETS, Protocol, forward_by, segment
from hs3seg.engine.runtime import Runtime
from hs3seg.engine.weights import load_into, read_weights, save_weights

__all__ = [
    "PRESETS",
    "Evaluation",
    "Job",
    "Protocol",
    "Reporter",
    "Runtime",
    "alone_in",
    "check_finished",
    "evaluate",
    "finished",
    "forward_by",
    "load_into",
    "read_weights",
    "save_weights",
    "segment",
    "train",
]
