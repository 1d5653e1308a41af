"""Public checkpoints into our networks, whole or not at all, and back."""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from hs3seg.errors import CheckpointError, Hs3Warning, nearest, reason_of
from hs3seg.files import UNREADABLE, write_atomically
from hs3seg.networks.fuse import FusedSegmenter
from hs3seg.networks.hms import MultiScale
from hs3seg.networks.hrnet import HRNetTrunk
from hs3seg.networks.layouts import LAYOUTS, Layout, by_name, recognise

# Dimensions of the final block's layers that HS3-Fuse enlarges: outputs are 0, inputs 1.
_GROWING = {"conv3x3_ocr.0.": (1,), "aux_head.0.": (0, 1), "aux_head.1.": (0,), "aux_head.3.": (1,)}
_CLASSIFIERS = ("cls_head.weight", "last_layer.3.weight", "final.6.weight", "head.classify.weight")
_DECODER = ("last_layer.", "ocr.", "cls_head.", "blocks.", "scale_attn.")


@dataclass(frozen=True)
class LoadReport:
    """What a checkpoint filled.

    Attributes:
        layout: Whose names the checkpoint has.
        loaded: Names of this network that were filled.
        unused: Names of the checkpoint that have no place in this network.
        missing: Names of this network that keep their initial values.
        widened: Names whose old channels were filled; the new input channels start at zero (HS3-Fuse).
        adapted: Names of first convolutions whose three input channels were made into another number.
    """

    layout: str
    loaded: tuple[str, ...]
    unused: tuple[str, ...]
    missing: tuple[str, ...]
    widened: tuple[str, ...]
    adapted: tuple[str, ...] = ()

    def __str__(self) -> str:
        parts = [f"{len(self.loaded)} tensors loaded from a checkpoint of layout '{self.layout}'"]
        for label, names in (
            ("unused", self.unused),
            ("left as they were", self.missing),
            ("widened", self.widened),
            ("made for other input channels", self.adapted),
        ):
            if names:
                parts.append(f"{len(names)} {label} ({_groups(names)})")
        return ", ".join(parts)


def load_public_checkpoint(
    net: nn.Module,
    source: str | Path | Mapping[str, Tensor],
    *,
    parts: Literal["all", "trunk"] = "all",
    allow_missing: Sequence[str] = (),
) -> LoadReport:
    """Fills a network from a checkpoint of HRNet, HRNet-OCR, HMS, InverseForm, WRN38, SA-Gate, ImageNet or timm.

    All of the network must be in the checkpoint, except: a checkpoint of a trunk alone fills the trunk; the stage
    blocks of HS3-Fuse are new. From an OCR checkpoint into HS3-Fuse the final block's old input channels are kept and
    the new ones start at zero, so that the function is unchanged at the start. A trunk for three input channels also
    starts a network of another number: for one channel the weights are summed, for more they are repeated and scaled so
    that equal channels give what three did.

    A warning says so where networks of this layout are enlarged with another `align_corners` than this one.

    Args:
        net: From `create` or `fuse`.
        source: .pth (without code in it) or .safetensors, or a state dict; wrappers such as `module.` are taken off.
        parts: `trunk` takes the trunk alone, e.g. where the number of classes differs.
        allow_missing: Beginnings of this network's names that may keep their initial values, e.g. `scale_attn.` for an
            OCR checkpoint into HMS.

    Returns:
        What was loaded, unused, missing and widened.

    Raises:
        CheckpointError: unreadable, of no known layout, of another network or class count, or incomplete. The network
            is then as it was.
    """
    label = "the state dict" if isinstance(source, Mapping) else str(source)
    tensors = _unwrap(source if isinstance(source, Mapping) else read_checkpoint(Path(source)), label)
    layout = recognise(tensors)
    if layout is None:
        raise CheckpointError(
            f"{label}: its names, e.g. '{next(iter(tensors), '')}', are of no known layout; known are"
            f" {', '.join(known.name for known in LAYOUTS)}"
        )
    only_trunk = layout.trunk_only or parts == "trunk"
    own = net.state_dict()
    values, unused = _place(net, tensors, layout, own)
    if only_trunk:
        unused += [name for name in values if not is_trunk(net, name)]
        values = {name: value for name, value in values.items() if is_trunk(net, name)}
    widened = _widen(net, values, own)
    adapted = _adapt(values, own) if only_trunk else []
    _check_shapes(values, own, label)
    missing = [name for name in own if name not in values and not name.endswith("num_batches_tracked")]
    new = ("blocks.", "net.blocks.", *allow_missing)
    lacking = [n for n in missing if not n.startswith(new) and not (only_trunk and not is_trunk(net, n))]
    if layout.name == "resnet-v1c":
        lacking = [name for name in lacking if not name.startswith("backbone.sagates.")]
    if lacking or not values:
        raise CheckpointError(
            f"{label} (layout '{layout.name}') does not fill this {type(net).__name__}: {len(lacking)} of"
            f" {len(own)} tensors are missing ({_groups(lacking)}), {len(unused)} have no place here"
            f" ({_groups(unused) or 'none'}); build the checkpoint's network, or load the trunk alone with"
            " parts='trunk'"
        )
    corners = getattr(net, "align_corners", None)
    if not only_trunk and None not in (corners, layout.align_corners) and corners != layout.align_corners:
        warnings.warn(
            f"{label}: networks of layout '{layout.name}' are trained with align_corners={layout.align_corners}, this"
            f" one has {corners}, which moves its logits; create it with align_corners={layout.align_corners}, unless"
            " it is to be trained anew",
            Hs3Warning,
            stacklevel=2,
        )
    net.load_state_dict({name: value.to(own[name].dtype) for name, value in values.items()}, strict=False)
    return LoadReport(layout.name, tuple(values), tuple(unused), tuple(missing), tuple(widened), tuple(adapted))


