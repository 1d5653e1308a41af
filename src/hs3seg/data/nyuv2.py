"""NYU-Depth-v2's labelled frames: 795 train, 654 test, RGB with depth (Silberman et al., 2012)."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torchvision import tv_tensors

from hs3seg.data.depth import DepthUnit
from hs3seg.data.hha import TOOLBOX_CROP, Camera, camera_for, hha
from hs3seg.data.images import read_image
from hs3seg.data.nyuv2_folder import Depth, FolderSource, HHASource
from hs3seg.data.nyuv2_labels import Labels
from hs3seg.data.nyuv2_mat import MatSource, find_mat
from hs3seg.data.sample import Sample
from hs3seg.errors import DataError
from hs3seg.files import write_atomically
from hs3seg.taxonomies.nyuv2 import NYU40, TAXONOMIES, Classes, check_classes
from hs3seg.taxonomy import Taxonomy

_CHANNELS: dict[Depth, int] = {"none": 3, "raw": 4, "filled": 4, "hha": 6}


class NYUv2:
    """One split.

    Depth follows RGB as further channels of 8 bits: `raw` (as measured or, in folders with one kind of depth, as it is)
    and `filled` are one channel, metres = (v + 0.5) / 25.5, see `hs3seg.data.depth`; `hha` is three: disparity, height,
    angle, see `hs3seg.data.hha`.

    Args:
        root: A folder in one of the layouts of `hs3seg.data.nyuv2_layout`; or nyu_depth_v2_labeled.mat, or the folder
            that holds it.
        split: train or test. There is no official val; in a folder, any list that is there is read.
        depth: What follows RGB.
        classes: 40, 13 or 4. The names of the 40 are those of ROOT/classes40.txt (`ID NAME` per line), if there.
        labels: What label files hold: classes from 1 with 0 for void (`40`, `13`, `4`), from 0 with 255 for void
            (`40-from-0`, ...), object ids (`894`); auto finds out.
        depth_unit: What depth files hold, see `hs3seg.data.depth.DepthReader`; auto finds out.
        hha_source: files = HHA pictures of the data set; depth = computed; auto = files where there are some.
        hha_cache: Folder for computed HHA, one PNG per frame; without it, each reading computes it anew.
        camera: For HHA, of an image of the frames' size; default `hs3seg.data.hha.camera_for`.

    Attributes:
        notes: What was found out about the files, in sentences.

    Raises:
        DataError: no such split or files; files whose meaning is unclear (set `labels` or `depth_unit`); h5py missing.
    """

    class_names = NYU40.names

    def __init__(
        self,
        root: Path | str,
        split: str,
        depth: Depth = "none",
        *,
        classes: int = 40,
        labels: Labels = "auto",
        depth_unit: DepthUnit = "auto",
        hha_source: HHASource = "auto",
        hha_cache: Path | None = None,
        camera: Camera | None = None,
    ) -> None:
        root = Path(root)
        if depth not in _CHANNELS:
            raise DataError(f"NYU-Depth-v2 with depth = {depth!r}; allowed: {', '.join(_CHANNELS)}")
        self.split, self._depth, self._camera = split, depth, camera
        self._cache = Path(hha_cache) if hha_cache is not None else None
        classes = check_classes(classes)
        mat = find_mat(root)
        self._source: _Source
        if mat is not None and not (root / f"{split}.txt").is_file():
            self.taxonomy = TAXONOMIES[classes]
            if depth == "hha" and hha_source == "files":
                raise DataError(f"{mat}: holds no HHA pictures; set hha_source = 'depth', or 'auto'")
            self._source = MatSource(mat, split, depth, classes)
        else:
            self.taxonomy = _taxonomy(root, classes)
            self._source = FolderSource(root, split, depth, classes, labels, depth_unit, hha_source)
        self.notes = (*self._source.notes, *self._camera_note())

    @property
    def channels(self) -> int:
        """Channels of the images: RGB, and depth where it is asked for."""
        return _CHANNELS[self._depth]

    @property
    def names(self) -> Sequence[str]:
        """File stems of the RGB images; of the .mat file, the official frame numbers, from 0001."""
        return self._source.names

    def __len__(self) -> int:
        return len(self._source.names)

    def read(self, index: int) -> Sample:
        """One frame, (3, H, W) or with depth (4 or 6, H, W), and its labels."""
        image = self._source.image(index)
        mask = self._source.mask(index, image)
        if self._depth == "hha":
            image = torch.cat([image, self._hha(index, image)])
        elif self._depth != "none":
            image = torch.cat([image, self._source.channel(index, image)])
        return Sample(tv_tensors.Image(image), tv_tensors.Mask(mask), self.names[index])

    def files(self, index: int) -> tuple[str, ...]:
        """RGB image, depth where it is read, and label; or the .mat file with the frame's number."""
        return self._source.files(index)

    def _camera_note(self) -> tuple[str, ...]:
        """Says so where the first frame has a shape for which no camera is known."""
        if self._depth != "hha" or self._camera is not None:
            return ()
        try:
            image = self._source.image(0)
            height, width = image.shape[1:]
            computed = self._source.picture(0, image) is None
        except DataError:
            return ()  # the check of the data reports it with its place
        if not computed or abs(width * 3 / (height * 4) - 1) < 0.01 or (height, width) == TOOLBOX_CROP:
            return ()
        return (
            f"Frames of {width}x{height} have another shape than the camera's 640x480; if they were cropped, HHA needs"
            " camera = NYU_CAMERA.cropped(...).",
        )

    def _hha(self, index: int, image: Tensor) -> Tensor:
        """HHA (3, H, W) of a frame: a picture of the data set, from the cache, or computed."""
        picture = self._source.picture(index, image)
        if picture is not None:
            return picture
        metres = self._source.metres(index, image)
        camera = self._camera or camera_for(*metres.shape)
        if self._cache is None:
            return _planes(hha(metres, camera=camera))
        key = hashlib.blake2b(repr((camera, metres.shape)).encode(), digest_size=8)
        key.update(metres.tobytes())
        path = self._cache / f"{self.names[index].replace('/', '_')}-{key.hexdigest()}.png"
        if path.is_file():
            try:
                return read_image(path)
            except DataError:
                pass  # damaged: made anew
        pixels = hha(metres, camera=camera)
        write_atomically(path, lambda temporary: Image.fromarray(pixels).save(temporary, "PNG"))
        return _planes(pixels)


