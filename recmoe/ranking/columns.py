"""RequestDecoder: JSON values of a request → raw columns of the types that training saw."""

# C candidates

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, Generic, TypeVar

import pyarrow as pa
import pyarrow.compute as pc

from recmoe.errors import RequestError
from recmoe.features.blocks import BlockEncoder, BlockRows
from recmoe.features.columns import is_list_type
from recmoe.features.encoder import FeatureEncoder
from recmoe.features.layout import ALL_SIDES, OWN_SIDES, SHARED_SIDES, Side
from recmoe.ranking.request import RankRequest
from recmoe.ranking.score import RankingConfig, did_you_mean, unknown_name
from recmoe.ranking.texts import short
from recmoe.ranking.values import Path, RequestColumn, check_sizes, to_arrow

DEFAULT_ITEM = "item_id"
"""Field that names a candidate where the schema has no item column."""

MAX_IGNORED = 100
"""Names of fields that are ignored in one request; more are no newer model's."""


Own = TypeVar("Own")
"""How the columns of candidates are held: all as the request gave them, or many in a store."""


@dataclass(frozen=True)
class DecodedRequest(Generic[Own]):
    """A request as raw columns."""

    shared: BlockRows
    """One row: columns of user and context."""
    own: Own
    """C rows: columns of the candidates."""
    item_ids: Sequence[Any]
    """C ids as the request gave them, or positions where candidates have none."""
    item_keys: pa.Array
    """The same as values of one type, to be sorted by."""
    ignored: Mapping[str, int]
    """How often each field came that the model does not know."""


class RequestDecoder:
    """Knows which column belongs to which part of a request, and its type.

    Args:
        encoder: the encoder of the bundle; its schema names the columns, its training data gave the types.
        config: limits, and what a field does that is not known.
    """

    def __init__(self, encoder: FeatureEncoder, config: RankingConfig | None = None) -> None:
        schema = encoder.schema
        self.item = schema.item
        self.columns: dict[Side, dict[str, RequestColumn]] = {
            side: _columns_of_side(encoder, side) for side in ALL_SIDES
        }
        self._shared_columns = {**self.columns["user"], **self.columns["context"]}
        self._side_of = {name: side for side in SHARED_SIDES for name in self.columns[side]}
        self.shared = block_encoder(encoder, SHARED_SIDES, self._shared_columns)
        """Encodes user and context."""
        self.own = block_encoder(encoder, OWN_SIDES, self.columns["item"])
        """Encodes candidates."""
        self._config = config or RankingConfig()
        # The list's id orders nothing within one request, but a log line replayed as a request carries it.
        self._group: set[str] = {schema.group} if schema.group is not None else set()
        self._known = {side: set(columns) | self._group for side, columns in self.columns.items()}
        if schema.item is None:
            self._known["item"].add(DEFAULT_ITEM)

    def decode(self, request: RankRequest) -> DecodedRequest[BlockRows]:
        """The columns of a request; absent ones are null. RequestError with the path of the value at fault."""
        ignored = self.ignored(request)
        shared, own = self.shared_rows(request), self.own_rows(request, self.own)
        return DecodedRequest(shared, own, *self.item_ids(request), ignored)

    def shared_rows(self, request: RankRequest) -> BlockRows:
        """One row: columns of user and context."""
        of_side: dict[Side, Mapping[str, Any]] = {"user": request.user, "context": request.context}
        return self._rows(
            self.shared,
            self._shared_columns,
            values=lambda name: [of_side[self._side_of[name]].get(name)],
            path=lambda name, _: f"{self._side_of[name]}.{name}",
            num_rows=1,
        )

    def own_rows(self, request: RankRequest, encoder: BlockEncoder, places: Sequence[int] | None = None) -> BlockRows:
        """Columns of candidates for an encoder of some of their features.

        Args:
            places: which candidates, in what order; all by default.
        """

        def values(name: str) -> Sequence[Any]:
            given = _values(request, name)
            return given if places is None else [given[place] for place in places]

        return self._rows(
            encoder,
            self.columns["item"],
            values=values,
            path=lambda name, row: _path(request, name)(row if places is None else places[row]),
            num_rows=request.num_candidates if places is None else len(places),
        )

    def own_column(self, request: RankRequest, name: str) -> pa.Array:
        """A column of all candidates, null where it is not given."""
        return self._column(_values(request, name), self.columns["item"][name], _path(request, name))

    def hint(self, name: str) -> str | None:
        """What a field that the model does not know may be meant to be."""
        return did_you_mean(name, self._names)

    @property
    def _names(self) -> list[str]:
        return sorted({name for columns in self.columns.values() for name in columns})

    def _rows(
        self,
        encoder: BlockEncoder,
        columns: Mapping[str, RequestColumn],
        *,
        values: Callable[[str], Sequence[Any]],
        path: Callable[[str, int], str],
        num_rows: int,
    ) -> BlockRows:
        """Raw columns of one part of a request.

        Args:
            values: of a column by its name.
            path: of a value, by its column and row.
        """
        blocks = []
        for names in encoder.block_columns:
            flat = list(chain.from_iterable(values(name) for name in names))
            place = _place_in(names, num_rows, path)
            blocks.append(self._column(flat, columns[names[0]], place))
        others = None
        if encoder.other_columns:
            others = pa.table(
                {
                    name: self._column(values(name), columns[name], _place_in((name,), num_rows, path))
                    for name in encoder.other_columns
                }
            )
        return BlockRows(blocks, others, num_rows)

    def _column(self, values: Sequence[Any], column: RequestColumn, path: Path) -> pa.Array:
        check_sizes(values, column, path, self._config)
        return to_arrow(values, column.type, path, is_id=column.is_id)

    def item_ids(self, request: RankRequest) -> tuple[Sequence[Any], pa.Array]:
        """The ids candidates are known by in the response, as they came and as one type."""
        if self.item is not None:
            values = _values(request, self.item)
            keys = self._column(values, self.columns["item"][self.item], _path(request, self.item))
            _check_present(keys, _path(request, self.item), "it names the item in the response")
            is_number = pa.types.is_integer(keys.type) or pa.types.is_floating(keys.type)
            return values, keys if is_number else keys.cast(pa.string())
        values = _values(request, DEFAULT_ITEM)
        if DEFAULT_ITEM in self.columns["item"] or all(value is None for value in values):
            return range(request.num_candidates), pa.array(range(request.num_candidates))
        is_text = all(isinstance(value, str | None) for value in values)
        column = RequestColumn(pa.string() if is_text else pa.int64(), is_id=True)
        keys = self._column(values, column, _path(request, DEFAULT_ITEM))
        _check_present(keys, _path(request, DEFAULT_ITEM), "give one to every candidate or to none")
        return values, keys

    def ignored(self, request: RankRequest) -> Counter[str]:
        """How often each field came that the model does not know."""
        ignored = Counter[str]()
        self._sort_out(request.user, "user", "user", ignored)
        self._sort_out(request.context, "context", "context", ignored)
        if isinstance(request.candidates, list):
            known = self._known["item"]
            for index, row in enumerate(request.candidates):
                if not row.keys() <= known:
                    self._sort_out(row, "item", f"candidates[{index}]", ignored)
        else:
            self._sort_out(request.candidates, "item", "candidates", ignored, times=request.num_candidates)
        return ignored

    def _sort_out(self, names: Iterable[str], side: Side, path: str, ignored: Counter[str], *, times: int = 1) -> None:
        """Count the names that no model knows; RequestError where one belongs elsewhere, or none may be unknown."""
        for name in names:
            if name in self._known[side]:
                continue
            field = f"{path}.{short(name)}"
            homes = [other for other, columns in self.columns.items() if name in columns]
            if homes:
                raise RequestError(field, f"belongs in {'candidates' if homes[0] == 'item' else homes[0]}")
            if self._config.unknown_fields == "error":
                known = sorted(self._known[side] - self._group)
                raise RequestError(field, unknown_name("field", name, known))
            if len(name) > self._config.max_id_length:
                raise RequestError(field, f"unknown field with a name of {len(name)} characters")
            ignored[name] += times
            if len(ignored) > MAX_IGNORED:
                raise RequestError(field, f"more than {MAX_IGNORED} fields are unknown to the model; leave them out")


