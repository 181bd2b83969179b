"""One contract for every kind of feature of the union, and for every encoding of ids."""

import dataclasses
from typing import Any, get_args

import numpy as np
import pyarrow as pa
import pytest
import torch
from pydantic import TypeAdapter

from recmoe.features.batch import Batch
from recmoe.features.encoder import FeatureEncoder
from recmoe.features.encodings import EncodingConfig
from recmoe.features.fit import Learner
from recmoe.features.kinds import FeatureConfig
from recmoe.features.number_learner import PIECE_ROWS
from recmoe.features.schema import FeatureSchema
from recmoe.planning.rows import planned_layout

EXAMPLES: dict[str, list[dict[str, Any]]] = {
    "id": [{}, {"missing": "none"}],
    "id_list": [{"column": "words"}, {"column": "text", "separator": " ", "max_length": 2}],
    "numeric": [{"column": "price", "forms": ["value", "bucket", "vector"]}],
    "sequence": [
        {"columns": {"word": {"column": "words"}}},
        {
            "columns": {"word": {"column": "words", "table": "owner"}, "place": {"column": "places", "width": 3}},
            "time": "times",
            "now": "price",
            "max_length": 2,
        },
    ],
}
KINDS = [config_class.model_fields["kind"].default for config_class in get_args(get_args(FeatureConfig)[0])]
ENCODINGS = [config_class.model_fields["kind"].default for config_class in get_args(get_args(EncodingConfig)[0])]
ENCODING_FIELDS: dict[str, dict[str, Any]] = {"index": {"num_ids": 9}, "dynamic": {"admit_after": 1}}
every_feature = pytest.mark.parametrize(
    "fields",
    [pytest.param({"kind": kind, **fields}, id=kind) for kind in KINDS for fields in EXAMPLES[kind]],
)
every_encoding = pytest.mark.parametrize("kind", ENCODINGS)


def rows_of(num_rows: int) -> pa.Table:
    random = np.random.default_rng(0)
    lengths = random.integers(0, 5, num_rows)
    words = [[f"w{word}" for word in random.integers(0, 6, length)] for length in lengths]
    return pa.table(
        {
            "x": pa.array([f"w{word}" for word in random.integers(0, 6, num_rows)], mask=random.random(num_rows) < 0.2),
            "owner": [f"w{word}" for word in random.integers(0, 3, num_rows)],
            "words": pa.array([None if row % 5 == 4 and not words[row] else words[row] for row in range(num_rows)]),
            "text": [" ".join(one) for one in words],
            "places": [random.integers(0, 9, length).tolist() for length in lengths],
            "times": [sorted(random.random(length).tolist()) for length in lengths],
            "price": pa.array(random.gamma(2.0, 3.0, num_rows), mask=random.random(num_rows) < 0.2),
        }
    )


def schema_of(fields: dict[str, Any]) -> FeatureSchema:
    owner = {"kind": "id", "width": 5}
    return FeatureSchema.model_validate({"width": 4, "features": {"x": fields, "owner": owner}})


def columns_of(batch: Batch, encoder: FeatureEncoder) -> dict[str, list[Any]]:
    """What each row holds, by key and column of the batch."""
    found: dict[str, list[Any]] = {c.name: batch.dense_BF[:, i].tolist() for i, c in enumerate(encoder.layout.dense)}
    parts = torch.split(batch.values, batch.lengths_KB.sum(dim=1).tolist())
    for key, lengths_B, ids in zip(encoder.layout.sparse, batch.lengths_KB.tolist(), parts, strict=True):
        found[key.name] = [rows.tolist() for rows in torch.split(ids, lengths_B)]
    for name, sequence in batch.sequences(encoder.layout).items():
        if sequence.ages_N is not None:
            found[f"{name}#ages"] = [
                ages.tolist() for ages in torch.split(sequence.ages_N, sequence.lengths_B.tolist())
            ]
    return found


def test_every_kind_has_an_example() -> None:
    assert sorted(EXAMPLES) == sorted(KINDS)


@every_feature
def test_row_is_encoded_the_same_alone_and_in_chunks(fields: dict[str, Any]) -> None:
    rows = rows_of(40)
    encoder = FeatureEncoder.fit(schema_of(fields), [rows])
    chunked = pa.concat_tables([rows.slice(0, 7), rows.slice(7, 20), rows.slice(27)])

    whole = columns_of(encoder.encode(rows), encoder)
    alone = [columns_of(encoder.encode(rows.slice(row, 1)), encoder) for row in range(rows.num_rows)]

    assert whole == {name: [one[name][0] for one in alone] for name in whole}
    assert whole == columns_of(encoder.encode(chunked), encoder)


@every_feature
def test_feature_reads_the_columns_that_it_names_and_no_others(fields: dict[str, Any]) -> None:
    rows = rows_of(40)
    encoder = FeatureEncoder.fit(schema_of(fields), [rows])
    needed = rows.select(list(encoder.columns()))

    assert columns_of(encoder.encode(needed), encoder) == columns_of(encoder.encode(rows), encoder)
    for column in encoder.columns():
        with pytest.raises(Exception, match=f"column '{column}' is missing, needed by feature"):
            encoder.encode(needed.drop_columns([column]))


