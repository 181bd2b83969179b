"""InputLayer: from a batch to what the experts and the linear part read."""

# B rows, R requests, C candidates, D input width, P sum of the widths of some keys, T' towers

from collections.abc import Collection, Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

import torch
from torch import Tensor, nn

from recmoe.architectures.seam import Inputs, copy_group
from recmoe.embeddings.numeric_vectors import NumericVectors
from recmoe.embeddings.tables import LookedUp, LooksUp
from recmoe.features.batch import Batch
from recmoe.features.layout import OWN_SIDES, SHARED_SIDES, DenseColumn, InputLayout, Side, SparseKey
from recmoe.model.histories import Histories, HistoryColumns, history_columns
from recmoe.model.input_parts import Half, Part, Pooled, joined, take
from recmoe.model.known_items import KnownCandidates
from recmoe.model.row_ids import row_ids
from recmoe.model.wide import Wide
from recmoe.moe.linear import Groups, SidedInput, id_group
from recmoe.sequence import EncodedHistory


class RowInputs(NamedTuple):
    """What the input layer hands on."""

    inputs: Inputs
    """What the model reads."""
    wide_BT: Tensor | None
    """What the linear part adds to the logits; None without one."""


class InputLayer(nn.Module):
    """From a batch to the input of the first level: ``[shared | own]``.

    The columns of user and context come first and the candidate's own last, so that the
    ranker can compute the first part once per request.

    Args:
        layout: of the model, with the weights of the linear part at the end of the rows where it has one.
        tables: over the same layout.
        wide: the linear part.
        groups: features by the name of a group that the model may read.
        ids: features whose ids it reads too.
    """

    def __init__(
        self,
        *,
        layout: InputLayout,
        tables: nn.Module,
        wide: Wide | None = None,
        groups: Mapping[str, Sequence[str]] = MappingProxyType({}),
        ids: Sequence[str] = (),
    ) -> None:
        super().__init__()
        self.layout = layout
        self.tables = tables
        self.wide = wide
        self.parts = {
            "all": Part(layout),
            "shared": Part(layout.select(SHARED_SIDES)),
            "own": Part(layout.select(OWN_SIDES)),
        }
        vectors = [c for c in layout.dense if c.form == "position"]
        self.shared_vectors = NumericVectors([c for c in vectors if c.side in SHARED_SIDES])
        self.own_vectors = NumericVectors([c for c in vectors if c.side == "item"])
        self.histories = Histories(layout)
        self.groups = _groups(layout, groups)
        self.ids = tuple(ids)

    def forward(self, batch: Batch) -> RowInputs:
        """The inputs of rows that hold all sides."""
        part = self.parts["all"]
        found = self._look_up(batch)
        pooled = part.split(found.pooled_BP)
        shared = self._half(part, pooled, batch, shared=True)
        own = self._half(part, pooled, batch, shared=False)
        encoded = self.histories.encode(batch, part.layout, found.entries)
        shared.pieces.extend(self.histories.shared_pieces(encoded))
        own.pieces.extend(self._read_histories(encoded, own, batch, None))
        wide_BT = None if shared.wide_BT is None or own.wide_BT is None else shared.wide_BT + own.wide_BT
        ids = {id_group(name): ids_B for name in self.ids if (ids_B := row_ids(batch, part.layout, name)) is not None}
        return RowInputs(self.inputs_of(torch.cat([*shared.pieces, *own.pieces], dim=1), ids), wide_BT)

    def sided(self, shared: Batch, own: Batch, request_C: Tensor, known: KnownCandidates | None = None) -> RowInputs:
        """The same inputs from one row per request and one row per candidate; a history is encoded once per request.

        Args:
            known: candidates whose rows are not in ``own``, for what they give is known; never with a history that
                candidates read.
        """
        part = self.parts["shared"]
        found = self._look_up(shared, part.layout.sparse)
        of_request = self._half(part, part.split(found.pooled_BP), shared, shared=True)
        encoded = self.histories.encode(shared, part.layout, found.entries)
        of_request.pieces.extend(self.histories.shared_pieces(encoded))
        shared_RS, wide_RT = joined(of_request, shared), of_request.wide_BT
        if known is not None and not own.num_rows:
            # Even a look-up of nothing costs as much as one of a few rows.
            none = own.dense_BF[:, :0]
            of_candidate = Half([], None if self.wide is None else none)
        else:
            of_candidate = self.own_half(own, encoded, request_C)
        own_CI, wide_CT = joined(of_candidate, own), of_candidate.wide_BT
        ids = self._ids(shared, own, request_C, known)
        if known is None:
            x = SidedInput(shared_RS=shared_RS, own_CI=own_CI, request_C=request_C)
        else:
            x = known.input(shared_RS, own_CI, request_C, lambda rows: joined(self.own_half(rows), rows))
            wide_CT = None if wide_CT is None else known.wide(wide_CT)
        if wide_CT is not None and wide_RT is not None:
            wide_CT = wide_RT.index_select(0, request_C) + wide_CT
        return RowInputs(self.inputs_of(x, ids), wide_CT)

    def own_half(
        self, own: Batch, encoded: Mapping[str, EncodedHistory] | None = None, request_C: Tensor | None = None
    ) -> Half:
        """What candidates contribute.

        Args:
            encoded: histories that candidates read, where the model has some.
            request_C: whose each is read by which candidate.
        """
        part = self.parts["own"]
        half = self._half(part, part.split(self._look_up(own, part.layout.sparse).pooled_BP), own, shared=False)
        half.pieces.extend(self._read_histories(encoded or {}, half, own, request_C))
        return half

    def _ids(self, shared: Batch, own: Batch, request_C: Tensor, known: KnownCandidates | None) -> dict[str, Tensor]:
        """Rows of the ids that the model reads by themselves, one per candidate."""
        ids = {}
        for feature in self.ids:
            of_request = row_ids(shared, self.parts["shared"].layout, feature)
            of_candidate = row_ids(own, self.parts["own"].layout, feature)
            if of_request is not None:
                ids[id_group(feature)] = of_request.index_select(0, request_C)
            elif of_candidate is not None and known is not None:
                known_H = row_ids(known.batch(), self.parts["own"].layout, feature)
                assert known_H is not None
                ids[id_group(feature)] = known.rows.joined(known_H[:, None], of_candidate[:, None])[:, 0]
            elif of_candidate is not None:
                ids[id_group(feature)] = of_candidate
        return ids

    def _look_up(self, batch: Batch, keys: Sequence[SparseKey] | None = None) -> LookedUp:
        assert isinstance(self.tables, LooksUp)
        return self.tables.look_up(batch, keys)

    def _read_histories(
        self, encoded: Mapping[str, EncodedHistory], own: Half, batch: Batch, request_C: Tensor | None
    ) -> list[Tensor]:
        """What the candidates of a batch read; there may be no piece of their own, and still so many of them."""
        return self.histories.own_pieces(encoded, [batch.dense_BF[:, :0], *own.pieces], request_C)

    def inputs_of(self, x: Tensor | SidedInput, ids: Mapping[str, Tensor]) -> Inputs:
        """What the model reads, from the columns of all features and the ids that it reads by themselves."""
        groups: Groups = {**{name: group.of(x) for name, group in self.groups.items()}, **ids}
        return Inputs(x, groups)

    def _half(self, part: Part, pooled: Pooled, batch: Batch, *, shared: bool) -> Half:
        """Pooled vectors, plain numbers and learned vectors of the shared or the own columns."""
        numbers_BF = take(batch.dense_BF, part.values[shared])
        pieces = list(pooled.vectors[shared])
        if part.values[shared]:
            pieces.append(numbers_BF)
        if part.positions[shared]:
            vectors = self.shared_vectors if shared else self.own_vectors
            pieces += vectors(take(batch.dense_BF, part.positions[shared]))
        wide_BT = None if self.wide is None else self.wide(pooled.linear[shared], numbers_BF, shared=shared)
        return Half(pieces, wide_BT)


