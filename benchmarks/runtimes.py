"""Latency of exported networks against eager PyTorch, in one run, one thread each.

    python -m benchmarks.runtimes --out docs/benchmarks/runtimes

Rows: HRNet-w18-small, with OCR, and as HS3-Fuse, one image of 360x480, 11 classes, random weights. A ratio is eager's
time over the other's: 2 = twice as fast. Every file was compared with eager before it was kept (1e-4).
"""

import argparse
import json
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn

from hs3seg import Grouping, SupervisionPlan, networks
from hs3seg.analysis import StagePlan
from hs3seg.export import export_onnx, export_openvino, load_runner, quantize

GOAL = 1.5  # for the best of a network's rows
_REPORT = """# Inference: exported files against eager PyTorch

Written by `{command}` (torch {torch}).
Ratio: time of eager float32, channels first, over that of the other; median of {repeats} repeats in turn.

{table}

Largest differences of a logit from eager, over several sizes: {differences}.
int8 changes the answers: see [export](../../export.md) for its mIoU.
"""


def make_networks() -> dict[str, nn.Module]:
    """The three networks, their BatchNorm filled by a few noisy images so that logits are of a usual size."""
    torch.manual_seed(0)
    names = tuple(f"class_{i}" for i in range(11))
    groups = (Grouping.from_labels([i // 3 for i in range(11)]), Grouping.from_labels([i // 2 for i in range(11)]))
    plan = SupervisionPlan(names, (StagePlan("stage2", groups[0]), StagePlan("stage3", groups[1])))
    made = {
        "HRNet-w18-small": networks.create("hrnet_w18_small", 11),
        "HRNet-w18-small-OCR": networks.create("hrnet_w18_small_ocr", 11, mid=96, key=48),
        "HS3-Fuse": networks.fuse(networks.create("hrnet_w18_small_ocr", 11, mid=96, key=48), plan, mid=96, key=48),
    }
    for net in made.values():
        net.train()
        with torch.no_grad():
            for _ in range(3):
                net(torch.randn(2, 3, 128, 128))
        net.eval()
    return made


def seconds(run: Callable[[Tensor], Any], images: Tensor) -> float:
    """Of one forward pass."""
    began = time.perf_counter()
    with torch.inference_mode():
        run(images)
    return time.perf_counter() - began


def measure(net: nn.Module, folder: Path, repeats: int) -> tuple[dict[str, list[float]], float]:
    """Ratios per runtime, repeat by repeat, and the largest difference of a file that has float32 weights."""
    images = torch.randn(1, 3, 360, 480)
    onnx = export_onnx(net, folder / "net.onnx", images)
    xml = export_openvino(net, folder / "net.xml", images, source=folder / "net.onnx")
    quantize(folder / "net.xml", folder / "net-int8.xml", [torch.randn(3, 360, 480) for _ in range(8)])
    sides: dict[str, Callable[[Tensor], Any]] = {
        "eager": net,
        "ONNX Runtime": load_runner(folder / "net.onnx", threads=1),
        "OpenVINO": load_runner(folder / "net.xml", threads=1),
        "OpenVINO int8": load_runner(folder / "net-int8.xml", threads=1),
    }
    for run in sides.values():
        seconds(run, images)
    times: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(repeats):
        for name, run in sides.items():
            times[name].append(seconds(run, images))
    ratios = {
        name: [eager / own for eager, own in zip(times["eager"], times[name], strict=True)]
        for name in sides
        if name != "eager"
    }
    return ratios, max(onnx.max_difference, xml.max_difference)


def draw(rows: dict[str, Any], path: Path) -> None:
    """Ratios as bars, each with its runs as dots."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(8, 0.8 + 0.36 * len(rows)), layout="constrained")
    for place, row in enumerate(rows.values()):
        axes.barh(place, row["ratio"], color="#66c2a5")
        axes.plot(row["runs"], [place] * len(row["runs"]), "k.", markersize=3)
    axes.axvline(1, color="black", linewidth=0.8)
    axes.set_yticks(range(len(rows)), list(rows))
    axes.invert_yaxis()
    axes.set_xlabel("eager's time / its time")
    figure.savefig(path, dpi=110)


def main() -> None:
    """Measures all and writes results.json, runtimes.png and README.md."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder of the results")
    parser.add_argument("--repeats", type=int, default=15)
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows: dict[str, Any] = {}
    differences = {}
    with tempfile.TemporaryDirectory() as place:
        for number, (name, net) in enumerate(make_networks().items()):
            folder = Path(place) / str(number)
            folder.mkdir()
            ratios, differences[name] = measure(net, folder, options.repeats)
            for runtime, runs in ratios.items():
                rows[f"{name}, {runtime}"] = {"ratio": round(median(runs), 3), "runs": [round(r, 3) for r in runs]}
    git = subprocess.run(["git", "describe", "--always", "--dirty"], capture_output=True, text=True, check=False)
    command = f"python -m benchmarks.runtimes --out {options.out} --repeats {options.repeats}"
    for row in rows.values():
        row |= {"goal": GOAL, "command": command, "commit": git.stdout.strip()}
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "results.json").write_text(json.dumps(rows, indent=1) + "\n")
    draw(rows, options.out / "runtimes.png")
    lines = ["| row | ratio (lowest to highest) | goal for the best |", "|---|---|---|"]
    lines += [
        f"| {name} | {row['ratio']:.2f} ({min(row['runs']):.2f} to {max(row['runs']):.2f}) | {GOAL} |"
        for name, row in rows.items()
    ]
    table = "\n".join(lines) + "\n\n![ratios](runtimes.png)"
    told = ", ".join(f"{name} {value:.1e}" for name, value in differences.items())
    text = _REPORT.format(
        command=command, torch=torch.__version__, repeats=options.repeats, table=table, differences=told
    )
    (options.out / "README.md").write_text(text, encoding="utf-8")
    print(table)


if __name__ == "__main__":
    main()
