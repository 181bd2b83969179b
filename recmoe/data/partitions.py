"""partition_values: the columns that folders like ``country=CH`` give to the files below them."""

from pathlib import Path
from urllib.parse import unquote

NULL = "__HIVE_DEFAULT_PARTITION__"
"""What Hive and Spark write for null."""


def partition_values(path: Path) -> dict[str, str | None]:
    """Names and values of the folders ``name=value`` in a path, from the outermost inwards; percent-decoded."""
    values: dict[str, str | None] = {}
    for folder in path.parent.parts:
        name, is_partition, value = folder.partition("=")
        if is_partition and name:
            values[unquote(name)] = None if value == NULL else unquote(value)
    return values
