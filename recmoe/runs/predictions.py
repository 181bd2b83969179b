"""write_predictions(): a log through a model, one row of predictions per row of the log, in one file."""

import tempfile
from collections.abc import Sequence
from pathlib import Path

from recmoe.data.parquet import ParquetStream
from recmoe.errors import DataError
from recmoe.ranking.ranker import Ranker
from recmoe.runs.predicted_rows import PredictedRows


def write_predictions(
    ranker: Ranker, paths: Sequence[str], target: Path, *, keep: Sequence[str] = (), score: str | None = None
) -> int:
    """Write a Parquet file of ``PredictedRows``, in the order of the log.

    Args:
        ranker: has passed its replay.
        paths: files, folders or globs of Parquet and CSV.
        target: the file to write; an unfinished one never carries this name.
        keep, score: see ``PredictedRows``.

    Returns:
        num_rows: rows written.

    Raises:
        DataError: a file cannot be read, or the target is not a Parquet name.
        SchemaError: a column is missing or of another type.
        RequestError: there is no formula of that name.
    """
    if target.suffix != ".parquet":
        raise DataError(f"predictions are written as Parquet; name the file {target.with_suffix('.parquet')}")
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".predict-") as folder:
        stream = ParquetStream(paths, seed=0, shuffle_rows=None, cache_dir=Path(folder) / "csv")
        unfinished = Path(folder) / target.name
        PredictedRows(ranker, stream, keep=keep, score=score).write(unfinished, (0, stream.num_rows))
        unfinished.replace(target)
    return stream.num_rows
