"""RequestDecoder: JSON values of a request → Arrow columns of the types that training saw."""

# C candidates

import math
from bisect import bisect_right
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from recmoe.errors import RequestError
from recmoe.features.encoder import FeatureEncoder
from recmoe.features.layout import ALL_SIDES, Side
from recmoe.features.schema import FeatureSchema, NumericFeature
from recmoe.ranking.request import RankRequest, shown
from recmoe.ranking.score import unknown_name

ROW = "#row"
"""A column that every decoded table has, so that a side without features still has its rows."""

OWN_SIDES: tuple[Side, ...] = ("item",)
"""What a candidate has for itself."""

DEFAULT_ITEM = "item_id"
"""Field that names a candidate where the schema has no item column."""

Path = Callable[[int], str]


@dataclass(frozen=True)
class DecodedRequest:
    """A request as tables of raw columns."""

    shared: pa.Table
    """One row: columns of user and context."""
    own: pa.Table
    """C rows: columns of the candidates."""
    item_ids: pa.Array
    """C ids, or positions where candidates have none."""


class RequestDecoder:
    """Knows which column belongs to which part of a request, and its type.

    Args:
        encoder: the encoder of the bundle; its schema names the columns, its training data gave the types.
    """

    def __init__(self, encoder: FeatureEncoder) -> None:
        schema = encoder.schema
        self.item = schema.item
        self.types: dict[Side, dict[str, pa.DataType]] = {
            side: _types_of_side(schema, encoder.arrow_schema(sides=(side,)), side) for side in ALL_SIDES
        }
        if schema.item is not None and schema.item not in self.types["item"]:
            self.types["item"][schema.item] = encoder.arrow_schema(sides=OWN_SIDES).field(schema.item).type
        # The list's id orders nothing within one request, but a log line replayed as a request carries it.
        self.ignored: set[str] = {schema.group} if schema.group is not None else set()

    def decode(self, request: RankRequest) -> DecodedRequest:
        """The columns of a request; absent ones are null. RequestError with the path of the value at fault."""
        shared = {**self._one_row(request.user, "user"), **self._one_row(request.context, "context")}
        own, item_ids = self._candidates(request)
        return DecodedRequest(
            shared=pa.table({ROW: pa.array([0]), **shared}),
            own=pa.table({ROW: pa.array(range(request.num_candidates)), **own}),
            item_ids=item_ids,
        )

    def _one_row(self, row: Mapping[str, Any], side: Side) -> dict[str, pa.Array]:
        types = self.types[side]
        self._check_names(row, side, side)
        return {name: to_arrow([row.get(name)], type_, _always(f"{side}.{name}")) for name, type_ in types.items()}

    def _candidates(self, request: RankRequest) -> tuple[dict[str, pa.Array], pa.Array]:
        columns: dict[str, pa.Array] = {}
        for name, type_ in self.types["item"].items():
            columns[name] = to_arrow(_values(request, name), type_, _path(request, name))
        if isinstance(request.candidates, list):
            known = self._known("item")
            for index, row in enumerate(request.candidates):
                if not row.keys() <= known:
                    self._check_names(row, "item", f"candidates[{index}]")
        else:
            self._check_names(request.candidates, "item", "candidates")
        return columns, self._item_ids(request, columns)

    def _item_ids(self, request: RankRequest, columns: Mapping[str, pa.Array]) -> pa.Array:
        """The ids candidates are known by in the response."""
        if self.item is not None:
            item_ids = columns[self.item]
            if item_ids.null_count:
                index = pc.index(item_ids.is_null(), True).as_py()
                raise RequestError(_path(request, self.item)(index), "is missing; it names the item in the response")
            # JSON has no times and decimals.
            is_json = pa.types.is_integer(item_ids.type) or pa.types.is_floating(item_ids.type)
            return item_ids if is_json else item_ids.cast(pa.string())
        values = _values(request, DEFAULT_ITEM)
        if DEFAULT_ITEM in self.types["item"] or all(value is None for value in values):
            return pa.array(range(request.num_candidates))
        type_ = pa.string() if isinstance(values[0], str) else pa.int64()
        item_ids = to_arrow(values, type_, _path(request, DEFAULT_ITEM))
        if item_ids.null_count:
            index = pc.index(item_ids.is_null(), True).as_py()
            raise RequestError(
                _path(request, DEFAULT_ITEM)(index), "is missing; give one to every candidate or to none"
            )
        return item_ids

    def _known(self, side: Side) -> set[str]:
        ours = set(self.types[side]) | self.ignored
        return ours | {DEFAULT_ITEM} if side == "item" and self.item is None else ours

    def _check_names(self, names: Iterable[str], side: Side, path: str) -> None:
        """RequestError at the first name that is not a column of this side, saying where it belongs."""
        known = self._known(side)
        for name in names:
            if name in known:
                continue
            homes = [other for other in self.types if name in self.types[other]]
            if homes:
                place = "candidates" if homes[0] == "item" else homes[0]
                raise RequestError(f"{path}.{name}", f"belongs in {place}")
            raise RequestError(f"{path}.{name}", unknown_name("field", name, sorted(known - self.ignored)))


