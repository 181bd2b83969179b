"""Known products: what candidates' own part gives in products with weights, computed once for items that come often."""

# N known items, H of them in a request, M other candidates, C = H + M, R requests, S width of the shared part,
# I width of a candidate's own part, D = S + I, O outputs of a weight

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor
from torch.nn import functional

from recmoe.moe.linear import SidedInput

Place = tuple[int, int]
"""Where weights of one width lie: their storage, and D."""


@dataclass(frozen=True)
class _Piece:
    """Outputs of a weight, neighbours in memory."""

    first: int
    """Of the weight's numbers in its storage."""
    product_NO: Tensor
    width: int
    """D."""

    @property
    def end(self) -> int:
        return self.first + self.product_NO.shape[1] * self.width


class KnownProducts:
    """W_c · c of N items, for weights W = [W_u | W_c] that a model multiplies its whole input with.

    A weight is known by where its numbers lie in memory, so that a part of it is known as well::

        parameter W_EOD of 2 experts       known  [W[0] | W[1]]      asked for  W[1]    found  the second half

    Args:
        parameters: of the model, which must not move.
        num_items: N.
    """

    def __init__(self, parameters: Iterable[Tensor], *, num_items: int) -> None:
        self.num_items = num_items
        self.num_own_parts = 0
        """How often a model has asked for the own part of candidates all the same."""
        self._lasting = {parameter.untyped_storage().data_ptr() for parameter in parameters}
        self._pieces: dict[Place, dict[int, _Piece]] = {}

    @property
    def num_bytes(self) -> int:
        """Of all products."""
        pieces = (piece for of_place in self._pieces.values() for piece in of_place.values())
        return sum(piece.product_NO.numel() * piece.product_NO.element_size() for piece in pieces)

    def take(self, weight_OD: Tensor, product_BO: Tensor, first_item: int) -> None:
        """Note what some items give, from the first of them on; a weight that was made for one call is passed over."""
        place = _place(weight_OD)
        if place is None or place[0] not in self._lasting:
            return
        first, of_place = int(weight_OD.storage_offset()), self._pieces.setdefault(place, {})
        if first not in of_place or of_place[first].product_NO.shape[1] != product_BO.shape[1]:
            of_place[first] = _Piece(first, product_BO.new_empty(self.num_items, product_BO.shape[1]), place[1])
        of_place[first].product_NO[first_item : first_item + len(product_BO)] = product_BO

    def of(self, weight_OD: Tensor, items_H: Tensor) -> Tensor | None:
        """product_HO of some items, a copy; None where it is not known."""
        place = _place(weight_OD)
        of_place = None if place is None else self._pieces.get(place)
        if of_place is None:
            return None
        first = int(weight_OD.storage_offset())
        end = first + weight_OD.numel()
        exact = of_place.get(first)
        if exact is not None and exact.end == end:
            return exact.product_NO.index_select(0, items_H)
        found = []
        for piece in sorted(of_place.values(), key=lambda piece: piece.first):
            if piece.first <= first < piece.end:
                columns = slice(
                    (first - piece.first) // piece.width, (min(end, piece.end) - piece.first) // piece.width
                )
                found.append(piece.product_NO[:, columns].index_select(0, items_H))
                first = min(end, piece.end)
        return torch.cat(found, dim=1) if first == end and found else None


def _place(weight_OD: Tensor) -> Place | None:
    """Where a weight lies; None for one whose rows are not neighbours in memory."""
    width = weight_OD.shape[1]
    return (weight_OD.untyped_storage().data_ptr(), width) if weight_OD.stride() == (width, 1) else None


