"""How step time, memory, processes and clustering grow: fitted exponents, and the plan for 64 GPUs.

    .venv/bin/python -m benchmarks.scaling --out docs/benchmarks    measures, and writes scaling.md with its pictures
    .venv/bin/python -m benchmarks.scaling --out docs/benchmarks --parts    the page alone, from results.json
    .venv/bin/python -m benchmarks.scaling --plan    the tables of docs/scaling.md

HRNet-w18-small, deep supervision, SGD, one thread, as the engine runs a step: its runtime, its loss, its layout.
"""

import json
import socket
import sys
import tempfile
import time
from argparse import SUPPRESS
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from scipy.optimize import minimize_scalar, nnls
from scipy.stats import t as student
from torch import Tensor, nn

from benchmarks.rows import (
    Row,
    arguments,
    folder,
    in_fresh_process,
    peak_bytes,
    reset_peak,
    resident_bytes,
    save_rows,
    tell,
)
from hs3seg import networks
from hs3seg.analysis import deep_supervision, no_supervision, spectral_groupings
from hs3seg.data import DigitScenes, TrainingLoader, TrainTransform
from hs3seg.data.images import raw_mask, read_image
from hs3seg.engine import Runtime
from hs3seg.nn import HierarchicalLoss, count_cost, supervise

SIZES = ((96, 128), (144, 192), (192, 256), (256, 384), (360, 480), (512, 1024))
CLASSES = (11, 19, 40, 80, 150)
STAGES = ("stage2", "stage3", "stage4.0.branches.3")
PRECISIONS: tuple[Literal["bf16", "float32"], ...] = ("bf16", "float32")
PARTS = ("limits", "host", "step", "memory", "processes", "clustering")
KERNELS = 10  # a convolution, its norm and its ReLU: three forward, six backward with copies, one of the optimizer
PASSES = 3  # backward costs two forward passes: one for the inputs' gradients, one for the weights'
ACTIVATION_TOUCHES = 5  # written, read, read again by the backward pass; the gradient written and read


@dataclass(frozen=True)
class Fit:
    """y = constant + scale * x ** exponent.

    Args:
        exponent: The power.
        interval: 95 %, from the spread of the repeats' own exponents (Student's t).
        scale: See above.
        constant: 0 where a pure power law does as well.
        residual: Root mean square of the relative residuals of the medians, per degree of freedom.
        exponents: Of each repeat.
    """

    exponent: float
    interval: tuple[float, float]
    scale: float
    constant: float
    residual: float
    exponents: tuple[float, ...]

    def at(self, x: float) -> float:
        """Value of the fitted curve."""
        return self.constant + self.scale * x**self.exponent


def fit_power(xs: Sequence[float], runs: Sequence[Sequence[float]]) -> Fit:
    """Fits a power law, with a constant where that lowers the residual to 0.7 or less, or where an x is 0.

    Args:
        xs: What was changed, not negative.
        runs: Per x the measured values, one per repeat, all positive.
    """
    x, table = np.asarray(xs, float), np.asarray(runs, float)
    middle = np.median(table, axis=1)
    solve: Callable[[NDArray[Any], NDArray[Any]], tuple[float, float, float]] = _with_constant
    if (x > 0).all():
        plain = _residual(x, middle, _power(x, middle))
        if len(x) < 4 or _residual(x, middle, _with_constant(x, middle)) > 0.7 * plain:
            solve = _power
    constant, scale, exponent = solve(x, middle)
    own = [solve(x, column)[2] for column in table.T]
    half = float(student.ppf(0.975, len(own) - 1) * np.std(own, ddof=1) / len(own) ** 0.5) if len(own) > 1 else np.inf
    residual = _residual(x, middle, (constant, scale, exponent))
    return Fit(exponent, (exponent - half, exponent + half), scale, constant, residual, tuple(own))


def _power(x: NDArray[Any], y: NDArray[Any]) -> tuple[float, float, float]:
    slope, intercept = np.polyfit(np.log(x), np.log(y), 1)
    return 0.0, float(np.exp(intercept)), float(slope)


def _with_constant(x: NDArray[Any], y: NDArray[Any]) -> tuple[float, float, float]:
    unit = x.max()

    def solve(power: float) -> tuple[NDArray[Any], float]:
        columns = np.stack([np.ones_like(x), (x / unit) ** power], 1) / y[:, None]
        found: tuple[NDArray[Any], float] = nnls(columns, np.ones_like(y))
        return found

    grid = np.linspace(0.05, 6, 120)
    best = grid[np.argmin([solve(power)[1] for power in grid])]
    near = minimize_scalar(
        lambda p: solve(p)[1], bounds=(max(0.01, best - 0.05), best + 0.05), method="bounded", options={"xatol": 1e-7}
    )
    (constant, scale), _ = solve(near.x)
    return float(constant), float(scale / unit**near.x), float(near.x)


def _residual(x: NDArray[Any], y: NDArray[Any], law: tuple[float, float, float]) -> float:
    constant, scale, exponent = law
    parameters = 3 if constant else 2
    return float((((constant + scale * x**exponent) / y - 1) ** 2).sum() / max(1, len(x) - parameters)) ** 0.5


def cpu_seconds(sides: dict[str, Callable[[], Any]], repeats: int, warm_up: int = 1) -> dict[str, list[float]]:
    """As `rows.in_turn`, but processor time of this process.

    An exponent is no ratio of two sides, so what else the machine does would not cancel; one thread that is not made to
    wait takes as much wall time.
    """
    names = list(sides)
    for name in names * warm_up:
        sides[name]()
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for repeat in range(repeats):
        for name in names if repeat % 2 == 0 else reversed(names):
            began = time.process_time()
            sides[name]()
            seconds[name].append(time.process_time() - began)
    return seconds


