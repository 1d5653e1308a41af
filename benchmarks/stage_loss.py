"""Time and memory of a stage's loss at label resolution, against `F.interpolate` and `F.cross_entropy`.

    .venv/bin/python -m benchmarks.stage_loss --out docs/benchmarks

Both sides take logits at stride 4 and labels of 512x1024 and give the mean loss and the logits' gradient, on one
thread; that they are equal is checked before anything is timed. Memory is the most that a fresh process holds during
one forward and backward pass beyond what it held before.
"""

import json
import sys
from argparse import SUPPRESS
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

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
from hs3seg.nn.fused_cross_entropy import enlarged_cross_entropy, hardest_cross_entropy

TIME_GOAL, MEMORY_GOAL = 0.7, 1 / 6
AGAINST = "F.interpolate + F.cross_entropy"
IGNORE, STRIDE = 255, 4
THRESHOLD, MIN_KEPT = 0.9, 131072
Kind = Literal["plain", "align_corners", "class weights", "label smoothing", "OHEM", "bf16 autocast", "torch.compile"]
KINDS: tuple[Kind, ...] = (
    "align_corners",
    "class weights",
    "label smoothing",
    "OHEM",
    "bf16 autocast",
    "torch.compile",
)


@dataclass(frozen=True)
class Case:
    """What both sides compute."""

    classes: int
    batch: int = 1
    kind: Kind = "plain"
    height: int = 512
    width: int = 1024

    @property
    def name(self) -> str:
        """For the table."""
        kind = "" if self.kind == "plain" else f", {self.kind}"
        return f"loss of a stage, K = {self.classes}, batch {self.batch}{kind}"

    @property
    def tolerance(self) -> float:
        """Of loss and gradient; bf16 rounds the gradient to 8 bits, whoever computes it."""
        return 2**-8 if self.kind == "bf16 autocast" else 1e-5

    def tensors(self) -> tuple[Tensor, Tensor, Tensor | None]:
        """Logits (N, K, H/4, W/4), labels (N, H, W) in patches, some of them ignored, and class weights or None."""
        torch.manual_seed(0)
        dtype = torch.bfloat16 if self.kind == "bf16 autocast" else torch.float32
        logits = 3 * torch.randn(self.batch, self.classes, self.height // STRIDE, self.width // STRIDE)
        coarse = torch.randint(0, self.classes, (self.batch, self.height // 16, self.width // 16))
        coarse[torch.rand(coarse.shape) < 0.1] = IGNORE
        labels = coarse.repeat_interleave(16, 1).repeat_interleave(16, 2)
        weights = torch.rand(self.classes) + 0.5 if self.kind == "class weights" else None
        return logits.to(dtype).requires_grad_(), labels, weights


def our_loss(case: Case, logits: Tensor, labels: Tensor, weights: Tensor | None) -> Tensor:
    """The mean loss by strips."""
    if case.kind == "OHEM":
        losses, number = hardest_cross_entropy(logits, labels, THRESHOLD, MIN_KEPT, weights, IGNORE)
    else:
        smoothing = 0.1 if case.kind == "label smoothing" else 0.0
        corners = case.kind == "align_corners"
        losses, number = enlarged_cross_entropy(logits, labels, weights, smoothing, IGNORE, corners)
    return losses / number


def torch_loss(case: Case, logits: Tensor, labels: Tensor, weights: Tensor | None) -> Tensor:
    """The same with torch alone, in float32."""
    size = (labels.shape[-2], labels.shape[-1])
    large = F.interpolate(logits.float(), size=size, mode="bilinear", align_corners=case.kind == "align_corners")
    if case.kind == "OHEM":
        return _plain_ohem(large, labels)
    smoothing = 0.1 if case.kind == "label smoothing" else 0.0
    return F.cross_entropy(large, labels, weights, ignore_index=IGNORE, label_smoothing=smoothing)


def _plain_ohem(large: Tensor, labels: Tensor) -> Tensor:
    losses = F.cross_entropy(large, labels, ignore_index=IGNORE, reduction="none")
    valid = labels != IGNORE
    with torch.no_grad():
        index = torch.where(valid, labels, 0)
        truth = F.softmax(large, dim=1).gather(1, index[:, None]).squeeze(1)[valid]
        bound = torch.kthvalue(truth, min(MIN_KEPT, truth.numel())).values.clamp(min=THRESHOLD)
        keep = truth <= bound
    return losses[valid][keep].mean()


SIDES: dict[str, Callable[[Case, Tensor, Tensor, Tensor | None], Tensor]] = {"ours": our_loss, "torch": torch_loss}


def make_pass(case: Case, side: str) -> Callable[[], tuple[Tensor, Tensor]]:
    """A function that gives the loss and the gradient of the logits."""
    logits, labels, weights = case.tensors()
    loss_of = SIDES[side]
    if case.kind == "torch.compile":
        loss_of = torch.compile(loss_of, fullgraph=True)

    def run() -> tuple[Tensor, Tensor]:
        with torch.autocast("cpu", torch.bfloat16, enabled=case.kind == "bf16 autocast"):
            loss = loss_of(case, logits, labels, weights)
        (gradient,) = torch.autograd.grad(loss, logits)
        return loss.detach(), gradient

    return run


def differences(case: Case, one: tuple[Tensor, Tensor], other: tuple[Tensor, Tensor]) -> dict[str, float]:
    """Of the losses, relative, and of the gradients, relative to the largest entry.

    Raises:
        AssertionError: they are not equal; such sides are not worth timing.
    """
    loss = float((one[0] - other[0]).abs() / other[0].abs())
    gradient = float((one[1] - other[1]).abs().max() / other[1].abs().max())
    assert loss <= case.tolerance, f"{case.name}: losses differ by {loss}"
    assert gradient <= case.tolerance, f"{case.name}: gradients differ by {gradient}"
    return {"loss_difference": loss, "gradient_difference": gradient}


def probe(case: Case, side: str) -> dict[str, int]:
    """Most memory during one pass, beyond what was held before; libraries are set up by a small pass."""
    make_pass(Case(case.classes, 1, case.kind, 32, 64), side)()
    run = make_pass(case, side)
    release_memory()
    before = resident_bytes()
    reset_peak()
    run()
    return {"bytes": peak_bytes() - before}


def time_row(case: Case, repeats: int) -> Row:
    """Ours over torch's, seconds."""
    passes = {side: make_pass(case, side) for side in SIDES}
    equal = differences(case, passes["ours"](), passes["torch"]())
    seconds = in_turn(passes, repeats)
    told = {side: [round(value, 4) for value in values] for side, values in seconds.items()}
    details: dict[str, Any] = {"seconds": told, "threads": torch.get_num_threads(), **equal, **asdict(case)}
    against = AGAINST + (", both compiled" if case.kind == "torch.compile" else "")
    return Row(f"{case.name}: time", against, ratios(seconds["ours"], seconds["torch"]), TIME_GOAL, details=details)


def memory_row(case: Case, repeats: int) -> Row:
    """Ours over torch's, bytes beyond those held before."""
    sides: dict[str, list[int]] = {side: [] for side in SIDES}
    for _ in range(repeats):
        for side, found in sides.items():
            command = [
                sys.executable,
                "-m",
                "benchmarks.stage_loss",
                "--side",
                side,
                "--memory",
                json.dumps(asdict(case)),
            ]
            found.append(in_fresh_process(command)["bytes"])
    details = {"bytes": sides, **asdict(case)}
    return Row(f"{case.name}: extra peak memory", AGAINST, ratios(*sides.values()), MEMORY_GOAL, details=details)


def rows(*, quick: bool = False, repeats: int = 9) -> Iterator[Row]:
    """All rows, one after another."""
    size = (64, 128) if quick else (512, 1024)
    repeats = 2 if quick else repeats
    for classes, batch in ((19, 1), (19, 4), (40, 1), (150, 1)):
        case = Case(classes, batch, "plain", *size)
        yield time_row(case, repeats)
        yield memory_row(case, 1 if quick else 2)
    for kind in KINDS:
        yield time_row(Case(19, 1, kind, *size), repeats)


def main() -> None:
    """Measures and adds the rows to results.json."""
    parser = arguments(__doc__)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--side", choices=list(SIDES), help=SUPPRESS)
    parser.add_argument("--memory", help=SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.memory:
        print(json.dumps(probe(Case(**json.loads(options.memory)), options.side)))
        return
    save_told(options, "stage_loss", rows(quick=options.quick, repeats=options.repeats))


if __name__ == "__main__":
    main()
