"""ArrowStore: columns of items or users by id, in files that all processes of a machine map."""

# N rows, C ids of a request

import json
import os
import shutil
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from recmoe.errors import DataError, StoreError
from recmoe.features.arrow_ids import IdBlock
from recmoe.features.encoder import FeatureEncoder
from recmoe.features.id_keys import UInt64s
from recmoe.ranking.items.encoded import EncodedItems, mapped
from recmoe.ranking.items.store import FoundRows, Places, StoredSide
from recmoe.ranking.items.table import check_encoding, checked_rows, id_column
from recmoe.ranking.look_ups import LookUps

ABOUT = "store.json"
ROWS = "rows.arrow"
KEYS = "keys.bin"
PLACES = "places.bin"
ENCODED = "encoded"
FILES = frozenset({ABOUT, ROWS, KEYS, PLACES, ENCODED})
VERSION = 2


@dataclass(frozen=True)
class ArrowStore:
    """A row of columns per item or user; see ``RowStore``.

    ::

        items/store.json     what it is, and when it was written
              rows.arrow     the columns, rows in the order of the table that they came in
              keys.bin       64-bit keys of the ids, in ascending order
              places.bin     of each key, its row
              encoded/       of items: the rows as the model reads them that the store was built for

    Example: of keys [3, 8, 9] and places [2, 0, 1], the item with key 8 is row 0.
    """

    folder: Path
    identity: bytes
    """What its file ``store.json`` holds."""
    side: StoredSide
    column: str
    written_at: datetime
    fingerprint: str
    """Of the encoder whose rows are in ``encoded``."""
    rows: pa.Table
    """N rows."""
    keys_N: UInt64s
    places_N: Places

    @classmethod
    def build(
        cls, folder: Path, rows: pa.Table, encoder: FeatureEncoder, side: StoredSide = "item", column: str | None = None
    ) -> "ArrowStore":
        """Write a store; it appears whole or not at all, and takes the place of an older one.

        Args:
            rows: a row per item or user; those that are asked for most should come first.
            encoder: of the model that will read it; others may too, and encode the rows when they are loaded.
            column: of the ids; see ``id_column``.

        Raises:
            SchemaError, DataError: see ``checked_rows``; or the folder holds something else.
        """
        if folder.exists() and not (folder.is_dir() and {path.name for path in folder.iterdir()} <= FILES):
            raise DataError(f"{folder}: holds something else than a store of {side}s; give a new folder, or empty it")
        column = id_column(encoder, side, column)
        rows, keys_N = checked_rows(rows, encoder, side, column=column)
        encoded = EncodedItems.of_rows(rows, encoder) if side == "item" else None
        if encoded is None:
            check_encoding(rows, encoder, side)
        order_N = np.argsort(keys_N)
        unfinished, replaced = (folder.with_name(f".{folder.name}.{os.getpid()}.{what}") for what in ("new", "old"))
        try:
            unfinished.mkdir(parents=True)
            with pa.OSFile(str(unfinished / ROWS), "wb") as file, pa.ipc.new_file(file, rows.schema) as writer:
                writer.write_table(rows, max_chunksize=rows.num_rows)
            keys_N[order_N].astype("<u8").tofile(unfinished / KEYS)
            order_N.astype("<i8").tofile(unfinished / PLACES)
            if encoded is not None:
                encoded.write(unfinished / ENCODED)
            about = {
                "version": VERSION,
                "id": uuid.uuid4().hex,
                "side": side,
                "column": column,
                "num_rows": rows.num_rows,
                "written_at": datetime.now(UTC).isoformat(),
                "encoder": encoder.fingerprint,
            }
            (unfinished / ABOUT).write_text(json.dumps(about, indent=2), encoding="utf-8")
            # Between the two there is no store, which who looks for a new one takes for a reason to look again.
            if folder.exists():
                os.replace(folder, replaced)
            os.replace(unfinished, folder)
            shutil.rmtree(replaced, ignore_errors=True)
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)
        return cls.open(folder, side)

    @classmethod
    def open(cls, folder: Path, side: StoredSide = "item") -> "ArrowStore":
        """Map a store.

        Raises:
            DataError: it is none, or one of another side, or damaged.
            StoreError: it was replaced meanwhile.
        """
        identity = _identity(folder, side)
        try:
            about: dict[str, Any] = json.loads(identity)
            if about["version"] != VERSION:
                raise ValueError(f"it has version {about['version']}, this recmoe reads {VERSION}")
            if about["side"] != side:
                raise ValueError(f"it is a store of {about['side']}s")
            rows = pa.ipc.open_file(pa.memory_map(str(folder / ROWS))).read_all()
            num_rows = about["num_rows"]
            keys_N, places_N = mapped(folder / KEYS, "<u8", num_rows), mapped(folder / PLACES, "<i8", num_rows)
            if rows.num_rows != num_rows or about["column"] not in rows.column_names:
                raise ValueError(f"its rows are not those of {ABOUT}")
            written_at = datetime.fromisoformat(about["written_at"])
            store = cls(folder, identity, side, about["column"], written_at, about["encoder"], rows, keys_N, places_N)
        except (OSError, ValueError, KeyError, TypeError, pa.ArrowException) as error:
            raise DataError(f"{folder}: cannot be read: {error}; build it again with recmoe {side}s build") from error
        if not store._is_in_place():
            raise StoreError(f"{folder}: was replaced while it was opened; try again")
        return store

    @property
    def where(self) -> str:
        return str(self.folder)

    @property
    def columns(self) -> pa.Schema:
        return self.rows.schema

    @property
    def num_rows(self) -> int:
        return len(self.keys_N)

    def encoded(self, encoder: FeatureEncoder) -> EncodedItems | None:
        """The rows as a model reads them: mapped, where the store was built for its encoder, else encoded now.

        Raises:
            SchemaError, DataError: the model reads columns of other types, or the files are damaged.
        """
        if self.side != "item":
            return None
        # What is mapped stays when another store takes its place; files that are not mapped yet are the other's then.
        if encoder.fingerprint == self.fingerprint and self._is_in_place():
            found = EncodedItems.mapped(self.folder / ENCODED, self.rows, encoder)
            if self._is_in_place():
                return found
        rows, _ = checked_rows(self.rows, encoder, self.side, column=self.column)
        return EncodedItems.of_rows(rows, encoder)

    def look_up(self, ids: pa.Array) -> FoundRows:
        """The rows of some ids."""
        keys_C = IdBlock(ids, 1).keys_KB[0]
        found_C = np.minimum(np.searchsorted(self.keys_N, keys_C), self.num_rows - 1)
        places_C: Places = np.where(self.keys_N[found_C] == keys_C, self.places_N[found_C], -1)
        num_hits = int(np.count_nonzero(places_C >= 0))
        return FoundRows(places_C, self.rows, LookUps(num_hits, len(places_C) - num_hits))

    def sample(self, num_rows: int) -> FoundRows:
        """Rows from all over the store."""
        places = np.unique(np.linspace(0, self.num_rows - 1, min(self.num_rows, num_rows)).astype(np.int64))
        return FoundRows(places, self.rows)

    def first_rows(self, num_rows: int) -> Iterator[pa.Table]:
        """The first rows, mapped."""
        yield self.rows.slice(0, num_rows)

    def latest(self) -> bytes:
        """What the file ``store.json`` in the folder holds now; DataError where there is none."""
        return _identity(self.folder, self.side)

    def reopened(self) -> "ArrowStore":
        """The store that lies in the folder now; see ``open``."""
        return ArrowStore.open(self.folder, self.side)

    def _is_in_place(self) -> bool:
        """Whether this store lies in the folder still: otherwise files of two may have been read."""
        about = self.folder / ABOUT
        return about.is_file() and about.read_bytes() == self.identity


def _identity(folder: Path, side: StoredSide) -> bytes:
    try:
        return (folder / ABOUT).read_bytes()
    except OSError as error:
        raise DataError(
            f"{folder}: is no store of {side}s; make one of a table by "
            f"recmoe {side}s build TABLE --model MODEL --to STORE"
        ) from error
