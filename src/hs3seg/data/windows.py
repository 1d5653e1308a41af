"""Windows that cover an image."""

Window = tuple[int, int, int, int]
"""(top, left, bottom, right), right and bottom not included."""


def windows(size: tuple[int, int], crop: tuple[int, int], stride: tuple[int, int]) -> list[Window]:
    """Windows of one size that cover an image, row by row; the last of a row or column is moved back to the border.

    Args:
        size: (height, width) of the image.
        crop: (height, width) of a window; an image smaller than it gets one window of the crop's size, to be padded.
        stride: (down, right) from one window to the next, 1..crop.

    Raises:
        ValueError: a stride that leaves gaps, or is no step.
    """
    rows, columns = (_starts(*values) for values in zip(size, crop, stride, strict=True))
    return [(top, left, top + crop[0], left + crop[1]) for top in rows for left in columns]


def _starts(length: int, crop: int, stride: int) -> list[int]:
    if not 1 <= stride <= crop:
        raise ValueError(f"stride {stride} with windows of {crop}; allowed: 1..{crop}, larger ones leave gaps")
    last = max(0, length - crop)
    return [*range(0, last, stride), last]
