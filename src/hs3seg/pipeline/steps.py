"""The steps of a run; each reads files and writes files, and can be run again alone."""

import hashlib
import json
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from hs3seg.analysis import OnlinePlan, SupervisionPlan, analyze, load_confusions, load_embeddings, save_confusions
from hs3seg.analysis.per_image import save_per_image
from hs3seg.builders import (
    Trained,
    bridged,
    describe,
    example_of,
    load_trained,
    make_dataset,
    make_evaluation_loader,
    make_loss,
    make_network,
    make_protocol,
    make_runtime,
    make_subset,
    make_supervised,
    make_training_loader,
    make_training_set,
    network_size,
    normalisation,
)
from hs3seg.config import Config, TrainConfig
from hs3seg.data import LabelStatistics, SegmentationDataset, channels_of, class_frequencies, notes_of, source_of
from hs3seg.data.cityscapes import Cityscapes
from hs3seg.data.cityscapes_scores import instance_counter
from hs3seg.data.loader import Center, Order
from hs3seg.data.uniform import find_centroids, uniform_order
from hs3seg.engine import Evaluation, Job, Reporter, Runtime, alone_in, check_finished, evaluate, finished, train
from hs3seg.errors import ConfigError
from hs3seg.files import read_json, write_atomically, write_json
from hs3seg.nn import count_cost
from hs3seg.pipeline.source import source_commit
from hs3seg.taxonomy import Taxonomy


@dataclass(frozen=True)
class Session:
    """What the steps of one process share."""

    config: Config
    runtime: Runtime
    reporter: Reporter
    _opened: dict[str, SegmentationDataset] = field(default_factory=dict, repr=False)

    def dataset(self, split: str) -> SegmentationDataset:
        """A split, opened once; `train` is the config's training split, `reduced` and `analysis` its two parts."""
        if split not in self._opened:
            if split in ("reduced", "analysis"):
                self._opened[split] = make_subset(self.config, self.dataset("train"), split)
            elif split == "train" and self.config.data.train_split != "train":
                self._opened[split] = make_training_set(self.config, self.dataset(self.config.data.train_split))
            else:
                opened = make_dataset(self.config, split)
                for note in notes_of(opened):
                    self.reporter.say(f"{split}: {note}")
                self._opened[split] = make_training_set(self.config, opened) if split == "train" else opened
        return self._opened[split]


def open_session(config: Config, *, quiet: bool = False) -> Session:
    """Starts the runtime; only the first process of several shows progress."""
    runtime = make_runtime(config)
    return Session(config, runtime, Reporter(enabled=runtime.is_main and not quiet))


def train_step(
    session: Session, plan: SupervisionPlan, folder: Path, *, arm: str, split: str, epochs: float = 1.0
) -> None:
    """Trains one network by one plan into an arm folder; goes on where an earlier process stopped.

    Args:
        session: Config, runtime and progress.
        plan: Stages, groups and weights; no stages = the plain network.
        folder: The arm folder.
        arm: Name of the arm, part of the training's identity.
        split: `train`, `reduced` or any split of the data.
        epochs: Length of this training in those of the config, for controls of equal compute.
    """
    runtime, reporter = session.runtime, session.reporter
    dataset = session.dataset(split)
    settings, identity = _settings_and_identity(session, plan, arm, split, epochs)
    label = f"train {arm}" if arm != "phase_one" else "phase one"
    # Before all masks are read, and in a folder that may not be written to. Processes look one after the other, and
    # somebody else's training may end in between: what one of them has seen holds for all.
    if runtime.any(finished(folder, identity)):
        reporter.say(f"{label}: already done")
        if runtime.is_main and (newer := _newer(dataset, folder / "train.json")):
            reporter.say(
                f"{label}: {len(newer)} of its images or masks were written after it, such as {newer[0]}; where their"
                f" content changed, delete {folder} to train it anew"
            )
        return
    with ExitStack() as lock:
        if runtime.is_main:
            lock.enter_context(alone_in(folder, lambda: reporter.say(f"{label}: another process trains it; waiting")))
        runtime.barrier()
        if runtime.any(finished(folder, identity)):
            reporter.say(f"{label}: already done")
            return
        _train(session, plan, folder, dataset, settings, identity, label)


def check_trained(
    session: Session, plan: SupervisionPlan, folder: Path, *, arm: str, split: str, epochs: float = 1.0
) -> None:
    """Refuses the numbers of a finished training that is not the one of a plan; arguments as of `train_step`.

    Raises:
        CheckpointError: it is another one: of other groups, images, settings or length.
    """
    check_finished(folder, _settings_and_identity(session, plan, arm, split, epochs)[1])


