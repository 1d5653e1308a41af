"""Runs the benchmarks one after another, each in a process of its own, and writes docs/benchmarks/README.md.

    .venv/bin/python -m benchmarks --root CAMVID                    all of them (50 minutes on two cores)
    .venv/bin/python -m benchmarks stage_loss clustering            some
    .venv/bin/python -m benchmarks --only-summary                   the page and the picture from results.json

`runtimes` and `loader` have pages of their own; their last results are taken into the page, and they are run only when
named.
"""

import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.rows import arguments, folder
from benchmarks.summary import write

ORDER = (
    "stage_loss",
    "stage_counting",
    "clustering",
    "stripped",
    "commands",
    "step",
    "loop",
    "other_loops",
    "phases",
    "scaling",
    "runtimes",
    "loader",
)
ON_CAMVID = ("loop", "other_loops", "phases", "loader")
OWN_PAGE = ("runtimes", "loader")


def command(name: str, out: Path, root: Path | None, *, quick: bool) -> list[str]:
    """What runs one benchmark."""
    words = [sys.executable, "-m", f"benchmarks.{name}", "--out", str(out / name if name in OWN_PAGE else out)]
    if name in ON_CAMVID:
        words += ["--root", str(root)]
    if not quick:
        return words
    return [*words, *{"runtimes": ["--repeats", "2"], "loader": ["--repeats", "1"]}.get(name, ["--quick"])]


def run(names: Sequence[str], out: Path, root: Path | None, *, quick: bool) -> list[str]:
    """Runs them; returns the names of those that failed."""
    failed = []
    for number, name in enumerate(names, 1):
        print(f"[{number}/{len(names)}] {name}", flush=True)
        began = time.perf_counter()
        done = subprocess.run(command(name, out, root, quick=quick), check=False)
        print(f"[{number}/{len(names)}] {name}: {time.perf_counter() - began:.0f} s", flush=True)
        if done.returncode:
            failed.append(name)
    return failed


def main() -> int:
    """Exit code 1 if a benchmark failed."""
    parser = arguments(__doc__)
    parser.add_argument("names", nargs="*", metavar="ROW", help=f"default: all; {', '.join(ORDER)}")
    parser.add_argument("--root", type=Path, help="CamVid in SegNet's layout")
    parser.add_argument("--only-summary", action="store_true")
    options = parser.parse_args()
    unknown = [name for name in options.names if name not in ORDER]
    if unknown:
        parser.error(f"no benchmark '{unknown[0]}'; there are {', '.join(ORDER)}")
    names = options.names or [name for name in ORDER if name not in OWN_PAGE]
    needing = [name for name in names if name in ON_CAMVID]
    if needing and not options.only_summary and not (options.root and options.root.is_dir()):
        parser.error(f"{needing[0]} needs CamVid: give its folder as --root, or name benchmarks that do without")
    out = folder(options)
    failed = [] if options.only_summary else run(names, out, options.root, quick=options.quick)
    write(out, ORDER)
    print(f"written: {out / 'README.md'}")
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
