import re
from pathlib import Path

import hs3seg

PAGE = Path(__file__).parents[2] / "docs" / "api.md"


def test_the_page_has_every_public_name_and_no_other() -> None:
    rows = [line for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("| `")]
    named = {name for row in rows for name in re.findall(r"`(\w+)[(`]", row.split("|")[1])}
    assert named == set(hs3seg.__all__)
