import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from hs3seg.analysis import OnlinePlan, load_confusions, single_phase
from hs3seg.data import DigitScenes
from hs3seg.errors import ConfigError, NetworkError, PlanError, UserError
from hs3seg.integrations.data import TorchDataset
from hs3seg.integrations.extras import need
from hs3seg.nn import ConfusionRecorder, HierarchicalLoss, OnlineLoss, Supervised, supervise

lightning = pytest.importorskip("lightning.pytorch")
transformers = pytest.importorskip("transformers")

from hs3seg.integrations.lightning import ConfusionCallback, SupervisedMixin  # noqa: E402
from hs3seg.integrations.transformers import SupervisedTrainerMixin  # noqa: E402

EXAMPLE = torch.zeros(1, 3, 32, 32)
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore:.*deprecated")


def make_net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        *(nn.Sequential(nn.Conv2d(a, b, 3, 2, 1), nn.ReLU()) for a, b in ((3, 8), (8, 12), (12, 16))),
        nn.Conv2d(16, 11, 1),
    )


def scenes(count: int = 6, as_dict: bool = False) -> TorchDataset:
    return TorchDataset(DigitScenes("train", count, (32, 32)), as_dict=as_dict)


def counted(model: Supervised, count: int = 6) -> dict[str, Any]:
    recorder = ConfusionRecorder(model.plan)
    with torch.no_grad():
        for images, labels in DataLoader(scenes(count), 4):
            recorder.update(model.eval()(images), labels)
    return recorder.confusions()


def same(found: dict[str, Any], expected: dict[str, Any]) -> bool:
    return found.keys() == expected.keys() and all(np.array_equal(found[name], expected[name]) for name in found)


class Module(SupervisedMixin, lightning.LightningModule):  # type: ignore[misc,name-defined]
    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def test_lightnings_loss_enlarges_as_the_network_does() -> None:
    net = make_net()
    net.align_corners = True
    module = Module(net, example=EXAMPLE)
    assert module.model.align_corners
    assert module.criterion.align_corners
    assert all(criterion.align_corners for criterion in module.criterion.criteria)


class OwnModule(lightning.LightningModule):  # type: ignore[misc,name-defined]
    """Somebody's module, whose batches are dictionaries."""

    def __init__(self, calls: bool = True) -> None:
        super().__init__()
        self.wrapped, self.calls = nn.ModuleList([supervise(make_net(), example=EXAMPLE)]), calls

    def validation_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:  # noqa: ARG002
        if self.calls:
            self.wrapped[0](batch["pixel_values"])


def trainer(**options: Any) -> Any:
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "accelerator": "cpu"}
    return lightning.Trainer(**quiet, enable_model_summary=False, **options)


def test_lightning_counts_the_last_validation_and_writes_it(tmp_path: Path) -> None:
    confusion = ConfusionCallback(tmp_path / "confusion.npz")
    module = Module(make_net(), example=EXAMPLE)
    options: dict[str, Any] = {"max_epochs": 2, "num_sanity_val_steps": 1, "callbacks": [confusion]}
    trainer(**options).fit(module, DataLoader(scenes(), 4), DataLoader(scenes(), 4))
    assert confusion.recorder is not None
    assert same(confusion.recorder.confusions(), counted(module.model))
    assert same(dict(load_confusions(tmp_path / "confusion.npz")), counted(module.model))
    assert not module.model._forward_hooks
    assert math.isfinite(module.last_loss)


def test_lightning_step_is_the_hierarchical_loss() -> None:
    module = Module(make_net(), example=EXAMPLE)
    module.log = lambda *_, **__: None
    assert math.isnan(module.last_loss)
    batch = next(iter(DataLoader(scenes(), 4)))
    expected = HierarchicalLoss(module.model.plan)(module.model(batch[0]), batch[1])
    assert torch.equal(module.training_step(batch, 0), expected)
    assert module.last_loss == float(expected)
    assert torch.equal(module.eval()(batch[0]), module.model.net(batch[0]))
    net = module.model.net
    assert module.strip() is net


def test_lightning_callback_counts_for_modules_of_others() -> None:
    confusion = ConfusionCallback(labels=lambda batch: batch["labels"])
    module = OwnModule()
    trainer(callbacks=[confusion]).validate(module, DataLoader(scenes(as_dict=True), 4), verbose=False)
    assert confusion.recorder is not None
    assert same(confusion.recorder.confusions(), counted(module.wrapped[0]))


def test_lightning_callback_tells_what_it_misses() -> None:
    loader = DataLoader(scenes(as_dict=True), 4)
    confusion = ConfusionCallback(labels=lambda batch: batch["labels"])
    module = OwnModule(calls=False)
    with pytest.raises(NetworkError, match="did not call the supervised network"):
        trainer(callbacks=[confusion]).validate(module, loader, verbose=False)
    assert not module.wrapped[0]._forward_hooks
    module.wrapped = nn.ModuleList()
    with pytest.raises(NetworkError, match="OwnModule holds 0 supervised networks"):
        trainer(callbacks=[confusion]).validate(module, loader, verbose=False)


