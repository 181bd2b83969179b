"""SidedInput: rows whose shared part is held, and multiplied, once per request."""

# R requests, C candidates, S width of the shared part, I width of a candidate's own part,
# D = S + I input width, O output width

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import torch
from torch import Tensor
from torch.nn import functional


@dataclass(frozen=True)
class SidedInput:
    """C rows of width S + I, of which the first S floats are the same for all candidates of a request.

    Example: two requests, the first with two candidates, the second with one::

            shared_RS = [[u0], [u1]]     own_CI = [[a], [b], [c]]     request_C = [0, 0, 1]

            stands for the rows  [u0 a], [u0 b], [u1 c]
    """

    shared_RS: Tensor
    own_CI: Tensor
    request_C: Tensor
    """int64, the row of ``shared_RS`` that belongs to each candidate."""

    @property
    def num_rows(self) -> int:
        return self.own_CI.shape[0]

    @property
    def is_known(self) -> bool:
        """Whether what the own part gives is kept: then few large products beat many small ones."""
        return False

    def concatenated(self) -> Tensor:
        """The rows it stands for, x_CD."""
        return torch.cat([self.shared_RS.index_select(0, self.request_C), self.own_CI], dim=1)

    def index_select(self, rows_N: Tensor) -> "SidedInput":
        """Some of its rows; the shared part stays as it is."""
        return SidedInput(
            shared_RS=self.shared_RS,
            own_CI=self.own_CI.index_select(0, rows_N),
            request_C=self.request_C.index_select(0, rows_N),
        )

    def own_product(self, weights: Sequence[Tensor]) -> Tensor | None:  # noqa: ARG002
        """What the own part gives with weights, W_c · c of one after the other; None where it is to be computed.

        Args:
            weights: [O, D] each.

        Returns:
            product_CO, which may be written to.
        """
        return None

    def to(self, dtype: torch.dtype) -> "SidedInput":
        """The same rows in another floating point type."""
        return SidedInput(
            shared_RS=self.shared_RS.to(dtype),
            own_CI=self.own_CI.to(dtype),
            request_C=self.request_C,
        )


Groups = Mapping[str, Tensor | SidedInput]
"""Features of some rows by the name that the config gives them; each is as wide as its features together."""
NO_GROUPS: Groups = MappingProxyType({})


def id_group(feature: str) -> str:
    """The group that holds the row of each row's id in its table: int64 [B], 0 where the id is unknown or missing."""
    return f"id of {feature}"


def linear(
    x: Tensor | SidedInput,
    weight_OD: Tensor,
    bias_O: Tensor | None = None,
    *,
    made_of: Sequence[Tensor] | None = None,
) -> Tensor:
    """W · x + b for every row; for a sided input W · [u; c] = W_u · u + W_c · c, the first term once per request.

    Args:
        x: x_BD, or the sided input that stands for it.
        made_of: parameters that the weight was joined from, or cast from; without them it is one itself.

    Returns:
        y_BO, a row per row of x.
    """
    if isinstance(x, Tensor):
        return functional.linear(x, weight_OD, bias_O)
    num_shared = x.shared_RS.shape[1]
    shared_RO = functional.linear(x.shared_RS, weight_OD[:, :num_shared], bias_O)
    known_CO = x.own_product([weight_OD] if made_of is None else made_of)
    if known_CO is not None:
        return known_CO.add_(shared_RO[0] if shared_RO.shape[0] == 1 else shared_RO.index_select(0, x.request_C))
    assert weight_OD.shape[1] == num_shared + x.own_CI.shape[1], "the weight is as wide as shared and own part together"
    if shared_RO.shape[0] == 1:
        # One request: its part is a bias, which the matmul adds for nothing.
        return functional.linear(x.own_CI, weight_OD[:, num_shared:], shared_RO[0])
    own_CO = functional.linear(x.own_CI, weight_OD[:, num_shared:])
    return own_CO.add_(shared_RO.index_select(0, x.request_C))


def select_rows(x: Tensor | SidedInput, rows_N: Tensor) -> Tensor | SidedInput:
    """Some rows of an input of either form."""
    return x.index_select(0, rows_N) if isinstance(x, Tensor) else x.index_select(rows_N)


def select_groups(x: Tensor | SidedInput, rows: Sequence[Tensor]) -> list[Tensor] | list[SidedInput]:
    """Some rows of an input for each of several readers, with one gradient for all of them."""
    if isinstance(x, Tensor):
        together = x.index_select(0, torch.cat(list(rows)))
        return list(torch.split(together, [len(rows_N) for rows_N in rows]))
    return [x.index_select(rows_N) for rows_N in rows]


def select_parts(x: Tensor, places: Sequence[int], *, dim: int) -> Tensor:
    """Some slices of an axis: an index made of numbers of Python would be copied to a GPU, and waited for."""
    parts = x.unbind(dim)
    return torch.stack([parts[place] for place in places], dim=dim)


def compute_dtype(weight: Tensor) -> torch.dtype:
    """What products with a weight are computed in: autocast's type where that is on, else the weight's own."""
    device_type = weight.device.type
    return torch.get_autocast_dtype(device_type) if torch.is_autocast_enabled(device_type) else weight.dtype


def rows_of(x: Tensor | SidedInput) -> Tensor:
    """x_BD of an input of either form, for what cannot be computed by halves."""
    return x if isinstance(x, Tensor) else x.concatenated()
