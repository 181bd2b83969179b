"""ExpertTravel: what workers hold and send of a layer's experts where these are divided among them."""

# E experts, D input width, H expert width, W workers

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from recmoe.moe.experts.divided import shares_of
from recmoe.moe.experts.stack import Divisible, ExpertStack
from recmoe.moe.linear import SidedInput, rows_of
from recmoe.training.divided_experts import divisible_layers


class ExpertTravel(nn.Module):
    """The experts of a layer, next to which is counted what would travel to them and back; see ``ExpertStack``.

    As in ``DividedExperts``, a row goes to an expert that it has chosen, and where all rows go to all experts, once to
    every worker that reads them. Of all that goes to and comes from W workers, one of W parts stays where it is.

    Args:
        stack: all experts.
        num_workers: W; they need not exist.
    """

    def __init__(self, stack: ExpertStack, *, num_workers: int) -> None:
        super().__init__()
        assert isinstance(stack, Divisible), "a stack that can be divided"
        self.names = stack.names
        self.input_of_expert = stack.input_of_expert
        self.num_experts = stack.num_experts
        self.out_features = stack.out_features
        self.stack = cast(nn.Module, stack)
        self.experts_of_worker = shares_of(stack, num_workers)
        self.num_parameters = tuple(
            sum(weight.numel() for weight in cast(nn.Module, stack.part(experts)).parameters())
            for experts in self.experts_of_worker
        )
        """By worker, of the experts that it holds."""
        self.num_sent = 0.0
        """Numbers that a worker sends to others forward, of its rows and of what it makes of theirs: the mean."""

    @property
    def is_batched(self) -> bool:
        """Whether the form in use is ``batched``."""
        return cast(ExpertStack, self.stack).is_batched

    def forward(self, inputs: Sequence[Tensor | SidedInput]) -> list[Tensor]:
        """y_BH of every expert on all rows of its input."""
        for experts in self.experts_of_worker:
            there = [inputs[index] for index in dict.fromkeys(self.input_of_expert[expert] for expert in experts)]
            self._count(there, [inputs[self.input_of_expert[expert]] for expert in experts])
        return cast(list[Tensor], self.stack(inputs))

    def each(self, inputs: Sequence[Tensor | SidedInput]) -> list[Tensor]:
        """Expert by expert, each on an input of its own with any number of rows."""
        for experts in self.experts_of_worker:
            there = [inputs[expert] for expert in experts]
            self._count(there, there)
        return cast(ExpertStack, self.stack).each(inputs)

    def batched(self, inputs: Sequence[Tensor | SidedInput]) -> Tensor:
        """y_EBH of every expert on all rows of its input."""
        return torch.stack(self(inputs))

    def _count(self, there: Sequence[Tensor | SidedInput], computed: Sequence[Tensor | SidedInput]) -> None:
        num_workers = len(self.experts_of_worker)
        numbers = sum(rows_of(x).numel() for x in there) + sum(len(rows_of(x)) for x in computed) * self.out_features
        self.num_sent += numbers * (num_workers - 1) / num_workers


def count_travel(model: nn.Module, *, num_workers: int) -> list[ExpertTravel]:
    """Have a model count from now on what would travel between workers; by layer.

    Raises:
        ConfigError: its experts cannot be divided among so many.
    """
    counted = []
    for layer in divisible_layers(model, num_workers=num_workers):
        layer.experts = ExpertTravel(cast(ExpertStack, layer.experts), num_workers=num_workers)
        counted.append(layer.experts)
    return counted