class _Source(Protocol):
    """Where frames come from; `image` is a frame's RGB, whose size the others must have."""

    @property
    def names(self) -> Sequence[str]: ...

    @property
    def notes(self) -> tuple[str, ...]: ...

    def image(self, index: int) -> Tensor: ...

    def mask(self, index: int, image: Tensor, /) -> Tensor: ...

    def channel(self, index: int, image: Tensor, /) -> Tensor: ...

    def metres(self, index: int, image: Tensor, /) -> NDArray[np.float32]: ...

    def picture(self, index: int, image: Tensor, /) -> Tensor | None: ...

    def files(self, index: int) -> tuple[str, ...]: ...


def _planes(pixels: NDArray[np.uint8]) -> Tensor:
    return torch.from_numpy(pixels).permute(2, 0, 1).contiguous()


def _taxonomy(root: Path, classes: Classes) -> Taxonomy:
    """The classes; names of the 40 from lines `ID NAME` of ROOT/classes40.txt, where there is such a file."""
    path = root / "classes40.txt"
    if classes != 40 or not path.is_file():
        return TAXONOMIES[classes]
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise DataError(f"{path}: not UTF-8 text; save it as UTF-8, or remove it") from None
    names: dict[int, str] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        word, _, name = line.strip().partition(" ")
        if not word.isdecimal() or not name.strip() or int(word) > classes or int(word) in names:
            raise DataError(f"{path}:{number}: '{line}' is no class; write one line `ID NAME` for each id 0..40")
        names[int(word)] = name.strip()
    missing = [i for i in range(1, classes + 1) if i not in names]
    if missing:
        raise DataError(
            f"{path}: id {missing[0]} has no name; write one line `ID NAME` for each id 1..40, or remove it"
        )
    return Taxonomy.from_names(names[i] for i in range(1, classes + 1))
