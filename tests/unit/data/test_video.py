import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from hs3seg.data.video import VideoWriter, probe_video, read_frames
from hs3seg.errors import DataError

av = pytest.importorskip("av")


def frames(count: int, height: int = 48, width: int = 64) -> list[np.ndarray]:
    """Flat grey levels with a brighter left upper quarter: what video codecs keep."""
    found = []
    for number in range(count):
        pixels = np.full((height, width, 3), 40 + 4 * number, np.uint8)
        pixels[: height // 2, : width // 2] = 200
        found.append(pixels)
    return found


def write(path: Path, pictures: list[np.ndarray], fps: Fraction = Fraction(25)) -> Path:
    with VideoWriter(path, fps) as writer:
        for pixels in pictures:
            writer.add(pixels)
    return path


def read(path: Path) -> list[np.ndarray]:
    return [frame.permute(1, 2, 0).numpy() for frame in read_frames(path)]


@pytest.mark.parametrize("fps", [Fraction(25), Fraction(30000, 1001)])
def test_frames_and_rate_come_back(tmp_path: Path, fps: Fraction) -> None:
    path = write(tmp_path / "made" / "a b.mp4", frames(12), fps)
    info = probe_video(path)
    assert (info.fps, info.num_frames, info.counted) == (fps, 12, True)
    again = read(path)
    assert len(again) == 12
    for given, found in zip(frames(12), again, strict=True):
        assert found.shape == (48, 64, 3)
        assert np.abs(given.astype(int) - found).mean() < 3
    assert [p.name for p in path.parent.iterdir()] == ["a b.mp4"]


def test_h264_where_the_build_has_it(tmp_path: Path) -> None:
    path = write(tmp_path / "a.mp4", frames(3))
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        assert stream.codec_context.name == ("h264" if "libx264" in av.codecs_available else "mpeg4")
        assert stream.pix_fmt == "yuv420p"


def test_mpeg4_where_there_is_no_h264(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hs3seg.data.video._ENCODERS", ("no_such_encoder", "mpeg4"))
    path = write(tmp_path / "a.mp4", frames(5))
    with av.open(str(path)) as container:
        assert container.streams.video[0].codec_context.name == "mpeg4"
    assert len(read(path)) == 5


def test_odd_sides_are_made_even_at_the_end(tmp_path: Path) -> None:
    given = frames(2, 47, 63)
    again = read(write(tmp_path / "a.mp4", given))
    assert again[0].shape == (48, 64, 3)
    assert np.abs(given[0].astype(int) - again[0][:47, :63]).mean() < 3


@pytest.mark.parametrize(
    ("suffix", "codec"), [(".avi", "mpeg4"), (".mkv", "libvpx"), (".webm", "libvpx"), (".mov", "mjpeg")]
)
def test_other_containers(tmp_path: Path, suffix: str, codec: str) -> None:
    if codec not in av.codecs_available:
        pytest.skip(f"FFmpeg without {codec}")
    path = tmp_path / f"a{suffix}"
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuvj420p" if codec == "mjpeg" else "yuv420p"
        for pixels in frames(6):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode(None))
    info = probe_video(path)
    assert info.fps == 10
    assert info.num_frames == pytest.approx(6, abs=1)
    assert len(read(path)) == 6


def test_a_rotation_in_the_header_is_applied(tmp_path: Path) -> None:
    path = write(tmp_path / "a.mp4", frames(2))
    data = bytearray(path.read_bytes())
    # The matrix of the track header: a, b, u, c, d, v, x, y, w. Telephones write a quarter turn so.
    at = data.index(b"tkhd") + 4 + 40
    turn = [0, 0x10000, 0, -0x10000, 0, 0, 48 << 16, 0, 0x40000000]
    data[at : at + 36] = b"".join(value.to_bytes(4, "big", signed=True) for value in turn)
    path.write_bytes(data)
    upright = read(path)[0]
    assert upright.shape == (64, 48, 3)
    # Clockwise: what was on the left above is on the right above.
    assert upright[:32, 24:].mean() > 190
    assert upright[:32, :24].mean() < 60


def test_a_video_that_fails_leaves_nothing(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    with pytest.raises(ValueError, match="not enough values"):
        write(path, [*frames(2), np.zeros(3, np.uint8)])
    assert list(tmp_path.iterdir()) == []
    with VideoWriter(path, Fraction(25)):
        pass  # no frame, no file
    assert list(tmp_path.iterdir()) == []


def test_damaged_files_are_named(tmp_path: Path) -> None:
    whole = write(tmp_path / "a.mp4", frames(40)).read_bytes()
    (tmp_path / "half.mp4").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=r"half.mp4: cannot be opened as a video"):
        next(read_frames(tmp_path / "half.mp4"))
    (tmp_path / "text.avi").write_text("no video")
    with pytest.raises(DataError, match=r"text.avi: cannot be opened"):
        probe_video(tmp_path / "text.avi")
    with pytest.raises(DataError, match=r"none.mp4' does not exist"):
        probe_video(tmp_path / "none.mp4")


def test_a_file_that_ends_before_its_frames_do_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.avi"  # the number of frames stands at the front
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mjpeg", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuvj420p"
        for pixels in frames(20):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode(None))
    whole = path.read_bytes()
    assert len(read(path)) == 20
    path.write_bytes(whole[: len(whole) * 3 // 5])
    with pytest.raises(DataError, match=r"a.avi: (ends after \d+ of 20 frames|frame \d+ cannot be read)"):
        read(path)


def test_sound_alone_is_no_video(tmp_path: Path) -> None:
    path = tmp_path / "a.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), format="s16", layout="mono")
        frame.sample_rate = 8000
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    with pytest.raises(DataError, match=r"a.mkv: has no video stream"):
        probe_video(path)


def test_without_pyav_the_remedy_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    for call in (lambda: probe_video(tmp_path), lambda: VideoWriter(tmp_path / "a.mp4", Fraction(25))):
        with pytest.raises(DataError, match=r"pip install '\.\[video\]' in a checkout"):
            call()
