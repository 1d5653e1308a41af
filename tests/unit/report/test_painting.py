"""Pictures are the same whether this process paints them or copies of it do."""

import os
import subprocess
import sys
from collections.abc import Callable

import pytest

from hs3seg.report.canvas import Canvas
from hs3seg.report.painting import painted


def drawing(number: int) -> Callable[[], bytes]:
    """Paints a text that is different for each number."""
    canvas = Canvas(120, 24)
    canvas.text(4, 12, f"picture {number}")
    return canvas.png


def in_a_process_without_torch(script: str) -> str:
    """What the script prints."""
    done = subprocess.run([sys.executable, "-c", script], stdout=subprocess.PIPE, check=True, text=True, timeout=120)
    return done.stdout.strip()


def test_order_and_bytes_are_those_of_painting_one_by_one() -> None:
    painters = {f"{number}.png": drawing(number) for number in range(9)}
    one_by_one = [(name, paint()) for name, paint in painters.items()]
    assert len({content for _, content in one_by_one}) == 9
    assert list(painted(painters)) == one_by_one


@pytest.mark.skipif(sys.platform != "linux" or len(os.sched_getaffinity(0)) < 2, reason="needs Linux and two cores")
def test_copies_of_the_process_paint_the_same_bytes() -> None:
    said = in_a_process_without_torch(
        "import os, hashlib\n"
        "from hs3seg.report.canvas import Canvas\n"
        "from hs3seg.report.painting import painted\n"
        "def painter(number):\n"
        "    canvas = Canvas(120, 24)\n"
        "    canvas.text(4, 12, f'picture {number}')\n"
        "    return lambda: str(os.getpid()).encode() + b' ' + canvas.png()\n"
        "painters = {str(number): painter(number) for number in range(20)}\n"
        "alone = {name: paint().split(b' ', 1)[1] for name, paint in painters.items()}\n"
        "found = {name: content.split(b' ', 1) for name, content in painted(painters)}\n"
        "assert list(found) == list(painters)\n"
        "assert {name: content for name, (_, content) in found.items()} == alone\n"
        "print(str(os.getpid()).encode() in {pid for pid, _ in found.values()})"
    )
    assert said == "False"


def test_a_process_with_other_threads_is_not_copied() -> None:
    said = in_a_process_without_torch(
        "import os, threading\n"
        "from hs3seg.report.painting import painted\n"
        "waiting = threading.Event()\n"
        "other = threading.Thread(target=waiting.wait)\n"
        "other.start()\n"
        "found = list(painted(dict.fromkeys(map(str, range(20)), lambda: str(os.getpid()).encode())))\n"
        "waiting.set()\n"
        "other.join()\n"
        "print(len(found), {content for _, content in found} == {str(os.getpid()).encode()})"
    )
    assert said == "20 True"


@pytest.mark.parametrize("count", [1, 9])
def test_an_error_of_a_painter_is_raised(count: int) -> None:
    said = in_a_process_without_torch(
        "from hs3seg.report.painting import painted\n"
        "def broken():\n"
        "    raise ValueError('no font')\n"
        f"try:\n    list(painted(dict.fromkeys(map(str, range({count})), broken)))\n"
        "except ValueError as error:\n    print(error)"
    )
    assert said == "no font"
