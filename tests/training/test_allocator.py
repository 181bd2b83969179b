"""Freed memory is kept, where the C library can be told."""

import subprocess
import sys

import pytest

from recmoe.training.allocator import keep_freed_memory

linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's own setting")

TEN_BUFFERS_A_ROUND = """
import resource
import torch
from recmoe.training.allocator import LARGEST_KEPT_BYTES, keep_freed_memory

NUM_BYTES = LARGEST_KEPT_BYTES // 4

def num_faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(10):
        torch.zeros(NUM_BYTES, dtype=torch.uint8).fill_(1)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

assert keep_freed_memory()
faults = [num_faults() for _ in range(8)]
assert min(faults) < NUM_BYTES // resource.getpagesize(), faults
"""
"""Pages that the system hands out for a buffer that is made, filled and dropped ten times; eight times over."""


@linux
def test_large_buffers_are_used_again() -> None:
    # In a process of its own: in this one, blocks that earlier tests left in the heap can split the kept ones. Small
    # blocks can split a kept one here too, and the heap then grows by a buffer a few times until it settles; if
    # nothing were kept, every one of the rounds would be handed ten buffers.
    run = subprocess.run([sys.executable, "-c", TEN_BUFFERS_A_ROUND], capture_output=True, text=True)

    assert not run.returncode, run.stderr


def test_other_systems_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")

    assert not keep_freed_memory()