@every_feature
def test_learners_of_parts_are_the_learner_of_the_whole(fields: dict[str, Any], tmp_path: Any) -> None:
    rows, schema = rows_of(60), schema_of(fields)
    whole = Learner(schema, ())
    parts = [Learner(schema, (), folder=tmp_path) for _ in range(2)]

    for number in range(2):
        piece = rows.slice(30 * number, 30)
        whole.add(piece, first_row=number * PIECE_ROWS)
        parts[1 - number].add(piece, first_row=number * PIECE_ROWS)
        parts[1 - number].ids.spill()
    parts[0].merge(parts[1])

    merged, expected = (FeatureEncoder(schema, (), learner.finish()) for learner in (parts[0], whole))
    assert merged.fingerprint == expected.fingerprint


@every_feature
def test_column_without_a_value_is_encoded_and_has_the_type_that_requests_give(fields: dict[str, Any]) -> None:
    rows = rows_of(5)
    empty = pa.table({name: rows[name] if name == "owner" else pa.nulls(5) for name in rows.column_names})
    encoder = FeatureEncoder.fit(schema_of(fields), [empty])

    again = empty.select(encoder.arrow_schema().names).cast(encoder.arrow_schema())

    assert columns_of(encoder.encode(again), encoder) == columns_of(encoder.encode(empty), encoder)


@every_feature
def test_written_encoder_is_the_same(fields: dict[str, Any], tmp_path: Any) -> None:
    rows = rows_of(30)
    encoder = FeatureEncoder.fit(schema_of(fields), [rows])

    encoder.save(tmp_path / "encoder")
    loaded = FeatureEncoder.load(tmp_path / "encoder")

    assert (loaded.fingerprint, loaded.layout) == (encoder.fingerprint, encoder.layout)
    assert columns_of(loaded.encode(rows), loaded) == columns_of(encoder.encode(rows), encoder)


@every_feature
def test_grown_encoder_keeps_every_row(fields: dict[str, Any]) -> None:
    rows = rows_of(60)
    before = FeatureEncoder.fit(schema_of(fields), [rows.slice(0, 20)])

    after = FeatureEncoder.fit(schema_of(fields), [rows], base=before)

    known = columns_of(before.encode(rows.slice(0, 20)), before)
    assert columns_of(after.encode(rows.slice(0, 20)), after) == known


@every_feature
def test_planned_layout_is_that_of_a_log_of_as_many_ids(fields: dict[str, Any]) -> None:
    rows, schema = rows_of(200), schema_of(fields)
    layout = FeatureEncoder.fit(schema, [rows]).layout

    planned = planned_layout(
        schema, {spec.name: spec.num_rows - 1 for spec in layout.tables if spec.name in schema.tables()}
    )

    def shape(of: Any) -> list[Any]:
        # A log of few different numbers has fewer buckets than the config allows.
        keys = [dataclasses.astuple(key) for key in of.sparse]
        return [keys, [column.name for column in of.dense], of.sequences, [spec.width for spec in of.tables]]

    assert shape(planned) == shape(layout)


@every_feature
def test_planned_ids_are_those_of_the_keys(fields: dict[str, Any]) -> None:
    schema = schema_of(fields)
    encoder = FeatureEncoder.fit(schema, [rows_of(20)])
    keys = [key for key in encoder.layout.sparse if key.feature == "x"]

    planned = schema.features["x"].planned_ids("x", per_row=7.0)

    assert planned == {key.name: 7.0 if key.is_list else 1.0 for key in keys}


@every_feature
def test_no_id_of_the_training_data_is_unknown(fields: dict[str, Any]) -> None:
    rows = rows_of(40)
    encoder = FeatureEncoder.fit(schema_of(fields), [rows])

    seen = encoder.unknown_counts(rows, encoder.encode(rows))

    assert all(unknown == 0 for unknown, _ in seen.values())
    assert seen.keys() == {key.name for key in encoder.layout.sparse if key.table in encoder.lookups}


@every_feature
def test_simple_models_read_as_many_rows(fields: dict[str, Any]) -> None:
    rows = rows_of(30)

    raw = schema_of(fields).features["x"].read_raw(rows, "x")

    lengths = [len(values) for values in (*raw.ids.values(), *raw.numbers.values())]
    lengths += [len(lengths_B) for _, lengths_B in raw.lists.values()]
    assert lengths
    assert set(lengths) == {30}
    assert all(len(keys_n) == lengths_B.sum() for keys_n, lengths_B in raw.lists.values())


@every_encoding
def test_encoding_has_rows_for_ids_it_knows_and_none_for_null(kind: str) -> None:
    config = TypeAdapter(EncodingConfig).validate_python({"kind": kind, **ENCODING_FIELDS.get(kind, {})})
    schema = FeatureSchema.model_validate({"features": {"x": {"kind": "id", "encoding": config.model_dump()}}})
    encoder = FeatureEncoder.fit(schema, [pa.table({"x": [3, 3, 4, None]})])

    rows = encoder.encode(pa.table({"x": [3, 4, None]})).values.tolist()

    assert rows[0] > 0
    assert rows[1] > 0
    assert rows[0] != rows[1]
    assert rows[2] == 0
    assert max(rows) < encoder.lookups["x"].num_rows


@every_encoding
def test_size_of_an_encoding_is_known_before_a_log_or_learned_from_it(kind: str) -> None:
    config = TypeAdapter(EncodingConfig).validate_python({"kind": kind, **ENCODING_FIELDS.get(kind, {})})

    growth = config.grow(None)

    assert config.num_planned_ids is not None or growth is not None
    if growth is None:
        assert config.build(learned=None, seed=0).num_rows == 1 + (config.num_planned_ids or 0)