def _groups(layout: InputLayout, groups: Mapping[str, Sequence[str]]) -> "dict[str, _Group]":
    """Those that the config names, and one for every copy of the vectors."""
    every = [part.feature for part in input_order(layout)]
    return {
        **{name: _Group(layout, features) for name, features in groups.items()},
        **{copy_group(name): _Group(layout, every, copy=index) for index, name in enumerate(layout.copies)},
    }


class _Group:
    """Where the features of a group, or one of several vectors of every id, stand in x_BD; by whether shared."""

    def __init__(self, layout: InputLayout, features: Collection[str], *, copy: int | None = None) -> None:
        self.slices: dict[bool, list[slice]] = {True: [], False: []}
        self.width = 0
        for is_shared, sides in ((True, SHARED_SIDES), (False, OWN_SIDES)):
            start = 0
            for part in _half_order(layout, sides):
                width = _width(part)
                first, own = start, width
                if copy is not None and isinstance(part, SparseKey):
                    own = width // len(layout.copies)
                    first += copy * own
                if part.feature in features:
                    self.slices[is_shared].append(slice(first, first + own))
                    self.width += own
                start += width
            if is_shared:
                self.num_shared = start

    def of(self, x: Tensor | SidedInput) -> Tensor | SidedInput:
        """The columns of the group."""
        if isinstance(x, Tensor):
            halves_BD = x[:, : self.num_shared], x[:, self.num_shared :]
            return torch.cat([take(halves_BD[0], self.slices[True]), take(halves_BD[1], self.slices[False])], dim=1)
        return SidedInput(
            shared_RS=take(x.shared_RS, self.slices[True]),
            own_CI=take(x.own_CI, self.slices[False]),
            request_C=x.request_C,
        )


InputPart = SparseKey | DenseColumn | HistoryColumns
"""What a block of columns of x_BD is made of."""


def input_order(layout: InputLayout) -> list[InputPart]:
    """What the columns of x_BD are: shared before own; in each half ids, numbers, learned vectors, then histories."""
    return [*_half_order(layout, SHARED_SIDES), *_half_order(layout, OWN_SIDES)]


def _half_order(layout: InputLayout, sides: Collection[Side]) -> list[InputPart]:
    half = layout.select(sides)
    values = [column for column in half.dense if column.form == "value"]
    positions = [column for column in half.dense if column.form == "position"]
    # What a candidate reads of a history is the candidate's own, whosever the history is.
    histories = history_columns(layout, reads_candidate="item" in sides)
    return [*half.pooled, *values, *positions, *histories]


def _width(part: InputPart) -> int:
    """Floats of a block of columns."""
    return part.vector_width if isinstance(part, SparseKey) else part.width


def feature_widths(layout: InputLayout) -> dict[str, int]:
    """Floats of every feature, in the order in which x_BD holds them first."""
    widths: dict[str, int] = {}
    for part in input_order(layout):
        widths[part.feature] = widths.get(part.feature, 0) + _width(part)
    return widths


def input_widths(layout: InputLayout, groups: Mapping[str, Sequence[str]]) -> dict[str, int]:
    """Floats of each group of features; ``all`` is D."""
    every = [part.feature for part in input_order(layout)]
    return {name: group.width for name, group in _groups(layout, {"all": every, **groups}).items()}


def num_values(layout: InputLayout, *, shared: bool) -> int:
    """Plain numbers of user and context, or of the item."""
    sides = SHARED_SIDES if shared else OWN_SIDES
    return sum(column.form == "value" for column in layout.select(sides).dense)
