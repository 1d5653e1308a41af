"""Hints about labels: where the network contradicts the truth, above all where every output agrees on another class.

A hint is no proof. Hard classes are contradicted everywhere, so an image counts by how much more than usual it is.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hs3seg.analysis.per_image import Cells, PerImage

_USUAL = 0.01
"""Share of a class's pixels that is taken to be contradicted before an image was seen, with the weight of one image."""


@dataclass(frozen=True)
class PairHint:
    """Pixels of one image that are labelled as one class and that the final output holds for another.

    Args:
        label: Class id of the truth.
        said: Class id of the final output.
        pixels: How many.
        agreed: Of these, the pixels where every output is wrong and says the same.
        share: Of the pixels with this label in this image; those where only the final output speaks count half.
        expected: Mean of this share over the other images that have the label.
        score: sqrt(contradicted share of the image) x ln(share / expected), counted alike; 0 where it is not above.
    """

    label: int
    said: int
    pixels: int
    agreed: int
    share: float
    expected: float
    score: float


@dataclass(frozen=True)
class ImageHint:
    """An image with its pairs.

    Args:
        image: Its position in the split.
        name: Of the image.
        score: Of its first pair.
        pairs: Highest score first.
    """

    image: int
    name: str
    score: float
    pairs: tuple[PairHint, ...]


def label_hints(counts: PerImage, limit: int | None = None, max_pairs: int = 3) -> tuple[ImageHint, ...]:
    """Ranks the images by how unusually the outputs contradict their labels.

    The share of a label's pixels that is held for one other class is compared with the mean share of the other images,
    each counting alike: mistakes come object by object, and one large object must not hide what is usual. The root
    of the size lets a large region weigh more, but not as if each of its pixels were a witness of its own. A pixel
    counts half where the stages do not bear the final output out: an early stage may be unable to see the class.

    Args:
        counts: Of any evaluation; stages in groups bear out only what lies in another of their groups.
        limit: At most this many images; None = all with a score above 0.
        max_pairs: Kept per image.
    """
    cells = counts.outputs["final"]
    wrong = cells.row != cells.column
    image, row, column, pixels = (part[wrong] for part in (cells.image, cells.row, cells.column, cells.count))
    agreed = _matching(counts.agreed, image, row, column)
    evidence = (pixels + agreed) / 2
    of_label = cells.of_truth(counts.num_images)  # (N, K)
    share = evidence / of_label[image, row]
    flat = row * cells.size + column
    sums = np.bincount(flat, share, cells.size**2)[flat]
    others = (of_label > 0).sum(axis=0)[row] - 1
    # Rounding may leave less than nothing of the sum of the others.
    expected = (np.maximum(sums - share, 0) + _USUAL) / (others + 1)
    scores = np.sqrt(evidence / counts.pixels[image]) * np.log(np.maximum(share / expected, 1))
    pairs: dict[int, list[PairHint]] = {}
    for i in np.argsort(-scores, kind="stable"):
        if scores[i] <= 0:
            break
        of_image = pairs.setdefault(int(image[i]), [])
        if len(of_image) < max_pairs:
            numbers = int(row[i]), int(column[i]), int(pixels[i]), int(agreed[i])
            of_image.append(PairHint(*numbers, float(share[i]), float(expected[i]), float(scores[i])))
    # The dictionary has the images in the order of their best pairs.
    found = (ImageHint(number, counts.names[number], of[0].score, tuple(of)) for number, of in pairs.items())
    return tuple(found)[:limit]


def _matching(
    cells: Cells, image: NDArray[np.int64], row: NDArray[np.int64], column: NDArray[np.int64]
) -> NDArray[np.int64]:
    """The counts of `cells` at the given places, 0 where they have none."""

    def keys(i: NDArray[np.int64], r: NDArray[np.int64], c: NDArray[np.int64]) -> NDArray[np.int64]:
        return (i * cells.size + r) * cells.size + c

    own = keys(cells.image, cells.row, cells.column)
    order = np.argsort(own)
    wanted = keys(image, row, column)
    places = np.searchsorted(own[order], wanted)
    known = np.append(own[order], -1)[places] == wanted
    return np.where(known, np.append(cells.count[order], 0)[places], 0)
