"""JSON values become columns of the types training saw, or an error that names the value."""

import re
from datetime import date, datetime
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest

from recmoe.errors import RequestError
from recmoe.features.blocks import BlockEncoder, BlockRows
from recmoe.features.encoder import FeatureEncoder
from recmoe.features.layout import SHARED_SIDES
from recmoe.features.schema import FeatureSchema
from recmoe.ranking.columns import RequestDecoder
from recmoe.ranking.request import RankRequest
from recmoe.ranking.score import RankingConfig
from recmoe.ranking.stages import decode
from recmoe.ranking.values import RequestColumn, check_sizes, to_arrow

NAN = float("nan")


def at(index: int) -> str:
    return f"x[{index}]"


@pytest.mark.parametrize(
    ("values", "type_", "expected"),
    [
        ([1, 2.0, None], pa.int64(), [1, 2, None]),
        ([1, 2.5, None], pa.float64(), [1.0, 2.5, None]),
        ([2**60, 1], pa.float64(), [float(2**60), 1.0]),
        ([0.1], pa.float32(), [pytest.approx(0.1)]),
        (["a", None, ""], pa.string(), ["a", None, ""]),
        (["a"], pa.large_string(), ["a"]),
        (["a"], pa.dictionary(pa.int32(), pa.string()), ["a"]),
        ([True, None], pa.bool_(), [True, None]),
        (["1.50", 2], pa.decimal128(5, 2), [Decimal("1.50"), Decimal("2.00")]),
        (["2026-01-31"], pa.date32(), [date(2026, 1, 31)]),
        (["2026-01-31T12:00:00"], pa.timestamp("s"), [datetime(2026, 1, 31, 12)]),
        ([["a", None], [], None, ["b"]], pa.list_(pa.string()), [["a", None], [], None, ["b"]]),
        ([None, [1.0]], pa.large_list(pa.int32()), [None, [1]]),
        ([1, "x", [2]], pa.null(), [None, None, None]),
        ([], pa.list_(pa.int64()), []),
    ],
)
def test_values_take_the_type_of_the_column(values: list[Any], type_: pa.DataType, expected: list[Any]) -> None:
    assert to_arrow(values, type_, at).to_pylist() == expected


@pytest.mark.parametrize(
    ("values", "type_", "message"),
    [
        ([1, "abc"], pa.float64(), r'x\[1\]: expected a finite number, found "abc"'),
        ([True], pa.float64(), r"x\[0\]: expected a finite number, found true"),
        ([0.0, NAN], pa.float64(), r"x\[1\]: expected a finite number, found NaN"),
        ([0.0, float("-inf")], pa.float32(), r"x\[1\]: expected a finite number, found -Infinity"),
        ([10**400], pa.float64(), r"x\[0\]: expected a finite number, found 1000"),
        ([1, 2.5], pa.int64(), r"x\[1\]: expected an integer \(int64\), found 2.5"),
        ([1, NAN], pa.int64(), r"x\[1\]: expected an integer \(int64\), found NaN"),
        ([1, 2**70], pa.int64(), r"x\[1\]: expected an integer \(int64\), found 118059"),
        ([1, 300], pa.int8(), r"x\[1\]: expected an integer \(int8\), found 300"),
        ([False], pa.int64(), r"x\[0\]: expected an integer \(int64\), found false"),
        (["a", 7], pa.string(), r"x\[1\]: expected a string, found 7"),
        (["\ud800"], pa.string(), r"x\[0\]: expected a string, found"),
        ([1], pa.bool_(), r"x\[0\]: expected true or false, found 1"),
        (["x"], pa.decimal128(5, 2), r'x\[0\]: expected a number \(decimal128\(5, 2\)\), found "x"'),
        (
            ["yesterday"],
            pa.timestamp("s"),
            r'x\[0\]: expected a time in ISO 8601 \(timestamp\[s\]\), found "yesterday"',
        ),
        ([["a"], "b"], pa.list_(pa.string()), r'x\[1\]: expected a list, found "b"'),
        ([["a"], ["b", 7]], pa.list_(pa.string()), r"x\[1\]\[1\]: expected a string, found 7"),
        ([{"a": 1}], pa.string(), r"x\[0\]: expected a string, found an object"),
    ],
)
def test_value_that_does_not_fit_is_named(values: list[Any], type_: pa.DataType, message: str) -> None:
    with pytest.raises(RequestError, match=message):
        to_arrow(values, type_, at)


@pytest.fixture(scope="module")
def decoder(shop_encoder: FeatureEncoder) -> RequestDecoder:
    return RequestDecoder(shop_encoder)


