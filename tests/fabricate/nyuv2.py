"""NYU-Depth-v2 in its public formats, with rooms that a camera of known height and tilt looks into."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from hs3seg.data.hha import camera_for
from hs3seg.taxonomies.nyuv2 import FROM_40, NYU40, OBJECT_IDS

HEIGHT_METRES, WALL_METRES = 1.4, 4.0  # of the camera above the floor; of the wall from the camera
TILT_DEGREES = 8.0


@dataclass(frozen=True)
class Room:
    """One frame: rgb (H, W, 3) uint8, metres (H, W) in-filled, raw with holes of 0, labels (H, W) 0..40; its geometry.

    Geometry: where the floor is, height (H, W) in metres above it, direction of gravity (right, down, forward).
    """

    rgb: NDArray[np.uint8]
    metres: NDArray[np.float32]
    raw: NDArray[np.float32]
    labels: NDArray[np.uint8]
    floor: NDArray[np.bool_]
    height: NDArray[np.float64]
    gravity: NDArray[np.float64]


@dataclass(frozen=True)
class Form:
    """How the files are written.

    Args:
        layout: lists (`rgb depth label`), sagate (0-based, `rgb label`, RGB/ HHA/ Label/ Depth/), esanet (names,
            train/rgb, ...), folders (train/rgb, ... without lists), inside (rgb/train, ...), whole (no lists either,
            all frames in one folder).
        labels: 40, 40-from-0, 13, 13-from-0, 4, 4-from-0 or 894.
        depth: 8-bit, mm, tenth-mm, 16-bit-10m, npy, tiff, relative, or grey (8 bits, three equal channels).
        label_folder: Name of the folder; empty = the layout's own.
        holes: Whether the depth files are the raw ones.
        first: Number of the first frame, for layouts that allow both.
    """

    layout: str = "lists"
    labels: str = "40"
    depth: str = "8-bit"
    label_folder: str = ""
    holes: bool = False
    first: int = 1


def make_room(seed: int, size: tuple[int, int] = (48, 64)) -> Room:
    """A floor, a wall and some boxes; a frame of void around, as in the official pictures."""
    rng = np.random.default_rng(seed)
    height, width = size
    camera = camera_for(height, width)
    y = (np.arange(1, height + 1) - camera.cy)[:, None] / camera.fy * np.ones((1, width))
    tilt = np.radians(TILT_DEGREES)
    down = np.array([0.0, np.cos(tilt), np.sin(tilt)])  # the camera looks a little downwards
    ahead = np.array([0.0, -np.sin(tilt), np.cos(tilt)])
    with np.errstate(divide="ignore"):
        below = down[1] * y + down[2]
        to_floor = np.where(below > 0, HEIGHT_METRES / below, np.inf)
        to_wall = WALL_METRES / (ahead[1] * y + ahead[2])
    floor = to_floor < to_wall
    metres = np.minimum(to_floor, to_wall)
    labels = np.where(floor, 2, 1)
    for _ in range(5):
        top, left = int(rng.integers(0, height * 3 // 4)), int(rng.integers(0, width * 3 // 4))
        part = np.s_[top : top + height // 6, left : left + width // 6]
        metres[part] = np.minimum(metres[part], rng.uniform(1.0, 3.0))
        labels[part], floor[part] = int(rng.integers(3, 40)), False
    labels[height // 2 : height // 2 + 2, width // 2 : width // 2 + 2] = 40  # otherprop is nearly everywhere
    labels[height // 2 + 2 : height // 2 + 4, width // 2 : width // 2 + 2] = 9  # window is the last of the 13
    labels[height // 2 + 4 : height // 2 + 6, width // 2 : width // 2 + 2] = 4  # and bed the first
    edge = max(1, height // 60)
    inside = np.zeros(size, bool)
    inside[edge:-edge, edge:-edge] = True
    rgb = rng.integers(0, 256, (*size, 3))
    rgb[~inside] = 255
    raw = np.where(rng.random(size) < 0.1, 0, metres)
    return Room(
        rgb.astype(np.uint8),
        metres.astype(np.float32),
        raw.astype(np.float32),
        np.where(inside, labels, 0).astype(np.uint8),
        floor,
        HEIGHT_METRES - metres * below,
        down,
    )


def encode_labels(labels: NDArray[np.uint8], kind: str) -> NDArray[Any]:
    """Labels 0..40 as a kind of file holds them."""
    if kind == "894":
        objects = np.array([0, *(OBJECT_IDS.get(name, 890) for name in NYU40.names)], np.uint16)
        objects[38:41] = (8, 12, 894)  # otherstructure, otherfurniture, otherprop
        return objects[labels]
    size = int(kind.removesuffix("-from-0"))
    table = np.array([0, *(c + 1 for c in FROM_40[size])], np.uint8)
    return table[labels] - np.uint8(kind.endswith("-from-0"))  # 0 wraps round to 255


def encode_depth(metres: NDArray[np.float32], kind: str) -> NDArray[Any]:
    """Metres as a kind of file holds them; 0 stays 0."""
    known = metres > 0
    if kind in ("8-bit", "grey"):
        codes = np.where(known, np.clip(np.rint(metres * 25.5 - 0.5), 1, 255), 0).astype(np.uint8)
        return codes if kind == "8-bit" else np.repeat(codes[..., None], 3, axis=2)
    if kind == "relative":
        low, high = metres.min(), metres.max()
        return np.rint((metres - low) / (high - low) * 255).astype(np.uint8)
    if kind in ("npy", "tiff"):
        return metres
    scale = {"mm": 1000, "tenth-mm": 10000, "16-bit-10m": 6553.5}[kind]
    return np.clip(np.rint(metres * scale), 0, 65535).astype(np.uint16)


def make_nyuv2(
    root: Path,
    form: Form | None = None,
    train: int = 3,
    test: int = 2,
    size: tuple[int, int] = (48, 64),
    **changes: Any,
) -> Path:
    """Writes a small data set.

    Args:
        root: Where; its folders are made.
        form: How; `changes` are changes to it.
        train: Number of frames. Frames are numbered on from train to test.
        test: Number of frames.
        size: Height and width.
        **changes: Fields of `Form`.
    """
    form = replace(form or Form(), **changes)
    first = 0 if form.layout == "sagate" else form.first
    for split, start, count in (("train", 0, train), ("test", train, test)):
        lines = [
            _write_frame(root, form, split, position + first, make_room(position, size))
            for position in range(start, start + count)
        ]
        if form.layout in ("lists", "sagate", "esanet"):
            (root / f"{split}.txt").write_text("".join(f"{line}\n" for line in lines))
    return root


def _write_frame(root: Path, form: Form, split: str, number: int, room: Room) -> str:
    """Writes one frame and gives its line of the list."""
    name = str(number) if form.layout == "sagate" else f"{number:04}"
    rgb, depth, label = {"sagate": ("RGB", "Depth", "Label"), "lists": ("rgb", "depth", "label40")}.get(
        form.layout, ("rgb", "depth", "labels_40" if form.layout == "esanet" else "label")
    )
    label = form.label_folder or label
    if form.holes and form.layout != "lists":
        depth = "depth_raw"

    def place(folder: str, suffix: str) -> Path:
        parts = {"esanet": (split, folder), "folders": (split, folder), "inside": (folder, split)}
        path = root.joinpath(*parts.get(form.layout, (folder,)), name + suffix)
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    picture = place(rgb, ".png" if form.layout == "esanet" else ".jpg")
    Image.fromarray(room.rgb).save(picture)
    mask = Image.fromarray(encode_labels(room.labels, form.labels))
    if form.layout == "sagate":
        mask.putpalette(list(range(256)) * 3)
    mask.save(place(label, ".png"))
    values = encode_depth(room.raw if form.holes else room.metres, form.depth)
    suffix = {"npy": ".npy", "tiff": ".tiff"}.get(form.depth, ".png")
    if form.depth == "npy":
        np.save(place(depth, suffix), values)
    else:
        Image.fromarray(values).save(place(depth, suffix))
    if form.layout == "lists":
        return f"{rgb}/{picture.name} {depth}/{name}{suffix} {label}/{name}.png"
    return f"{rgb}/{picture.name}\t{label}/{name}.png" if form.layout == "sagate" else name


def make_nyuv2_mat(path: Path, frames: int = 8, size: tuple[int, int] = (48, 64), leave_out: str = "") -> Path:
    """Writes a small nyu_depth_v2_labeled.mat as MATLAB 7.3 does: HDF5 behind a header of 512 bytes, axes reversed.

    Args:
        path: Where.
        frames: Number of frames; frame n is `make_room(n)`, n from 1.
        size: Height and width.
        leave_out: A variable that is not written.
    """
    import h5py

    rooms = [make_room(number, size) for number in range(1, frames + 1)]
    objects = np.stack([encode_labels(room.labels, "894") for room in rooms])
    variables = {
        "images": np.stack([room.rgb.transpose(2, 1, 0) for room in rooms]),
        "depths": np.stack([room.metres.T for room in rooms]),
        "rawDepths": np.stack([room.raw.T for room in rooms]),
        "labels": objects.transpose(0, 2, 1),
    }
    names = [f"object {number}" for number in range(1, 895)]
    for name, number in OBJECT_IDS.items():
        names[number - 1] = name
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w", userblock_size=512) as file:
        for name, values in variables.items():
            if name != leave_out:
                file.create_dataset(name, data=values, chunks=(1, *values.shape[1:]), compression="gzip")
        if leave_out != "names":
            cells = file.create_dataset("names", (1, len(names)), dtype=h5py.ref_dtype)
            for position, name in enumerate(names):
                codes = np.array([[ord(letter)] for letter in name], np.uint16)
                cells[0, position] = file.create_dataset(f"#refs#/n{position}", data=codes).ref
            cells.attrs["MATLAB_class"] = np.bytes_("cell")
    header = b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(124) + b"\x00\x02IM"
    with path.open("r+b") as file:
        file.write(header)
    return path
