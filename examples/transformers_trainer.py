"""Both phases of HS3 in transformers' Trainer, on a SegFormer: python examples/transformers_trainer.py runs/b0."""

import argparse

from transformers import SegformerConfig, SegformerForSemanticSegmentation, Trainer, TrainingArguments

import hs3seg
from hs3seg.integrations.data import open_parts
from hs3seg.integrations.transformers import SupervisedTrainerMixin


class SegmentationTrainer(SupervisedTrainerMixin, Trainer):
    """The Trainer with the hierarchical loss."""


def make_net(names):
    """A small SegFormer with random weights; or `SegformerForSemanticSegmentation.from_pretrained(...)`."""
    config = SegformerConfig(
        id2label=dict(enumerate(names)), depths=[1, 1, 1, 1], hidden_sizes=[16, 32, 64, 96], decoder_hidden_size=64
    )
    return SegformerForSemanticSegmentation(config)


def main(folder, source="digits", steps=400, **data_options):
    """Trains twice; returns the plain network and the losses of all steps."""
    parts = open_parts(source, as_dict=True, **data_options)
    names, example = parts.taxonomy.names, parts.train[0]["pixel_values"][None]
    options = {"max_steps": steps, "learning_rate": 2e-3, "logging_steps": 1, "report_to": "none"}
    arguments = TrainingArguments(folder, save_strategy="no", **options)

    net = make_net(names)
    plan = hs3seg.deep_supervision(names, hs3seg.find_stages(net, example))
    model = hs3seg.supervise(net, plan=plan, example=example)  # phase one: every stage learns all classes
    first = SegmentationTrainer(model, arguments, train_dataset=parts.reduced)
    first.train()
    recorder = first.collect_confusion(parts.analysis)
    recorder.save(f"{folder}/confusion.npz")  # also for: hs3 plan --confusion FILE
    plan = recorder.make_plan()
    plan.save(f"{folder}/plan.toml")  # look at it, edit it

    model = hs3seg.supervise(make_net(names), plan=plan, example=example)  # phase two: its groups
    second = SegmentationTrainer(model, arguments, train_dataset=parts.train)
    second.train()
    net = model.strip()
    net.save_pretrained(f"{folder}/net")  # a plain SegFormer, for from_pretrained
    logs = [*first.state.log_history, *second.state.log_history]
    return net, [entry["loss"] for entry in logs if "loss" in entry]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder")
    parser.add_argument("--source", default="digits", help="or a folder of images and masks")
    parser.add_argument("--steps", type=int, default=400)
    main(**vars(parser.parse_args()))
