"""One function per command: (options, config overrides) -> (result for --json, function that shows it to a person)."""

import json
import shutil
from argparse import Namespace
from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import Any

from hs3seg.analysis import SupervisionPlan
from hs3seg.cli import show
from hs3seg.cli.parser import refuse
from hs3seg.config import Config, config_of_folder, describe_keys, load_config
from hs3seg.errors import ConfigError, PlanError, RunFolderError, nearest

Result = tuple[dict[str, Any], Callable[[dict[str, Any]], None]]


def demo(options: Namespace, overrides: list[str]) -> Result:
    """Runs the embedded config; an earlier demo is resumed, so a finished one is only shown again."""
    with resources.as_file(resources.files("hs3seg") / "demo.toml") as path:
        config = load_config(path, overrides)
    if options.fresh and config.run_path.exists():
        if not (config.run_path / "run.json").exists():
            raise ConfigError(
                f"--fresh would delete {config.run_path}, which holds no run of hs3; choose another --run_dir"
            )
        shutil.rmtree(config.run_path)
    try:
        return _run(config, resume=True)
    except RunFolderError as error:
        raise RunFolderError(f"{error}; or run `hs3 demo --fresh`, which deletes it") from None


def run(options: Namespace, overrides: list[str]) -> Result:
    """All steps of a config."""
    config = load_config(Path(options.config), overrides)
    if not config.arms:
        raise ConfigError('arms = [] trains nothing; give at least one, e.g. --arms \'["deep_supervision", "hs3"]\'')
    return _run(config, resume=options.resume)


def _run(config: Config, *, resume: bool) -> Result:
    from hs3seg import pipeline

    return pipeline.run(config, resume=resume), show.run


_SHORT = {"fuse": "hs3_fuse", "ds": "deep_supervision"}


def compare(options: Namespace, overrides: list[str]) -> Result:
    """Arms over seeds."""
    from hs3seg import pipeline

    if options.page:
        refuse("compare", overrides)
        if not options.out:
            raise ConfigError("hs3 compare --page needs the folder of the comparison: --out DIR")
        name = Path(options.out).resolve().name
        return pipeline.compare_runs(Path(options.out), name, against=options.against), show.comparison
    if not options.config:
        raise ConfigError("hs3 compare needs a config file, or --page --out DIR")
    for word, meant in (("--seed", "--seeds"), ("--run_dir", "--out"), ("--run-dir", "--out")):
        if any(override.partition("=")[0] == word for override in overrides):
            raise ConfigError(
                f"hs3 compare has no use for {word}: each arm is trained with several; did you mean {meant}?"
            )
    config = load_config(Path(options.config), overrides)
    arms = [_SHORT.get(word.strip(), word.strip()) for word in options.arms.split(",")] if options.arms else config.arms
    config = load_config(Path(options.config), [*overrides, "--arms", json.dumps(arms)])
    seeds = _numbers("--seeds", options.seeds)
    if "," not in options.seeds:
        if len(seeds) != 1 or seeds[0] < 1:
            raise ConfigError(f"--seeds {options.seeds}; give how many, at least 1, or a list such as 0,1,2 or 0,")
        seeds = tuple(range(seeds[0]))
    out = Path(options.out) if options.out else Path("runs") / f"{config.name}-compare"
    return pipeline.compare(config, config.arms, seeds, out, against=options.against), show.comparison


def reproduce(options: Namespace, overrides: list[str]) -> Result:
    """A table or figure of the paper, or a study of ours."""
    from hs3seg.pipeline import reproduce as studies

    if options.name == "list":
        rows = {name: {"title": s.title, "source": s.source} for name, s in studies.STUDIES.items()}
        return {"studies": rows}, show.studies
    values = studies.reproduce(
        options.name,
        small=options.small,
        dry_run=options.dry_run,
        seeds=_numbers("--seeds", options.seeds),
        settings=options.settings,
        out=Path(options.out) if options.out else None,
        runs=Path(options.runs) if options.runs else None,
        configs=options.configs,
        page_only=options.page,
        keep=Path(options.keep) if options.keep else None,
        publish=Path(options.publish) if options.publish else None,
        overrides=overrides,
    )
    return values, show.study


