"""Tests of the kind sequence: aligned, cut to the newest, in the tables of others; ages of its entries."""

from datetime import UTC, date, datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

from recmoe.config import all_problems
from recmoe.errors import DataError, SchemaError
from recmoe.features.batch import Sequence
from recmoe.features.encoder import FeatureEncoder
from recmoe.features.fit import Learner
from recmoe.features.kinds.sequence_rows import ages_of
from recmoe.features.row_moves import row_sources
from recmoe.features.schema import FeatureSchema

ITEM = {"kind": "id", "width": 8, "encoding": {"kind": "vocabulary", "min_count": 2}}
HISTORY: dict[str, Any] = {
    "kind": "sequence",
    "columns": {"item": {"column": "seen", "table": "item"}, "shop": {"column": "shops"}},
    "max_length": 3,
}


def schema_of(**changes: Any) -> FeatureSchema:
    return FeatureSchema.model_validate({"width": 4, "features": {"item": ITEM, "history": {**HISTORY, **changes}}})


def log(**columns: Any) -> pa.Table:
    first: dict[str, Any] = {
        "item": ["a", "b", "b"],
        "seen": [["a", "b", "c", "a"], None, ["c", None]],
        "shops": [[1, 2, 1, 2], [], [3, 3]],
    }
    return pa.table({**first, **columns})


def history_of(encoder: FeatureEncoder, table: pa.Table) -> Sequence:
    return encoder.encode(table).sequences(encoder.layout)["history"]


def problems(**changes: Any) -> list[tuple[str, str]]:
    return all_problems(schema_of(**changes))


def test_only_the_newest_entries_stay_and_null_is_an_empty_history() -> None:
    encoder = FeatureEncoder.fit(schema_of(), [log()])

    history = history_of(encoder, log())

    # Of the table item: b 3 times in what is read, a and c twice.
    assert encoder.state.vocabularies["item"].ids.to_pylist() == ["b", "a", "c"]
    assert history.lengths_B.tolist() == [3, 0, 2]
    assert history.rows_N["history#item"].tolist() == [1, 3, 2, 3, 0]
    assert history.ages_N is None


def test_entry_without_an_id_keeps_its_place() -> None:
    encoder = FeatureEncoder.fit(schema_of(), [log()])
    table = log(seen=[["a", None], [None, "b"], ["new"]], shops=[[1, 2], [3, 1], [2]])

    history = history_of(encoder, table)

    assert history.rows_N["history#item"].tolist() == [2, 0, 0, 1, 0]
    assert (history.rows_N["history#shop"] > 0).all()
    assert encoder.unknown_counts(table, encoder.encode(table))["history#item"] == (1, 0)


def test_borrowed_table_brings_its_encoding_and_width() -> None:
    encoder = FeatureEncoder.fit(schema_of(), [log()])

    layout = encoder.layout

    assert [(spec.name, spec.width, spec.keys) for spec in layout.tables] == [
        ("item", 8, ("item", "history#item")),
        ("history#shop", 4, ("history#shop",)),
    ]
    assert layout.pooled == (layout.sparse[0],)
    assert layout.width == 8
    assert [(one.name, one.side, one.keys, one.max_length, one.has_ages) for one in layout.sequences] == [
        ("history", "user", ("history#item", "history#shop"), 3, False)
    ]
    assert layout.select(("item",)).sequences == ()


def test_sequence_may_be_named_before_the_feature_that_owns_its_table() -> None:
    features = {"history": HISTORY, "item": ITEM}
    schema = FeatureSchema.model_validate({"width": 4, "features": features})

    encoder = FeatureEncoder.fit(schema, [log()])

    assert not all_problems(schema)
    assert encoder.state.vocabularies["item"].ids.to_pylist() == ["b", "a", "c"]
    assert encoder.layout.tables[0].width == 8


def test_encoding_equals_a_loop_over_rows() -> None:
    random = np.random.default_rng(0)
    lengths = random.integers(0, 9, 200)
    seen = [random.choice(["a", "b", "c", None], length).tolist() for length in lengths]
    times = [np.sort(random.integers(0, 50, length)).tolist() for length in lengths]
    now = random.integers(40, 90, 200).tolist()
    table = pa.table({"item": ["a"] * 200, "seen": seen, "shops": seen, "at": times, "clock": now})
    encoder = FeatureEncoder.fit(schema_of(time="at", now="clock"), [table])

    history = history_of(encoder, table)

    ids = encoder.state.vocabularies["item"].ids.to_pylist()
    expected = [[0 if one is None else 1 + ids.index(one) for one in row[-3:]] for row in seen]
    ages = [[max(0, clock - time) for time in row[-3:]] for row, clock in zip(times, now, strict=True)]
    assert history.ages_N is not None
    assert history.lengths_B.tolist() == [len(row) for row in expected]
    assert history.rows_N["history#item"].tolist() == [row for rows in expected for row in rows]
    assert history.ages_N.tolist() == [age for row in ages for age in row]


