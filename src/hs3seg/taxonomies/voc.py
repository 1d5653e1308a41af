"""Pascal VOC: 20 kinds of object and the background. Source: the development kit of Everingham et al., VOC2012."""

from hs3seg.taxonomy import Colour, Taxonomy

_NAMES = (
    *("background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow"),
    *("diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor"),
)


def voc_colour(index: int) -> Colour:
    """Colour of a label 0..255: its bits in turn are the highest bits of r, g, b, then the second, and so on."""
    channels = [0, 0, 0]
    for bit in range(8):
        channels[bit % 3] |= (index >> bit & 1) << (7 - bit // 3)
    return channels[0], channels[1], channels[2]


VOC = Taxonomy(_NAMES, tuple(voc_colour(index) for index in range(len(_NAMES))))
"""The 21 classes; class c is label c of the files, where 255 is the border of objects."""
