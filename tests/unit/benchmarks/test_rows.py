import json
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks.rows import QUICK, RESULTS, Row, arguments, folder, in_fresh_process, in_turn, ratios, save_rows


@pytest.mark.parametrize(
    ("better", "goal", "reached"),
    [
        ("lower", 2.0, True),
        ("lower", 1.9, False),
        ("higher", 2.0, True),
        ("higher", 2.1, False),
        ("near", 2.05, True),
        ("near", 1.95, True),
        ("near", 2.2, False),
        ("lower", None, None),
    ],
)
def test_the_median_is_held_against_the_goal(better: Any, goal: float | None, reached: bool | None) -> None:
    row = Row("step", "plain", (9.0, 2.0, 1.0), goal, better, tolerance=0.1)
    assert row.ratio == 2.0
    assert row.reached is reached


def test_ratios_are_taken_repeat_by_repeat() -> None:
    assert ratios([1.0, 9.0], [2.0, 3.0]) == (0.5, 3.0)
    with pytest.raises(ValueError, match="longer"):
        ratios([1.0], [1.0, 2.0])


def test_sides_run_in_turn_and_change_their_order() -> None:
    seen: list[str] = []
    sides = {name: (lambda name=name: seen.append(name)) for name in "ab"}
    seconds = in_turn(sides, 3, warm_up=1)
    assert "".join(seen) == "ab" + "ab" + "ba" + "ab"
    assert {name: len(values) for name, values in seconds.items()} == {"a": 3, "b": 3}


def test_a_row_replaces_that_of_its_name_and_keeps_the_others(tmp_path: Path) -> None:
    path = tmp_path / "docs" / "results.json"
    save_rows(path, [Row("a", "x", (1.0,), 2.0), Row("b", "x", (1.0,), None)], "python -m benchmarks.one")
    save_rows(path, [Row("a", "x", (3.0, 4.0, 5.0), 2.0)], "python -m benchmarks.two")
    values = json.loads(path.read_text())
    assert list(values) == ["a", "b"]
    assert (values["a"]["ratio"], values["a"]["runs"], values["a"]["reached"]) == (4.0, [3.0, 4.0, 5.0], False)
    assert values["a"]["command"] == "python -m benchmarks.two"
    assert values["b"]["reached"] is None


def test_a_fresh_process_gives_its_last_line() -> None:
    told = "import os; print('warming up'); print('{\"threads\": ' + os.environ['OMP_NUM_THREADS'] + '}')"
    assert in_fresh_process([sys.executable, "-c", told], threads=3) == {"threads": 3}
    with pytest.raises(RuntimeError, match="no such thing"):
        in_fresh_process([sys.executable, "-c", "raise SystemExit('no such thing')"])


def test_quick_figures_do_not_replace_real_ones() -> None:
    parser = arguments("")
    assert folder(parser.parse_args([])) == RESULTS
    assert folder(parser.parse_args(["--quick"])) == QUICK
    assert folder(parser.parse_args(["--quick", "--out", "here"])) == Path("here")
