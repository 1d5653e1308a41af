"""Time and peak memory of a training step with two supervised stages, against the same network without.

    .venv/bin/python -m benchmarks.step --out docs/benchmarks

HRNet-w18, 512x1024 pixels, 19 classes, SGD, as the engine runs a step: its runtime, its loss, its layout. Memory is
measured in a fresh process per side. The same with `F.interpolate` and `F.cross_entropy` shows what the loss is worth.
"""

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.rows import Row, in_fresh_process, in_turn, peak_bytes, ratios, reset_peak, resident_bytes, save_rows
from hs3seg import networks
from hs3seg.analysis import SupervisionPlan, deep_supervision, no_supervision
from hs3seg.engine import Runtime
from hs3seg.nn import HierarchicalLoss, supervise

CLASSES = 19
NAMES = tuple(f"class {number}" for number in range(CLASSES))
STAGES = ("stage2", "stage3")
TIME_GOAL, MEMORY_GOAL = 1.10, 1.05
_USUAL = "our loss against a plain network as one usually trains it"


@dataclass(frozen=True)
class Side:
    """One way to take a step."""

    supervised: bool
    loss: Literal["ours", "torch"] = "ours"
    precision: Literal["bf16", "float32"] = "bf16"
    batch: int = 1
    height: int = 512
    width: int = 1024

    @property
    def name(self) -> str:
        """For the table."""
        return f"{'two stages' if self.supervised else 'none'}, {self.loss}"


def torch_loss(plan: SupervisionPlan, outputs: dict[str, Tensor], labels: Tensor) -> Tensor:
    """What one writes with torch alone: every stage's logits are enlarged, then compared."""
    gammas = {stage.stage: stage.gamma for stage in plan.stages} | {"final": 1.0}
    terms = []
    for name, gamma in gammas.items():
        logits = F.interpolate(outputs[name], size=labels.shape[-2:], mode="bilinear", align_corners=False)
        terms.append(gamma * F.cross_entropy(logits, labels, ignore_index=255))
    return torch.stack(terms).sum()