def save_public_checkpoint(net: nn.Module, path: Path | str, layout: str) -> None:
    """Writes a network's weights in an official layout, so that others' tools can read them.

    Args:
        net: From `create` or `fuse`.
        path: A .pth file.
        layout: `hrnet`, `hrnet-ocr`, `hms`, `hms-ocr`, `inverseform`, `wrn38`, `sagate`, or `imagenet` (the trunk).

    Raises:
        CheckpointError: unknown layout, or one that cannot hold this network.
    """
    chosen = by_name(layout)
    if chosen is None:
        raise CheckpointError(f"unknown layout '{layout}'; {nearest(layout, [known.name for known in LAYOUTS])}")
    common = {_to_common(net, name): value for name, value in net.state_dict().items()}
    named = {chosen.from_common(name): value for name, value in common.items()}
    left = [name for name in common if chosen.from_common(name) is None]
    official = {f"{chosen.prefix}{name}": value.cpu() for name, value in named.items() if name is not None}
    found = recognise(name.removeprefix(chosen.prefix) for name in official)
    if (
        (left and not chosen.trunk_only)
        or found is None
        or found.name != chosen.name
        or isinstance(net, FusedSegmenter)
    ):
        raise CheckpointError(
            f"a {type(net).__name__} cannot be written in the layout '{layout}'"
            + (f": it has no place for {_groups(left)}" if left else "")
        )
    content: dict[str, Any] = {chosen.key: official} if chosen.key else official
    write_atomically(path, lambda temporary: torch.save(content, temporary))


def read_checkpoint(path: Path) -> Mapping[str, Any]:
    """Content of a .safetensors or .pth file; pickles with code in them are refused.

    Raises:
        CheckpointError: missing, truncated, or not to be trusted.
    """
    if not path.is_file():
        raise CheckpointError(f"pretrained weights '{path}' do not exist; give a .safetensors or .pth file")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        values = torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, *UNREADABLE) as error:
        raise CheckpointError(
            f"{path}: not a weight file that can be trusted ({reason_of(error)}); use .safetensors"
        ) from None
    if not isinstance(values, Mapping):
        raise CheckpointError(f"{path}: holds {type(values).__name__}, not named tensors")
    return values


def is_trunk(net: nn.Module, name: str) -> bool:
    """Whether a name of a network's state dict belongs to its trunk."""
    if isinstance(net, MultiScale):
        return name.startswith("net.") and is_trunk(net.net, name.removeprefix("net."))
    if isinstance(net, FusedSegmenter):
        inner = name.removeprefix("backbone.")
        return name.startswith("backbone.") and is_trunk(net.backbone, inner)
    if isinstance(net, HRNetTrunk):
        return not name.startswith(_DECODER)
    return name.startswith("backbone.")


def _unwrap(values: Mapping[str, Any], label: str) -> dict[str, Tensor]:
    for key in ("state_dict", "model", "model_state"):
        if isinstance(values.get(key), Mapping):
            values = values[key]
    tensors = {name: value for name, value in values.items() if isinstance(value, Tensor)}
    if not tensors:
        raise CheckpointError(f"{label}: holds no tensors by name")
    for prefix in ("module.", "model."):
        if any(name.startswith(prefix) for name in tensors):
            tensors = {name.removeprefix(prefix): value for name, value in tensors.items()}
    return tensors