def raw_columns(encoder: BlockEncoder, rows: BlockRows) -> dict[str, list[Any]]:
    """The raw values of each column."""
    columns = {} if rows.others is None else rows.others.to_pydict()
    for names, values in zip(encoder.block_columns, rows.blocks, strict=True):
        parts = [values.slice(place * rows.num_rows, rows.num_rows) for place in range(len(names))]
        columns |= {name: part.to_pylist() for name, part in zip(names, parts, strict=True)}
    return columns


def test_request_becomes_one_shared_row_and_one_row_per_candidate(decoder: RequestDecoder) -> None:
    request = RankRequest.parse(
        {
            "user": {"user_id": "u1"},
            "context": {"hour": 7},
            "candidates": [{"item_id": 101, "price": 2}, {"item_id": 102}],
        }
    )

    decoded = decode(request, decoder)

    shared, own = raw_columns(decoder.shared, decoded.shared), raw_columns(decoder.own, decoded.own)
    assert {name: shared[name] for name in ("user_id", "age", "hour")} == {
        "user_id": ["u1"],
        "age": [None],
        "hour": [7],
    }
    assert {name: own[name] for name in ("item_id", "price")} == {"item_id": [101, 102], "price": [2.0, None]}
    assert list(decoded.item_ids) == [101, 102]


def test_rows_and_columns_decode_the_same(decoder: RequestDecoder) -> None:
    rows = RankRequest.parse({"candidates": [{"item_id": 101, "words": ["red"]}, {"item_id": 102, "price": 3}]})
    columns = RankRequest.parse({"candidates": {"item_id": [101, 102], "words": [["red"], None], "price": [None, 3]}})

    assert raw_columns(decoder.own, decode(rows, decoder).own) == raw_columns(decoder.own, decode(columns, decoder).own)


@pytest.mark.parametrize("places", [[0], [1], [4999], [2500, 4000], [7, 8, 9], list(range(5000))])
def test_first_of_many_values_that_does_not_fit_is_named(places: list[int]) -> None:
    values = [256 if place in set(places) else 1 for place in range(5000)]

    with pytest.raises(RequestError, match=rf"^{re.escape(at(places[0]))}: expected an integer \(uint8\), found 256$"):
        to_arrow(values, pa.uint8(), at)


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        ({"user": {"price": 3}, "candidates": [{"item_id": 1}]}, r"user\.price: belongs in candidates"),
        ({"context": {"age": 3}, "candidates": [{"item_id": 1}]}, r"context\.age: belongs in user"),
        (
            {"candidates": [{"item_id": 1, "price": 2}, {"item_id": 2, "price": "abc"}]},
            r'candidates\[1\]\.price: expected a finite number, found "abc"',
        ),
        ({"candidates": {"item_id": [1, "x"]}}, r'candidates\.item_id\[1\]: expected an integer \(int64\), found "x"'),
        ({"user": {"age": "x"}, "candidates": [{"item_id": 1}]}, r'user\.age: expected a finite number, found "x"'),
        ({"candidates": [{"item_id": 1}, {}]}, r"candidates\[1\]\.item_id: is missing; it names the item"),
    ],
)
def test_field_that_does_not_fit_is_named(decoder: RequestDecoder, request_: dict[str, Any], message: str) -> None:
    with pytest.raises(RequestError, match=message):
        decode(RankRequest.parse(request_), decoder)


def test_unknown_fields_are_counted_by_name(decoder: RequestDecoder) -> None:
    request = RankRequest.parse(
        {
            "user": {"device": "x"},
            "candidates": [{"item_id": 1}, {"item_id": 2, "pricee": 3}, {"pricee": 3, "item_id": 4}],
        }
    )
    by_column = RankRequest.parse({"candidates": {"item_id": [1, 2], "colour": ["red", None]}})

    assert decode(request, decoder).ignored == {"device": 1, "pricee": 2}
    assert decode(by_column, decoder).ignored == {"colour": 2}
    assert decoder.hint("pricee") == "did you mean price?"
    assert decoder.hint("screen") is None


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        (
            {"candidates": [{"item_id": 1}, {"item_id": 2, "pricee": 3}]},
            r"candidates\[1\]\.pricee: unknown field pricee, did you mean price\?",
        ),
        ({"candidates": {"item_id": [1], "colour": ["x"]}}, r"candidates\.colour: unknown field colour, there are"),
    ],
)
def test_unknown_field_is_an_error_where_the_config_says_so(
    shop_encoder: FeatureEncoder, request_: dict[str, Any], message: str
) -> None:
    decoder = RequestDecoder(shop_encoder, RankingConfig(unknown_fields="error"))

    with pytest.raises(RequestError, match=message):
        decode(RankRequest.parse(request_), decoder)


