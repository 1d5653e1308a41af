"""Hints about labels: where every output of the network contradicts the truth, and agrees on another class.

A hint is no proof. Hard classes are contradicted everywhere, so an image counts by how much more than usual it is.
"""

from dataclasses import dataclass

import numpy as np

from hs3seg.analysis.per_image import PerImage

_USUAL = 0.01
"""Share of a class's pixels that is taken to be contradicted before an image was seen, with the weight of one image."""


@dataclass(frozen=True)
class PairHint:
    """Pixels of one image that are labelled as one class and that all outputs hold for another.

    Args:
        label: Class id of the truth.
        said: Class id of all outputs.
        pixels: How many.
        share: Of the pixels with this label in this image.
        expected: Mean of this share over the other images that have the label.
        score: sqrt(share of the image's labelled pixels) x ln(share / expected); 0 where it is not above.
    """

    label: int
    said: int
    pixels: int
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
    """Ranks the images by how unusually all outputs contradict their labels.

    The share of a label's pixels that is held for one other class is compared with the mean share of the other images,
    each counting alike: mistakes come object by object, and one large object must not hide what is usual. The root
    of the size lets a large region weigh more, but not as if each of its pixels were a witness of its own.

    Args:
        counts: Of any evaluation; with stages in groups, classes of one group are never contradicted by it.
        limit: At most this many images; None = all with a score above 0.
        max_pairs: Kept per image.
    """
    cells = counts.agreed
    of_label = counts.outputs["final"].of_truth(counts.num_images)  # (N, K)
    share = cells.count / of_label[cells.image, cells.row]
    flat = cells.row * cells.size + cells.column
    sums = np.bincount(flat, share, cells.size**2)[flat]
    others = (of_label > 0).sum(axis=0)[cells.row] - 1
    # Rounding may leave less than nothing of the sum of the others.
    expected = (np.maximum(sums - share, 0) + _USUAL) / (others + 1)
    size = np.sqrt(cells.count / counts.pixels[cells.image])
    scores = size * np.log(np.maximum(share / expected, 1))
    pairs: dict[int, list[PairHint]] = {}
    for i in np.argsort(-scores, kind="stable"):
        if scores[i] <= 0:
            break
        image = pairs.setdefault(int(cells.image[i]), [])
        if len(image) < max_pairs:
            values = float(share[i]), float(expected[i]), float(scores[i])
            image.append(PairHint(int(cells.row[i]), int(cells.column[i]), int(cells.count[i]), *values))
    # The dictionary has the images in the order of their best pairs.
    found = (ImageHint(image, counts.names[image], of[0].score, tuple(of)) for image, of in pairs.items())
    return tuple(found)[:limit]
