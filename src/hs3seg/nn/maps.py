"""Feature maps in whatever a module gives, and the final logits in whatever a network gives.

Shapes: N images, C channels, h x w of a map, H x W of the image, L tokens.
"""

import dataclasses
import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from hs3seg.errors import NetworkError
from hs3seg.nn.resize import concatenate

Size = tuple[int, int]
_PREFIXES = (0, 1, 2, 4, 5)  # class, distillation and register tokens
_STRIDES = (1, 2, 4, 7, 8, 14, 16, 28, 32, 64)


@dataclasses.dataclass(frozen=True, slots=True)
class Layout:
    """How a tensor holds a map.

    Args:
        kind: `first` = (N, C, h, w), `last` = (N, h, w, C), `tokens` = (N, L, C) with the grid row by row.
        stride: Of tokens: pixels of the image per grid step.
        up: Of tokens: whether a grid side is rounded up; looked at only where the number of tokens leaves it open.
        prefix: Of tokens: how many (class, register) tokens stand before the grid.
        index: Which tensor of the module's output it is, see `tensors_of`.
    """

    kind: Literal["first", "last", "tokens"] = "first"
    stride: int = 1
    up: bool = True
    prefix: int = 0
    index: int = 0

    def size(self, tensor: Tensor, image: Size) -> Size:
        """Height and width of the map in a tensor."""
        if self.kind == "tokens":
            return self._grid_of(tensor.shape[1], image)
        shape = tensor.shape[-2:] if self.kind == "first" else tensor.shape[1:3]
        return shape[0], shape[1]

    def read(self, tensor: Tensor, image: Size) -> Tensor:
        """The map (N, C, h, w) in a tensor."""
        if self.kind == "first":
            return tensor
        if self.kind == "last":
            return tensor.permute(0, 3, 1, 2)
        height, width = self._grid_of(tensor.shape[1], image)
        return tensor[:, self.prefix :].transpose(1, 2).reshape(len(tensor), -1, height, width)

    def _grid_of(self, length: int, image: Size) -> Size:
        """The grid that so many tokens make: the example may have been one that the stride divides."""
        for up in (self.up, not self.up):
            if math.prod(size := _grid(image, self.stride, up)) == length - self.prefix:
                return size
        raise NetworkError(
            f"{length} tokens ({self.prefix} of them before the grid) are no grid of patches of {self.stride} pixels in"
            f" an image of {image[0]}x{image[1]}, as they were in the dry run; give images whose sides"
            f" {self.stride} divides, or an example of this size"
        )


def find_layout(tensor: Tensor, image: Size) -> Layout | None:
    """How a tensor holds a map of an image of H x W pixels; None if it does not seem to hold any.

    The sides of a map are those of the image divided by one number. Where both orders of the axes fit, as in a cube,
    channels come first; `either_order` says so.
    """
    if not tensor.is_floating_point():
        return None
    if tensor.ndim == 4:
        first, last = _orders(tensor, image)
        return Layout("last") if last and not first else Layout()
    if tensor.ndim == 3:
        return _tokens(tensor.shape[1], image)
    return None


def either_order(output: Any, image: Size) -> bool:
    """Whether some tensor in a module's output may hold its channels first or last: an image of another shape tells."""
    return any(tensor.ndim == 4 and all(_orders(tensor, image)) for tensor in tensors_of(output))


def tensors_of(output: Any) -> Iterator[Tensor]:
    """All tensors in nested lists, tuples, mappings and data classes, in order."""
    if isinstance(output, Tensor):
        yield output
    elif isinstance(output, Mapping):
        for value in output.values():
            yield from tensors_of(value)
    elif isinstance(output, (list, tuple)):
        for value in output:
            yield from tensors_of(value)
    elif dataclasses.is_dataclass(output) and not isinstance(output, type):
        for field in dataclasses.fields(output):
            yield from tensors_of(getattr(output, field.name))


def layouts_of(output: Any, image: Size, batch: int | None = None) -> tuple[Layout, ...]:
    """Layouts of the tensors in a module's output that hold maps.

    Token sequences count only where nothing of four axes is there: beside maps they are classes, queries or masks.
    Attention weights (N, heads, L, M) beside a sequence of L tokens are no map.

    Args:
        output: Of a module.
        image: H, W of the network's input.
        batch: N; tensors with another first axis (windows of attention, say) hold no maps. None = do not look.
    """
    tensors = list(tensors_of(output))
    lengths = {len(t[0]) for t in tensors if t.ndim == 3 and len(t) and find_layout(t, image) is not None}
    found = [
        dataclasses.replace(layout, index=index)
        for index, tensor in enumerate(tensors)
        if (batch is None or len(tensor) == batch)
        and not _is_attention(tensor, lengths, image)
        and (layout := find_layout(tensor, image)) is not None
    ]
    whole = [layout for layout in found if layout.kind != "tokens"]
    return tuple(whole or found)


