import os
from collections.abc import Sequence
from pathlib import Path

import pytest

from hs3seg.errors import DataError
from hs3seg.pipeline.predict.inputs import Item, find_items


@pytest.fixture(autouse=True)
def inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def make(*names: str) -> None:
    for name in names:
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_bytes(b"x")


def found(*inputs: Path | str, out: str = "out", endings: Sequence[str] = (".png",)) -> list[Item]:
    def results(name: str, is_video: bool) -> list[Path]:
        return [Path(out) / f"{name}{ending}" for ending in (["-overlay.mp4"] if is_video else endings)]

    return find_items(inputs, Path(out), results)


def names(*inputs: Path | str, **options: object) -> dict[str, str]:
    return {str(item.path): item.name for item in found(*inputs, **options)}


def test_files_folders_patterns_and_videos() -> None:
    make("p/b.JPG", "p/a.png", "p/q/c.webp", "p/notes.txt", "p/film.MP4", "p/.hidden.png", "p/.git/d.png", "odd.xyz")
    assert names("p") == {"p/a.png": "a", "p/b.JPG": "b", "p/film.MP4": "film", "p/q/c.webp": "c"}
    assert names("p/*") == {"p/a.png": "a", "p/b.JPG": "b", "p/film.MP4": "film"}
    assert names("p/**/*.webp", Path("p/a.png")) == {"p/q/c.webp": "c", "p/a.png": "a"}
    assert list(names("p/**")) == ["p/a.png", "p/b.JPG", "p/film.MP4", "p/q/c.webp"]
    assert names("odd.xyz") == {"odd.xyz": "odd"}  # a file that is named is tried, whatever its ending
    assert [item.is_video for item in found("p")] == [False, False, True, False]
    assert list(names(str(Path("p/*.png").absolute()))) == [str(Path("p/a.png").absolute())]


def test_a_file_counts_once_and_before_a_pattern() -> None:
    make("p/a.png", "p/[1].png", "p/1.png")
    assert list(names("p/a.png", "p", "p/*.png")) == ["p/a.png", "p/1.png", "p/[1].png"]
    assert list(names("p/[1].png")) == ["p/[1].png"]


def test_folders_are_kept_where_names_collide() -> None:
    make("p/x/1.png", "p/y/1.png", "p/y/2.png", "q/x/1.png")
    assert names("p") == {"p/x/1.png": "x/1", "p/y/1.png": "y/1", "p/y/2.png": "y/2"}
    assert names("p/y", "q/x/1.png") == {"p/y/1.png": "p/y/1", "p/y/2.png": "p/y/2", "q/x/1.png": "q/x/1"}
    assert names("*/x/*.png") == {"p/x/1.png": "p/x/1", "q/x/1.png": "q/x/1"}


def test_suffixes_are_kept_where_folders_do_not_tell_apart() -> None:
    make("p/a.png", "p/a.jpg", "p/B.png", "p/b.png")
    assert names("p/a.*") == {"p/a.jpg": "a.jpg", "p/a.png": "a.png"}
    with pytest.raises(DataError, match=r"'p/B.png' and 'p/b.png' would both have the result 'out/b.png.png'"):
        found("p/B.png", "p/b.png")


def test_a_name_that_looks_like_a_result_of_another() -> None:
    make("p/a.jpg", "p/a-overlay.jpg")
    assert names("p") == {"p/a-overlay.jpg": "a-overlay", "p/a.jpg": "a"}
    both = names("p", endings=(".png", "-overlay.png"))
    assert both == {"p/a-overlay.jpg": "a-overlay.jpg", "p/a.jpg": "a.jpg"}


def test_results_inside_the_input_are_no_inputs() -> None:
    make("p/a.jpg", "p/out/a.png", "p/out/a-overlay.png")
    assert list(names("p", out="p/out")) == ["p/a.jpg"]
    assert list(names("p/**/*", out="p/out")) == ["p/a.jpg"]
    assert list(names("p", out="elsewhere")) == ["p/a.jpg", "p/out/a-overlay.png", "p/out/a.png"]


def test_the_output_may_hold_the_inputs_but_never_overwrites_them() -> None:
    make("p/a.jpg", "b.png")
    assert list(names("p", out=".")) == ["p/a.jpg"]
    with pytest.raises(DataError, match=r"'b.png' has the result 'b.png', which is an input; choose another --out"):
        found("b.png", out=".")
    with pytest.raises(DataError, match=r"'p' is the input and the output folder"):
        found("p", out="p")


def test_what_is_not_there_is_named() -> None:
    make("p/notes.txt")
    for given, message in {
        "none.png": r"image 'none.png' does not exist",
        "p": r"no image in 'p'; images end in .*\.png.*, videos in .*\.mp4",
        "p/*.jpg": r"no image or video matches 'p/\*.jpg'.*for a whole folder give 'p'",
    }.items():
        with pytest.raises(DataError, match=message):
            found(given)
    with pytest.raises(DataError, match="no image or video is given"):
        found()


@pytest.mark.skipif(os.name == "nt", reason="needs symbolic links")
def test_two_names_of_one_file_count_once() -> None:
    make("p/a.png")
    Path("q").symlink_to("p", target_is_directory=True)
    assert list(names("p", "q")) == ["p/a.png"]


@pytest.mark.skipif(os.name == "nt", reason="needs symbolic links")
def test_folders_in_folders_may_be_links() -> None:
    make("p/a.png", "store/b.png", "store/sub/c.png")
    Path("p/more").symlink_to(Path("store").absolute(), target_is_directory=True)
    Path("store/sub/back").symlink_to(Path("p").absolute(), target_is_directory=True)
    assert names("p") == {"p/a.png": "a", "p/more/b.png": "b", "p/more/sub/c.png": "c"}