def _newer(dataset: SegmentationDataset, path: Path) -> list[str]:
    """Files of a data set that were written after one: repaired masks, say, but also a copy of the same."""
    written = path.stat().st_mtime
    files = (Path(file) for index in range(len(dataset)) for file in dataset.files(index))
    return [str(file) for file in dict.fromkeys(files) if file.exists() and file.stat().st_mtime > written]


def _settings_and_identity(
    session: Session, plan: SupervisionPlan, arm: str, split: str, epochs: float
) -> tuple[TrainConfig, dict[str, Any]]:
    config = session.config
    settings = config.train.model_copy(update={"epochs": max(1, round(config.train.epochs * epochs))})
    identity: dict[str, Any] = {
        "arm": arm,
        "config": config.fingerprint(),
        "plan": _hash(plan_groups(plan)),
        "split": split,
        "images": _hash(list(session.dataset(split).names)),
    }
    if settings.epochs != config.train.epochs:
        identity["epochs"] = settings.epochs
    return settings, identity


def _train(
    session: Session,
    plan: SupervisionPlan,
    folder: Path,
    dataset: SegmentationDataset,
    settings: TrainConfig,
    identity: dict[str, Any],
    label: str,
) -> None:
    config, runtime, split = session.config, session.runtime, str(identity["split"])
    taxonomy = dataset.taxonomy
    model = make_supervised(config, plan, taxonomy)
    mean, std = normalisation(model.net)
    loader = make_training_loader(config, dataset, runtime, _class_uniform(session, dataset, folder.parent, split))
    watched = None
    if config.train.evaluate_every and config.data.evaluate_splits:
        watched = _watch(session, config.data.evaluate_splits[0], mean.tolist(), std.tolist())
    held_out = plan.online is not None and plan.online.source == "held_out"
    job = Job(
        model=model,
        loss=make_loss(config, model, taxonomy, _label_statistics(session, dataset, folder)),
        loader=loader,
        settings=settings,
        mean=mean,
        std=std,
        folder=folder,
        identity=identity,
        description=describe(config, plan, taxonomy, identity),
        label=label,
        seed=config.seed,
        evaluate=watched,
        measure=_held_out(session, mean.tolist(), std.tolist()) if held_out else None,
        commit=source_commit(),
    )
    if runtime.is_main:
        plan.save(folder / "plan.toml")
    runtime.barrier()
    train(job, runtime, session.reporter)


def analyze_step(
    session: Session, weights: Path, out: Path, *, split: str = "analysis", with_embeddings: bool = False
) -> Path:
    """Measures every stage's confusion matrix on the analysis split (Sec. 3.1.1).

    Args:
        session: Config, runtime and progress.
        weights: Weight file of phase one, or its folder.
        out: Folder for confusion.npz, per_image.npz, taxonomy.toml, and for embeddings.npz with the method kmeans.
        split: Split to measure on.
        with_embeddings: Also embeddings.npz, whatever the method.

    Returns:
        Path of confusion.npz.
    """
    path, per_image, mark = out / "confusion.npz", out / "per_image.npz", out / "measured.json"
    source = {"weights": _digest(weights), "split": split, "images": _hash(list(session.dataset(split).names))}
    needs_embeddings = with_embeddings or session.config.supervision.method == "kmeans"
    if path.exists() and per_image.exists() and (not needs_embeddings or (out / "embeddings.npz").exists()):
        known = read_json(mark) if mark.exists() else source  # older versions left no mark
        if known == source:
            session.reporter.say("analysis: already done")
            return path
        session.reporter.say(f"analysis: {out} holds another network's or split's; measured anew")
    session.runtime.barrier()  # nobody looks at what the first process is about to write
    trained = load_trained(weights)
    result = _evaluate(session, trained, split, with_embeddings=needs_embeddings, per_image=True, label="analysis")
    if session.runtime.is_main:
        out.mkdir(parents=True, exist_ok=True)
        # The matrices say that all is there: the old ones go first, or a kill would leave them beside new files.
        path.unlink(missing_ok=True)
        mark.unlink(missing_ok=True)
        if needs_embeddings:
            _save_arrays(out / "embeddings.npz", result.embeddings)
        if result.per_image is not None:
            save_per_image(per_image, result.per_image)
        save_confusions(path, result.confusions)
        session.dataset(split).taxonomy.save(out / "taxonomy.toml")  # for `hs3 plan`, which sees no data
        write_json(mark, source)
    session.runtime.barrier()
    return path


