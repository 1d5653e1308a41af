import math
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from hs3seg.analysis import StagePlan, SupervisionPlan, deep_supervision, no_supervision, single_phase
from hs3seg.errors import ConfigError, DataError, PlanError
from hs3seg.nn import (
    RMI,
    ConfusionRecorder,
    CrossEntropy,
    HierarchicalLoss,
    Ohem,
    OnlineLoss,
    group_class_weights,
    make_criteria,
    supervise,
)
from hs3seg.taxonomy import Grouping

NAMES = ("a", "b", "c", "d")
GROUPING = Grouping.from_labels([0, 1, 0, 2])


def labels(ignore: float = 0.2, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    values = torch.randint(0, 4, (2, 12, 16), generator=generator)
    return torch.where(torch.rand(2, 12, 16, generator=generator) < ignore, 255, values)


def logits(groups: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(2, groups, 3, 4, generator=generator).requires_grad_()


@pytest.mark.parametrize("weights", [None, torch.tensor([1.0, 2.0, 0.5, 4.0])])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_cross_entropy_equals_torch_at_label_resolution(weights: torch.Tensor | None, smoothing: float) -> None:
    values, targets = logits(4), labels()
    large = F.interpolate(values, size=(12, 16), mode="bilinear", align_corners=False)
    oracle = F.cross_entropy(large, targets, weights, ignore_index=255, label_smoothing=smoothing)
    got = CrossEntropy(weights, smoothing)(values, targets)
    torch.testing.assert_close(got, oracle)
    torch.testing.assert_close(torch.autograd.grad(got, values), torch.autograd.grad(oracle, values))


@pytest.mark.parametrize(
    "loss", [CrossEntropy(), CrossEntropy(torch.ones(4)), Ohem(), Ohem(class_weights=torch.ones(4))]
)
def test_an_all_ignored_batch_gives_a_zero_with_a_gradient(loss: torch.nn.Module) -> None:
    values = logits(4)
    got = loss(values, torch.full((2, 12, 16), 255))
    assert got.item() == 0
    got.backward()
    assert values.grad is not None
    assert not values.grad.any()


def test_half_precision_logits_are_taken_in_float32() -> None:
    values = logits(4).detach()
    got = CrossEntropy()(values.bfloat16(), labels())
    assert got.dtype == torch.float32
    torch.testing.assert_close(got, CrossEntropy()(values.bfloat16().float(), labels()))


def test_ohem_keeps_what_its_definition_says() -> None:
    values, targets = logits(4), labels()
    large = F.interpolate(values, size=(12, 16), mode="bilinear", align_corners=False)
    truth = large.softmax(1).gather(1, targets.clamp(max=3)[:, None])[:, 0][targets != 255]
    losses = -truth.log()
    for threshold, kept in ((0.2, 1), (0.2, 150), (0.9, 1), (1e-6, 10), (0.5, 10**6)):
        order = truth.sort().values
        bound = max(order[min(kept, len(order)) - 1].item(), threshold)
        oracle = losses[truth <= bound].mean()
        torch.testing.assert_close(Ohem(threshold, kept)(values, targets), oracle)


def test_equation_one() -> None:
    plan = SupervisionPlan(NAMES, (StagePlan("s", GROUPING, 0.3), StagePlan("t", Grouping.identity(4), 0.7)))
    loss = HierarchicalLoss(plan)
    outputs = {"s": logits(3, 1), "t": logits(4, 2), "final": logits(4, 3)}
    targets = labels()
    remapped = torch.from_numpy(GROUPING.remap(targets.numpy()))
    plain = CrossEntropy()
    expected = (
        0.3 * plain(outputs["s"], remapped) + 0.7 * plain(outputs["t"], targets) + plain(outputs["final"], targets)
    )
    torch.testing.assert_close(loss(outputs, targets), expected)
    assert list(loss.terms(outputs, targets)) == ["s", "t", "final"]
    with pytest.raises(PlanError, match="no output 't'"):
        loss({"s": logits(3), "final": logits(4)}, targets)
    with pytest.raises(PlanError, match="criterion for 'u'"):
        HierarchicalLoss(plan, criteria={"u": plain})


def test_deep_supervision_with_gamma_zero_is_the_plain_loss() -> None:
    outputs = {"s": logits(4, 1), "final": logits(4, 2)}
    deep = HierarchicalLoss(deep_supervision(NAMES, ["s"], gamma=0.0))
    torch.testing.assert_close(deep(outputs, labels()), CrossEntropy()(outputs["final"], labels()))


@pytest.mark.parametrize("kind", ["inverse_log", "inverse_sqrt", "median"])
def test_class_weights_average_to_one_over_pixels_and_follow_groups(kind: str) -> None:
    frequencies = [1000, 300, 500, 0]
    weights = group_class_weights(frequencies, Grouping.identity(4), kind)
    pixels = torch.tensor(frequencies, dtype=torch.float32)
    assert (weights * pixels).sum() / pixels.sum() == pytest.approx(1.0, abs=1e-5)
    assert weights[1] > weights[2] > weights[0]
    assert weights[3] == weights[:3].max()
    rare = group_class_weights([1000, 1, 500, 0], Grouping.identity(4), kind)
    assert rare[1] <= (10.001 if kind != "inverse_log" else 60) * rare[0]
    merged = group_class_weights(frequencies, GROUPING, kind)
    direct = group_class_weights([1500, 300, 0], Grouping.identity(3), kind)
    torch.testing.assert_close(merged, direct)


def test_inverse_log_is_enets_formula_up_to_scale() -> None:
    weights = group_class_weights([75, 25], Grouping.identity(2), "inverse_log")
    assert (weights[1] / weights[0]).item() == pytest.approx(math.log(1.77) / math.log(1.27), rel=1e-5)


def test_criteria_are_made_per_stage() -> None:
    plan = SupervisionPlan(NAMES, (StagePlan("s", GROUPING),))
    criteria = make_criteria(plan, "ohem", "median", [1, 2, 3, 4], auxiliary=["aux"], threshold=0.7)
    # As the official code: all pixels count for auxiliary outputs, the hardest for the final one.
    assert isinstance(criteria["aux"], CrossEntropy)
    torch.testing.assert_close(criteria["aux"].class_weights, criteria["final"].class_weights)
    assert isinstance(criteria["final"], Ohem)
    assert criteria["s"].class_weights.shape == (3,)
    assert criteria["final"].class_weights.shape == (4,)
    assert criteria["s"].threshold == 0.7
    with pytest.raises(ConfigError, match="frequencies"):
        make_criteria(plan, class_weights="median")
    with pytest.raises(ConfigError, match="no.*labelled|labelled pixels"):
        make_criteria(plan, class_weights="median", frequencies=[0, 0, 0, 0])


@pytest.mark.parametrize("options", [{"threshold": 1.5}, {"threshold": -0.1}, {"min_kept": 0}])
def test_ohem_options_out_of_range(options: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=next(iter(options))):
        Ohem(**options)
    with pytest.raises(ConfigError, match="label_smoothing = 2"):
        CrossEntropy(label_smoothing=2)


@settings(deadline=None, max_examples=40)
@given(
    assignment=st.lists(st.integers(0, 5), min_size=2, max_size=9).filter(lambda a: len(set(a)) > 1),
    seed=st.integers(0, 99),
)
def test_labels_are_remapped_as_the_grouping_does(assignment: list[int], seed: int) -> None:
    grouping = Grouping.from_labels(assignment)
    plan = SupervisionPlan(tuple(f"c{i}" for i in range(len(assignment))), (StagePlan("s", grouping, 0.5),))
    generator = torch.Generator().manual_seed(seed)
    targets = torch.randint(0, len(assignment), (2, 6, 8), generator=generator)
    targets[0, :3] = 255
    outputs = {
        "s": torch.randn(2, grouping.num_groups, 3, 4, generator=generator),
        "final": torch.randn(2, len(assignment), 3, 4, generator=generator),
    }
    terms = HierarchicalLoss(plan).terms(outputs, targets)
    oracle = CrossEntropy()(outputs["s"], torch.from_numpy(grouping.remap(targets.numpy())))
    torch.testing.assert_close(terms["s"], oracle)
    torch.testing.assert_close(terms["final"], CrossEntropy()(outputs["final"], targets))


def test_every_kind_has_a_loss_for_each_stages_groups() -> None:
    """RMI and image weights know their number of groups; RMI's auxiliary outputs have its cross-entropy alone."""
    plan = SupervisionPlan(("a", "b", "c"), (StagePlan("s", Grouping.from_labels([0, 0, 1])),))
    outputs = {"s": torch.randn(2, 2, 8, 8), "final": torch.randn(2, 3, 8, 8), "aux": torch.randn(2, 3, 8, 8)}
    labels = torch.randint(0, 3, (2, 32, 32))
    for kind in ("cross_entropy", "ohem", "image_weighted", "rmi"):
        criteria = make_criteria(plan, kind=kind, auxiliary=("aux",))
        loss = HierarchicalLoss(plan, criteria=criteria, auxiliary={"aux": 0.4})
        terms = loss.terms(outputs, labels)
        assert torch.isfinite(loss.combine(terms))
        if kind == "rmi":
            torch.testing.assert_close(terms["aux"], RMI(3, bce_only=True)(outputs["aux"], labels))
            torch.testing.assert_close(terms["s"], RMI(2)(outputs["s"], torch.tensor([0, 0, 1])[labels]))
    with pytest.raises(ConfigError, match="with the loss 'rmi', which takes none"):
        make_criteria(plan, kind="rmi", class_weights="median", frequencies=[1, 2, 3])


def test_extra_terms_look_at_the_final_output_and_have_their_weight() -> None:
    plan = SupervisionPlan(("a", "b", "c"), ())
    outputs, labels = {"final": torch.randn(2, 3, 8, 8)}, torch.randint(0, 3, (2, 8, 8))
    loss = HierarchicalLoss(plan, extra={"smooth": (CrossEntropy(label_smoothing=0.5), 0.3)})
    terms = loss.terms(outputs, labels)
    torch.testing.assert_close(terms["smooth"], CrossEntropy(label_smoothing=0.5)(outputs["final"], labels))
    torch.testing.assert_close(loss.combine(terms), terms["final"] + 0.3 * terms["smooth"])


def test_weights_by_hand_keep_the_sum_over_all_pixels_when_classes_are_merged():
    frequencies, weights = [10, 30, 60, 0], [3.0, 1.0, 0.5, 7.0]
    plain = group_class_weights(frequencies, Grouping.identity(4), weights)
    assert plain is not None
    assert plain.tolist() == weights
    merged = group_class_weights(frequencies, Grouping.from_labels([0, 0, 1, 2]), weights)
    assert merged is not None
    assert merged.tolist() == [(10 * 3 + 30) / 40, 0.5, 7.0]
    with pytest.raises(ConfigError, match="2 values, the data has 4 classes"):
        group_class_weights(frequencies, Grouping.identity(4), [1.0, 2.0])


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int32])
def test_labels_of_any_integers_give_the_same_loss(dtype: torch.dtype) -> None:
    plan = SupervisionPlan(NAMES, (StagePlan("early", GROUPING),))
    loss, outputs, targets = HierarchicalLoss(plan), {"early": logits(3), "final": logits(4)}, labels()
    assert torch.equal(loss(outputs, targets.to(dtype)), loss(outputs, targets))