def test_unknown_field_of_a_side_without_fields_says_that_there_are_none() -> None:
    schema = FeatureSchema.model_validate({"features": {"user_id": {"kind": "id", "side": "user"}}})
    encoder = FeatureEncoder.fit(schema, [pa.table({"user_id": [1, 2]})])
    decoder = RequestDecoder(encoder, RankingConfig(unknown_fields="error"))

    with pytest.raises(RequestError, match=r"context\.device: unknown field device, there are none"):
        decode(RankRequest.parse({"user": {"user_id": 1}, "context": {"device": "x"}, "candidates": [{}]}), decoder)


def test_many_unknown_fields_are_refused(decoder: RequestDecoder) -> None:
    user = {f"field {number}": 1 for number in range(101)}

    with pytest.raises(RequestError, match=r"user\.field 100: more than 100 fields are unknown to the model; leave"):
        decode(RankRequest.parse({"user": user, "candidates": [{"item_id": 1}]}), decoder)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"user": {"user_id": "a" * 9}}, r"user\.user_id: has 9 characters, an id has at most 8; shorten it, or raise"),
        ({"user": {"tags": ["a", "b" * 9]}}, r"user\.tags\[1\]: has 9 characters, an id has at most 8"),
        ({"user": {"tags": ["a"] * 4}}, r"user\.tags: is a list of 4, at most 3 are read; send the most recent ones"),
        ({"candidates": {"item_id": ["1" * 9]}}, r"candidates\.item_id\[0\]: has 9 characters"),
        ({"user": {"x" * 9: 1}}, r"user\.xxxxxxxxx: unknown field with a name of 9 characters"),
    ],
)
def test_id_or_list_beyond_its_limit_is_refused(
    shop_encoder: FeatureEncoder, changes: dict[str, Any], message: str
) -> None:
    decoder = RequestDecoder(shop_encoder, RankingConfig(max_id_length=8, max_list_length=3))

    with pytest.raises(RequestError, match=message):
        decode(RankRequest.parse({"candidates": [{"item_id": 1}], **changes}), decoder)


def test_ids_in_one_string_are_measured_one_by_one() -> None:
    column, limits = RequestColumn(pa.string(), is_id=True, separator="|"), RankingConfig(max_id_length=3)

    check_sizes(["abc|def|ghi"], column, at, limits)

    with pytest.raises(RequestError, match=r"x\[0\]\[1\]: has 4 characters"):
        check_sizes(["abc|defg"], column, at, limits)


@pytest.mark.parametrize(
    ("values", "type_", "expected"),
    [
        (["1460000000000000001", 5, 7.0, None], pa.int64(), [1460000000000000001, 5, 7, None]),
        (["18446744073709551615", "0"], pa.uint64(), [2**64 - 1, 0]),
        (["-12", 123, "123"], pa.float64(), [-12.0, 123.0, 123.0]),
        ([["7", 8], None], pa.list_(pa.int64()), [[7, 8], None]),
        (["0000000005", "5"], pa.string(), ["0000000005", "5"]),
    ],
)
def test_whole_number_of_an_id_may_be_a_string(values: list[Any], type_: pa.DataType, expected: list[Any]) -> None:
    assert to_arrow(values, type_, at, is_id=True).to_pylist() == expected


@pytest.mark.parametrize("text", ["007", "7.0", "+7", " 7", "", "-0", "٧", "1e3", "9223372036854775808", "1" * 5000])
def test_other_string_is_no_whole_number(text: str) -> None:
    with pytest.raises(RequestError, match=r"x\[1\]: expected an integer \(int64\), found \""):
        to_arrow(["7", text], pa.int64(), at, is_id=True)


@pytest.mark.parametrize(("values", "type_"), [([5], pa.string()), (["5"], pa.float64())])
def test_text_and_number_that_are_no_whole_number_ids_stay_apart(values: list[Any], type_: pa.DataType) -> None:
    is_id = pa.types.is_string(type_)

    with pytest.raises(RequestError, match=r"x\[0\]: expected a"):
        to_arrow(values, type_, at, is_id=is_id)


def test_number_that_was_whole_in_training_may_have_a_fraction(decoder: RequestDecoder) -> None:
    request = RankRequest.parse({"context": {"hour": 7.5}, "candidates": [{"item_id": 1}]})

    assert raw_columns(decoder.shared, decode(request, decoder).shared)["hour"] == [7.5]


def test_group_of_a_logged_row_is_allowed_and_ignored(decoder: RequestDecoder) -> None:
    request = RankRequest.parse({"context": {"visit": 3}, "candidates": [{"item_id": 1}]})

    assert "visit" not in raw_columns(decoder.shared, decode(request, decoder).shared)


@pytest.fixture(scope="module")
def anonymous(shop_encoder: FeatureEncoder, shop_log: pa.Table) -> RequestDecoder:
    """Of a schema without an item column."""
    schema = shop_encoder.schema
    features = {name: feature for name, feature in schema.features.items() if name != "item_id"}
    return RequestDecoder(
        FeatureEncoder.fit(schema.model_copy(update={"item": None, "features": features}), [shop_log])
    )


