"""PredictedRows: rows of a log with what a model predicts of them, as files hold them."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from recmoe.data.order import Interval
from recmoe.data.parquet import ParquetStream
from recmoe.ranking.prediction_columns import kept_columns, score_column
from recmoe.ranking.ranker import Ranker

CHUNK_ROWS = 65_536
"""Rows in memory at a time."""


class PredictedRows:
    """Kept columns of a log, then a column per task, then the score.

    Predictions keep the names of their tasks. A kept column of such a name is written with ``log_`` before it, and the
    score as ``ranking_score`` where a task is called ``score``.

    Args:
        ranker: has passed its replay.
        stream: the log.
        keep: raw columns to copy; by default the model's item and group columns, where the log has them.
        score: name of a score formula; the model's default otherwise.

    Raises:
        SchemaError: a column is missing or of another type.
        RequestError: there is no formula of that name.
    """

    def __init__(self, ranker: Ranker, stream: ParquetStream, *, keep: Sequence[str], score: str | None) -> None:
        self._ranker, self._stream = ranker, stream
        self.score, _ = ranker.scores.choose(score)
        """Name of the formula."""
        self._score_column = score_column(ranker.task_names)
        schema = ranker.bundle.encoder.schema
        usual = [name for name in (schema.group, schema.item) if name and name in stream.arrow_schema.names]
        needed = ranker.bundle.encoder.columns(with_labels=False)
        stream.require([*(column for column in needed if column in stream.problems), *keep])
        self._kept = kept_columns(keep or usual, [*ranker.task_names, self._score_column])
        fields = [stream.arrow_schema.field(name).with_name(self._kept[name]) for name in self._kept]
        fields += [pa.field(name, pa.float32()) for name in ranker.task_names]
        self.schema = pa.schema([*fields, pa.field(self._score_column, pa.float64())])
        """Columns of a file."""

    def write(self, path: Path, rows: Interval) -> None:
        """Some rows, counted in the order of the log, as one Parquet file.

        Raises:
            DataError: a file of the log cannot be read.
        """
        with pq.ParquetWriter(path, self.schema) as writer:
            for block in self._stream.blocks_in_file_order([rows], batch_size=CHUNK_ROWS):
                writer.write_table(self._predicted(block.table).cast(self.schema))

    def _predicted(self, rows: pa.Table) -> pa.Table:
        predictions_NT = self._ranker.score(rows)
        columns = {self._kept[name]: rows[name] for name in self._kept}
        columns |= {
            name: pa.array(np.ascontiguousarray(column_N))
            for name, column_N in zip(self._ranker.task_names, predictions_NT.T, strict=True)
        }
        score_N = self._ranker.combine(predictions_NT, score=self.score)
        return pa.table(columns | {self._score_column: pa.array(score_N)})
