"""Executors: how the experts of a layer are computed and mixed; all give the same."""

from recmoe.moe.executors.batched import mixed_in_one
from recmoe.moe.executors.dispatch import dispatched
from recmoe.moe.executors.forked import ForkShared, copies_by_gate, mixed_apart
from recmoe.moe.executors.grouped import dispatched_in_place
from recmoe.moe.executors.loop import mixed_in_turn

__all__ = [
    "ForkShared",
    "copies_by_gate",
    "dispatched",
    "dispatched_in_place",
    "mixed_apart",
    "mixed_in_one",
    "mixed_in_turn",
]
