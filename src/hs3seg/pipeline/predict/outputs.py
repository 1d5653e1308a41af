"""What is written of a prediction: names of the files, and their pixels.

Shapes: K classes, H x W the image's own size.
"""

import os
import shutil
import zipfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from hs3seg.engine.tiles import Strip
from hs3seg.errors import ConfigError, nearest
from hs3seg.files import write_atomically
from hs3seg.taxonomy import Taxonomy

_ENDINGS = {
    "palette": (".png",),
    "index": ("-index.png",),
    "colour": ("-colour.png",),
    "overlay": ("-overlay.png",),
    "probability": ("-probability.npz", "-confidence.png"),
}
OUTPUTS = (*_ENDINGS, "both")
"""`both` = palette and overlay."""
_VIDEOS = ("colour", "overlay")  # of a video these are videos, the others numbered files
_BLOCK_ROWS = 256  # blended at once: a float copy of a whole large image is never made


class Outputs:
    """Where results go, and how they look.

    Args:
        folder: Below which all is written.
        kinds: Of `OUTPUTS`, as words or as one text with commas.
        taxonomy: Classes and colours.
        ids: Value of each class in `index` files, 0..65535; None = the class ids themselves.

    Raises:
        ConfigError: an unknown output; ids that do not fit the classes; a palette of more than 256 classes.
    """

    def __init__(
        self, folder: Path, kinds: str | Sequence[str], taxonomy: Taxonomy, ids: Sequence[int] | None = None
    ) -> None:
        words = kinds.split(",") if isinstance(kinds, str) else kinds
        for word in words:
            if word not in OUTPUTS:
                raise ConfigError(f"unknown output '{word}'; {nearest(word, OUTPUTS)}")
        chosen = [kind for word in words for kind in (("palette", "overlay") if word == "both" else (word,))]
        self.kinds = tuple(dict.fromkeys(chosen))
        if not self.kinds:
            raise ConfigError(f"no output is chosen; allowed: {', '.join(OUTPUTS)}")
        count = taxonomy.num_classes
        if "palette" in self.kinds and count > 256:
            raise ConfigError(f"output 'palette' holds 256 classes, there are {count}; take 'index', which has 16 bits")
        values = list(range(count)) if ids is None else list(ids)
        if len(values) != count or min(values) < 0 or max(values) > 65535:
            raise ConfigError(
                f"{len(values)} ids from {min(values, default=0)} to {max(values, default=0)} for {count} classes; give"
                " one id of 0..65535 for each class"
            )
        self.folder, self._taxonomy = folder, taxonomy
        self._ids = np.array(values, np.uint8 if max(values) < 256 else np.uint16)
        self._colours = np.array(taxonomy.colours, np.uint8)

    def results(self, name: str, is_video: bool) -> list[Path]:
        """What will be there of one input; of a video's numbered files the folder."""
        if not is_video:
            return [self.folder / f"{name}{ending}" for kind in self.kinds for ending in _ENDINGS[kind]]
        frames = [self.folder / name] if self.frame_kinds else []
        return [*frames, *(self.video_path(name, kind) for kind in self.video_kinds)]

    @property
    def frame_kinds(self) -> tuple[str, ...]:
        """Outputs that are one file per frame."""
        return tuple(kind for kind in self.kinds if kind not in _VIDEOS)

    @property
    def video_kinds(self) -> tuple[str, ...]:
        """Outputs that are videos where the input is one."""
        return tuple(kind for kind in self.kinds if kind in _VIDEOS)

    def frame_paths(self, name: str, number: int) -> list[Path]:
        """Numbered files of a video's frame, counted from 0."""
        base = self.folder / name
        return [base / f"{number:06}{ending}" for kind in self.frame_kinds for ending in _ENDINGS[kind]]

    def video_path(self, name: str, kind: str) -> Path:
        """File of a video output."""
        return self.folder / f"{name}-{kind}.mp4"

    def save(self, name: str, image: Tensor, strips: Iterable[Strip], kinds: Sequence[str]) -> NDArray[Any]:
        """Takes an image's scores and writes its files, each whole or not at all.

        Args:
            name: Of the results; `FOLDER/000012` for a frame.
            image: (C, H, W) uint8; the first three channels are RGB.
            strips: Scores (K, rows, W) from the top to the bottom.
            kinds: Outputs to write.

        Returns:
            Class ids (H, W), uint8 or, of more than 256 classes, uint16.
        """
        paths = {kind: [self.folder / f"{name}{ending}" for ending in _ENDINGS[kind]] for kind in kinds}
        if "probability" in kinds:
            arrays, confidence_path = paths["probability"]
            with _Probabilities(arrays, image.shape[-2:], self._taxonomy.names) as file:
                ids = self._collect(image, strips, file)
            _save_picture(confidence_path, Image.fromarray(file.confidence))
        else:
            ids = self._collect(image, strips, None)
        if "palette" in kinds:
            picture = Image.fromarray(ids, mode="P")
            picture.putpalette(self._colours.tobytes())
            _save_picture(paths["palette"][0], picture)
        if "index" in kinds:
            _save_picture(paths["index"][0], Image.fromarray(self._ids[ids]))
        for kind in _VIDEOS:
            if kind in kinds:
                _save_picture(paths[kind][0], Image.fromarray(self.pixels(kind, image, ids)))
        return ids

    def pixels(self, kind: str, image: Tensor, ids: NDArray[Any]) -> NDArray[np.uint8]:
        """Class colours (H, W, 3), with `overlay` half and half with the image."""
        pixels: NDArray[np.uint8] = self._colours[ids]
        if kind == "overlay":
            for top in range(0, len(pixels), _BLOCK_ROWS):
                rows = slice(top, top + _BLOCK_ROWS)
                below = image[:3, rows].permute(1, 2, 0).numpy().astype(np.uint16)
                pixels[rows] = (below + pixels[rows]) // 2
        return pixels

    def _collect(self, image: Tensor, strips: Iterable[Strip], file: "_Probabilities | None") -> NDArray[Any]:
        ids = np.empty(image.shape[-2:], np.uint8 if self._taxonomy.num_classes <= 256 else np.uint16)
        for top, scores in strips:
            ids[top : top + scores.shape[1]] = scores.argmax(0).cpu().numpy()
            if file is not None:
                file.add(top, scores.softmax(0).cpu().numpy())
        return ids