def test_lists_of_unequal_lengths_name_row_and_columns() -> None:
    encoder = FeatureEncoder.fit(schema_of(), [log()])
    wrong = log(shops=[[1, 2, 1, 2], [4], [3, 3]])

    message = r"columns of feature 'history' hold lists of unequal lengths in row {}: 0 in 'seen', 1 in 'shops'; make"

    with pytest.raises(DataError, match=message.format(1)):
        encoder.encode(wrong)
    with pytest.raises(DataError, match=message.format(11)):
        Learner(schema_of(), ()).add(wrong, first_row=10)


def test_lists_longer_than_what_is_kept_must_be_aligned_too() -> None:
    encoder = FeatureEncoder.fit(schema_of(), [log()])
    wrong = log(seen=[["a"] * 9, None, ["c", None]])

    with pytest.raises(DataError, match=r"in row 0: 9 in 'seen', 4 in 'shops'"):
        encoder.encode(wrong)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"seen": ["a", "b", "c"]}, r"column 'seen' of feature 'history': expected a list of ids, found string; give"),
        ({"seen": [1, 2, 3]}, r"column 'seen' of feature 'history': expected a list of ids, found int64; make a list"),
        (
            {"at": ["1", "2", "3"]},
            r"column 'at' of .*: expected a list of times, found string; give lists of",
        ),
        ({"at": [["1"], [], []]}, r"column 'at' of feature 'history': expected a list of times, found list<.*string"),
        (
            {"clock": ["x", "y", "z"]},
            r"column 'clock' of .*: expected a time, found string; give numbers or",
        ),
    ],
)
def test_column_of_a_wrong_type_is_named(columns: dict[str, Any], message: str) -> None:
    times = {"at": [[1, 2, 3, 4], [], [1, 2]], "clock": [9, 9, 9]}

    with pytest.raises(SchemaError, match=message):
        FeatureEncoder.fit(schema_of(time="at", now="clock"), [log(**{**times, **columns})])


def test_lists_may_be_texts_with_separators() -> None:
    lists = log(at=[[1, 2, 3, 4.5], None, [7, 8]])
    shops = pa.array(["1|2|1|2", " ", "3|3"]).dictionary_encode()
    texts = log(seen=["a|b|c|a", None, "c|"], shops=shops, at=["1|2| 3|4.5", "", "7|8"])

    of_lists = history_of(FeatureEncoder.fit(schema_of(time="at"), [lists]), lists)
    of_texts = history_of(FeatureEncoder.fit(schema_of(time="at", separator="|"), [texts]), texts)

    assert of_texts.lengths_B.tolist() == of_lists.lengths_B.tolist()
    assert of_texts.rows_N["history#item"].tolist() == of_lists.rows_N["history#item"].tolist()
    assert of_texts.ages_N is not None
    assert of_texts.ages_N.tolist() == [2.5, 1.5, 0.0, 1.0, 0.0]


def test_time_in_a_text_that_is_no_number_is_named() -> None:
    texts = log(seen=["a", "b|a", "c"], shops=["1", "1|2", "1"], at=["5", "6|soon", "7"])

    with pytest.raises(DataError, match=r"column 'at' of feature 'history' holds 'soon' in row 1; a time in a text"):
        FeatureEncoder.fit(schema_of(time="at", separator="|"), [texts])


def test_timestamps_and_dates_give_ages_in_seconds() -> None:
    noon = datetime(2026, 1, 31, 12, tzinfo=UTC)
    instants = pa.array([[noon.replace(hour=10), noon], [], []], pa.list_(pa.timestamp("ms", "UTC")))
    days = pa.array([[date(2026, 1, 30), date(2026, 1, 31)], [], []])
    lists = {"seen": [["a", "b"], [], []], "shops": [[1, 2], [], []]}

    for times, expected in ((instants, 7200.0), (days, 86400.0)):
        table = log(**lists, at=times)
        history = history_of(FeatureEncoder.fit(schema_of(time="at"), [table]), table)

        assert history.ages_N is not None
        assert history.ages_N.tolist() == [expected, 0.0]


