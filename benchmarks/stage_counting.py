"""Confusion matrices of three outputs in one pass, against torchmetrics on interpolated logits.

    .venv/bin/python -m benchmarks.stage_counting --out docs/benchmarks

Two stages and the final output (strides 4, 8 and 4), labels of 512x1024, one image, one thread. The counts of both
sides are compared before anything is timed. A ratio of time is torchmetrics' over ours: 3 = three times as fast.
"""

import json
import sys
from argparse import SUPPRESS
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torchmetrics.classification import MulticlassConfusionMatrix

from benchmarks.rows import (
    Row,
    arguments,
    in_fresh_process,
    in_turn,
    peak_bytes,
    ratios,
    release_memory,
    reset_peak,
    resident_bytes,
    save_told,
)
from hs3seg.nn.counting import ConfusionCounter
from hs3seg.taxonomy import Grouping

GOAL = 3.0
STRIDES = {"stage2": 4, "stage3": 8, "final": 4}
AGAINST = "torchmetrics MulticlassConfusionMatrix on F.interpolate"
IGNORE = 255
Count = Callable[[], dict[str, Tensor]]


@dataclass(frozen=True)
class Case:
    """What both sides count."""

    classes: int
    height: int = 512
    width: int = 1024

    @property
    def name(self) -> str:
        """For the table."""
        return f"confusion matrices of 3 outputs, K = {self.classes}, {self.height}x{self.width}"

    def tensors(self) -> tuple[dict[str, Tensor], Tensor]:
        """Output -> logits (1, K, h, w), and labels (1, H, W), a tenth of them ignored."""
        torch.manual_seed(0)
        outputs = {
            name: 3 * torch.randn(1, self.classes, self.height // stride, self.width // stride)
            for name, stride in STRIDES.items()
        }
        coarse = torch.randint(0, self.classes, (1, self.height // 16, self.width // 16))
        coarse[torch.rand(coarse.shape) < 0.1] = IGNORE
        return outputs, coarse.repeat_interleave(16, 1).repeat_interleave(16, 2)


def ours(case: Case) -> Count:
    """One image by strips."""
    outputs, labels = case.tensors()
    groupings = dict.fromkeys(outputs, Grouping.identity(case.classes))

    def count() -> dict[str, Tensor]:
        counter = ConfusionCounter(groupings, IGNORE)
        counter.add(outputs, labels)
        return counter.counts

    return count


def theirs(case: Case, *, checked: bool = False) -> Count:
    """One image by torchmetrics, as usual or without its check of the labels' values."""
    outputs, labels = case.tensors()

    def count() -> dict[str, Tensor]:
        found = {}
        for name, logits in outputs.items():
            metric = MulticlassConfusionMatrix(case.classes, ignore_index=IGNORE, validate_args=checked)
            size = (labels.shape[-2], labels.shape[-1])
            metric.update(F.interpolate(logits, size=size, mode="bilinear", align_corners=False), labels)
            found[name] = metric.compute()
        return found

    return count


def different_pixels(one: dict[str, Tensor], other: dict[str, Tensor]) -> int:
    """Pixels counted elsewhere, over all outputs.

    Raises:
        AssertionError: more than one in 100 000, which is more than near ties explain, or not as many pixels.
    """
    moved = sum(int((one[name] - other[name]).abs().sum()) // 2 for name in one)
    for name in one:
        assert one[name].sum() == other[name].sum(), f"{name}: the sides count another number of pixels"
    pixels = sum(int(matrix.sum()) for matrix in one.values())
    assert moved <= pixels / 100_000, f"{moved} of {pixels} pixels are counted elsewhere"
    return moved


def probe(case: Case, side: str) -> dict[str, int]:
    """Most memory while one image is counted, beyond what was held before; libraries are set up by a small image."""
    make = ours if side == "ours" else theirs
    make(Case(case.classes, 32, 64))()
    count = make(case)
    release_memory()
    before = resident_bytes()
    reset_peak()
    count()
    return {"bytes": peak_bytes() - before}


def time_rows(case: Case, repeats: int) -> list[Row]:
    """Seconds of torchmetrics over ours, without and with its checks."""
    plain, checked = "torchmetrics without checks", "torchmetrics"
    sides = {"ours": ours(case), plain: theirs(case), checked: theirs(case, checked=True)}
    moved = different_pixels(sides["ours"](), sides[plain]())
    seconds = in_turn(sides, repeats)
    details: dict[str, Any] = {
        "seconds": {side: [round(value, 4) for value in values] for side, values in seconds.items()},
        "pixels_counted_elsewhere": moved,
        "pixels": case.height * case.width * len(STRIDES),
        "threads": torch.get_num_threads(),
        **asdict(case),
    }

    def row(against: str, side: str) -> Row:
        speed = ratios(seconds[side], seconds["ours"])
        return Row(f"{case.name}: speed, against {side}", against, speed, GOAL, "higher", details=details)

    return [row(AGAINST, checked), row(f"{AGAINST}, validate_args=False", plain)]


def memory_rows(large: Case, few: Case, repeats: int) -> list[Row]:
    """Extra peak memory against torchmetrics, and ours with many classes against ours with few."""
    double = Case(large.classes, 2 * large.height, 2 * large.width)
    wanted = {"ours": (few, large, double), "torchmetrics": (few, large)}
    peaks: dict[tuple[str, Case], list[int]] = {}
    for side, cases in wanted.items():
        for case in cases:
            arguments = ["--side", side, "--memory", json.dumps(asdict(case))]
            command = [sys.executable, "-m", "benchmarks.stage_counting", *arguments]
            peaks[side, case] = [in_fresh_process(command)["bytes"] for _ in range(repeats)]
    details = {
        "bytes": {
            f"{side}, K = {case.classes}, {case.height}x{case.width}": found for (side, case), found in peaks.items()
        }
    }

    def row(name: str, against: str, of: tuple[str, Case], over: tuple[str, Case]) -> Row:
        return Row(name, against, ratios(peaks[of], peaks[over]), None, details=details)

    found = [
        row(f"{case.name}: extra peak memory", AGAINST, ("ours", case), ("torchmetrics", case)) for case in (few, large)
    ]
    classes = f"confusion matrices, extra peak memory, K = {large.classes}"
    found.append(row(classes, f"ours, K = {few.classes}", ("ours", large), ("ours", few)))
    pixels = f"confusion matrices, extra peak memory, {double.height}x{double.width}, K = {large.classes}"
    against = f"ours, {large.height}x{large.width}, K = {large.classes}"
    found.append(row(pixels, against, ("ours", double), ("ours", large)))
    return found


def rows(*, quick: bool = False, repeats: int = 9) -> Iterator[Row]:
    """All rows, one after another."""
    size = (64, 128) if quick else (512, 1024)
    few, many = Case(19, *size), Case(150, *size)
    for case in (few, many):
        yield from time_rows(case, 2 if quick else repeats)
    yield from memory_rows(many, few, 1 if quick else 2)


def main() -> None:
    """Measures and adds the rows to results.json."""
    parser = arguments(__doc__)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--side", choices=("ours", "torchmetrics"), help=SUPPRESS)
    parser.add_argument("--memory", help=SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.memory:
        print(json.dumps(probe(Case(**json.loads(options.memory)), options.side)))
        return
    save_told(options, "stage_counting", rows(quick=options.quick, repeats=options.repeats))


if __name__ == "__main__":
    main()