def test_an_ignore_label_that_is_a_class_is_refused() -> None:
    plan = deep_supervision(NAMES, ("early",))
    with pytest.raises(PlanError, match="ignore_index = 0 is also class 'a'; .* such as 255"):
        HierarchicalLoss(plan, ignore_index=0)
    with pytest.raises(PlanError, match="ignore_index = 3 is also class 'd'"):
        ConfusionRecorder(plan, ignore_index=3)
    HierarchicalLoss(plan, ignore_index=4)
    HierarchicalLoss(plan, ignore_index=-1)


class Own(torch.nn.Module):
    """A network with an auxiliary output whose logits are enlarged with aligned corners."""

    align_corners = True
    auxiliary: ClassVar[dict[str, float]] = {"aux": 0.4}

    def __init__(self) -> None:
        super().__init__()
        self.early, self.last = torch.nn.Conv2d(3, 6, 3, 2, 1), torch.nn.Conv2d(6, 4, 1)

    def outputs(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        features = self.early(images)
        return {"final": self.last(features), "aux": 2 * self.last(features)}

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.outputs(images)["final"]


@pytest.mark.parametrize("around", [lambda m: m, torch.nn.DataParallel, torch.compile])
def test_a_loss_of_the_model_learns_all_that_the_model_gives_as_it_gives_it(
    around: Callable[[torch.nn.Module], torch.nn.Module],
) -> None:
    model = supervise(Own(), ["early"], example=torch.zeros(1, 3, 16, 24)).train()
    outputs = model(torch.randn(2, 3, 16, 24, generator=torch.Generator().manual_seed(0)))
    targets = torch.randint(0, 4, (2, 16, 24), generator=torch.Generator().manual_seed(1))
    plain = CrossEntropy(align_corners=True)
    expected = 0.4 * plain(outputs["early"], targets) + plain(outputs["final"], targets)
    loss = HierarchicalLoss(around(model))
    torch.testing.assert_close(loss(outputs, targets), expected + 0.4 * plain(outputs["aux"], targets))
    torch.testing.assert_close(HierarchicalLoss(model, auxiliary={})(outputs, targets), expected)
    assert loss.align_corners
    assert not HierarchicalLoss(model, align_corners=False).align_corners
    # A plan does not know of it, so nothing is passed over in silence.
    with pytest.raises(PlanError, match=r"gives 'aux', which would have no loss; .* HierarchicalLoss\(model\)"):
        HierarchicalLoss(model.plan)(outputs, targets)
    HierarchicalLoss(model.plan)({name: outputs[name] for name in ("early", "final")}, targets)
    recorder = ConfusionRecorder(around(model))
    assert recorder._counter.align_corners


def test_what_is_no_supervised_model_is_told() -> None:
    for make in (HierarchicalLoss, OnlineLoss, ConfusionRecorder):
        with pytest.raises(PlanError, match=r"Own is no supervised model; give what hs3seg.supervise\(net\) gave"):
            make(Own())


@pytest.mark.parametrize(
    ("term", "message"),
    [
        (torch.nn.CrossEntropyLoss(), "'more' ignores label -100, the loss 255; make both with ignore_index=255"),
        (CrossEntropy(ignore_index=3), "'more' ignores label 3"),
        (CrossEntropy(align_corners=True), "'more' enlarges logits with align_corners=True, the loss with False"),
    ],
)
def test_extra_terms_must_fit_as_criteria_must(term: torch.nn.Module, message: str) -> None:
    with pytest.raises(PlanError, match=f"the extra term {message}"):
        HierarchicalLoss(GROUPED, extra={"more": (term, 1.0)})


def test_criteria_must_ignore_what_the_loss_ignores() -> None:
    plan = deep_supervision(NAMES, ("early",))
    with pytest.raises(PlanError, match="criterion for 'final' ignores label -100, the loss 255; .* ignore_index=255"):
        HierarchicalLoss(plan, criteria={"final": torch.nn.CrossEntropyLoss()})


def test_what_is_not_all_outputs_is_told() -> None:
    loss = HierarchicalLoss(deep_supervision(NAMES, ("early",)), auxiliary={"aux": 0.4})
    with pytest.raises(PlanError, match="given one tensor; give it all"):
        loss(logits(4), labels())
    with pytest.raises(PlanError, match=r"no output 'aux' for the plan's loss; call loss.eval\(\) with model.eval\(\)"):
        loss({"early": logits(4), "final": logits(4)}, labels())


GROUPED = SupervisionPlan(NAMES, (StagePlan("early", GROUPING),))


def outputs_of(plan: SupervisionPlan = GROUPED, **more: int) -> dict[str, torch.Tensor]:
    sizes = {**plan.num_groups, "final": plan.num_classes, **more}
    return {name: logits(groups, seed) for seed, (name, groups) in enumerate(sizes.items())}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.complex64])