def _place(
    net: nn.Module, tensors: Mapping[str, Tensor], layout: Layout, own: Mapping[str, Tensor]
) -> tuple[dict[str, Tensor], list[str]]:
    """The checkpoint's tensors under this network's names, and those without a place."""
    values: dict[str, Tensor] = {}
    unused = []
    for name, value in tensors.items():
        common = layout.to_common(name)
        places = [] if common is None else [place for place in _from_common(net, common, layout) if place in own]
        values.update(dict.fromkeys(places, value))
        if not places:
            unused.append(name)
    return values, unused


def _from_common(net: nn.Module, name: str, layout: Layout) -> list[str]:
    """Names of this network for a common one."""
    if isinstance(net, MultiScale):
        if name.startswith("scale_attn."):
            return [name]
        return [f"net.{inner}" for inner in _from_common(net.net, name, layout)]
    if isinstance(net, FusedSegmenter):
        if name.startswith(("ocr.", "cls_head.")) and isinstance(net.backbone, HRNetTrunk):
            return [name]
        return [f"backbone.{inner}" for inner in _from_common(net.backbone, name, layout)]
    if layout.name == "resnet-v1c":
        return _both_streams(name)
    return [name]


def _to_common(net: nn.Module, name: str) -> str:
    return name.removeprefix("net.") if isinstance(net, MultiScale) else name


def _both_streams(name: str) -> list[str]:
    """A ResNet's layer starts the RGB stream and its twin in the depth stream; the shortcut is one for both."""
    parts = name.split(".")
    at = 0 if parts[0] in ("conv1", "bn1") else 2
    twin = ".".join([*parts[:at], f"hha_{parts[at]}", *parts[at + 1 :]]) if len(parts) > at else name
    return [f"backbone.{name}", f"backbone.{twin}"]


def _widen(net: nn.Module, values: dict[str, Tensor], own: Mapping[str, Tensor]) -> list[str]:
    """HS3-Fuse: the final block takes more channels than the checkpoint's. Old ones are kept, new inputs are zero.

    The new OUTPUT channels of the region head keep their initial values: the layer after it does not see them yet, and
    with zeros on both sides no gradient would ever flow.
    """
    prefix, inner = ("net.", net.net) if isinstance(net, MultiScale) else ("", net)
    if not isinstance(inner, FusedSegmenter):
        return []
    widened = []
    for layer, growing in _GROWING.items():
        for name in [n for n in values if n.startswith(f"{prefix}ocr.{layer}")]:
            old, fresh = values[name], own[name].detach().clone()
            if old.shape == fresh.shape or old.ndim != fresh.ndim:
                continue
            if any(
                o != f and (d not in growing or o > f)
                for d, (o, f) in enumerate(zip(old.shape, fresh.shape, strict=True))
            ):
                continue  # another width or class count: told by its shape later
            if old.ndim > 1:
                fresh[: old.shape[0], old.shape[1] :] = 0
                fresh[: old.shape[0], : old.shape[1]] = old.to(fresh.dtype)
            else:
                fresh[: old.shape[0]] = old.to(fresh.dtype)
            values[name] = fresh
            widened.append(name)
    return widened


def _adapt(values: dict[str, Tensor], own: Mapping[str, Tensor]) -> list[str]:
    """First convolutions for three channels into those of another number."""
    adapted = []
    for name, value in values.items():
        wanted = own[name].shape
        if value.ndim != 4 or value.shape[1] != 3 or wanted[1] == 3 or value.shape[::2] != wanted[::2]:
            continue
        if wanted[1] == 1:
            values[name] = value.sum(1, keepdim=True)
        else:
            values[name] = value.repeat(1, -(-wanted[1] // 3), 1, 1)[:, : wanted[1]] * (3 / wanted[1])
        adapted.append(name)
    return adapted


def _check_shapes(values: Mapping[str, Tensor], own: Mapping[str, Tensor], label: str) -> None:
    wrong = [name for name, value in values.items() if value.shape != own[name].shape]
    if not wrong:
        return
    for name in wrong:
        found, wanted = values[name].shape, own[name].shape
        if name.endswith(_CLASSIFIERS) and found[1:] == wanted[1:]:
            raise CheckpointError(
                f"{label}: made for {found[0]} classes, the network has {wanted[0]} ('{name}'); create it with"
                f" num_classes = {found[0]}, or load the trunk alone with parts='trunk'"
            )
    name = wrong[0]
    raise CheckpointError(
        f"{label}: '{name}' has shape {tuple(values[name].shape)}, the network's has {tuple(own[name].shape)}"
        f" ({len(wrong)} such tensors); create the network with the checkpoint's widths (mid, key), or another one"
    )


def _groups(names: Sequence[str]) -> str:
    """The beginnings of names, e.g. `stage2.*, ocr.*`."""
    found = list(dict.fromkeys(name.split(".")[0] for name in names))
    return ", ".join(f"{name}.*" for name in found[:6]) + (", ..." if len(found) > 6 else "")
