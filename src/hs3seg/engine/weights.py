"""Weights as safetensors with what is needed to use them, and the state of an unfinished training.

Nothing here unpickles code: weights are safetensors, and training state is loaded with `weights_only=True`.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from hs3seg.errors import CheckpointError, reason_of
from hs3seg.files import UNREADABLE, write_atomically

FORMAT = "hs3seg-1"
_KEY = "hs3seg"


def save_weights(path: Path | str, model: nn.Module, description: Mapping[str, Any]) -> None:
    """Writes a model's state dict and a plain description of how to build it, atomically.

    Args:
        path: A `.safetensors` file.
        model: Its state dict is written in contiguous layout.
        description: JSON-able: network, taxonomy, plan, normalisation.
    """
    tensors: dict[str, Tensor] = {}
    places = set()
    for name, value in model.state_dict().items():
        tensor = value.detach().cpu().contiguous()
        # A module under two names (SA-Gate's streams share shortcuts) is written twice: safetensors refuses aliases.
        tensors[name] = tensor.clone() if tensor.data_ptr() in places else tensor
        places.add(tensor.data_ptr())
    # One key: safetensors writes several in changing order, and equal weights shall be equal files.
    metadata = {_KEY: json.dumps({"format": FORMAT, "description": dict(description)}, sort_keys=True)}
    write_atomically(path, lambda temporary: save_file(tensors, temporary, metadata=metadata))


def hash_weights(model: nn.Module) -> str:
    """SHA-256 over names, types, shapes and bits of a model's state, whatever file holds it."""
    digest = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        tensor = value.detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)} ".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def read_weights(path: Path | str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Reads tensors and description of a weight file of ours.

    Raises:
        CheckpointError: missing, truncated, a pickle, or not written by hs3seg.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"weight file '{path}' does not exist; `hs3 train` or `hs3 run` writes one")
    if _is_pickle(path):
        raise CheckpointError(
            f"{path}: this is a pickle, which can run code when it is loaded; only .safetensors files are read here"
        )
    try:
        with safe_open(path, framework="pt") as file:
            about = json.loads((file.metadata() or {}).get(_KEY, "{}"))
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # not a dict
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(
            f"{path}: not a whole safetensors file ({error}); it may be truncated, copy it again"
        ) from None
    if about.get("format") != FORMAT:
        raise CheckpointError(
            f"{path}: not written by hs3seg (format {about.get('format')!r}, expected {FORMAT!r});"
            " trunk weights from elsewhere go to network.pretrained"
        )
    return tensors, about["description"]


def load_into(model: nn.Module, tensors: Mapping[str, Tensor], origin: str) -> None:
    """Fills a model, strictly.

    Raises:
        CheckpointError: names or shapes differ, i.e. the weights belong to another network.
    """
    own = model.state_dict()
    missing = [name for name in own if name not in tensors]
    unused = [name for name in tensors if name not in own]
    shapes = [name for name in own if name in tensors and own[name].shape != tensors[name].shape]
    if missing or unused or shapes:
        example = (missing + unused + shapes)[0]
        raise CheckpointError(
            f"{origin}: weights of another network: {len(missing)} names missing, {len(unused)} unknown,"
            f" {len(shapes)} of another shape, e.g. '{example}'; use the config that trained them"
        )
    model.load_state_dict(dict(tensors))


def save_state(path: Path, state: Mapping[str, Any]) -> None:
    """Writes a training state (tensors and plain values only), atomically."""
    write_atomically(path, lambda temporary: torch.save(dict(state), temporary))


def load_state(path: Path) -> dict[str, Any]:
    """Reads a training state without running any code in it.

    Raises:
        CheckpointError: truncated, or it holds more than tensors and plain values.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except UNREADABLE as error:
        raise CheckpointError(
            f"{path}: not a training state that can be trusted ({reason_of(error)}); delete it to start this training"
            " anew"
        ) from None
    if not isinstance(state, dict) or "identity" not in state:
        raise CheckpointError(f"{path}: not a training state of hs3seg; delete it to start this training anew")
    return state


def _is_pickle(path: Path) -> bool:
    with path.open("rb") as file:
        head = file.read(9)
    # A safetensors file begins with its header's length in 8 bytes, which may look like a pickle's beginning.
    if head[8:] == b"{" and 8 + int.from_bytes(head[:8], "little") <= path.stat().st_size:
        return False
    return head[:2] in (b"PK", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")
