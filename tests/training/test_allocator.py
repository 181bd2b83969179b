"""Freed memory is kept, where the C library can be told."""

import resource
import sys

import pytest
import torch

from recmoe.training.allocator import LARGEST_KEPT_BYTES, keep_freed_memory

linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's own setting")


def num_faults(num_bytes: int) -> int:
    """Pages that the system hands out for a buffer that is made, filled and dropped ten times."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(10):
        torch.zeros(num_bytes, dtype=torch.uint8).fill_(1)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


@linux
def test_large_buffers_are_used_again() -> None:
    is_kept = keep_freed_memory()

    num_bytes = LARGEST_KEPT_BYTES // 4
    num_faults(num_bytes)
    assert is_kept
    assert num_faults(num_bytes) < num_bytes // resource.getpagesize()


def test_other_systems_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")

    assert not keep_freed_memory()
