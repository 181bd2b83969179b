"""write_predictions(): a log through a model, one row of predictions per row of the log."""

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from recmoe.data.parquet import ParquetStream
from recmoe.errors import DataError
from recmoe.ranking.prediction_columns import kept_columns, score_column
from recmoe.ranking.ranker import Ranker

CHUNK_ROWS = 65_536


def write_predictions(
    ranker: Ranker, paths: Sequence[str], target: Path, *, keep: Sequence[str] = (), score: str | None = None
) -> int:
    """Write a Parquet file with the kept columns, a column per task, and ``score``; in the order of the log.

    Predictions keep the names of their tasks. A kept column of such a name is written with ``log_`` before it, and the
    score as ``ranking_score`` where a task is called ``score``.

    Args:
        ranker: has passed its replay.
        paths: files, folders or globs of Parquet and CSV.
        target: the file to write; an unfinished one never carries this name.
        keep: raw columns to copy; by default the model's item and group columns, where the log has them.
        score: name of a score formula; the model's default otherwise.

    Returns:
        num_rows: rows written.

    Raises:
        DataError: a file cannot be read, or the target is not a Parquet name.
        SchemaError: a column is missing or of another type.
        RequestError: there is no formula of that name.
    """
    if target.suffix != ".parquet":
        raise DataError(f"predictions are written as Parquet; name the file {target.with_suffix('.parquet')}")
    score_name = score_column(ranker.task_names)
    made = [*ranker.task_names, score_name]
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".predict-") as folder:
        stream = ParquetStream(paths, seed=0, shuffle_rows=None, cache_dir=Path(folder) / "csv")
        schema = ranker.bundle.encoder.schema
        usual = [name for name in (schema.group, schema.item) if name and name in stream.arrow_schema.names]
        needed = ranker.bundle.encoder.columns(with_labels=False)
        stream.require([*(column for column in needed if column in stream.problems), *keep])
        kept = kept_columns(keep or usual, made)
        unfinished = Path(folder) / target.name
        fields = [stream.arrow_schema.field(name).with_name(kept[name]) for name in kept]
        fields += [pa.field(name, pa.float32()) for name in ranker.task_names] + [pa.field(score_name, pa.float64())]
        with pq.ParquetWriter(unfinished, pa.schema(fields)) as writer:
            for rows in stream.chunks(batch_size=CHUNK_ROWS):
                writer.write_table(_predicted(ranker, rows, kept, score).cast(writer.schema))
        unfinished.replace(target)
    return stream.num_rows


def _predicted(ranker: Ranker, rows: pa.Table, kept: Mapping[str, str], score: str | None) -> pa.Table:
    predictions_NT = ranker.score(rows)
    columns = {kept[name]: rows[name] for name in kept}
    columns |= {
        name: pa.array(np.ascontiguousarray(column_N))
        for name, column_N in zip(ranker.task_names, predictions_NT.T, strict=True)
    }
    return pa.table(columns | {score_column(ranker.task_names): pa.array(ranker.combine(predictions_NT, score=score))})
