"""ItemStore: columns of items by id, in files that all processes of a machine map."""

# N items, C candidates

import json
import os
import shutil
import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from recmoe.errors import DataError
from recmoe.features.arrow_ids import IdBlock
from recmoe.features.encoder import FeatureEncoder
from recmoe.features.id_keys import UInt64s
from recmoe.ranking.columns import item_columns
from recmoe.ranking.items.encoded import EncodedItems, mapped
from recmoe.ranking.items.table import checked_items, item_column

ABOUT = "items.json"
ROWS = "rows.arrow"
KEYS = "keys.bin"
PLACES = "places.bin"
ENCODED = "encoded"
FILES = frozenset({ABOUT, ROWS, KEYS, PLACES, ENCODED})
VERSION = 1


@dataclass(frozen=True)
class ItemStore:
    """A row of columns per item.

    ::

        items/items.json     what it is, and when it was written
              rows.arrow     the columns, items in the order of the table that they came in
              keys.bin       64-bit keys of the ids, in ascending order
              places.bin     of each key, its row
              encoded/       the rows as the model reads them that the store was built for

    Example: of keys [3, 8, 9] and places [2, 0, 1], the item with key 8 is row 0.
    """

    folder: Path
    item: str
    """The column of ids."""
    written_at: datetime
    fingerprint: str
    """Of the encoder whose rows are in ``encoded``."""
    rows: pa.Table
    """N rows."""
    keys_N: UInt64s
    places_N: NDArray[np.int64]

    @classmethod
    def build(cls, folder: Path, items: pa.Table, encoder: FeatureEncoder) -> "ItemStore":
        """Write a store; it appears whole or not at all, and takes the place of an older one.

        Args:
            items: a row per item; those that are asked for most should come first.
            encoder: of the model that will read it; others may too, and encode the rows when they are loaded.

        Raises:
            SchemaError, DataError: see ``checked_items``; or the folder holds something else.
        """
        if folder.exists() and not (folder.is_dir() and {path.name for path in folder.iterdir()} <= FILES):
            raise DataError(f"{folder}: holds something else than a store of items; give a new folder, or empty it")
        items, keys_N = checked_items(items, encoder, item_columns(encoder))
        items = items.combine_chunks()
        order_N = np.argsort(keys_N)
        unfinished = folder.with_name(f".{folder.name}.{os.getpid()}")
        try:
            unfinished.mkdir(parents=True)
            with pa.OSFile(str(unfinished / ROWS), "wb") as file, pa.ipc.new_file(file, items.schema) as writer:
                writer.write_table(items, max_chunksize=items.num_rows)
            keys_N[order_N].astype("<u8").tofile(unfinished / KEYS)
            order_N.astype("<i8").tofile(unfinished / PLACES)
            EncodedItems.of_rows(items, encoder).write(unfinished / ENCODED)
            about = {
                "version": VERSION,
                "item": item_column(encoder),
                "num_rows": items.num_rows,
                "written_at": datetime.now(UTC).isoformat(),
                "encoder": encoder.fingerprint,
                "byteorder": sys.byteorder,
            }
            (unfinished / ABOUT).write_text(json.dumps(about, indent=2), encoding="utf-8")
            shutil.rmtree(folder, ignore_errors=True)
            os.replace(unfinished, folder)
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)
        return cls.open(folder)

    @classmethod
    def open(cls, folder: Path) -> "ItemStore":
        """Map a store; DataError if it is none, or damaged."""
        if not (folder / ABOUT).is_file():
            raise DataError(
                f"{folder}: is no store of items; make one of a table by "
                "recmoe items build TABLE --model MODEL --to STORE"
            )
        try:
            about: dict[str, Any] = json.loads((folder / ABOUT).read_text(encoding="utf-8"))
            if about["version"] != VERSION:
                raise ValueError(f"it has version {about['version']}, this recmoe reads {VERSION}")
            rows = pa.ipc.open_file(pa.memory_map(str(folder / ROWS))).read_all()
            num_rows = about["num_rows"]
            keys_N, places_N = mapped(folder / KEYS, "<u8", num_rows), mapped(folder / PLACES, "<i8", num_rows)
            if rows.num_rows != num_rows or about["item"] not in rows.column_names:
                raise ValueError(f"its rows are not those of {ABOUT}")
            written_at = datetime.fromisoformat(about["written_at"])
            return cls(folder, about["item"], written_at, about["encoder"], rows, keys_N, places_N)
        except (OSError, ValueError, KeyError, TypeError, pa.ArrowException) as error:
            raise DataError(f"{folder}: cannot be read: {error}; build it again with recmoe items build") from error

    @property
    def num_rows(self) -> int:
        return len(self.keys_N)

    def encoded(self, encoder: FeatureEncoder) -> EncodedItems:
        """The rows as a model reads them: mapped, where the store was built for its encoder, else encoded now.

        Raises:
            SchemaError, DataError: the model reads columns of other types, or the files are damaged.
        """
        if encoder.fingerprint == self.fingerprint:
            return EncodedItems.mapped(self.folder / ENCODED, self.rows, encoder)
        items, _ = checked_items(self.rows, encoder, item_columns(encoder))
        return EncodedItems.of_rows(items, encoder)

    def find(self, ids: pa.Array) -> NDArray[np.int64]:
        """places_C: the row of each id, -1 where there is none."""
        keys_C = IdBlock(ids, 1).keys_KB[0]
        found_C = np.minimum(np.searchsorted(self.keys_N, keys_C), self.num_rows - 1)
        places_C: NDArray[np.int64] = np.where(self.keys_N[found_C] == keys_C, self.places_N[found_C], -1)
        return places_C
