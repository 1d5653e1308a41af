"""Inference of a stripped network against the network it was made from.

    .venv/bin/python -m benchmarks.stripped --out docs/benchmarks

HRNet-w18-small, one image, float32, one thread. Both give the very same logits with the same multiply-accumulates,
which is checked; a second copy of the plain network shows how far two equal sides are apart on the machine. Two
per cent is little on a machine that others use too, so the time is the processor's.
"""

import copy
import time
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from benchmarks.rows import Row, arguments, in_turn, ratios, save_told
from hs3seg import networks
from hs3seg.analysis import deep_supervision
from hs3seg.nn import supervise
from hs3seg.nn.cost import count_cost

GOAL, TOLERANCE = 1.0, 0.02
STAGES = ("stage2", "stage3")
CASES = ((19, (512, 1024)), (11, (360, 480)))


def make_pair(classes: int) -> tuple[nn.Module, nn.Module]:
    """The plain network, and one that was supervised and stripped; same weights."""
    torch.manual_seed(0)
    plain = networks.create("hrnet_w18_small", classes).eval()
    plan = deep_supervision(tuple(f"class {number}" for number in range(classes)), STAGES, 0.4)
    model = supervise(copy.deepcopy(plain), plan=plan).eval()
    model(torch.zeros(1, 3, 64, 64))
    return plain, model.strip().eval()


def row(classes: int, size: tuple[int, int], repeats: int) -> Row:
    """Seconds of the stripped network over the plain one's."""
    plain, stripped = make_pair(classes)
    again = copy.deepcopy(plain)
    images = torch.randn(1, 3, *size)
    costs = [count_cost(net, tuple(images.shape)) for net in (plain, stripped)]
    assert costs[0] == costs[1], f"the stripped network costs {costs[1]}, the plain one {costs[0]}"
    with torch.inference_mode():
        assert torch.equal(plain(images), stripped(images)), "the stripped network gives other logits"
        sides = {"plain": lambda: plain(images), "stripped": lambda: stripped(images), "again": lambda: again(images)}
        seconds = in_turn(sides, repeats, warm_up=2, clock=time.process_time)
    same = ratios(seconds["again"], seconds["plain"])
    details: dict[str, Any] = {
        "processor_seconds": {side: [round(value, 4) for value in values] for side, values in seconds.items()},
        "gmacs": costs[0].gmacs,
        "plain_against_plain": sorted(same)[len(same) // 2],
        "threads": torch.get_num_threads(),
    }
    name = f"inference of the stripped network, {size[0]}x{size[1]}: time"
    runs = ratios(seconds["stripped"], seconds["plain"])
    return Row(name, "the plain network, same MACs", runs, GOAL, "near", TOLERANCE, details=details)


def rows(*, quick: bool = False, repeats: int = 101) -> Iterator[Row]:
    """All rows, one after another."""
    for classes, size in CASES:
        yield row(classes, (64, 128) if quick else size, 3 if quick else repeats)


def main() -> None:
    """Measures and adds the rows to results.json."""
    parser = arguments(__doc__)
    parser.add_argument("--repeats", type=int, default=101)
    options = parser.parse_args()
    torch.set_num_threads(1)
    save_told(options, "stripped", rows(quick=options.quick, repeats=options.repeats))


if __name__ == "__main__":
    main()