def test_labels_that_are_not_whole_are_refused(dtype: torch.dtype) -> None:
    """Cut off, a mask that ToTensor has divided by 255 is all class 0."""
    scaled = (labels() / 255).to(dtype)
    online = OnlineLoss(single_phase(NAMES, ["early"]))
    wrong = f"labels are {str(dtype).removeprefix('torch.')}, and must be whole class ids; .* PILToTensor"
    for loss, outputs in (
        (HierarchicalLoss(GROUPED), outputs_of()),
        (online, outputs_of(online.plan)),
        (CrossEntropy(), logits(4)),
        (Ohem(), logits(4)),
    ):
        with pytest.raises(DataError, match=wrong):
            loss(outputs, scaled)
    assert not online.get_buffer("counts").any()
    with pytest.raises(DataError, match="labels are of type list; give a tensor"):
        HierarchicalLoss(GROUPED)(outputs_of(), [[0]])


@pytest.mark.parametrize("shape", [(2, 1, 12, 16), (12, 16), (1, 12, 16)])
def test_labels_of_another_shape_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(PlanError, match=r"labels of shape .* for logits of shape \(2, 3, 3, 4\); give \(N, H, W\) for"):
        HierarchicalLoss(GROUPED)(outputs_of(), torch.zeros(shape, dtype=torch.int64))