def plan_step(
    session: Session, confusion: Path, taxonomy: Taxonomy, plan_path: Path, **changes: Any
) -> SupervisionPlan:
    """Groups the classes of every stage and writes plan.toml, with analysis.json beside the matrices.

    A plan that is there already is kept, since a person may have edited it. One that nobody has edited is made anew
    where the matrices are others now.

    Args:
        session: Config and progress.
        confusion: The matrices.
        taxonomy: Classes.
        plan_path: To write; of plan-NAME.toml the analysis is analysis-NAME.json.
        changes: Values of `[supervision]` that this plan has otherwise.
    """
    settings = session.config.supervision.model_copy(update=changes)
    matrices = load_confusions(confusion)
    by_features = settings.method == "kmeans"
    embeddings = load_embeddings(confusion.with_name("embeddings.npz")) if by_features else None
    facts = confusion.with_name(plan_path.stem.replace("plan", "analysis", 1) + ".json")
    source = _hash_arrays(matrices) + (_hash_arrays(embeddings) if embeddings is not None else "")
    if plan_path.exists() and not _is_outdated(session, plan_path, facts, source):
        plan = SupervisionPlan.load(plan_path)
        plan.check(taxonomy.names)
        return plan
    study = analyze(
        matrices,
        taxonomy.names,
        method=settings.method,
        normalize=settings.normalize,
        diagonal=settings.diagonal,
        rule=settings.rule,
        theta_degrees=settings.theta_degrees,
        aspect=settings.aspect,
        gamma=settings.gamma,
        seed=session.config.seed,
        embeddings=embeddings,
    )
    study.plan.save(plan_path)
    write_json(facts, study.to_dict() | {"made_of": source, "made": _hash_text(plan_path)})
    if study.absent:
        absent = ", ".join(taxonomy.names[c] for c in study.absent)
        session.reporter.say(f"the analysis split has no pixel of {absent}: where they are grouped means nothing")
    return study.plan


def _is_outdated(session: Session, plan_path: Path, facts: Path, source: str) -> bool:
    """Whether a plan is to be made anew: its matrices are gone, and nobody has edited it."""
    known = read_json(facts) if facts.exists() else {}
    if known.get("made_of", source) == source:  # older versions did not tell
        return False
    if known.get("made") != _hash_text(plan_path):
        session.reporter.say(
            f"{plan_path}: made of other matrices than are there now, and edited since: it is kept; delete it to have"
            " it made anew"
        )
        return False
    session.reporter.say(f"{plan_path}: made of other matrices than are there now; it is made anew")
    return True


def evaluate_step(
    session: Session, weights: Path, split: str, *, out: Path | None = None, bridge: Path | None = None
) -> dict[str, Any]:
    """Evaluates a trained network on a split and writes evaluation, confusion and samples to its folder.

    Args:
        session: Config, runtime and progress.
        weights: Weight file, or its folder.
        split: Of the session's data.
        out: Folder to write to; default: that of the weights, with a bridge a folder of its name below it, and with
            another protocol or size than an evaluation that is there already `asked-...` below it.
        bridge: File that maps the network's classes to those of the data.
    """
    folder = out or (weights if weights.is_dir() else weights.parent) / (f"bridge-{bridge.stem}" if bridge else "")
    if out is None and (folder / f"evaluation-{split}.json").exists():
        way = _way(session.config)
        if not _is_same_way(read_json(folder / f"evaluation-{split}.json"), way):
            # The arm's own score, which tables compare with other arms', stays what it is.
            folder = folder / f"asked-{_hash(way)[:8]}"
            session.reporter.say(f"evaluated otherwise than {folder.parent} is on {split}; written to {folder}")
    path = folder / f"evaluation-{split}.json"
    trained = load_trained(weights)
    if bridge:
        trained = bridged(trained, bridge, session.dataset(split).taxonomy)
    settings = session.config.evaluation
    source = source_of(session.dataset(split))
    instances = instance_counter(source) if isinstance(source, Cityscapes) and not bridge else None
    result = _evaluate(
        session,
        trained,
        split,
        num_samples=settings.num_samples,
        protocol=make_protocol(settings),
        boundaries=settings.boundaries,
        counters=[instances] if instances else [],
        per_image=True,
        label=f"evaluate on {split}",
    )
    values = result.to_dict() | {
        "images": _hash(list(session.dataset(split).names)),
        "resize": _way(session.config)["resize"],
    }
    if session.runtime.is_main:
        folder.mkdir(parents=True, exist_ok=True)
        save_confusions(folder / f"confusion-{split}.npz", result.confusions)
        if result.per_image is not None:
            save_per_image(folder / f"confusion-per-image-{split}.npz", result.per_image)
        _save_arrays(folder / f"samples-{split}.npz", result.samples)
        write_json(path, values)
    session.runtime.barrier()
    return values


