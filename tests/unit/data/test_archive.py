import io
import stat
import tarfile
import zipfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hs3seg.data.archive import _Entry, _place, is_archive, unpack
from hs3seg.errors import DataError

FILES = {"images/two words.png": b"12345", "masks/straße.png": b"", "taxonomy.toml": b"x" * 3_000_000}


def zipped(path: Path, files: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", method) as packed:
        for name, content in files.items():
            packed.writestr(name, content)
    return path


def tarred(path: Path, files: dict[str, bytes], mode: str = "w", **more: object) -> Path:
    with tarfile.open(path, mode) as packed:  # type: ignore[call-overload]
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            for key, value in more.items():
                setattr(info, key, value)
            packed.addfile(info, io.BytesIO(content))
    return path


def below(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.mark.parametrize("kind", ["zip", "tar", "tar.gz", "tar.bz2", "tar.xz"])
def test_everything_is_unpacked_and_counted(tmp_path: Path, kind: str) -> None:
    mode = {"tar": "w"}.get(kind, f"w:{kind[4:]}")
    archive = tmp_path / f"a.{kind}"
    (zipped(archive, FILES) if kind == "zip" else tarred(archive, FILES, mode))
    told: list[tuple[int, int]] = []
    files = unpack(archive, tmp_path / "deep" / "out", progress=lambda done, all_of: told.append((done, all_of)))
    assert below(tmp_path / "deep" / "out") == FILES
    assert [file.relative_to(tmp_path / "deep" / "out").as_posix() for file in files] == list(FILES)
    total = sum(map(len, FILES.values()))
    assert told == sorted(told)
    assert told[-1] == (total, total)
    assert is_archive(archive)


def test_folders_without_files_and_dots_are_kept_simple(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as packed:
        packed.writestr("./images/", b"")
        packed.writestr("images/./x.png", b"1")
        packed.writestr("empty/", b"")
    assert unpack(tmp_path / "a.zip", tmp_path / "out") == [tmp_path / "out" / "images" / "x.png"]
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["empty", "images"]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("../x.png", "points outside"),
        ("a/../../x.png", "points outside"),
        ("a\\..\\..\\x.png", "points outside"),
        ("/etc/x.png", "absolute name"),
        ("C:/x.png", "absolute name"),
        ("C:x.png", "absolute name"),
        ("\\\\host\\x.png", "absolute name"),
        ("a/con.png", "not every system"),
        ("a/x.png:stream", "not every system"),
        ("a/x\n.png", "not every system"),
    ],
)
@pytest.mark.parametrize("pack", [zipped, tarred])
def test_names_that_lead_elsewhere_are_refused_before_anything_is_written(
    tmp_path: Path, pack: object, name: str, message: str
) -> None:
    archive = pack(tmp_path / "a", {"fine.png": b"1", name: b"2"})  # type: ignore[operator]
    with pytest.raises(DataError, match=message) as error:
        unpack(archive, tmp_path / "out")
    assert "entry" in str(error.value)
    assert not (tmp_path / "out").exists()


@given(st.text("./\\ab: ", max_size=10))
def test_whatever_the_name_it_stays_below_the_target(name: str) -> None:
    try:
        place = _place(Path("a.zip"), _Entry(name, True, 0, "", lambda: None))
    except DataError:
        return
    assert (Path("/target") / place).resolve().is_relative_to("/target")


def test_links_and_devices_are_refused(tmp_path: Path) -> None:
    for kind, message in (
        (tarfile.SYMTYPE, "a link to '/etc'"),
        (tarfile.LNKTYPE, "link"),
        (tarfile.CHRTYPE, "no file"),
    ):
        archive = tarred(tmp_path / "a.tar", {"x": b""}, type=kind, linkname="/etc")
        with pytest.raises(DataError, match=f"entry 'x' is {message}|entry 'x' is a {message}"):
            unpack(archive, tmp_path / "out")
    with zipfile.ZipFile(tmp_path / "l.zip", "w") as packed:
        info = zipfile.ZipInfo("x")
        info.external_attr = (stat.S_IFLNK | 0o777) << 16
        packed.writestr(info, "/etc")
    with pytest.raises(DataError, match="entry 'x' is a link"):
        unpack(tmp_path / "l.zip", tmp_path / "out")


def test_a_link_that_is_already_in_the_target_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "out" / "images").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(DataError, match="would lead out of"):
        unpack(zipped(tmp_path / "a.zip", FILES), tmp_path / "out")
    assert not list((tmp_path / "elsewhere").iterdir())


@pytest.mark.parametrize("names", [("a.png", "A.png"), ("a", "a/x.png"), ("a/x.png", "a"), ("a", "./a")])
def test_entries_that_overwrite_each_other_are_refused(tmp_path: Path, names: tuple[str, str]) -> None:
    with pytest.raises(DataError, match=rf"entry '{names[1]}' would overwrite"):
        unpack(tarred(tmp_path / "a.tar", dict.fromkeys(names, b"1")), tmp_path / "out")


def test_files_that_are_there_stay(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "taxonomy.toml").write_text("mine")
    with pytest.raises(DataError, match=r"taxonomy.toml' is already there"):
        unpack(zipped(tmp_path / "a.zip", FILES), tmp_path / "out")
    assert below(tmp_path / "out") == {"taxonomy.toml": b"mine"}


def test_more_than_the_limit_is_refused(tmp_path: Path) -> None:
    archive = zipped(tmp_path / "a.zip", {"zeros": bytes(5_000_000)})
    assert archive.stat().st_size < 10_000
    with pytest.raises(
        DataError, match=r"a.zip: would take 0.0 GiB, the limit is 0.001; if you trust it, raise max_gib"
    ):
        unpack(archive, tmp_path / "out", max_gib=0.001)
    assert not (tmp_path / "out").exists()


def test_a_size_that_lies_does_not_help(tmp_path: Path) -> None:
    archive = zipped(tmp_path / "a.zip", {"zeros": bytes(5_000_000)})
    content = archive.read_bytes()
    archive.write_bytes(content.replace((5_000_000).to_bytes(4, "little"), (10).to_bytes(4, "little")))
    with pytest.raises(DataError, match="damaged|GiB"):
        unpack(archive, tmp_path / "out", max_gib=0.001)
    assert not (tmp_path / "out").exists()


def test_damaged_archives_leave_nothing_behind(tmp_path: Path) -> None:
    content = bytes(range(256)) * 2000
    whole = zipped(tmp_path / "a.zip", {"a": b"1", "b": content}, zipfile.ZIP_STORED).read_bytes()
    middle = len(whole) // 2
    (tmp_path / "a.zip").write_bytes(whole[:middle] + b"wrong" + whole[middle + 5 :])
    half = tarred(tmp_path / "a.tar.gz", {"a": b"1", "b": content}, "w:gz").read_bytes()
    (tmp_path / "a.tar.gz").write_bytes(half[: len(half) // 2])
    for name in ("a.zip", "a.tar.gz"):
        with pytest.raises(DataError, match=rf"{name}: is damaged"):
            unpack(tmp_path / name, tmp_path / "out")
        assert not (tmp_path / "out").exists()


def test_what_is_no_archive_is_said(tmp_path: Path) -> None:
    (tmp_path / "a.zip").write_text("text")
    with pytest.raises(DataError, match="neither zip nor tar"):
        unpack(tmp_path / "a.zip", tmp_path / "out")
    with pytest.raises(DataError, match="does not exist"):
        unpack(tmp_path / "none.zip", tmp_path / "out")
    assert not is_archive(tmp_path / "a.zip")
    assert not is_archive(tmp_path)
