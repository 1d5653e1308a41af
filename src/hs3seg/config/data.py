"""The sections of data and augmentation."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Fraction = Annotated[float, Field(ge=0, le=1)]
Size = tuple[Annotated[int, Field(ge=1)], Annotated[int, Field(ge=1)]]


class Section(BaseModel):
    """A table of the config: frozen, without unknown keys, types taken strictly."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class DataConfig(Section):
    """Where images and masks come from."""

    kind: Literal["folder", "camvid", "nyuv2", "digits"] = Field(
        description="folder = your images and masks; camvid = SegNet's layout; nyuv2 = NYU-Depth-v2, the official .mat"
        " or folders of pictures; digits = embedded digit scenes"
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
    depth: Literal["none", "raw", "filled", "hha"] = Field(
        "none",
        description="channels after RGB, for sagate_resnet101; nyuv2 kind: raw = the depth that the files hold, filled"
        " = the depth without holes (1 channel each), hha = disparity, height and angle (3 channels)",
    )
    classes: Annotated[int, Field(ge=2)] | None = Field(
        None, description="nyuv2 kind: 40, 13 or 4; none = all that the data set has"
    )
    labels: Literal["auto", "40", "40-from-0", "13", "13-from-0", "4", "4-from-0", "894"] = Field(
        "auto",
        description="nyuv2 kind: what label files hold: 40, 13, 4 (classes from 1), the same with -from-0, or 894; auto"
        " = find out",
    )
    depth_unit: Literal["auto", "metres", "millimetres", "tenth_millimetres", "ten_metres", "relative"] = Field(
        "auto", description="nyuv2 kind: what depth files hold; auto = find out"
    )
    hha_source: Literal["auto", "files", "depth"] = Field(
        "auto", description="nyuv2 kind: HHA from pictures that are there, or computed from depth; auto = what is there"
    )
    hha_cache: str = Field("", description="nyuv2 kind: folder that keeps computed HHA pictures; empty = none is kept")
    train_split: str = Field("train", description="split to train on")
    evaluate_splits: tuple[str, ...] = Field(("val",), description="splits to evaluate every arm on, at the end")
    analysis_fraction: Annotated[float, Field(gt=0, lt=1)] = Field(
        0.1,
        description="share of the train split held out of phase one for the confusion matrices (Sec. 3.1.1)",
    )
    analysis_images: Annotated[int, Field(ge=1)] | None = Field(
        None, description="instead of analysis_fraction: exactly this many, as the paper's 300 and 100"
    )
    num_workers: Annotated[int, Field(ge=0)] = Field(1, description="loader processes; results do not depend on it")
    cache: bool = Field(False, description="keep decoded images in memory; for sets smaller than the memory")
    num_images: tuple[Annotated[int, Field(ge=1)], Annotated[int, Field(ge=1)], Annotated[int, Field(ge=1)]] = Field(
        (512, 128, 128), description="digits: scenes in train, val, test"
    )
    size: Size = Field((96, 128), description="digits: height and width of a scene in pixels")


class AugmentConfig(Section):
    """Training augmentation, and the size at which the network sees an image."""

    resize: Size | None = Field(
        None, description="height, width every image is resized to first, also in evaluation; none = as it is"
    )
    crop: Size = Field(description="height, width of a training crop in pixels")
    scale: tuple[Annotated[float, Field(gt=0)], Annotated[float, Field(gt=0)]] = Field(
        (0.5, 2.0), description="range of the random scale factor"
    )
    scale_choices: tuple[Annotated[float, Field(gt=0)], ...] | None = Field(
        None, description="instead of a range: the factors to choose from"
    )
    scale_law: Literal["log", "uniform"] = Field(
        "log", description="how a factor is drawn from the range: log = halving is as likely as doubling"
    )
    flip: Fraction = Field(0.5, description="probability of a horizontal flip; 0 where left and right mean something")
    color_jitter: tuple[Fraction, Fraction, Fraction, Annotated[float, Field(ge=0, le=0.5)]] | None = Field(
        None, description="brightness, contrast, saturation, hue; none = off"
    )
    blur: tuple[Annotated[float, Field(gt=0)], Annotated[float, Field(gt=0)]] | None = Field(
        None, description="range of the sigma of a Gaussian blur, in pixels, on every second image; none = off"
    )
