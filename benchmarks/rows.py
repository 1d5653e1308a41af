"""What all benchmarks share: two sides timed in turn, peak memory of a fresh process, and how a row is written.

The machine may be shared, so a figure is always a ratio of two sides measured in one process, side after side, several
times; the median counts, and all repeats are kept.
"""

import ctypes
import gc
import json
import os
import re
import subprocess
import time
from argparse import ArgumentParser, Namespace, RawDescriptionHelpFormatter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Any, Literal

RESULTS = Path("docs/benchmarks")
QUICK = Path("build/benchmarks")


_GIVE_BACK = {"MALLOC_MMAP_THRESHOLD_": "131072", "MALLOC_TRIM_THRESHOLD_": "0", "MALLOC_ARENA_MAX": "1"}


@dataclass(frozen=True)
class Row:
    """One figure.

    Args:
        name: What was measured.
        against: The other side of the ratio.
        runs: Ratio of each repeat.
        goal: That the median should reach; None = only reported.
        better: Which side of the goal is the good one; `near` = within `tolerance` of it.
        tolerance: See `better`.
        unit: Of `runs`, where they are no ratios, such as s.
        details: Plain values that say how it came about.
    """

    name: str
    against: str
    runs: tuple[float, ...]
    goal: float | None
    better: Literal["lower", "higher", "near"] = "lower"
    tolerance: float = 0.0
    unit: str = ""
    details: Mapping[str, Any] = field(default_factory=dict)

    @property
    def ratio(self) -> float:
        """The median."""
        return median(self.runs)

    @property
    def reached(self) -> bool | None:
        """Whether the median keeps the goal; None without one."""
        if self.goal is None:
            return None
        if self.better == "near":
            return abs(self.ratio - self.goal) <= self.tolerance
        return self.ratio <= self.goal if self.better == "lower" else self.ratio >= self.goal

    def to_dict(self, command: str) -> dict[str, Any]:
        """Plain values of results.json."""
        values = asdict(self) | {"ratio": round(self.ratio, 4), "runs": [round(run, 4) for run in self.runs]}
        values.pop("name")
        return values | {"reached": self.reached, "command": command, "commit": commit()}


def in_turn(
    sides: Mapping[str, Callable[[], Any]],
    repeats: int,
    warm_up: int = 1,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, list[float]]:
    """Seconds of each side, repeat by repeat; the order changes from repeat to repeat.

    Args:
        sides: Name -> the work.
        repeats: How often.
        warm_up: Untimed repeats before.
        clock: `time.process_time` leaves out the time in which other processes had the core.
    """
    names = list(sides)
    for name in names * warm_up:
        sides[name]()
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for repeat in range(repeats):
        for name in names if repeat % 2 == 0 else reversed(names):
            gc.collect()
            began = clock()
            sides[name]()
            seconds[name].append(clock() - began)
    return seconds


def ratios(of: Sequence[float], over: Sequence[float]) -> tuple[float, ...]:
    """Repeat by repeat."""
    return tuple(a / b for a, b in zip(of, over, strict=True))


def resident_bytes() -> int:
    """Memory that this process holds now."""
    return _status("VmRSS")


def peak_bytes() -> int:
    """Most memory that this process held since `reset_peak`, or since its start."""
    return _status("VmHWM")


def reset_peak() -> None:
    """Starts `peak_bytes` anew; Linux only."""
    Path("/proc/self/clear_refs").write_text("5")


def release_memory() -> None:
    """Gives freed memory back to the system; else what the allocator kept of it hides as much of what is used next."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)


def _status(key: str) -> int:
    found = re.search(rf"^{key}:\s+(\d+) kB", Path("/proc/self/status").read_text(), re.MULTILINE)
    assert found is not None, f"no {key} in /proc/self/status; memory is measured on Linux only"
    return int(found.group(1)) * 1024


def in_fresh_process(command: Sequence[str], threads: int = 1) -> dict[str, Any]:
    """Runs a command and reads the JSON that its last line holds.

    Memory is measured so, for allocators keep pages: glibc is told to give back what is freed, else the peak of a
    process is that of its heap, which differs by some percent from one process to the next.
    """
    environment = os.environ | {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)} | _GIVE_BACK
    done = subprocess.run(list(command), capture_output=True, text=True, env=environment)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{done.stderr[-2000:]}")
    values: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return values


def commit() -> str:
    """Of the checkout, with a + where files differ."""
    told = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True)
    changed = subprocess.run(["git", "status", "--porcelain", "src"], capture_output=True, text=True)
    return told.stdout.strip() + ("+" if changed.stdout.strip() else "")


def save_rows(path: Path, rows: Sequence[Row], command: str) -> None:
    """Adds rows to a results.json; rows of the same name are replaced."""
    values: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    values |= {row.name: row.to_dict(command) for row in rows}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(values, indent=1) + "\n")


def arguments(description: str | None) -> ArgumentParser:
    """The options that every benchmark has."""
    parser = ArgumentParser(description=description, formatter_class=RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help=f"folder of results.json; default: {RESULTS}, with --quick {QUICK}")
    parser.add_argument("--quick", action="store_true", help="small and few, to see that it runs")
    return parser


def folder(options: Namespace) -> Path:
    """Where the rows go; quick figures never replace real ones unasked."""
    chosen: Path = options.out or (QUICK if options.quick else RESULTS)
    return chosen


def tell(row: Row) -> None:
    """One line for whoever waits."""
    goal = "" if row.goal is None else f", goal {row.goal:g}: {'reached' if row.reached else 'MISSED'}"
    low, high = min(row.runs), max(row.runs)
    print(f"{row.name}: {row.ratio:.3g} {row.unit} ({low:.3g} to {high:.3g}){goal}", flush=True)


def save_told(options: Namespace, name: str, rows: Iterable[Row]) -> None:
    """Says and saves each row as soon as it is there.

    Args:
        options: Of `arguments`.
        name: The benchmark's, for the command that is kept.
        rows: May be measured while they are taken.
    """
    out = folder(options)
    command = f"python -m benchmarks.{name} --out {out.as_posix()}{' --quick' if options.quick else ''}"
    for row in rows:
        tell(row)
        save_rows(out / "results.json", [row], command)
