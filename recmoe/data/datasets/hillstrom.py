"""Hillstrom's e-mail campaign: visit, conversion after a visit, and spend; 64,000 customers, three random treatments.

MineThatData E-Mail Analytics Challenge, 2008, https://blog.minethatdata.com/2008/03.
"""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pc_csv
import pyarrow.parquet as pq

from recmoe.data.datasets.source import check_columns, find_source, place_config, random_split
from recmoe.data.splits import SPLITS, write_splits
from recmoe.errors import DataError

ABOUT = "the MineThatData E-Mail Analytics Challenge"
NAMES = (
    "hillstrom.parquet",
    "hillstrom.csv",
    "Kevin_Hillstrom_MineThatData_E-MailAnalytics_DataMiningChallenge_2008.03.20.csv",
)
FEATURES = ("recency", "history_segment", "history", "mens", "womens", "zip_code", "newbie", "channel", "segment")
LABELS = ("visit", "conversion", "spend")


def import_hillstrom(source: Path, target: Path, seed: int) -> Path:
    """Write the splits, 80/10/10 by seed, and the config; returns the config's path.

    Raises:
        DataError: the file is missing or is another file.
    """
    path = find_source(source, NAMES, about=ABOUT)
    table = _read(path)
    check_columns(path, table.schema, [*FEATURES, *LABELS])
    customers = {"customer_id": pa.array(np.arange(table.num_rows))}
    for name in (*FEATURES, *LABELS):
        customers[name] = table[name].cast(pa.string()) if pa.types.is_large_string(table[name].type) else table[name]
    if pc.any(pc.greater(table["conversion"], table["visit"])).as_py():
        raise DataError(f"{path} is not the expected file: it has a conversion without a visit")
    rows = random_split(table.num_rows, {"train": 0.8, "validation": 0.1, "test": 0.1}, seed=seed)
    everybody = pa.table(customers)
    write_splits(target, {split: everybody.take(rows[split]) for split in SPLITS})
    return place_config("hillstrom", target)


def _read(path: Path) -> pa.Table:
    try:
        return pc_csv.read_csv(path) if path.suffix == ".csv" else pq.read_table(path)
    except pa.ArrowInvalid as error:
        raise DataError(f"{path} cannot be read: {error}") from error
