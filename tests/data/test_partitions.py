"""Tests of the columns that folders give."""

from pathlib import Path

from recmoe.data.partitions import partition_values


def test_folders_with_a_value_are_columns_from_the_outermost_inwards() -> None:
    path = Path("log/day=2026-01-31/country=a%2Fb=c/x=__HIVE_DEFAULT_PARTITION__/=y/plain/z=1.parquet")

    assert list(partition_values(path).items()) == [("day", "2026-01-31"), ("country", "a/b=c"), ("x", None)]
    assert partition_values(Path("%E7%82%B9=%F0%9F%99%82/a.csv")) == {"点": "🙂"}
