"""The seam of trunks: what turns the features of a row into the vector that an architecture reads in their place."""

# B rows, D input width, D' width of what a trunk gives

from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple, Protocol, cast

from torch import Tensor, nn

from recmoe.architectures.seam import ArchitectureKind, Forkable, Inputs, Model, Outputs, Parts, Targets
from recmoe.balancing.fork import Fork
from recmoe.config import Config
from recmoe.moe.gate_use import GateUse
from recmoe.moe.linear import NO_GROUPS, Groups, SidedInput


class TrunkOutput(NamedTuple):
    """What a trunk gives."""

    x_BD: Tensor
    """What the architecture reads in place of the features; D' wide."""
    losses: Mapping[str, Tensor] = {}
    """Own losses by name, scalars, each a sum over rows divided by B."""
    routing: Callable[[], Sequence[GateUse]] = tuple
    """Gives how gates of its own mixed experts, level by level: -2 below -1, on which the architecture stands."""


class Trunk(Protocol):
    """A module between the features and an architecture."""

    out_features: int
    """D'."""
    loss_weights: Mapping[str, float]
    """By name of an own loss: its factor in the loss that is minimised."""

    def __call__(self, x: Tensor | SidedInput, groups: Groups = NO_GROUPS) -> TrunkOutput:
        """Some rows, from their features and the groups that the trunk asked for."""
        ...


class BelowKind(Config):
    """What may stand below an architecture: a trunk, or nothing."""

    @abstractmethod
    def groups(self, widths: Mapping[str, int], named: Mapping[str, Sequence[str]]) -> dict[str, tuple[str, ...]]:
        """Groups of features that it reads besides those of ``model.groups``, by name.

        Args:
            widths: floats of every feature, in the order of x_BD.
            named: features of each group of ``model.groups``.
        """

    @abstractmethod
    def below(self, architecture: ArchitectureKind, parts: Parts) -> nn.Module:
        """The ``Model`` of an architecture that stands on it, with weights drawn from torch's global generator."""

    def group_problems(self, groups: Sequence[str]) -> Iterator[tuple[str, str]]:  # noqa: ARG002
        """What does not fit the groups of features, as (key below the section, message)."""
        return iter(())


class TrunkKind(BelowKind):
    """A kind of trunk."""

    @abstractmethod
    def build(self, widths: Mapping[str, int]) -> nn.Module:
        """The ``Trunk``, with weights drawn from torch's global generator.

        Args:
            widths: of x_BD, ``all``, and of each group of features, those of ``groups()`` among them.
        """

    def below(self, architecture: ArchitectureKind, parts: Parts) -> nn.Module:
        """The architecture, reading what the trunk gives as ``all``; groups of features are what they were."""
        trunk = self.build(parts.widths)
        width = trunk.out_features
        assert isinstance(width, int)
        inner = architecture.assemble(replace(parts, widths={**parts.widths, "all": width}))
        return TrunkModel(trunk=trunk, inner=inner)


class TrunkModel(nn.Module):
    """A model that stands on a trunk; see ``Model``.

    Args:
        trunk: x_BD → x_BD'.
        inner: the ``Model`` that reads what the trunk gives.
    """

    def __init__(self, *, trunk: nn.Module, inner: nn.Module) -> None:
        super().__init__()
        self.trunk = trunk
        self.inner = inner
        model, below = cast(Model, inner), cast(Trunk, trunk)
        both = sorted(model.loss_weights.keys() & below.loss_weights.keys())
        assert not both, f"trunk and model have losses of one name: {both}"
        self.replaces = model.replaces
        self.loss_weights: Mapping[str, float] = {**model.loss_weights, **below.loss_weights}

    def forward(self, inputs: Inputs) -> Outputs:
        """The logits of some rows; the trunk's losses are among what only the model's own losses read.

        ``routing`` is that of the model alone: what balances its gates has nothing to do with those of a trunk.
        """
        found: TrunkOutput = self.trunk(inputs.x, inputs.groups)
        outputs: Outputs = self.inner(Inputs(found.x_BD, inputs.groups))
        return outputs._replace(extra={**outputs.extra, **found.losses}, below=found.routing)

    def begin_at_zero(self) -> None:
        """Make every logit 0; see ``Model``."""
        cast(Model, self.inner).begin_at_zero()

    def fork_shared(self, fork: Fork) -> None:
        """Let the tasks read copies of what they share above the trunk; see ``Forkable``."""
        cast(Forkable, self.inner).fork_shared(fork)

    def losses(self, outputs: Outputs, targets: Targets) -> dict[str, Tensor]:
        """Those of the model, and those of the trunk."""
        of_trunk = {name: outputs.extra[name] for name in cast(Trunk, self.trunk).loss_weights}
        return {**cast(Model, self.inner).losses(outputs, targets), **of_trunk}


def by_level(uses: Sequence[Callable[[int], GateUse]]) -> list[GateUse]:
    """The use of each block: blocks are levels below 0, on which an architecture stands."""
    return [use(block - len(uses)) for block, use in enumerate(uses)]
