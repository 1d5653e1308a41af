"""The sections of data, one per kind, and of augmentation."""

from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field

Fraction = Annotated[float, Field(ge=0, le=1)]
Size = tuple[Annotated[int, Field(ge=1)], Annotated[int, Field(ge=1)]]


class Section(BaseModel):
    """A table of the config: frozen, without unknown keys, types taken strictly."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class _Data(Section):
    """What every kind of data has."""

    root: str = Field("", description="folder of the data set; not used by digits")
    train_split: str = Field("train", description="split to train on")
    train_images: Annotated[int, Field(ge=2)] | None = Field(
        None, description="train on so many images of it only, drawn with the seed: what would more data bring?"
    )
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
    disk_cache: str = Field("", description="folder that keeps decoded images for the next runs; empty = none is kept")
    disk_cache_gib: Annotated[float, Field(gt=0)] = Field(
        20.0, description="most that disk_cache may take, in GiB per split; what does not fit is decoded every time"
    )
    uniform_share: Fraction = Field(
        0.0, description="share of training crops placed on a class drawn with equal probability, as NVIDIA's HMS has"
    )
    uniform_tile: Annotated[int, Field(ge=1)] = Field(
        1024, description="with uniform_share: side of the tiles, in pixels, in which each class has one centre"
    )

    @property
    def channels(self) -> int:
        """Of the images: RGB and what follows."""
        return 3

    @property
    def options(self) -> str:
        """All that a decoded sample depends on besides its files, for caches."""
        return self.model_dump_json(exclude=set(SHARED_KEYS))


class FolderData(_Data):
    """Your images and masks."""

    kind: Literal["folder"] = Field("folder", description="your images and masks")
    images: str = Field("images", description="name of the image folder below root")
    masks: str = Field("masks", description="name of the mask folder below root")
    image_pattern: str = Field(
        "", description="instead of folders: where images are below root, e.g. **/*_img.png or {split}/rgb/*.*"
    )
    mask_pattern: str = Field(
        "", description="where masks are, e.g. **/*_mask.png; what the wildcards stand for must be equal"
    )
    split_list: str = Field("", description="list of a split's images instead of SPLIT.txt, e.g. lists/{split}.txt")
    split_fractions: dict[str, Fraction] | None = Field(
        None, description="seeded shares of all images, e.g. {train = 0.8, val = 0.2}; none = folders or lists say it"
    )
    encoding: Literal["auto", "index", "rgb", "palette"] = Field(
        "auto",
        description="masks hold class ids (index, also palette PNG), colours (rgb), or colours by palette (palette)",
    )
    ids: tuple[int, ...] = Field((), description="id in the masks of each class, e.g. [0, 255]; empty = 0, 1, 2, ...")
    ignore_ids: tuple[int, ...] = Field((), description="ids in the masks that mean ignore, e.g. [-1] or [0]")
    ignore_colours: tuple[tuple[int, int, int], ...] = Field(
        (), description="colours in the masks that mean ignore, besides black"
    )
    exif: Literal["auto", "image", "both"] = Field(
        "auto", description="what an image's EXIF orientation turns if the mask has none; auto = what fits"
    )
    taxonomy: str = Field("", description="taxonomy.toml; empty = ROOT/taxonomy.toml, else inferred from the masks")

    @property
    def reading(self) -> dict[str, Any]:
        """Arguments of `FolderDataset` by name, but for root, split, taxonomy and seed."""
        names = ("images", "masks", "encoding", "ignore_ids", "image_pattern", "mask_pattern", "split_list")
        further = ("split_fractions", "ids", "ignore_colours", "exif")
        return {name: getattr(self, name) for name in (*names, *further)}


class CamVidData(_Data):
    """CamVid."""

    kind: Literal["camvid"] = Field("camvid", description="CamVid in SegNet's layout, or the original frames")
    classes: Literal[11, 32] = Field(11, description="32 = all labels of the original frames")
    layout: Literal["auto", "segnet", "original"] = Field(
        "auto", description="auto = SegNet's where the split has its folder, else the original 960x720 frames"
    )


class NYUv2Data(_Data):
    """NYU-Depth-v2."""

    kind: Literal["nyuv2"] = Field("nyuv2", description="NYU-Depth-v2, the official .mat or folders of pictures")
    depth: Literal["none", "raw", "filled", "hha"] = Field(
        "none",
        description="channels after RGB, for sagate_resnet101: raw = the depth that the files hold, filled = the depth"
        " without holes (1 channel each), hha = disparity, height and angle (3 channels)",
    )
    classes: Annotated[int, Field(ge=2)] | None = Field(
        None, description="40, 13 or 4; none = all that the data set has"
    )
    labels: Literal["auto", "40", "40-from-0", "13", "13-from-0", "4", "4-from-0", "894"] = Field(
        "auto",
        description="what label files hold: 40, 13, 4 (classes from 1), the same with -from-0, or 894; auto = find out",
    )
    depth_unit: Literal["auto", "metres", "millimetres", "tenth_millimetres", "ten_metres", "relative"] = Field(
        "auto", description="what depth files hold; auto = find out"
    )
    hha_source: Literal["auto", "files", "depth"] = Field(
        "auto", description="HHA from pictures that are there, or computed from depth; auto = what is there"
    )
    hha_cache: str = Field("", description="folder that keeps computed HHA pictures; empty = none is kept")

    @property
    def channels(self) -> int:
        """Of the images: RGB and what follows."""
        return 3 + {"none": 0, "raw": 1, "filled": 1, "hha": 3}[self.depth]


class CityscapesData(_Data):
    """Cityscapes."""

    kind: Literal["cityscapes"] = Field("cityscapes", description="Cityscapes: leftImg8bit, gtFine, gtCoarse ...")
    depth: Literal["none", "disparity"] = Field("none", description="channel after RGB, for sagate_resnet101")
    labels: Literal["fine", "coarse", "autolabelled"] = Field(
        "fine", description="fine; coarse; autolabelled = those that a network made for train_extra, else fine"
    )
    cv: Annotated[int, Field(ge=0, le=3)] = Field(
        0, description="0 = official train and val; 1, 2 = other cities in val; 3 = train has val's cities, too"
    )
    coarse_threshold: Fraction = Field(0.5, description="autolabelled pixels of a smaller probability are ignored")
    coarse_classes: tuple[str, ...] = Field(
        (), description="classes taken from the coarse labels where files are autolabelled, e.g. truck, bus, train"
    )
    coarse_cut_border: bool = Field(False, description="ignore the border of autolabelled frames")

    @property
    def channels(self) -> int:
        """Of the images: RGB and what follows."""
        return 3 if self.depth == "none" else 4


class CocoData(_Data):
    """COCO's annotation files."""

    kind: Literal["coco"] = Field("coco", description="COCO: panoptic or instance JSON, or pixel maps")
    labels: Literal["panoptic", "instances", "pixelmaps"] = Field("panoptic", description="what the annotations are")
    annotations: str = Field("", description="JSON file or folder of maps below root; empty = the usual place")
    images: str = Field("", description="image folder below root; empty = the usual place")
    background: bool | None = Field(
        None, description="whether pixels of no instance are class 0; none = yes for instances, no for the others"
    )


