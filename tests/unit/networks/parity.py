"""The reference's deterministic fills and golden numbers (see its README)."""

import hashlib
import json
import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.conftest import shared


def value(name: str, shape: tuple[int, ...], gain: float) -> np.ndarray:
    """Every weight is made from its official name."""
    seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") % 2**32
    if name.endswith("num_batches_tracked"):
        return np.zeros(shape, np.int64)
    drawn = np.random.default_rng(seed).standard_normal(shape)
    if name.endswith("running_var"):
        return 0.5 + np.abs(drawn)
    if name.endswith("running_mean"):
        return 0.1 * drawn
    if len(shape) == 1:
        return 1 + 0.1 * drawn if name.endswith("weight") else 0.1 * drawn
    return drawn * (gain * math.sqrt(2.0 / math.prod(shape[1:])))


def golden(file: str) -> dict[str, Any]:
    """A golden file, or a skip that says so."""
    found: dict[str, Any] = json.loads(shared("reference", "golden", file).read_text())
    return found


def official_state(found: dict[str, Any], fill: str) -> dict[str, Tensor]:
    """Official name -> float64 tensor."""
    gain = found["config"]["gain"][fill]
    return {n: torch.as_tensor(value(n, tuple(shape), gain)) for n, shape in found["state_dict_shapes"].items()}


def image(found: dict[str, Any]) -> Tensor:
    """The golden's input."""
    spec = found["inputs"][0]
    return torch.from_numpy(np.random.default_rng(spec["seed"]).standard_normal(spec["shape"]))


def expected(found: dict[str, Any], fill: str) -> dict[str, Any]:
    """Statistics by tensor name."""
    tensors: dict[str, Any] = next(o for o in found["outputs"] if o["fill"] == fill)["tensors"]
    return tensors


def agree(tensor: Tensor, statistics: dict[str, Any]) -> None:
    """Asserts 1e-9 * abs_max in every number."""
    assert list(tensor.shape) == statistics["shape"]
    tolerance = 1e-9 * statistics["abs_max"]
    flat = tensor.reshape(-1)[torch.tensor(statistics["indices"])].numpy()
    np.testing.assert_allclose(flat, statistics["values"], rtol=0, atol=tolerance)
    assert tensor.mean().item() == pytest.approx(statistics["mean"], abs=tolerance)
    assert tensor.std(correction=0).item() == pytest.approx(statistics["std"], abs=tolerance)
    assert tensor.abs().max().item() == pytest.approx(statistics["abs_max"], abs=tolerance)
    if "argmax_channel_sum" in statistics:
        assert tensor.argmax(1).sum().item() == statistics["argmax_channel_sum"]