@pytest.mark.parametrize("which", [0, 1, None])
def test_lightning_callback_counts_one_of_several_loaders(which: int | None) -> None:
    """Groups from the val split would be chosen on the images that they are judged by."""
    module = Module(make_net(), example=EXAMPLE)
    loaders = [DataLoader(scenes(4), 4), DataLoader(scenes(6), 4)]
    module.validation_step = lambda batch, batch_idx, dataloader_idx=0: module.model(batch[0]) and None  # noqa: ARG005
    confusion = ConfusionCallback(dataloader_idx=which)
    if which is None:
        with pytest.raises(NetworkError, match="2 validation loaders, .* give ConfusionCallback its dataloader_idx"):
            trainer(callbacks=[confusion]).validate(module, loaders, verbose=False)
        return
    trainer(callbacks=[confusion]).validate(module, loaders, verbose=False)
    assert confusion.recorder is not None
    assert same(confusion.recorder.confusions(), counted(module.model, (4, 6)[which]))


def test_lightning_has_no_images_to_measure_on_the_way() -> None:
    plan = single_phase(tuple("abcdefghijk"), ["0"], settings=OnlinePlan(source="held_out"))
    with pytest.raises(PlanError, match="'held_out' measures images that this module does not have"):
        Module(make_net(), plan=plan, example=EXAMPLE)


class Trainer(SupervisedTrainerMixin, transformers.Trainer):  # type: ignore[misc,name-defined]
    pass


def arguments(folder: Path, **options: Any) -> Any:
    return transformers.TrainingArguments(
        str(folder), report_to="none", save_strategy="no", disable_tqdm=True, use_cpu=True, max_grad_norm=0, **options
    )


def test_transformers_loss_is_the_hierarchical_loss_and_outputs_are_logits(tmp_path: Path) -> None:
    model = supervise(make_net(), example=EXAMPLE)
    loop = Trainer(model, arguments(tmp_path))
    inputs = next(iter(DataLoader(scenes(as_dict=True), 4)))
    loss, outputs = loop.compute_loss(model, inputs, return_outputs=True)
    assert torch.equal(loss, HierarchicalLoss(model.plan)(model(inputs["pixel_values"]), inputs["labels"]))
    assert list(outputs) == ["logits"]
    assert torch.equal(outputs["logits"], model.net(inputs["pixel_values"]))


def test_transformers_accumulation_gives_the_step_of_one_large_batch(tmp_path: Path) -> None:
    weights = []
    for size, steps in ((4, 1), (2, 2)):
        model = supervise(make_net(), example=EXAMPLE)
        # Without batch normalization, whose result depends on how the batch is cut.
        widths = {name: next(head.parameters()).shape[1] for name, head in model.heads.items()}
        torch.manual_seed(1)
        model.heads = nn.ModuleDict({name: nn.Conv2d(width, 11, 1) for name, width in widths.items()})
        options = {"per_device_train_batch_size": size, "gradient_accumulation_steps": steps, "optim": "sgd"}
        loop = Trainer(
            model, arguments(tmp_path, max_steps=1, learning_rate=0.5, **options), train_dataset=scenes(4, True)
        )
        before = model.net[0][0].weight.detach().clone()  # type: ignore[index,union-attr]
        loop.train()
        assert not torch.equal(model.net[0][0].weight, before)  # type: ignore[index,union-attr]
        weights.append([parameter.detach() for parameter in model.parameters()])
    for one, two in zip(*weights, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-6)


def test_transformers_collects_confusion_and_evaluates(tmp_path: Path) -> None:
    model = supervise(make_net(), example=EXAMPLE)
    options = {"per_device_eval_batch_size": 4}
    loop = Trainer(model.train(), arguments(tmp_path, **options), eval_dataset=scenes(as_dict=True))
    assert same(loop.collect_confusion(scenes(as_dict=True)).confusions(), counted(model))
    shapes: list[tuple[int, ...]] = []
    loop.compute_metrics = lambda found: shapes.append(found.predictions.shape) or {"pixels": found.label_ids.size}
    found = loop.evaluate()
    assert shapes == [(6, 11, 4, 4)]
    assert found["eval_pixels"] == 6 * 32 * 32
    expected = [float(loop.compute_loss(model, inputs)) for inputs in DataLoader(scenes(as_dict=True), 4)]
    assert found["eval_loss"] == pytest.approx((4 * expected[0] + 2 * expected[1]) / 6, rel=1e-5)


def test_transformers_refuses_a_plain_network(tmp_path: Path) -> None:
    loop = Trainer(make_net(), arguments(tmp_path))
    with pytest.raises(NetworkError, match=r"was given a Sequential; give it hs3seg\.supervise"):
        loop.collect_confusion(scenes(as_dict=True))


def test_missing_library_names_the_extra() -> None:
    need("torch", "torch")
    with pytest.raises(ConfigError, match=r"needs the library 'no_such_library'.*'\.\[lightning\]'"):
        need("no_such_library", "lightning")