def test_ages_of_large_times_are_exact() -> None:
    table = log(seen=[["a", "b"], [], []], shops=[[1, 2], [], []], at=[[1_700_000_000, 1_700_000_001], [], []])

    history = history_of(FeatureEncoder.fit(schema_of(time="at"), [table]), table)

    assert history.ages_N is not None
    assert history.ages_N.dtype == torch.float32
    assert history.ages_N.tolist() == [1.0, 0.0]


NAN = float("nan")


@pytest.mark.parametrize(
    ("times", "lengths", "now", "ages"),
    [
        ([3, NAN, 9], [3], None, [6, 0, 0]),
        ([3, NAN, 9], [3], [10], [7, 1, 1]),
        ([3, NAN], [2], [10], [7, 7]),
        ([1, NAN, NAN, 8], [2, 2], None, [0, 0, 0, 0]),
        ([NAN, NAN], [2], [10], [0, 0]),
        ([3, 12], [2], [10], [7, 0]),
        ([3, 5], [0, 2, 0], [9, NAN, 9], [2, 0]),
        ([], [0, 0], [1, 2], []),
    ],
)
def test_age_counts_from_the_row_or_the_newest_entry(
    times: list[float], lengths: list[int], now: list[float] | None, ages: list[float]
) -> None:
    found = ages_of(np.array(times, float), np.array(lengths), None if now is None else np.array(now, float))

    assert found.tolist() == ages


@pytest.mark.parametrize(
    ("changes", "key", "message"),
    [
        ({"columns": {}}, "columns", "at least one column is needed, such as columns: {item: {column: seen_items}}"),
        (
            {"now": "clock"},
            "now",
            "is the time of the row, from which the ages of entries count; give their times too (time:)",
        ),
        ({"separator": ""}, "separator", "a separator needs a character; columns that hold lists need no separator"),
        (
            {"columns": {"item": {"column": "seen", "table": "itm"}}},
            "columns.item.table",
            "no other feature looks up a table itm; did you mean item?",
        ),
        (
            {"columns": {"item": {"column": "seen", "table": "zzz"}}},
            "columns.item.table",
            "no other feature looks up a table zzz; there are: item",
        ),
        (
            {"columns": {"item": {"column": "seen", "table": "item", "encoding": {"kind": "hash"}}}},
            "columns.item.encoding",
            "shares table item with item, so its encoding must be the same",
        ),
        (
            {"columns": {"item": {"column": "seen", "table": "item", "width": 4}}},
            "columns.item.width",
            "shares table item with item, so its width must be the same",
        ),
    ],
)
def test_what_does_not_fit_together_is_named(changes: dict[str, Any], key: str, message: str) -> None:
    assert problems(**changes) == [(f"features.history.{key}", message)]


def test_pooling_of_a_shared_table_is_that_of_its_lists() -> None:
    tags = {"kind": "id_list", "pooling": "sum"}
    history = {"kind": "sequence", "columns": {"tag": {"column": "seen", "table": "tags"}}}
    schema = FeatureSchema.model_validate({"features": {"history": history, "tags": tags}})

    assert not all_problems(schema)
    assert schema.tables()["tags"].pooling == "sum"


def test_sequence_of_the_candidate_is_refused() -> None:
    with pytest.raises(ValueError, match="Input should be 'user' or 'context'"):
        schema_of(side="item")


def test_new_ids_of_a_history_follow_those_that_have_a_row() -> None:
    before = FeatureEncoder.fit(schema_of(), [log()])
    later = log(seen=[["d", "d"], ["d"], []], shops=[[7, 1], [7], []])

    after = FeatureEncoder.fit(schema_of(), [later], base=before)

    assert after.state.vocabularies["item"].ids.to_pylist() == ["b", "a", "c", "d"]
    assert row_sources("item", old=before, new=after).tolist() == [0, 1, 2, 3, -1]
    assert row_sources("history#shop", old=before, new=after).tolist() == [0, 1, 2, 3, -1]


def test_ids_of_a_history_compete_for_the_rows_of_a_dynamic_table() -> None:
    item = {"kind": "id", "encoding": {"kind": "dynamic", "capacity": 1, "admit_after": 2}}
    schema = FeatureSchema.model_validate({"features": {"item": item, "history": HISTORY}})

    rows = log(item=["a", "a", "b"], seen=[["c"] * 3, ["c"], []], shops=[[1] * 3, [1], []])
    encoder = FeatureEncoder.fit(schema, [rows])

    assert encoder.encode(log()).sequences(encoder.layout)["history"].rows_N["history#item"].tolist() == [0, 1, 0, 1, 0]
