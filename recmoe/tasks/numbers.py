"""Numbers: constants of a task, as a tensor wherever its logits are."""

from collections.abc import Sequence

import torch
from torch import Tensor


class Numbers:
    """Some numbers, made a tensor once per device and type: a copy to a GPU for every prediction would be waited for.

    Args:
        values: at least one.
    """

    def __init__(self, values: Sequence[float]) -> None:
        self._values = tuple(values)
        self._made: dict[tuple[torch.device, torch.dtype], Tensor] = {}

    def beside(self, x: Tensor) -> Tensor:
        """The numbers in the type of a tensor, where that is; not to be written to."""
        key = x.device, x.dtype
        if key not in self._made:
            # What is made while nothing learns must serve training too.
            with torch.inference_mode(False):
                self._made[key] = torch.tensor(self._values, dtype=x.dtype, device=x.device)
        return self._made[key]
