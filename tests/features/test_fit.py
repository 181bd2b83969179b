"""Tests of the pass over the training data."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from recmoe.errors import DataError, SchemaError
from recmoe.features.encoder import FeatureEncoder
from recmoe.features.encoder_state import EncoderState
from recmoe.features.encodings import HashConfig, VocabularyConfig
from recmoe.features.fit import Learner, fit_state
from recmoe.features.kinds import FeatureConfig, GivenBuckets, IdFeature, IdListFeature, NumericFeature, QuantileBuckets
from recmoe.features.labels import LabelColumn
from recmoe.features.schema import FeatureSchema


def _fit(features: dict[str, FeatureConfig], *tables: dict[str, object], **fields: str) -> EncoderState:
    return fit_state(FeatureSchema(features=features, **fields), map(pa.table, tables), ())  # type: ignore[arg-type]


def test_features_that_share_a_table_share_its_vocabulary() -> None:
    features: dict[str, FeatureConfig] = {
        "item": IdFeature(table="items"),
        "bought": IdListFeature(table="items"),
        "color": IdFeature(),
    }

    state = _fit(features, {"item": ["a", "b"], "bought": [["c", "c"], None], "color": ["a", None]})

    ids = {table: vocabulary.ids.to_pylist() for table, vocabulary in state.vocabularies.items()}
    assert ids == {"items": ["c", "a", "b"], "color": ["a"]}


def test_only_ids_that_are_kept_count() -> None:
    features: dict[str, FeatureConfig] = {"x": IdListFeature(max_length=1, separator=",")}

    state = _fit(features, {"x": ["a,b", "c", ""]})

    assert state.vocabularies["x"].ids.to_pylist() == ["b", "c"]


def test_null_counts_as_the_id_that_stands_for_it() -> None:
    features: dict[str, FeatureConfig] = {"x": IdFeature(missing=0, encoding=VocabularyConfig(min_count=2))}

    state = _fit(features, {"x": [0, None, 5, None]}, {"x": ["0", None, "6", "6"]})

    assert state.vocabularies["x"].ids.to_pylist() == ["0", "6"]


def test_hash_has_no_vocabulary() -> None:
    assert not _fit({"x": IdFeature(encoding=HashConfig())}, {"x": [1]}).vocabularies


def test_statistics_are_of_the_numbers_after_clip_and_log1p() -> None:
    features: dict[str, FeatureConfig] = {
        "x": NumericFeature(
            clip=(0.0, 7.0), log1p=True, forms=("value", "bucket"), buckets=GivenBuckets(boundaries=(3.0,))
        )
    }

    numbers = _fit(features, {"x": [0.0, None]}, {"x": [99.0, float("nan")]}).numbers["x"]

    assert numbers.mean == pytest.approx(np.log(8) / 2)
    assert numbers.std == pytest.approx(np.log(8) / 2)
    assert numbers.edges == pytest.approx((0.0, np.log(4), np.log(8)))


def test_number_that_stands_for_null_counts() -> None:
    numbers = _fit({"x": NumericFeature(missing=4.0)}, {"x": [0.0, None]}).numbers["x"]

    assert (numbers.mean, numbers.std, numbers.edges) == (2.0, 2.0, ())


def test_quantile_edges_reach_from_the_smallest_to_the_largest() -> None:
    features: dict[str, FeatureConfig] = {"x": NumericFeature(forms=("vector",), buckets=QuantileBuckets(count=2))}

    numbers = _fit(features, {"x": [4.0, 1.0]}, {"x": [3.0, 2.0]}).numbers["x"]

    assert numbers.edges == (1.0, 2.5, 4.0)


def test_types_come_from_the_first_table_with_values() -> None:
    features: dict[str, FeatureConfig] = {"x": IdFeature(), "y": NumericFeature(missing=0.0)}

    state = _fit(
        features,
        {"x": pa.nulls(1), "y": [1], "g": [1]},
        {"x": pa.array(["a"]).dictionary_encode(), "y": [2], "g": [1]},
        group="g",
    )

    assert state.columns == pa.schema({"x": pa.string(), "y": pa.int64(), "g": pa.int64()})


def test_training_data_without_rows_is_an_error() -> None:
    with pytest.raises(DataError, match=r"the training data has no rows; check data\.train"):
        _fit({"x": IdFeature()}, {"x": pa.array([], pa.string())})


def test_number_that_is_never_there_is_told_and_always_missing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    feature = NumericFeature(column="y", forms=("value", "bucket", "vector"))
    raw = NumericFeature(column="y", zscore=False)
    schema = FeatureSchema(features={"x": feature, "raw": raw})

    encoder = FeatureEncoder.fit(schema, [pa.table({"y": pa.nulls(2, pa.float64())})])
    encoder.save(tmp_path / "encoder")
    batch = FeatureEncoder.load(tmp_path / "encoder").encode(pa.table({"y": [None, 5.0, -1e9]}))

    assert "column 'y' of feature 'x' holds no number in the training data: it counts as missing" in caplog.text
    assert "leave it out unless it comes later" in caplog.text
    assert (batch.dense_BF == 0).all()
    assert batch.values.tolist() == [0, 0, 0]


def test_numbers_too_large_for_a_float_are_counted_and_told(caplog: pytest.LogCaptureFixture) -> None:
    schema = FeatureSchema(features={"x": NumericFeature()})
    tables = [pa.table({"x": [1.0, float("inf"), 3.0]}), pa.table({"x": [1e300, -np.inf, 2.0]})]

    state = fit_state(schema, tables, ())

    assert state.numbers["x"].mean == 2.0
    assert "column 'x' of feature 'x' holds 3 numbers that are infinite or too large for a float" in caplog.text


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ([[123.0, None], [7.0]], pa.int64()),
        ([[None, float("nan")], [2.0**53]], pa.int64()),
        ([[123.0], [0.5]], pa.float64()),
        ([[0.5], [123.0]], pa.float64()),
        ([[1e300], [1.0]], pa.float64()),
        ([[None], [float("nan")]], pa.float64()),
    ],
)
def test_whole_floats_are_ids_of_integers(values: list[list[float | None]], kind: pa.DataType) -> None:
    schema = FeatureSchema(features={"x": IdFeature(), "n": NumericFeature()}, group="g", item="i")
    tables = [pa.table({name: pa.array(part, pa.float64()) for name in ("x", "g", "i", "n")}) for part in values]

    columns = fit_state(schema, tables, ()).columns

    assert columns == pa.schema({"x": kind, "n": pa.float64(), "g": kind, "i": kind})


def test_whole_floats_in_lists_are_ids_of_integers() -> None:
    state = _fit({"x": IdListFeature()}, {"x": [[1.0, None], None]}, {"x": [[2.0]]})

    assert state.columns.field("x").type == pa.list_(pa.int64())


def test_parts_agree_on_whether_ids_are_whole(tmp_path: Path) -> None:
    schema = FeatureSchema(features={"x": IdFeature()})
    learners = [Learner(schema, (), folder=tmp_path / str(place)) for place in range(3)]
    for learner, values in zip(learners, ([None], [0.5], [7.0]), strict=True):
        learner.add(pa.table({"x": pa.array(values, pa.float64())}), first_row=0)
        learner.ids.spill()

    kinds = []
    for other in (learners[2], learners[1]):
        learners[0].merge(other)
        kinds.append(learners[0].finish().columns.field("x").type)

    assert kinds == [pa.int64(), pa.float64()]


def test_wrong_value_is_named_with_its_row_in_the_training_data() -> None:
    schema = FeatureSchema(features={"x": NumericFeature()})
    tables = [pa.table({"x": [1.0, 2.0], "y": [0, 1]}), pa.table({"x": [3.0, 4.0], "y": [0, 2]})]

    with pytest.raises(DataError, match="label column 'y' holds 2 in row 3;"):
        fit_state(schema, tables, [LabelColumn(column="y", is_binary=True)])


@pytest.mark.parametrize("role", ["group", "item"])
def test_missing_group_or_item_is_an_error(role: str) -> None:
    with pytest.raises(SchemaError, match=f"column 'y' is missing, needed by the schema, as its {role}"):
        _fit({"x": NumericFeature()}, {"x": [1.0]}, **{role: "y"})