def merge_maps(output: Any, stage: str, image: Size, layouts: Sequence[Layout], align_corners: bool = False) -> Tensor:
    """One map from a tap's output: several are brought to the largest map's size and concatenated.

    Args:
        output: A tensor, or tensors in lists, tuples, mappings or data classes.
        stage: Named in errors.
        image: H, W of the network's input.
        layouts: As found in the dry run, so that nothing is guessed twice.
        align_corners: How smaller maps are enlarged, as in `F.interpolate`.

    Returns:
        (N, sum of C, h, w).

    Raises:
        NetworkError: the output holds no spatial map, or fewer tensors than in the dry run.
    """
    tensors = list(tensors_of(output))
    if not layouts:
        raise NetworkError(
            f"stage '{stage}' gives no spatial map (N, C, H, W) but {kind(output)}; choose another module"
        )
    if len(tensors) <= max(layout.index for layout in layouts):
        raise NetworkError(
            f"stage '{stage}' gave more tensors in the dry run than now ({len(tensors)}); choose a module whose output"
            " does not depend on the data"
        )
    maps = [layout.read(tensors[layout.index], image) for layout in layouts]
    if len(maps) == 1:
        return maps[0]
    size = max(((m.shape[-2], m.shape[-1]) for m in maps), key=lambda s: s[0] * s[1])
    return concatenate(maps, size, align_corners)


def final_logits(output: Any) -> Tensor:
    """The final logits (N, K, H, W) in a network's output: a tensor, `["out"]`, `.logits`, or the first of a list.

    Of mask classifiers (MaskFormer, Mask2Former, EoMT in transformers) the logarithm of the semantic map is taken:
    the sum over queries of class probability times mask probability.

    Raises:
        NetworkError: none of these.
    """
    found = output
    if hasattr(found, "class_queries_logits") and hasattr(found, "masks_queries_logits"):
        return _semantic_map(found.class_queries_logits, found.masks_queries_logits)
    if isinstance(found, Mapping):
        found = next((found[name] for name in ("out", "logits", "final") if name in found), None)
    elif not isinstance(found, Tensor) and hasattr(found, "logits"):
        found = found.logits
    elif isinstance(found, (list, tuple)) and found:
        found = found[0]
    if not isinstance(found, Tensor) or found.ndim != 4:
        raise NetworkError(
            f"no logits (N, K, H, W) in the network's output of type {type(output).__name__}; it must be a tensor, have"
            " 'out' or 'logits', or be a list that begins with them"
        )
    return found


def _semantic_map(classes: Tensor, masks: Tensor) -> Tensor:
    """Classes (N, Q, K + 1), the last is `no object`; masks (N, Q, h, w)."""
    with torch.autocast(classes.device.type, enabled=False):  # which takes the product in 16 bits
        scores = torch.einsum("nqc,nqhw->nchw", classes.float().softmax(-1)[..., :-1], masks.float().sigmoid())
    return scores.clamp_min(1e-6).log()


def _orders(tensor: Tensor, image: Size) -> tuple[bool, bool]:
    """Whether four axes can be (N, C, h, w), and whether they can be (N, h, w, C)."""
    _, one, two, three = tensor.shape
    return _fits((two, three), image), _fits((one, two), image)


def _is_attention(tensor: Tensor, lengths: Collection[int], image: Size) -> bool:
    """Whether its rows are tokens; its columns are tokens too, or the fewer that keys were reduced to."""
    if tensor.ndim != 4 or tensor.shape[2] not in lengths:
        return False
    return tensor.shape[3] == tensor.shape[2] or not any(_orders(tensor, image))


def _grid(image: Size, stride: int, up: bool) -> Size:
    if up:
        return -(-image[0] // stride), -(-image[1] // stride)
    return image[0] // stride, image[1] // stride


def _fits(size: Sequence[int], image: Size) -> bool:
    """Whether one stride makes both sides from the image's, each rounded up or down."""
    if any(side < 1 or side > whole for side, whole in zip(size, image, strict=True)):
        return False
    low = max(whole / (side + 1) for side, whole in zip(size, image, strict=True))
    high = min(whole / (side - 1) if side > 1 else math.inf for side, whole in zip(size, image, strict=True))
    return low < high


def _tokens(length: int, image: Size) -> Layout | None:
    options = [
        Layout("tokens", stride, up, prefix)
        for stride in _STRIDES
        for up in (True, False)
        if (prefix := length - math.prod(_grid(image, stride, up))) in _PREFIXES and length > 2 * prefix
    ]
    return min(options, key=lambda layout: layout.prefix, default=None)


def kind(value: Any) -> str:
    """What a module gave, in words."""
    return f"a tensor of shape {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
