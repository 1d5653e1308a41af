"""Cityscapes: 2975 train, 500 val, 1525 test and 19998 train_extra street scenes of 2048x1024 (Cordts et al., 2016)."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchvision import tv_tensors

from hs3seg.data.cityscapes_layout import Frame, LabelFile, Source, find_frames
from hs3seg.data.images import raw_mask, read_image
from hs3seg.data.pairs import check_size
from hs3seg.data.sample import Sample
from hs3seg.errors import DataError
from hs3seg.taxonomies.cityscapes import CITYSCAPES, ID_OF_TRAIN_ID, IGNORED, NUM_IDS, TRAIN_ID_OF_ID

Depth = Literal["none", "disparity"]

# The part of autolabelled frames that is kept where the border is cut off: rows and columns of 1024 and 2048.
_KEPT_ROWS, _KEPT_COLUMNS = (15, 840, 1024), (14, 2030, 2048)


class Cityscapes:
    """One split, in the official folders: leftImg8bit, gtFine, gtCoarse, disparity, each SPLIT/CITY/FILE.

    Labels are read from *_labelIds.png, or from *_labelTrainIds.png for frames without them; `notes` says which. In
    test, which has no public labels, no label file is read and all pixels are ignored.

    Disparity is a fourth channel of 8 bits: v = 0 where there is none, else d = (v - 1) / 2 pixels of 2048, 0..127; its
    files hold p = 0 or d = (p - 1) / 256. Depth in metres is about 470 / d (baseline 0.21 m, focal length 2260 pixels).

    Args:
        root: Top folder.
        split: train, val, test, trainval (train and val), train_extra, or several with `+`: train+train_extra.
        labels: fine; coarse, of train, val and train_extra; autolabelled: train_extra's made by a network, from
            refinement_final_v0.zip, and the fine ones in all other splits.
        cv: 0 = official train and val; 1, 2 = other cities in val; 3 = train has val's cities too. See
            `hs3seg.data.cityscapes_layout.parts_of`.
        depth: disparity = the fourth channel; none = RGB.
        coarse_threshold: Autolabelled pixels of a smaller probability, 0..1, are ignored.
        coarse_classes: Classes that are not believed in autolabelled files: where those or the coarse labels have one,
            the coarse label counts. HMS: truck, bus, train.
        coarse_cut_border: Whether the border of autolabelled frames is ignored, as in HMS: all but rows 15..839 and
            columns 14..2029 of 1024x2048.

    Attributes:
        notes: What was found, in sentences.

    Raises:
        DataError: no such split or option; missing folders or files.
    """

    taxonomy = CITYSCAPES

    def __init__(
        self,
        root: Path | str,
        split: str,
        *,
        labels: Source = "fine",
        cv: int = 0,
        depth: Depth = "none",
        coarse_threshold: float = 0.5,
        coarse_classes: Sequence[str] = (),
        coarse_cut_border: bool = False,
    ) -> None:
        if labels not in ("fine", "coarse", "autolabelled"):
            raise DataError(f"Cityscapes with labels = {labels!r}; allowed: fine, coarse, autolabelled")
        if depth not in ("none", "disparity"):
            raise DataError(f"Cityscapes with depth = {depth!r}; allowed: none, disparity")
        if not 0 <= coarse_threshold <= 1:
            raise DataError(f"coarse_threshold = {coarse_threshold} is no probability; allowed: 0..1")
        self.split = split
        self._depth, self._labels = depth, labels
        self._threshold, self._cut_border = coarse_threshold, coarse_cut_border
        self._coarse_classes = tuple(sorted(CITYSCAPES.index(name) for name in coarse_classes))
        self._frames, notes = find_frames(
            Path(root), split, labels, cv, depth == "disparity", bool(self._coarse_classes)
        )
        self.notes = tuple(notes)
        self._names = [frame.name for frame in self._frames]

    @property
    def channels(self) -> int:
        """3, or 4 with disparity."""
        return 4 if self._depth == "disparity" else 3

    @property
    def names(self) -> Sequence[str]:
        """`city_sequence_frame` of each image, by folder, city and name."""
        return self._names

    @property
    def label_source(self) -> str:
        """What the labels depend on besides the files, for caches made from them."""
        if self._labels != "autolabelled":
            return self._labels
        return f"autolabelled {self._threshold} {self._coarse_classes} {self._cut_border}"

    def __len__(self) -> int:
        return len(self._frames)

    def read(self, index: int) -> Sample:
        """One image, (3, H, W) or with disparity (4, H, W), and its train ids."""
        frame = self._frames[index]
        image = read_image(frame.image)
        if frame.disparity is not None:
            channel = read_disparity(frame.disparity)
            check_size(frame.disparity, channel, frame.image, image)
            both = torch.cat([image, channel])
        else:
            both = image
        if frame.label is None:
            mask = torch.full(image.shape[1:], IGNORED, dtype=torch.int64)
        else:
            mask = self.read_mask(index)
            check_size(frame.label.path, mask, frame.image, image)
        return Sample(tv_tensors.Image(both), tv_tensors.Mask(mask), frame.name)

    def read_mask(self, index: int) -> Tensor:
        """Train ids (H, W) int64 without the image, 0..18 and 255.

        Raises:
            DataError: unreadable or wrong labels; test has none.
        """
        return torch.from_numpy(TRAIN_ID_OF_ID[self._label_ids(*self._labelled(index))].astype(np.int64))

    def read_label_ids(self, index: int) -> Tensor:
        """Label ids (H, W) int64, 0..33, as the official evaluation needs them; of train ids, 255 becomes 0.

        Raises:
            DataError: unreadable or wrong labels; test has none.
        """
        return torch.from_numpy(self._label_ids(*self._labelled(index)).astype(np.int64))

    def read_instances(self, index: int) -> Tensor:
        """Instance ids (H, W) int64: 1000 * label id + number, or the label id where there is no instance.

        Raises:
            DataError: no *_instanceIds.png beside the label, unreadable, or of another size.
        """
        frame, label = self._labelled(index)
        if frame.probability is not None:
            raise DataError(f"frame '{frame.name}' is autolabelled, which knows no instances; read the fine labels")
        stem = label.path.stem.removesuffix("_labelIds").removesuffix("_labelTrainIds")
        path = label.path.with_name(f"{stem}_instanceIds.png")
        if not path.is_file():
            raise DataError(
                f"'{path}' does not exist; iIoU needs it, it lies beside the labels in the official archive"
            )
        instances = torch.from_numpy(_one_channel(path).astype(np.int64))
        truth = self.read_label_ids(index)
        check_size(path, instances, label.path, truth)
        return instances

    def files(self, index: int) -> tuple[str, ...]:
        """Image, disparity, further label files, and the label last; what is read of them."""
        frame = self._frames[index]
        labels = (frame.coarse, frame.label)
        paths = [frame.image, frame.disparity, frame.probability, *(label.path for label in labels if label)]
        return tuple(str(path) for path in paths if path is not None)

    def _labelled(self, index: int) -> tuple[Frame, LabelFile]:
        frame = self._frames[index]
        if frame.label is None:
            raise DataError(f"frame '{frame.name}' of split '{self.split}' has no public label")
        return frame, frame.label

    def _label_ids(self, frame: Frame, label: LabelFile) -> NDArray[np.uint8]:
        """Label ids (H, W) of a frame, 0 where an autolabelled pixel is not believed."""
        ids = read_label_ids(label)
        if frame.probability is None:
            return ids
        probability = _one_channel(frame.probability)
        check_size(frame.probability, torch.from_numpy(probability), label.path, torch.from_numpy(ids))
        kept = probability / 255.0 >= self._threshold
        if self._cut_border:
            kept &= _inside(ids.shape)
        ids = np.where(kept, ids, 0).astype(np.uint8)
        if frame.coarse is not None:
            coarse = read_label_ids(frame.coarse)
            check_size(frame.coarse.path, torch.from_numpy(coarse), label.path, torch.from_numpy(ids))
            doubted = np.isin(ids, ID_OF_TRAIN_ID[list(self._coarse_classes)])
            drawn = np.isin(coarse, ID_OF_TRAIN_ID[list(self._coarse_classes)])
            ids = np.where(doubted | drawn, coarse, ids)
        return ids


def read_label_ids(file: LabelFile) -> NDArray[np.uint8]:
    """Label ids of a file of label ids or of train ids.

    Returns:
        (H, W) uint8, 0..33; 0 for the 255 of train ids.

    Raises:
        DataError: unreadable, an id that is none, or the ids of the other kind where that can be told.
    """
    values = _one_channel(file.path)
    allowed = np.zeros(65536, bool)
    allowed[: len(ID_OF_TRAIN_ID) if file.train_ids else NUM_IDS] = True
    allowed[IGNORED] = file.train_ids
    wrong = ~allowed[values]
    if wrong.any():
        y, x = (int(v) for v in np.argwhere(wrong)[0])
        kind, other = ("train ids", "label ids") if file.train_ids else ("label ids", "train ids")
        limits = "0..18 and 255" if file.train_ids else f"0..{NUM_IDS - 1}"
        found = values[wrong]
        could_be_other = (found < NUM_IDS).all() if file.train_ids else (found == IGNORED).all()
        ending = "_labelIds.png" if file.train_ids else "_labelTrainIds.png"
        hint = f"; these may be {other}: such files end in {ending}" if could_be_other else "; copy the file again"
        raise DataError(
            f"{file.path}: value {values[y, x]} at x={x}, y={y} ({int(wrong.sum())} such pixels); {kind} are"
            f" {limits}{hint}"
        )
    if not file.train_ids:
        return values.astype(np.uint8)
    table = np.zeros(256, np.uint8)
    table[: len(ID_OF_TRAIN_ID)] = ID_OF_TRAIN_ID
    return np.asarray(table[values])


def read_disparity(path: Path) -> Tensor:
    """A disparity file as a channel: v = 0 where there is none, else v = 1 + 2 * disparity in pixels, at most 255.

    Returns:
        (1, H, W) uint8.

    Raises:
        DataError: unreadable, or not one channel of 16 bits.
    """
    values = raw_mask(path)
    if values.ndim != 2 or values.dtype.itemsize < 2:
        raise DataError(f"{path}: is no 16-bit disparity (shape {values.shape}, {values.dtype}); copy the file again")
    return disparity_channel(values)


def disparity_channel(values: NDArray[Any]) -> Tensor:
    """Values (H, W) of a disparity file, 0..65535, as a channel (1, H, W) uint8; see `read_disparity`."""
    codes = 1 + np.rint((values.astype(np.int64) - 1) / 128)
    return torch.from_numpy(np.where(values > 0, np.clip(codes, 1, 255), 0).astype(np.uint8))[None]


def _one_channel(path: Path) -> NDArray[Any]:
    """Values of an 8- or 16-bit file, (H, W), 0..65535."""
    values = raw_mask(path)
    if values.ndim != 2:
        raise DataError(f"{path}: has {values.shape[2]} channels, but labels have one; *_color.png files are no labels")
    if values.size and (values.min() < 0 or values.max() > 65535):
        raise DataError(f"{path}: holds values {values.min()}..{values.max()}; save it with 8 or 16 bits per pixel")
    return values


def _inside(shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """Pixels (H, W) of an autolabelled frame that are kept when its border is cut off."""
    inside = np.zeros(shape, bool)
    (top, bottom, height), (left, right, width) = _KEPT_ROWS, _KEPT_COLUMNS
    rows = slice(round(top * shape[0] / height), round(bottom * shape[0] / height))
    inside[rows, round(left * shape[1] / width) : round(right * shape[1] / width)] = True
    return inside
