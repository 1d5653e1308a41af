"""`hs3 explain`: what a run's saved counts say about its stages, its groups and its labels; nothing is trained."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hs3seg.analysis import DEFAULT_ASPECT, SupervisionPlan, load_confusions
from hs3seg.analysis.affinity import DEFAULT_EPSILON
from hs3seg.analysis.label_noise import ImageHint, label_hints
from hs3seg.analysis.per_image import PerImage, load_per_image
from hs3seg.analysis.separability import DEFAULT_THRESHOLD, separability
from hs3seg.analysis.stability import DEFAULT_BOOTSTRAPS, StageStability, group_stability
from hs3seg.errors import PlanError, RunFolderError, nearest
from hs3seg.files import write_atomically, write_json
from hs3seg.report.explain_page import Explanation, document, summary
from hs3seg.report.markup import number
from hs3seg.taxonomy import Taxonomy

_HINTS = 100  # images in explain.json
_SPECTRAL = ("spectral", "constant_ratio")


@dataclass
class _Source:
    """The files of a run folder that explanations are made from."""

    run: Path
    plan: SupervisionPlan | None
    taxonomy: Taxonomy
    confusions: Mapping[str, Any]
    counts: PerImage | None
    missing: list[str] = field(default_factory=list)


def build_explanation(
    run: Path,
    out: Path | None = None,
    *,
    stages: Sequence[str] = (),
    bootstraps: int = DEFAULT_BOOTSTRAPS,
    threshold: float = DEFAULT_THRESHOLD,
    arm: str | None = None,
    split: str | None = None,
    seed: int = 0,
    progress: Callable[[], None] | None = None,
) -> dict[str, Any]:
    """Writes one self-contained page about stages, groups and labels, and explain.json beside it.

    Args:
        run: Run folder with analysis/confusion.npz; plan.toml, taxonomy.toml and analysis/per_image.npz where there.
        out: Folder for both files; default RUN/explain.
        stages: Only these; empty = all.
        bootstraps: Draws of the analysis images.
        threshold: Pairwise accuracy from which two classes count as told apart, 0.5..1.
        arm: Look for wrong labels with this arm's network instead of phase one's, with `split`.
        split: Which `hs3 evaluate` counted: confusion-per-image-SPLIT.npz in the arm's folder.
        seed: Of the draws.
        progress: Called after every draw.

    Returns:
        The content of explain.json.

    Raises:
        RunFolderError: no such folder, no analysis in it, an unknown arm, or a split without counts per image.
        PlanError: a file is damaged or made for other classes, or an argument is out of range.
    """
    run, out = Path(run), Path(out) if out is not None else Path(run) / "explain"
    if (arm is None) != (split is None):
        raise RunFolderError("give --arm and --split together, e.g. --arm hs3 --split val; without them: the analysis")
    source = _read(run, stages)
    found = separability(source.confusions, threshold)
    groups = _stability(source, bootstraps, seed, progress)
    counts, where = source.counts, "phase one on the analysis split"
    if arm is not None and split is not None:
        counts, where = _arm_counts(source, arm, split), f"{arm} on {split}"
    hints = label_hints(counts) if counts is not None else ()
    explanation = Explanation(
        title=run.resolve().name,
        taxonomy=source.taxonomy,
        plan=source.plan,
        separability=found,
        stability=groups,
        hints=hints,
        hints_from=where if counts is not None else "",
        num_images=counts.num_images if counts is not None else 0,
        missing=tuple(source.missing),
    )
    values = _values(explanation, bootstraps, seed)
    html = document(explanation)
    write_json(out / "explain.json", values)
    write_atomically(out / "index.html", lambda temporary: temporary.write_text(html, encoding="utf-8") and None)
    return {**values, "page": str(out / "index.html")}


def _read(run: Path, stages: Sequence[str]) -> _Source:
    if not run.is_dir():
        raise RunFolderError(f"'{run}' is no run folder; `hs3 run CONFIG` makes one")
    path = run / "analysis" / "confusion.npz"
    if not path.is_file():
        raise RunFolderError(
            f"{run} has no analysis/confusion.npz; `hs3 analyze WEIGHTS --out {run}/analysis` makes it"
        )
    confusions = load_confusions(path)
    known = [name for name in confusions if name != "final"]
    for stage in stages:
        if stage not in known:
            raise RunFolderError(f"no stage '{stage}' in {path}; {nearest(stage, known)}")
    wanted = {name: matrix for name, matrix in confusions.items() if name in stages or not stages or name == "final"}
    size = len(confusions["final"])
    plan = SupervisionPlan.load(run / "plan.toml") if (run / "plan.toml").is_file() else None
    if (run / "taxonomy.toml").is_file():
        taxonomy = Taxonomy.load(run / "taxonomy.toml")
    else:
        taxonomy = Taxonomy.from_names(plan.taxonomy_names if plan else [f"class_{c}" for c in range(size)])
    if taxonomy.num_classes != size or (plan is not None and plan.num_classes != size):
        raise PlanError(
            f"{path} counts {size} classes, taxonomy.toml or plan.toml beside it {taxonomy.num_classes}; give the run's"
            " own files"
        )
    source = _Source(run, plan, taxonomy, wanted, None)
    per_image = path.with_name("per_image.npz")
    if per_image.is_file():
        source.counts = load_per_image(per_image)
        if source.counts.outputs["final"].size != size:
            raise PlanError(f"{per_image} and confusion.npz are of other classes; `hs3 analyze` writes both anew")
    else:
        source.missing.append(
            "analysis/per_image.npz is not there: how stable the groups are and hints about labels need it."
            f" `hs3 analyze {run}/phase_one --out {run}/analysis` of this version writes it."
        )
    return source


def _stability(
    source: _Source, bootstraps: int, seed: int, progress: Callable[[], None] | None
) -> tuple[StageStability, ...]:
    """Of the plan's stages at the plan's numbers of groups."""
    plan, counts = source.plan, source.counts
    if plan is None:
        source.missing.append("plan.toml is not there: how stable its groups are is left out.")
        return ()
    if counts is None:
        return ()
    if plan.name not in _SPECTRAL:
        source.missing.append(f"The plan is '{plan.name}': only spectral groups are made again from other images.")
        return ()
    if len(counts.labelled) < 2:
        source.missing.append("Fewer than two labelled images were measured: how stable the groups are is left out.")
        return ()
    wanted = {s.stage: s.grouping.num_groups for s in plan.stages if s.stage in source.confusions}
    notes = plan.notes
    found = group_stability(
        counts,
        wanted,
        bootstraps=bootstraps,
        seed=seed,
        normalize=notes.get("normalize", "true"),
        epsilon=_or(notes.get("epsilon"), DEFAULT_EPSILON),
        rule="knee" if notes.get("rule") == "knee" else "line",
        theta_degrees=number(notes.get("theta_degrees")) if notes.get("rule") == "theta" else None,
        aspect=_or(notes.get("aspect"), DEFAULT_ASPECT),
        diagonal="keep" if notes.get("diagonal") == "keep" else "drop",
        choose=plan.name == "spectral",
        progress=progress,
    )
    changed = [stage.stage for stage in found if stage.grouping != plan.stage(stage.stage).grouping]
    source.missing += [
        f"plan.toml has other groups for {stage} than the matrices give: edited by hand, or made by other settings."
        for stage in changed
    ]
    return found


def _or(value: Any, default: float) -> float:
    """A note of a plan as a number; people may edit plans."""
    found = number(value)
    return default if found is None else found


def _arm_counts(source: _Source, arm: str, split: str) -> PerImage:
    folder = source.run / "arms" / arm
    if not folder.is_dir():
        arms = [path.name for path in sorted((source.run / "arms").glob("*"))]
        raise RunFolderError(f"{source.run} has no arm '{arm}'; {nearest(arm, arms)}")
    path = folder / f"confusion-per-image-{split}.npz"
    if not path.is_file():
        raise RunFolderError(f"no {path}; `hs3 evaluate {folder} --split {split}` of this version writes it")
    counts = load_per_image(path)
    if counts.outputs["final"].size != source.taxonomy.num_classes:
        raise PlanError(f"{path} counts other classes than {source.run} has; `hs3 evaluate` writes it anew")
    return counts


def _values(found: Explanation, bootstraps: int, seed: int) -> dict[str, Any]:
    names = found.taxonomy.names
    counts = found.separability.counts()
    return {
        "classes": list(names),
        "threshold": found.separability.threshold,
        "separability": {
            "outputs": list(found.separability.outputs),
            "pairs": {output or "none": pairs for output, pairs in counts.items()},
            "hardest": [
                {
                    "classes": [names[pair.first], names[pair.second]],
                    "confused": pair.confused,
                    "accuracy": {o: value if value == value else None for o, value in pair.accuracies.items()},
                    "first_stage": pair.first_stage,
                }
                for pair in found.separability.hardest(50)
            ],
            "first_stage_number": found.separability.numbers().tolist(),
        },
        "bootstraps": bootstraps,
        "seed": seed,
        "stability": {stage.stage: stage.to_dict() for stage in found.stability},
        "labels": {
            "from": found.hints_from or None,
            "images": found.num_images,
            "hints": [_hint(hint, names) for hint in found.hints[:_HINTS]],
        },
        "summary": summary(found),
        "missing": list(found.missing),
    }


def _hint(hint: ImageHint, names: Sequence[str]) -> dict[str, Any]:
    return {
        "image": hint.name,
        "score": round(hint.score, 4),
        "pairs": [
            {
                "label": names[pair.label],
                "said": names[pair.said],
                "pixels": pair.pixels,
                "agreed": pair.agreed,
                "share": round(pair.share, 4),
                "expected": round(pair.expected, 4),
                "score": round(pair.score, 4),
            }
            for pair in hint.pairs
        ],
    }
