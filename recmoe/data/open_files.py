"""open_files: the files of a stream, all read alike."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from recmoe.data.common_columns import text_elsewhere
from recmoe.data.csv_config import CsvConfig
from recmoe.data.csv_dialect import settle
from recmoe.data.data_file import DataFile, open_data_file, with_partitions
from recmoe.data.files import is_csv
from recmoe.errors import DataError


def open_files(
    paths: Sequence[Path], *, cache_dir: Path, on_error: Literal["fail", "skip"], csv: CsvConfig
) -> tuple[list[DataFile], list[str]]:
    """Footers of Parquet files and of what CSV files are converted to, and why each other file is left out.

    What ``csv`` leaves open is settled by the first CSV file. A column of CSV that is text in another file is read
    again as text, for a CSV file does not say that its ids are numbers.

    Raises:
        DataError: a file cannot be read, unless such files are to be skipped.
    """
    files: list[DataFile] = []
    skipped: list[str] = []
    for path in paths:
        try:
            csv = settled([path], csv)
            files.append(open_data_file(path, cache_dir=cache_dir, on_error=on_error, csv=csv))
        except DataError as error:
            if on_error == "fail":
                raise
            skipped.append(f"left out: {error}")
    for place, columns in enumerate(text_elsewhere(files)):
        if columns:
            files[place] = open_data_file(
                files[place].path, cache_dir=cache_dir, on_error=on_error, csv=csv, text_columns=columns
            )
    return with_partitions(files), skipped


def settled(paths: Sequence[Path], csv: CsvConfig) -> CsvConfig:
    """The config with what the first CSV file among some shows; as it is, where there is none or it is settled.

    Raises:
        DataError: the file cannot be read, or leaves open what it means.
    """
    first = next(filter(is_csv, paths), None)
    return csv if first is None or csv.is_settled else settle(first, csv)
