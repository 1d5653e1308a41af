"""`hs3 data check`: the doctor's findings, and their page."""

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hs3seg.builders import make_dataset
from hs3seg.builders.datasets import folder_taxonomy
from hs3seg.config import Config, FolderData
from hs3seg.data import notes_of, unpack, write_init
from hs3seg.data.doctor import Finding, Opened, examine, open_folder, open_splits
from hs3seg.engine import Reporter
from hs3seg.errors import DataError
from hs3seg.report.doctor import write_doctor_page

DEFAULT_PAGE = "data-check"


def check_step(
    config: Config, *, out: Path | None = None, strict: bool = False, max_findings: int | None = 100
) -> dict[str, Any]:
    """Examines every image and mask of every split that the config names.

    Args:
        config: Its data section is what counts; caches are not used.
        out: Folder of the page, index.html and findings.json; None = no page.
        strict: Whether warnings, too, give a non-zero exit code.
        max_findings: Listed of each kind; the others are counted. None = all.

    Returns:
        The diagnosis as plain values, `notes` of the readers, `page`, and `exit_code`: 2 where something must be done.
    """
    config = config.model_copy(
        update={"data": config.data.model_copy(update={"cache": False, "disk_cache": ""})}  # as the files are
    )
    splits = list(dict.fromkeys([config.data.train_split, *config.data.evaluate_splits]))
    opened = _open(config, splits)
    reporter = Reporter()
    with reporter.task("check", sum(len(d) for d in opened.datasets.values())) as task:
        diagnosis = examine(
            opened.datasets,
            workers=config.data.num_workers,
            progress=lambda: task.advance(1),
            max_findings_per_kind=max_findings,
            before=opened.findings,
        )
    values = diagnosis.to_dict()
    notes = list(dict.fromkeys(note for dataset in opened.datasets.values() for note in notes_of(dataset)))
    page = None
    if out is not None:
        page = str(write_doctor_page(values, out, diagnosis.pictures, config.name))
    return {**values, "notes": notes, "page": page, "exit_code": diagnosis.exit_code(strict)}


def _open(config: Config, splits: Sequence[str]) -> Opened:
    data = config.data
    if not isinstance(data, FolderData):
        return open_splits(splits, lambda split: make_dataset(config, split))
    root = Path(data.root)
    try:
        taxonomy = folder_taxonomy(data)
    except DataError as error:  # the masks themselves cannot say which classes there are
        remedy = "write ROOT/taxonomy.toml, e.g. by `hs3 data init ROOT`"
        finding = Finding("unopened-split", "error", splits[0], str(root), str(error), remedy)
        return Opened({}, [finding])
    return open_folder(root, splits, taxonomy, seed=config.seed, **data.reading)


def init_step(
    folder: Path,
    *,
    taxonomy: Path | None = None,
    config: Path | None = None,
    overwrite: bool = False,
    workers: int = 0,
) -> dict[str, Any]:
    """Writes taxonomy.toml and hs3.toml for a folder, by looking at it; see `hs3seg.data.write_init`."""
    reporter = Reporter()
    with contextlib.ExitStack() as stack:
        tasks: list[Any] = []

        def progress(_done: int, count: int) -> None:
            if not tasks:
                tasks.append(stack.enter_context(reporter.task("read masks", count)))
            tasks[0].advance(1)

        written = write_init(folder, taxonomy, config, overwrite=overwrite, num_workers=workers, progress=progress)
    return written.to_dict()


def unpack_step(archive: Path, target: Path) -> dict[str, Any]:
    """Unpacks a data set; see `hs3seg.data.unpack`."""
    return {"files": len(unpack(archive, target)), "folder": str(target)}
