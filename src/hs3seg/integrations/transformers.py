"""HS3 in the `Trainer` of transformers.

```python
class SegmentationTrainer(SupervisedTrainerMixin, Trainer): ...


trainer = SegmentationTrainer(hs3seg.supervise(net, example=images), arguments, train_dataset=train)
trainer.train()
plan = trainer.collect_confusion(analysis).make_plan()
```
"""

from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn

from hs3seg.errors import NetworkError, PlanError
from hs3seg.integrations.extras import ignore_index_of, need
from hs3seg.nn import ConfusionRecorder, HierarchicalLoss, Supervised

need("transformers", "transformers")


class SupervisedTrainerMixin:
    """The hierarchical loss for a `transformers.Trainer`; stands before it among the base classes.

    The model is a `Supervised`. Batches are dictionaries with images (N, 3, H, W) under `images_key` and labels
    (N, H, W) under `labels_key`. In evaluation the Trainer sees the final logits alone, as of the plain network, so
    that `compute_metrics` needs no change.
    """

    images_key = "pixel_values"
    labels_key = "labels"
    criterion: nn.Module | None = None
    """Set it for another loss than `HierarchicalLoss(model)`, e.g. with class weights."""

    # The mean over the batch's pixels: the Trainer divides by the accumulated steps itself.
    loss_is_scaled_for_ga = False

    def __init__(self, *args: Any, **options: Any) -> None:
        _check(options.get("args", args[1] if len(args) > 1 else None))
        super().__init__(*args, **options)
        trainer = cast("Any", self)
        # It would drop what the model's forward() does not name, and look for a label in its arguments.
        trainer.args.remove_unused_columns = False
        trainer.label_names = [self.labels_key]
        trainer.can_return_loss = True

    @property
    def supervised(self) -> Supervised:
        """The model without what the Trainer wrapped around it.

        Raises:
            NetworkError: it is not supervised.
        """
        trainer = cast("Any", self)
        model = trainer.accelerator.unwrap_model(trainer.model)
        if not isinstance(model, Supervised):
            raise NetworkError(
                f"the Trainer was given a {type(model).__name__}; give it hs3seg.supervise(net, example=images)"
            )
        return model

    def compute_loss(
        self,
        model: nn.Module,
        inputs: Mapping[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,  # noqa: ARG002 - the Trainer gives it by name
    ) -> Any:
        """The loss of Eq. 1; with `return_outputs` also {"logits": final logits (N, K, h, w)}."""
        if self.criterion is None:
            supervised = self.supervised
            if supervised.plan.online is not None:
                raise PlanError(
                    "the plan has an [online] table, which this Trainer cannot follow; train with `hs3 train`,"
                    " Lightning or a loop of your own and OnlineLoss, or give a plan with fixed groups"
                )
            self.criterion = HierarchicalLoss(supervised)
        labels = inputs[self.labels_key]
        self.criterion.to(labels.device).train(model.training)
        outputs = model(inputs[self.images_key])
        loss = self.criterion(outputs, labels)
        return (loss, {"logits": outputs["final"]}) if return_outputs else loss

    @torch.no_grad()
    def collect_confusion(self, dataset: Any, ignore_index: int | None = None) -> ConfusionRecorder:
        """Counts what every stage confuses on a data set that the model has not been trained on (Sec. 3.1.1).

        Args:
            dataset: Like the Trainer's `eval_dataset`.
            ignore_index: Label that does not count; default that of `criterion`, or 255 where it has none.
        """
        trainer, supervised = cast("Any", self), self.supervised
        recorder = ConfusionRecorder(supervised, ignore_index_of(self.criterion, ignore_index))
        mode = supervised.training
        supervised.eval()
        with trainer.compute_loss_context_manager():
            for inputs in trainer.get_eval_dataloader(dataset):
                moved = trainer._prepare_inputs(inputs)
                recorder.update(supervised(moved[self.images_key]), moved[self.labels_key])
        supervised.train(mode)
        return recorder


def _check(arguments: Any) -> None:
    """Refuses what the Trainer would do to a supervised model on its own.

    Raises:
        NetworkError: nn.DataParallel, or the Trainer's own label smoothing.
    """
    gpus = getattr(arguments, "n_gpu", 0)
    if gpus > 1:
        raise NetworkError(
            f"one process and {gpus} GPUs: the Trainer would take nn.DataParallel, which copies the network without"
            " what catches its stages; start with torchrun or accelerate launch, or show it one GPU"
            " (CUDA_VISIBLE_DEVICES)"
        )
    if getattr(arguments, "label_smoothing_factor", 0):
        raise NetworkError(
            "label_smoothing_factor is for the Trainer's own loss; set `criterion` to HierarchicalLoss(model,"
            " criteria=...) with hs3seg.nn.CrossEntropy(label_smoothing=...) for each stage and 'final'"
        )