def is_evaluated(config: Config, folder: Path, split: str, dataset: SegmentationDataset | None = None) -> bool:
    """Whether an arm folder holds the evaluation of a split as the config asks for it.

    Args:
        config: With the protocol, and what is counted.
        folder: Of the arm.
        split: Its name.
        dataset: The split: its images' names must be those that were evaluated. None = do not look.
    """
    path = folder / f"evaluation-{split}.json"
    if not path.exists():
        return False
    found = read_json(path)
    if dataset is not None and "images" in found and found["images"] != _hash(list(dataset.names)):
        return False  # images came or went since
    return _is_same_way(found, _way(config)) and ("boundary_f" in found or not config.evaluation.boundaries)


def _way(config: Config) -> dict[str, Any]:
    """How images are looked at, as plain values of JSON."""
    way = {"protocol": asdict(make_protocol(config.evaluation)), "resize": config.augment.resize}
    plain: dict[str, Any] = json.loads(json.dumps(way))
    return plain


def _is_same_way(found: Mapping[str, Any], way: Mapping[str, Any]) -> bool:
    # Older versions did not tell the size, which the config's fingerprint has.
    return all(found.get(key, way[key] if key == "resize" else None) == way[key] for key in way)


def write_profile(path: Path, profile: Mapping[str, Any]) -> None:
    """Writes profile.json; arms that it had before stay in it, if they are of the same network and size."""
    tables = ("training", "inference_of")
    known = read_json(path) if path.exists() else {}
    if all(known.get(key) == value for key, value in profile.items() if key not in tables):
        profile = {**profile, **{key: {**known.get(key, {}), **profile[key]} for key in tables}}
    write_json(path, profile)


def profile_step(config: Config, taxonomy: Taxonomy, plans: Mapping[str, SupervisionPlan]) -> dict[str, Any]:
    """Parameters and GMACs of the plain network and of each arm in training, at the network's input size."""
    height, width = network_size(config)
    network = make_network(config, taxonomy)
    shape = tuple(example_of(config, network).shape)
    plain = count_cost(network, shape)
    training, inference = {}, {}
    for arm, plan in plans.items():
        model = make_supervised(config, plan, taxonomy)
        training[arm] = count_cost(model, shape)
        # Only HS3-Fuse changes what runs at inference.
        inference[arm] = plain if plan.fuse is None else count_cost(model.strip(), shape)
    return {
        "network": config.network.name,
        "input_size": [height, width],
        "num_classes": taxonomy.num_classes,
        "inference": {"gmacs": plain.gmacs, "parameters": plain.parameters},
        "training": {arm: {"gmacs": cost.gmacs, "parameters": cost.parameters} for arm, cost in training.items()},
        "inference_of": {arm: {"gmacs": cost.gmacs, "parameters": cost.parameters} for arm, cost in inference.items()},
    }


def _evaluate(session: Session, trained: Trained, split: str, **options: Any) -> Evaluation:
    dataset = session.dataset(split)
    trained.model.plan.check(dataset.taxonomy.names)
    if channels_of(dataset) != len(trained.mean):
        depth = getattr(trained.config.data, "depth", "none")
        raise ConfigError(
            f"split '{split}' has images of {channels_of(dataset)} channels, network '{trained.config.network.name}'"
            f" takes {len(trained.mean)}; set data.depth = '{depth}', as it was trained"
        )
    loader = make_evaluation_loader(session.config, dataset, session.runtime)
    return evaluate(
        trained.model, loader, session.runtime, session.reporter, mean=trained.mean, std=trained.std, **options
    )


