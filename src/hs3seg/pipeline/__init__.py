"""The steps of a run as functions, file in and file out; and the run that calls them in order."""

from hs3seg.builders import load_trained
from hs3seg.pipeline.checking import check_step, init_step, unpack_step
from hs3seg.pipeline.compare import compare, compare_runs
from hs3seg.pipeline.deploy import certify_step, export_step
from hs3seg.pipeline.predict import predict_step
from hs3seg.pipeline.predictions import score_step, submit_step
from hs3seg.pipeline.run import run
from hs3seg.pipeline.steps import (
    Session,
    analyze_step,
    evaluate_step,
    open_session,
    plan_step,
    profile_step,
    train_step,
)
from hs3seg.pipeline.tools import (
    list_networks,
    profile_config,
    profile_network,
    train_command,
)

__all__ = [
    "Session",
    "analyze_step",
    "certify_step",
    "check_step",
    "compare",
    "compare_runs",
    "evaluate_step",
    "export_step",
    "init_step",
    "list_networks",
    "load_trained",
    "open_session",
    "plan_step",
    "predict_step",
    "profile_config",
    "profile_network",
    "profile_step",
    "run",
    "score_step",
    "submit_step",
    "train_command",
    "train_step",
    "unpack_step",
]
