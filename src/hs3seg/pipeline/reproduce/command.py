"""`hs3 reproduce NAME`: trains what a study needs and lays ours beside the paper's."""

import shlex
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from hs3seg.errors import ConfigError
from hs3seg.files import write_json
from hs3seg.pipeline.reproduce import collect
from hs3seg.pipeline.reproduce.fabricated import OTHERS, TRAIN, make_data
from hs3seg.pipeline.reproduce.queue import Clock, Ready, check_folders, claim, estimate, run_setting
from hs3seg.pipeline.reproduce.settings import (
    DRY,
    check_start,
    choose_settings,
    config_folder,
    describe,
    own_words,
    setting_config,
)
from hs3seg.pipeline.reproduce.studies import find_study, find_version
from hs3seg.pipeline.steps import open_session
from hs3seg.report.study_page import publish_study, write_study

RUNS = Path("runs") / "studies"


def reproduce(
    name: str,
    *,
    small: bool = False,
    dry_run: bool = False,
    seeds: Sequence[int] = (),
    settings: str = "",
    out: Path | None = None,
    runs: Path | None = None,
    configs: str = "",
    page_only: bool = False,
    keep: Path | None = None,
    publish: Path | None = None,
    overrides: Sequence[str] = (),
    quiet: bool = False,
) -> dict[str, Any]:
    """Runs a study and writes its results and page. What is trained already is not trained again.

    Args:
        name: Of the study.
        small: The version for one CPU core, instead of the paper's settings.
        dry_run: Every step of every training on a handful of fabricated images; the numbers mean nothing.
        seeds: Of initial weights, data order, augmentation and splits; empty = the study's.
        settings: Only these settings of the study, with commas; empty = all.
        out: Folder of the page; default: below `runs`.
        runs: Folder of the trainings, which studies share.
        configs: Folder of configs; default: the checkout's.
        page_only: Train nothing: the page of what is there.
        keep: Folder of numbers of finished trainings, small enough for a repository: what is there is not trained
            again, what is trained is added.
        publish: Folder that also gets the page as README.md with its figures, without pictures of the data set.
        overrides: Laid over every setting's config, or over one's: `--SETTING.section.key value`.
        quiet: Show no progress.

    Returns:
        The content of results.json, with the path of the page as `report`.

    Raises:
        ConfigError: an unknown study or setting, no configs, no folder of data, a seed twice, or no start weights where
            the paper's network has some that no library has.
        RunFolderError: a seed's run folder holds a run of other values, also of a seed that is not asked for: all that
            are there would share a page.
    """
    study = find_study(name)
    version = choose_settings(find_version(study, small=small), settings)
    seeds = tuple(seeds) or (version.seeds[:1] if dry_run else version.seeds)
    if len(set(seeds)) != len(seeds):
        raise ConfigError(f"seeds {list(seeds)}; give each once")
    kind = "dry" if dry_run else "small" if small else "paper"
    runs = (runs or RUNS) / kind
    out = out or runs / f"{name}-page"
    words = [*(DRY if dry_run else ()), *overrides]
    folder = config_folder(configs)
    names = [setting.name for setting in find_version(study, small=small).settings]
    ready = []
    for setting in version.settings:
        own_config = setting_config(setting, folder, own_words(setting.name, names, words))
        ready.append(Ready(setting, own_config, runs / setting.name, keep and keep / setting.name))
        if not page_only:
            check_start(setting, own_config, own_words(setting.name, names, words))
    if dry_run:
        ready = [_fabricated(own, runs / "data") for own in ready]
    command = shlex.join(["hs3", *sys.argv[1:]])
    session = open_session(ready[0].of_seed(seeds[0]), quiet=quiet)
    session.reporter.say(f"{study.source}: {study.title}" if study.source else study.title)
    for own in ready:
        session.reporter.say(f"{own.setting.name}: {describe(own.config)}")
        check_folders(own)
    for own in ready:
        for seed in seeds:
            claim(own, seed, session.reporter.say, quiet=quiet, page_only=page_only)
    if not page_only:
        _train(ready, seeds, command, dry_run=dry_run, quiet=quiet)
    # All that is there counts, also what other calls have trained with other seeds.
    there = sorted(
        {int(p.name[5:]) for own in ready for p in own.folder.glob("seed-*") if p.name[5:].isdecimal()} | set(seeds)
    )
    found = collect.collect(ready, there)
    notes = ["Dry run on fabricated images: the numbers mean nothing."] if dry_run else []
    commits = collect.commits(ready, there)
    page = collect.make_page(study, version, ready, found, out, command=command, commits=commits, notes=notes)
    results = {
        "name": name,
        "version": kind,
        "command": command,
        "commit": commits,
        "settings": {own.setting.name: _values(own) for own in ready},
        "arms": collect.by_arm(found),
        "comparisons": collect.comparison_values(page.comparisons),
        "against": collect.other_values(page),
        "table": {"head": list(page.head), "rows": [list(row) for row in page.rows]},
    }
    if session.runtime.is_main:
        write_study(out, page)
        write_json(out / "results.json", results)
        if publish is not None:
            publish_study(publish, page)
            write_json(publish / "results.json", results)
    session.runtime.barrier()
    return results | {"report": str(out / "index.html"), "title": study.title}


def _values(own: Ready) -> dict[str, Any]:
    """The config of a setting, with the plan by hand as the setting names it: results are read on other machines."""
    values = own.config.model_dump(mode="json")
    if own.setting.manual_plan:
        values["supervision"]["manual_plan"] = own.setting.manual_plan
    return values


def _train(ready: Sequence[Ready], seeds: Sequence[int], command: str, *, dry_run: bool, quiet: bool) -> None:
    """The queue, seed by seed, so that the first seed of everything is there early."""
    say = open_session(ready[0].of_seed(seeds[0]), quiet=quiet).reporter.say
    total = sum(len(own.jobs(seed)) for own in ready for seed in seeds)
    seconds: dict[str, float] = {}
    if not dry_run and total:
        seconds = estimate(ready, seeds, say)
    weights = {own.setting.name: seconds.get(own.setting.name, 1.0) for own in ready}
    expected = sum(len(own.jobs(seed)) * weights[own.setting.name] for own in ready for seed in seeds)
    clock = Clock(total, expected, say)
    for seed in seeds:
        for own in ready:
            run_setting(own, seed, weights[own.setting.name], clock, quiet=quiet, command=command)


def _fabricated(own: Ready, folder: Path) -> Ready:
    """A setting whose data are made up, in the format of its kind of data."""
    data = own.config.data
    if data.kind == "planted":  # made up anyway
        few = data.model_copy(update={"num_images": (TRAIN, OTHERS, OTHERS)})
        return replace(own, config=own.config.model_copy(update={"data": few}))
    root = make_data(data.kind, folder / data.kind)
    fields = {"root": str(root), "cache": False, "disk_cache": ""}
    return replace(own, config=own.config.model_copy(update={"data": data.model_copy(update=fields)}))
