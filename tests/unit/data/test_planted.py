import numpy as np
import pytest
from scipy import ndimage

from hs3seg.data.planted import SURFACES, PlantedScenes, planted_grouping, planted_taxonomy
from hs3seg.errors import DataError
from hs3seg.taxonomy import Grouping

NAMES = planted_taxonomy(3).names


def insides(count: int, seed: int, margin: int) -> dict[str, list[tuple[np.ndarray, np.ndarray]]]:
    """Image (H, W, 3) and inner pixels (H, W) of each scene that shows a class, by class."""
    scenes = PlantedScenes("train", count, seed=seed, num_shapes=3)
    found: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {name: [] for name in NAMES}
    for index in range(count):
        sample = scenes.read(index)
        image, mask = sample.image.numpy().transpose(1, 2, 0).astype(float), sample.mask.numpy()
        for label in np.unique(mask[mask != 255]):
            found[NAMES[label]].append((image, ndimage.binary_erosion(mask == label, iterations=margin)))
    return found


def test_scenes_depend_on_seed_split_and_index_alone() -> None:
    one, again = PlantedScenes("train", 4, seed=1), PlantedScenes("train", 9, seed=1)
    assert (one.read(3).image == again.read(3).image).all()
    assert (one.read(3).mask == again.read(3).mask).all()
    others = [PlantedScenes("train", 4, seed=2).read(3), PlantedScenes("val", 4, seed=1).read(3), one.read(2)]
    assert all((one.read(3).image != other.image).any() for other in others)


def test_shapes_types_and_names() -> None:
    scenes = PlantedScenes("val", 3, size=(72, 80))
    sample = scenes.read(2)
    assert sample.image.shape == (3, 72, 80)
    assert sample.mask.shape == (72, 80)
    assert sample.name == scenes.names[2] == "val-00002"
    assert scenes.files(2) == ("planted scene val-00002",)
    assert scenes.taxonomy == planted_taxonomy(2)
    with pytest.raises(IndexError):
        scenes.read(3)


@pytest.mark.parametrize("mixed", [False, True])
def test_every_class_occurs_and_every_object_is_whole_and_alone(mixed: bool) -> None:
    scenes = PlantedScenes("train", 100, seed=0, num_shapes=3, mixed=mixed)
    background = 0 if mixed else scenes.taxonomy.ignore_index
    seen: set[int] = set()
    for index in range(len(scenes)):
        mask = scenes.read(index).mask.numpy()
        objects, count = ndimage.label(mask != background, np.ones((3, 3)))
        assert 1 <= count <= 3
        for number in range(1, count + 1):
            labels = np.unique(mask[objects == number])
            assert len(labels) == 1  # two objects that touched would be one with two labels
            # Radii are 0.36 to 0.44 of 80 pixels; the smallest shape is the triangle, the largest the disc.
            area = (objects == number).sum()
            assert 0.97 * 0.75 * 3**0.5 * 28.8**2 <= area <= 1.03 * np.pi * (0.85 * 35.2) ** 2
        seen |= set(np.unique(mask).tolist())
    assert seen == {background, *range(scenes.taxonomy.num_classes)}


@pytest.mark.parametrize("num_shapes", [2, 3])
def test_the_local_truth_joins_the_shapes_of_a_surface(num_shapes: int) -> None:
    shapes = ("disc", "ring", "triangle")[:num_shapes]
    joined = {s: " + ".join(f"{s}_{shape}" for shape in shapes) for s in SURFACES}
    crossed, mixed = (planted_grouping("local", num_shapes, mixed=value) for value in (False, True))
    assert crossed.group_names(planted_taxonomy(num_shapes).names) == tuple(joined.values())
    assert mixed.group_names(planted_taxonomy(num_shapes, mixed=True).names) == (
        "background",
        *(joined[surface] for surface in ("red", "blue", "green")),
        *("yellow", "striped", "checked"),
    )
    assert planted_grouping("global", num_shapes) == Grouping.identity(crossed.num_classes)


def test_a_window_of_an_early_stage_fits_inside_every_shape() -> None:
    # 15 pixels: the receptive field of HRNet's layer1. A pixel whose whole window is of its own class sees no outline.
    shares: dict[str, list[float]] = {"disc": [], "ring": [], "triangle": []}
    scenes = PlantedScenes("train", 60, seed=2, num_shapes=3)
    for index in range(len(scenes)):
        mask = scenes.read(index).mask.numpy()
        for label in np.unique(mask[mask != 255]):
            inside = ndimage.binary_erosion(mask == label, np.ones((15, 15)))
            shares[scenes.taxonomy.names[label].split("_")[1]].append(inside.sum() / (mask == label).sum())
    assert min(shares["disc"]) > 0.3
    assert min(shares["triangle"]) > 0.05
    assert np.mean(shares["ring"]) > 0.005


def test_shapes_of_one_colour_look_alike_inside_and_colours_do_not() -> None:
    found = insides(150, seed=5, margin=2)
    means = {
        name: np.concatenate([image[inside] for image, inside in found[name]]).mean(0) for name in NAMES if found[name]
    }
    for colour in ("red", "blue", "green", "yellow"):
        shapes = [means[f"{colour}_{shape}"] for shape in ("disc", "ring", "triangle")]
        # Light and paint differ by some 25 levels from object to object, and a mean is over few.
        assert max(np.abs(a - b).max() for a in shapes for b in shapes) < 30
    surfaces = [means["red_disc"], means["blue_disc"], means["green_disc"], means["yellow_disc"]]
    distances = [np.abs(a - b).max() for i, a in enumerate(surfaces) for b in surfaces[:i]]
    assert min(distances) > 50


def test_patterns_differ_in_what_a_small_window_shows() -> None:
    # In a window of one period, stripes vary along one direction and checks along two: the smaller eigenvalue of the
    # structure tensor, relative to the larger one, tells them apart.
    found = insides(80, seed=3, margin=5)
    ratios: dict[str, list[float]] = {"striped": [], "checked": []}
    for name, values in ratios.items():
        for image, inside in (scene for shape in ("disc", "triangle") for scene in found[f"{name}_{shape}"]):
            dy, dx = np.gradient(ndimage.gaussian_filter(image.mean(2), 1.0))
            low, high = np.linalg.eigvalsh(np.cov(np.stack([dy[inside], dx[inside]])))
            values.append(low / high)
    assert all(len(values) >= 5 for values in ratios.values())
    assert max(ratios["striped"]) < min(ratios["checked"])


def test_wrong_arguments_are_refused() -> None:
    with pytest.raises(DataError, match="allowed: train, val, test"):
        PlantedScenes("all", 1)
    with pytest.raises(DataError, match="at least 64x64"):
        PlantedScenes("train", 1, size=(64, 63))
    with pytest.raises(DataError, match="allowed: 2, 3"):
        PlantedScenes("train", 1, num_shapes=4)
    with pytest.raises(DataError, match="allowed: local, global"):
        planted_grouping("early")  # type: ignore[arg-type]
