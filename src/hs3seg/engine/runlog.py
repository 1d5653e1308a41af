"""The log of a training: one JSON object per line, and TensorBoard events if asked for."""

import json
from pathlib import Path
from typing import Any

from hs3seg.errors import ConfigError
from hs3seg.files import write_atomically


class RunLog:
    """Appends events to `log.jsonl`; a line is written at once, so that a killed run loses none.

    Args:
        folder: Of the arm.
        tensorboard: Also write scalar events to `folder/tensorboard`.
        step: Drop logged steps at or after this one: a resumed run writes them again.
    """

    def __init__(self, folder: Path, *, tensorboard: bool = False, step: int = 0) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._path = folder / "log.jsonl"
        if self._path.exists():
            text = "".join(line + "\n" for line in self._kept(step))
            write_atomically(self._path, lambda temporary: temporary.write_text(text, encoding="utf-8"))
        self._writer: Any = None
        if tensorboard:
            try:
                from torch.utils.tensorboard import SummaryWriter
            except ImportError:
                raise ConfigError(
                    "train.tensorboard = true, but TensorBoard is not installed; pip install"
                    " '.[tensorboard]' in a checkout of hs3seg"
                ) from None
            self._writer = SummaryWriter(str(folder / "tensorboard"), purge_step=step)

    def _kept(self, step: int) -> list[str]:
        kept = []
        for line in self._path.read_text(encoding="utf-8").splitlines():
            try:
                event = json.loads(line)
            except json.JSONDecodeError:
                continue  # the last line of a killed process
            if event.get("step", -1) < step:
                kept.append(line)
        return kept

    def write(self, event: str, **values: Any) -> None:
        """Appends one event; numbers also go to TensorBoard under their names."""
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"event": event, **values}) + "\n")
        if self._writer is not None and "step" in values:
            for name, value in _scalars(values):
                self._writer.add_scalar(f"{event}/{name}", value, values["step"])

    def close(self) -> None:
        """Closes the TensorBoard file."""
        if self._writer is not None:
            self._writer.close()


def _scalars(values: dict[str, Any], prefix: str = "") -> list[tuple[str, float]]:
    found: list[tuple[str, float]] = []
    for name, value in values.items():
        if isinstance(value, dict):
            found += _scalars(value, f"{prefix}{name}/")
        elif isinstance(value, (int, float)) and name not in ("step", "epoch"):
            found.append((prefix + name, float(value)))
    return found