def test_the_loss_of_another_phases_plan_is_refused() -> None:
    deep = deep_supervision(NAMES, ["early"])
    advice = "supervise the network with this plan"
    with pytest.raises(PlanError, match=f"output 'early' has 4 channels, the loss's plan 3 groups there; {advice}"):
        HierarchicalLoss(GROUPED)(outputs_of(deep), labels())
    with pytest.raises(PlanError, match=f"output 'early' has 3 channels, the loss's plan 4 groups there; {advice}"):
        HierarchicalLoss(deep)(outputs_of(), labels())
    with pytest.raises(PlanError, match="output 'final' has 7 channels, the loss's plan 4 classes there"):
        HierarchicalLoss(deep)(outputs_of(deep, final=7), labels())
    with pytest.raises(PlanError, match="output 'aux' has 5 channels, the loss's plan 4 classes there"):
        HierarchicalLoss(deep, auxiliary={"aux": 0.4})(outputs_of(deep, aux=5), labels())


def test_the_loss_of_a_single_phase_wants_all_classes_whatever_groups_it_has() -> None:
    loss = OnlineLoss(single_phase(NAMES, ["early"]))
    loss.running.groupings["early"] = GROUPING
    loss._regroup()
    assert torch.isfinite(loss(outputs_of(loss.plan), labels()))
    with pytest.raises(PlanError, match="output 'early' has 3 channels, the loss's plan 4 groups there"):
        loss(outputs_of(), labels())
    with pytest.raises(PlanError, match="no output 'final' for the plan's loss"):
        loss({"early": logits(4)}, labels())


