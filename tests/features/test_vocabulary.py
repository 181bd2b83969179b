"""Tests of Vocabulary, hashed and indexed ids."""

import numpy as np
import pyarrow as pa
import pytest

from recmoe.errors import DataError
from recmoe.features.arrow_ids import id_values
from recmoe.features.schema import HashConfig, IndexConfig, VocabularyConfig
from recmoe.features.vocabulary import HashedIds, IndexedIds, Vocabulary, VocabularyCounter, build_lookup


def _counted(*chunks: pa.Array, **config: int) -> list[str]:
    counter = VocabularyCounter()
    for chunk in chunks:
        counter.add(id_values(chunk))
    ids: list[str] = counter.finish(VocabularyConfig(**config)).ids.to_pylist()
    return ids


def test_frequent_ids_come_first_and_equal_counts_in_order_of_text() -> None:
    assert _counted(pa.array(["b", "c", "a", "c", None]), pa.array(["b", "d"])) == ["b", "c", "a", "d"]


def test_counts_of_chunks_of_several_types_add_up() -> None:
    chunks = (
        pa.array([7, 8, 8]),
        pa.array(["7", "7"]),
        pa.array([9.0, float("nan")]),
        pa.array(["9"]).dictionary_encode(),
    )

    assert _counted(*chunks) == ["7", "8", "9"]


def test_rare_ids_and_those_beyond_the_size_are_cut() -> None:
    ids = pa.array(["a"] * 3 + ["b"] * 2 + ["c"] * 2 + ["d"])

    assert _counted(ids, min_count=2) == ["a", "b", "c"]
    assert _counted(ids, min_count=2, max_size=2) == ["a", "b"]
    assert _counted(ids, min_count=9) == []


def test_values_of_a_dictionary_that_do_not_occur_do_not_count() -> None:
    ids = pa.DictionaryArray.from_arrays(pa.array([1, 1, None]), pa.array(["a", "b", None]))

    assert _counted(ids) == ["b"]


def test_repeated_id_counts_as_often_as_it_is_said() -> None:
    counter = VocabularyCounter()
    counter.add(id_values(pa.array(["a", "b", "b"])))
    counter.add_repeated("a", 2)
    counter.add_repeated("z", 0)

    assert counter.finish(VocabularyConfig()).ids.to_pylist() == ["a", "b"]


def test_counts_merged_on_the_way_equal_counts_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    ids = np.random.default_rng(0).integers(0, 50, 400)
    at_once = _counted(pa.array(ids))

    monkeypatch.setattr("recmoe.features.vocabulary._MERGE_AT", 60)

    assert _counted(*(pa.array(part) for part in np.split(ids, 20))) == at_once


def test_vocabulary_of_nothing_knows_nothing() -> None:
    vocabulary = VocabularyCounter().finish(VocabularyConfig())

    assert vocabulary.num_rows == 1
    assert vocabulary.rows(pa.array(["a", None]), name="x").tolist() == [0, 0]


def test_unknown_and_null_are_row_zero() -> None:
    vocabulary = Vocabulary(pa.array(["b", "7"]))

    assert vocabulary.num_rows == 3
    assert vocabulary.rows(pa.array(["7", "a", None, "b"]), name="x").tolist() == [2, 0, 0, 1]
    assert vocabulary.rows(pa.array([7, 8, None]), name="x").tolist() == [2, 0, 0]


def test_digest_tells_order_and_borders_of_ids_but_not_how_they_are_stored() -> None:
    digest = Vocabulary(pa.array(["ab", "c"])).digest

    assert digest == Vocabulary(pa.array(["x", "ab", "c"], pa.large_string()).slice(1)).digest
    assert digest != Vocabulary(pa.array(["a", "bc"])).digest
    assert digest != Vocabulary(pa.array(["c", "ab"])).digest


def test_hashed_ids_fill_their_rows_evenly_and_never_row_zero() -> None:
    lookup = HashedIds(num_buckets=4, seed=0)

    rows = lookup.rows(pa.array(np.arange(4000)), name="x")

    counts = np.bincount(rows, minlength=5)
    assert lookup.num_rows == 5
    assert counts[0] == 0
    assert (abs(counts[1:] - 1000) < 120).all()


def test_hash_is_pinned() -> None:
    lookup = HashedIds(num_buckets=1_000_000, seed=1)

    from_text = lookup.rows(pa.array(["7", "user-1", None]), name="x")

    assert from_text.tolist() == [119563, 812662, 0]
    assert lookup.rows(pa.array([7]), name="x").tolist() == [119563]


def test_seed_changes_the_hash() -> None:
    ids = pa.array(np.arange(100))

    rows, others = (HashedIds(num_buckets=1000, seed=seed).rows(ids, name="x") for seed in (0, 1))

    assert (rows == others).sum() < 10


def test_indexed_id_has_the_row_after_its_number() -> None:
    lookup = IndexedIds(num_ids=3, out_of_range="error")

    assert lookup.num_rows == 4
    assert lookup.rows(pa.array([0, 2, None]), name="x").tolist() == [1, 3, 0]
    assert lookup.rows(pa.array(["0", "2", None]), name="x").tolist() == [1, 3, 0]


@pytest.mark.parametrize(("ids", "wrong"), [([0, 3], "3"), ([-1], "-1"), (["1", "x"], "'x'")])
def test_id_beyond_its_table_is_an_error_or_unknown(ids: list[int | str], wrong: str) -> None:
    lookup = IndexedIds(num_ids=3, out_of_range="error")

    with pytest.raises(DataError, match=rf"column 'shop': id {wrong} is not one of the 3 row numbers 0 … 2; raise "):
        lookup.rows(pa.array(ids), name="column 'shop'")

    assert IndexedIds(num_ids=3, out_of_range="unknown").rows(pa.array(ids), name="x")[-1] == 0


def test_lookup_follows_the_encoding() -> None:
    vocabulary = Vocabulary(pa.array(["a"]))

    assert build_lookup(VocabularyConfig(), learnt=vocabulary, seed=0) is vocabulary
    assert build_lookup(HashConfig(num_buckets=9), learnt=None, seed=0).num_rows == 10
    assert build_lookup(IndexConfig(num_ids=9), learnt=None, seed=0).num_rows == 10
