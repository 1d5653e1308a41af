"""How much memory a prediction needs, counted before it is made."""

import weakref
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from hs3seg.export import Runner

_RUNNER_CHANNELS = 192  # float32 values per pixel; HRNet-w48 with OCR has 126 alive at once


def peak_activation_bytes(network: nn.Module, forward: Callable[[Tensor], Tensor], shape: tuple[int, ...]) -> int:
    """Most bytes of tensors that are alive at once in a float32 forward pass; weights and the input are not counted.

    Nothing is computed: the pass runs on the device `meta`. What kernels take beside their tensors is not seen. An
    exported file cannot run there; for it a generous bound is taken.

    Args:
        network: Its weights are replaced for the pass.
        forward: Runs the network on normalised images.
        shape: (N, C, H, W) of the images.
    """
    if any(isinstance(module, Runner) for module in network.modules()):
        return _RUNNER_CHANNELS * 4 * shape[0] * shape[2] * shape[3]
    # By module and not by name: a module under two names (SA-Gate's streams share some) is swapped once. Swapped twice,
    # torch would put the first replacement back as the original.
    weights = {
        ".".join(filter(None, ("network", prefix, name))): torch.empty_like(value, device="meta")
        for prefix, module in network.named_modules()
        for name, value in (*module.named_parameters(recurse=False), *module.named_buffers(recurse=False))
    }
    images = torch.empty(shape, device="meta")
    live = _LiveBytes()
    with torch.inference_mode(), live:
        torch.func.functional_call(_Called(network, forward), weights, (images,), tie_weights=False)
    return live.peak


class _Called(nn.Module):
    def __init__(self, network: nn.Module, call: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.network = network
        self._call = partial(call)  # a module by itself would be registered under a second name
        self.training = network.training

    def forward(self, images: Tensor) -> Tensor:
        return self._call(images)


class _LiveBytes(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch's class has no types
    """Adds the storage of every new tensor, and takes it off when the storage goes."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.now = 0
        self.peak: int = 0
        self._alive: set[int] = set()

    def __torch_dispatch__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        for value in tree_leaves(result):
            if isinstance(value, Tensor):
                self._add(value.untyped_storage())
        return result

    def _add(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key in self._alive:
            return  # a view, or an operation in place
        self._alive.add(key)
        self.now += size
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._take_off, key, size)

    def _take_off(self, key: int, size: int) -> None:
        self._alive.discard(key)
        self.now -= size
