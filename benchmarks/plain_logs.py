"""Public data sets as somebody would have them: one plain Parquet table each, without splits and without a config."""

import tempfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from recmoe.data.datasets import import_dataset
from recmoe.data.splits import SPLITS

FOLDERS = {"census": "census_income_kdd", "hillstrom": "hillstrom", "trivago": "trivago_recsys19"}
"""Where the published files lie in the folder that RECMOE_DATA names."""
OUTCOMES = {
    "census": ("income", "never_married"),
    "hillstrom": ("visit", "conversion", "spend"),
    "trivago": ("click", "interaction"),
}
NOT_READ = {"census": ("person_id",), "hillstrom": ("customer_id",), "trivago": ("timestamp", "list_id")}
"""Numbers of the rows, of lists, and times: what a model reads nothing from."""
HISTORIES = "history_"
"""How the columns of a session's events begin: no baseline reads lists in order, so the plain log has none."""


def plain_log(name: str, data: Path) -> pa.Table:
    """The rows of a public data set: people, customers, or impressions in the order of time.

    Args:
        name: census, hillstrom or trivago.
        data: the folder with the folders of the data sets.

    Raises:
        DataError: the published files are missing or are other ones.
    """
    with tempfile.TemporaryDirectory(prefix="recmoe-") as folder:
        import_dataset(name, data / FOLDERS[name], Path(folder))
        rows = pa.concat_tables([pq.read_table(Path(folder) / f"{split}.parquet") for split in SPLITS])
    rows = rows.drop_columns([column for column in rows.column_names if column.startswith(HISTORIES)])
    key = NOT_READ[name][0]
    rows = rows.sort_by([(column, "ascending") for column in NOT_READ[name]])
    return rows if key == "timestamp" else rows.drop_columns(key)
