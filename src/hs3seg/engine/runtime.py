"""Device, precision, memory layout and processes of a run; thin over accelerate.

`torchrun` and `accelerate launch` both work: the environment they set is all that is read.
"""

from collections.abc import Iterable
from datetime import timedelta
from typing import Any, Literal, TypeVar

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import InitProcessGroupKwargs, gather_object
from torch import Tensor, nn

from hs3seg.engine.memory import keep_freed_memory
from hs3seg.errors import ConfigError

# One process may read masks or find classes while the others wait; NCCL's own 10 minutes are too few for large sets.
_PATIENCE = timedelta(hours=3)
M = TypeVar("M", bound=nn.Module)
Precision = Literal["float32", "bf16", "fp16"]
_ACCELERATE_NAMES: dict[Precision, str] = {"float32": "no", "bf16": "bf16", "fp16": "fp16"}


class Runtime:
    """Where and how the numbers are computed.

    Args:
        precision: `auto` takes bf16 where the processor computes in it (measured on a two-core AVX512-BF16 machine:
            2.5 times the training speed of float32), fp16 on a GPU without bf16, else float32.
        channels_last: `auto` takes it together with bf16 or fp16, whose convolution kernels want it.
        sync_bn: BatchNorm over all processes; only CUDA has the kernel, so it has no effect on CPU processes.
        threads: CPU threads of this process; 0 leaves torch's default.
    """

    def __init__(
        self,
        precision: Literal["auto", "float32", "bf16", "fp16"] = "auto",
        channels_last: Literal["auto", "yes", "no"] = "auto",
        *,
        sync_bn: bool = True,
        threads: int = 0,
    ) -> None:
        if threads:
            torch.set_num_threads(threads)
        self.precision: Precision = _best_precision() if precision == "auto" else precision
        self.channels_last = channels_last == "yes" or (channels_last == "auto" and self.precision != "float32")
        # accelerate keeps one state per process; a run that trains several arms may meet an older one.
        AcceleratorState._reset_state()
        # Unless told that it is on a CPU, accelerate takes the processes of torchrun for single ones there.
        self.accelerator = Accelerator(
            mixed_precision=_ACCELERATE_NAMES[self.precision],
            cpu=not torch.accelerator.is_available(),
            kwargs_handlers=[InitProcessGroupKwargs(timeout=_PATIENCE)],
        )
        if self.precision == "fp16" and self.device.type == "cpu":
            raise ConfigError(
                "train.precision = 'fp16' on a CPU, where gradients cannot be scaled and vanish; take 'auto', 'bf16' or"
                " 'float32'"
            )
        self._sync_bn = sync_bn
        if self.device.type == "cpu":
            keep_freed_memory()

    @property
    def device(self) -> torch.device:
        """Device of this process."""
        device: torch.device = self.accelerator.device
        return device

    @property
    def rank(self) -> int:
        """Number of this process, from 0."""
        return int(self.accelerator.process_index)

    @property
    def world_size(self) -> int:
        """Number of processes."""
        return int(self.accelerator.num_processes)

    @property
    def is_main(self) -> bool:
        """Whether this process writes files and talks to the user."""
        return bool(self.accelerator.is_main_process)

    def place(self, model: M) -> M:
        """Moves a model to the device and memory layout; with SyncBN where there are several GPUs."""
        if self.world_size > 1 and self._sync_bn and self.device.type == "cuda":
            model = nn.SyncBatchNorm.convert_sync_batchnorm(model)  # type: ignore[no-untyped-call]  # torch's stub
        model = model.to(self.device)
        return model.to(memory_format=torch.channels_last) if self.channels_last else model

    def prepare(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> tuple[nn.Module, Any]:
        """Wraps model and optimizer for autocast, gradient scaling and several processes."""
        prepared: tuple[nn.Module, Any] = self.accelerator.prepare(model, optimizer)
        return prepared

    def images(self, images: Tensor, mean: Tensor, std: Tensor) -> Tensor:
        """Normalises a uint8 batch on the device.

        Args:
            images: (N, C, H, W) uint8.
            mean: (C,) of the network's inputs, 0..1.
            std: (C,) likewise.

        Returns:
            (N, C, H, W) float32, in the run's memory layout.
        """
        layout = torch.channels_last if self.channels_last else torch.contiguous_format
        images = images.to(self.device, non_blocking=True).to(torch.float32)
        # One multiply-add, x / 255 - mean over std, while each channel is one run of numbers: with three channels side
        # by side it takes twice as long.
        shift, scale = ((-mean / std).view(1, -1, 1, 1), (1 / (255 * std)).view(1, -1, 1, 1))
        torch.addcmul(shift.expand_as(images), images, scale.expand_as(images), out=images)
        return images.contiguous(memory_format=layout)

    def sum(self, tensor: Tensor) -> Tensor:
        """Sum over all processes."""
        return self.accelerator.reduce(tensor, reduction="sum") if self.world_size > 1 else tensor

    def any(self, flag: bool) -> bool:
        """Whether it is so in any process; every process has to ask, and waits for the others."""
        return bool(self.sum(torch.tensor(float(flag), device=self.device)) > 0)

    def gather(self, items: Iterable[Any]) -> list[Any]:
        """All processes' plain objects, in the order of the processes."""
        items = list(items)
        return gather_object(items) if self.world_size > 1 else items

    def barrier(self) -> None:
        """Waits for all processes."""
        self.accelerator.wait_for_everyone()


def _best_precision() -> Precision:
    if torch.cuda.is_available():
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
    capabilities = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    return "bf16" if capabilities.get("avx512_bf16") or capabilities.get("amx_bf16") else "float32"
