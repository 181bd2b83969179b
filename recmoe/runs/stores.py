"""build_store(): files with a row per item or user, as a store for a model."""

import tempfile
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa

from recmoe.data.parquet import ParquetStream
from recmoe.export.bundle import ModelBundle
from recmoe.features.encoder import FeatureEncoder
from recmoe.ranking.columns import columns_of_side
from recmoe.ranking.items import ArrowStore, RowStore
from recmoe.ranking.items.redis_client import is_redis
from recmoe.ranking.items.redis_writer import KEEP_OLD_S, write_rows
from recmoe.ranking.items.store import StoredSide
from recmoe.ranking.items.table import check_encoding, checked_rows, id_column, lacking
from recmoe.runs.source import bundle_path

_CHUNK_ROWS = 65_536


def build_store(
    paths: Sequence[str],
    model: str,
    to: str,
    side: StoredSide,
    *,
    column: str | None = None,
    keep_old_s: int = KEEP_OLD_S,
    registry_uri: str | None = None,
) -> tuple[RowStore, list[str]]:
    """Write the store.

    Args:
        paths: files, folders or globs of Parquet, CSV and JSON lines.
        model: see ``load_ranker``.
        to: folder to write, or to replace; or the address of a Redis server, see ``RedisAddress``.
        column: of the ids; see ``id_column``.
        keep_old_s: seconds that the rows before stay in Redis, for servers that have not seen the new ones yet.

    Returns:
        The store, and the columns that the model reads of the side and that it lacks.

    Raises:
        BundleError, RegistryError, TrainingError: there is no such model.
        SchemaError, DataError: the files cannot be read, or are no rows of the side; see ``checked_rows``.
        StackError, StoreError: Redis cannot be written to.
    """
    encoder = ModelBundle.load(bundle_path(model, registry_uri=registry_uri)).encoder
    columns = columns_of_side(encoder, side)
    with tempfile.TemporaryDirectory(prefix=f"recmoe-{side}s-") as cache:
        stream = ParquetStream(paths, seed=0, shuffle_rows=None, cache_dir=Path(cache))
        stream.require([name for name in columns if name in stream.problems])
        rows = pa.concat_tables(stream.chunks(batch_size=_CHUNK_ROWS))
    store = write_store(to, rows, encoder, side, column=column, keep_old_s=keep_old_s)
    return store, lacking(store.columns.names, columns)


def write_store(
    to: str,
    rows: pa.Table,
    encoder: FeatureEncoder,
    side: StoredSide,
    *,
    column: str | None = None,
    keep_old_s: int = KEEP_OLD_S,
) -> RowStore:
    """The same of a table; a Redis server gets the columns that the model reads, a folder all of them."""
    if not is_redis(to):
        return ArrowStore.build(Path(to), rows, encoder, side, column)
    column = id_column(encoder, side, column)
    wanted = {column, *columns_of_side(encoder, side)}
    rows, keys_N = checked_rows(rows, encoder, side, column=column)
    check_encoding(rows, encoder, side)
    rows = rows.select([name for name in rows.column_names if name in wanted])
    return write_rows(to, side, rows, keys_N, column, keep_old_s=keep_old_s)
