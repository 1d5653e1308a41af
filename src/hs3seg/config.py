"""The run's configuration: frozen sections, one TOML file, no inheritance.

A config file states a complete run. `load_config` reads it, lays `--section.key value` overrides over it and checks
every key and value in one place, so that a typo in the file and one on the command line get the same answer.
"""

import hashlib
import json
import tomllib
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import tomli_w
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from hs3seg.errors import ConfigError, nearest

Fraction = Annotated[float, Field(ge=0, le=1)]
Size = tuple[Annotated[int, Field(ge=1)], Annotated[int, Field(ge=1)]]


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class DataConfig(_Section):
    """Where images and masks come from."""

    kind: Literal["folder", "camvid", "nyuv2", "digits"] = Field(
        description="folder = your images and masks; camvid = SegNet's layout; nyuv2 = train.txt and test.txt with"
        " `rgb depth label` per line; digits = embedded digit scenes"
    )
    root: str = Field("", description="folder of the data set; not used by digits")
    images: str = Field("images", description="folder kind: name of the image folder below root")
    masks: str = Field("masks", description="folder kind: name of the mask folder below root")
    encoding: Literal["auto", "index", "rgb"] = Field(
        "auto", description="folder kind: masks hold class ids (index, also palette PNG) or colours (rgb)"
    )
    taxonomy: str = Field(
        "", description="folder kind: taxonomy.toml; empty = ROOT/taxonomy.toml, else inferred from the masks"
    )
    depth: Literal["none", "raw"] = Field(
        "none", description="nyuv2 kind: raw = the 8-bit depth is the fourth channel, for sagate_resnet101; none = RGB"
    )
    train_split: str = Field("train", description="split to train on")
    evaluate_splits: tuple[str, ...] = Field(("val",), description="splits to evaluate every arm on, at the end")
    analysis_fraction: Annotated[float, Field(gt=0, lt=1)] = Field(
        0.1,
        description="share of the train split held out of phase one for the confusion matrices (Sec. 3.1.1)",
    )
    num_workers: Annotated[int, Field(ge=0)] = Field(1, description="loader processes; results do not depend on it")
    cache: bool = Field(False, description="keep decoded images in memory; for sets smaller than the memory")
    num_images: tuple[Annotated[int, Field(ge=1)], Annotated[int, Field(ge=1)], Annotated[int, Field(ge=1)]] = Field(
        (512, 128, 128), description="digits: scenes in train, val, test"
    )
    size: Size = Field((96, 128), description="digits: height and width of a scene in pixels")


class AugmentConfig(_Section):
    """Training augmentation, and the size at which the network sees an image."""

    resize: Size | None = Field(
        None, description="height, width every image is resized to first, also in evaluation; none = as it is"
    )
    crop: Size = Field(description="height, width of a training crop in pixels")
    scale: tuple[Annotated[float, Field(gt=0)], Annotated[float, Field(gt=0)]] = Field(
        (0.5, 2.0), description="range of the random scale factor"
    )
    flip: Fraction = Field(0.5, description="probability of a horizontal flip; 0 where left and right mean something")
    color_jitter: tuple[Fraction, Fraction, Fraction, Annotated[float, Field(ge=0, le=0.5)]] | None = Field(
        None, description="brightness, contrast, saturation, hue; none = off"
    )


class NetworkConfig(_Section):
    """The network."""

    name: str = Field("hrnet_w18_small", description="one of `hs3 profile --list`")
    pretrained: bool | str = Field(
        False,
        description="true = ImageNet weights through timm; a path = weights of the trunk in a local file",
    )
    align_corners: bool | None = Field(
        None, description="bilinear convention inside the network; none = as its official code"
    )
    bn_momentum: Annotated[float, Field(gt=0, le=1)] | None = Field(
        None, description="BatchNorm momentum; none = as the official code (HRNetV2 0.01, others 0.1)"
    )
    dropout: Fraction | None = Field(None, description="of the decoder, in training; none = as the official code")
    mid: Annotated[int, Field(ge=1)] | None = Field(
        None, description="OCR: channels of the block; none = 192 on w18, 512 on w48"
    )
    key: Annotated[int, Field(ge=1)] | None = Field(
        None, description="OCR: channels of its attention; none = 96 on w18, 256 on w48"
    )


