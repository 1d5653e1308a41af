"""The trainings of a study one after the other, with the time that is left; what is done is never done again."""

import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from hs3seg.analysis import SupervisionPlan
from hs3seg.builders import make_network, make_stages, make_supervised, network_size
from hs3seg.config import Config, load_config
from hs3seg.errors import CheckpointError, RunFolderError
from hs3seg.files import read_json, write_json
from hs3seg.nn import count_cost
from hs3seg.pipeline import arms
from hs3seg.pipeline.compare import compare_runs
from hs3seg.pipeline.kept import PHASE_ONE, STUDY, add_facts, is_complete, is_kept, restore, store
from hs3seg.pipeline.predict import predict_step
from hs3seg.pipeline.predictions import submit_step
from hs3seg.pipeline.reproduce.estimate import training_seconds
from hs3seg.pipeline.reproduce.plans import same_training, variant_plan
from hs3seg.pipeline.reproduce.settings import protocol_config
from hs3seg.pipeline.reproduce.study import Setting, Variant
from hs3seg.pipeline.run import claim_folder, run
from hs3seg.pipeline.source import source_commit
from hs3seg.pipeline.steps import (
    Session,
    check_trained,
    evaluate_step,
    is_evaluated,
    open_session,
    plan_step,
    profile_step,
    train_step,
    write_profile,
)
from hs3seg.report import build_report
from hs3seg.report.markup import duration
from hs3seg.taxonomy import Taxonomy


@dataclass(frozen=True)
class Ready:
    """A setting with its config and folder.

    Args:
        setting: What is trained.
        config: Its values; seed and folder are replaced per run.
        folder: Of its runs, one per seed: seed-S.
        kept: Folder of the setting's kept numbers, see `kept`; None = none are kept.
    """

    setting: Setting
    config: Config
    folder: Path
    kept: Path | None = None

    def of_seed(self, seed: int) -> Config:
        """The config of one run."""
        path = self.folder / f"seed-{seed}"
        return self.config.model_copy(update={"seed": seed, "run_dir": str(path), "arms": ()})

    @property
    def needs_phase_one(self) -> bool:
        """Whether anything of it starts from phase one; a setting without arms is an analysis alone."""
        setting = self.setting
        return any(map(arms.needs_phase_one, setting.arms)) or bool(setting.variants) or not setting.names

    def jobs(self, seed: int) -> list[str]:
        """Trainings that are not there yet, phase one among them."""
        path = self.folder / f"seed-{seed}"
        names = self.setting.names
        first = [PHASE_ONE] if self.needs_phase_one else []
        file = path / STUDY
        trained_as = read_json(file)["trained_as"] if file.exists() else {}
        folders = dict.fromkeys(first, path / PHASE_ONE)
        folders |= {name: path / "arms" / trained_as.get(name, name) for name in names}
        return [name for name, folder in folders.items() if not (folder / "train.json").exists()]


@dataclass
class Clock:
    """How far a queue is.

    Args:
        total: Number of jobs.
        seconds: Estimated, of all of them.
        say: Prints a line.
    """

    total: int
    seconds: float
    say: Callable[[str], None]
    done: int = 0
    worked: float = 0.0
    _began: float = field(default_factory=time.monotonic)

    def finished(self, name: str, estimated: float) -> None:
        """Says where the queue is after a job."""
        self.done += 1
        self.worked += estimated
        gone = time.monotonic() - self._began
        rest = max(0.0, self.seconds - self.worked)
        left = gone * rest / self.worked if self.worked else rest
        self.say(
            f"queue: {self.done} of {self.total} done ({name}), {duration(gone)} gone, about {duration(left)} left"
        )


def estimate(ready: Sequence[Ready], seeds: Sequence[int], say: Callable[[str], None]) -> dict[str, float]:
    """Setting -> estimated seconds of one training, measured by a few steps; says what the whole study will take."""
    seconds: dict[str, float] = {}
    total = 0.0
    for own in ready:
        count = sum(len(own.jobs(seed)) for seed in seeds)
        if not count:
            say(f"{own.setting.name}: all trainings are there")
            continue
        session = open_session(own.of_seed(seeds[0]), quiet=True)
        taxonomy = session.dataset("train").taxonomy
        stages = make_stages(own.config, make_network(own.config, taxonomy))
        deep = arms.Setting(session, taxonomy, stages).deep()
        seconds[own.setting.name] = training_seconds(session, deep)
        total += count * seconds[own.setting.name]
        say(f"{own.setting.name}: {count} trainings of about {duration(seconds[own.setting.name])}")
    say(f"estimated time of the study on this machine as it is now: {duration(total)}")
    return seconds


