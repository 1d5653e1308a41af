from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torchmetrics.classification import MulticlassConfusionMatrix, MulticlassJaccardIndex
from torchvision import tv_tensors

from hs3seg.analysis import StagePlan, SupervisionPlan, no_supervision
from hs3seg.data import EvaluationLoader, EvaluationTransform, Sample
from hs3seg.engine import Runtime, evaluate
from hs3seg.engine.evaluation import _embeddings
from hs3seg.nn import Supervised, supervise
from hs3seg.nn.embeddings import ClassMeans
from hs3seg.taxonomy import Grouping, Taxonomy
from tests.unit.engine.conftest import MEAN, SILENT, STD, Colours, Small

GROUPING = Grouping.from_labels([0, 1, 1])


@pytest.fixture
def model() -> Supervised:
    torch.manual_seed(0)
    plan = SupervisionPlan(Colours.taxonomy.names, (StagePlan("first", GROUPING),))
    return supervise(Small(), plan=plan, example=torch.zeros(1, 3, 24, 32))


@pytest.mark.parametrize(("batch_size", "resize"), [(1, None), (5, None), (4, (16, 20))])
def test_counts_equal_an_oracle_at_label_resolution(
    model: Supervised, runtime: Runtime, batch_size: int, resize: tuple[int, int] | None
) -> None:
    data = Colours(7)
    transform = EvaluationTransform(resize)
    found = evaluate(model, EvaluationLoader(data, transform, batch_size), runtime, SILENT, mean=MEAN, std=STD)
    matrices = {
        "first": MulticlassConfusionMatrix(2, ignore_index=255),
        "final": MulticlassConfusionMatrix(3, ignore_index=255),
    }
    jaccard = MulticlassJaccardIndex(3, average="none", ignore_index=255)
    model.eval()
    for index in range(7):
        image, mask = transform(data.read(index))
        normal = (image / 255 - MEAN.view(3, 1, 1)) / STD.view(3, 1, 1)
        with torch.no_grad():
            outputs = model(normal[None])
        for stage, logits in outputs.items():
            prediction = F.interpolate(logits, size=mask.shape, mode="bilinear").argmax(1)
            truth = torch.from_numpy(GROUPING.remap(mask.numpy())) if stage == "first" else mask
            matrices[stage].update(prediction, truth[None])
            if stage == "final":
                jaccard.update(prediction, mask[None])
    for stage, matrix in matrices.items():
        assert (found.confusions[stage] == matrix.compute().numpy()).all()
    values = found.to_dict()
    assert list(values["iou"].values()) == pytest.approx(jaccard.compute().tolist())
    assert values["num_images"] == 7
    assert values["all_ignored_images"] == ["colours-3"]
    assert values["num_pixels"] + values["num_ignored_pixels"] == 7 * 24 * 32
    assert list(values["stages"]["first"]["iou"]) == ["black", "red + green"]


def test_samples_are_spread_and_hold_what_was_predicted(model: Supervised, runtime: Runtime) -> None:
    loader = EvaluationLoader(Colours(9), EvaluationTransform(), 4)
    found = evaluate(model, loader, runtime, SILENT, mean=MEAN, std=STD, num_samples=3)
    assert found.samples["names"].tolist() == ["colours-0", "colours-4", "colours-8"]
    assert found.samples["1/image"].shape == (24, 32, 3)
    assert found.samples["1/first"].max() < 2
    counted = np.bincount(found.samples["0/truth"].ravel(), minlength=256)
    assert counted[255] == 4


def test_samples_of_images_with_depth_are_their_colours(runtime: Runtime) -> None:
    class Deep(Colours):
        channels = 4

        def read(self, index: int) -> Sample:
            sample = super().read(index)
            return replace(sample, image=tv_tensors.Image(torch.cat([sample.image, sample.image[:1]])))

    net = nn.Conv2d(4, 3, 1)
    model = supervise(net, plan=no_supervision(Colours.taxonomy.names), example=torch.zeros(1, 4, 24, 32))
    statistics = {"mean": torch.full((4,), 0.5), "std": torch.full((4,), 0.25)}
    loader = EvaluationLoader(Deep(2), EvaluationTransform(), 2)
    found = evaluate(model, loader, runtime, SILENT, num_samples=1, **statistics)
    assert np.array_equal(found.samples["0/image"], Colours(2).read(0).image.permute(1, 2, 0).numpy())


