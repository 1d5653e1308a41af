"""Reading and writing video files through PyAV, the extra `video`."""

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hs3seg.errors import DataError

VIDEO_SUFFIXES = frozenset((".mp4", ".avi", ".mkv", ".mov", ".webm"))
_ENCODERS = ("libx264", "libopenh264", "mpeg4")  # the first one that the build of FFmpeg has
_OPTIONS = {"libx264": {"crf": "18"}, "mpeg4": {"q": "3"}}
_MISSING_SHARE = 0.05


@dataclass(frozen=True, slots=True)
class VideoInfo:
    """What a video file says about itself.

    Args:
        fps: Frames per second, averaged where the rate varies.
        num_frames: As the header says, else estimated from the duration; 0 = unknown.
        counted: Whether the number stands in the header.
    """

    fps: Fraction
    num_frames: int
    counted: bool


def probe_video(path: Path) -> VideoInfo:
    """Frame rate and number of frames, from the header.

    Raises:
        DataError: missing, no video, or PyAV is not installed.
    """
    with _opened(path) as (container, stream):
        fps = Fraction(stream.average_rate or stream.guessed_rate or 25)
        if stream.frames:
            return VideoInfo(fps, int(stream.frames), counted=True)
        seconds = Fraction(0)
        if stream.duration is not None and stream.time_base is not None:
            seconds = stream.duration * stream.time_base
        elif container.duration is not None:
            seconds = Fraction(container.duration, 1_000_000)
        return VideoInfo(fps, max(0, round(seconds * fps)), counted=False)


def read_frames(path: Path) -> Iterator[Tensor]:
    """Frames of a video in order, upright: a rotation that the file asks for is applied.

    Yields:
        (3, H, W) uint8 RGB.

    Raises:
        DataError: missing, no video, a frame cannot be decoded, or the file ends before its frames do; PyAV is not
            installed.
    """
    av = _import_av()
    info = probe_video(path)
    count = 0
    with _opened(path) as (container, stream):
        stream.thread_type = "AUTO"
        try:
            for frame in container.decode(stream):
                pixels = frame.to_ndarray(format="rgb24")  # (H, W, 3)
                turned = np.rot90(pixels, round(getattr(frame, "rotation", 0) / 90))  # counter-clockwise, as FFmpeg's
                yield torch.from_numpy(np.ascontiguousarray(turned)).permute(2, 0, 1).contiguous()
                count += 1
        except av.FFmpegError as error:
            raise DataError(
                f"{path}: frame {count} cannot be read ({error.strerror}); the file may be damaged, copy it again"
            ) from None
    # A header may count a few frames that an edit list hides.
    if count == 0 or (info.counted and count < (1 - _MISSING_SHARE) * info.num_frames - 2):
        raise DataError(
            f"{path}: ends after {count} of {info.num_frames} frames; the file may be truncated, copy it again"
        )


class VideoWriter:
    """Context manager that writes an MP4 file; it is there once the block ends without an error.

    H.264 where FFmpeg's build has an encoder, else MPEG-4 part 2. Sides are made even by repeating the last row or
    column, since both need that.

    Args:
        path: Final place, NAME.mp4; its folder is made.
        fps: Frames per second.

    Raises:
        DataError: PyAV is not installed.
    """

    def __init__(self, path: Path, fps: Fraction) -> None:
        self._av = _import_av()
        self.path, self._fps = path, fps
        self._temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        self._container: Any = None
        self._stream: Any = None
        self.encoder = next(name for name in _ENCODERS if self._has(name))

    def __enter__(self) -> Self:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._container = self._av.open(str(self._temporary), "w", format="mp4")
        return self

    def add(self, pixels: NDArray[np.uint8]) -> None:
        """Appends a frame (H, W, 3) RGB; all have one size."""
        height, width = pixels.shape[:2]
        if height % 2 or width % 2:
            pixels = np.pad(pixels, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
        if self._stream is None:
            stream = self._container.add_stream(self.encoder, rate=self._fps, options=_OPTIONS.get(self.encoder, {}))
            stream.height, stream.width, stream.pix_fmt = pixels.shape[0], pixels.shape[1], "yuv420p"
            self._stream = stream
        frame = self._av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
        self._container.mux(self._stream.encode(frame))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            if kind is None and self._stream is not None:
                self._container.mux(self._stream.encode(None))
            with contextlib.suppress(self._av.FFmpegError) if kind is not None else contextlib.nullcontext():
                self._container.close()
            if kind is None and self._stream is not None:
                self._temporary.replace(self.path)
        finally:
            self._temporary.unlink(missing_ok=True)

    def _has(self, name: str) -> bool:
        try:
            self._av.Codec(name, "w")
        except ValueError:  # PyAV's UnknownCodecError
            return False
        return True


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[tuple[Any, Any]]:
    """Container and its first video stream."""
    av = _import_av()
    if not path.is_file():
        raise DataError(f"video file '{path}' does not exist")
    try:
        container = av.open(str(path))
    except av.FFmpegError as error:
        raise DataError(
            f"{path}: cannot be opened as a video ({error.strerror}); copy it again, or leave it out"
        ) from None
    with container:
        if not container.streams.video:
            raise DataError(f"{path}: has no video stream; leave it out")
        yield container, container.streams.video[0]


def _import_av() -> Any:
    try:
        import av
    except ImportError:
        raise DataError(
            "video files need PyAV, which is not installed: pip install '.[video]' in a checkout of hs3seg"
        ) from None
    return av