def check_folders(own: Ready) -> None:
    """Looks at every seed's run folder, as all of them are told of on one page.

    Raises:
        RunFolderError: one was trained by other values.
    """
    for file in sorted(own.folder.glob("seed-*/config.toml")):
        found = load_config(file)
        wanted = own.of_seed(found.seed)
        if found.fingerprint() != wanted.fingerprint():
            differing = ", ".join(found.differences(wanted))
            raise RunFolderError(
                f"{file.parent} was trained by other values of {differing}; give the same ones, another --runs, or move"
                " the folder away"
            )


def claim(own: Ready, seed: int, say: Callable[[str], None], *, quiet: bool, page_only: bool = False) -> None:
    """Makes the run folder of a seed ours, or refuses it, and fills it with the numbers that are kept.

    Args:
        own: The setting.
        seed: Of the run.
        say: Prints a line.
        quiet: Show no progress.
        page_only: Nothing will be trained: the data may be elsewhere, and so may the numbers.
    """
    source_commit()  # what trains is what is loaded now, not what is committed by the time it has trained
    config = own.of_seed(seed)
    path = config.run_path
    kept = own.kept and own.kept / path.name
    session = open_session(config, quiet=True)
    if not page_only:
        run(config, resume=(path / "run.json").exists(), quiet=quiet)
    elif kept is not None and kept.exists():
        claim_folder(config, session.runtime, resume=True)
        config.save(path / "config.toml")
    if kept is None or not kept.exists():
        return
    if session.runtime.is_main:
        names = restore(path, kept, config.fingerprint(), config.data.evaluate_splits, say)
        if names:
            say(f"{own.setting.name} seed {seed}: kept numbers of {', '.join(names)}")
        if PHASE_ONE in names and not config.supervision.plan:
            classes = SupervisionPlan.load(path / PHASE_ONE / "plan.toml").taxonomy_names
            matrices = path / "analysis" / "confusion.npz"
            plan_step(session, matrices, Taxonomy.from_names(classes), path / "plan.toml")
    session.runtime.barrier()


def run_setting(own: Ready, seed: int, seconds: float, clock: Clock, *, quiet: bool, command: str) -> None:
    """Trains and evaluates everything of a setting with one seed, and renews its pages.

    Args:
        own: The setting.
        seed: Of initial weights, data order, augmentation and splits.
        seconds: Estimated, of a training.
        clock: Told of every finished job.
        quiet: Show no progress.
        command: For the pages.
    """
    config = own.of_seed(seed)
    path = config.run_path
    session = open_session(config, quiet=quiet)
    taxonomy = session.dataset("train").taxonomy
    stages = make_stages(config, make_network(config, taxonomy))
    place = arms.Setting(session, taxonomy, stages)
    waiting = own.jobs(seed)
    plans: dict[str, SupervisionPlan] = {}
    if own.needs_phase_one:
        # With embeddings for all: a later study may group by k-means, and kept numbers have no weights to measure.
        arms.measured(place, with_embeddings=True)
        _keep(own, session, PHASE_ONE)
        if PHASE_ONE in waiting:
            clock.finished(f"{own.setting.name} seed {seed} phase one", seconds)
    if not own.setting.names:
        arms.hs3_plan(place)
    makers = {arm: _arm(place, arm) for arm in own.setting.arms}
    makers |= {variant.name: _variant(place, variant) for variant in own.setting.variants}
    for name, make in makers.items():
        began = time.monotonic()
        plan = make()
        folder = _train(own, place, name, plan)
        plans[folder.name] = plan
        if session.runtime.is_main:
            costs = _gmacs(own, config, {folder.name: plan}, session)
            add_facts(path / STUDY, {"trained_as": {name: folder.name}, "gmacs": costs})
        _keep(own, session, folder.name)
        if name in waiting:
            clock.finished(f"{own.setting.name} seed {seed} {name}", seconds)
        if session.runtime.is_main:
            _add_seconds(path / "run.json", time.monotonic() - began)
    if session.runtime.is_main:
        write_profile(path / "profile.json", profile_step(config, taxonomy, plans))
        build_report(path)
        if own.setting.names:
            compare_runs(own.folder, own.setting.name, command)
    session.runtime.barrier()


