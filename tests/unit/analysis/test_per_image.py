from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hs3seg.analysis import confusion_matrix
from hs3seg.analysis.per_image import PerImage, PerImageCounter, load_per_image, save_per_image
from hs3seg.errors import PlanError
from hs3seg.taxonomy import Grouping

K = 5
GROUPINGS = {
    "early": Grouping.from_groups([[0, 1], [2], [3, 4]], K),
    "late": Grouping.identity(K),
    "final": Grouping.identity(K),
}


def scenes(seed: int, count: int) -> list[tuple[np.ndarray, dict[str, np.ndarray]]]:
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(count):
        truth = rng.choice([0, 1, 2, 3, 4, 255], (6, 7)).astype(np.uint8)
        final = np.where(rng.random(truth.shape) < 0.5, truth, rng.integers(0, K, truth.shape)) % K
        groups = np.array(GROUPINGS["early"].assignment)
        early = np.where(rng.random(truth.shape) < 0.7, groups[final], rng.integers(0, 3, truth.shape))
        late = np.where(rng.random(truth.shape) < 0.7, final, rng.integers(0, K, truth.shape))
        found.append((truth, {"early": early.astype(np.uint8), "late": late.astype(np.uint8), "final": final}))
    return found


def counted(images: list[tuple[np.ndarray, dict[str, np.ndarray]]]) -> PerImage:
    counter = PerImageCounter(GROUPINGS)
    for index in reversed(range(len(images))):  # several processes give no order
        counter.add(index, f"image{index}", *images[index])
    return counter.result()


@settings(max_examples=25)
@given(seed=st.integers(0, 2**31), count=st.integers(1, 6))
def test_images_add_up_to_the_matrices_of_the_whole_split(seed: int, count: int) -> None:
    images = scenes(seed, count)
    total = counted(images).total()
    for output, grouping in GROUPINGS.items():
        truth = np.stack([grouping.remap(truth) for truth, _ in images])
        found = np.stack([predictions[output] for _, predictions in images])
        np.testing.assert_array_equal(total[output], confusion_matrix(truth, found, grouping.num_groups))


def test_weights_and_resamples_are_sums_of_images_matrices() -> None:
    images = scenes(3, 7)
    counts = counted(images)
    weights = np.array([0, 2, 1, 0, 3, 0, 1])
    slow = sum(w * counted([image]).total()["early"] for w, image in zip(weights, images, strict=True))
    np.testing.assert_array_equal(counts.weighted(weights)["early"], slow)
    drawn = np.random.default_rng(5).integers(0, 7, 7)
    again = counted([images[i] for i in drawn]).total()
    for output, matrix in counts.resample(np.random.default_rng(5)).items():
        np.testing.assert_array_equal(matrix, again[output])


def test_images_keep_their_names_pixels_and_classes() -> None:
    images = scenes(4, 4)
    counts = counted(images)
    assert counts.names == ("image0", "image1", "image2", "image3")
    np.testing.assert_array_equal(counts.pixels, [(truth != 255).sum() for truth, _ in images])
    of_truth = counts.outputs["final"].of_truth(4)
    np.testing.assert_array_equal(of_truth, [[(truth == c).sum() for c in range(K)] for truth, _ in images])


def test_only_pixels_that_all_outputs_hold_for_one_other_class_agree() -> None:
    # Truth, early group (of 0 0 1 2 2), late, final; the last column says whether label and network disagree.
    pixels = [
        (2, 0, 1, 1, True),
        (0, 0, 1, 1, False),  # early: class 0 and 1 are one group, so it is right
        (2, 0, 0, 1, False),  # late says another class
        (2, 2, 1, 1, False),  # early says another group
        (2, 1, 2, 2, False),  # all are right
        (4, 1, 2, 2, True),
        (255, 1, 2, 2, False),
    ]
    truth, early, late, final, _ = (np.array([column]) for column in zip(*pixels, strict=True))
    agreed = counted([(truth, {"early": early, "late": late, "final": final})]).agreed
    expected = np.zeros((K, K), np.int64)
    for label, *_, said, counts in pixels:
        if counts:
            expected[label, said] += 1
    np.testing.assert_array_equal(agreed.weighted([1]), expected)


def test_a_file_gives_back_what_was_saved(tmp_path: Path) -> None:
    counts = counted(scenes(6, 5))
    save_per_image(tmp_path / "per_image.npz", counts)
    loaded = load_per_image(tmp_path / "per_image.npz")
    assert loaded.names == counts.names
    assert list(loaded.outputs) == ["early", "late", "final"]
    pairs = zip((*counts.outputs.values(), counts.agreed), (*loaded.outputs.values(), loaded.agreed), strict=True)
    for one, other in pairs:
        assert one.size == other.size
        for part in ("image", "row", "column", "count"):
            np.testing.assert_array_equal(getattr(one, part), getattr(other, part))


def test_no_image_at_all_is_no_error(tmp_path: Path) -> None:
    save_per_image(tmp_path / "none.npz", PerImageCounter(GROUPINGS).result())
    assert load_per_image(tmp_path / "none.npz").total()["early"].sum() == 0


def test_damaged_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "per_image.npz"
    save_per_image(path, counted(scenes(6, 5)))
    with np.load(path) as file:
        arrays = dict(file)
    for change, message in (
        ({"agreed/row": arrays["agreed/row"] + 5}, "array 'agreed/row' is damaged"),
        ({"output/final/image": arrays["output/final/image"][1:]}, "array 'output/final/row' is damaged"),
        ({"pixels": arrays["pixels"][:2]}, "arrays of different sizes"),
        ({"names": None}, "no array 'names'"),
    ):
        changed = {name: value for name, value in (arrays | change).items() if value is not None}
        np.savez(path, **changed)
        with pytest.raises(PlanError, match=message):
            load_per_image(path)
    with pytest.raises(PlanError, match="does not exist"):
        load_per_image(tmp_path / "other.npz")
