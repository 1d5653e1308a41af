"""HS3 in Lightning.

```python
class Segmenter(SupervisedMixin, LightningModule):
    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters())


confusion = ConfusionCallback("runs/confusion.npz")
Trainer(callbacks=[confusion]).fit(Segmenter(net, example=images), train_loader, analysis_loader)
plan = confusion.recorder.make_plan()
```
"""

import math
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from torch import Tensor, nn

from hs3seg.errors import NetworkError, PlanError
from hs3seg.integrations.extras import ignore_index_of, need
from hs3seg.nn import ConfusionRecorder, HierarchicalLoss, OnlineLoss, Supervised, supervise

if TYPE_CHECKING:
    from torch.utils.hooks import RemovableHandle

need("lightning", "lightning")

from lightning.pytorch import Callback, LightningModule, Trainer  # noqa: E402


class SupervisedMixin:
    """Steps of a `LightningModule` whose network is supervised; stands before it among the base classes.

    Batches are (images (N, 3, H, W), labels (N, H, W)). Optimizers are the user's.

    Args:
        net: Any network; `self.model` is the supervised one.
        criterion: Of (outputs, labels); default `HierarchicalLoss` of the plan, `OnlineLoss` if it has [online].
        options: Of `hs3seg.supervise`: plan, stages, num_classes, example.
    """

    model: Supervised
    criterion: nn.Module
    _last: Tensor | None = None

    def __init__(self, net: nn.Module, criterion: nn.Module | None = None, **options: Any) -> None:
        super().__init__()
        self.model = supervise(net, **options)
        online = self.model.plan.online
        if criterion is None and online is not None and online.source == "held_out":
            raise PlanError(
                "online.source = 'held_out' measures images that this module does not have; set it to 'training', or"
                " override on_train_epoch_start, which gives the loss's start_epoch `measure`, and give `criterion`"
            )
        self.criterion = criterion or (HierarchicalLoss if online is None else OnlineLoss)(self.model)

    def forward(self, images: Tensor) -> Tensor:
        """Final logits (N, K, h, w)."""
        return self.model(images)["final"]  # type: ignore[no-any-return]

    def on_train_epoch_start(self) -> None:
        """Lets single-phase HS3 look at its groups; other plans have nothing to do."""
        trainer = cast("Any", self).trainer
        if isinstance(self.criterion, HierarchicalLoss):
            if self.model.plan.online is not None and (trainer.max_epochs or -1) < 1:
                raise PlanError("single-phase HS3 goes by shares of the training; give the Trainer max_epochs")
            self.criterion.start_epoch(trainer.current_epoch, max(trainer.max_epochs or 1, 1))

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keeps what single-phase HS3 has counted and decided."""
        if isinstance(self.criterion, HierarchicalLoss) and (memory := self.criterion.memory()):
            checkpoint["hs3seg_loss"] = memory

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Takes it back."""
        if isinstance(self.criterion, HierarchicalLoss) and "hs3seg_loss" in checkpoint:
            self.criterion.restore(checkpoint["hs3seg_loss"])

    def training_step(self, batch: tuple[Tensor, Tensor], _batch_idx: int) -> Tensor:
        """The loss of Eq. 1, logged as `train_loss`."""
        loss = self._step(batch, "train_loss")
        self._last = loss.detach()
        return loss

    @property
    def last_loss(self) -> float:
        """Of the latest training batch, NaN before the first; reading it waits for the device."""
        return math.nan if self._last is None else float(self._last)

    def validation_step(self, batch: tuple[Tensor, Tensor], _batch_idx: int) -> Tensor:
        """The same on held-out images, logged as `val_loss`."""
        return self._step(batch, "val_loss")

    def strip(self) -> nn.Module:
        """The very network that was supervised, without hooks and heads."""
        return self.model.strip()

    def _step(self, batch: tuple[Tensor, Tensor], name: str) -> Tensor:
        images, labels = batch
        loss: Tensor = self.criterion(self.model(images), labels)
        cast("Any", self).log(name, loss.detach(), batch_size=len(images), sync_dist=name == "val_loss")
        return loss


class ConfusionCallback(Callback):
    """Counts what every stage confuses on the validation images (Sec. 3.1.1), for any module that has a `Supervised`.

    The outputs are those of the validation step's own forward pass: nothing runs twice. Each validation starts anew, so
    after `fit` the counts are those of the last one. The validation loader should be of training images that are held
    out in phase one.

    Args:
        path: Where the matrices are written after each validation, for `hs3 plan --confusion PATH`; None = nowhere.
        labels: The labels (N, H, W) of a batch; default its second item.
        ignore_index: Label that does not count; default that of the module's `criterion`, or 255 where it has none.
        dataloader_idx: Which validation loader is counted, where there are several.

    Attributes:
        recorder: The counts; None before the first validation.
    """

    def __init__(
        self,
        path: str | Path | None = None,
        labels: Callable[[Any], Tensor] | None = None,
        *,
        ignore_index: int | None = None,
        dataloader_idx: int | None = None,
    ) -> None:
        self.path, self._labels, self._ignore_index = path, labels or _second, ignore_index
        self.dataloader_idx = dataloader_idx
        self.recorder: ConfusionRecorder | None = None
        self._outputs: dict[str, Tensor] | None = None
        self._handle: RemovableHandle | None = None

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Starts to count; not in the sanity check before training."""
        if trainer.sanity_checking:
            return
        loaders = trainer.val_dataloaders
        if self.dataloader_idx is None and isinstance(loaders, (list, tuple)) and len(loaders) > 1:
            raise NetworkError(
                f"there are {len(loaders)} validation loaders, and the groups may come from images of one of them only,"
                " those held out of the training split; give ConfusionCallback its dataloader_idx"
            )
        found = [module for module in pl_module.modules() if isinstance(module, Supervised)]
        if len(found) != 1:
            raise NetworkError(
                f"{type(pl_module).__name__} holds {len(found)} supervised networks, ConfusionCallback counts for one;"
                " make it with hs3seg.supervise(net, example=images) and keep it as an attribute"
            )
        criterion = getattr(pl_module, "criterion", None)
        self.recorder = ConfusionRecorder(found[0], ignore_index_of(criterion, self._ignore_index))
        self._handle = found[0].register_forward_hook(self._catch)

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,  # noqa: ARG002 - Lightning's own name
        batch: Any,
        batch_idx: int,  # noqa: ARG002
        dataloader_idx: int = 0,
    ) -> None:
        """Counts one batch."""
        if trainer.sanity_checking or self.recorder is None:
            return
        if self._outputs is None:
            raise NetworkError(
                f"the validation_step of {type(pl_module).__name__} did not call the supervised network;"
                " call it as self.model(images)"
            )
        if self.dataloader_idx in (None, dataloader_idx):
            self.recorder.update(self._outputs, self._labels(batch))
        self._outputs = None

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:  # noqa: ARG002
        """Writes the counts."""
        if self._handle is None:
            return
        self._release()
        if self.path is not None and self.recorder is not None:
            self.recorder.save(self.path)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:  # noqa: ARG002
        """Leaves no hook behind."""
        self._release()

    def _catch(self, _module: nn.Module, _inputs: tuple[Any, ...], outputs: dict[str, Tensor]) -> None:
        self._outputs = outputs

    def _release(self) -> None:
        if self._handle is not None:
            self._handle.remove()
        self._handle = self._outputs = None


def _second(batch: Any) -> Tensor:
    return cast("Tensor", batch[1])
