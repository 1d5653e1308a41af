import numpy as np
import pytest

from hs3seg.analysis.label_noise import label_hints
from hs3seg.analysis.per_image import PerImage, PerImageCounter
from hs3seg.taxonomy import Grouping

K = 10
OUTPUTS = {"stage2": 0.3, "stage3": 0.2, "final": 0.12}  # share of the pixels that are wrong for no reason
ALIKE = {c: ((c + 1) % K, (c + 3) % K) for c in range(K)}
HARD = np.linspace(0.01, 0.3, K)  # share of objects that are taken for an alike class


def scene(rng: np.random.Generator) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Boxes of classes, and what a network says: whole boxes and scattered pixels go to alike classes."""
    truth = np.full((32, 40), rng.integers(K), np.int64)
    said = truth.copy()
    for _ in range(rng.integers(4, 9)):
        top, left = rng.integers(0, 24), rng.integers(0, 30)
        box = slice(top, top + rng.integers(6, 18)), slice(left, left + rng.integers(6, 20))
        truth[box] = label = int(rng.integers(K))
        said[box] = rng.choice(ALIKE[label]) if rng.random() < HARD[label] else label
    alike = np.array([ALIKE[c] for c in range(K)])[said, rng.integers(0, 2, said.shape)]
    lucky = rng.random(said.shape)
    return truth, {output: np.where(lucky < wrong, alike, said) for output, wrong in OUTPUTS.items()}


def planted(seed: int, count: int = 400, share: float = 0.05) -> tuple[PerImage, dict[int, int]]:
    """Counts of scenes, and the label that a class of some images got in place of its own."""
    rng = np.random.default_rng(seed)
    counter = PerImageCounter({output: Grouping.identity(K) for output in OUTPUTS})
    wrong = {}
    for image in rng.permutation(count):
        truth, predictions = scene(rng)
        if len(wrong) < round(share * count):
            classes, pixels = np.unique(truth, return_counts=True)
            true = int(rng.choice(classes[pixels >= 0.04 * truth.size]))
            label = int(rng.choice([c for c in range(K) if c != true]))
            truth[truth == true] = label
            wrong[int(image)] = label
        counter.add(int(image), f"image{image}", truth, predictions)
    return counter.result(), wrong


def raw_ranking(counts: PerImage) -> np.ndarray:
    """Images by all contradicted pixels alone."""
    pixels = np.bincount(counts.agreed.image, counts.agreed.count, counts.num_images)
    return np.argsort(-pixels, kind="stable")


@pytest.mark.parametrize("seed", range(3))
def test_planted_wrong_labels_come_first(seed: int) -> None:
    counts, wrong = planted(seed)
    hints = label_hints(counts, limit=len(wrong))
    hits = [hint for hint in hints if hint.image in wrong]
    raw = np.isin(raw_ranking(counts)[: len(wrong)], list(wrong)).mean()
    assert len(hits) / len(wrong) >= 0.8  # 0.05 by chance
    assert len(hits) / len(wrong) > raw + 0.2  # what the comparison with the usual is for
    named = [hint for hint in hits if hint.pairs[0].label == wrong[hint.image]]
    assert len(named) >= 0.9 * len(hits)


def one(label: int, said: int, pixels: int) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    truth = np.zeros((10, 10), np.int64)
    truth[:4] = label
    final = truth.copy().ravel()
    final[:pixels] = said
    return truth, dict.fromkeys(OUTPUTS, final.reshape(10, 10))


def counted(*images: tuple[np.ndarray, dict[str, np.ndarray]]) -> PerImage:
    counter = PerImageCounter({output: Grouping.identity(K) for output in OUTPUTS})
    for index, image in enumerate(images):
        counter.add(index, f"image{index}", *image)
    return counter.result()


def test_a_hint_says_what_it_was_made_from() -> None:
    hints = label_hints(counted(one(2, 5, 20), one(2, 5, 4), one(2, 5, 4), one(3, 5, 0)))
    first = hints[0]
    pair = first.pairs[0]
    assert (first.image, first.name, pair.label, pair.said, pair.pixels, pair.agreed) == (0, "image0", 2, 5, 20, 20)
    assert pair.share == pytest.approx(0.5)
    assert pair.expected == pytest.approx((0.1 + 0.1 + 0.01) / 3)
    assert first.score == pair.score == pytest.approx(np.sqrt(0.2) * np.log(0.5 / 0.07))


def test_a_pixel_counts_half_where_a_stage_does_not_bear_the_output_out() -> None:
    truth, found = one(2, 5, 20)
    stage = truth.copy().ravel()
    stage[:5] = 5  # of the 20 pixels
    stage[5:10] = 7
    hints = label_hints(counted((truth, found | {"stage2": stage.reshape(10, 10)}), one(2, 5, 0)))
    pair = hints[0].pairs[0]
    assert (pair.label, pair.said, pair.pixels, pair.agreed) == (2, 5, 20, 5)
    assert pair.share == pytest.approx((5 + 0.5 * 15) / 40)


def test_what_is_usual_for_a_class_is_no_hint() -> None:
    hints = label_hints(counted(*[one(2, 5, 20)] * 5, one(3, 5, 20), *[one(3, 5, 0)] * 4))
    assert hints[0].image == 5
    assert hints[0].score > 10 * max(hint.score for hint in hints[1:])


def test_an_image_without_contradiction_is_not_listed() -> None:
    assert label_hints(counted(one(2, 5, 0), one(3, 5, 0))) == ()
