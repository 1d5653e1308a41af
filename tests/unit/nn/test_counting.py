import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import confusion_matrix
from torch import Tensor
from torch.nn import functional as F

from hs3seg.errors import DataError, PlanError
from hs3seg.nn import strips
from hs3seg.nn.counting import ConfusionCounter, predict
from hs3seg.taxonomy import Grouping

IGNORE = 255
GROUPINGS = {"s": Grouping.from_labels([0, 1, 0, 2, 1]), "final": Grouping.identity(5)}


def enlarged(logits: Tensor, size: tuple[int, int], align_corners: bool = False) -> Tensor:
    return F.interpolate(logits.double(), size=size, mode="bilinear", align_corners=align_corners)


def batch(seed: int = 0) -> tuple[dict[str, Tensor], Tensor]:
    generator = torch.Generator().manual_seed(seed)
    outputs = {"s": torch.randn(2, 3, 5, 6, generator=generator), "final": torch.randn(2, 5, 7, 4, generator=generator)}
    labels = torch.randint(0, 5, (2, 20, 24), generator=generator)
    return outputs, labels.masked_fill_(torch.rand(labels.shape, generator=generator) < 0.2, IGNORE)


@settings(deadline=None, max_examples=60)
@given(
    groups=st.integers(1, 7),
    small=st.tuples(st.integers(1, 8), st.integers(1, 8)),
    large=st.tuples(st.integers(1, 20), st.integers(1, 20)),
    align_corners=st.booleans(),
    numbers=st.sampled_from([1, 50, 500, 2**19]),
    seed=st.integers(0, 99),
)
def test_predictions_are_the_arg_max_of_the_enlarged_logits(
    groups: int, small: tuple[int, int], large: tuple[int, int], align_corners: bool, numbers: int, seed: int
) -> None:
    logits = torch.randn(3, groups, *small, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(strips, "_CPU_STRIP", numbers)
        patch.setattr(strips, "_LEAST_ROWS", 1)
        patch.setattr(strips, "_CPU_COLUMNS", 6)
        found = predict(logits, large, align_corners)
    assert torch.equal(found.long(), enlarged(logits, large, align_corners).argmax(1))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_single_precision_errs_only_where_two_groups_are_nearly_equal(
    dtype: torch.dtype, layout: torch.memory_format
) -> None:
    logits = 10 * torch.randn(1, 19, 64, 96, generator=torch.Generator().manual_seed(0))
    logits = logits.to(dtype).to(memory_format=layout)
    with torch.autocast("cpu", torch.bfloat16):
        found = predict(logits, (200, 300)).long()
    exact = enlarged(logits, (200, 300))
    behind = exact.amax(1) - exact.gather(1, found[:, None])[:, 0]
    assert behind.max() < 1e-4  # of logits up to 50
    assert (behind > 0).double().mean() < 1e-4


def test_of_equal_groups_the_first_is_taken_and_what_is_no_number_is_group_zero() -> None:
    logits = torch.zeros(1, 4, 2, 3)
    logits[:, 1:] = 1
    assert torch.equal(predict(logits, (8, 12)), torch.ones(1, 8, 12, dtype=torch.uint8))
    assert not predict(torch.full((1, 4, 2, 3), torch.nan), (8, 12)).any()


@pytest.mark.parametrize(("groups", "dtype"), [(256, torch.uint8), (257, torch.int16), (33000, torch.int32)])
def test_many_groups_have_room(groups: int, dtype: torch.dtype) -> None:
    logits = torch.zeros(1, groups, 1, 1)
    logits[:, -1] = 1
    found = predict(logits, (2, 2))
    assert found.dtype == dtype
    assert (found == groups - 1).all()


def test_counts_are_scikit_learns_in_each_outputs_groups() -> None:
    counter = ConfusionCounter(GROUPINGS)
    truths: list[Tensor] = []
    guesses: dict[str, list[Tensor]] = {name: [] for name in GROUPINGS}
    for seed in range(3):
        outputs, labels = batch(seed)
        predictions = counter.add(outputs, labels)
        truths.append(labels.flatten())
        for name, prediction in predictions.items():
            assert torch.equal(prediction.long(), enlarged(outputs[name], (20, 24)).argmax(1))
            guesses[name].append(prediction.flatten())
    truth = torch.cat(truths).numpy()
    assert counter.ignored == (truth == IGNORE).sum() > 0
    for name, grouping in GROUPINGS.items():
        rows = grouping.remap(truth[truth != IGNORE])
        columns = torch.cat(guesses[name]).numpy()[truth != IGNORE]
        oracle = confusion_matrix(rows, columns, labels=range(grouping.num_groups))
        assert torch.equal(counter.counts[name], torch.from_numpy(oracle))


def test_corners_may_be_aligned() -> None:
    outputs, labels = batch()
    predictions = ConfusionCounter(GROUPINGS, align_corners=True).add(outputs, labels)
    for name, logits in outputs.items():
        assert torch.equal(predictions[name].long(), enlarged(logits, (20, 24), True).argmax(1))


@pytest.mark.parametrize("ignore", [255, 5, -1])
def test_an_image_without_labels_counts_only_as_ignored(ignore: int) -> None:
    counter = ConfusionCounter(GROUPINGS, ignore)
    counter.add(batch()[0], torch.full((2, 20, 24), ignore))
    assert counter.ignored == 2 * 20 * 24
    assert not any(count.any() for count in counter.counts.values())


@pytest.mark.parametrize("wrong", [5, 6, -1, 300])
def test_a_label_that_is_no_class_is_named(wrong: int) -> None:
    outputs, labels = batch()
    labels[1, 3, 4] = wrong
    with pytest.raises(DataError, match=rf"label {wrong} in a mask of 5 classes; labels are 0\.\.4 or .* label 255"):
        ConfusionCounter(GROUPINGS).add(outputs, labels)


def test_an_output_that_does_not_fit_is_named() -> None:
    outputs, labels = batch()
    with pytest.raises(PlanError, match="no grouping for the output 'finale'.*final"):
        ConfusionCounter(GROUPINGS).add({"finale": outputs["final"]}, labels)
    with pytest.raises(PlanError, match="output 's' has 5 groups, its grouping 3"):
        ConfusionCounter(GROUPINGS).add({"s": outputs["final"]}, labels)


def test_labels_of_one_byte_are_counted_without_overflow() -> None:
    outputs, labels = batch()
    plain, small = ConfusionCounter(GROUPINGS), ConfusionCounter(GROUPINGS)
    plain.add(outputs, labels)
    small.add(outputs, labels.to(torch.uint8))
    assert all(torch.equal(plain.counts[name], small.counts[name]) for name in GROUPINGS)
    assert plain.ignored == small.ignored


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.complex64])
def test_labels_that_are_not_whole_are_refused(dtype: torch.dtype) -> None:
    """Cut off, a mask that ToTensor has divided by 255 is all class 0."""
    outputs, labels = batch()
    counter = ConfusionCounter(GROUPINGS)
    name = str(dtype).removeprefix("torch.")
    with pytest.raises(
        DataError, match=rf"labels are {name}, and must be whole class ids; .* PILToTensor .* \(mask \*"
    ):
        counter.add(outputs, (labels / 255).to(dtype))
    with pytest.raises(DataError, match=r"labels are of type ndarray; give a tensor"):
        counter.add(outputs, labels.numpy())
    assert not any(count.any() for count in counter.counts.values())


