"""The sections of the run, and the whole config."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import tomli_w
from pydantic import Field

from hs3seg.config.data import AugmentConfig, DataConfig, Fraction, Section, Size
from hs3seg.files import write_atomically


class NetworkConfig(Section):
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


class SupervisionConfig(Section):
    """Where the network is supervised, and how the groups are found (Sec. 3.1)."""

    stages: Literal["auto"] | Annotated[int, Field(ge=1)] | tuple[str, ...] = Field(
        "auto", description="auto = the scale transitions, N = N stages spaced by depth, or module names"
    )
    gamma: Annotated[float, Field(ge=0)] = Field(0.4, description="weight of every stage's loss (Eq. 1)")
    plan: str = Field("", description="a hand-written plan.toml for the arm hs3; then phase one is not needed")
    manual_plan: str = Field("", description="a hand-written plan.toml for the arm manual")
    method: Literal["spectral", "kmeans", "constant_ratio"] = Field(
        "spectral", description="how classes are grouped (Sec. 3.1.3)"
    )
    normalize: Literal["true", "none"] = Field(
        "true", description="true = rows of the confusion matrix are divided by their sums"
    )
    diagonal: Literal["drop", "keep"] = Field(
        "drop",
        description="keep = a class is near to itself when classes are clustered, so that one that is hardly confused"
        " may stand alone; drop = as scikit-learn",
    )
    rule: Literal["line", "knee"] = Field(
        "line",
        description="how a stage's number of groups is chosen: line = where its curve meets the line through the final"
        " output's point, as the paper; knee = where its curve bends, or all classes where it does not",
    )
    theta_degrees: Annotated[float, Field(ge=0, le=90)] | None = Field(
        None, description="angle of the trade-off line; none = the ratio rule (Sec. 3.1.2)"
    )
    aspect: Annotated[float, Field(gt=0)] = Field(
        1.652, description="width:height of the plot in which theta is measured"
    )


class FuseConfig(Section):
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


class OnlineConfig(Section):
    """Single-phase HS3, the arms online and online_coarse_to_fine: groups are found while the network trains."""

    warmup: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.15, description="share of the training in which every stage has all classes"
    )
    interval: Annotated[float, Field(gt=0, le=1)] = Field(
        0.05, description="share of the training between two analyses; at least an epoch"
    )
    momentum: Annotated[float, Field(ge=0, le=1)] = Field(
        0.5, description="share of the earlier counts kept at each analysis"
    )
    patience: Annotated[int, Field(ge=1)] = Field(
        2, description="analyses in a row that must differ from a stage's groups, and agree, before these change"
    )
    similarity: Annotated[float, Field(ge=0, le=1)] = Field(
        0.95, description="adjusted Rand index from which on groupings do not count as different"
    )
    source: Literal["training", "held_out"] = Field(
        "training", description="what stages are measured on: training batches, or the analysis split held out"
    )
    order: Literal["chosen", "coarse_to_fine"] = Field(
        "chosen", description="coarse_to_fine = numbers of groups grow to all classes at the end"
    )
    probe: bool = Field(
        True, description="a head's last layer learns all classes, the features below it the groups only"
    )


class LossConfig(Section):
    """The per-pixel loss of the final output and of every stage."""

    kind: Literal["cross_entropy", "ohem", "image_weighted", "rmi"] = Field(
        "cross_entropy",
        description="ohem = hardest pixels only; image_weighted = classes of small share in an image count more; rmi ="
        " region mutual information, as HMS",
    )
    class_weights: (
        Literal["none", "inverse_log", "inverse_sqrt", "median"] | tuple[Annotated[float, Field(ge=0)], ...]
    ) = Field(
        "none",
        description="weights from pixel frequencies, recomputed for the groups of each stage; or one number per class",
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


class TrainConfig(Section):
    """The training loop; the same for every arm and for phase one."""

    epochs: Annotated[int, Field(ge=1)] = Field(60, description="passes over the split")
    batch_size: Annotated[int, Field(ge=1)] = Field(8, description="images per step, over all processes")
    accumulate: Annotated[int, Field(ge=1)] = Field(
        1,
        description="parts in which a process takes its share of a batch, for less memory; each part's loss is the mean"
        " over its own labelled pixels, so that sparsely labelled images weigh more than in one part",
    )
    optimizer: Literal["sgd", "adamw"] = Field("sgd", description="sgd has Nesterov off, as the official code")
    learning_rate: Annotated[float, Field(gt=0)] = Field(0.01, description="after the warm-up")
    momentum: Annotated[float, Field(ge=0, lt=1)] = Field(0.9, description="of sgd; beta1 of adamw")
    weight_decay: Annotated[float, Field(ge=0)] = Field(5e-4, description="on convolution and linear weights")
    decay_norms: bool = Field(True, description="weight decay also on norms and biases, as the official HRNet code")
    schedule: Literal["poly", "cosine"] = Field("poly", description="fall of the learning rate, per step")
    poly_power: Annotated[float, Field(gt=0)] = Field(0.9, description="of the poly schedule")
    poly_from_start: bool = Field(
        False,
        description="poly falls from the first step on, warm-up or not, as in SA-Gate's code; else after the warm-up",
    )
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


class EvaluationConfig(Section):
    """The evaluation pass."""

    batch_size: Annotated[int, Field(ge=1)] = Field(4, description="images per step, per process")
    num_samples: Annotated[int, Field(ge=0)] = Field(6, description="sample images kept for the report")
    scales: tuple[Annotated[float, Field(gt=0)], ...] = Field((1.0,), description="sizes at which every image is seen")
    flip: bool = Field(False, description="also see every image mirrored")
    crop: Size | None = Field(None, description="sliding window: its height and width; none = the whole image")
    stride: Size | None = Field(
        None, description="sliding window: steps down and to the right; none = two thirds of it"
    )
    merge: Literal["auto", "probabilities", "logits", "mean_exp", "sum_exp", "hms"] = Field(
        "auto",
        description="how scales and windows become one: mean of probabilities or logits, exponentials as HRNet's"
        " (mean_exp) and SA-Gate's code (sum_exp), HMS's attention; auto = hms where the network has it, else"
        " probabilities",
    )
    boundaries: bool = Field(False, description="also boundary F-score and boundary IoU; costs time")


ArmName = Literal[
    "none",
    "none_long",
    "deep_supervision",
    "deep_supervision_long",
    "hs3",
    "hs3_fuse",
    "hs3_class_heads",
    "hs3_diagonal",
    "online",
    "online_coarse_to_fine",
    "kmeans",
    "manual",
    "random",
    "reversed",
]


class Config(Section):
    """A complete run."""

    name: str = Field(description="name of the run, also of its folder")
    run_dir: str = Field("", description="folder of the run; empty = runs/NAME")
    seed: Annotated[int, Field(ge=0, le=2**32 - 1)] = Field(
        0, description="of initial weights, data order, augmentation and splits"
    )
    arms: tuple[ArmName, ...] = Field(
        ("none", "deep_supervision", "hs3"),
        description=f"what to train: {', '.join(get_args(ArmName))}; random and reversed are controls, the long ones"
        " see as many images as both phases of HS3",
    )
    data: Annotated[DataConfig, Field(discriminator="kind")]
    augment: AugmentConfig
    network: NetworkConfig = NetworkConfig()
    supervision: SupervisionConfig = SupervisionConfig()
    fuse: FuseConfig = FuseConfig()
    online: OnlineConfig = OnlineConfig()
    loss: LossConfig = LossConfig()
    train: TrainConfig = TrainConfig()
    evaluation: EvaluationConfig = EvaluationConfig()

    @property
    def run_path(self) -> Path:
        """The run folder."""
        return Path(self.run_dir) if self.run_dir else Path("runs") / self.name

    def fingerprint(self) -> str:
        """A short hash of every value that the trained weights depend on (places, workers and logging do not count)."""
        values = self._trained_by()
        return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:16]

    def differences(self, other: "Config") -> list[str]:
        """Dotted keys of the values that `fingerprint` tells apart."""
        own, others = _flat(self._trained_by()), _flat(other._trained_by())
        return sorted(key for key in {*own, *others} if own.get(key) != others.get(key))

    def _trained_by(self) -> dict[str, Any]:
        values = self.model_dump(mode="json")
        # Settings of one arm are in its plan, which every training is known by.
        for key in ("name", "run_dir", "arms", "evaluation", "online"):
            values.pop(key)
        for section, keys in _WITHOUT_EFFECT.items():
            for key in keys:
                values[section].pop(key, None)
        for section, added in _ADDED_LATER.items():
            for key, usual in added.items():
                if values[section][key] == usual:
                    values[section].pop(key)
        return values

    def save(self, path: Path) -> None:
        """Writes the complete config, defaults included, as TOML."""
        text = tomli_w.dumps(without_none(self.model_dump(mode="json")))
        write_atomically(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


_WITHOUT_EFFECT = {
    "data": ("root", "num_workers", "cache", "disk_cache", "disk_cache_gib", "hha_cache", "evaluate_splits"),
    "supervision": ("plan", "manual_plan"),
    "train": ("evaluate_every", "checkpoint_seconds", "log_steps", "tensorboard", "threads"),
}

_ADDED_LATER: dict[str, dict[str, Any]] = {
    "data": {"train_images": None},
    "supervision": {"diagonal": "drop", "rule": "line"},
    "train": {"poly_from_start": False},
}
"""Keys that runs of earlier versions knew nothing of; at their usual value they leave a run what it was."""


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return flat


def without_none(values: Any) -> Any:
    """Nested tables without their unset keys, which TOML cannot hold."""
    if isinstance(values, dict):
        return {key: without_none(value) for key, value in values.items() if value is not None}
    return values