class SupervisionConfig(_Section):
    """Where the network is supervised, and how the groups are found (Sec. 3.1)."""

    stages: Literal["auto"] | Annotated[int, Field(ge=1)] | tuple[str, ...] = Field(
        "auto", description="auto = the scale transitions, N = N stages spaced by depth, or module names"
    )
    gamma: Annotated[float, Field(ge=0)] = Field(0.4, description="weight of every stage's loss (Eq. 1)")
    plan: str = Field("", description="a hand-written plan.toml for the arm hs3; then phase one is not needed")
    method: Literal["spectral", "kmeans", "constant_ratio"] = Field(
        "spectral", description="how classes are grouped (Sec. 3.1.3)"
    )
    normalize: Literal["true", "none"] = Field(
        "true", description="true = rows of the confusion matrix are divided by their sums"
    )
    theta_degrees: Annotated[float, Field(ge=0, le=90)] | None = Field(
        None, description="angle of the trade-off line; none = the ratio rule (Sec. 3.1.2)"
    )
    aspect: Annotated[float, Field(gt=0)] = Field(
        1.652, description="width:height of the plot in which theta is measured"
    )


class FuseConfig(_Section):
    """HS3-Fuse, the arm hs3_fuse (Sec. 3.2)."""

    mid: Annotated[int, Field(ge=1)] | None = Field(
        None, description="channels of the final OCR block, halved per earlier stage; none = as the OCR network"
    )
    key: Annotated[int, Field(ge=1)] | None = Field(
        None, description="channels of its attention; none = half of mid, or as the OCR network"
    )
    gmacs: Annotated[float, Field(gt=0)] | None = Field(
        None, description="instead of mid: find the widths whose inference cost comes nearest to this budget"
    )


class LossConfig(_Section):
    """The per-pixel loss of the final output and of every stage."""

    kind: Literal["cross_entropy", "ohem", "image_weighted", "rmi"] = Field(
        "cross_entropy",
        description="ohem = hardest pixels only; image_weighted = classes of small share in an image count more; rmi ="
        " region mutual information, as HMS",
    )
    class_weights: Literal["none", "inverse_log", "inverse_sqrt", "median"] = Field(
        "none", description="weights from pixel frequencies, recomputed for the groups of each stage"
    )
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.0, description="share of the target spread over all classes"
    )
    ohem_threshold: Annotated[float, Field(gt=0, le=1)] = Field(
        0.9, description="pixels predicted with less than this count as hard"
    )
    ohem_min_kept: Annotated[int, Field(ge=1)] = Field(
        131072, description="at least this many pixels of a batch are kept"
    )
    inverseform: str = Field(
        "",
        description="weights of InverseForm's network: adds its boundary term to the final output's loss; empty = off",
    )
    inverseform_weight: Annotated[float, Field(gt=0)] = Field(
        0.3, description="of that term; its released code has 0.3"
    )


class TrainConfig(_Section):
    """The training loop; the same for every arm and for phase one."""

    epochs: Annotated[int, Field(ge=1)] = Field(60, description="passes over the split")
    batch_size: Annotated[int, Field(ge=1)] = Field(8, description="images per step, over all processes")
    accumulate: Annotated[int, Field(ge=1)] = Field(
        1, description="parts in which a process takes its share of a batch"
    )
    optimizer: Literal["sgd", "adamw"] = Field("sgd", description="sgd has Nesterov off, as the official code")
    learning_rate: Annotated[float, Field(gt=0)] = Field(0.01, description="after the warm-up")
    momentum: Annotated[float, Field(ge=0, lt=1)] = Field(0.9, description="of sgd; beta1 of adamw")
    weight_decay: Annotated[float, Field(ge=0)] = Field(5e-4, description="on convolution and linear weights")
    decay_norms: bool = Field(True, description="weight decay also on norms and biases, as the official HRNet code")
    schedule: Literal["poly", "cosine"] = Field("poly", description="fall of the learning rate, per step")
    poly_power: Annotated[float, Field(gt=0)] = Field(0.9, description="of the poly schedule")
    warmup_epochs: Annotated[float, Field(ge=0)] = Field(0.0, description="linear warm-up")
    clip_norm: Annotated[float, Field(ge=0)] = Field(0.0, description="largest gradient norm; 0 = off")
    ema_decay: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.0, description="moving average of the weights, which is then evaluated; 0 = off"
    )
    precision: Literal["auto", "float32", "bf16", "fp16"] = Field(
        "auto", description="auto = bf16 where the processor has it"
    )
    channels_last: Literal["auto", "yes", "no"] = Field("auto", description="memory layout; auto = with bf16 or fp16")
    sync_bn: bool = Field(True, description="BatchNorm over all processes, on several GPUs")
    threads: Annotated[int, Field(ge=0)] = Field(0, description="CPU threads; 0 = torch's default")
    evaluate_every: Annotated[int, Field(ge=0)] = Field(
        0, description="epochs between evaluations on the first evaluate split; 0 = only at the end"
    )
    checkpoint_seconds: Annotated[float, Field(ge=0)] = Field(60.0, description="time between saved states")
    log_steps: Annotated[int, Field(ge=1)] = Field(10, description="steps between log lines")
    tensorboard: bool = Field(False, description="also write TensorBoard events (extra 'tensorboard')")


