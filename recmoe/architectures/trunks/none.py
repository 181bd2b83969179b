"""No trunk: an architecture reads the features side by side."""

from collections.abc import Mapping, Sequence
from typing import Literal

from torch import nn

from recmoe.architectures.seam import ArchitectureKind, Parts
from recmoe.architectures.trunks.trunk import BelowKind


class NoTrunkConfig(BelowKind):
    """The architecture reads the features as they are."""

    kind: Literal["none"] = "none"

    def groups(self, widths: Mapping[str, int], named: Mapping[str, Sequence[str]]) -> dict[str, tuple[str, ...]]:  # noqa: ARG002
        """None of its own."""
        return {}

    def below(self, architecture: ArchitectureKind, parts: Parts) -> nn.Module:
        """The architecture alone."""
        return architecture.assemble(parts)
