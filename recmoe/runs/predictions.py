"""write_predictions(): a log through a model, one row of predictions per row of the log."""

import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from recmoe.data.parquet import ParquetStream
from recmoe.errors import DataError
from recmoe.ranking.ranker import Ranker

CHUNK_ROWS = 65_536


def write_predictions(
    ranker: Ranker, paths: Sequence[str], target: Path, *, keep: Sequence[str] = (), score: str | None = None
) -> int:
    """Write a Parquet file with the kept columns, a column per task, and ``score``; in the order of the log.

    Args:
        ranker: has passed its replay.
        paths: files, folders or globs of Parquet and CSV.
        target: the file to write; an unfinished one never carries this name.
        keep: raw columns to copy; by default the model's item and group columns, where the log has them.
        score: name of a score formula; the model's default otherwise.

    Returns:
        num_rows: rows written.

    Raises:
        DataError: a file cannot be read, a kept column is named like a task, or the target is not a Parquet name.
        SchemaError: a column is missing or of another type.
        RequestError: there is no formula of that name.
    """
    if target.suffix != ".parquet":
        raise DataError(f"predictions are written as Parquet; name the file {target.with_suffix('.parquet')}")
    made = [*ranker.task_names, "score"]
    clash = [name for name in keep if name in made]
    if clash:
        raise DataError(f"column {clash[0]} cannot be kept: the predictions have a column of that name")
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".predict-") as folder:
        stream = ParquetStream(paths, seed=0, shuffle_rows=None, cache_dir=Path(folder) / "csv")
        schema = ranker.bundle.encoder.schema
        usual = [name for name in (schema.group, schema.item) if name in stream.arrow_schema.names and name not in made]
        needed = ranker.bundle.encoder.columns(with_labels=False)
        stream.require([*(column for column in needed if column in stream.problems), *keep])
        kept = list(dict.fromkeys(keep or [str(name) for name in usual]))
        unfinished = Path(folder) / target.name
        fields = [stream.arrow_schema.field(name) for name in kept]
        fields += [pa.field(name, pa.float32()) for name in ranker.task_names] + [pa.field("score", pa.float64())]
        with pq.ParquetWriter(unfinished, pa.schema(fields)) as writer:
            for rows in stream.chunks(batch_size=CHUNK_ROWS):
                writer.write_table(_predicted(ranker, rows, kept, score).cast(writer.schema))
        unfinished.replace(target)
    return stream.num_rows


def _predicted(ranker: Ranker, rows: pa.Table, kept: Sequence[str], score: str | None) -> pa.Table:
    predictions_NT = ranker.score(rows)
    columns = {name: rows[name] for name in kept}
    columns |= {
        name: pa.array(np.ascontiguousarray(column_N))
        for name, column_N in zip(ranker.task_names, predictions_NT.T, strict=True)
    }
    return pa.table(columns | {"score": pa.array(ranker.combine(predictions_NT, score=score))})
