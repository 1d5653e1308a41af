"""The words of the command line. argparse, since it starts in no time and its help can teach."""

import argparse
import textwrap
from typing import NoReturn

from hs3seg.errors import ConfigError, nearest

OVERRIDES = """\
Any value of the config can be laid over on the command line, e.g.
  --data.root ../camvid   --train.epochs 20   --augment.crop 256,320   --supervision.theta_degrees 80
`hs3 keys` lists every value with its default and meaning."""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise ConfigError(f"{message}; see `{self.prog} --help`")


def make_parser() -> tuple[argparse.ArgumentParser, dict[str, argparse.ArgumentParser]]:
    """Builds the parser; also returns each command's own parser by name."""
    parser = _Parser(
        prog="hs3",
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description="HS3, hierarchically supervised semantic segmentation: stages learn what they can tell apart.",
        epilog=textwrap.dedent("""\
            a first look          hs3 demo
            your own data         hs3 data init ROOT, hs3 data check ROOT, hs3 run ROOT/hs3.toml
            step by step          hs3 train -> analyze -> plan -> train --plan -> evaluate -> report
            your own loop         hs3 plan --confusion matrices.npz

            Every step reads files and writes files and can be run again alone. --json puts one JSON object on
            standard output and nothing else. Exit code 2 = something in the input is wrong (the message says how
            to mend it), 1 = a bug of ours."""),
    )
    parser.add_argument("--version", action="store_true", help="print the version and stop")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", parser_class=_Parser)
    made: dict[str, argparse.ArgumentParser] = {}

    def command(name: str, summary: str, details: str = "") -> argparse.ArgumentParser:
        made[name] = commands.add_parser(
            name,
            help=summary,
            description=summary + ("\n\n" + details if details else ""),
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        made[name].add_argument("--json", action="store_true", help="one JSON object on standard output, nothing else")
        return made[name]

    demo = command("demo", "train none, deep supervision and HS3 on embedded digit scenes and show who won", OVERRIDES)
    demo.add_argument("--fresh", action="store_true", help="delete an earlier demo's folder first; else it is resumed")

    run = command("run", "run all steps of a config: every arm, the analysis, the report", OVERRIDES)
    run.add_argument("config", help="a TOML file, e.g. configs/camvid-hrnet-w18-small.toml")
    run.add_argument("--resume", action="store_true", help="go on in the run's folder; what is done is skipped")

    compare = command(
        "compare",
        "train arms with several seeds and compare them, paired by seed",
        "Each seed is a run folder, OUT/seed-S, with its own report. A call that was interrupted goes on where it\n"
        "stopped; several processes may take seeds of their own (--seeds 0, and --seeds 1, with a comma), and a\n"
        "last call with all seeds makes the page. --page makes it from what is there and trains nothing.\n\n"
        + OVERRIDES,
    )
    compare.add_argument("config", nargs="?", help="a TOML file")
    compare.add_argument("--arms", metavar="LIST", help="with commas; default: the config's")
    compare.add_argument("--seeds", default="3", metavar="N", help="how many, from 0 on, or a list: 0,1,2 (default: 3)")
    compare.add_argument("--out", metavar="DIR", help="folder of the comparison; default: runs/NAME-compare")
    compare.add_argument(
        "--against", metavar="ARM", default="", help="arm that the others are compared with; default: deep_supervision"
    )
    compare.add_argument("--page", action="store_true", help="only the page and results.json, from what is in --out")

    reproduce = command(
        "reproduce",
        "the paper's tables and figures, and studies of ours: the paper's rows beside ours",
        "  hs3 reproduce table6 --small --data.root CAMVID             this machine's version, three to five hours\n"
        "  hs3 reproduce table6 --dry-run                              every step on made-up images; needs no data\n"
        "  torchrun --nnodes 2 --nproc-per-node 6 --rdzv-backend c10d --rdzv-endpoint HOST:29500\n"
        "    -m hs3seg reproduce table6 --data.root CITYSCAPES         the paper's own settings on a cluster\n\n"
        "What is trained is not trained again, also for another study: give the same command to go on.\n\n" + OVERRIDES,
    )
    reproduce.add_argument(
        "name",
        help="the paper's table1 to table6, fig2, fig4, fig5, or a study of ours; `hs3 reproduce list` has them all",
    )
    reproduce.add_argument("--small", action="store_true", help="the version for one CPU core")
    reproduce.add_argument("--dry-run", action="store_true", help="one or two steps of each training on made-up images")
    reproduce.add_argument("--seeds", default="", metavar="LIST", help="e.g. 0,1,2; default: the study's")
    reproduce.add_argument("--settings", default="", metavar="LIST", help="only these settings of the study")
    reproduce.add_argument("--out", metavar="DIR", help="folder of the page; default: runs/studies/KIND/NAME-page")
    reproduce.add_argument("--runs", metavar="DIR", help="folder of the trainings; default: runs/studies")
    reproduce.add_argument("--configs", default="", metavar="DIR", help="folder of configs; default: the checkout's")
    reproduce.add_argument(
        "--keep", metavar="DIR", help="numbers of finished trainings, without weights: read from there, and added to it"
    )
    reproduce.add_argument("--publish", metavar="DIR", help="also write README.md and figures without photographs here")
    reproduce.add_argument("--page", action="store_true", help="train nothing: only the page of what is there")

    train = command("train", "train one network by one plan", OVERRIDES)
    train.add_argument("config", help="a TOML file")
    train.add_argument(
        "--out", required=True, help="folder for weights, log and state; resumed if it holds this training"
    )
    plan = train.add_mutually_exclusive_group()
    plan.add_argument("--plan", help="plan.toml to train by (from `hs3 plan`, or written by hand)")
    plan.add_argument("--arm", choices=("none", "deep_supervision"), default="deep_supervision", help="a baseline")
    train.add_argument("--split", default="train", help="train (default), or reduced: without the analysis images")

    analyze = command("analyze", "measure every stage's confusion matrix on the analysis split (Sec. 3.1.1)", OVERRIDES)
    analyze.add_argument("weights", help="folder or weights.safetensors of phase one")
    analyze.add_argument("--out", required=True, help="folder for confusion.npz")
    analyze.add_argument("--split", default="analysis", help="split to measure on (default: analysis)")

    plan_ = command(
        "plan",
        "group the classes of every stage from confusion matrices alone (Sec. 3.1)",
        "FILE.npz holds one (K, K) array of pixel counts per stage, shallow to deep, and one named 'final';\n"
        "rows are truth, columns prediction. numpy.savez(FILE, stage2=..., stage3=..., final=...) writes one.",
    )
    plan_.add_argument("--confusion", required=True, metavar="FILE.npz", help="the matrices")
    plan_.add_argument(
        "--taxonomy", help="taxonomy.toml with class names; default: beside the matrices or one folder up"
    )
    plan_.add_argument(
        "--method", choices=("spectral", "kmeans", "constant_ratio", "deep_supervision", "none"), default="spectral"
    )
    plan_.add_argument("--embeddings", metavar="FILE.npz", help="(K, C) array per stage, for --method kmeans")
    plan_.add_argument(
        "--diagonal",
        choices=("drop", "keep"),
        default="drop",
        help="keep = a class is near to itself, so that one that is hardly confused may stand alone",
    )
    plan_.add_argument("--normalize", choices=("true", "none"), default="true", help="divide rows by their sums first")
    plan_.add_argument(
        "--rule",
        choices=("line", "knee"),
        default="line",
        help="number of groups: line = where the curve meets the line through the final output's point (Sec. 3.1.2);"
        " knee = where the curve bends, or all classes where it does not",
    )
    plan_.add_argument(
        "--theta", type=float, metavar="DEG", help="angle of the trade-off line; default: the ratio rule"
    )
    plan_.add_argument("--aspect", type=float, default=1.652, help="width:height of the plot theta is measured in")
    plan_.add_argument("--gamma", type=float, default=0.4, help="weight of every stage's loss (Eq. 1)")
    plan_.add_argument("--seed", type=int, default=0)
    plan_.add_argument("--out", metavar="PLAN.toml", help="where to write the plan; default: only show it")

    groups = command(
        "groups",
        "write a plan's groups for other tools, or make a plan from theirs",
        "  hs3 groups plan.toml --format nnunet --out groups                one file per stage\n"
        "  hs3 groups groups --format nnunet --taxonomy taxonomy.toml --out plan.toml\n",
    )
    groups.add_argument("source", help="plan.toml, or a file or folder of groups, one file per stage")
    groups.add_argument(
        "--format", required=True, metavar="NAME", help="csv, lightlytrain, mmsegmentation, nnunet or ultralytics"
    )
    groups.add_argument("--taxonomy", metavar="FILE", help="taxonomy.toml; default: the one beside the source")
    groups.add_argument("--out", help="folder of the groups (default: groups), or the plan (default: plan.toml)")

    evaluate = command(
        "evaluate",
        "score a trained network on a split, all stages in one pass; or predictions on disk",
        "Predictions of any origin, equal to the official script for Cityscapes:\n"
        "  hs3 evaluate --predictions DIR --data.kind cityscapes --data.root ROOT --split val --json\n\n"
        "Several looks at an image:\n"
        "  hs3 evaluate RUN/arms/hs3 --evaluation.scales 0.75,1.0,1.25 --evaluation.flip true\n\n"
        "A network of one data set on another:\n"
        "  hs3 evaluate RUN/arms/hs3 --bridge configs/bridges/cityscapes-to-camvid.toml --data.kind camvid\n"
        "    --data.root CAMVID --split test\n\n" + OVERRIDES,
    )
    evaluate.add_argument("weights", nargs="?", help="folder or weights.safetensors of a training, or an exported file")
    evaluate.add_argument("--split", default="val")
    evaluate.add_argument("--predictions", metavar="DIR", help="PNG files of ids, instead of weights")
    evaluate.add_argument(
        "--official_json", metavar="FILE", help="with --predictions: Cityscapes' own result file, too"
    )
    evaluate.add_argument(
        "--bridge", metavar="FILE", help="maps the network's classes to those of other data (configs/bridges/*.toml)"
    )
    evaluate.add_argument(
        "--prediction_ids", default="label", choices=("label", "train"), help="what Cityscapes predictions hold"
    )
    evaluate.add_argument(
        "--out",
        help="folder for evaluation-SPLIT.json and its matrices (default: beside the weights); with --predictions a"
        " JSON file",
    )

    submit = command(
        "submit",
        "check predictions and pack them for the Cityscapes test server",
        "  hs3 predict ROOT/leftImg8bit/test --weights RUN/arms/hs3 --output index --out predictions\n"
        "  hs3 submit predictions --data.root ROOT --out submission.zip\n",
    )
    submit.add_argument("predictions", help="folder of one PNG of ids per frame")
    submit.add_argument("--split", default="test")
    submit.add_argument("--out", default="submission.zip", help="the zip file (default: submission.zip)")
    submit.add_argument(
        "--prediction_ids", default="train", choices=("label", "train"), help="what the files hold (default: train)"
    )

    predict = command(
        "predict",
        "segment images and videos",
        "NAME.png (palette) holds class ids shown in class colours, NAME-index.png plain ids, NAME-colour.png\n"
        "colours, NAME-overlay.png colours on the image, NAME-probability.npz and NAME-confidence.png probabilities.\n"
        "Videos become NAME-overlay.mp4 and NAME-colour.mp4. Large images are cut into tiles; the result says so.\n\n"
        + OVERRIDES,
    )
    predict.add_argument("images", nargs="+", help="images, videos, folders, or patterns such as 'photos/**/*.jpg'")
    predict.add_argument(
        "--weights", required=True, help="folder or weights.safetensors of a training, or an exported file"
    )
    predict.add_argument("--out", default="predictions", help="folder for the results (default: predictions)")
    predict.add_argument(
        "--output",
        default="both",
        metavar="LIST",
        help="of palette, index, colour, overlay, probability, with commas; both (default) = palette,overlay",
    )
    predict.add_argument("--batch_size", type=int, default=1, help="images of one size, or frames, at once")
    predict.add_argument("--tile", nargs=2, type=int, metavar=("H", "W"), help="cut larger images; default: by memory")
    predict.add_argument("--overlap", type=int, help="of tiles, pixels")
    predict.add_argument("--memory_gib", type=float, default=4.0, help="bound of the working memory (default: 4)")
    predict.add_argument(
        "--depth", help="RGB-D networks: folder of depth or HHA images with equal names, in the training's unit"
    )
    predict.add_argument("--ids", metavar="LIST", help="ids that index files hold, one per class, with commas")
    predict.add_argument("--skip_existing", action="store_true", help="leave out what has its results already")

    export = command(
        "export",
        "write a trained network for another runtime; its stage heads are left behind",
        "The file is run and compared with the network before it is kept, and says of itself what `hs3 predict` and\n"
        "`hs3 evaluate` need: they take it in the place of weights.\n"
        "  hs3 export RUN/arms/hs3 --format onnx --out net.onnx\n"
        "  hs3 export RUN/arms/hs3 --format openvino --out net.xml --int8 100\n\n" + OVERRIDES,
    )
    export.add_argument("weights", help="folder or weights.safetensors of a training")
    export.add_argument("--format", default="onnx", help="onnx (default), openvino, pt2 (torch.export) or folder")
    export.add_argument("--out", help="file, or folder for the format folder; default: net.onnx and so on")
    export.add_argument("--fixed_size", action="store_true", help="batch and size are those of the training crops")
    export.add_argument("--tolerance", type=float, default=1e-4, help="largest difference of a logit (default: 1e-4)")
    export.add_argument(
        "--int8", type=int, default=0, metavar="N", help="openvino: also NAME-int8.xml, by N training images"
    )

    certify = command(
        "certify",
        "the zero-cost certificate: what is deployed costs no more than the plain network",
        "A network is a training's folder (its stage heads are dropped), a name of `hs3 networks`, or\n"
        "'module:function(key=value)'. Exit code 2 where it fails.\n"
        "  hs3 certify hrnet_w18_small RUN/arms/hs3 --classes 11\n"
        "  M=torchvision.models.segmentation:fcn_resnet50\n"
        '  hs3 certify "$M(weights_backbone=None)" "$M(weights_backbone=None, aux_loss=True)"\n',
    )
    certify.add_argument("before", help="the plain network")
    certify.add_argument("after", help="what is deployed")
    certify.add_argument("--size", nargs=2, type=int, metavar=("H", "W"), help="of the images; default: the training's")
    certify.add_argument("--classes", type=int, default=19, metavar="K", help="of networks by name (default: 19)")
    certify.add_argument("--repeats", type=int, default=5, help="timed runs of each (default: 5)")

    report = command("report", "write the report page of a run folder")
    report.add_argument("run", help="run folder; what it lacks the page leaves out")
    report.add_argument("--out", help="folder for the page; default: RUN/report")

    explain = command(
        "explain",
        "what a run's saved counts say of its stages, groups and labels; nothing is trained",
        "Which stage tells which classes apart, how much the groups depend on the images that were measured, and\n"
        "images whose labels the outputs contradict. Writes a page and explain.json.\n"
        "  hs3 explain RUN\n"
        "  hs3 evaluate RUN/arms/hs3 --split train, then hs3 explain RUN --arm hs3 --split train",
    )
    explain.add_argument("run", help="run folder with an analysis")
    explain.add_argument("--stage", metavar="LIST", help="only these stages, with commas; default: all")
    explain.add_argument("--bootstraps", type=int, default=200, metavar="B", help="draws of the images (default: 200)")
    explain.add_argument(
        "--threshold", type=float, default=0.95, help="pairwise accuracy of classes told apart (default: 0.95)"
    )
    explain.add_argument(
        "--arm", help="look for wrong labels with this arm's network, with --split; default: phase one"
    )
    explain.add_argument("--split", help="evaluated split to look for wrong labels in; default: the analysis split")
    explain.add_argument("--seed", type=int, default=0, help="of the draws")
    explain.add_argument("--out", metavar="DIR", help="folder for the page; default: RUN/explain")

    profile = command("profile", "parameters and multiply-accumulates of a network, or of a config's arms", OVERRIDES)
    profile.add_argument("network", nargs="?", help="a network's name or a config file")
    profile.add_argument("--size", nargs=2, type=int, metavar=("H", "W"), default=(1024, 2048), help="input, pixels")
    profile.add_argument("--classes", type=int, default=19, metavar="K")
    profile.add_argument("--fuse", metavar="K1,K2", help="HS3-Fuse with these numbers of groups, shallow to deep")
    profile.add_argument("--widths", metavar="MID,KEY", help="channels of the (final) OCR block")
    profile.add_argument("--gmacs", type=float, help="with --fuse: find the widths nearest to this budget")
    profile.add_argument("--list", action="store_true", help="list the networks, as `hs3 networks`")

    networks = command("networks", "list the networks with parameters, GMACs and sources")
    networks.add_argument("--size", nargs=2, type=int, metavar=("H", "W"), default=(1024, 2048), help="input, pixels")
    networks.add_argument("--classes", type=int, default=19, metavar="K")

    data = command(
        "data",
        "look at a data set before training on it",
        "  hs3 data init ROOT                          writes taxonomy.toml and hs3.toml by looking at the masks\n"
        "  hs3 data check CONFIG --data.root ROOT      every problem with file, place and remedy, and a page\n"
        "  hs3 data check ROOT                         the same for a folder of images and masks\n"
        "  hs3 data unpack ARCHIVE FOLDER              zip or tar; entries that lead out of the folder are refused\n\n"
        "check: exit code 2 where something must be done, so it may guard a build.\n\n" + OVERRIDES,
    )
    data.add_argument("action", choices=("init", "check", "unpack"))
    data.add_argument("config", metavar="CONFIG|FOLDER|ARCHIVE", help="a TOML file, a folder, or an archive to unpack")
    data.add_argument("target", nargs="?", metavar="FOLDER", help="unpack: where to")
    data.add_argument("--out", help="check: folder of the page (default: data-check), or none; init: the config file")
    data.add_argument("--strict", action="store_true", help="check: warnings, too, give exit code 2")
    data.add_argument("--max_findings", type=int, default=100, help="check: listed of each kind; 0 = all")
    data.add_argument("--taxonomy", metavar="FILE", help="init: where the classes are written (ROOT/taxonomy.toml)")
    data.add_argument("--overwrite", action="store_true", help="init: replace files that are there")
    data.add_argument("--workers", type=int, default=0, help="init: processes that read masks")

    command("keys", "list every config value with its default and meaning")
    return parser, made


def config_keys() -> list[str]:
    """Every key of a config; imported only where a word is neither an option nor has a dot."""
    from hs3seg.config import describe_keys

    return list(dict.fromkeys(key for key, _, _ in describe_keys()))


def split_overrides(parser: argparse.ArgumentParser, words: list[str]) -> tuple[list[str], list[str]]:
    """Separates a command's own words from `--section.key value` overrides, wherever they stand.

    Raises:
        ConfigError: an option that the command does not have; the nearest is named.
    """
    options = {name for action in parser._actions for name in action.option_strings}
    own: list[str] = []
    overrides: list[str] = []
    rest = list(words)
    while rest:
        word = rest.pop(0)
        name, equals, value = word.partition("=")
        if not word.startswith("--") or word == "--" or name in options:
            own.append(word)
            continue
        if "." not in name:
            # `--dry_run` for --dry-run, and back; what is no top-level key of a config either is a slip of the pen.
            alike = next((o for o in options if o.replace("-", "_") == name.replace("-", "_")), "")
            if alike.startswith("--"):
                own.append(f"{alike}{equals}{value}")
                continue
            keys = [key for key in config_keys() if "." not in key]
            if name[2:].replace("-", "_") not in keys:
                known = [*sorted(o for o in options if o.startswith("--")), *(f"--{key}" for key in keys)]
                raise ConfigError(f"unknown option '{name}' of `{parser.prog}`; {nearest(name, known)}")
        overrides.append(word)
        if "=" not in word and rest:
            overrides.append(rest.pop(0))
    return own, overrides


def refuse(command: str, overrides: list[str]) -> None:
    """Error for a command that takes no config values.

    Raises:
        ConfigError: naming the nearest option.
    """
    if overrides:
        parser = make_parser()[1][command]
        options = [name for action in parser._actions for name in action.option_strings if name.startswith("--")]
        raise ConfigError(f"unknown option '{overrides[0]}' of `{parser.prog}`; {nearest(overrides[0], options)}")
