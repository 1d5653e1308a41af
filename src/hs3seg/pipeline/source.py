"""Which sources a process runs."""

import functools
import subprocess
from pathlib import Path


@functools.cache
def source_commit() -> str | None:
    """Commit of the checkout that this package runs from, with a + if files differ; None if it is no checkout.

    Asked once, at the start of a run: what this process has loaded stays, whatever is committed while it trains.
    """
    here = Path(__file__).resolve().parent
    try:
        head = subprocess.run(["git", "-C", here, "rev-parse", "HEAD"], capture_output=True, text=True, check=True)
        changed = subprocess.run(
            ["git", "-C", here, "status", "--porcelain", "."], capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return head.stdout.strip() + ("+" if changed.stdout.strip() else "")