def _train(own: Ready, place: arms.Setting, name: str, plan: SupervisionPlan) -> Path:
    """One arm's training and evaluations; gives its folder, which may be that of an equal one."""
    session = place.session
    config, path = session.config, place.path
    arm = name if name in own.setting.arms else same_training(path / "arms", name, plan)
    folder = path / "arms" / arm
    if arm != name:
        session.reporter.say(f"{name}: the groups are those of {arm}; it is not trained twice")
    epochs = arms.arm_epochs(place, arm) if arm in own.setting.arms else 1.0
    split = arms.arm_split(plan)
    if is_complete(folder, config.data.evaluate_splits):  # kept numbers have no weights, and need none
        _check(own, session, plan, folder, arm=arm, split=split, epochs=epochs)
    else:
        if session.runtime.is_main and is_kept(folder):
            shutil.rmtree(folder)  # numbers of some splits, of weights that are not here
        session.runtime.barrier()
        train_step(session, plan, folder, arm=arm, split=split, epochs=epochs)
    _evaluate(session, folder, folder)
    for protocol, words in own.setting.protocols.items():
        other = Session(protocol_config(path, words), session.runtime, session.reporter)
        _evaluate(other, folder, folder / protocol)
    if own.setting.submit and is_kept(folder):
        session.reporter.say(f"{name}: kept numbers have no weights, so nothing is packed for the server")
    elif own.setting.submit and not (folder / "submission.zip").exists():
        _submit(config, folder)
        session.runtime.barrier()
    return folder


def _check(
    own: Ready, session: Session, plan: SupervisionPlan, folder: Path, *, arm: str, split: str, epochs: float
) -> None:
    """Refuses numbers of another training than this one: [online] and plans by hand are not in the fingerprint."""
    try:
        check_trained(session, plan, folder, arm=arm, split=split, epochs=epochs)
    except CheckpointError as error:
        if not is_kept(folder):
            raise
        raise RunFolderError(
            f"kept numbers of {folder.name} in {own.kept} are not those asked for ({error}); give --keep and --runs"
            " other folders, or ask for what was trained"
        ) from None


def _evaluate(session: Session, folder: Path, out: Path) -> None:
    """Evaluates an arm on every split as the session's config asks for it, unless its folder of results has that."""
    config = session.config
    for split in config.data.evaluate_splits:
        kept = is_kept(folder)
        if is_evaluated(config, out, split, None if kept else session.dataset(split)):
            continue
        if kept:
            raise RunFolderError(
                f"{out}: kept numbers of '{split}' are of another evaluation than the config asks for, and there are no"
                " weights to evaluate anew; leave [evaluation] as it was, or train anew without --keep"
            )
        evaluate_step(session, folder, split, out=out)


def _keep(own: Ready, session: Session, name: str) -> None:
    config = session.config
    if own.kept is not None and session.runtime.is_main:
        run_path, kept = config.run_path, own.kept / config.run_path.name
        store(run_path, name, kept / f"{name}.json", config.fingerprint())
        if (run_path / STUDY).exists():
            add_facts(kept / STUDY, read_json(run_path / STUDY))


_NO_TILES = 2.0**20
"""GiB that a prediction may take: the whole frame, whatever it costs."""


def _submit(config: Config, folder: Path) -> None:
    """Predictions of the test split, packed for the server."""
    images = Path(config.data.root) / "leftImg8bit" / "test"
    # By the protocol that val was scored by: tiles would show OCR's regions and HMS's attention less than a frame.
    told = predict_step(folder, [images], folder / "test", output="index", skip_existing=True, memory_gib=_NO_TILES)
    if told["failed"]:
        first = told["failed"][0]
        raise RunFolderError(
            f"{len(told['failed'])} frames of test could not be predicted, {first['file']}: {first['error']}; give the"
            " same command again where there is more memory, what is there is kept"
        )
    submit_step(folder / "test", "test", ["--data.root", config.data.root], folder / "submission.zip")


def _arm(place: arms.Setting, arm: str) -> Callable[[], SupervisionPlan]:
    return lambda: arms.arm_plan(place, arm)


def _variant(place: arms.Setting, variant: Variant) -> Callable[[], SupervisionPlan]:
    return lambda: variant_plan(place, variant)


def _add_seconds(path: Path, seconds: float) -> None:
    facts = read_json(path)
    write_json(path, {**facts, "seconds": facts["seconds"] + seconds})


def _gmacs(own: Ready, config: Config, plans: Mapping[str, SupervisionPlan], session: Session) -> dict[str, float]:
    """Cost at inference of every arm, at the size that the paper counts at."""
    taxonomy = session.dataset("train").taxonomy
    shape = (1, config.data.channels, *(own.setting.size or network_size(config)))
    plain = count_cost(make_network(config, taxonomy), shape).gmacs
    return {
        arm: plain if plan.fuse is None else count_cost(make_supervised(config, plan, taxonomy).strip(), shape).gmacs
        for arm, plan in plans.items()
    }
