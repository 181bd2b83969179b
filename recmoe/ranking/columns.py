"""RequestDecoder: values of a request, JSON or Arrow → raw columns of the types that training saw."""

# C candidates

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, Generic, TypeVar

import pyarrow as pa
import pyarrow.compute as pc

from recmoe.errors import RequestError
from recmoe.features.blocks import BlockEncoder, BlockRows
from recmoe.features.columns import is_list_type
from recmoe.features.encoder import FeatureEncoder
from recmoe.features.layout import ALL_SIDES, OWN_SIDES, SHARED_SIDES, Side
from recmoe.ranking.fitting import fitted
from recmoe.ranking.look_ups import LookUps, StoreName
from recmoe.ranking.request import ColumnRequest, RankOptions, RankRequest
from recmoe.ranking.score import RankingConfig, did_you_mean, unknown_name
from recmoe.ranking.texts import short
from recmoe.ranking.values import Path, RequestColumn, check_sizes, plain_type, to_arrow

DEFAULT_ITEM = "item_id"
"""Field that names a candidate where the schema has no item column."""

MAX_IGNORED = 100
"""Names of fields that are ignored in one request; more are no newer model's."""


AnyRequest = RankRequest | ColumnRequest


def options_of(request: AnyRequest) -> RankOptions:
    """A request but for its candidates."""
    return request.options if isinstance(request, ColumnRequest) else request


Fill = Callable[[Sequence[str], pa.Array], pa.Array]
"""Values of columns of one row, from those that a request gives."""
Own = TypeVar("Own")
"""How the columns of candidates are held: all as the request gave them, or many in a store."""


@dataclass(frozen=True)
class DecodedRequest(Generic[Own]):
    """A request as raw columns."""

    options: RankOptions
    shared: BlockRows
    """One row: columns of user and context."""
    own: Own
    """C rows: columns of the candidates."""
    item_ids: Sequence[Any] | pa.Array
    """C ids as the request gave them, or positions where candidates have none; an array where it gave columns."""
    item_keys: pa.Array
    """The same as values of one type, to be sorted by."""
    ignored: Mapping[str, int]
    """How often each field came that the model does not know."""
    look_ups: Mapping[StoreName, LookUps] = field(default_factory=dict)
    """What became of ids, by store."""