def train(options: Namespace, overrides: list[str]) -> Result:
    """One network by one plan."""
    from hs3seg import pipeline

    config = load_config(Path(options.config), overrides)
    session = pipeline.open_session(config)
    return pipeline.train_command(
        session, Path(options.out), arm=options.arm, plan=options.plan, split=options.split
    ), show.train


def analyze(options: Namespace, overrides: list[str]) -> Result:
    """Confusion matrices of phase one."""
    from hs3seg import pipeline

    weights = Path(options.weights)
    session = pipeline.open_session(pipeline.load_trained(weights, overrides).config)
    confusion = pipeline.analyze_step(session, weights, Path(options.out), split=options.split)
    return {"confusion": str(confusion)}, show.files


def plan(options: Namespace, _overrides: list[str]) -> Result:
    """Groups from matrices alone; starts without torch."""
    from hs3seg.analysis import analyze as study_of
    from hs3seg.analysis import load_confusions, load_embeddings
    from hs3seg.taxonomy import Taxonomy

    path = Path(options.confusion)
    confusions = load_confusions(path)
    found = (
        [Path(options.taxonomy)]
        if options.taxonomy
        else [path.parent / "taxonomy.toml", path.parent.parent / "taxonomy.toml"]
    )
    names = next((Taxonomy.load(place).names for place in found if options.taxonomy or place.exists()), None)
    if options.method == "kmeans" and not options.embeddings:
        raise ConfigError(
            "--method kmeans needs --embeddings FILE.npz; `hs3 analyze` writes one with supervision.method = kmeans"
        )
    study = study_of(
        confusions,
        names,
        method=options.method,
        normalize=options.normalize,
        diagonal=options.diagonal,
        rule=options.rule,
        theta_degrees=options.theta,
        aspect=options.aspect,
        gamma=options.gamma,
        seed=options.seed,
        embeddings=load_embeddings(Path(options.embeddings)) if options.embeddings else None,
    )
    result = study.to_dict()
    if options.out:
        study.plan.save(Path(options.out))
        result["plan"] = options.out
    return result, lambda values: show.plan(values, study.plan)


def groups(options: Namespace, _overrides: list[str]) -> Result:
    """A plan's groups for other tools, or a plan from theirs; starts without torch."""
    from hs3seg.portable import FORMATS, read_plan, write_plan
    from hs3seg.taxonomy import Taxonomy

    if options.format not in FORMATS:
        raise ConfigError(f"--format {options.format}; {nearest(options.format, FORMATS)}")
    source = Path(options.source)
    place = Path(options.taxonomy) if options.taxonomy else source.parent / "taxonomy.toml"
    if source.suffix == ".toml":
        loaded = SupervisionPlan.load(source)
        taxonomy = (
            Taxonomy.load(place) if options.taxonomy or place.exists() else Taxonomy.from_names(loaded.taxonomy_names)
        )
        files = write_plan(loaded, taxonomy, options.format, Path(options.out or "groups"))
        return {"files": [str(path) for path in files.values()]}, show.files
    paths = sorted(source.glob(f"*{FORMATS[options.format].suffix}")) if source.is_dir() else [source]
    if not paths:
        raise ConfigError(f"'{source}' holds no *{FORMATS[options.format].suffix}, one per stage; look at --format")
    taxonomy = Taxonomy.load(place)
    out = Path(options.out or "plan.toml")
    found = _plan_at(out)
    earlier = found if found is not None and found.taxonomy_names == taxonomy.names else None
    imported = read_plan(paths, taxonomy, options.format, earlier)
    imported.save(out)
    notes = [] if found is None or earlier is not None else [f"'{out}' was of other classes; nothing is left of it"]
    notes += _news_of_stages(imported, earlier, out)
    return {"plan": str(out), "notes": notes}, show.files


