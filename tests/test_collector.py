"""Fewer collections of garbage, each behaviour beside that of Python's defaults."""

import subprocess
import sys

import pytest


def printed(code: str, spared: bool) -> list[str]:
    first = "from future_l1_verl.collector import spare_libraries; spare_libraries()\n" if spared else ""
    return subprocess.run([sys.executable, "-c", first + code], capture_output=True, text=True, check=True).stdout.split()


def test_objects_that_stay_are_not_gone_through_while_they_are_made() -> None:
    code = """
import gc
before = gc.get_stats()[2]["collections"]
kept = [[] for _ in range(2_000_000)]
print(gc.get_stats()[2]["collections"] - before)
"""
    (spared,), (default,) = printed(code, spared=True), printed(code, spared=False)
    assert int(spared) == 0 and int(default) > 3


@pytest.mark.parametrize("spared", [False, True])
def test_young_garbage_is_collected_as_before(spared: bool) -> None:
    code = """
class Cycle:
    ended = 0
    def __init__(self): self.me = self
    def __del__(self): Cycle.ended += 1
for _ in range(10_000): Cycle()
print(Cycle.ended)
"""
    assert int(printed(code, spared)[0]) > 9_000


def test_the_exit_collects_nothing() -> None:
    code = """
class Cycle:
    def __init__(self): self.me = self
    def __del__(self): print("collected")
Cycle()
"""
    assert printed(code, spared=False) == ["collected"]
    assert printed(code, spared=True) == []