class RequestDecoder:
    """Knows which column belongs to which part of a request, and its type.

    Args:
        encoder: the encoder of the bundle; its schema names the columns, its training data gave the types.
        config: limits, and what a field does that is not known.
        user_key: a column that names the user for a store, with its type; the model need not read it.
    """

    def __init__(
        self,
        encoder: FeatureEncoder,
        config: RankingConfig | None = None,
        *,
        user_key: tuple[str, pa.DataType] | None = None,
    ) -> None:
        schema = encoder.schema
        self.item = schema.item
        self.columns: dict[Side, dict[str, RequestColumn]] = {
            side: columns_of_side(encoder, side) for side in ALL_SIDES
        }
        if user_key is not None:
            self.columns["user"].setdefault(user_key[0], RequestColumn(user_key[1], is_id=True))
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

    def shared_rows(self, options: RankOptions, fill: Fill = lambda _, given: given) -> BlockRows:
        """One row: columns of user and context.

        Args:
            fill: makes the values of some columns from those that the request gives, which are null where it does not.
        """
        return _rows(self.shared, lambda names: fill(names, self.shared_values(options, names)), num_rows=1)

    def shared_values(self, options: RankOptions, names: Sequence[str]) -> pa.Array:
        """The values of some columns of one type, null where they are not given; RequestError as for ``own_column``."""
        of_side: dict[Side, Mapping[str, Any]] = {"user": options.user, "context": options.context}
        values = [of_side[self._side_of[name]].get(name) for name in names]
        return self._column(
            values, self._shared_columns[names[0]], lambda place: f"{self._side_of[names[place]]}.{names[place]}"
        )

    def own_rows(self, request: AnyRequest, encoder: BlockEncoder, places: Sequence[int] | None = None) -> BlockRows:
        """Columns of candidates for an encoder of some of their features.

        Args:
            places: which candidates, in what order; all by default.
        """
        num_rows = request.num_candidates if places is None else len(places)
        return _rows(encoder, lambda names: self._own_columns(request, names, places), num_rows=num_rows)

    def own_column(self, request: AnyRequest, name: str) -> pa.Array:
        """A column of all candidates, null where it is not given; RequestError with the path of a value at fault."""
        return self._own_columns(request, (name,))

    def hint(self, name: str) -> str | None:
        """What a field that the model does not know may be meant to be."""
        return did_you_mean(name, self._names)

    @property
    def _names(self) -> list[str]:
        return sorted({name for columns in self.columns.values() for name in columns})

    def _own_columns(self, request: AnyRequest, names: Sequence[str], places: Sequence[int] | None = None) -> pa.Array:
        """Columns of one type of the candidates, or of some of them, one after the other."""
        column = self.columns["item"][names[0]]
        if isinstance(request, ColumnRequest):
            found = [self._fitted(request, name, column) for name in names]
            return pa.concat_arrays(found if places is None else [one.take(pa.array(places)) for one in found])
        given = [_values(request, name) for name in names]
        if places is not None:
            given = [[values[place] for place in places] for values in given]
        num_rows = len(given[0])

        def path(place: int) -> str:
            row = place % num_rows
            return _path(request, names[place // num_rows])(row if places is None else places[row])

        return self._column(list(chain.from_iterable(given)), column, path)

    def _fitted(self, request: ColumnRequest, name: str, column: RequestColumn) -> pa.Array:
        if name not in request.candidates:
            return pa.nulls(request.num_candidates, plain_type(column.type))
        return fitted(request.candidates[name], column, _path(request, name), self._config)

    def _column(self, values: Sequence[Any], column: RequestColumn, path: Path) -> pa.Array:
        check_sizes(values, column, path, self._config)
        return to_arrow(values, column.type, path, is_id=column.is_id)

    def item_ids(self, request: AnyRequest) -> tuple[Sequence[Any] | pa.Array, pa.Array]:
        """The ids candidates are known by in the response, as they came and as one type."""
        if self.item is not None:
            keys = self._own_columns(request, (self.item,))
            _check_present(keys, _path(request, self.item), "it names the item in the response")
            is_number = pa.types.is_integer(keys.type) or pa.types.is_floating(keys.type)
            keys = keys if is_number else keys.cast(pa.string())
            return keys if isinstance(request, ColumnRequest) else _values(request, self.item), keys
        positions = range(request.num_candidates)
        if DEFAULT_ITEM in self.columns["item"]:
            return positions, pa.array(positions)
        if isinstance(request, ColumnRequest):
            given = request.candidates.get(DEFAULT_ITEM, pa.nulls(request.num_candidates))
            is_absent, is_text = given.null_count == len(given), not pa.types.is_integer(given.type)
        else:
            values = _values(request, DEFAULT_ITEM)
            is_absent = all(value is None for value in values)
            is_text = all(isinstance(value, str | None) for value in values)
        if is_absent:
            return positions, pa.array(positions)
        column = RequestColumn(pa.string() if is_text else pa.int64(), is_id=True)
        if isinstance(request, ColumnRequest):
            keys = self._fitted(request, DEFAULT_ITEM, column)
        else:
            keys = self._column(values, column, _path(request, DEFAULT_ITEM))
        _check_present(keys, _path(request, DEFAULT_ITEM), "give one to every candidate or to none")
        return keys if isinstance(request, ColumnRequest) else values, keys

    def ignored(self, request: AnyRequest) -> Counter[str]:
        """How often each field came that the model does not know."""
        ignored = Counter[str]()
        options = options_of(request)
        self._sort_out(options.user, "user", "user", ignored)
        self._sort_out(options.context, "context", "context", ignored)
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


def _rows(encoder: BlockEncoder, columns: Callable[[Sequence[str]], pa.Array], *, num_rows: int) -> BlockRows:
    """Raw columns of one part of a request.

    Args:
        columns: the values of several columns of one type, column after column.
    """
    blocks = [columns(names) for names in encoder.block_columns]
    others = pa.table({name: columns((name,)) for name in encoder.other_columns}) if encoder.other_columns else None
    return BlockRows(blocks, others, num_rows)


def _path(request: AnyRequest, name: str) -> Path:
    if isinstance(request.candidates, list):
        return lambda index: f"candidates[{index}].{name}"
    return lambda index: f"candidates.{name}[{index}]"


def columns_of_side(encoder: FeatureEncoder, side: Side) -> dict[str, RequestColumn]:
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