def to_arrow(values: Sequence[Any], type_: pa.DataType, path: Path) -> pa.Array:
    """A column of one type from JSON values; null stays null. RequestError at the first value that does not fit."""
    if pa.types.is_dictionary(type_):
        type_ = type_.value_type
    if pa.types.is_null(type_):
        return pa.nulls(len(values))
    if _is_list(type_):
        return _list_to_arrow(values, type_, path)
    expected, allowed = _expectation(type_)
    if not set(map(type, values)) <= allowed:
        index = next(i for i, value in enumerate(values) if type(value) not in allowed)
        raise RequestError(path(index), f"expected {expected}, found {shown(values[index])}")
    try:
        return _convert(values, type_)
    except (pa.ArrowException, ValueError, OverflowError, ArithmeticError):
        # Arrow says that a value does not fit but not which: the same conversion, value by value, does.
        for index, value in enumerate(values):
            try:
                _convert([value], type_)
            except (pa.ArrowException, ValueError, OverflowError, ArithmeticError) as error:
                raise RequestError(path(index), f"expected {expected}, found {shown(value)}") from error
        raise


def _convert(values: Sequence[Any], type_: pa.DataType) -> pa.Array:
    if pa.types.is_floating(type_):
        numbers = [None if value is None else float(value) for value in values]
        if not all(value is None or math.isfinite(value) for value in numbers):
            raise ValueError("not finite")
        return pa.array(numbers, pa.float64()).cast(type_, safe=False)
    if pa.types.is_integer(type_) and float in set(map(type, values)):
        # Arrow would cut fractions off.
        if not all(value is None or value == int(value) for value in values):
            raise ValueError("not whole")
        return pa.array([None if value is None else int(value) for value in values], type_)
    if pa.types.is_decimal(type_):
        return pa.array([None if value is None else str(value) for value in values], pa.string()).cast(type_)
    if pa.types.is_temporal(type_) and not pa.types.is_duration(type_):
        return pa.array(values, pa.string()).cast(type_)
    return pa.array(values, type_)


def _expectation(type_: pa.DataType) -> tuple[str, set[type]]:
    """What a JSON value of a type must be, in words and as Python types."""
    none = type(None)
    if pa.types.is_boolean(type_):
        return "true or false", {bool, none}
    if pa.types.is_integer(type_):
        return f"an integer ({type_})", {int, float, none}
    if pa.types.is_floating(type_):
        return "a finite number", {int, float, none}
    if pa.types.is_decimal(type_):
        return f"a number ({type_})", {int, float, str, none}
    if pa.types.is_temporal(type_) and not pa.types.is_duration(type_):
        return f"a time in ISO 8601 ({type_})", {str, none}
    return "a string", {str, none}


def _list_to_arrow(values: Sequence[Any], type_: pa.DataType, path: Path) -> pa.Array:
    for index, value in enumerate(values):
        if value is not None and type(value) is not list:
            raise RequestError(path(index), f"expected a list, found {shown(value)}")
    flat = [element for value in values if value for element in value]
    ends = list(accumulate((len(value) if value else 0 for value in values), initial=0))

    def element_path(position: int) -> str:
        index = bisect_right(ends, position) - 1
        return f"{path(index)}[{position - ends[index]}]"

    elements = to_arrow(flat, type_.value_type, element_path)
    # A null offset marks the list that starts there as null.
    marked = [None if value is None else end for value, end in zip(values, ends, strict=False)]
    return pa.ListArray.from_arrays(pa.array([*marked, ends[-1]], pa.int32()), elements)


def _is_list(type_: pa.DataType) -> bool:
    return bool(pa.types.is_list(type_) or pa.types.is_large_list(type_) or pa.types.is_fixed_size_list(type_))


def _values(request: RankRequest, name: str) -> Sequence[Any]:
    """One column of the candidates, null where it is not given."""
    if isinstance(request.candidates, list):
        return [row.get(name) for row in request.candidates]
    return request.candidates.get(name) or [None] * request.num_candidates


def _always(path: str) -> Path:
    return lambda _: path


def _path(request: RankRequest, name: str) -> Path:
    if isinstance(request.candidates, list):
        return lambda index: f"candidates[{index}].{name}"
    return lambda index: f"candidates.{name}[{index}]"


def _types_of_side(schema: FeatureSchema, arrow: pa.Schema, side: Side) -> dict[str, pa.DataType]:
    """Columns that features of a side read, with the type a request must give them in."""
    types: dict[str, pa.DataType] = {}
    ids: set[str] = set()
    for name, feature in schema.features.items():
        if feature.side != side:
            continue
        column = feature.column or name
        types[column] = arrow.field(column).type
        if not isinstance(feature, NumericFeature):
            ids.add(column)
    # A number that was whole in every training row may have a fraction in a request; an id may not.
    return {name: pa.float64() if pa.types.is_integer(t) and name not in ids else t for name, t in types.items()}
