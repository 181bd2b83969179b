"""RecencyBias: what distance and time between reader and entry add to the score of an attention.

HSTU: Zhai et al., ICML 2024, https://arxiv.org/abs/2402.17152, section 3.
"""

# N heads, P positions, T spans of time

import torch
from torch import Tensor, nn

NUM_SPANS = 48
"""Spans of time with a bias of their own: below 1, 1 to 3, 3 to 7 … each twice as long: in seconds or microseconds."""


class RecencyBias(nn.Module):
    """One learned number per head and distance, and one per head and span of time; all begin at 0::

        bias[n] = position[n, entries between]  +  time[n, floor(log2(1 + time between))]

    Args:
        num_heads: N.
        max_length: P; larger distances share the last number.
        has_ages: whether there are spans of time.
    """

    def __init__(self, *, num_heads: int, max_length: int, has_ages: bool) -> None:
        super().__init__()
        self.position_PN = nn.Parameter(torch.zeros(max_length, num_heads))
        self.time_TN = nn.Parameter(torch.zeros(NUM_SPANS, num_heads)) if has_ages else None

    def forward(self, distance: Tensor, time: Tensor | None) -> Tensor:
        """The biases [..., N], in float32.

        Args:
            distance: int64, entries between reader and entry; 0 for the newest.
            time: between them, in the unit of the log; what is negative counts as 0. None without ages.
        """
        assert (time is None) == (self.time_TN is None), "ages are known to the encoder, or they are not"
        bias = self.position_PN[distance.clamp(max=len(self.position_PN) - 1)]
        if time is None or self.time_TN is None:
            return bias
        span = torch.log2(1.0 + time.float().clamp(min=0.0)).long().clamp(max=NUM_SPANS - 1)
        return bias + self.time_TN[span]
