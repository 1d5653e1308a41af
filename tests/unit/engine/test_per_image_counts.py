import numpy as np
import torch

from hs3seg.analysis import StagePlan, SupervisionPlan
from hs3seg.data import EvaluationLoader, EvaluationTransform
from hs3seg.engine import Runtime, evaluate
from hs3seg.nn import supervise
from hs3seg.taxonomy import Grouping
from tests.unit.engine.conftest import MEAN, SILENT, STD, Colours, Small


def test_counts_of_images_add_up_to_the_evaluations(runtime: Runtime) -> None:
    torch.manual_seed(0)
    plan = SupervisionPlan(Colours.taxonomy.names, (StagePlan("first", Grouping.from_labels([0, 1, 1])),))
    model = supervise(Small(), plan=plan, example=torch.zeros(1, 3, 24, 32))
    loader = EvaluationLoader(Colours(7), EvaluationTransform(), 4)
    found = evaluate(model, loader, runtime, SILENT, mean=MEAN, std=STD, per_image=True)
    counts = found.per_image
    assert counts is not None
    assert counts.names == tuple(Colours(7).names)
    assert list(counts.outputs) == list(found.confusions) == ["first", "final"]
    for output, matrix in counts.total().items():
        np.testing.assert_array_equal(matrix, found.confusions[output])
    assert counts.pixels[3] == 0  # its labels are all ignored
    assert counts.pixels.sum() == found.confusions["final"].sum()
    # One image counted alone has the same counts.
    alone = evaluate(model, EvaluationLoader(Colours(1), EvaluationTransform(), 1), runtime, SILENT, mean=MEAN, std=STD)
    np.testing.assert_array_equal(counts.weighted(np.eye(7, dtype=int)[0])["final"], alone.confusions["final"])
    assert alone.per_image is None
