import json
from pathlib import Path

import pytest

from benchmarks.__main__ import ORDER
from benchmarks.rows import Row, save_rows
from benchmarks.summary import borrowed, headroom, in_order, page, table, write

ROWS = (
    Row("memory of the loss", "torch", (0.1, 0.12, 0.11), 1 / 6),
    Row("speed of counting", "torchmetrics", (2.5, 2.7, 2.6), 3.0, "higher"),
    Row("stripped", "plain", (1.01, 0.99, 1.0), 1.0, "near", 0.02),
    Row("plan", "-", (1.25, 1.75, 1.5), 1.5, unit="s"),
    Row("only told", "torch", (123.4,), None),
)


def values() -> dict[str, dict[str, object]]:
    modules = ("stage_loss", "stage_counting", "stripped", "commands", "stage_loss")
    return {row.name: row.to_dict(f"python -m benchmarks.{name}") for row, name in zip(ROWS, modules, strict=True)}


def own_page(folder: Path, rows: dict[str, float], command: str) -> None:
    folder.mkdir(parents=True)
    kept = {"goal": 1.5, "runs": [1.0], "command": command, "commit": "abc"}
    (folder / "results.json").write_text(json.dumps({name: {"ratio": value, **kept} for name, value in rows.items()}))


def test_a_line_of_the_table_says_what_was_measured_wanted_and_reached() -> None:
    lines = table(values()).splitlines()
    assert lines[2] == "| memory of the loss | torch | 0.110 (0.100 to 0.120) | at most 0.167 | yes |"
    assert lines[3] == "| speed of counting | torchmetrics | 2.60 (2.50 to 2.70) | at least 3.00 | **no** |"
    assert lines[4] == "| stripped | plain | 1.00 (0.990 to 1.01) | 1.00 ± 0.02 | yes |"
    assert lines[5] == "| plan | - | 1.50 s (1.25 to 1.75) | at most 1.50 s | yes |"
    assert lines[6] == "| only told | torch | 123 (123 to 123) |  |  |"


def test_headroom_is_at_least_one_exactly_where_the_goal_is_reached() -> None:
    for row in values().values():
        if row["goal"] is not None:
            assert (headroom(row, row["ratio"]) >= 1) == row["reached"]  # type: ignore[arg-type]
    assert headroom(values()["speed of counting"], 6.0) == 2.0
    assert headroom(values()["plan"], 0.75) == 2.0


def test_rows_are_grouped_by_benchmark_in_order() -> None:
    found = in_order(values(), ("commands", "stage_loss", "loop"))
    assert list(found) == ["commands", "stage_loss", "stage_counting", "stripped"]
    assert list(found["stage_loss"]) == ["memory of the loss", "only told"]


def test_the_page_counts_goals_and_names_those_that_are_missed() -> None:
    text = page(values(), ORDER)
    assert "3 of 4 goals are reached; not: speed of counting." in text
    assert "`python -m benchmarks.commands`" in text


def test_of_exported_networks_the_best_runtimes_are_taken_over(tmp_path: Path) -> None:
    speeds = {"net, ONNX Runtime": 1.4, "net, OpenVINO": 2.0, "net, OpenVINO int8": 5.0}
    own_page(tmp_path / "runtimes", speeds, "python -m benchmarks.runtimes")
    own_page(tmp_path / "loader", {"1024x2048 PNG, no cache": 1.2}, "python -m benchmarks.loader")
    found = borrowed(tmp_path)
    assert {name: row["reached"] for name, row in found.items()} == {
        "inference of net, OpenVINO int8: speed": True,
        "inference of net, OpenVINO: speed": True,
        "loader, 1024x2048 PNG, no cache: speed": False,
    }


def test_writing_keeps_rows_takes_over_others_and_can_be_repeated(tmp_path: Path) -> None:
    save_rows(tmp_path / "results.json", ROWS, "python -m benchmarks.stage_loss")
    own_page(tmp_path / "runtimes", {"net, OpenVINO": 2.0}, "python -m benchmarks.runtimes")
    write(tmp_path, ORDER)
    first = (tmp_path / "results.json").read_text(), (tmp_path / "README.md").read_text()
    assert set(json.loads(first[0])) == {row.name for row in ROWS} | {"inference of net, OpenVINO: speed"}
    assert (tmp_path / "goals.png").read_bytes().startswith(b"\x89PNG")
    write(tmp_path, ORDER)
    assert ((tmp_path / "results.json").read_text(), (tmp_path / "README.md").read_text()) == first


@pytest.mark.parametrize("name", ORDER)
def test_every_benchmark_of_the_order_exists(name: str) -> None:
    assert (Path(__file__).parents[3] / "benchmarks" / f"{name}.py").is_file()
