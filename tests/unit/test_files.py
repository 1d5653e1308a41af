import errno
import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from hs3seg.analysis import load_confusions, save_confusions
from hs3seg.errors import RunFolderError
from hs3seg.files import read_json, write_atomically, write_json


def test_a_failed_write_leaves_the_old_file_and_no_other(tmp_path: Path) -> None:
    path = tmp_path / "value.json"
    write_json(path, {"a": 1})

    def fail(temporary: Path) -> None:
        temporary.write_text("half")
        raise RuntimeError("killed")

    with pytest.raises(RuntimeError, match="killed"):
        write_atomically(path, fail)
    assert json.loads(path.read_text()) == {"a": 1}
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("torchs", [False, True])
def test_a_full_disk_is_said_in_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, torchs: bool) -> None:
    path = tmp_path / "state.pt"
    path.write_text("before")

    def fail(_temporary: Path) -> None:
        if torchs:
            raise RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 768 vs 662")
        raise OSError(errno.ENOSPC, "No space left on device")

    if torchs:
        with pytest.raises(RuntimeError, match="unexpected pos"):  # there is room: it is something else
            write_atomically(path, fail)
        monkeypatch.setattr("shutil.disk_usage", lambda _folder: SimpleNamespace(free=1000))
    with pytest.raises(RunFolderError, match=r"state\.pt: cannot be written, no space is left .* command to go on"):
        write_atomically(path, fail)
    assert path.read_text() == "before"


def test_json_refuses_nan(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "x.json", float("nan"))
    assert not list(tmp_path.iterdir())


def test_paths_may_be_text(tmp_path: Path) -> None:
    write_json(str(tmp_path / "a" / "value.json"), [1, 2])
    assert read_json(str(tmp_path / "a" / "value.json")) == [1, 2]
    save_confusions(str(tmp_path / "q.npz"), {"final": np.eye(3, dtype=np.int64)})
    assert load_confusions(str(tmp_path / "q.npz"))["final"].tolist() == np.eye(3).tolist()
