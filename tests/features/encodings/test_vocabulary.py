"""Tests of Vocabulary, hashed and indexed ids."""

import numpy as np
import pyarrow as pa
import pytest

from recmoe.errors import DataError
from recmoe.features.encodings import HashConfig, IndexConfig, VocabularyConfig
from recmoe.features.encodings.hashed import HashedIds
from recmoe.features.encodings.index import IndexedIds
from recmoe.features.encodings.vocabulary import Vocabulary, most_frequent, vocabulary_of


def _counts(**counts: int) -> pa.Table:
    return pa.table({"id": pa.array(list(counts), pa.large_string()), "count": list(counts.values())})


def _most_frequent(*tables: pa.Table, **config: int) -> list[str]:
    ids: list[str] = vocabulary_of(most_frequent(tables, VocabularyConfig(**config))).ids.to_pylist()
    return ids


def test_frequent_ids_come_first_and_equal_counts_in_order_of_text() -> None:
    assert _most_frequent(_counts(b=1, d=1, c=2), _counts(a=1)) == ["c", "a", "b", "d"]


def test_rare_ids_and_those_beyond_the_size_are_cut() -> None:
    counts = _counts(a=3, b=2, c=2, d=1)

    assert _most_frequent(counts, min_count=2) == ["a", "b", "c"]
    assert _most_frequent(counts, min_count=2, max_size=2) == ["a", "b"]
    assert _most_frequent(counts, min_count=9) == []


def test_ids_cut_part_by_part_are_those_cut_at_once() -> None:
    parts = [_counts(**{f"{part}{i}": i for i in range(9)}) for part in "abcdefg"]
    config = VocabularyConfig(max_size=3)

    cut = [most_frequent(parts[:4], config), most_frequent(parts[4:], config)]

    assert _most_frequent(*cut, max_size=3) == _most_frequent(*parts, max_size=3) == ["a8", "b8", "c8"]


def test_known_ids_keep_their_places_and_leave_less_room_however_the_counts_come() -> None:
    known = Vocabulary(pa.array(["x", "a4"]))
    parts = [_counts(**{f"{part}{i}": i for i in range(9)}) for part in "abc"]
    config = VocabularyConfig(max_size=5)

    cut = [most_frequent(part, config, known=known) for part in (parts[:2], parts[2:])]
    grown, at_once = (
        vocabulary_of(most_frequent(counts, config, known=known), known=known).ids.to_pylist()
        for counts in (cut, parts)
    )

    assert grown == at_once == ["x", "a4", "a8", "b8", "c8"]
    assert not most_frequent(parts, VocabularyConfig(max_size=2), known=known).num_rows


def test_vocabulary_of_nothing_knows_nothing() -> None:
    vocabulary = vocabulary_of(most_frequent([], VocabularyConfig()))

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

    assert VocabularyConfig().build(learned=vocabulary, seed=0) is vocabulary
    assert HashConfig(num_buckets=9).build(learned=None, seed=0).num_rows == 10
    assert IndexConfig(num_ids=9).build(learned=None, seed=0).num_rows == 10