def _plan_at(path: Path) -> SupervisionPlan | None:
    """The plan that a file holds; None where there is no file."""
    if not path.exists():
        return None
    try:
        return SupervisionPlan.load(path)
    except PlanError as error:
        raise PlanError(f"{error}; it is not written over: correct it, or give another --out") from None


def _news_of_stages(plan: SupervisionPlan, earlier: SupervisionPlan | None, out: Path) -> list[str]:
    """What files of groups do not say, in sentences."""
    before = earlier.stage_names if earlier is not None else ()
    new = [name for name in plan.stage_names if name not in before]
    gone = [name for name in before if name not in plan.stage_names]
    notes = []
    if earlier is not None:
        notes.append(f"order, gammas and tables are those that '{out}' had")
    if new:
        where = "" if earlier is None else " and order"
        order = f"; stages are in the order of their names, {', '.join(plan.stage_names)}" if earlier is None else ""
        gamma = plan.stage(new[0]).gamma
        notes.append(
            f"gamma{where} of {', '.join(new)} are the default, {gamma:g}{order}: edit the plan if that is wrong"
        )
    if gone:
        notes.append(f"stages without a file are left out: {', '.join(gone)}")
    return notes


def evaluate(options: Namespace, overrides: list[str]) -> Result:
    """Scores of a trained network, or of predictions on disk."""
    from hs3seg import pipeline

    out = Path(options.out) if options.out else None
    if options.predictions:
        if options.weights:
            raise ConfigError("give either weights or --predictions DIR, not both")
        values = pipeline.score_step(
            Path(options.predictions),
            options.split,
            overrides,
            ids=options.prediction_ids,
            out=out,
            official=Path(options.official_json) if options.official_json else None,
        )
        return values, show.scores
    if not options.weights:
        raise ConfigError("hs3 evaluate needs the folder of a training, or --predictions DIR")
    weights = Path(options.weights)
    session = pipeline.open_session(pipeline.load_trained(weights, overrides).config)
    bridge = Path(options.bridge) if options.bridge else None
    return pipeline.evaluate_step(session, weights, options.split, out=out, bridge=bridge), show.evaluation


def submit(options: Namespace, overrides: list[str]) -> Result:
    """Predictions, checked and packed for a test server."""
    from hs3seg import pipeline

    values = pipeline.submit_step(
        Path(options.predictions), options.split, overrides, Path(options.out), ids=options.prediction_ids
    )
    return values, show.submission


def predict(options: Namespace, overrides: list[str]) -> Result:
    """Segments images and videos."""
    from hs3seg import pipeline

    return pipeline.predict_step(
        Path(options.weights),
        options.images,
        Path(options.out),
        output=options.output,
        batch_size=options.batch_size,
        tile=tuple(options.tile) if options.tile else None,
        overlap=options.overlap,
        memory_gib=options.memory_gib,
        depth=Path(options.depth) if options.depth else None,
        ids=_numbers("--ids", options.ids) or None,
        skip_existing=options.skip_existing,
        overrides=overrides,
    ), show.files


def export(options: Namespace, overrides: list[str]) -> Result:
    """A trained network for other runtimes."""
    from hs3seg import pipeline

    endings = {"onnx": "net.onnx", "openvino": "net.xml", "pt2": "net.pt2", "folder": "net"}
    values = pipeline.export_step(
        Path(options.weights),
        Path(options.out or endings.get(options.format, "net")),
        format=options.format,
        dynamic=not options.fixed_size,
        tolerance=options.tolerance,
        int8_images=options.int8,
        overrides=tuple(overrides),
    )
    return values, show.exported


def certify(options: Namespace, _overrides: list[str]) -> Result:
    """The zero-cost certificate."""
    from hs3seg import pipeline

    values = pipeline.certify_step(
        options.before,
        options.after,
        size=tuple(options.size) if options.size else None,
        num_classes=options.classes,
        repeats=options.repeats,
    )
    return values, show.certificate