def _check_present(keys: pa.Array, path: Path, reason: str) -> None:
    if keys.null_count:
        raise RequestError(path(pc.index(keys.is_null(), True).as_py()), f"is missing; {reason}")


def _values(request: RankRequest, name: str) -> Sequence[Any]:
    """One column of the candidates, null where it is not given."""
    if isinstance(request.candidates, list):
        return [row.get(name) for row in request.candidates]
    return request.candidates.get(name) or [None] * request.num_candidates


def block_encoder(
    encoder: FeatureEncoder,
    sides: Collection[Side],
    columns: Mapping[str, RequestColumn],
    features: Collection[str] | None = None,
) -> BlockEncoder:
    """Encodes rows of columns as requests give them, of some features or all of these sides."""
    types = {name: column.type for name, column in columns.items()}
    ids = [name for name, column in columns.items() if column.is_id]
    return BlockEncoder(encoder, sides, types, ids=ids, features=features)


def item_columns(encoder: FeatureEncoder) -> dict[str, RequestColumn]:
    """Columns that a candidate of a request may give."""
    return _columns_of_side(encoder, "item")


def _place_in(names: Sequence[str], num_rows: int, path: Callable[[str, int], str]) -> Path:
    """The path of a value by its place among those of several columns, one after the other."""
    return lambda place: path(names[place // num_rows], place % num_rows)


def _path(request: RankRequest, name: str) -> Path:
    if isinstance(request.candidates, list):
        return lambda index: f"candidates[{index}].{name}"
    return lambda index: f"candidates.{name}[{index}]"


def _columns_of_side(encoder: FeatureEncoder, side: Side) -> dict[str, RequestColumn]:
    """Columns that features of a side read, with the type a request must give them in; the item column too."""
    schema, arrow = encoder.schema, encoder.arrow_schema(sides=(side,))
    types: dict[str, pa.DataType] = {}
    ids: set[str] = set()
    separators: dict[str, str | None] = {}
    for name, column in schema.raw_columns():
        if schema.features[name].side != side:
            continue
        types[column.name] = arrow.field(column.name).type
        if column.is_id:
            ids.add(column.name)
        if column.separator is not None:
            separators[column.name] = column.separator
    if side == "item" and schema.item is not None:
        types.setdefault(schema.item, arrow.field(schema.item).type)
        ids.add(schema.item)
    return {
        name: RequestColumn(
            type_ if name in ids else _with_fractions(type_),
            is_id=name in ids,
            separator=separators.get(name),
        )
        for name, type_ in types.items()
    }


def _with_fractions(kind: pa.DataType) -> pa.DataType:
    """A number that was whole in every training row may have a fraction in a request; an id may not."""
    if is_list_type(kind):
        return pa.list_(_with_fractions(kind.value_type))
    return pa.float64() if pa.types.is_integer(kind) else kind