class VocData(_Data):
    """Pascal VOC's layout."""

    kind: Literal["voc"] = Field("voc", description="Pascal VOC: JPEGImages, SegmentationClass, ImageSets")
    masks: str = Field("SegmentationClass", description="name of the mask folder below root")
    taxonomy: str = Field("", description="taxonomy.toml of another set in this layout; empty = VOC's 21 classes")


class Ade20kData(_Data):
    """ADE20K."""

    kind: Literal["ade20k"] = Field("ade20k", description="ADE20K: ADEChallengeData2016, 150 classes")


class HuggingFaceData(_Data):
    """A data set of Hugging Face `datasets`."""

    kind: Literal["huggingface"] = Field(
        "huggingface", description="Hugging Face datasets with image and mask columns (extra: datasets)"
    )
    source: str = Field(description="folder, .parquet file or name on the hub")
    taxonomy: str = Field(description="taxonomy.toml")
    image_column: str = Field("", description="empty = the only column of images that is no mask")
    mask_column: str = Field("", description="empty = the column called mask, label, annotation ...")
    name_column: str = Field("", description="column of the samples' names; empty = their numbers")
    subset: str = Field("", description="configuration of a data set that has several")
    revision: str = Field("", description="of a data set on the hub; empty = the newest")
    first_id: Annotated[int, Field(ge=0)] = Field(0, description="id of the first class; smaller ones are ignored")
    stream_samples: Annotated[int, Field(ge=0)] = Field(
        0, description="read the first so many as a stream and keep them encoded in memory; 0 = download all"
    )
    download_folder: str = Field("", description="where downloads are kept; empty = the library's own place")


class DigitsData(_Data):
    """Embedded digit scenes."""

    kind: Literal["digits"] = Field("digits", description="digit scenes that come with the package")
    num_images: tuple[Annotated[int, Field(ge=1)], Annotated[int, Field(ge=1)], Annotated[int, Field(ge=1)]] = Field(
        (512, 128, 128), description="scenes in train, val, test"
    )
    size: Size = Field((96, 128), description="height and width of a scene in pixels")


class PlantedData(_Data):
    """Scenes whose groups are known beforehand."""

    kind: Literal["planted"] = Field("planted", description="scenes drawn on the fly whose early groups are known")
    num_images: tuple[Annotated[int, Field(ge=1)], Annotated[int, Field(ge=1)], Annotated[int, Field(ge=1)]] = Field(
        (512, 192, 192), description="scenes in train, val, test"
    )
    size: Size = Field((80, 96), description="height and width of a scene in pixels")
    shapes: Literal[2, 3] = Field(2, description="shapes of an object: disc, ring, triangle")
    mixed: bool = Field(
        False, description="half of the surfaces, and the background, are one class each; else it is ignored"
    )


DataConfig = (
    FolderData
    | CamVidData
    | NYUv2Data
    | CityscapesData
    | CocoData
    | VocData
    | Ade20kData
    | HuggingFaceData
    | DigitsData
    | PlantedData
)
"""Where images and masks come from; `kind` says which."""

KINDS: dict[str, type[Section]] = {kind.model_fields["kind"].default: kind for kind in get_args(DataConfig)}
"""The section of each `data.kind`."""

SHARED_KEYS = frozenset(_Data.model_fields)
"""Keys of all kinds: how samples are used, not what is in them."""


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