@pytest.mark.parametrize("wrong", [4, 7, -1])
@pytest.mark.parametrize("online", [False, True])
def test_a_label_that_is_no_class_is_named(wrong: int, online: bool) -> None:
    loss = OnlineLoss(single_phase(NAMES, ["early"])) if online else HierarchicalLoss(GROUPED)
    outputs, targets = outputs_of(loss.plan), labels()
    for _ in range(4):  # at any time in training
        assert torch.isfinite(loss(outputs, targets))
    targets[1, 2, 3] = wrong
    message = (
        rf"label {wrong} in a mask of 4 classes; labels are 0\.\.3 or the ignore label 255.*ignore_index={wrong} if"
    )
    with pytest.raises(DataError, match=message):
        loss(outputs, targets)
    ignoring = HierarchicalLoss(GROUPED, ignore_index=wrong)
    assert torch.isfinite(ignoring(outputs_of(), targets.where(targets < 4, wrong)))


@pytest.mark.parametrize("ignore", [4, 255, 65535, 65536, 2**40, -1, -100])
@pytest.mark.parametrize("transposed", [False, True])
def test_stages_see_groups_and_ignore_what_the_output_does(ignore: int, transposed: bool) -> None:
    targets = labels()
    targets = targets.where(targets < 4, ignore)
    if transposed:  # not contiguous
        targets = targets.transpose(1, 2).contiguous().transpose(1, 2)
    seen: list[torch.Tensor] = []

    def keep(module: nn.Module, given: tuple[torch.Tensor, torch.Tensor], out: torch.Tensor) -> None:  # noqa: ARG001
        seen.append(given[1])

    loss = HierarchicalLoss(GROUPED, ignore_index=ignore)
    loss.criteria[0].register_forward_hook(keep)
    value = loss.terms(outputs_of(), targets)["early"]
    expected = [GROUPING.assignment[c] if c != ignore else ignore for c in targets.flatten().tolist()]
    assert seen[0].flatten().tolist() == expected
    groups = torch.tensor(expected).view_as(targets)
    large = F.interpolate(outputs_of()["early"], groups.shape[1:], mode="bilinear")
    valid = groups != ignore
    oracle = F.cross_entropy(large.permute(0, 2, 3, 1)[valid], groups[valid])
    torch.testing.assert_close(value, oracle)


