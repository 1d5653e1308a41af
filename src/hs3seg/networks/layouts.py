"""Names of the public checkpoints, and the way from them to ours and back.

A layout's names are brought to the common names of this package's HRNetOCR (trunk at the top level, `ocr.*`,
`cls_head.*`, `last_layer.*`, `scale_attn.*`); DeepLabV3+ and SA-Gate have the official names themselves.
"""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass

_OCR_PARTS = ("conv3x3_ocr.", "ocr_distri_head.", "aux_head.")
# Groups that classification checkpoints hold beyond the trunk, and buffers of training wrappers.
_ALWAYS_UNUSED = ("incre_modules.", "downsamp_modules.", "final_layer.", "classifier.", "fc.", "loss.", "criterion.")


@dataclass(frozen=True)
class Layout:
    """One public way of naming.

    Attributes:
        name: For messages and `save_public_checkpoint`.
        marks: Beginnings that each must occur among a checkpoint's names, and tell the layout from those after it.
        to_common: Official name -> common name; None = never used.
        from_common: Common name -> official name; None = not in this layout.
        prefix: What the official files put before every name.
        key: Entry of the official file that holds the names; empty = the file itself.
        trunk_only: No decoder in it.
        align_corners: How networks were trained whose files have these names; None = both ways, or nobody knows.
    """

    name: str
    marks: tuple[str, ...]
    to_common: Callable[[str], str | None]
    from_common: Callable[[str], str | None]
    prefix: str = ""
    key: str = ""
    trunk_only: bool = False
    align_corners: bool | None = None


def _trunk(name: str) -> str | None:
    return None if name.startswith((*_ALWAYS_UNUSED, "last_layer.")) else name


def _only_trunk(name: str) -> str | None:
    return None if name.startswith(("ocr.", "cls_head.", "last_layer.", "scale_attn.")) else name


def _hrnet(name: str) -> str | None:
    return None if name.startswith(_ALWAYS_UNUSED) else name


def _from_hrnet(name: str) -> str | None:
    return None if name.startswith(("ocr.", "cls_head.", "scale_attn.")) else name


def _hrnet_ocr(name: str) -> str | None:
    if name.startswith(_ALWAYS_UNUSED):
        return None
    return f"ocr.{name}" if name.startswith(_OCR_PARTS) else name


def _from_hrnet_ocr(name: str) -> str | None:
    return None if name.startswith(("last_layer.", "scale_attn.")) else name.removeprefix("ocr.")


def _hms(name: str) -> str | None:
    """BatchNorm and ReLU are one entry there, so that its number has a `.0` and those after it are one lower."""
    if name.startswith("backbone."):
        return name.removeprefix("backbone.")
    if name.startswith("ocr.cls_head."):
        return name.removeprefix("ocr.")
    name = re.sub(r"^ocr\.(conv3x3_ocr|aux_head)\.1\.0\.", r"ocr.\1.1.", name)
    name = re.sub(r"^ocr\.aux_head\.2\.", "ocr.aux_head.3.", name)
    return name if name.startswith(("ocr.", "scale_attn.")) else None


def _from_hms(name: str) -> str | None:
    if name.startswith("last_layer."):
        return None
    if name.startswith("cls_head."):
        return f"ocr.{name}"
    if not name.startswith(("ocr.", "scale_attn.")):
        return f"backbone.{name}"
    name = re.sub(r"^ocr\.(conv3x3_ocr|aux_head)\.1\.", r"ocr.\1.1.0.", name)
    return re.sub(r"^ocr\.aux_head\.3\.", "ocr.aux_head.2.", name)


def _inverseform(name: str) -> str | None:
    if name.startswith("backbone."):
        return name.removeprefix("backbone.")
    name = re.sub(r"^hrhead\.last_layer\.1\.0\.", "last_layer.1.", name)
    name = re.sub(r"^hrhead\.last_layer\.2\.", "last_layer.3.", name)
    name = re.sub(r"^hrhead\.last_layer\.0\.", "last_layer.0.", name)
    return name if name.startswith("last_layer.") else None  # its auxiliary and edge heads have no place here


def _from_inverseform(name: str) -> str | None:
    if name.startswith(("ocr.", "cls_head.", "scale_attn.")):
        return None
    if not name.startswith("last_layer."):
        return f"backbone.{name}"
    name = re.sub(r"^last_layer\.1\.", "hrhead.last_layer.1.0.", name)
    name = re.sub(r"^last_layer\.3\.", "hrhead.last_layer.2.", name)
    return re.sub(r"^last_layer\.0\.", "hrhead.last_layer.0.", name)


def _same(name: str) -> str | None:
    return name


LAYOUTS: tuple[Layout, ...] = (
    Layout("sagate", ("backbone.hha_conv1.", "head.aspp."), _same, _same, key="model", align_corners=True),
    Layout(
        "wrn38",
        ("backbone.mod7.", "aspp."),
        _same,
        _same,
        prefix="module.",
        key="state_dict",
        align_corners=False,
    ),
    Layout(
        "wrn38-trunk",
        ("mod7.",),
        lambda n: None if n.startswith(_ALWAYS_UNUSED) else f"backbone.{n}",
        lambda n: n.removeprefix("backbone.") if n.startswith("backbone.") else None,
        trunk_only=True,
    ),
    Layout(
        "hms", ("scale_attn.", "ocr.conv3x3_ocr.1.0."), _hms, _from_hms, "module.", "state_dict", align_corners=False
    ),
    Layout("hms-ocr", ("ocr.conv3x3_ocr.1.0.",), _hms, _from_hms, "module.", "state_dict", align_corners=False),
    Layout(
        "inverseform",
        ("hrhead.last_layer.",),
        _inverseform,
        _from_inverseform,
        "module.",
        "state_dict",
        align_corners=False,
    ),
    Layout("hrnet-ocr", ("conv3x3_ocr.", "stage4."), _hrnet_ocr, _from_hrnet_ocr, "model.", align_corners=True),
    Layout("hs3seg", ("ocr.conv3x3_ocr.", "stage4."), _same, _same),
    Layout("hrnet", ("last_layer.", "stage4."), _hrnet, _from_hrnet, prefix="model.", align_corners=False),
    Layout("imagenet", ("stage4.",), _trunk, _only_trunk, trunk_only=True),
    Layout("resnet-v1c", ("conv1.0.", "layer4."), _same, _same, trunk_only=True),
)


def recognise(names: Iterable[str]) -> Layout | None:
    """The first layout whose marks all occur."""
    names = tuple(names)
    for layout in LAYOUTS:
        if all(any(name.startswith(mark) for name in names) for mark in layout.marks):
            return layout
    return None


def by_name(name: str) -> Layout | None:
    """A layout by its name."""
    return next((layout for layout in LAYOUTS if layout.name == name), None)