def report(options: Namespace, _overrides: list[str]) -> Result:
    """The page of a run folder; starts without torch."""
    from hs3seg.report import build_report

    return {"report": str(build_report(Path(options.run), Path(options.out) if options.out else None))}, show.files


def explain(options: Namespace, _overrides: list[str]) -> Result:
    """The explainers' page of a run folder; starts without torch."""
    from hs3seg.report.explain import build_explanation

    values = build_explanation(
        Path(options.run),
        Path(options.out) if options.out else None,
        stages=[word.strip() for word in options.stage.split(",")] if options.stage else (),
        bootstraps=options.bootstraps,
        threshold=options.threshold,
        arm=options.arm,
        split=options.split,
        seed=options.seed,
    )

    def tell(result: dict[str, Any]) -> None:
        for line in (*result["summary"], *result["missing"], f"page: {result['page']}"):
            print(line)

    return values, tell


def profile(options: Namespace, overrides: list[str]) -> Result:
    """Cost of a network or of a config's arms."""
    from hs3seg import pipeline

    if options.list:
        return networks(options, overrides)
    if not options.network:
        raise ConfigError("`hs3 profile` needs a network's name or a config file; --list lists the networks")
    if not options.network.endswith(".toml"):
        refuse("profile", overrides)
        fuse, widths = _numbers("--fuse", options.fuse), _numbers("--widths", options.widths)
        if widths and len(widths) != 2:
            raise ConfigError(f"--widths {options.widths}; give two numbers, MID,KEY, e.g. --widths 192,96")
        if options.gmacs is not None and (not fuse or widths):
            raise ConfigError("--gmacs finds the widths of HS3-Fuse: give it with --fuse and without --widths")
        found = pipeline.profile_network(
            options.network,
            options.classes,
            tuple(options.size),
            fuse=fuse,
            widths=(widths[0], widths[1]) if widths else None,
            gmacs=options.gmacs,
        )
        return found, show.cost
    return pipeline.profile_config(load_config(Path(options.network), overrides)), show.profile


def networks(options: Namespace, _overrides: list[str]) -> Result:
    """All networks with their cost."""
    from hs3seg import pipeline

    return pipeline.list_networks(options.classes, tuple(options.size)), show.networks


def _numbers(option: str, text: str | None) -> tuple[int, ...]:
    try:
        return tuple(int(word) for word in (text or "").split(",") if word.strip())
    except ValueError:
        raise ConfigError(f"{option} {text}; give whole numbers with commas, e.g. {option} 8,12") from None


def data(options: Namespace, overrides: list[str]) -> Result:
    """Looks at a data set: writes a config for it, finds what is wrong, or unpacks it."""
    path = Path(options.config)
    if options.action == "check":
        return _check(options, path, overrides)
    from hs3seg import pipeline

    if overrides:
        what = "the hs3.toml that it writes" if options.action == "init" else "the config that reads the folder"
        raise ConfigError(f"`hs3 data {options.action}` takes no '{overrides[0]}'; set such values in {what}")
    if options.action == "init":
        values = pipeline.init_step(
            path,
            taxonomy=Path(options.taxonomy) if options.taxonomy else None,
            config=Path(options.out) if options.out else None,
            overwrite=options.overwrite,
            workers=options.workers,
        )
        return values, show.proposal
    if not options.target:
        raise ConfigError("hs3 data unpack ARCHIVE FOLDER needs the folder to unpack to")
    return pipeline.unpack_step(path, Path(options.target)), show.files


def _check(options: Namespace, path: Path, overrides: list[str]) -> Result:
    from hs3seg import pipeline

    config = config_of_folder(path, overrides) if path.is_dir() else load_config(path, overrides)
    values = pipeline.check_step(
        config,
        out=None if options.out == "none" else Path(options.out or "data-check"),
        strict=options.strict,
        max_findings=options.max_findings or None,
    )
    return values, show.findings


def keys(_options: Namespace, _overrides: list[str]) -> Result:
    """All config values."""
    rows = [{"key": key, "default": default, "meaning": meaning} for key, default, meaning in describe_keys()]
    return {"keys": rows}, show.keys
