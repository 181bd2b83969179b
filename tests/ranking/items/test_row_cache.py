"""A cache keeps what was asked for last, within its bytes and its time."""

import time

from recmoe.ranking.items.row_cache import RowCache


def test_what_was_not_asked_for_longest_goes_first() -> None:
    cache = RowCache(max_bytes=3 * 300, keep_s=60)
    cache.put(dict.fromkeys("abc", b"." * 100))

    cache.get(["a"])
    cache.put({"d": b"." * 100})

    assert cache.get(["a", "b", "c", "d"]).keys() == {"a", "c", "d"}
    assert cache.num_bytes == 900


def test_id_without_a_row_is_kept_too() -> None:
    cache = RowCache(max_bytes=1000, keep_s=60)

    cache.put({"a": None})

    assert cache.get(["a", "b"]) == {"a": None}


def test_entry_is_replaced_and_its_bytes_are_counted_once() -> None:
    cache = RowCache(max_bytes=1000, keep_s=60)

    cache.put({"a": b"12345"})
    cache.put({"a": b"12"})

    assert (cache.get(["a"]), cache.num_bytes) == ({"a": b"12"}, 202)


def test_entry_goes_after_its_time() -> None:
    cache = RowCache(max_bytes=1000, keep_s=0.02)
    cache.put({"a": b"1"})

    time.sleep(0.03)

    assert cache.get(["a"]) == {}
    assert cache.num_bytes == 0


def test_no_bytes_are_no_cache() -> None:
    cache = RowCache(max_bytes=0, keep_s=60)

    cache.put({"a": b"1"})

    assert cache.get(["a"]) == {}
