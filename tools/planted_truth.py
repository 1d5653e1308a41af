"""Does HS3 find groups that are known beforehand, and do they help? Trains, measures and writes docs/results/planted.

    .venv/bin/python tools/planted_truth.py [--seeds 0 1 2] [--runs runs/planted] [--out docs/results/planted]

Per seed: deep supervision, HS3 with the groups found, random groups of the same sizes, and the planted groups given as
the plan (early stage: a group per surface, later stage: all classes). A call that was interrupted goes on where it
stopped; the page is written after every seed.
"""

import argparse
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from hs3seg.analysis import (
    StagePlan,
    SupervisionPlan,
    adjusted_rand,
    analyze,
    class_affinity,
    compare_arms,
    deep_supervision,
    load_confusions,
    mean_iou,
    random_grouping,
    spectral_groupings,
)
from hs3seg.config import Config, load_config
from hs3seg.data.planted import PlantedScenes, planted_grouping
from hs3seg.pipeline import analyze_step, compare_runs, evaluate_step, open_session, run, train_step
from hs3seg.taxonomy import Grouping, Taxonomy

CONFIG = Path(__file__).parents[1] / "configs" / "planted.toml"
REFERENCE = "deep_supervision"
ARMS = ("hs3", REFERENCE, "random")  # phase one first
THETAS = (None, 70.0, 75.0, 80.0, 85.0, 90.0)


def main() -> None:
    """Trains what is missing and writes the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--runs", type=Path, default=Path("runs/planted"))
    parser.add_argument("--out", type=Path, default=Path("docs/results/planted"))
    parser.add_argument("--page", action="store_true", help="README.md again from results.json; trains nothing")
    parser.add_argument("--quiet", action="store_true")
    asked = parser.parse_args()
    config = load_config(CONFIG)
    if asked.page:
        results = json.loads((asked.out / "results.json").read_text())
        (asked.out / "README.md").write_text("\n".join(page(config, results)) + "\n")
        return
    for seed in asked.seeds:
        train_seed(config, seed, asked.runs, quiet=asked.quiet)
        write_page(config, asked.runs, asked.out, asked.seeds)
    for seed in asked.seeds:
        measure_mixed(config, seed, asked.runs, quiet=asked.quiet)
    write_page(config, asked.runs, asked.out, asked.seeds)


def truth_of(config: Config) -> tuple[Grouping, Grouping]:
    """What an early and a later stage can tell apart."""
    data: Any = config.data
    return tuple(planted_grouping(kind, data.shapes, mixed=data.mixed) for kind in ("local", "global"))  # type: ignore


def train_seed(config: Config, seed: int, runs: Path, *, quiet: bool) -> None:
    """All arms of a seed, each once."""
    folder = runs / f"seed-{seed}"
    own = config.model_copy(update={"seed": seed, "run_dir": str(folder), "arms": ARMS})
    run(own, resume=folder.exists(), quiet=quiet)
    session = open_session(own, quiet=quiet)
    names = session.dataset("train").taxonomy.names
    stages = SupervisionPlan.load(folder / "arms" / REFERENCE / "plan.toml").stage_names
    plan = SupervisionPlan(
        names,
        tuple(StagePlan(s, g, own.supervision.gamma) for s, g in zip(stages, truth_of(own), strict=True)),
        "planted",
    )
    arm = folder / "arms" / "planted"
    train_step(session, plan, arm, arm="planted", split="train")
    for split in own.data.evaluate_splits:
        if not (arm / f"evaluation-{split}.json").exists():
            evaluate_step(session, arm, split, out=arm)


def measure_mixed(config: Config, seed: int, runs: Path, *, quiet: bool) -> None:
    """Phase one and its matrices on scenes in which some groups have one class only."""
    folder = runs / f"mixed-{seed}"
    own = _mixed(config).model_copy(update={"seed": seed, "run_dir": str(folder)})
    session = open_session(own, quiet=quiet)
    taxonomy = session.dataset("train").taxonomy
    stages = own.supervision.stages
    assert isinstance(stages, tuple)
    plan = deep_supervision(taxonomy.names, stages, own.supervision.gamma)
    train_step(session, plan, folder / "phase_one", arm="phase_one", split="reduced")
    analyze_step(session, folder / "phase_one", folder / "analysis")
    taxonomy.save(folder / "taxonomy.toml")


def _mixed(config: Config) -> Config:
    return config.model_copy(update={"data": config.data.model_copy(update={"mixed": True})})


def agreement(config: Config, folder: Path) -> dict[str, Any]:
    """How far each stage's groups are the planted ones, by the phase-one matrices of a run."""
    confusions = load_confusions(folder / "analysis" / "confusion.npz")
    truth, _ = truth_of(config)
    names = Taxonomy.load(folder / "taxonomy.toml").names
    studies = {theta: analyze(confusions, names, theta_degrees=theta) for theta in THETAS}
    found: dict[str, Any] = {}
    for number, curve in enumerate(studies[None].curves):
        chosen = {theta: study.plan.stages[number].grouping for theta, study in studies.items()}
        at_truth = curve.groupings[truth.num_groups]
        kept = spectral_groupings(class_affinity(confusions[curve.stage]), [truth.num_groups], diagonal="keep")[
            truth.num_groups
        ]
        sizes = [len(group) for group in at_truth.groups]
        chance = [adjusted_rand(random_grouping(len(names), sizes, seed), truth) for seed in range(1000)]
        found[curve.stage] = {
            "miou": mean_iou(confusions[curve.stage]),
            "at_true_number": adjusted_rand(at_truth, truth),
            "at_true_number_diagonal_kept": adjusted_rand(kept, truth),
            "by_theta": {
                "ratio" if theta is None else f"{theta:.0f}": [g.num_groups, adjusted_rand(g, truth)]
                for theta, g in chosen.items()
            },
            "curve": [[k, curve.mious[k], adjusted_rand(g, truth)] for k, g in curve.groupings.items()],
            "chance_95": float(np.quantile(chance, 0.95)),
            "groups_at_true_number": [[names[c] for c in group] for group in at_truth.groups],
        }
    found["final"] = {"miou": mean_iou(confusions["final"])}
    return found