@pytest.mark.parametrize("shape", [(1, 20, 24), (2, 5, 20, 24), (20, 24), (3, 20, 24)])
def test_labels_of_another_shape_are_refused(shape: tuple[int, ...]) -> None:
    counter = ConfusionCounter(GROUPINGS)
    message = rf"labels of shape \({', '.join(map(str, shape))}\) for logits of shape \(2, .*; give \(N, H, W\) for"
    with pytest.raises(PlanError, match=message):
        counter.add(batch()[0], torch.zeros(shape, dtype=torch.int64))
    assert not any(count.any() for count in counter.counts.values())


@pytest.mark.parametrize("dtype", [torch.uint16, torch.int16, torch.int32])
def test_labels_of_any_integers_are_counted_alike(dtype: torch.dtype) -> None:
    outputs, labels = batch()
    plain, other = ConfusionCounter(GROUPINGS), ConfusionCounter(GROUPINGS)
    plain.add(outputs, labels)
    other.add(outputs, labels.to(dtype))
    assert all(torch.equal(plain.counts[name], other.counts[name]) for name in GROUPINGS)
    assert plain.ignored == other.ignored > 0


def test_an_ignore_label_that_a_byte_cannot_hold_ignores_no_class() -> None:
    """-100 and 156 are the same byte."""
    counter = ConfusionCounter({"final": Grouping.identity(200)}, ignore_index=-100)
    counter.add({"final": torch.randn(1, 200, 4, 4)}, torch.full((1, 8, 8), 156, dtype=torch.uint8))
    assert counter.ignored == 0
    assert int(counter.counts["final"][156].sum()) == 64


def test_outputs_must_come_by_name() -> None:
    outputs, labels = batch()
    with pytest.raises(PlanError, match="the counter was given one tensor; give it all"):
        ConfusionCounter(GROUPINGS).add(outputs["final"], labels)


def test_a_masked_class_is_never_predicted_and_spoils_no_other() -> None:
    logits = 10 * torch.randn(2, 5, 16, 24, generator=torch.Generator().manual_seed(0))
    expected = enlarged(logits[:, :4], (64, 96)).argmax(1)
    for masked in (-torch.inf, -3e38):
        logits[:, 4] = masked
        assert (predict(logits, (64, 96)).long() != expected).double().mean() < 1e-4
    logits[0, 2, 3, 4] = torch.inf
    assert predict(logits, (16, 24))[0, 3, 4] == 2
    assert predict(logits, (64, 96))[0, 12:16, 16:20].eq(2).all()


def test_a_logit_that_is_no_number_spoils_its_own_pixels_only() -> None:
    logits = 10 * torch.randn(1, 5, 16, 24, generator=torch.Generator().manual_seed(0))
    whole = predict(logits, (64, 96))
    logits[0, 1, 3, 4] = torch.nan
    found = predict(logits, (64, 96))
    assert not found[0, 12:16, 16:20].any()
    far = torch.ones_like(found, dtype=torch.bool)
    far[0, 8:20, 12:24] = False  # where the pixel has a share
    assert torch.equal(found[far], whole[far])
