"""Every reader of photos turns them as prediction does, and their labels along where these lie on the stored pixels."""

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from hs3seg.data import ADE20K, CamVid, Coco, PascalVOC, read_image
from hs3seg.data.camvid import CAMVID32, FRAMES, LABELS
from hs3seg.data.huggingface import HuggingFace
from hs3seg.data.images import turned
from hs3seg.data.sample import SegmentationDataset
from hs3seg.data.voc import IMAGES, LISTS, MASKS
from hs3seg.errors import DataError
from hs3seg.taxonomy import Taxonomy
from tests.unit.data.test_ade20k import make_ade20k

Maker = Callable[[Path, bytes, np.ndarray], SegmentationDataset]
"""Makes a data set of one photo, the bytes of a PNG file, and its classes (H, W), 0 or 1."""


def put(path: Path, content: bytes | np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        Image.fromarray(content.astype(np.uint8)).save(path)


def voc(root: Path, photo: bytes, classes: np.ndarray) -> SegmentationDataset:
    put(root / IMAGES / "a.png", photo)
    put(root / MASKS / "a.png", classes)
    put(root / LISTS / "train.txt", b"a\n")
    return PascalVOC(root, "train")


def ade20k(root: Path, photo: bytes, classes: np.ndarray) -> SegmentationDataset:
    make_ade20k(root)
    (root / "images" / "validation" / "ADE_valid_00000001.jpg").unlink()
    put(root / "images" / "validation" / "ADE_valid_00000001.png", photo)
    put(root / "annotations" / "validation" / "ADE_valid_00000001.png", classes + 1)
    return ADE20K(root, "val")


def camvid(root: Path, photo: bytes, classes: np.ndarray) -> SegmentationDataset:
    put(root / FRAMES / "0006R0_f00930.png", photo)
    put(root / LABELS / "0006R0_f00930_L.png", np.array(CAMVID32.colours)[classes])
    return CamVid(root, "train", 32)


def coco(kind: str) -> Maker:
    def make(root: Path, photo: bytes, classes: np.ndarray) -> SegmentationDataset:
        put(root / "train" / "a.png", photo)
        where = root / "annotations"
        name = {"pixelmaps": "stuff"}.get(kind, kind) + "_train"
        height, width = classes.shape
        counts = [0]
        for value in classes.T.ravel().tolist():  # runs, which begin with one of zeros
            if value != (len(counts) - 1) % 2:
                counts.append(0)
            counts[-1] += 1
        annotation: dict[str, Any] = {"id": 1, "image_id": 1, "category_id": 2}
        if kind == "panoptic":
            put(where / name / "a.png", np.stack([classes + 1, 0 * classes, 0 * classes], -1))
            segments = [{"id": 1, "category_id": 1}, {"id": 2, "category_id": 2}]
            annotation |= {"file_name": "a.png", "segments_info": segments}
        if kind == "pixelmaps":
            put(where / f"{name}_pixelmaps" / "a.png", classes + 1)
        if kind == "instances":
            annotation["segmentation"] = {"size": [height, width], "counts": counts}
        image = {"id": 1, "file_name": "a.png", "height": height, "width": width}
        categories = [{"id": 1, "name": "background"}, {"id": 2, "name": "front"}]
        values = {"images": [image], "annotations": [annotation], "categories": categories}
        put(where / f"{name}.json", json.dumps(values).encode())
        return Coco(root, "train", kind)  # type: ignore[arg-type]

    return make


def hugging_face(root: Path, photo: bytes, classes: np.ndarray) -> SegmentationDataset:
    datasets = pytest.importorskip("datasets")
    mask = io.BytesIO()
    Image.fromarray(classes.astype(np.uint8)).save(mask, "PNG")
    values = {"image": [{"bytes": photo, "path": None}], "mask": [{"bytes": mask.getvalue(), "path": None}]}
    pictures = datasets.Features({"image": datasets.Image(), "mask": datasets.Image()})
    datasets.Dataset.from_dict(values, pictures).save_to_disk(root / "saved")
    return HuggingFace(root / "saved", "train", Taxonomy.from_names(["a", "b"]))


MAKERS: dict[str, Maker] = {
    "voc": voc,
    "ade20k": ade20k,
    "camvid": camvid,
    "coco instances": coco("instances"),
    "coco panoptic": coco("panoptic"),
    "coco pixelmaps": coco("pixelmaps"),
    "hugging face": hugging_face,
}


def photo_of(classes: np.ndarray, orientation: int) -> bytes:
    """A photo as stored, in which class 1 has the level 100."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    file = io.BytesIO()
    Image.fromarray(np.stack([100 * classes] * 3, -1).astype(np.uint8)).save(file, "PNG", exif=exif)
    return file.getvalue()


def stored_classes(height: int, width: int) -> np.ndarray:
    classes = np.zeros((height, width), np.int64)
    classes[1:3, : width - 1] = 1
    classes[0, 0] = 1
    return classes


@pytest.mark.parametrize("kind", MAKERS)
@pytest.mark.parametrize(("orientation", "as_shown"), [(1, False), (6, True), (6, False), (7, True), (7, False)])
def test_labels_lie_on_their_pixels(tmp_path: Path, kind: str, orientation: int, as_shown: bool) -> None:
    stored = stored_classes(4, 6)
    drawn = turned(torch.from_numpy(stored), orientation).numpy() if as_shown else stored
    photo = photo_of(stored, orientation)
    put(tmp_path / "photo.png", photo)
    sample = MAKERS[kind](tmp_path / "set", photo, drawn).read(0)
    image = sample.image.as_subclass(Tensor)
    assert torch.equal(image, read_image(tmp_path / "photo.png", upright=True))  # as `hs3 predict` sees it
    assert torch.equal(image[0].long(), 100 * sample.mask.as_subclass(Tensor))


@pytest.mark.parametrize("kind", MAKERS)
@pytest.mark.parametrize(("height", "width", "orientation"), [(4, 6, 2), (4, 6, 3), (5, 5, 8)])
def test_what_sizes_do_not_tell_is_refused(
    tmp_path: Path, kind: str, height: int, width: int, orientation: int
) -> None:
    stored = stored_classes(height, width)
    dataset = MAKERS[kind](tmp_path, photo_of(stored, orientation), stored)
    with pytest.raises(DataError) as caught:
        dataset.read(0)
    message = str(caught.value)
    assert message.startswith(f"{dataset.files(0)[0]}")
    assert f"is turned by its EXIF orientation {orientation}, its labels have none" in message
    assert "save the image upright; if on the stored pixels, remove the tag" in message


@pytest.mark.parametrize("kind", ["voc", "coco instances", "hugging face"])
def test_other_sizes_still_differ(tmp_path: Path, kind: str) -> None:
    dataset = MAKERS[kind](tmp_path, photo_of(stored_classes(4, 6), 6), stored_classes(4, 7))
    with pytest.raises(DataError, match=r"7x4"):
        dataset.read(0)