class EvaluationConfig(_Section):
    """The evaluation pass."""

    batch_size: Annotated[int, Field(ge=1)] = Field(4, description="images per step, per process")
    num_samples: Annotated[int, Field(ge=0)] = Field(6, description="sample images kept for the report")


class Config(_Section):
    """A complete run."""

    name: str = Field(description="name of the run, also of its folder")
    run_dir: str = Field("", description="folder of the run; empty = runs/NAME")
    seed: Annotated[int, Field(ge=0)] = Field(0, description="of initial weights, data order, augmentation and splits")
    arms: tuple[Literal["none", "deep_supervision", "hs3", "hs3_fuse", "random", "reversed"], ...] = Field(
        ("none", "deep_supervision", "hs3"), description="what to train; random and reversed are controls"
    )
    data: DataConfig
    augment: AugmentConfig
    network: NetworkConfig = NetworkConfig()
    supervision: SupervisionConfig = SupervisionConfig()
    fuse: FuseConfig = FuseConfig()
    loss: LossConfig = LossConfig()
    train: TrainConfig = TrainConfig()
    evaluation: EvaluationConfig = EvaluationConfig()

    @property
    def run_path(self) -> Path:
        """The run folder."""
        return Path(self.run_dir) if self.run_dir else Path("runs") / self.name

    def fingerprint(self) -> str:
        """A short hash of every value that the trained weights depend on (places, workers and logging do not count)."""
        values = self.model_dump(mode="json")
        for key in ("name", "run_dir", "arms", "evaluation"):
            values.pop(key)
        for section, keys in _WITHOUT_EFFECT.items():
            for key in keys:
                values[section].pop(key)
        return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:16]

    def save(self, path: Path) -> None:
        """Writes the complete config, defaults included, as TOML."""
        path.write_text(tomli_w.dumps(_without_none(self.model_dump(mode="json"))))


_WITHOUT_EFFECT = {
    "data": ("root", "num_workers", "cache", "evaluate_splits"),
    "supervision": ("plan",),
    "train": ("evaluate_every", "checkpoint_seconds", "log_steps", "tensorboard", "threads"),
}


def load_config(path: Path, overrides: Sequence[str] = ()) -> Config:
    """Reads a config file and lays command-line overrides over it.

    Args:
        path: A TOML file.
        overrides: `--section.key value` pairs or `--section.key=value`, as they stood on the command line. A value is
            TOML (`60`, `true`, `[360, 480]`) or plain text; `none` unsets an optional key.

    Raises:
        ConfigError: file missing, empty or not TOML; unknown key (the nearest is named); wrong type or range.
    """
    if not path.is_file():
        raise ConfigError(f"config file '{path}' does not exist; start from one in configs/, or see `hs3 run --help`")
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not a TOML file: {error}") from None
    if not values:
        raise ConfigError(f"{path}: the file is empty; it must at least say name, [data] kind and [augment] crop")
    apply_overrides(values, overrides)
    return _validate(values, str(path))


def apply_overrides(values: dict[str, Any], overrides: Sequence[str]) -> None:
    """Lays `--section.key value` words over plain config values, in place.

    Raises:
        ConfigError: unknown key (the nearest is named), or a key without a value.
    """
    for key, text in _pairs(overrides):
        _override(values, key, text)


def config_from_dict(values: Mapping[str, Any], origin: str) -> Config:
    """Checks plain values, e.g. those kept in a weight file; `origin` names them in errors."""
    return _validate(values, origin)


def describe_keys() -> Iterator[tuple[str, str, str]]:
    """Yields (dotted key, default as text, description) of every config value, in the order of the sections."""
    for key, field in _fields(Config):
        default = "required" if field.is_required() else _text(field.default)
        yield key, default, field.description or ""