class ObservedInput(SidedInput):
    """A sided input that notes what its own part gives.

    Args:
        x: the input.
        products: takes the notes.
        first_item: the item of its first row.
    """

    def __init__(self, x: SidedInput, products: KnownProducts, first_item: int) -> None:
        super().__init__(shared_RS=x.shared_RS, own_CI=x.own_CI, request_C=x.request_C)
        self.__dict__.update(_products=products, _first_item=first_item)

    _products: KnownProducts
    _first_item: int

    @property
    def is_known(self) -> bool:
        return True

    def own_product(self, weights: Sequence[Tensor]) -> Tensor:
        found = []
        for weight_OD in weights:
            found.append(_of_own(self.own_CI, weight_OD))
            self._products.take(weight_OD, found[-1], self._first_item)
        return torch.cat(found, dim=1)

    def to(self, dtype: torch.dtype) -> "ObservedInput":
        return ObservedInput(super().to(dtype), self._products, self._first_item)


@dataclass(frozen=True)
class KnownRows:
    """Which of C candidates are known items."""

    items_H: Tensor
    """int64, of ``products``."""
    rows_H: Tensor
    """int64, where they stand among the candidates."""
    rows_M: Tensor
    """int64, where the others stand."""

    @property
    def num_rows(self) -> int:
        return len(self.rows_H) + len(self.rows_M)

    def joined(self, known_HX: Tensor, other_MX: Tensor) -> Tensor:
        """x_CX from those of the known and the other candidates."""
        if not len(self.rows_M):
            return known_HX
        x_CX = known_HX.new_empty(self.num_rows, known_HX.shape[1])
        x_CX[self.rows_H] = known_HX
        x_CX[self.rows_M] = other_MX
        return x_CX


class KnownInput(SidedInput):
    """A sided input of which many candidates are known by what they give; their own part is made only if asked for.

    Args:
        shared_RS, request_C: see ``SidedInput``.
        other_MI: own part of the candidates that are not known.
        rows: which are.
        products: of the known ones.
        known_HI: makes the own part of those.
    """

    _other_MI: Tensor
    _rows: KnownRows
    _products: KnownProducts
    _known_HI: Callable[[], Tensor]

    def __init__(
        self,
        *,
        shared_RS: Tensor,
        request_C: Tensor,
        other_MI: Tensor,
        rows: KnownRows,
        products: KnownProducts,
        known_HI: Callable[[], Tensor],
    ) -> None:
        # own_CI is left out: it is a property here.
        self.__dict__.update(shared_RS=shared_RS, request_C=request_C)
        self.__dict__.update(_other_MI=other_MI, _rows=rows, _products=products, _known_HI=known_HI)

    @cached_property
    def own_CI(self) -> Tensor:
        self._products.num_own_parts += 1
        return self._rows.joined(self._known_HI().to(self._other_MI.dtype), self._other_MI)

    @property
    def num_rows(self) -> int:
        return self._rows.num_rows

    @property
    def is_known(self) -> bool:
        return True

    def own_product(self, weights: Sequence[Tensor]) -> Tensor | None:
        found = [self._products.of(weight_OD, self._rows.items_H) for weight_OD in weights]
        known = [product_HO for product_HO in found if product_HO is not None]
        if len(known) < len(found):
            return None
        known_HO = known[0] if len(known) == 1 else torch.cat(known, dim=1)
        if not len(self._rows.rows_M):
            return known_HO
        other = [_of_own(self._other_MI, weight_OD) for weight_OD in weights]
        return self._rows.joined(known_HO, other[0] if len(other) == 1 else torch.cat(other, dim=1))

    def to(self, dtype: torch.dtype) -> "KnownInput":
        if dtype == self.shared_RS.dtype == self._other_MI.dtype:
            return self
        return KnownInput(
            shared_RS=self.shared_RS.to(dtype),
            request_C=self.request_C,
            other_MI=self._other_MI.to(dtype),
            rows=self._rows,
            products=self._products,
            known_HI=self._known_HI,
        )


def _of_own(own_CI: Tensor, weight_OD: Tensor) -> Tensor:
    """W_c · c, for a weight whose last columns are W_c."""
    return functional.linear(own_CI, weight_OD[:, weight_OD.shape[1] - own_CI.shape[1] :].to(own_CI.dtype))