def learning(runs: Path) -> dict[str, dict[int, dict[str, float | None]]]:
    """Arm -> seed -> how fast the final output learned shapes, by the training log.

    What knows the surface and guesses the shape has a loss of ln 2; half of that counts as having learned it. `steps`
    is where the mean of five log lines (50 steps) first falls below, None = never; `loss` the mean over the training.
    """
    found: dict[str, dict[int, dict[str, float | None]]] = {}
    for path in sorted(runs.glob("seed-*/arms/*/log.jsonl")):
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        losses = {line["step"] + 1: line["terms"]["final"] for line in lines if line["event"] == "step"}
        steps, values = list(losses), np.array(list(losses.values()))
        smooth = np.convolve(values, np.ones(5) / 5, "valid")
        below = np.flatnonzero(smooth < np.log(2) / 2)
        seed = int(path.parts[-4].removeprefix("seed-"))
        if (path.parent / "weights.safetensors").exists():
            found.setdefault(path.parent.name, {})[seed] = {
                "steps": steps[below[0] + 4] if len(below) else None,
                "loss": float(values.mean()),
            }
    return found


def write_page(config: Config, runs: Path, out: Path, seeds: list[int]) -> None:
    """README.md, results.json and pictures of the seeds that are there."""
    out.mkdir(parents=True, exist_ok=True)
    command = f"tools/planted_truth.py --seeds {' '.join(map(str, seeds))}"
    compared = compare_runs(runs, config.name, command)
    found, mixed = (
        {
            path.name.removeprefix(f"{kind}-"): agreement(own, path)
            for path in sorted(runs.glob(f"{kind}-*"))
            if (path / "analysis" / "confusion.npz").exists()
        }
        for kind, own in (("seed", config), ("mixed", _mixed(config)))
    )
    results = {key: compared[key] for key in ("command", "commit", "arms", "comparisons", "seconds")}
    results["agreement"], results["agreement_mixed"] = found, mixed
    results["learning"] = learning(runs)
    (out / "results.json").write_text(json.dumps(results, indent=1) + "\n")
    for path in runs.glob("intervals-*.png"):
        shutil.copy(path, out / path.name)
    scenes_picture(config).save(out / "scenes.png", optimize=True)
    confusion_picture(runs / f"seed-{next(iter(found))}").save(out / "confusion.png", optimize=True)
    (out / "README.md").write_text("\n".join(page(config, results)) + "\n")
    print("\n".join([*agreement_rows(found), "", *_arm_rows(results, config.data.evaluate_splits[0])]))


