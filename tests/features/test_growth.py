"""An encoder that goes on from another: what keeps its row, its statistics, its meaning."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from recmoe.errors import DataError
from recmoe.features.encoder import FeatureEncoder
from recmoe.features.encodings import DynamicConfig, EncodingConfig, HashConfig, IndexConfig, VocabularyConfig
from recmoe.features.fit import Learner
from recmoe.features.kinds import FeatureConfig, GivenBuckets, IdFeature, IdListFeature, NumericFeature
from recmoe.features.number_learner import PIECE_ROWS
from recmoe.features.row_moves import row_sources
from recmoe.features.schema import FeatureSchema


def fitted(
    table: dict[str, object], *, base: FeatureEncoder | None = None, **features: FeatureConfig
) -> FeatureEncoder:
    return FeatureEncoder.fit(FeatureSchema(features=features), [pa.table(table)], base=base)


def city(encoding: EncodingConfig, *ids: object, base: FeatureEncoder | None = None) -> FeatureEncoder:
    return fitted({"city": list(ids)}, base=base, city=IdFeature(encoding=encoding))


def sources(old: FeatureEncoder, new: FeatureEncoder, table: str = "city") -> list[int]:
    found: list[int] = row_sources(table, old=old, new=new).tolist()
    return found


def test_vocabulary_grows_behind_its_ids() -> None:
    old = city(VocabularyConfig(), "Rome", "Rome", "Oslo")

    new = city(VocabularyConfig(min_count=2), "Paris", "Paris", "Oslo", "Bonn", base=old)

    assert new.state.vocabularies["city"].ids.to_pylist() == ["Rome", "Oslo", "Paris"]
    assert sources(old, new) == [0, 1, 2, -1]


def test_vocabulary_stops_growing_at_its_size() -> None:
    old = city(VocabularyConfig(), "Rome", "Rome", "Oslo")

    full = city(VocabularyConfig(max_size=2), "Paris", base=old)
    smaller = city(VocabularyConfig(max_size=1), "Paris", base=old)

    assert full.state.vocabularies["city"].ids.to_pylist() == ["Rome", "Oslo"]
    assert smaller.state.vocabularies["city"].ids.to_pylist() == ["Rome"]


def test_vocabulary_learnt_anew_moves_its_rows() -> None:
    old = city(VocabularyConfig(), "Rome", "Rome", "Oslo")

    new = city(VocabularyConfig(), "Paris", "Paris", "Oslo", "Oslo", "Oslo")

    assert sources(old, new) == [0, 2, -1]


def test_dynamic_ids_that_stay_keep_their_rows_and_a_row_of_another_owner_begins_anew() -> None:
    config = DynamicConfig(capacity=3, admit_after=1, half_life=1)
    old = city(config, *["Rome"] * 4, "Oslo", "Oslo", "Bonn")

    new = city(config, *["Paris"] * 5, "Oslo", base=old)

    ids = pa.table({"city": ["Rome", "Oslo", "Bonn", "Paris"]})
    assert old.encode(ids).values.tolist() == [1, 2, 3, 0]
    assert new.encode(ids).values.tolist() == [1, 2, 0, 3]
    assert sources(old, new) == [0, 1, 2, -1]


def test_ids_of_a_vocabulary_become_dynamic_in_their_rows() -> None:
    old = city(VocabularyConfig(), "Rome", "Rome", "Oslo")

    new = city(DynamicConfig(capacity=4, admit_after=2), "Paris", "Paris", "Bonn", base=old)

    assert new.encode(pa.table({"city": ["Rome", "Oslo", "Paris", "Bonn"]})).values.tolist() == [1, 2, 3, 0]
    assert sources(old, new) == [0, 1, 2, -1, -1]


def test_hashed_rows_go_on_where_the_hash_is_the_same_and_can_be_split() -> None:
    old = city(HashConfig(num_buckets=3), "Rome")
    row = int(old.encode(pa.table({"city": ["Rome"]})).values[0])

    assert sources(old, city(HashConfig(num_buckets=3), "Oslo")) == [0, 1, 2, 3]
    assert sources(old, city(HashConfig(num_buckets=4), "Oslo")) == [0, -1, -1, -1, -1]
    assert sources(old, city(VocabularyConfig(), "Rome")) == [0, row]
    assert sources(city(VocabularyConfig(), "Rome"), old) == [0, -1, -1, -1]


def test_row_numbers_go_on_and_can_become_ids() -> None:
    old = city(IndexConfig(num_ids=2), 0, 1)

    assert sources(old, city(IndexConfig(num_ids=3), 0)) == [0, 1, 2, -1]
    assert sources(old, city(IndexConfig(num_ids=1), 0)) == [0, 1]
    assert sources(old, city(VocabularyConfig(), 7, 7, 1)) == [0, -1, 2]


def test_table_that_was_not_there_begins_anew() -> None:
    old = fitted({"city": ["Rome"]}, city=IdFeature())
    new = fitted({"city": ["Rome"]}, base=old, city=IdFeature(table="places"))

    assert sources(old, new, "places") == [-1, -1]


def test_numbers_keep_statistics_and_edges_as_long_as_they_are_read_alike() -> None:
    forms = NumericFeature(forms=("value", "bucket"))
    old = fitted({"price": [1.0, 2.0, 3.0]}, price=forms)
    later: dict[str, object] = {"price": [10.0, 20.0, 60.0], "age": [1.0, 2.0, 6.0]}

    same = fitted(later, base=old, price=forms, age=NumericFeature())
    other = fitted(
        later, base=old, price=NumericFeature(forms=("value", "bucket"), buckets=GivenBuckets(boundaries=(15,)))
    )
    logs = fitted(later, base=old, price=NumericFeature(log1p=True))

    assert same.state.numbers["price"] == old.state.numbers["price"]
    assert same.state.numbers["age"].mean == 3.0
    assert sources(old, same, "price#bucket") == [0, 1, 2, 3]
    assert sources(old, other, "price#bucket") == [0, -1, -1]
    assert logs.state.numbers["price"].mean == pytest.approx(np.log1p([10, 20, 60]).mean())


def test_day_without_a_number_keeps_what_was_known() -> None:
    old = fitted({"price": [1.0, 3.0]}, price=NumericFeature())
    empty: dict[str, object] = {"price": pa.array([None, None], pa.float64())}

    new = fitted(empty, base=old, price=NumericFeature())

    assert new.state.numbers == old.state.numbers


def test_number_that_was_never_there_is_learned_on_the_first_day_that_has_one() -> None:
    empty: dict[str, object] = {"price": pa.array([None, None], pa.float64())}
    old = fitted(empty, price=NumericFeature())

    new = fitted({"price": [1.0, 3.0]}, base=old, price=NumericFeature())

    assert not old.state.numbers["price"].is_known
    assert new.state.numbers["price"].mean == 2.0


def test_dynamic_ids_travel_with_the_encoder(tmp_path: Path) -> None:
    config = DynamicConfig(capacity=2, admit_after=2)
    encoder = fitted(
        {"city": ["a", "b", "b", None], "seen": [["b"], ["c"], None, ["c", "a"]]},
        city=IdFeature(encoding=config, table="places", missing="c"),
        seen=IdListFeature(encoding=config, table="places"),
    )

    encoder.save(tmp_path / "encoder")
    loaded = FeatureEncoder.load(tmp_path / "encoder")

    # a is seen twice, b and c three times: c once as what stands for null.
    assert encoder.layout.tables[0].num_rows == 3
    assert (encoder.state.dynamic["places"].last, encoder.fingerprint) == (
        loaded.state.dynamic["places"].last,
        loaded.fingerprint,
    )
    rows = pa.table({"city": ["b", None, "a", "z"], "seen": [["a"], ["c"], None, ["b"]]})
    assert loaded.encode(rows).values.tolist() == encoder.encode(rows).values.tolist()
    known = encoder.encode(rows).values.tolist()
    assert (known[2], known[3], known[4]) == (0, 0, 0)
    assert sorted(known[:2]) == [1, 2]
    names = sorted(path.name for path in (tmp_path / "encoder").iterdir())
    assert names == ["columns.arrow", "dynamic_0.arrow", "encoder.json"]


def test_an_update_changes_the_fingerprint_and_the_order_of_chunks_does_not() -> None:
    config = IdFeature(encoding=DynamicConfig(capacity=2, admit_after=1))
    chunks = [pa.table({"city": ["a", "b"]}), pa.table({"city": ["b", "c"]})]
    schema = FeatureSchema(features={"city": config})

    one, other = (FeatureEncoder.fit(schema, order) for order in (chunks, chunks[::-1]))
    grown = FeatureEncoder.fit(schema, chunks, base=one)

    assert one.fingerprint == other.fingerprint != grown.fingerprint


@pytest.mark.parametrize("encoding", [DynamicConfig(capacity=30, admit_after=2), VocabularyConfig(max_size=100)])
def test_learners_of_parts_are_the_learner_of_the_whole_with_a_base_too(
    encoding: EncodingConfig, tmp_path: Path
) -> None:
    random = np.random.default_rng(0)
    schema = FeatureSchema(
        features={
            "city": IdFeature(encoding=encoding, table="places", missing="none"),
            "seen": IdListFeature(encoding=encoding, table="places"),
            "price": NumericFeature(),
        }
    )

    def log(first: int) -> pa.Table:
        cities = [None if city % 9 == 0 else f"c{city}" for city in first + random.zipf(1.4, 400) % 90]
        seen = [[f"c{first + city}"] * (city % 3) for city in random.integers(0, 90, 400)]
        return pa.table({"city": cities, "seen": seen, "price": random.normal(size=400)})

    monday, tuesday = log(0), log(20)
    base = FeatureEncoder.fit(schema, [monday])
    parts = [Learner(schema, [], folder=tmp_path, max_bytes=2_000) for _ in range(3)]
    for number, learner in enumerate(parts):
        # Moments are of pieces of the data that learners read as a whole.
        learner.add(tuesday.slice(150 * number, 150), first_row=number * PIECE_ROWS)
        learner.ids.spill()

    whole = FeatureEncoder.fit(schema, [tuesday], base=base)
    merged = parts[2]
    merged.merge(parts[0])
    merged.merge(parts[1])
    grown = FeatureEncoder(schema, (), merged.finish(base=base.state))

    assert grown.fingerprint == whole.fingerprint != base.fingerprint
    assert [ids.last for ids in grown.state.dynamic.values()] == [ids.last for ids in whole.state.dynamic.values()]
    assert len(merged.ids.files) == 3


def test_damaged_dynamic_ids_are_found(tmp_path: Path) -> None:
    city(DynamicConfig(capacity=2), "a", "a").save(tmp_path / "encoder")
    path = tmp_path / "encoder" / "dynamic_0.arrow"
    with pa.OSFile(str(path)) as source, pa.ipc.open_file(source) as reader:
        table = reader.read_all()
    table = table.set_column(2, "sightings", pa.array([9], pa.int32()))
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)

    with pytest.raises(DataError, match="files do not match its fingerprint"):
        FeatureEncoder.load(tmp_path / "encoder")
