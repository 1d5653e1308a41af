"""Both phases of HS3 with accelerate, on torchvision's LRASPP: accelerate launch examples/accelerate_loop.py runs/a."""

import argparse
from itertools import chain, islice, repeat

import torch
from accelerate import Accelerator
from torch.utils.data import DataLoader, Subset
from torchvision.models.segmentation import lraspp_mobilenet_v3_large

import hs3seg
from hs3seg.integrations.data import open_parts


def train(accelerator, net, plan, data, steps, example):
    """A loop on any device, any number of processes, any precision."""
    model = hs3seg.supervise(net, plan=plan, example=example)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    model, optimizer, loader = accelerator.prepare(model, optimizer, DataLoader(data, 8, shuffle=True))
    criterion = hs3seg.HierarchicalLoss(model)
    losses = []
    for images, labels in islice(chain.from_iterable(repeat(loader)), steps):
        loss = criterion(model.train()(images), labels)
        optimizer.zero_grad()
        accelerator.backward(loss)
        optimizer.step()
        losses.append(loss.item())
    return model, losses


def main(folder, source="digits", steps=400, **data_options):
    """Trains twice; returns the plain network and the losses of all steps."""
    accelerator, parts = Accelerator(), open_parts(source, **data_options)
    names, example = parts.taxonomy.names, parts.train[0][0][None]
    make = {"weights": None, "weights_backbone": None, "num_classes": len(names)}
    net = lraspp_mobilenet_v3_large(**make)
    plan = hs3seg.deep_supervision(names, hs3seg.find_stages(net, example))
    model, losses = train(accelerator, net, plan, parts.reduced, steps, example)  # phase one: all classes
    recorder = hs3seg.ConfusionRecorder(model)  # sums over the processes
    model = accelerator.unwrap_model(model).eval()
    mine = range(accelerator.process_index, len(parts.analysis), accelerator.num_processes)  # each image once
    with torch.no_grad():
        for images, labels in DataLoader(Subset(parts.analysis, mine), 8):
            recorder.update(model(images.to(accelerator.device)), labels.to(accelerator.device))
    plan = recorder.make_plan()  # on every process
    if accelerator.is_main_process:
        plan.save(f"{folder}/plan.toml")  # look at it, edit it
    model, more = train(accelerator, lraspp_mobilenet_v3_large(**make), plan, parts.train, steps, example)  # phase two
    net = accelerator.unwrap_model(model).strip()
    accelerator.save(net.state_dict(), f"{folder}/net.safetensors", safe_serialization=True)  # nothing of ours in it
    return net, losses + more


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder")
    parser.add_argument("--source", default="digits", help="or a folder of images and masks")
    parser.add_argument("--steps", type=int, default=400)
    print("last loss:", main(**vars(parser.parse_args()))[1][-1])
