import re
from pathlib import Path
from typing import get_args

from hs3seg.config import describe_keys
from hs3seg.config.sections import ArmName

PAGE = (Path(__file__).parents[2] / "docs" / "training.md").read_text(encoding="utf-8")


def test_every_arm_is_in_the_table() -> None:
    cells = [line.split("|")[1] for line in PAGE.splitlines() if line.startswith("| `")]
    rows = [cell for cell in cells if "." not in cell]
    found = {name for row in rows for name in re.findall(r"`(\w+)`", row)}
    assert found == set(get_args(ArmName))


def test_every_key_that_is_named_is_one() -> None:
    keys = {key for key, _, _ in describe_keys()}
    sections = {key.split(".")[0] for key in keys if "." in key}
    named = {found for found in re.findall(r"(\w+\.\w+)", PAGE) if found.split(".")[0] in sections}
    assert len(named) > 20
    assert named <= keys | {"plan.toml"}
