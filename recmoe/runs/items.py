"""build_items(): files with a row per item, as a store for a model."""

import tempfile
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa

from recmoe.data.parquet import ParquetStream
from recmoe.export.bundle import ModelBundle
from recmoe.ranking.columns import item_columns
from recmoe.ranking.items.store import ItemStore
from recmoe.ranking.items.table import lacking
from recmoe.runs.source import bundle_path

_CHUNK_ROWS = 65_536


def build_items(
    paths: Sequence[str], model: str, folder: Path, *, registry_uri: str | None = None
) -> tuple[ItemStore, list[str]]:
    """Write the store.

    Args:
        paths: files, folders or globs of Parquet, CSV and JSON lines.
        model: see ``load_ranker``.
        folder: to write, or to replace.

    Returns:
        The store, and the columns that the model reads of items and that it lacks.

    Raises:
        BundleError, RegistryError, TrainingError: there is no such model.
        SchemaError, DataError: the files cannot be read, or are no items; see ``ItemStore.build``.
    """
    encoder = ModelBundle.load(bundle_path(model, registry_uri=registry_uri)).encoder
    with tempfile.TemporaryDirectory(prefix="recmoe-items-") as cache:
        stream = ParquetStream(paths, seed=0, shuffle_rows=None, cache_dir=Path(cache))
        columns = item_columns(encoder)
        stream.require([name for name in columns if name in stream.problems])
        rows = pa.concat_tables(stream.chunks(batch_size=_CHUNK_ROWS))
    store = ItemStore.build(folder, rows, encoder)
    return store, lacking(store.rows.column_names, columns)