class _Probabilities:
    """Writes an .npz file strip by strip: `probabilities` (K, H, W) float16 and `names` (K,).

    Args:
        path: Of the file.
        size: (H, W).
        names: Of the classes.
    """

    def __init__(self, path: Path, size: Sequence[int], names: Sequence[str]) -> None:
        self._path, self._names = path, names
        self._shape = (len(names), *size)
        self._raw = path.with_name(f".{path.name}.{os.getpid()}.npy")
        self.confidence = np.empty(tuple(size), np.uint8)
        """Largest probability (H, W), 0..255."""

    def __enter__(self) -> Self:
        self._raw.parent.mkdir(parents=True, exist_ok=True)
        self._file = self._raw.open("wb")
        header = {"descr": "<f2", "fortran_order": False, "shape": self._shape}
        np.lib.format.write_array_header_1_0(self._file, header)
        self._start = self._file.tell()
        return self

    def add(self, top: int, probabilities: NDArray[np.float32]) -> None:
        """Rows (K, rows, W) from `top` on."""
        _, height, width = self._shape
        rows = probabilities.shape[1]
        self.confidence[top : top + rows] = np.rint(255 * probabilities.max(0))
        for label, values in enumerate(probabilities):
            self._file.seek(self._start + 2 * width * (label * height + top))
            self._file.write(values.astype("<f2").tobytes())

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._file.close()
        try:
            if kind is None:
                write_atomically(self._path, self._pack)
        finally:
            self._raw.unlink(missing_ok=True)

    def _pack(self, temporary: Path) -> None:
        with zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
            with self._raw.open("rb") as raw, archive.open("probabilities.npy", "w", force_zip64=True) as entry:
                shutil.copyfileobj(raw, entry, 2**20)
            with archive.open("names.npy", "w") as entry:
                np.save(entry, np.array(self._names), allow_pickle=False)


def _save_picture(path: Path, picture: Image.Image) -> None:
    write_atomically(path, lambda temporary: picture.save(temporary, format="PNG"))
