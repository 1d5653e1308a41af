"""COCO's JSON files: categories, images and what stands in them, checked and in little memory."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from hs3seg.data.coco_masks import Region, parse_region
from hs3seg.errors import DataError
from hs3seg.taxonomy import Colour, Taxonomy

Labels = Literal["panoptic", "instances", "pixelmaps"]
_STEMS: dict[Labels, tuple[str, ...]] = {
    "panoptic": ("panoptic",),
    "instances": ("instances", "stuff"),
    "pixelmaps": ("stuff",),
}


@dataclass(frozen=True, slots=True)
class CocoImage:
    """One image of a file.

    Args:
        path: Of the image.
        height: In pixels.
        width: In pixels.
        segments: Panoptic: category id of each segment id.
        mask: Panoptic: its PNG.
        regions: Instances: category id and region.
    """

    path: Path
    height: int
    width: int
    segments: Mapping[int, int]
    mask: Path | None
    regions: Sequence[tuple[int, Region]]


def find_split(root: Path, split: str, labels: Labels, annotations: str, images: str) -> tuple[Path, Path]:
    """The JSON file of a split and the folder of its images; see `hs3seg.data.coco.Coco` for the layouts.

    Raises:
        DataError: neither is there.
    """
    if not root.is_dir():
        raise DataError(f"COCO folder '{root}' does not exist; give the folder of annotations and images")
    years = sorted({path.name for path in root.glob(f"{split}20[0-9][0-9]") if path.is_dir()})
    stems = [split, *(years if len(years) == 1 else [])]
    files = [root / annotations] if annotations else _candidates(root, stems, labels)
    file = next((path for path in files if path.is_file()), None)
    if file is None:
        raise DataError(
            f"'{root}' has no file '{files[0].relative_to(root)}' for the split '{split}' (labels = '{labels}')"
            f"{'' if annotations else '; name another in data.annotations'}"
        )
    folders = [root / images]
    if not images:
        folders = [*(path for stem in stems[::-1] for path in (root / stem, root / "images" / stem)), root / "images"]
    folder = next((path for path in folders if path.is_dir()), None)
    if folder is None:
        looked = ", ".join(str(path.relative_to(root)) for path in folders)
        raise DataError(f"'{root}' has no folder of images: {looked}; name it in data.images, relative to the root")
    return file, folder


def _candidates(root: Path, stems: Sequence[str], labels: Labels) -> list[Path]:
    folder = root / "annotations"
    files = [folder / f"{kind}_{stem}.json" for stem in stems for kind in _STEMS[labels]]
    plain = [place for stem in stems for place in (folder / f"{stem}.json", root / stem / "_annotations.coco.json")]
    return [*files, *plain]


class CocoFile:
    """The content of a JSON file.

    Args:
        path: The file.
        images: Folder that file names are relative to.
        labels: What the annotations are.

    Attributes:
        images: In the order of the file.
        category_ids: As the file has them, in their order; class c is the c-th.
        names: One per category.
        colours: One per category, or none where the file has not one for each.

    Raises:
        DataError: no JSON file of this kind, or wrong inside; the entry is named.
    """

    def __init__(self, path: Path, images: Path, labels: Labels) -> None:
        self.path, self._folder, self._labels = path, images, labels
        values = _load(path)
        categories = sorted((self._category(entry) for entry in values["categories"]), key=lambda entry: entry[0])
        self.category_ids = [number for number, _, _ in categories]
        self.names = [name for _, name, _ in categories]
        for kind, found in (("id", self.category_ids), ("name", self.names)):
            doubled = [value for index, value in enumerate(found) if value in found[:index]]
            if doubled:
                raise DataError(f"{path}: two categories have the {kind} {doubled[0]!r}; it must be unique")
        if not categories:
            raise DataError(f"{path}: has no categories; add them under 'categories' with id and name")
        colours = [colour for _, _, colour in categories if colour]
        self.colours = colours if len(set(colours)) == len(categories) else None
        entries = {self._value(entry, "id", int, "images"): entry for entry in values["images"]}
        if len(entries) < len(values["images"]):
            raise DataError(f"{path}: two images have one id; each needs its own")
        if not entries:
            raise DataError(f"{path}: has no images; give the file of another split")
        annotations: dict[int, list[dict[str, Any]]] = {}
        for entry in values["annotations"] if labels != "pixelmaps" else ():
            number = self._value(entry, "image_id", int, "annotations")
            if number not in entries:
                raise DataError(f"{path}: an annotation has the image_id {number}, but no image has this id")
            annotations.setdefault(number, []).append(entry)
        self.images = [self._image(entry, annotations.get(number, [])) for number, entry in entries.items()]
        self._check_images()

    def taxonomy(self, background: str | None) -> Taxonomy:
        """The categories as classes, after the background where there is one; labels of 255 classes are too many."""
        names = ([background] if background else []) + self.names
        if len(names) > 255:
            raise DataError(f"{self.path}: has {len(names)} classes; at most 255 can be learned, 255 means ignore")
        black: list[Colour] = [(0, 0, 0)] if background else []
        return Taxonomy.from_names(names, None if self.colours is None else black + self.colours)

    def _category(self, entry: Any) -> tuple[int, str, Colour | None]:
        colour = entry.get("color") if isinstance(entry, dict) else None
        whole = isinstance(colour, list) and len(colour) == 3 and all(type(v) is int and 0 <= v < 256 for v in colour)
        name = self._value(entry, "name", str, "categories")
        return self._value(entry, "id", int, "categories"), name, tuple(colour) if whole else None  # type: ignore[arg-type]

    def _image(self, entry: dict[str, Any], annotations: list[dict[str, Any]]) -> CocoImage:
        path = self._inside(self._folder, self._value(entry, "file_name", str, "images"))
        height, width = (self._value(entry, key, int, "images") for key in ("height", "width"))
        if self._labels == "panoptic":
            if len(annotations) != 1:
                raise DataError(
                    f"{self.path}: image '{path.name}' has {len(annotations)} annotations; a panoptic file has one each"
                )
            return CocoImage(path, height, width, *self._segments(annotations[0]), ())
        regions = [(self._known(a), self._region(a, height, width)) for a in annotations]
        return CocoImage(path, height, width, {}, None, regions)

    def _segments(self, annotation: dict[str, Any]) -> tuple[dict[int, int], Path]:
        folder = self.path.with_suffix("")
        mask = self._inside(folder, self._value(annotation, "file_name", str, "annotations"))
        segments = self._value(annotation, "segments_info", list, "annotations")
        return {self._value(s, "id", int, "segments_info"): self._known(s) for s in segments}, mask

    def _region(self, annotation: dict[str, Any], height: int, width: int) -> Region:
        try:
            return parse_region(annotation.get("segmentation"), height, width)
        except ValueError as error:
            raise DataError(f"{self.path}: annotation {annotation.get('id')} has {error}") from None

    def _known(self, entry: Any) -> int:
        number = int(self._value(entry, "category_id", int, "annotations"))
        if number not in self.category_ids:
            raise DataError(f"{self.path}: an annotation has the category_id {number}, but no category has this id")
        return number

    def _inside(self, folder: Path, name: str) -> Path:
        parts = PurePosixPath(name.replace("\\", "/"))
        if parts.is_absolute() or ".." in parts.parts:
            raise DataError(f"{self.path}: file_name '{name}' lies outside '{folder}'; names are relative to it")
        return folder / parts

    def _value(self, entry: Any, key: str, kind: type, place: str) -> Any:
        value = entry.get(key) if isinstance(entry, dict) else None
        if type(value) is not kind:
            raise DataError(f"{self.path}: an entry of '{place}' has {key} = {value!r}; needed is one {kind.__name__}")
        return value

    def _check_images(self) -> None:
        for what, paths in (
            ("image", [image.path for image in self.images]),
            ("PNG", [image.mask for image in self.images if image.mask]),
        ):
            missing = [path for path in paths if not path.is_file()]
            if missing:
                raise DataError(
                    f"{what} '{missing[0]}' does not exist ({len(missing)} of {len(paths)} in '{self.path.name}'); copy"
                    " the missing files, or name their folder in data.images"
                )


def _load(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_bytes())
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: not a JSON file ({error}); it may be truncated, copy it again") from None
    for key in ("images", "annotations", "categories"):
        if not isinstance(values, dict) or not isinstance(values.get(key), list):
            raise DataError(f"{path}: has no list '{key}', so it is no COCO file; give one with images and annotations")
    assert isinstance(values, dict)
    return values
