"""Wall time of HS3's two phases and its analysis, against one training with deep supervision of the same length.

    .venv/bin/python -m benchmarks.phases --root CAMVID --out docs/benchmarks

Phase one trains on the reduced split, so it is shorter by what the analysis holds out. Here the trainings are short;
the analysis runs once whatever their length, so its share is also told for the epochs of the recipe.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.loop import CONFIG
from benchmarks.rows import Row, ratios, save_rows
from hs3seg.analysis import SupervisionPlan, deep_supervision
from hs3seg.builders import make_network, make_stages
from hs3seg.config import Config
from hs3seg.config.load import load_config
from hs3seg.pipeline.steps import Session, analyze_step, open_session, plan_step, train_step

TIME_GOAL, SHARE_GOAL = 1.9, 0.02


def make_config(root: Path, epochs: int, threads: int) -> Config:
    """The recipe, shorter; nothing is evaluated while it trains."""
    own = ("--data.root", str(root), "--train.epochs", str(epochs), "--train.threads", str(threads))
    return load_config(CONFIG, (*own, "--train.evaluate_every", "0", "--train.warmup_epochs", "0"))


Parts = dict[str, float]


def _seconds(run: Callable[[], object]) -> tuple[float, float]:
    """On the clock, and of the processor in this process (with one thread; the loader's worker does not count)."""
    began, computed = time.perf_counter(), time.process_time()
    run()
    return time.perf_counter() - began, time.process_time() - computed


def measure(config: Config, folder: Path, *, baseline_first: bool) -> tuple[Parts, Parts]:
    """Seconds of each part of a run, on the clock and of the processor; who begins changes from repeat to repeat."""
    session = open_session(config, quiet=True)
    taxonomy = session.dataset("train").taxonomy
    for split in ("train", "reduced", "analysis"):  # fills the cache before anything is timed
        data = session.dataset(split)
        for index in range(len(data)):
            data.read(index)
    plan = deep_supervision(taxonomy.names, make_stages(config, make_network(config, taxonomy)), 0.4)
    seconds: dict[str, tuple[float, float]] = {}

    def training(session: Session, name: str, plan: SupervisionPlan, split: str) -> None:
        seconds[name] = _seconds(lambda: train_step(session, plan, folder / name, arm=name, split=split))

    if baseline_first:
        training(session, "deep_supervision", plan, "train")
    training(session, "phase_one", plan, "reduced")
    matrices = folder / "analysis"
    seconds["analysis"] = _seconds(lambda: analyze_step(session, folder / "phase_one", matrices))
    path = folder / "plan.toml"
    seconds["plan"] = _seconds(lambda: plan_step(session, matrices / "confusion.npz", taxonomy, path))
    training(session, "hs3", SupervisionPlan.load(path), "train")
    if not baseline_first:
        training(session, "deep_supervision", plan, "train")
    wall, processor = ({name: both[place] for name, both in seconds.items()} for place in (0, 1))
    return wall, processor


def rows(root: Path, *, quick: bool = False, epochs: int = 1, threads: int = 1, repeats: int = 3) -> list[Row]:
    """Time of all against the baseline, and the share of the analysis, as measured and for the recipe's length."""
    epochs = 1 if quick else epochs
    config = make_config(root, epochs, threads)
    runs = []
    for repeat in range(1 if quick else repeats):
        with tempfile.TemporaryDirectory() as folder:
            runs.append(measure(config, Path(folder), baseline_first=repeat % 2 == 0))
            print([{name: round(value, 2) for name, value in parts.items()} for parts in runs[-1]], flush=True)
    details = {"epochs": epochs, "threads": threads, "analysis_fraction": config.data.analysis_fraction}
    found = _rows([wall for wall, _ in runs], epochs, "", TIME_GOAL, SHARE_GOAL, details)
    # Hardly disturbed by what else the machine does.
    return found + _rows([own for _, own in runs], epochs, ", processor time", None, None, details)


def _rows(
    runs: list[Parts], epochs: int, what: str, time_goal: float | None, share_goal: float | None, details: Parts
) -> list[Row]:
    full = load_config(CONFIG).train.epochs
    longer = full / epochs
    baseline = [run["deep_supervision"] for run in runs]
    trainings = [run["phase_one"] + run["hs3"] for run in runs]
    once = [run["analysis"] + run["plan"] for run in runs]
    kept = {"seconds": [{name: round(value, 3) for name, value in run.items()} for run in runs], **details}
    found = []
    for times, length in (
        (1.0, f"{epochs} epoch{'s' * (epochs > 1)}"),
        (longer, f"{full} epochs, from the seconds per epoch"),
    ):
        both = [times * a + b for a, b in zip(trainings, once, strict=True)]
        compared = ratios(both, [times * value for value in baseline])
        share = ratios(once, [times * value for value in trainings])
        whole = times == longer
        deep = "one training with deep supervision"
        name = f"HS3's two phases and analysis, {length}{what}"
        found.append(Row(name, deep, compared, time_goal if whole else None, details=kept))
        name = f"analysis and plan, {length}{what}"
        found.append(Row(name, "the two phases", share, share_goal if whole else None, details=kept))
    return found


def main() -> None:
    """Measures and adds the rows to results.json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, required=True, help="CamVid in SegNet's layout")
    parser.add_argument("--out", type=Path, default=Path("docs/benchmarks"), help="folder of results.json")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    found = rows(
        options.root,
        quick=options.quick,
        epochs=options.epochs,
        threads=options.threads,
        repeats=options.repeats,
    )
    for row in found:
        print(f"{row.name}: {row.ratio:.4f} ({min(row.runs):.4f} to {max(row.runs):.4f}), goal {row.goal}")
    command = f"python -m benchmarks.phases --root CAMVID --out docs/benchmarks --repeats {options.repeats}"
    command += f" --epochs {options.epochs} --threads {options.threads}"
    command += " --quick" if options.quick else ""
    save_rows(options.out / "results.json", found, command)


if __name__ == "__main__":
    main()
