import os
import signal
import sys
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest

from hs3seg.engine import alone_in

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such locks")


def hold(folder: Path, held: Any, let_go: Any) -> None:
    with alone_in(folder, lambda: None):
        held.set()
        let_go.wait(60)


@pytest.mark.parametrize("killed", [False, True])
def test_the_second_waits_for_the_first_however_it_ends(tmp_path: Path, killed: bool) -> None:
    context = get_context("spawn")
    held, let_go = context.Event(), context.Event()
    first = context.Process(target=hold, args=(tmp_path / "arm", held, let_go))
    first.start()
    assert held.wait(60)
    said: list[str] = []

    def waits() -> None:
        said.append("waiting")
        assert first.is_alive()
        if killed:
            os.kill(first.pid or 0, signal.SIGKILL)
        else:
            let_go.set()

    with alone_in(tmp_path / "arm", waits):
        pass
    assert said == ["waiting"]
    first.join()
    with alone_in(tmp_path / "arm", waits):
        pass
    assert said == ["waiting"]