def test_a_batch_without_a_pixel_has_no_wrong_label() -> None:
    empty = {name: value.detach()[:0] for name, value in outputs_of().items()}
    assert HierarchicalLoss(GROUPED).terms(empty, torch.zeros(0, 12, 16, dtype=torch.int64))["final"] == 0


def test_where_a_look_waits_for_the_device_only_the_first_batches_are_looked_at() -> None:
    class Elsewhere(torch.Tensor):
        """Labels that say to be on a GPU."""

        @property
        def device(self) -> torch.device:
            return torch.device("cuda")

    class Value(nn.Module):
        def forward(self, values: torch.Tensor, _labels: torch.Tensor) -> torch.Tensor:
            return values.mean()

    loss = HierarchicalLoss(deep_supervision(NAMES, []), criteria={"final": Value()})
    loss.to = lambda _: loss  # type: ignore[method-assign]  # there is no GPU to follow them to
    outputs, wrong = {"final": logits(4)}, torch.full((2, 12, 16), 9)
    with pytest.raises(DataError, match="label 9"):
        loss(outputs, wrong.as_subclass(Elsewhere))
    for _ in range(2):
        loss(outputs, torch.zeros_like(wrong).as_subclass(Elsewhere))
    assert torch.isfinite(loss(outputs, wrong.as_subclass(Elsewhere)))
    with pytest.raises(DataError, match="label 9"):
        loss(outputs, wrong)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16])
def test_an_ignore_label_that_a_byte_cannot_hold_ignores_no_class(dtype: torch.dtype) -> None:
    """-100 and 156 are the same byte."""
    values, targets = logits(200), torch.full((2, 12, 16), 156)
    plan = SupervisionPlan(tuple(map(str, range(200))), ())
    for loss in (HierarchicalLoss(plan, -100), OnlineLoss(single_phase(plan.taxonomy_names, []), -100)):
        assert torch.equal(loss({"final": values}, targets.to(dtype)), loss({"final": values}, targets))
        assert loss({"final": values}, targets.to(dtype)) > 1
    for criterion in (CrossEntropy(ignore_index=-100), Ohem(ignore_index=-100)):
        assert torch.equal(criterion(values, targets.to(dtype)), criterion(values, targets))