def test_class_means_equal_brute_force(model: Supervised, runtime: Runtime) -> None:
    data = Colours(5)
    loader = EvaluationLoader(data, EvaluationTransform(), 2)
    found = evaluate(model, loader, runtime, SILENT, mean=MEAN, std=STD, with_embeddings=True).embeddings["first"]
    points: dict[int, list[np.ndarray]] = {0: [], 1: [], 2: []}
    model.eval()
    for index in range(5):
        sample = data.read(index)
        normal = (sample.image / 255 - MEAN.view(3, 1, 1)) / STD.view(3, 1, 1)
        with torch.no_grad():
            features = model.forward_with_features(normal[None])[1]["first"][0]  # (8, 12, 16)
        for y in range(12):
            for x in range(16):
                label = int(sample.mask[2 * y + 1, 2 * x + 1])
                if label != 255:
                    points[label].append(features[:, y, x].numpy())
    np.testing.assert_allclose(found, [np.mean(points[c], 0) for c in range(3)], rtol=1e-4)


def test_the_model_comes_back_in_its_mode(model: Supervised, runtime: Runtime) -> None:
    for mode in (True, False):
        model.train(mode)
        evaluate(model, EvaluationLoader(Colours(1), EvaluationTransform(), 1), runtime, SILENT, mean=MEAN, std=STD)
        assert model.training is mode


def test_normalisation_is_exact(runtime: Runtime) -> None:
    images = torch.arange(256, dtype=torch.uint8).repeat(3, 1).view(1, 3, 16, 16)
    expected = (images.float() / 255 - MEAN.view(3, 1, 1)) / STD.view(3, 1, 1)
    torch.testing.assert_close(runtime.images(images, MEAN, STD), expected)


def test_means_of_classes_are_joined_where_a_process_has_seen_no_image(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    means, other, both = (ClassMeans(3, ["s"]) for _ in range(3))
    for seen, seed in ((means, 0), (other, 1)):
        torch.manual_seed(seed)
        features, labels = torch.rand(1, 4, 5, 6), torch.randint(0, 3, (1, 10, 12))
        seen.update({"s": features}, labels)
        both.update({"s": features}, labels)
    monkeypatch.setattr(runtime, "gather", lambda items: [{}, *items, other.totals()])
    np.testing.assert_allclose(_embeddings(means, runtime)["s"], ClassMeans.means(both.totals())["s"])
    assert ClassMeans(3, ["s"]).totals() == {}  # such a process joins the same one call as all others


@pytest.mark.parametrize(("classes", "kind", "ignored"), [(255, np.uint8, 255), (256, np.uint16, 65535)])
def test_samples_hold_every_class(runtime: Runtime, classes: int, kind: type, ignored: int) -> None:
    class Many(Colours):
        taxonomy = Taxonomy.from_names([f"class {number}" for number in range(classes)], ignore_index=60000)

        def read(self, index: int) -> Sample:
            sample = super().read(index)
            mask = torch.where(sample.mask == 255, 60000, sample.mask)
            mask[1, :2] = classes - 1
            return replace(sample, mask=tv_tensors.Mask(mask))

    plan = SupervisionPlan(Many.taxonomy.names, (StagePlan("first", Grouping.identity(classes)),))
    net = Small(classes)
    torch.nn.init.zeros_(net.head.weight)
    net.head.bias.data = torch.arange(float(classes))  # the last class wins everywhere
    model = supervise(net, plan=plan, example=torch.zeros(1, 3, 24, 32))
    loader = EvaluationLoader(Many(2), EvaluationTransform(), 2)
    samples = evaluate(model, loader, runtime, SILENT, mean=MEAN, std=STD, num_samples=2).samples
    assert {samples[f"0/{name}"].dtype for name in ("truth", "first", "final")} == {np.dtype(kind)}
    assert np.unique(samples["0/final"]).tolist() == [classes - 1]
    assert samples["0/truth"][0, :4].tolist() == [ignored] * 4
    assert samples["0/truth"][1, :2].tolist() == [classes - 1] * 2
