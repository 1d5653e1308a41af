"""Trunk weights from a local file, loaded whole or not at all."""

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from hs3seg.errors import CheckpointError

# What classification checkpoints hold beyond the trunk, and segmentation ones beyond ours.
_EXTRA = ("incre_modules", "downsamp_modules", "final_layer", "classifier", "last_layer")


def load_trunk(network: nn.Module, path: Path) -> int:
    """Fills all of a network but its `last_layer` from a file.

    Args:
        network: An HRNetV2.
        path: .safetensors, or a pickle of tensors alone (`weights_only`); names may start with `module.` or `model.`.

    Returns:
        Number of tensors loaded.

    Raises:
        CheckpointError: missing, unreadable, or not every trunk tensor is there in the right shape.
    """
    found = _strip(_read(path))
    own = {name: value for name, value in network.state_dict().items() if not name.startswith("last_layer")}
    missing = [name for name in own if name not in found and not name.endswith("num_batches_tracked")]
    shapes = [name for name in own if name in found and found[name].shape != own[name].shape]
    unknown = [name for name in found if name not in own and not name.startswith(_EXTRA)]
    if missing or shapes or unknown:
        example = (missing + shapes + unknown)[0]
        raise CheckpointError(
            f"{path}: does not fit this trunk: {len(missing)} tensors missing, {len(shapes)} of another shape,"
            f" {len(unknown)} unknown, e.g. '{example}'; give the weights of the same trunk"
        )
    network.load_state_dict({name: found[name] for name in own if name in found}, strict=False)
    return len(own)


def _read(path: Path) -> Mapping[str, Any]:
    if not path.is_file():
        raise CheckpointError(f"pretrained weights '{path}' do not exist; give a .safetensors or .pth file")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        values = torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise CheckpointError(f"{path}: not a weight file that can be trusted ({reason}); use .safetensors") from None
    for key in ("state_dict", "model", "model_state"):
        if isinstance(values, Mapping) and isinstance(values.get(key), Mapping):
            values = values[key]
    if not isinstance(values, Mapping):
        raise CheckpointError(f"{path}: holds {type(values).__name__}, not named tensors")
    return values


def _strip(values: Mapping[str, Any]) -> dict[str, Tensor]:
    tensors = {name: value for name, value in values.items() if isinstance(value, Tensor)}
    for prefix in ("module.", "model."):
        if tensors and all(name.startswith(prefix) for name in tensors):
            tensors = {name.removeprefix(prefix): value for name, value in tensors.items()}
    return tensors