@pytest.mark.parametrize(
    ("candidates", "ids"),
    [
        ([{"price": 1}, {"price": 2}], [0, 1]),
        ([{"item_id": "b"}, {"item_id": "a"}], ["b", "a"]),
        ([{"item_id": 9}, {"item_id": 8}], [9, 8]),
        ([{"item_id": "9"}, {"item_id": 8.0}], ["9", 8.0]),
    ],
)
def test_candidates_without_item_column_go_by_given_id_or_position(
    anonymous: RequestDecoder, candidates: list[Any], ids: list[Any]
) -> None:
    request = RankRequest.parse({"candidates": candidates})

    assert list(decode(request, anonymous).item_ids) == ids


def test_some_candidates_without_an_id_are_refused(anonymous: RequestDecoder) -> None:
    request = RankRequest.parse({"candidates": [{"item_id": "a"}, {"price": 1}]})

    with pytest.raises(
        RequestError, match=r"candidates\[1\]\.item_id: is missing; give one to every candidate or to none"
    ):
        decode(request, anonymous)


def test_ids_that_json_cannot_hold_come_back_as_text(shop_encoder: FeatureEncoder, shop_log: pa.Table) -> None:
    schema = shop_encoder.schema
    features = {name: feature for name, feature in schema.features.items() if name != "item_id"}
    dated = shop_log.set_column(
        shop_log.schema.get_field_index("item_id"), "item_id", shop_log["item_id"].cast(pa.int32()).cast(pa.date32())
    )
    decoder = RequestDecoder(FeatureEncoder.fit(schema.model_copy(update={"features": features}), [dated]))

    decoded = decode(RankRequest.parse({"candidates": [{"item_id": "2026-01-31"}]}), decoder)

    assert list(decoded.item_ids) == ["2026-01-31"]


HISTORY = {
    "kind": "sequence",
    "columns": {"item": {"column": "seen", "table": "item_id"}, "shop": {"column": "shops"}},
    "time": "seen_at",
    "max_length": 2,
}


@pytest.fixture(scope="module")
def histories() -> FeatureEncoder:
    """Of a log whose users have a history; times are whole numbers in it."""
    schema = FeatureSchema.model_validate(
        {"item": "item_id", "features": {"item_id": {"kind": "id"}, "history": HISTORY}}
    )
    seen = [[1, 2, 3], None, [4, 1]]
    log = pa.table(
        {
            "item_id": [1, 2, 4],
            "seen": seen,
            "shops": [["x", "y", "x"], [], ["y", "y"]],
            "seen_at": [[1, 2, 3], [], [1, 5]],
        }
    )
    return FeatureEncoder.fit(schema, [log])


def test_history_of_a_request_is_encoded_as_that_of_a_row(histories: FeatureEncoder) -> None:
    user = {"seen": ["2", 3, 4], "shops": ["x", None, "y"], "seen_at": [1, 2.5, 4]}
    request = RankRequest.parse({"user": user, "candidates": [{"item_id": 1}, {"item_id": 2}]})
    row = pa.table({"seen": [[2, 3, 4]], "shops": [["x", None, "y"]], "seen_at": [[1, 2.5, 4]]})

    decoder = RequestDecoder(histories)

    of_request = decoder.shared.encode(decode(request, decoder).shared).batch

    of_row = histories.encode(row, sides=SHARED_SIDES, with_labels=False)
    assert of_request.values.tolist() == of_row.values.tolist()
    assert of_request.ages is not None
    assert of_request.ages.tolist() == [1.5, 0.0]


def test_request_without_a_history_has_an_empty_one(histories: FeatureEncoder) -> None:
    request = RankRequest.parse({"candidates": [{"item_id": 1}]})

    decoder = RequestDecoder(histories)

    assert decoder.shared.encode(decode(request, decoder).shared).batch.lengths_KB.tolist() == [[0], [0]]


@pytest.mark.parametrize(
    ("user", "message"),
    [
        ({"seen": 7}, r"user\.seen: expected a list, found 7"),
        ({"seen": [1, [2]]}, r"user\.seen\[1\]: expected an integer \(int64\), found"),
        ({"seen_at": [1, "now"]}, r'user\.seen_at\[1\]: expected a finite number, found "now"'),
        ({"seen_at": [1] * 9}, r"user\.seen_at: is a list of 9, at most 8 are read; send the most recent ones"),
    ],
)
def test_value_of_a_history_that_does_not_fit_is_named(
    histories: FeatureEncoder, user: dict[str, Any], message: str
) -> None:
    decoder = RequestDecoder(histories, RankingConfig(max_list_length=8))

    with pytest.raises(RequestError, match=message):
        decode(RankRequest.parse({"user": user, "candidates": [{"item_id": 1}]}), decoder)
