"""KnownItems: items of which a model knows what it will multiply, before any request."""

# N items, H known candidates, M others, C = H + M, R requests, S and I widths of the shared and the own part, T' towers

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from recmoe.features.batch import Batch
from recmoe.moe.known import KnownInput, KnownProducts, KnownRows


@dataclass(frozen=True)
class KnownItems:
    """N items."""

    products: KnownProducts
    wide_NT: Tensor | None
    """What the linear part makes of their own columns; None without one."""
    batch: Callable[[Tensor], Batch]
    """The rows of some of them, as ``layout.select(OWN_SIDES)`` orders them."""

    @property
    def num_bytes(self) -> int:
        """Of all that is known."""
        wide = 0 if self.wide_NT is None else self.wide_NT.numel() * self.wide_NT.element_size()
        return self.products.num_bytes + wide


@dataclass(frozen=True)
class KnownCandidates:
    """Which candidates of some requests are known items."""

    items: KnownItems
    rows: KnownRows

    def batch(self) -> Batch:
        """The rows of the known candidates."""
        return self.items.batch(self.rows.items_H)

    def wide(self, other_MT: Tensor) -> Tensor:
        """What the linear part makes of all candidates' own columns, from what it makes of the others'."""
        assert self.items.wide_NT is not None
        return self.rows.joined(self.items.wide_NT.index_select(0, self.rows.items_H), other_MT)

    def input(
        self, shared_RS: Tensor, other_MI: Tensor, request_C: Tensor, own_part: Callable[[Batch], Tensor]
    ) -> KnownInput:
        """The input of all candidates.

        Args:
            own_part: makes own columns of rows, where some are asked for.
        """
        return KnownInput(
            shared_RS=shared_RS,
            request_C=request_C,
            other_MI=other_MI,
            rows=self.rows,
            products=self.items.products,
            known_HI=lambda: own_part(self.batch()),
        )
