"""Freed memory is kept, where the C library can be told."""

import subprocess
import sys

import pytest

from recmoe.training.allocator import keep_freed_memory

linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's own setting")

TEN_BUFFERS = """
import resource
import torch
from recmoe.training.allocator import LARGEST_KEPT_BYTES, keep_freed_memory

def num_faults_of_ten_buffers():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(10):
        torch.zeros(LARGEST_KEPT_BYTES // 4, dtype=torch.uint8).fill_(1)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

assert {is_ready}
num_faults_of_ten_buffers()
print(num_faults_of_ten_buffers())
"""


def num_faults(is_ready: str) -> int:
    """Pages that the system hands out for ten buffers that are made, filled and dropped one by one, after ten others.

    Counted in a process of its own: in this one, blocks that earlier tests left in the heap can split the kept ones.
    """
    code = TEN_BUFFERS.format(is_ready=is_ready)
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert not run.returncode, run.stderr
    return int(run.stdout)


@linux
def test_large_buffers_are_used_again() -> None:
    num_faults_without = num_faults("True")

    assert num_faults("keep_freed_memory()") < num_faults_without // 10


def test_other_systems_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")

    assert not keep_freed_memory()