def make_step(side: Side) -> Callable[[], float]:
    """A function that takes one step and gives the loss; always on the same images, in memory."""
    torch.manual_seed(0)
    plan = deep_supervision(NAMES, STAGES, 0.4) if side.supervised else no_supervision(NAMES)
    runtime = Runtime(side.precision)
    model = runtime.place(supervise(networks.create("hrnet_w18", CLASSES), plan=plan))
    criterion = HierarchicalLoss(plan)
    prepared, optimizer = runtime.prepare(model, torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9))
    prepared.train()
    pixels = torch.randint(0, 256, (side.batch, 3, side.height, side.width), dtype=torch.uint8)
    coarse = torch.randint(0, CLASSES, (side.batch, side.height // 32, side.width // 32))
    labels = coarse.repeat_interleave(32, 1).repeat_interleave(32, 2)
    mean, std = torch.full((3,), 0.45), torch.full((3,), 0.22)

    def step() -> float:
        # As in the engine, no name keeps the logits while the backward pass runs.
        measure = criterion if side.loss == "ours" else partial(torch_loss, plan)
        loss = measure(prepared(runtime.images(pixels, mean, std)), labels)
        runtime.accelerator.backward(loss)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return float(loss.detach())

    return step


def probe(side: Side, steps: int = 3) -> dict[str, Any]:
    """Peak memory of some steps, without what the process held before there was a network."""
    before = resident_bytes()
    step = make_step(side)
    reset_peak()
    losses = [step() for _ in range(steps)]
    return {"step_bytes": peak_bytes() - before, "process_bytes": peak_bytes(), "loss": losses[0]}


def _peaks(side: Side, repeats: int, threads: int) -> list[dict[str, Any]]:
    command = [sys.executable, "-m", "benchmarks.step", "--probe", json.dumps(asdict(side))]
    return [in_fresh_process(command, threads) for _ in range(repeats)]


def _label(precision: str, batch: int, what: str) -> str:
    return f"training step, {what}, two supervised stages, {precision}, batch {batch}"


def time_rows(precision: Literal["bf16", "float32"], batch: int, repeats: int, size: tuple[int, int]) -> list[Row]:
    """With our loss (goal), with torch's, and what torch's costs against ours."""
    sides = [
        Side(supervised, loss, precision, batch, *size) for loss in ("ours", "torch") for supervised in (False, True)
    ]
    seconds = in_turn({side.name: make_step(side) for side in sides}, repeats, warm_up=2)
    details = {
        "seconds": {name: [round(value, 4) for value in values] for name, values in seconds.items()},
        "size": list(size),
        "threads": torch.get_num_threads(),
    }
    pairs: Sequence[tuple[str, str, str, str, float | None]] = (
        ("time", "the same network without stages", "two stages, ours", "none, ours", TIME_GOAL),
        ("time, torch's losses", "the same network without stages", "two stages, torch", "none, torch", None),
        ("time, our loss", "F.interpolate + F.cross_entropy", "two stages, ours", "two stages, torch", None),
        (f"time, {_USUAL}", "the same network without stages, torch's loss", "two stages, ours", "none, torch", None),
    )
    return [
        Row(_label(precision, batch, what), against, ratios(seconds[of], seconds[over]), goal, details=details)
        for what, against, of, over, goal in pairs
    ]


def memory_rows(precision: Literal["bf16", "float32"], batch: int, repeats: int, size: tuple[int, int]) -> list[Row]:
    """The same three, peak memory."""
    threads = torch.get_num_threads()
    peaks = {
        (loss, supervised): _peaks(Side(supervised, loss, precision, batch, *size), repeats, threads)
        for loss in ("ours", "torch")
        for supervised in (False, True)
    }
    told = {Side(supervised, loss).name: found for (loss, supervised), found in peaks.items()}  # type: ignore[arg-type]
    details = {"size": list(size), "threads": threads} | {
        key: {name: [one[key] for one in found] for name, found in told.items()}
        for key in ("step_bytes", "process_bytes")
    }
    pairs: Sequence[tuple[str, str, tuple[str, bool], tuple[str, bool], float | None]] = (
        ("peak memory", "the same network without stages", ("ours", True), ("ours", False), MEMORY_GOAL),
        ("peak memory, torch's losses", "the same network without stages", ("torch", True), ("torch", False), None),
        ("peak memory, our loss", "F.interpolate + F.cross_entropy", ("ours", True), ("torch", True), None),
        (
            f"peak memory, {_USUAL}",
            "the same network without stages, torch's loss",
            ("ours", True),
            ("torch", False),
            None,
        ),
    )
    rows = []
    for what, against, of, over, goal in pairs:
        ours, theirs = ([one["step_bytes"] for one in peaks[side]] for side in (of, over))
        rows.append(Row(_label(precision, batch, what), against, ratios(ours, theirs), goal, details=details))
    return rows


def rows(
    *,
    quick: bool = False,
    batches: Sequence[int] = (1,),
    repeats: int = 7,
    precisions: Sequence[Literal["bf16", "float32"]] = ("bf16", "float32"),
    only: Literal["time", "memory"] | None = None,
) -> list[Row]:
    """All rows; `quick` takes small images and few repeats, and shows only that it runs."""
    size = (128, 256) if quick else (512, 1024)
    found: list[Row] = []
    for precision in precisions:
        for batch in batches:
            # The allocator makes a peak differ by a few hundredths from process to process.
            if only != "time":
                found += memory_rows(precision, batch, 1 if quick else 5, size)
            if only != "memory" and batch == batches[0]:
                found += time_rows(precision, batch, 2 if quick else repeats, size)
    return found


def main() -> None:
    """Measures and adds the rows to results.json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("docs/benchmarks"), help="folder of results.json")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--batches", type=int, nargs="+", default=[1])
    parser.add_argument("--precisions", nargs="+", choices=("bf16", "float32"), default=["bf16", "float32"])
    parser.add_argument("--only", choices=("time", "memory"), help="memory asks for no quiet machine")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--probe", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.probe:
        print(json.dumps(probe(Side(**json.loads(options.probe)))))
        return
    torch.set_num_threads(options.threads)
    found = rows(
        quick=options.quick,
        batches=options.batches,
        repeats=options.repeats,
        precisions=options.precisions,
        only=options.only,
    )
    for row in found:
        print(f"{row.name}: {row.ratio:.3f} ({min(row.runs):.3f} to {max(row.runs):.3f}), goal {row.goal}")
    command = f"python -m benchmarks.step --out docs/benchmarks --repeats {options.repeats}"
    command += f" --batches {' '.join(map(str, options.batches))} --precisions {' '.join(options.precisions)}"
    command += f" --only {options.only}" if options.only else ""
    command += " --quick" if options.quick else ""
    save_rows(options.out / "results.json", found, command)


if __name__ == "__main__":
    main()