def agreement_rows(found: dict[str, Any]) -> list[str]:
    """A Markdown table: adjusted Rand index per seed and stage."""
    thetas = ("ratio", "70", "75", "80", "85", "90")
    head = "| seed | stage | mIoU % | at the true number | diagonal kept | chance (95 %) | " + " | ".join(
        "ratio rule" if t == "ratio" else f"theta {t}" for t in thetas
    )
    rows = [head + " |", "|---" * (6 + len(thetas)) + "|"]
    for seed, stages in found.items():
        for stage, values in stages.items():
            if stage == "final":
                continue
            chosen = " | ".join(f"{values['by_theta'][t][1]:.2f} (k = {values['by_theta'][t][0]})" for t in thetas)
            rows.append(
                f"| {seed} | {stage} | {100 * values['miou']:.1f} | {values['at_true_number']:.2f} |"
                f" {values['at_true_number_diagonal_kept']:.2f} | {values['chance_95']:.2f} | {chosen} |"
            )
    return rows


def page(config: Config, results: dict[str, Any]) -> list[str]:
    """Lines of README.md; every number in it is computed."""
    truth, everything = truth_of(config)
    found = results["agreement"]
    early = str(next(iter(next(iter(found.values())))))
    at_truth = [stages[early]["at_true_number"] for stages in found.values()]
    by_theta = [stages[early]["by_theta"][f"{config.supervision.theta_degrees:.0f}"] for stages in found.values()]
    finals = [stages["final"]["miou"] for stages in found.values()]
    lines = [
        "# Planted truth: groups that are known beforehand",
        "",
        f"Scenes drawn on the fly, {everything.num_classes} classes: {truth.num_groups} surfaces (four colours, two"
        " fine patterns) times two shapes (disc, ring); the background is ignored. Some classes differ by surface only,"
        f" others by shape only. The early stage `{early}` of HRNet-w18-small sees 15 pixels, a disc is 49 to 60 wide,"
        " the band of a ring 15 to 19: inside, shapes look alike, so the early groups should be the"
        f" {truth.num_groups} surfaces.",
        "",
        f"- At the true number of groups the early stage's groups have an adjusted Rand index of"
        f" {', '.join(f'{value:.2f}' for value in at_truth)} with the planted ones (a number per seed; 1 = the same).",
        f"- With the number chosen by theta = {config.supervision.theta_degrees:.0f} degrees:"
        f" {', '.join(f'{value:.2f} (k = {k})' for k, value in by_theta)}.",
        f"- The final output of phase one reaches {', '.join(f'{100 * v:.1f}' for v in finals)} % mIoU on the analysis"
        " split; surfaces without shapes give about 33 %.",
        *(f"- {line}" for line in _sentences(results)),
        "",
        f"Made by `{results['command']}` (config `configs/planted.toml`), commit {results['commit']}. Intervals are"
        " paired by seed, 95 %, uncorrected for their number; three seeds cannot bring a sign test below 0.25.",
        "",
        *_CHOICES,
        "",
        "![scenes, their labels, and the planted groups](scenes.png)",
        "",
        "## Groups found",
        "",
        "Adjusted Rand index with the planted groups of an early stage. For the later stage these are no truth: it"
        " may tell all classes apart. `chance`: 95 % quantile of random groups of the sizes found. `diagonal kept`: the"
        " same clustering with each class's affinity to itself left in, see below.",
        "",
        *agreement_rows(found),
        "",
        "![confusion of phase one, rows divided by their sums](confusion.png)",
        "",
        "## Do the groups help?",
        "",
    ]
    for split in results["comparisons"]:
        lines += [f"### {split}", "", *_arm_rows(results, split), "", f"![differences](intervals-{split}.png)", ""]
    lines += ["### How fast shapes are learned", "", *_LEARNING, "", *_learning_rows(results), ""]
    return [*lines, *_PROSE, *(["", *agreement_rows(results["agreement_mixed"])] if results["agreement_mixed"] else [])]


_CHOICES = [
    "Shapes, sizes, length of training and theta were chosen on seed 100, which is not among those shown: there, discs",
    "against triangles were learned by no stage within 600 steps, so that nothing told an early stage from a late one.",
]

_LEARNING = [
    "Where every arm ends near 100 % only the way there can differ. `half way`: training step from which the final",
    "output's loss (mean of 50 steps) is below ln 2 / 2; knowing the surface and guessing the shape costs ln 2.",
    "`loss`: the final output's loss, mean over the whole training; less is faster.",
]

_PROSE = [
    "## What the clustering cannot do",
    "",
    "Spectral clustering as scikit-learn has it (and as this package does by default) leaves out the diagonal of the",
    "affinity. A class that is told apart from all others then costs as much to cut off as a member of a confused",
    "pair, and groups of one class are found by luck. That is why every planted group above has two classes. With",
    "`data.mixed = true`, the background and half of the surfaces are groups of one class each: 10 classes, 7 groups.",
    "The same table for these scenes (phase one only); `diagonal kept` leaves the affinity of a class to itself in.",
]