def _pairs(arguments: Sequence[str]) -> Iterator[tuple[str, str]]:
    rest = list(arguments)
    while rest:
        word = rest.pop(0)
        if not word.startswith("--") or len(word) == 2:
            raise ConfigError(f"unexpected argument '{word}'; config values are given as --section.key value")
        key, equals, text = word[2:].partition("=")
        if not equals:
            _field(key.replace("-", "_"))
            if not rest:
                raise ConfigError(f"option '--{key}' has no value; write --{key} VALUE")
            text = rest.pop(0)
        yield key.replace("-", "_"), text


def _override(values: dict[str, Any], key: str, text: str) -> None:
    annotation = _field(key).annotation
    *sections, name = key.split(".")
    for section in sections:
        inner = values.setdefault(section, {})
        if not isinstance(inner, dict):
            raise ConfigError(f"config section '{section}' is {inner!r}, not a table; write [{section}]")
        values = inner
    kinds = _kinds(annotation)
    if text.lower() == "none" and type(None) in kinds:
        values[name] = None
    elif kinds == {str}:
        values[name] = text
    else:
        values[name] = _parse(text, kinds)


def _parse(text: str, kinds: set[Any]) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        if tuple in kinds and "," in text:
            return [_parse(part.strip(), kinds - {tuple}) for part in text.split(",")]
        if text.lower() in ("true", "false") and bool in kinds:
            return text.lower() == "true"
        return text


def _kinds(annotation: Any) -> set[Any]:
    """The plain types an annotation admits; Literal strings count as str."""
    origin = typing.get_origin(annotation)
    if origin is Annotated:
        return _kinds(typing.get_args(annotation)[0])
    if origin in (typing.Union, types.UnionType):
        return set().union(*(_kinds(part) for part in typing.get_args(annotation)))
    if origin is Literal:
        return {type(value) for value in typing.get_args(annotation)}
    return {origin or annotation}


def _fields(section: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, field in section.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            yield from _fields(kind, f"{prefix}{name}.")
        else:
            yield prefix + name, field


def _field(key: str) -> Any:
    known = dict(_fields(Config))
    if key not in known:
        raise ConfigError(f"unknown config key '{key}'; {nearest(key, known)}")
    return known[key]


def _validate(values: Mapping[str, Any], origin: str) -> Config:
    try:
        # Through JSON, so that strict types still take TOML's arrays for tuples.
        return Config.model_validate_json(json.dumps(values, default=str))
    except ValidationError as error:
        raise ConfigError(f"{origin}: {_explain(error)}") from None


def _explain(error: ValidationError) -> str:
    """The first two problems in words; unknown keys first, since a mistyped key also makes one missing."""
    known = [key for key, _ in _fields(Config)]
    sections = {key.split(".")[0] for key in known}
    unknown: list[str] = []
    missing: list[str] = []
    wrong: dict[str, list[str]] = {}
    for item in error.errors():
        key = _dotted(item["loc"], known)
        if item["type"] == "extra_forbidden":
            key = ".".join(str(part) for part in item["loc"])
            unknown.append(f"unknown key '{key}'; {nearest(key, [*known, *sections])}")
        elif item["type"] == "missing":
            missing.append(f"key '{key}' is missing")
        else:
            expected = item["msg"].removeprefix("Input should be ")
            wrong.setdefault(f"'{key}' = {item['input']!r}", []).append(expected)
    problems = [
        *unknown,
        *missing,
        *(f"{what}; must be {' or '.join(texts)}" for what, texts in wrong.items()),
    ]
    more = f" (and {len(problems) - 2} more)" if len(problems) > 2 else ""
    return "; ".join(problems[:2]) + more


def _dotted(location: tuple[int | str, ...], known: Sequence[str]) -> str:
    """The key a user can write; pydantic also reports array indices and the branches of unions."""
    key = ""
    for part in location:
        longer = f"{key}.{part}" if key else str(part)
        if not any(k == longer or k.startswith(longer + ".") for k in known):
            break
        key = longer
    return key


def _without_none(values: Any) -> Any:
    if isinstance(values, dict):
        return {key: _without_none(value) for key, value in values.items() if value is not None}
    return values


def _text(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return "[" + ", ".join(_text(v) for v in value) + "]"
    return json.dumps(value) if isinstance(value, str) else str(value)
