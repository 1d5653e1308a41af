"""Freed memory stays in the process."""

import os
import subprocess
import sys

import pytest

from hs3seg.engine.memory import keep_freed_memory

FAULTS = """
import ctypes, resource, sys
from hs3seg.engine.memory import keep_freed_memory
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_size_t], [ctypes.c_void_p]
def touch():  # 16 blocks of 8 MiB, filled and freed, as a training step does with its activations
    blocks = [libc.malloc(8 << 20) for _ in range(16)]
    for block in blocks:
        ctypes.memset(block, 1, 8 << 20)
    for block in reversed(blocks):
        libc.free(block)
told = keep_freed_memory() if "keep" in sys.argv else None
touch(), touch()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
touch()
print(told, resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def told_and_faults(*words: str, **environment: str) -> tuple[str, int]:
    """What `keep_freed_memory` said in a fresh process, and the page faults of the third round."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("MALLOC_") and k != "GLIBC_TUNABLES"}
    command = [sys.executable, "-c", FAULTS, *words]
    done = subprocess.run(command, env=kept | environment, stdout=subprocess.PIPE, check=True, text=True, timeout=60)
    told, faults = done.stdout.split()
    return told, int(faults)


@pytest.mark.skipif(sys.platform != "linux", reason="needs glibc")
def test_memory_that_was_freed_is_not_asked_for_again() -> None:
    usual = told_and_faults()[1]
    assert usual >= 16 * 4  # pages of 2 MiB at most, or there would be nothing to gain
    told, faults = told_and_faults("keep")
    assert told == "True"
    assert faults < usual / 20


@pytest.mark.parametrize(
    "setting", [{"MALLOC_TRIM_THRESHOLD_": "131072"}, {"GLIBC_TUNABLES": "glibc.malloc.trim_threshold=131072"}]
)
def test_who_has_set_the_allocator_has_the_last_word(setting: dict[str, str]) -> None:
    assert told_and_faults("keep", **setting)[0] == "False"


def test_other_systems_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hs3seg.engine.memory.sys.platform", "darwin")
    assert keep_freed_memory() is False