def _watch(session: Session, split: str, mean: list[float], std: list[float]) -> Callable[[Any], dict[str, Any]]:
    """Evaluation during training, for the log's curves only: no decision is taken from it."""

    def now(model: Any) -> dict[str, Any]:
        loader = make_evaluation_loader(session.config, session.dataset(split), session.runtime)
        result = evaluate(
            model,
            loader,
            session.runtime,
            Reporter(enabled=False),
            mean=torch.tensor(mean),
            std=torch.tensor(std),
        ).to_dict()
        stages = result["stages"]
        return {
            "split": split,
            "miou": {**{s: v["miou"] for s, v in stages.items()}, "final": result["miou"]},
            "pixel_accuracy": {
                **{s: v["pixel_accuracy"] for s, v in stages.items()},
                "final": result["pixel_accuracy"],
            },
        }

    return now


def _held_out(session: Session, mean: list[float], std: list[float]) -> Callable[[Any], dict[str, Any]]:
    """Measures every stage on the analysis split, as phase one is measured."""

    def now(model: Any) -> dict[str, Any]:
        loader = make_evaluation_loader(session.config, session.dataset("analysis"), session.runtime)
        return evaluate(
            model,
            loader,
            session.runtime,
            Reporter(enabled=False),
            mean=torch.tensor(mean),
            std=torch.tensor(std),
        ).confusions

    return now


def _class_uniform(session: Session, dataset: SegmentationDataset, folder: Path, split: str) -> Order | None:
    """Where the crops of an epoch lie, where the config asks for rare classes as often as others."""
    settings = session.config.data
    if not settings.uniform_share:
        return None
    cache = folder / f"centroids-{split}.npz"

    def find() -> list[list[tuple[int, Center]]]:
        with session.reporter.task("find classes", len(dataset)) as task:
            return find_centroids(
                dataset,
                dataset.taxonomy.num_classes,
                settings.uniform_tile,
                cache=cache,
                key=settings.options,
                num_workers=settings.num_workers,
                progress=lambda: task.advance(1),
            )

    if session.runtime.is_main:
        folder.mkdir(parents=True, exist_ok=True)
        find()
    session.runtime.barrier()  # the others read what the first has found
    return uniform_order(find(), settings.uniform_share, len(dataset), session.config.seed)


def _label_statistics(session: Session, dataset: SegmentationDataset, folder: Path) -> LabelStatistics:
    """Class frequencies of the split a network trains on; also the reading test of every mask before hours of work."""
    with session.reporter.task("read masks", len(dataset)) as task:
        statistics = class_frequencies(dataset, progress=lambda: task.advance(1))
    if statistics.all_ignored:
        names = ", ".join(statistics.all_ignored[:3])
        session.reporter.say(
            f"{len(statistics.all_ignored)} images have no labelled pixel ({names} ...); they are kept"
        )
    if session.runtime.is_main:
        write_json(folder / "labels.json", statistics.to_dict(dataset.taxonomy.names))
    return statistics


def plan_groups(plan: SupervisionPlan) -> list[Any]:
    """What of a plan the weights depend on."""
    stages = [[s.stage, list(s.grouping.assignment), s.gamma] for s in plan.stages]
    found = [list(plan.taxonomy_names), stages]
    # Only what is set: the identity of other plans must stay what it was.
    if plan.fuse is not None:
        found.append([plan.fuse.mid, plan.fuse.key])
    if plan.heads != "groups":
        found.append(plan.heads)
    if plan.online is not None:
        usual = OnlinePlan().to_dict()
        found.append({"online": {key: v for key, v in plan.online.to_dict().items() if v != usual.get(key)}})
    return found


def _digest(weights: Path) -> str:
    """SHA-256 of a weight file, given as `load_trained` takes it; of anything else there, its path."""
    file = weights / "weights.safetensors" if weights.is_dir() else weights
    if not file.is_file():
        return str(weights)
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def _hash_text(path: Path) -> str:
    return _hash(path.read_text(encoding="utf-8"))


def _hash_arrays(arrays: Mapping[str, NDArray[Any]]) -> str:
    """Of the content, since an .npz file has times in it; with as many digits as kept numbers have."""
    rounded = {name: np.asarray(array, np.float64).round(6) + 0.0 for name, array in arrays.items()}
    return _hash(
        [[name, array.shape, hashlib.sha256(array.tobytes()).hexdigest()] for name, array in sorted(rounded.items())]
    )


def _hash(value: Any) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()[:16]


def _save_arrays(path: Path, arrays: Mapping[str, Any]) -> None:
    def write(temporary: Path) -> None:
        with temporary.open("wb") as file:
            np.savez_compressed(file, **arrays)

    write_atomically(path, write)
