"""From a setting to a config: where its files are, whose data it takes, and what a dry run makes small."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import hs3seg
from hs3seg.config import Config, load_config
from hs3seg.errors import ConfigError
from hs3seg.pipeline.reproduce.study import Setting, Version

DRY = (
    *("--augment.crop", "96,96", "--augment.resize", "none"),
    *("--train.epochs", "1", "--train.batch_size", "2", "--train.accumulate", "1", "--train.warmup_epochs", "0"),
    *("--train.evaluate_every", "0", "--train.log_steps", "1"),
    *("--data.num_workers", "0", "--data.analysis_images", "2"),
    *("--network.pretrained", "false", "--evaluation.num_samples", "1"),
)
"""One or two steps of any recipe on a handful of images: everything but the numbers is real."""


def config_folder(given: str = "") -> Path:
    """The folder of configs: the one that is given, that of the checkout, or configs/ here.

    Raises:
        ConfigError: none of them is there.
    """
    places = [Path(given)] if given else [Path(hs3seg.__file__).resolve().parents[2] / "configs", Path("configs")]
    for place in places:
        if (place / "studies").is_dir():
            return place
    raise ConfigError(
        f"no folder of configs with studies/ in it at {', '.join(map(str, places))}; give that of a checkout of hs3seg"
        " with --configs DIR"
    )


def setting_config(setting: Setting, configs: Path, overrides: Sequence[str]) -> Config:
    """The config of a setting.

    Args:
        setting: Network, data and arms.
        configs: Folder of configs.
        overrides: Laid over it last.
    """
    words = list(setting.overrides)
    if setting.manual_plan:
        words += ["--supervision.manual_plan", str(configs / setting.manual_plan)]
    return load_config(configs / setting.config, [*words, *overrides])


def own_words(setting: str, settings: Sequence[str], overrides: Sequence[str]) -> list[str]:
    """The overrides that are for all settings, and those of one: `--SETTING.section.key value`.

    Args:
        setting: Whose.
        settings: Names of all settings of the study.
        overrides: As on the command line.
    """
    own, rest = list[str](), list(overrides)
    while rest:
        word = rest.pop(0)
        value = [rest.pop(0)] if "=" not in word and rest else []
        owner = next((name for name in settings if word.startswith(f"--{name}.")), None)
        if owner is None:
            own += [word, *value]
        elif owner == setting:
            own += [f"--{word.removeprefix(f'--{owner}.')}", *value]
    return own


def check_start(setting: Setting, config: Config, words: Sequence[str]) -> None:
    """Looks whether a network has the weights that the paper's starts from.

    Raises:
        ConfigError: it has none, and nobody said that it is meant so.
    """
    said = any(word.partition("=")[0] == "--network.pretrained" for word in words)
    if setting.starts_from and not config.network.pretrained and not said:
        raise ConfigError(
            f"{setting.name}: the paper's network starts from {setting.starts_from}, which no library has; give its"
            f" file with --{setting.name}.network.pretrained FILE, or say false there to train from random weights,"
            " whose numbers do not belong beside the paper's"
        )


def protocol_config(path: Path, words: Sequence[str]) -> Config:
    """The config of a run folder with another evaluation."""
    return load_config(path / "config.toml", words)


def choose_settings(version: Version, names: str) -> Version:
    """Only some settings of a version.

    Raises:
        ConfigError: an unknown name.
    """
    if not names:
        return version
    wanted = [name.strip() for name in names.split(",")]
    known = {setting.name: setting for setting in version.settings}
    for name in wanted:
        if name not in known:
            raise ConfigError(f"--settings {name}; this study has {', '.join(known)}")
    rows = tuple(r if r.setting in wanted else replace(r, setting="") for r in version.rows)
    return replace(version, settings=tuple(known[name] for name in wanted), rows=rows)


def describe(config: Config) -> str:
    """What is trained, in a line."""
    train = config.train
    crop = "x".join(map(str, config.augment.crop))
    return (
        f"{config.network.name}, {config.data.kind} {config.data.train_split}, crops {crop}, {train.epochs} epochs,"
        f" batch {train.batch_size}, {train.optimizer} {train.learning_rate:g}, evaluated on"
        f" {json.dumps(list(config.data.evaluate_splits))}"
    )