def _sentences(results: dict[str, Any]) -> list[str]:
    from hs3seg.report.markup import arm_title

    lines = []
    for split, arms in results["comparisons"].items():
        for arm, values in arms.items():
            if values["interval"] is None or arm == REFERENCE:
                continue
            low, high = (100 * v for v in values["interval"])
            verdict = "cannot be told from" if low <= 0 <= high else "is better than" if low > 0 else "is worse than"
            mean = 100 * float(np.mean(values["differences"]))
            lines.append(
                f"{split}: {arm_title(arm)} {verdict} deep supervision ({mean:+.1f} points, {low:+.1f} to {high:+.1f})."
            )
    return lines


def _arm_rows(results: dict[str, Any], split: str) -> list[str]:
    rows = ["| arm | mIoU % by seed | mean | difference | interval |", "|---|---|---|---|---|"]
    for arm, values in results["comparisons"][split].items():
        scores = [seeds["splits"][split]["miou"] for seeds in results["arms"][arm].values()]
        interval = values["interval"]
        between = f"{100 * interval[0]:+.1f} to {100 * interval[1]:+.1f}" if interval else ""
        difference = "reference" if arm == REFERENCE else f"{100 * np.mean(values['differences']):+.1f}"
        by_seed = ", ".join(f"{100 * v:.1f}" for v in scores)
        rows.append(f"| {arm} | {by_seed} | {100 * np.mean(scores):.1f} | {difference} | {between} |")
    return rows


def _learning_rows(results: dict[str, Any]) -> list[str]:
    found = results["learning"]
    compared = compare_arms({arm: {s: v["loss"] for s, v in own.items()} for arm, own in found.items()}, REFERENCE)
    rows = ["| arm | half way, by seed | loss by seed | difference | interval |", "|---|---|---|---|---|"]
    for arm, own in found.items():
        low_high = compared[arm].interval
        steps = ", ".join("never" if v["steps"] is None else str(v["steps"]) for v in own.values())
        losses = ", ".join(f"{v['loss']:.3f}" for v in own.values())
        difference = "reference" if arm == REFERENCE else f"{compared[arm].difference:+.3f}"
        interval = f"{low_high[0]:+.3f} to {low_high[1]:+.3f}" if low_high and arm != REFERENCE else ""
        rows.append(f"| {arm} | {steps} | {losses} | {difference} | {interval} |")
    return rows


def scenes_picture(config: Config, count: int = 9, scale: int = 1) -> Image.Image:
    """Rows: scenes, their classes, their planted groups."""
    data: Any = config.data
    scenes = PlantedScenes("val", count, data.size, config.seed, num_shapes=data.shapes, mixed=data.mixed)
    truth, _ = truth_of(config)
    table = np.full((256, 3), 25, np.uint8)
    table[: truth.num_classes] = scenes.taxonomy.colours
    merged = np.full((256, 3), 25, np.uint8)
    merged[: truth.num_groups] = truth.group_colours(scenes.taxonomy.colours)
    samples = [scenes.read(index) for index in range(count)]
    rows = [
        [sample.image.numpy().transpose(1, 2, 0) for sample in samples],
        [table[sample.mask.numpy()] for sample in samples],
        [merged[truth.remap(sample.mask.numpy())] for sample in samples],
    ]
    sheet = np.concatenate([np.concatenate(row, axis=1) for row in rows])
    return Image.fromarray(sheet).resize((sheet.shape[1] * scale, sheet.shape[0] * scale), Image.Resampling.NEAREST)


def confusion_picture(folder: Path, cell: int = 22) -> Image.Image:
    """Phase one's matrices side by side: rows truth, columns prediction, dark = a larger share of the row."""
    confusions = load_confusions(folder / "analysis" / "confusion.npz")
    names = Taxonomy.load(folder / "taxonomy.toml").names
    left, top, side = 110, 18, cell * len(names)
    sheet = Image.new("L", (left + len(confusions) * (side + 12), top + side), 255)
    pen = ImageDraw.Draw(sheet)
    for y, name in enumerate(names):
        pen.text((4, top + y * cell + 5), name, fill=0)
    for number, (stage, counts) in enumerate(confusions.items()):
        x = left + number * (side + 12)
        pen.text((x, 3), stage, fill=0)
        shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
        cells = Image.fromarray((255 * (1 - shares)).astype(np.uint8)).resize((side, side), Image.Resampling.NEAREST)
        sheet.paste(cells, (x, top))
        pen.rectangle((x, top, x + side - 1, top + side - 1), outline=128)
    return sheet


if __name__ == "__main__":
    main()