def online_module() -> Module:
    names = tuple(f"class {i}" for i in range(11))
    settings = OnlinePlan(warmup=0.2, interval=0.2, patience=1, theta_degrees=80.0)
    return Module(make_net(), example=EXAMPLE, plan=single_phase(names, ["0", "1"], settings=settings))


def test_lightning_follows_single_phase_hs3_and_its_checkpoint_goes_on(tmp_path: Path) -> None:
    whole, half, rest = online_module(), online_module(), online_module()
    assert isinstance(whole.criterion, OnlineLoss)
    batches = DataLoader(scenes(), 3)
    trainer(max_epochs=5).fit(whole, batches)
    history = whole.criterion.running.history
    assert [entry["progress"] for entry in history] == [0.2, 0.4, 0.6, 0.8]
    stopped = trainer(max_epochs=5, callbacks=[StopAfter(3)])
    stopped.fit(half, batches)
    stopped.save_checkpoint(tmp_path / "half.ckpt")
    trainer(max_epochs=5).fit(rest, batches, ckpt_path=str(tmp_path / "half.ckpt"))
    assert rest.criterion.running.history == history
    torch.testing.assert_close(rest.model.state_dict(), whole.model.state_dict())


class StopAfter(lightning.Callback):  # type: ignore[misc,name-defined]
    def __init__(self, epochs: int) -> None:
        self.epochs = epochs

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:  # noqa: ARG002
        trainer.should_stop = trainer.current_epoch + 1 >= self.epochs


def test_lightning_without_a_number_of_epochs_cannot_follow_it() -> None:
    with pytest.raises(PlanError, match="give the Trainer max_epochs"):
        trainer(max_steps=2, max_epochs=-1).fit(online_module(), DataLoader(scenes(), 3))


def test_transformers_refuses_single_phase_hs3(tmp_path: Path) -> None:
    loop = Trainer(online_module().model, arguments(tmp_path))
    with pytest.raises(PlanError, match="this Trainer cannot follow"):
        loop.compute_loss(loop.model, next(iter(DataLoader(scenes(as_dict=True), 4))))


def test_what_the_trainer_cannot_do_with_stages_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class SegmentationTrainer(SupervisedTrainerMixin, transformers.Trainer):  # type: ignore[misc,name-defined]
        pass

    model = supervise(make_net(), example=EXAMPLE)
    smoothed = transformers.TrainingArguments(str(tmp_path), label_smoothing_factor=0.1, use_cpu=True, report_to=[])
    with pytest.raises(NetworkError, match=r"label_smoothing_factor is for .*CrossEntropy\(label_smoothing="):
        SegmentationTrainer(model, smoothed)
    arguments = transformers.TrainingArguments(str(tmp_path), use_cpu=True, report_to=[])
    monkeypatch.setattr(transformers.TrainingArguments, "n_gpu", property(lambda _: 2))
    with pytest.raises(NetworkError, match=r"one process and 2 GPUs.*torchrun"):
        SegmentationTrainer(model, arguments)


class Marked(torch.utils.data.Dataset[Any]):
    """Scenes in which -100 means ignore, as torch has it."""

    def __init__(self, as_dict: bool) -> None:
        self.inner = scenes(4)
        self.as_dict = as_dict

    def __len__(self) -> int:
        return len(self.inner)

    def __getitem__(self, index: int) -> Any:
        image, labels = self.inner[index]
        labels[:4] = -100  # type: ignore[index]
        return {"pixel_values": image, "labels": labels} if self.as_dict else (image, labels)


@pytest.mark.parametrize("said", [None, -100])
def test_lightning_takes_the_ignore_label_of_the_loss_or_what_is_said(said: int | None) -> None:
    module, confusion = Module(make_net(), example=EXAMPLE), ConfusionCallback(ignore_index=said)
    module.criterion = HierarchicalLoss(module.model.plan, ignore_index=-100 if said is None else 255)
    loop = trainer(callbacks=[confusion], inference_mode=True)
    module.validation_step = lambda batch, batch_idx: module.model(batch[0])  # noqa: ARG005
    loop.validate(module, DataLoader(Marked(False), 4), verbose=False)
    assert confusion.recorder is not None
    assert confusion.recorder.ignore_index == -100
    assert confusion.recorder.confusions()["final"].sum() == 4 * 28 * 32


@pytest.mark.parametrize("said", [None, -100])
def test_transformers_takes_the_ignore_label_of_the_loss_or_what_is_said(tmp_path: Path, said: int | None) -> None:
    loop = Trainer(supervise(make_net(), example=EXAMPLE), arguments(tmp_path))
    if said is None:
        with pytest.raises(UserError, match="label -100"):  # nothing says it yet
            loop.collect_confusion(Marked(True))
        loop.criterion = HierarchicalLoss(loop.model.plan, ignore_index=-100)
    recorder = loop.collect_confusion(Marked(True), ignore_index=said)
    assert recorder.confusions()["final"].sum() == 4 * 28 * 32
