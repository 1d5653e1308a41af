"""Cost of the network, facts of the run, and how to make it again."""

import shlex
from typing import Any

from hs3seg.report.load import Run
from hs3seg.report.markup import (
    DASH,
    TIMES,
    arm_title,
    data,
    definitions,
    details,
    duration,
    escape,
    escape_line,
    in_sentence,
    number,
    table,
    tag,
)


def cost_table(run: Run) -> str:
    """GMACs and parameters of every arm in training and at inference."""
    inference, training = _dict(run.profile.get("inference")), _dict(run.profile.get("training"))
    plain_macs, plain_parameters = number(inference.get("gmacs")), number(inference.get("parameters"))
    if plain_macs is None or plain_parameters is None:
        return ""
    names = list(dict.fromkeys([*run.arms, *training]))
    rows = []
    for name in names:
        cost = _dict(training.get(name))
        macs, parameters = number(cost.get("gmacs")), number(cost.get("parameters"))
        used = _dict(_dict(run.profile.get("inference_of")).get(name)) or inference
        fused_macs, fused_parameters = number(used.get("gmacs")), number(used.get("parameters"))
        rows.append(
            [
                escape(arm_title(name)),
                _more(macs, plain_macs, _gmacs(macs)),
                _more(parameters, plain_parameters, _millions(parameters)),
                _more(fused_macs, plain_macs, _gmacs(fused_macs)),
                _more(fused_parameters, plain_parameters, _millions(fused_parameters)),
            ]
        )
    head = ["Arm", "GMACs<br><small>training, forward</small>", "parameters, M<br><small>training</small>"]
    return table(
        [*head, "GMACs<br><small>inference</small>", "parameters, M<br><small>inference</small>"], rows, "cost"
    )


def cost_words(run: Run) -> str:
    """What the cost table was measured with."""
    size = run.profile.get("input_size")
    shown = (
        f"{size[0]} {TIMES} {size[1]} pixels" if isinstance(size, list) and len(size) == 2 else "the configured size"
    )
    fused = " HS3-Fuse keeps its blocks." if "hs3_fuse" in run.arms else ""
    return (
        f"{run.profile.get('network', 'The network')}, one image of {shown}; multiply-accumulates of convolutions and"
        f" matrix products, 1 GMAC = 10⁹. Heads exist in training only: at inference every arm is the same"
        f" network.{fused}"
    )


def training_table(run: Run) -> str:
    """Time, speed and place of every training; empty where none is finished."""
    arms = [*([run.phase_one] if run.phase_one is not None else []), *run.arms.values()]
    rows = []
    for arm in arms:
        if not arm.train:
            continue
        seconds, speed = number(arm.train.get("seconds")), number(arm.train.get("images_per_second"))
        rows.append(
            [
                escape(arm_title(arm.name)),
                escape(arm.train.get("epochs", DASH)),
                escape(arm.train.get("steps", DASH)),
                data(seconds, duration(seconds)) if seconds is not None else DASH,
                escape(f"{speed:.1f}") if speed is not None else DASH,
                escape(" ".join(str(arm.train.get(key, "")) for key in ("device", "precision"))),
                tag("code", escape(str(arm.train.get("weights_sha256", ""))[:12])),
            ]
        )
    return (
        table(["Training", "epochs", "steps", "time", "images/s", "device", "weights, SHA-256"], rows, "trainings")
        if rows
        else ""
    )


def run_facts(run: Run) -> str:
    """Seed, versions, data, time; and the whole config."""
    data_, network = _dict(run.config.get("data")), _dict(run.config.get("network"))
    seconds = number(run.results.get("seconds")) or number(run.facts.get("seconds"))
    finished = [arm.train for arm in run.arms.values() if arm.train]
    versions: dict[str, Any] = {
        key: finished[0][key]
        for key in ("torch", "timm", "torchvision", "accelerate")
        if finished and key in finished[0]
    }
    values: dict[str, Any] = {
        "run": run.name,
        "data": data_.get("kind"),
        "network": network.get("name") or run.profile.get("network"),
        "seed": run.config.get("seed", run.facts.get("seed")),
        "started": run.facts.get("created"),
        "time in total": duration(seconds) if seconds else None,
        "hs3seg": run.facts.get("hs3seg"),
        "python": run.facts.get("python"),
        **versions,
        "commit": run.facts.get("commit"),
        "config fingerprint": run.facts.get("fingerprint"),
        "pretrained": network.get("pretrained") if network.get("pretrained") else None,
    }
    shown = definitions({key: value for key, value in values.items() if value is not None})
    if run.config_text:
        lines = "\n".join(escape_line(line) for line in run.config_text.splitlines())
        shown += details("config.toml", f"<pre>{lines}</pre>")
    return shown


def reproduce(run: Run) -> str:
    """Commands that make the run, or parts of it, again."""
    lines = []
    command = run.facts.get("command")
    if isinstance(command, list) and command:
        lines += ["# as it was called", " ".join(shlex.quote(str(word)) for word in command), ""]
    lines += ["# from this folder (RUN), everything again into a new one", "hs3 run RUN/config.toml --run_dir AGAIN"]
    if run.confusions:
        lines += [
            "",
            "# only the groups, e.g. with another angle; no training",
            "hs3 plan --confusion RUN/analysis/confusion.npz --theta 80 --out plan.toml",
        ]
    if run.plan is not None and run.plan.stages:
        lines += [
            "",
            "# one training by this plan, or by one edited by hand",
            "hs3 train RUN/config.toml --plan RUN/plan.toml --out AGAIN",
        ]
    for name in list(run.arms)[-1:]:
        for split in run.splits[:1]:
            lines += ["", f"# score {in_sentence(name)} again", f"hs3 evaluate RUN/arms/{name} --split {split}"]
    lines += ["", "# this page", "hs3 report RUN"]
    return f"<pre>{chr(10).join(escape_line(line) for line in lines)}</pre>"


def _more(value: float | None, plain: float, text: str) -> str:
    if value is None:
        return DASH
    extra = f' <span class="difference">{100 * (value / plain - 1):+.1f} %</span>' if plain and value != plain else ""
    return data(value, text) + extra


def _gmacs(value: float | None) -> str:
    return DASH if value is None else f"{value:.3f}" if value < 10 else f"{value:.2f}"


def _millions(value: float | None) -> str:
    return DASH if value is None else f"{value / 1e6:.3f}"


def _dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
