"""keep_freed_memory(): the large buffers of one step are used again by the next."""

import ctypes
import sys

M_TRIM_THRESHOLD = -1
M_MMAP_THRESHOLD = -3
LARGEST_KEPT_BYTES = 256 << 20
"""Larger blocks, such as tables, come from the system, in huge pages where it has them."""
KEPT_BYTES = 1 << 30
"""Freed memory that a process may hold at the end of its heap."""


def keep_freed_memory() -> bool:
    """Have the C library keep freed blocks of up to ``LARGEST_KEPT_BYTES``; whether it does.

    By itself glibc gives blocks above 32 MB back to the system, which clears every page of them again in the next
    step: with 260 tables the look-up took 53 ms so, and 19 ms without.
    """
    if not sys.platform.startswith("linux"):
        return False
    set_option = getattr(ctypes.CDLL(None), "mallopt", None)
    if set_option is None:
        return False
    return bool(set_option(M_MMAP_THRESHOLD, LARGEST_KEPT_BYTES) and set_option(M_TRIM_THRESHOLD, KEPT_BYTES))
