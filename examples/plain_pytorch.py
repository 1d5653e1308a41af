"""Both phases of HS3 in a plain loop, on a network of your own: python examples/plain_pytorch.py runs/plain."""

import argparse
from itertools import chain, islice, pairwise, repeat

import torch
from torch import nn
from torch.utils.data import DataLoader

import hs3seg
from hs3seg.integrations.data import open_parts


def make_net(num_classes, widths=(3, 16, 32, 64, 96)):
    """Any network that gives logits (N, K, h, w)."""
    blocks = [nn.Sequential(nn.Conv2d(a, b, 3, 2, 1), nn.BatchNorm2d(b), nn.ReLU()) for a, b in pairwise(widths)]
    return nn.Sequential(*blocks, nn.Conv2d(widths[-1], num_classes, 1))


def train(model, data, steps):
    """Your loop: the loss alone is new."""
    criterion = hs3seg.HierarchicalLoss(model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    losses = []
    for images, labels in islice(chain.from_iterable(repeat(DataLoader(data, 8, shuffle=True))), steps):
        loss = criterion(model.train()(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def main(folder, source="digits", steps=400, **data_options):
    """Trains twice; returns the plain network and the losses of all steps."""
    parts = open_parts(source, **data_options)
    names, example = parts.taxonomy.names, parts.train[0][0][None]
    net = make_net(len(names))
    plan = hs3seg.deep_supervision(names, hs3seg.find_stages(net, example))
    model = hs3seg.supervise(net, plan=plan, example=example)  # phase one: every stage learns all classes
    losses = train(model, parts.reduced, steps)
    recorder = hs3seg.ConfusionRecorder(model)
    with torch.no_grad():
        for images, labels in DataLoader(parts.analysis, 8):
            recorder.update(model.eval()(images), labels)
    plan = recorder.make_plan()
    plan.save(f"{folder}/plan.toml")  # look at it, edit it
    model = hs3seg.supervise(make_net(len(names)), plan=plan, example=example)  # phase two: its groups
    losses += train(model, parts.train, steps)
    torch.save(model.strip().state_dict(), f"{folder}/net.pt")  # your network, your names, nothing of ours
    return model.net, losses


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder")
    parser.add_argument("--source", default="digits", help="or a folder of images and masks")
    parser.add_argument("--steps", type=int, default=400)
    print("last loss:", main(**vars(parser.parse_args()))[1][-1])
