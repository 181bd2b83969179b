"""ExpertStack: the experts of one layer."""

# E experts, B rows, P rows of all experts, D input width, H width of an expert's output

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from copy import deepcopy
from typing import ClassVar, Literal, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from recmoe.axes import PartNames
from recmoe.config import Config
from recmoe.moe.grouped import RowGroups
from recmoe.moe.linear import SidedInput, select_rows

Form = Literal["auto", "loop", "batched"]
"""How experts are computed: one after the other, layer by layer in few large kernels, or as suits the device."""


class ExpertStack(Protocol):
    """A module of E experts, each of which reads one of several inputs."""

    names: tuple[str, ...]
    """Such as ctr.0 and shared.1: the owner, and which of its experts."""
    input_of_expert: tuple[int, ...]
    """By expert: which of the inputs it reads."""
    num_experts: int
    out_features: int
    """H."""

    @property
    def is_batched(self) -> bool:
        """Whether the form in use is ``batched``."""
        ...

    def __call__(self, inputs: Sequence[Tensor | SidedInput]) -> list[Tensor]:
        """Compute every expert on all rows of its input.

        Args:
            inputs: x_BD, or the sided inputs that stand for them.

        Returns:
            y_BH per expert.
        """
        ...

    def each(self, inputs: Sequence[Tensor | SidedInput]) -> list[Tensor]:
        """Compute every expert on some rows of its own.

        Args:
            inputs: one per expert.

        Returns:
            One output per expert, with the rows of its input.
        """
        ...

    def batched(self, inputs: Sequence[Tensor | SidedInput]) -> Tensor:
        """y_EBH of every expert on all rows of its input."""
        ...


@runtime_checkable
class TakesGroups(Protocol):
    """A stack whose experts can be given rows that the host has not counted."""

    @property
    def is_grouped(self) -> bool:
        """Whether that is how it computes chosen rows, where and in what numbers its weights are."""
        ...

    def grouped(self, x_PD: Tensor, groups: RowGroups) -> Tensor:
        """y_PH of rows that lie expert after expert."""
        ...


@runtime_checkable
class MergesWeights(Protocol):
    """A stack whose experts can be merged, weight by weight; its kind says so by ``can_merge``."""

    def merged(
        self, inputs: Sequence[Tensor | SidedInput], *, weights: Sequence[Tensor], seen: Sequence[Sequence[int]]
    ) -> list[Tensor]:
        """One h_BH per gate: what one expert makes of a row, every weight of which is a mean over experts.

        Args:
            inputs: of the layer.
            weights: p_BV per gate, by which the means are weighted, row by row.
            seen: of each gate, the expert that each column of its weights belongs to.
        """
        ...


@runtime_checkable
class Divisible(Protocol):
    """A stack whose experts can be held by several workers."""

    def part(self, experts: Sequence[int]) -> ExpertStack:
        """Some of its experts, at least one, in their order, with copies of their weights."""
        ...


class ExpertKind(Config):
    """What every kind of expert says of itself; most leave it at that."""

    can_merge: ClassVar[bool] = False
    """Whether its stack is one that ``MergesWeights``."""


class SeparateKind(ExpertKind):
    """A kind whose experts are modules of their own."""

    @abstractmethod
    def expert(self, *, in_features: int, hidden: Sequence[int], dropout: float) -> nn.Module:
        """One of them, x_BD → y_BH, with weights drawn from torch's global generator.

        Args:
            in_features: D.
            hidden: width of each layer; the last is H.
            dropout: share of activations dropped in training.
        """

    def build(
        self,
        *,
        reads: Mapping[str, int],
        in_features: int,
        hidden: Sequence[int],
        dropout: float,
        form: Form,  # noqa: ARG002
    ) -> "SeparateExperts":
        """The experts of these names, with weights drawn from torch's global generator."""
        experts = [self.expert(in_features=in_features, hidden=hidden, dropout=dropout) for _ in reads]
        return SeparateExperts(experts, reads=reads, out_features=hidden[-1])


class SeparateExperts(nn.Module):
    """Experts that are modules of their own, x_BD → y_BH; they may be of different kinds. See ``ExpertStack``.

    Args:
        experts: take an input of either form; all are H wide.
        reads: by name of an expert, which of the inputs it reads.
    """

    is_batched = False

    def __init__(self, experts: Sequence[nn.Module], *, reads: Mapping[str, int], out_features: int) -> None:
        super().__init__()
        assert len(experts) == len(reads) > 0, "every expert reads one input"
        self.experts = nn.ModuleList(experts)
        self.names = tuple(reads)
        self.input_of_expert = tuple(reads.values())
        self.num_experts = len(experts)
        self.out_features = out_features

    def part_names(self) -> PartNames:
        """Every expert is a part."""
        return {"experts": self.names}

    def forward(self, inputs: Sequence[Tensor | SidedInput]) -> list[Tensor]:
        """y_BH of every expert on all rows of its input."""
        return self.each([inputs[index] for index in self.input_of_expert])

    def each(self, inputs: Sequence[Tensor | SidedInput]) -> list[Tensor]:
        """Expert by expert, each on an input of its own with any number of rows."""
        return [expert(x) for expert, x in zip(self.experts, inputs, strict=True)]

    def batched(self, inputs: Sequence[Tensor | SidedInput]) -> Tensor:
        """y_EBH of every expert on all rows of its input."""
        return torch.stack(self(inputs))

    def part(self, experts: Sequence[int]) -> "SeparateExperts":
        """Some of its experts; see ``Divisible``."""
        reads = {self.names[expert]: self.input_of_expert[expert] for expert in experts}
        return SeparateExperts(
            [deepcopy(self.experts[expert]) for expert in experts], reads=reads, out_features=self.out_features
        )


def outputs_of_first_rows(
    experts: ExpertStack, inputs: Sequence[Tensor | SidedInput], num_rows: int
) -> dict[str, Tensor]:
    """y_BH of every expert by name on the first rows of its input, without dropout.

    Experts that hand their input on as it is are left out.
    """
    assert isinstance(experts, nn.Module)
    few = [select_rows(x, torch.arange(num_rows, device=_device_of(x))) for x in inputs]
    was_training = experts.training
    experts.eval()
    try:
        outputs = experts(few)
    finally:
        experts.train(was_training)
    given = zip(experts.names, outputs, strict=True)
    return {name: y_BH for name, y_BH in given if not any(y_BH is x for x in few)}


def _device_of(x: Tensor | SidedInput) -> torch.device:
    return x.device if isinstance(x, Tensor) else x.own_CI.device