def test_a_criterion_of_torch_gets_logits_of_the_labels_size() -> None:
    torchs = nn.CrossEntropyLoss(ignore_index=255, label_smoothing=0.1)
    loss = HierarchicalLoss(
        GROUPED, criteria=dict.fromkeys(("early", "final"), torchs), auxiliary={"aux": 0.4}, extra={"more": (torchs, 1)}
    )
    outputs, ours = outputs_of(aux=4), CrossEntropy(label_smoothing=0.1)
    terms = loss.terms(outputs, labels())
    remapped = torch.from_numpy(GROUPING.remap(labels().numpy()))
    torch.testing.assert_close(terms["early"], ours(outputs["early"], remapped))
    for name, output in (("final", "final"), ("aux", "aux"), ("more", "final")):
        torch.testing.assert_close(terms[name], ours(outputs[output], labels()))
    loss.combine(terms).backward()
    assert all(value.grad is not None and value.grad.isfinite().all() for value in outputs.values())


def test_our_criteria_get_the_small_logits() -> None:
    """They enlarge strip by strip; enlarging before would hold the whole."""
    seen = []

    class Watching(CrossEntropy):
        def forward(self, values: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
            seen.append(values.shape[-2:])
            return super().forward(values, targets)

    HierarchicalLoss(GROUPED, criteria={"final": Watching()})(outputs_of(), labels())
    assert seen == [(3, 4)]


def test_an_auxiliary_output_with_a_criterion_of_its_own_may_have_anything() -> None:
    class Mean(nn.Module):
        def forward(self, scores: torch.Tensor, _labels: torch.Tensor) -> torch.Tensor:
            return scores.mean()

    scores = torch.tensor([[1.0, 2.0], [3.0, 6.0]])
    loss = HierarchicalLoss(GROUPED, criteria={"scene": Mean()}, auxiliary={"scene": 0.2})
    assert loss.terms({**outputs_of(), "scene": scores}, labels())["scene"] == 3


def test_criteria_of_an_unknown_kind() -> None:
    with pytest.raises(ConfigError, match="unknown loss 'focal'; allowed: 'cross_entropy', 'ohem', 'image_weighted'"):
        make_criteria(GROUPED, kind="focal")
    with pytest.raises(ConfigError, match="unknown loss 'crossentropy'; nearest: 'cross_entropy'"):
        make_criteria(GROUPED, kind="crossentropy")


def test_a_plan_may_be_a_file(tmp_path: Path) -> None:
    online = single_phase(NAMES, ["early"])
    for plan, make in ((GROUPED, HierarchicalLoss), (online, OnlineLoss)):
        plan.save(tmp_path / "plan.toml")
        for path in (tmp_path / "plan.toml", str(tmp_path / "plan.toml")):
            assert make(path).plan == plan
    with pytest.raises(PlanError, match="plan 'no.toml' does not exist"):
        HierarchicalLoss("no.toml")
    with pytest.raises(PlanError, match="the plan is of type dict; give a SupervisionPlan, or the path of a plan.toml"):
        HierarchicalLoss({"stages": []})


def test_it_compiles_as_a_whole() -> None:
    loss, outputs = HierarchicalLoss(GROUPED), outputs_of()
    compiled = torch.compile(loss, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(outputs, labels()), loss(outputs, labels()))
    torch._dynamo.reset()


@pytest.mark.parametrize("online", [False, True])
def test_a_loss_that_nobody_has_moved_follows_the_labels(online: bool) -> None:
    """As in a loop of one's own on a GPU; the meta device stands for it."""
    weights = {"final": CrossEntropy(torch.ones(4))}
    alone = HierarchicalLoss(no_supervision(NAMES), criteria=weights)
    alone({"final": logits(4, 3).to("meta")}, labels().to("meta"))
    assert {buffer.device.type for buffer in alone.buffers()} == {"meta"}
    loss = HierarchicalLoss(GROUPED)
    if online:
        loss = OnlineLoss(single_phase(NAMES, ["early"]))
        loss._use(GROUPED)
    outputs = {name: value.detach().to("meta") for name, value in outputs_of(loss.plan).items()}
    assert loss(outputs, labels().to("meta")).device.type == "meta"
    assert {buffer.device.type for buffer in loss.buffers()} == {"meta"}
