import numpy as np
import torch

from hs3seg.nn import ClassMeans


def test_means_are_those_of_each_classs_pixels_over_all_batches() -> None:
    rng = np.random.default_rng(0)
    features = torch.from_numpy(rng.normal(size=(6, 3, 4, 5)))
    labels = torch.from_numpy(rng.choice([0, 1, 3, 255], size=(6, 4, 5)))
    means = ClassMeans(4, ["s"])
    for part in (slice(0, 1), slice(1, 4), slice(4, 6)):
        means.update({"s": features[part].float()}, labels[part])
    found = ClassMeans.means(means.totals())["s"]
    points, flat = features.permute(0, 2, 3, 1).reshape(-1, 3).numpy(), labels.reshape(-1).numpy()
    for c in (0, 1, 3):
        np.testing.assert_allclose(found[c], points[flat == c].mean(0), atol=1e-6)
    assert np.isnan(found[2]).all()


def test_labels_are_sampled_where_the_features_cells_have_their_centres() -> None:
    labels = torch.zeros(1, 6, 8, dtype=torch.int64)
    labels[:, :, 4:] = 1
    labels[:, 3:] += 2  # quarters: 0 1 / 2 3
    values = torch.arange(4.0).reshape(1, 1, 2, 2)
    means = ClassMeans(4, ["s", "t"])
    means.update({"s": values, "t": values.repeat_interleave(3, 2).repeat_interleave(4, 3).bfloat16()}, labels)
    for stage, counts in (("s", 1.0), ("t", 12.0)):
        np.testing.assert_array_equal(ClassMeans.means(means.totals())[stage][:, 0], [0, 1, 2, 3])
        assert means.totals()[stage][1].tolist() == [counts] * 4


def test_an_all_ignored_batch_adds_nothing() -> None:
    means = ClassMeans(2, ["s"])
    means.update({"s": torch.ones(1, 3, 2, 2)}, torch.full((1, 4, 4), 255))
    sums, counts = means.totals()["s"]
    assert not sums.any()
    assert not counts.any()
