"""Ctrl-C: what was done is kept, and the message says how to go on."""

from typing import Any

import pytest

from hs3seg.cli import commands
from hs3seg.cli.main import main


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        (["reproduce", "table6"], "Give the same command to go on."),
        (["compare", "CONFIG"], "Give the same command to go on."),
        (["train", "CONFIG", "--out", "FOLDER"], "Give the same command to go on."),
        (["run", "CONFIG"], "Give the same command with --resume to go on."),
    ],
)
def test_how_to_go_on_is_said(
    words: list[str], wanted: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def stopped(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(commands, words[0], stopped)
    assert main(words) == 130
    assert wanted in capsys.readouterr().err