@dataclass(frozen=True)
class Case:
    """One training step."""

    height: int = 256
    width: int = 512
    classes: int = 19
    stages: int = 2
    precision: Literal["bf16", "float32"] = "bf16"

    def model(self) -> Any:
        """The supervised network."""
        names = tuple(f"class {number}" for number in range(self.classes))
        plan = deep_supervision(names, STAGES[: self.stages], 0.4) if self.stages else no_supervision(names)
        return supervise(networks.create("hrnet_w18_small", self.classes), plan=plan)


def make_step(case: Case) -> Callable[[], float]:
    """A function that takes one step on one image in memory and gives the loss."""
    torch.manual_seed(0)
    runtime = Runtime(case.precision)
    model = runtime.place(case.model())
    criterion = HierarchicalLoss(model.plan)
    prepared, optimizer = runtime.prepare(model, torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9))
    prepared.train()
    pixels = torch.randint(0, 256, (1, 3, case.height, case.width), dtype=torch.uint8)
    coarse = torch.randint(0, case.classes, (1, -(-case.height // 32), -(-case.width // 32)))
    labels = coarse.repeat_interleave(32, 1).repeat_interleave(32, 2)[:, : case.height, : case.width]
    mean, std = torch.full((3,), 0.45), torch.full((3,), 0.22)

    def step() -> float:
        loss = criterion(prepared(runtime.images(pixels, mean, std)), labels)
        runtime.accelerator.backward(loss)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return float(loss.detach())

    return step


def probe(case: Case) -> dict[str, int]:
    """Peak memory of three steps, beyond what the process held before there was a network."""
    before = resident_bytes()
    step = make_step(case)
    reset_peak()
    for _ in range(3):
        step()
    return {"bytes": peak_bytes() - before}


def activation_elements(module: nn.Module, shape: tuple[int, ...]) -> int:
    """Elements that all leaf modules of a network give out in one forward pass; nothing is computed."""
    import copy

    total = 0

    def add(_module: nn.Module, _inputs: Any, output: Any) -> None:
        nonlocal total
        total += output.numel() if isinstance(output, Tensor) else 0

    copied = copy.deepcopy(module).to("meta").eval()
    for part in copied.modules():
        if not list(part.children()):
            part.register_forward_hook(add)
    with torch.no_grad():
        copied(torch.empty(shape, device="meta"))
    return total


def sweeps(*, quick: bool = False) -> dict[str, list[tuple[float, Case]]]:
    """What is changed -> (x, case)."""
    base = Case(64, 96) if quick else Case()
    sizes = ((64, 64), (64, 96), (96, 128), (128, 192)) if quick else SIZES
    return {
        "pixels": [(h * w, replace(base, height=h, width=w)) for h, w in sizes],
        "classes": [(k, replace(base, classes=k)) for k in CLASSES],
        "stages": [(n, replace(base, stages=n)) for n in range(len(STAGES) + 1)],
    }


def _row(name: str, xs: Sequence[float], runs: Sequence[Sequence[float]], unit: str, **details: Any) -> Row:
    fit = fit_power(xs, runs)
    own: dict[str, Any] = {"x": list(xs), unit: [[float(f"{v:.6g}") for v in run] for run in runs], "fit": asdict(fit)}
    law = "a + b * x ** exponent" if fit.constant else "b * x ** exponent"
    return Row(name, law, fit.exponents, None, unit="exponent", details=own | details)


def step_rows(*, quick: bool, repeats: int) -> Iterator[Row]:
    """Seconds of a step."""
    for precision in PRECISIONS:
        for what, cases in sweeps(quick=quick).items():
            taken, sides = {}, {}
            for x, case in cases:
                step = make_step(replace(case, precision=precision))
                taken[str(x)] = count = max(1, min(8, 250_000 // (case.height * case.width)))  # short steps: several
                sides[str(x)] = lambda step=step, count=count: [step() for _ in range(count)]
            seconds = cpu_seconds(sides, repeats, warm_up=2)
            runs = [[value / taken[name] for value in values] for name, values in seconds.items()]
            yield _row(f"step time against {what}, {precision}", [x for x, _ in cases], runs, "seconds")


def memory_rows(*, quick: bool, repeats: int) -> Iterator[Row]:
    """Peak memory of a step."""
    for precision in PRECISIONS:
        for what, cases in sweeps(quick=quick).items():
            if precision != "bf16" and what != "pixels":
                continue
            runs = []
            for _, case in cases:
                told = json.dumps(asdict(replace(case, precision=precision)))
                command = [sys.executable, "-m", "benchmarks.scaling", "--probe", told]
                runs.append([float(in_fresh_process(command)["bytes"]) for _ in range(repeats)])
            yield _row(f"peak memory of a step against {what}, {precision}", [x for x, _ in cases], runs, "bytes")


def clustering_rows(*, quick: bool, repeats: int) -> Iterator[Row]:
    """Seconds for all groupings k = 2..K-1 of one matrix, and how they grow."""
    counts = (11, 19, 40, 60) if quick else (*CLASSES, 256)
    rng = np.random.default_rng(0)
    sides = {}
    for count in counts:
        matrix = rng.random((count, count)) ** 4
        sides[str(count)] = lambda matrix=matrix + matrix.T: spectral_groupings(matrix)
    seconds = cpu_seconds(sides, repeats)
    yield _row("clustering time against classes", counts, list(seconds.values()), "seconds")


def limit_rows(*, quick: bool, repeats: int) -> Iterator[Row]:
    """What one thread of this machine gives: multiply-accumulates and bytes per second."""
    size = 256 if quick else 1024
    left = torch.randn(size, size)
    half = left.bfloat16()
    big = torch.zeros((1 << 20) if quick else (1 << 26))  # 256 MiB: larger than the caches
    target = torch.empty_like(big)
    amounts = {"float32": size**3 / 1e9, "bf16": size**3 / 1e9, "memory": 2 * big.numel() * 4 / 1e9}
    sides = {
        "float32": lambda: left @ left,
        "bf16": lambda: half @ half,
        "memory": lambda: target.copy_(big),
    }
    seconds = cpu_seconds(sides, repeats, warm_up=3)
    for name, amount in amounts.items():
        unit = "GB/s" if name == "memory" else "GMAC/s"
        what = "copy of 256 MiB, read and written" if name == "memory" else f"matrix product {size}^3"
        yield Row(f"limit of one thread, {name}", what, tuple(amount / s for s in seconds[name]), None, unit=unit)


def host_rows(*, quick: bool, repeats: int) -> Iterator[Row]:
    """What one core takes for an image of 1024x2048 pixels, and what each process pays for the order of an epoch."""
    height, width = (128, 256) if quick else (1024, 2048)
    sample = DigitScenes("train", 1, (height, width)).read(0)
    transform = TrainTransform((height // 2, width // 2))
    picture = Image.fromarray(sample.image.permute(1, 2, 0).numpy())
    with tempfile.TemporaryDirectory() as place:
        png, jpeg, mask = (Path(place) / name for name in ("image.png", "image.jpg", "mask.png"))
        picture.save(png)
        picture.save(jpeg, quality=95)
        Image.fromarray(sample.mask.numpy().astype(np.uint8)).save(mask)
        files = {"PNG": png, "JPEG": jpeg, "mask as PNG": mask}
        sides: dict[str, Callable[[], Any]] = {
            "decode PNG": lambda: read_image(png),
            "decode JPEG": lambda: read_image(jpeg),
            "decode mask as PNG": lambda: raw_mask(mask),
            "augment": lambda: transform(sample),
        }
        seconds = cpu_seconds(sides, repeats)
        sizes = {name: path.stat().st_size for name, path in files.items()}
    for name, values in seconds.items():
        details = {"bytes": sizes.get(name.removeprefix("decode "))}
        yield Row(f"one core, {name}", f"an image of {height}x{width}", tuple(values), None, unit="s", details=details)
    count = 10_000 if quick else 1_000_000
    command = [sys.executable, "-m", "benchmarks.scaling", "--order", str(count)]
    found = [in_fresh_process(command) for _ in range(min(3, repeats))]
    for unit in ("s", "bytes"):
        runs = tuple(one[unit] for one in found)
        yield Row(f"order of an epoch of a million images, {unit}", "per process", runs, None, unit=unit)


def order_cost(count: int) -> dict[str, float]:
    """Seconds and memory of one process, of 64, until the loader knows which images it reads in an epoch."""
    loader = TrainingLoader(DigitScenes("train", count), TrainTransform((32, 32)), 128, 0, rank=1, world_size=64)
    before = resident_bytes()
    reset_peak()
    began = time.perf_counter()
    list(loader._keys(0))
    return {"s": time.perf_counter() - began, "bytes": peak_bytes() - before}


TRAINING = """
name = "scaling"
[data]
kind = "digits"
num_images = [48, 8, 8]
size = [192, 256]
num_workers = 0
cache = true
[augment]
crop = [192, 256]
[train]
threads = 1
log_steps = 3
"""


def torchrun(processes: int, *words: object) -> None:
    """Starts processes of a module on this machine, over gloo, one thread each.

    Raises:
        RuntimeError: they failed.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    where = ("--nproc-per-node", str(processes), "--master-addr", "127.0.0.1", "--master-port", str(port))
    code = "import subprocess, sys; subprocess.run(sys.argv[1:], check=True); print('{}')"
    command = [sys.executable, "-m", "torch.distributed.run", *where, "-m", *map(str, words)]
    in_fresh_process([sys.executable, "-c", code, *command])


def training_speed(processes: int, batch: int, epochs: int) -> float:
    """Images per second of the real training loop, median of its log lines after the first epoch."""
    with tempfile.TemporaryDirectory() as place:
        config = Path(place) / "config.toml"
        config.write_text(TRAINING)
        own = ("--arm", "deep_supervision", "--out", Path(place) / "arm", "--train.batch_size", batch)
        torchrun(processes, "hs3seg", "train", config, *own, "--train.epochs", epochs)
        lines = [json.loads(line) for line in (Path(place) / "arm" / "log.jsonl").read_text().splitlines()]
    return float(
        np.median([line["images_per_second"] for line in lines if line["event"] == "step" and line["epoch"] > 1])
    )


def gloo_times(path: Path, repeats: int = 15) -> None:
    """Run by every process: median seconds of an all-reduce by bytes, for gradients and for matrices of counts."""
    import torch.distributed as dist

    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    found = {}
    for name, tensor in {
        "gradients": torch.zeros(sum(p.numel() for p in Case(classes=11).model().parameters())),
        **{f"{k} classes": torch.zeros(3, k, k, dtype=torch.int64) for k in (19, 150, 1000)},
    }.items():
        seconds = []
        for _ in range(repeats):
            dist.barrier()
            began = time.perf_counter()
            dist.all_reduce(tensor)
            seconds.append(time.perf_counter() - began)
        found[name] = {"bytes": tensor.numel() * tensor.element_size(), "seconds": float(np.median(seconds[2:]))}
    if dist.get_rank() == 0:
        path.write_text(json.dumps(found))
    dist.destroy_process_group()


def process_rows(*, quick: bool, repeats: int) -> Iterator[Row]:
    """Strong and weak scaling of the training loop, and what gloo takes for an all-reduce."""
    counts, epochs = ((1, 2), 2) if quick else ((1, 2, 4), 4)
    strong: dict[int, list[float]] = {count: [] for count in counts}
    weak: dict[int, list[float]] = {count: [] for count in counts}
    gloo: dict[str, list[Any]] = {str(count): [] for count in counts[1:]}
    for _ in range(repeats):
        for count in counts:
            strong[count].append(training_speed(count, 8, epochs))
            weak[count].append(training_speed(count, 4 * count, epochs))
            if count > 1:
                with tempfile.TemporaryDirectory() as place:
                    path = Path(place) / "times.json"
                    torchrun(count, "benchmarks.scaling", "--gloo", path)
                    gloo[str(count)].append(json.loads(path.read_text()))
    for name, speeds in (("batch 8 in all", strong), ("batch 4 per process", weak)):
        for count in counts[1:]:
            runs = tuple(a / b for a, b in zip(speeds[count], speeds[1], strict=True))
            details = {
                "images_per_second": {str(key): value for key, value in speeds.items()},
                "gloo": gloo[str(count)],
            }
            yield Row(
                f"images per second, {count} processes, {name}", "one process", runs, None, "higher", details=details
            )


@dataclass(frozen=True)
class Machine:
    """Assumed hardware, like an A100 with 80 GB; bandwidths in each direction of one GPU.

    Args:
        peak_tflops: Dense bf16.
        use: Share of it that convolutions of this kind reach.
        memory_gb_s: Of the GPU's memory.
        memory_gb: Its size.
        launch_us: Time from one kernel to the next at least.
        node: GPUs in a machine.
        inside_gb_s: NVLink, what collectives reach.
        outside_gb_s: InfiniBand 200 Gb/s per GPU, what collectives reach.
        inside_us: Time of a small collective in a machine.
        outside_us: Time of a small collective over several machines.
        disk_gb_s: Of one writer of checkpoints.
    """

    peak_tflops: float = 312.0
    use: float = 0.2
    memory_gb_s: float = 2000.0
    memory_gb: float = 80.0
    launch_us: float = 5.0
    node: int = 8
    inside_gb_s: float = 230.0
    outside_gb_s: float = 20.0
    inside_us: float = 20.0
    outside_us: float = 50.0
    disk_gb_s: float = 1.0

    def link(self, gpus: int) -> tuple[float, float]:
        """Bytes per second and seconds per small collective."""
        inside = gpus <= self.node
        gb_s, delay = (self.inside_gb_s, self.inside_us) if inside else (self.outside_gb_s, self.outside_us)
        return gb_s * 1e9, delay * 1e-6


@dataclass(frozen=True)
class Work:
    """One training.

    Args:
        macs: Of a forward pass of one crop, heads included.
        parameters: Trained.
        norm_channels: Channels of all BatchNorms.
        norms: Number of BatchNorms.
        activations: Elements that all layers give out for one crop.
        batch: Crops per GPU.
        passes: How often BatchNorms run in a step (HMS: two scales).
        images: Of an epoch.
        image_bytes: Compressed, with labels.
        image_seconds: Of one core, to decode and augment.
        classes: K.
        stages: Supervised, without the final output.
        full_size: Pixels of a whole image per pixel of a crop.
        held_out: Images of an evaluation.
        states: Tensors of the parameters' size in a checkpoint: weights, momentum.
    """

    macs: float
    parameters: int
    norm_channels: int
    norms: int
    activations: int = 0
    batch: int = 2
    passes: int = 1
    images: int = 1_000_000
    image_bytes: float = 2.3e6
    image_seconds: float = 0.04
    classes: int = 19
    stages: int = 2
    full_size: float = 4.0
    held_out: int = 10_000
    states: int = 2


def all_reduce_bytes(size: float, gpus: int) -> float:
    """Bytes that each GPU sends in a ring all-reduce: 2 (N - 1) / N of the tensor."""
    return 2 * (gpus - 1) / gpus * size


def all_gather_bytes(size: float, gpus: int) -> float:
    """Bytes that each GPU sends in a ring all-gather of a tensor that every GPU holds: N - 1 times the tensor."""
    return (gpus - 1) * size


def predict(work: Work, machine: Machine, gpus: int) -> dict[str, float]:
    """Volumes in bytes per GPU and times in seconds of a training on so many GPUs."""
    speed, delay = machine.link(gpus)
    forward = 2 * work.macs / (machine.peak_tflops * 1e12 * machine.use)  # of one crop
    arithmetic = PASSES * forward * work.batch
    touched = ACTIVATION_TOUCHES * 2 * work.activations * work.batch / (machine.memory_gb_s * 1e9)  # 2 bytes: bf16
    launches = KERNELS * work.norms * work.passes * machine.launch_us * 1e-6
    compute = max(arithmetic, touched, launches)
    gradients = all_reduce_bytes(4 * work.parameters, gpus)  # autocast keeps parameters and gradients in float32
    # Forward: every rank's mean, 1/deviation per channel and a count are gathered; backward: two sums are all-reduced.
    channels, norms = work.norm_channels * work.passes, work.norms * work.passes
    sync = all_gather_bytes(4 * (2 * channels + norms), gpus) + all_reduce_bytes(4 * 2 * channels, gpus)
    buffers = (4 * 2 * work.norm_channels + 8 * work.norms) * (gpus > 1)  # DDP sends rank 0's before each forward pass
    matrices = all_reduce_bytes(8 * (work.stages + 1) * work.classes**2, gpus)
    reduce_time = gradients / speed
    # Gradients travel during the backward pass, two thirds of the step; the statistics are waited for.
    exposed = max(0.0, reduce_time - compute * (PASSES - 1) / PASSES)
    sync_time = (sync / speed + 2 * norms * delay + buffers / speed) * (gpus > 1)
    step = compute + exposed + sync_time
    rate = work.batch / step  # images per second and GPU
    evaluation = work.held_out / gpus * forward * work.full_size
    return {
        "arithmetic": arithmetic,
        "touched": touched,
        "launches": launches,
        "compute": compute,
        "activation_bytes": 2.0 * work.activations * work.batch,
        "gradient_bytes": gradients,
        "gradient_time": reduce_time,
        "exposed": exposed,
        "sync_bytes": sync,
        "sync_time": sync_time,
        "buffer_bytes": buffers,
        "matrix_bytes": matrices,
        "matrix_time": matrices / speed + (work.stages + 1) * delay * (gpus > 1),
        "step": step,
        "efficiency": compute / step,
        "images_per_second": rate * gpus,
        "epoch": work.images / (rate * gpus),
        "read_bytes_per_second": rate * work.image_bytes,
        "cores": rate * work.image_seconds,
        "evaluation": evaluation,
        "checkpoint_bytes": 4.0 * work.states * work.parameters,
        "checkpoint_time": 4.0 * work.states * work.parameters / (machine.disk_gb_s * 1e9),
    }


def workloads() -> dict[str, Work]:
    """HRNet-w18 and HMS on HRNet-OCR w48, two supervised stages, crops of 512x1024, 19 classes; by counting."""
    found = {}
    for name, batch, passes in (("hrnet_w18", 2, 1), ("hrnet_w48_ocr_hms", 1, 2)):
        model = supervise(networks.create(name, 19))
        norms = [part.num_features for part in model.modules() if isinstance(part, nn.BatchNorm2d)]
        cost = count_cost(model, (1, 3, 512, 1024))
        macs = cost.conv_macs + cost.matmul_macs
        given = activation_elements(model, (1, 3, 512, 1024))
        found[name] = Work(macs, cost.parameters, sum(norms), len(norms), given, batch=batch, passes=passes)
    return found


def plan_tables() -> list[str]:
    """Markdown of docs/scaling.md: what goes in, and per network what comes out."""
    works, machine = workloads(), Machine()
    labels = {
        "macs": ("GMACs of a crop, forward, heads included", 1e9),
        "parameters": ("million parameters", 1e6),
        "activations": ("million outputs of layers per crop", 1e6),
        "norms": ("BatchNorms", 1),
        "norm_channels": ("their channels", 1),
        "passes": ("passes of them in a step", 1),
        "batch": ("crops per GPU", 1),
    }
    lines = [f"| | {' | '.join(works)} |", "|---" * (len(works) + 1) + "|"]
    for key, (label, unit) in labels.items():
        lines.append(f"| {label} | {' | '.join(f'{getattr(work, key) / unit:.4g}' for work in works.values())} |")
    tables = ["\n".join(lines)]
    rows: dict[str, tuple[str, float]] = {
        "arithmetic": ("arithmetic of a step, ms", 1e-3),
        "touched": ("memory traffic of a step, ms", 1e-3),
        "launches": ("starting its kernels, ms", 1e-3),
        "compute": ("computation: the largest of the three, ms", 1e-3),
        "activation_bytes": ("activations kept for the backward pass, GB", 1e9),
        "gradient_bytes": ("gradients sent per step and GPU, MB", 1e6),
        "gradient_time": ("time of that, ms", 1e-3),
        "exposed": ("of it not hidden behind the backward pass, ms", 1e-3),
        "sync_bytes": ("SyncBN, sent per step and GPU, MB", 1e6),
        "buffer_bytes": ("running statistics, sent per step, MB", 1e6),
        "sync_time": ("time of both, ms", 1e-3),
        "step": ("step, ms", 1e-3),
        "efficiency": ("share of the step that is computation", 1),
        "images_per_second": ("images per second, all GPUs", 1),
        "epoch": ("an epoch of a million images, h", 3600),
        "read_bytes_per_second": ("read per GPU, MB/s", 1e6),
        "cores": ("cores per GPU to decode and augment", 1),
        "matrix_bytes": ("K x K matrices, sent per evaluation and GPU, kB", 1e3),
        "matrix_time": ("time of that, ms", 1e-3),
        "evaluation": ("evaluation of 10000 whole images, min", 60),
        "checkpoint_bytes": ("state.pt, MB", 1e6),
        "checkpoint_time": ("time to write it, s", 1),
    }
    counts = (1, 8, 64)
    for name, work in works.items():
        found = [predict(work, machine, count) for count in counts]
        lines = [f"| {name} | {' | '.join(f'{count} GPU' for count in counts)} |", "|---|---|---|---|"]
        lines += [
            f"| {label} | {' | '.join(f'{one[key] / unit:.3g}' for one in found)} |"
            for key, (label, unit) in rows.items()
        ]
        tables.append("\n".join(lines))
    lines = ["| K | MB sent per GPU of 64 | ms |", "|---|---|---|"]
    for classes in (19, 150, 1000):
        one = predict(replace(works["hrnet_w18"], classes=classes), machine, 64)
        lines.append(f"| {classes} | {one['matrix_bytes'] / 1e6:.3g} | {one['matrix_time'] * 1e3:.3g} |")
    tables.append("\n".join(lines))
    names = " | ".join(f"{name}, {what}" for name in works for what in ("share", "images per second"))
    for what, options in (("share of the peak reached", (0.1, 0.2, 0.4)), ("crops per GPU", (1, 2, 4, 8, 16))):
        lines = [f"| {what} | {names} |", "|---|---|---|---|---|"]
        for option in options:
            own = replace(machine, use=option) if option < 1 else machine
            sized = [work if option < 1 else replace(work, batch=int(option)) for work in works.values()]
            found = [predict(work, own, counts[-1]) for work in sized]
            told = " | ".join(f"{one['efficiency']:.2f} | {one['images_per_second']:.0f}" for one in found)
            lines.append(f"| {option:g} | {told} |")
        tables.append("\n".join(lines))
    return tables


def page(values: dict[str, Any]) -> str:
    """Markdown from the rows of results.json; parts that were not measured are left out."""
    parts = [
        _HEAD,
        _fits(values),
        _limits(values),
        _memory(values),
        _reading(values),
        _processes(values),
        _host(values),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


_HEAD = """# How it scales

Written by `python -m benchmarks.scaling --out docs/benchmarks` from [results.json](results.json), which holds every
single measured value. HRNet-w18-small, deep supervision of two stages, batch 1, SGD, one thread, x86 with AVX512-BF16,
two cores, shared with other work: times outside "Processes" are processor time of the one thread, which is the wall
time on a core that nothing else wants. Figures within a tenth of each other are equal. 256x512 pixels, 19 classes and
two stages unless they are what is changed. The plan for many GPUs is in [../scaling.md](../scaling.md).

Each row is a fit of y = a + b x^c to the medians; a is 0 unless it lowers the residual to 0.7 or less (or x can be 0).
The interval (95 %) is Student's t over the exponents of the single repeats, so it holds what the machine adds, not
whether the law is the right one: for that see the residual, relative, per degree of freedom.

![time and memory](scaling-step.png)"""


def _fits(values: dict[str, Any]) -> str:
    lines = [
        "| y against x | from | to | c | 95 % | a at the largest x | residual |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, row in values.items():
        details = row.get("details", {})
        fit, xs = details.get("fit"), details.get("x")
        if not fit:
            continue
        unit = "seconds" if "seconds" in row["details"] else "bytes"
        middles = [float(np.median(run)) for run in row["details"][unit]]
        told = [f"{v:.3g} s" if unit == "seconds" else f"{v / 2**20:.0f} MiB" for v in (middles[0], middles[-1])]
        low, high = fit["interval"]
        ends = f"{told[0]} at {xs[0]:g} | {told[1]} at {xs[-1]:g}"
        lines.append(
            f"| {name} | {ends} | {fit['exponent']:.2f} | {low:.2f} to {high:.2f}"
            f" | {fit['constant'] / middles[-1]:.0%} | {fit['residual']:.1%} |"
        )
    return "## Exponents\n\n" + "\n".join(lines) if len(lines) > 2 else ""


def _limits(values: dict[str, Any]) -> str:
    kinds = ("memory", *PRECISIONS)
    if not all(f"limit of one thread, {kind}" in values for kind in kinds):
        return ""
    limit = {kind: float(values[f"limit of one thread, {kind}"]["ratio"]) for kind in kinds}
    lines = [
        "| | pixels | measured, ms | arithmetic, ms | memory, ms | share of the arithmetic limit |",
        "|---|---|---|---|---|---|",
    ]
    for precision, size in (("bf16", 2), ("float32", 4)):
        row = values.get(f"step time against pixels, {precision}", {"details": {"x": [], "seconds": []}})["details"]
        sides = {height * width: (height, width) for height, width in SIZES}
        for pixels, run in zip(row["x"], row["seconds"], strict=True):
            if pixels not in sides:  # a quick run has its own
                continue
            shape, model = (1, 3, *sides[pixels]), Case().model()
            cost = PASSES * count_cost(model, shape).gmacs / limit[precision]
            moved = ACTIVATION_TOUCHES * size * activation_elements(model, shape) / 1e9 / limit["memory"]
            took = float(np.median(run))
            told = " | ".join(f"{value * 1e3:.3g}" for value in (took, cost, moved))
            lines.append(f"| {precision} | {pixels} | {told} | {cost / took:.0%} |")
    return f"""## The limits

One thread gives {limit["bf16"]:.0f} GMAC/s in bf16 and {limit["float32"]:.0f} in float32 (matrix product of 1024^3)
and copies {limit["memory"]:.1f} GB/s (256 MiB, read and write counted). Arithmetic: {PASSES} x the GMACs of a forward
pass with heads (`hs3seg.nn.count_cost`), over that. Memory: {ACTIVATION_TOUCHES} x the outputs of all layers
(`activation_elements`: written and read in the forward pass, read again in the backward pass, their gradients written
and read), over the bandwidth; caches make it less, copies between layouts more. Neither overlaps the other here, so
their sum is the bound to look at.

""" + "\n".join(lines)


def _reading(values: dict[str, Any]) -> str:
    """What the fits mean: each slope beside the cost that is counted for it."""
    parts = []
    base = Case()
    logits = base.height * base.width * (base.stages + 1)  # enlarged to the labels, per class
    macs = [count_cost(replace(base, stages=n).model(), (1, 3, base.height, base.width)).gmacs for n in (0, 2)]
    operations = KERNELS * sum(isinstance(part, nn.BatchNorm2d) for part in base.model().modules())
    for precision in PRECISIONS:
        fits = {
            what: Fit(**values[name]["details"]["fit"])
            for what in ("pixels", "classes", "stages")
            if (name := f"step time against {what}, {precision}") in values
        }
        if len(fits) < 3 or f"limit of one thread, {precision}" not in values:
            continue
        rate = values[f"limit of one thread, {precision}"]["ratio"]
        fixed = fits["pixels"].constant
        per_logit = (fits["classes"].at(150) - fits["classes"].at(11)) / 139 / logits
        stage = (fits["stages"].at(2) - fits["stages"].at(0)) / 2
        loss = per_logit * base.height * base.width * base.classes
        heads = PASSES * (macs[1] - macs[0]) / 2 / rate
        told = (
            f"{fixed * 1e3:.0f} ms, {fixed / operations * 1e6:.0f} us for each of about {operations} operations"
            if fixed
            else "not told from the rest by this fit"
        )
        touch = 4 / values["limit of one thread, memory"]["ratio"]
        own = (macs[1] - macs[0]) / 2
        parts.append(
            f"- {precision}, pixels: fixed costs of a step are {told}; the rest grows with the arithmetic, see the"
            f" table.\n- {precision}, classes: {per_logit * 1e9:.1f} ns per class and pixel of the three outputs,"
            f" enlarged, compared and taken back. Reading or writing four bytes takes {touch:.2f} ns, so it is"
            f" arithmetic (exponentials, bilinear weights) in strips that stay in the cache.\n- {precision}, stages:"
            f" {stage * 1e3:.1f} ms each (mean of the first two). Counted: {loss * 1e3:.1f} ms for its loss at"
            f" {base.classes} classes by the line above, {heads * 1e3:.1f} ms for the {own:.3f} GMACs of its head at"
            " the arithmetic limit; the rest are fixed costs of its head."
        )
    if not parts:
        return ""
    clustering = (
        "- clustering: one eigendecomposition, K^3, and for each k a pivoted QR, K k^2, and an eigendecomposition, k^3:"
        " K^4 in the end. For small K each of the K sizes has fixed costs, K^1; what is seen lies between."
    )
    return "## What explains the slopes\n\n" + "\n".join([*parts, clustering])


def _memory(values: dict[str, Any]) -> str:
    lines = []
    sides = {height * width: (height, width) for height, width in SIZES}
    for precision, size in (("bf16", 2), ("float32", 4)):
        row = values.get(f"peak memory of a step against pixels, {precision}", {})
        details = row.get("details", {"x": [], "bytes": []})
        for pixels, run in zip(details["x"], details["bytes"], strict=True):
            if pixels in sides:
                given = size * activation_elements(Case().model(), (1, 3, *sides[pixels])) / 2**20
                lines.append(f"| {precision} | {pixels} | {float(np.median(run)) / 2**20:.0f} | {given:.0f} |")
    if not lines:
        return ""
    head = "| | pixels | measured, MiB | outputs of all layers, MiB |\n|---|---|---|---|\n"
    return (
        (
            "The peak of memory against what must be kept for the backward pass, at most every layer's output (ReLUs in"
            " place and sums share theirs); the rest is weights, gradients, momentum, libraries and freed pages:\n\n"
        )
        + head
        + "\n".join(lines)
    )


def _processes(values: dict[str, Any]) -> str:
    rows = {name: row for name, row in values.items() if name.startswith("images per second, ") and "processes" in name}
    if not rows:
        return ""
    lines = ["| | images per second | over one process | lowest to highest | efficiency |", "|---|---|---|---|---|"]
    gloo = [
        "| processes | tensor | MB | all-reduce, ms | bandwidth, MB/s | share of a step of batch 8 in all |",
        "|---|---|---|---|---|---|",
    ]
    for name, row in rows.items():
        count = int(name.split(", ")[1].split()[0])
        speed = float(np.median(row["details"]["images_per_second"][str(count)]))
        low, high = min(row["runs"]), max(row["runs"])
        told = name.removeprefix("images per second, ")
        one = float(np.median(row["details"]["images_per_second"]["1"]))
        lines.append(
            f"| {told} | {speed:.3g} (one: {one:.3g}) | {row['ratio']:.2f} | {low:.2f} to {high:.2f} |"
            f" {row['ratio'] / count:.0%} |"
        )
        for tensor in row["details"]["gloo"][0] if "in all" in name else ():
            seconds = float(np.median([found[tensor]["seconds"] for found in row["details"]["gloo"]]))
            size = row["details"]["gloo"][0][tensor]["bytes"]
            # Matrices are reduced once per evaluation, gradients at every step.
            share = f"{seconds / (8 / speed):.1%}" if tensor == "gradients" else ""
            told = f"{size / 1e6:.3g} | {seconds * 1e3:.3g} | {size / 1e6 / seconds:.0f}"
            gloo.append(f"| {count} | {tensor} | {told} | {share} |")
    return (
        "## Processes\n\n`torch.distributed.run` with `hs3seg train` on digit scenes of 192x256 pixels held in memory,"
        " one thread per process, gloo; images per second as log.jsonl says. There are two cores: four processes share"
        " them, so at best they are as fast as two. This is wall time, and other work ran on the machine: look at the"
        " lowest and highest. The matrices are those of two stages and the final output, int64;"
        " the loop reduces them one after another, once per evaluation.\n\n![processes](scaling-processes.png)\n\n"
        + "\n".join(lines)
        + "\n\nThe all-reduce alone, processes waiting for each other first; in the loop a part of it is hidden behind"
        " the backward pass, so the share is the most that it can be:\n\n" + "\n".join(gloo)
    )


def _host(values: dict[str, Any]) -> str:
    names = [name for name in values if name.startswith(("one core, ", "order of an epoch"))]
    if not names:
        return ""
    lines = ["| | median | file, MB |", "|---|---|---|"]
    for name in names:
        row = values[name]
        size = row["details"].get("bytes")
        value = f"{row['ratio'] / 2**20:.0f} MiB" if row["unit"] == "bytes" else f"{row['ratio']:.3g} s"
        lines.append(f"| {name} | {value} | {f'{size / 1e6:.2g}' if size else ''} |")
    return (
        "## What an image costs before the network\n\nA digit scene of 1024x2048 pixels; crop 512x1024.\n\n"
        + "\n".join(lines)
    )


def draw(values: dict[str, Any], out: Path) -> None:
    """Writes scaling-step.png and scaling-processes.png, from what was measured."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt
    from matplotlib.ticker import NullFormatter

    panels = {
        "pixels": ("step time against pixels", "s"),
        "classes": ("step time against classes", "s"),
        "stages": ("step time against stages", "s"),
        "memory": ("peak memory of a step against pixels", "MiB"),
        "memory of classes": ("peak memory of a step against classes", "MiB"),
        "clustering": ("clustering time against classes", "s"),
    }
    figure, axes = plt.subplots(2, 3, figsize=(13, 7.5), layout="constrained")
    for axis, (title, unit) in zip(axes.flat, panels.values(), strict=True):
        for colour, suffix in (("#0b6e99", ", bf16"), ("#c2571a", ", float32"), ("#0b6e99", "")):
            details = values.get(title + suffix, {}).get("details")
            if not details:
                continue
            xs = np.array(details["x"], float)
            scale = 2**20 if unit == "MiB" else 1
            runs = np.array(details["bytes" if unit == "MiB" else "seconds"]) / scale
            fit = Fit(**details["fit"])
            label = f"{suffix.removeprefix(', ')} x^{fit.exponent:.2f}" + (" + constant" if fit.constant else "")
            axis.plot(np.repeat(xs, runs.shape[1]), runs.ravel(), ".", color=colour, alpha=0.35)
            curve = np.linspace(xs.min(), xs.max(), 200)
            axis.plot(curve, [fit.at(x) / scale for x in curve], color=colour, label=label)
        axis.set(title=title, xlabel=title.rsplit(" ", 1)[1], ylabel=unit)
        if "pixels" in title or "clustering" in title:
            axis.set(xscale="log", yscale="log")
            axis.xaxis.set_minor_formatter(NullFormatter())
        else:
            axis.set_ylim(bottom=0)
        if axis.has_data():
            axis.legend(frameon=False)
    figure.savefig(out / "scaling-step.png", dpi=110)
    plt.close(figure)
    figure, axis = plt.subplots(figsize=(6.5, 4.5), layout="constrained")
    for colour, name in (("#0b6e99", "batch 8 in all"), ("#c2571a", "batch 4 per process")):
        row = values.get(f"images per second, 2 processes, {name}")
        if row is None:
            continue
        speeds = {int(count): np.array(found) for count, found in row["details"]["images_per_second"].items()}
        base = np.median(speeds[1])
        axis.plot(list(speeds), [np.median(found) / base for found in speeds.values()], "o-", color=colour, label=name)
        for count, found in speeds.items():
            axis.plot([count] * len(found), found / base, ".", color=colour, alpha=0.4)
    axis.plot([1, 2, 4], [1, 2, 2], "--", color="#777777", label="two cores at best")
    axis.set(xlabel="processes", ylabel="images per second over one process", xticks=[1, 2, 4], ylim=(0, 2.4))
    axis.legend(frameon=False)
    figure.savefig(out / "scaling-processes.png", dpi=110)
    plt.close(figure)


MEASURE: dict[str, Callable[..., Iterator[Row]]] = {
    "limits": limit_rows,
    "host": host_rows,
    "step": step_rows,
    "memory": memory_rows,
    "processes": process_rows,
    "clustering": clustering_rows,
}
REPEATS = {"limits": 15, "host": 7, "step": 9, "memory": 2, "processes": 2, "clustering": 9}


def main() -> None:
    """Measures, adds the rows to results.json and writes the page."""
    parser = arguments(__doc__)
    parser.add_argument("--parts", nargs="*", choices=PARTS, default=list(PARTS), help="what to measure anew")
    parser.add_argument("--plan", action="store_true", help="print the calculation for many GPUs")
    parser.add_argument("--probe", help=SUPPRESS)
    parser.add_argument("--gloo", type=Path, help=SUPPRESS)
    parser.add_argument("--order", type=int, help=SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.gloo:
        gloo_times(options.gloo)
        return
    if options.order:
        print(json.dumps(order_cost(options.order)))
        return
    if options.plan:
        print("\n\n".join(plan_tables()))
        return
    if options.probe:
        print(json.dumps(probe(Case(**json.loads(options.probe)))))
        return
    out = folder(options)
    for part in options.parts:
        for row in MEASURE[part](quick=options.quick, repeats=2 if options.quick else REPEATS[part]):
            tell(row)
            save_rows(
                out / "results.json", [row], f"python -m benchmarks.scaling --out {out.as_posix()} --parts {part}"
            )
    path = out / "results.json"
    values = json.loads(path.read_text()) if path.exists() else {}
    draw(values, out)
    (out / "scaling.md").write_text(page(values))


if __name__ == "__main__":
    main()
