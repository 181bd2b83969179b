"""MixedExperts: experts of several kinds in one layer."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from recmoe.axes import PartNames
from recmoe.moe.experts.stack import ExpertStack
from recmoe.moe.linear import SidedInput


class MixedExperts(nn.Module):
    """Several stacks as one; see ``ExpertStack``.

    Example: two MLPs and a cross network, of which the cross network is the second expert::

            stacks = [two MLPs, one cross network]     stack_of_expert = [0, 1, 0]

    Args:
        stacks: of equal output width.
        stack_names: the kind of each.
        stack_of_expert: by expert; the experts of a stack keep their order.
    """

    is_batched = False

    def __init__(
        self, stacks: Sequence[ExpertStack], *, stack_names: Sequence[str], stack_of_expert: Sequence[int]
    ) -> None:
        super().__init__()
        self.stack_names = tuple(stack_names)
        modules = [stack for stack in stacks if isinstance(stack, nn.Module)]
        assert len(modules) == len(stacks), "a stack is a module"
        self.stacks = nn.ModuleList(modules)
        self.out_features = stacks[0].out_features
        assert {stack.out_features for stack in stacks} == {self.out_features}, "all as wide"
        self.num_experts = len(stack_of_expert)
        self._places = [
            [expert for expert, of in enumerate(stack_of_expert) if of == stack] for stack in range(len(stacks))
        ]
        found = {
            place: expert
            for stack, places in zip(stacks, self._places, strict=True)
            for place, expert in zip(places, zip(stack.names, stack.input_of_expert, strict=True), strict=True)
        }
        self.names = tuple(found[place][0] for place in range(self.num_experts))
        self.input_of_expert = tuple(found[place][1] for place in range(self.num_experts))

    def part_names(self) -> PartNames:
        """Every stack is a kind of expert."""
        return {"stacks": self.stack_names}

    def forward(self, inputs: Sequence[Tensor | SidedInput]) -> list[Tensor]:
        """y_BH of every expert on all rows of its input."""
        return self._in_order([stack(inputs) for stack in self.stacks])

    def each(self, inputs: Sequence[Tensor | SidedInput]) -> list[Tensor]:
        """Expert by expert, each on an input of its own with any number of rows."""
        outputs = []
        for stack, places in zip(self.stacks, self._places, strict=True):
            outputs.append(stack.each([inputs[expert] for expert in places]))  # type: ignore[operator]
        return self._in_order(outputs)

    def batched(self, inputs: Sequence[Tensor | SidedInput]) -> Tensor:
        """y_EBH of every expert on all rows of its input."""
        return torch.stack(self(inputs))

    def part(self, experts: Sequence[int]) -> "MixedExperts":
        """Some of its experts; see ``Divisible``."""
        chosen = [[expert for expert in places if expert in experts] for places in self._places]
        used = [stack for stack, of_stack in enumerate(chosen) if of_stack]
        stack_of_expert = {expert: place for place, stack in enumerate(used) for expert in chosen[stack]}
        return MixedExperts(
            [
                self.stacks[stack].part([self._places[stack].index(expert) for expert in chosen[stack]])  # type: ignore[operator]
                for stack in used
            ],
            stack_names=[self.stack_names[stack] for stack in used],
            stack_of_expert=[stack_of_expert[expert] for expert in experts],
        )

    def _in_order(self, outputs: Sequence[Sequence[Tensor]]) -> list[Tensor]:
        found = {
            expert: y_BH
            for places, of_stack in zip(self._places, outputs, strict=True)
            for expert, y_BH in zip(places, of_stack, strict=True)
        }
        dtype = found[0].dtype
        return [found[expert].to(dtype) for expert in range(self.num_experts)]
