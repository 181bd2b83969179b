"""RowFormat: an encoded row as a record of fixed size, so that gathering permuted rows is one copy per row."""

# B rows, K sparse keys, F dense columns, L label columns

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from recmoe.features.batch import Batch
from recmoe.features.encoder import FeatureEncoder
from recmoe.features.layout import InputLayout

Ints = NDArray[np.int64]
Records = NDArray[Any]
Part = Literal["id", "wide_id", "list"]

MAX_INT32 = np.iinfo(np.int32).max


@dataclass(frozen=True)
class KeyRun:
    """Neighbouring sparse keys that lie side by side in one part of the record."""

    part: Part
    first_key: int
    """Place of the first one in the batch."""
    first: int
    """Place of the first one in its part."""
    num_keys: int


class RowFormat:
    """Where the parts of an encoded row lie.

    Example: keys ``user`` and ``item`` with one id a row and the list ``tags``, one float, one label.
    A record holds the ids and numbers themselves, and of a list where its ids stand in a file of their own::

        group  list_start  id           list_length  dense  label         tags
        [88]   [0]         [7, 4]       [2]          [0.5]  [1.0]         5 9 | 3
        [88]   [2]         [3, 4]       [1]          [0.1]  [0.0]

    The ages of a sequence's entries are a list too, behind those of ids and with a file of their own.

    Ids are int32 where their table has no more rows than that holds, as nearly all have.

    Args:
        layout: of the batches.
        has_groups: whether they tell the group of a row.
        num_labels: label columns.
    """

    def __init__(self, layout: InputLayout, *, has_groups: bool = False, num_labels: int = 0) -> None:
        table_rows = {table.name: table.num_rows for table in layout.tables}
        parts: list[Part] = []
        list_types: list[np.dtype[Any]] = []
        for key in layout.sparse:
            is_wide = table_rows[key.table] > MAX_INT32
            if key.is_list:
                parts.append("list")
                list_types.append(np.dtype("<i8" if is_wide else "<i4"))
            else:
                parts.append("wide_id" if is_wide else "id")
        self.runs = tuple(_runs(parts))
        keys = [key.name for key in layout.sparse]
        self._aged_keys = [keys.index(one.keys[0]) for one in layout.sequences if one.has_ages]
        """Of each sequence with ages, the place of a key that has its lengths."""
        self.list_types = (*list_types, *(np.dtype("<f4") for _ in self._aged_keys))
        """Of the ids of each list key, then of the ages of each sequence that has some."""
        self.has_groups = has_groups
        self._num_id_lists = len(list_types)
        num_lists = len(self.list_types)
        # The parts of eight bytes come first, so that all are aligned.
        self.dtype = np.dtype(
            [
                ("group", "<i8", (int(self.has_groups),)),
                ("list_start", "<i8", (num_lists,)),
                ("wide_id", "<i8", (parts.count("wide_id"),)),
                ("id", "<i4", (parts.count("id"),)),
                ("list_length", "<i4", (num_lists,)),
                ("dense", "<f4", (len(layout.dense),)),
                ("label", "<f4", (num_labels,)),
            ]
        )
        self.num_keys = len(parts)

    @classmethod
    def of_encoder(cls, encoder: FeatureEncoder) -> "RowFormat":
        """Of the batches that an encoder makes with labels."""
        return cls(encoder.layout, has_groups=encoder.schema.group is not None, num_labels=len(encoder.labels))

    def pack(self, batch: Batch, list_starts: Sequence[int]) -> tuple[Records, list[NDArray[Any]]]:
        """A batch as records, and the content of each list file.

        Args:
            list_starts: where in its file the first list of each will stand.
        """
        records_B = np.zeros(batch.num_rows, self.dtype)
        records_B["dense"] = batch.dense_BF.numpy()
        records_B["label"] = batch.labels_BL.numpy()
        if self.has_groups:
            assert batch.groups_B is not None
            records_B["group"][:, 0] = batch.groups_B.numpy()
        lengths_KB = batch.lengths_KB.numpy()
        ids_K = np.split(batch.values.numpy(), np.cumsum(lengths_KB.sum(axis=1, dtype=np.int64))[:-1])
        lists: list[NDArray[Any]] = []
        for run in self.runs:
            if run.part == "list":
                _place_lists(records_B, run.first, lengths_KB[run.first_key], list_starts)
                lists.append(ids_K[run.first_key].astype(self.list_types[run.first]))
            else:
                for offset in range(run.num_keys):
                    records_B[run.part][:, run.first + offset] = ids_K[run.first_key + offset]
        end = 0
        for place, key in enumerate(self._aged_keys, start=self._num_id_lists):
            _place_lists(records_B, place, lengths_KB[key], list_starts)
            start, end = end, end + len(ids_K[key])
            assert batch.ages is not None
            lists.append(batch.ages[start:end].numpy().astype(self.list_types[place]))
        return records_B, lists

    def unpack(self, records_B: Records, lists: Sequence[NDArray[Any]]) -> Batch:
        """The batch that some records were packed from, in any order.

        Args:
            lists: all ids of each list key, and all ages of each sequence that has some.
        """
        num_rows = len(records_B)
        lengths_KB = np.ones((self.num_keys, num_rows), np.int32)
        num_ids = num_rows * (self.num_keys - self._num_id_lists)
        num_ids += int(records_B["list_length"][:, : self._num_id_lists].sum(dtype=np.int64))
        values = np.empty(num_ids, np.int64)
        end = 0
        for run in self.runs:
            if run.part == "list":
                lengths_B = lengths_KB[run.first_key]
                lengths_B[:] = records_B["list_length"][:, run.first]
                places = _places(records_B["list_start"][:, run.first], lengths_B)
                start, end = end, end + len(places)
                values[start:end] = lists[run.first].take(places)
            else:
                start, end = end, end + run.num_keys * num_rows
                ids_BK = records_B[run.part][:, run.first : run.first + run.num_keys]
                # Transposed and widened in one pass.
                values[start:end].reshape(run.num_keys, num_rows)[...] = ids_BK.T
        return Batch(
            dense_BF=torch.from_numpy(records_B["dense"].copy()),
            lengths_KB=torch.from_numpy(lengths_KB),
            values=torch.from_numpy(values),
            labels_BL=torch.from_numpy(records_B["label"].copy()),
            groups_B=torch.from_numpy(records_B["group"][:, 0].copy()) if self.has_groups else None,
            ages=torch.from_numpy(self._ages(records_B, lists)) if self._aged_keys else None,
        )

    def _ages(self, records_B: Records, lists: Sequence[NDArray[Any]]) -> NDArray[np.float32]:
        found = [
            ages.take(_places(records_B["list_start"][:, place], records_B["list_length"][:, place]))
            for place, ages in enumerate(lists[self._num_id_lists :], start=self._num_id_lists)
        ]
        return np.concatenate(found, dtype=np.float32)


def _runs(parts: Sequence[Part]) -> list[KeyRun]:
    """Neighbours of one part together, but each list alone."""
    runs: list[KeyRun] = []
    num_seen = dict.fromkeys(parts, 0)
    for key, part in enumerate(parts):
        if part != "list" and runs and runs[-1].part == part:
            runs[-1] = replace(runs[-1], num_keys=runs[-1].num_keys + 1)
        else:
            runs.append(KeyRun(part=part, first_key=key, first=num_seen[part], num_keys=1))
        num_seen[part] += 1
    return runs


def _place_lists(records_B: Records, place: int, lengths_B: NDArray[np.int32], list_starts: Sequence[int]) -> None:
    """Write where the rows' lists of one file stand."""
    records_B["list_length"][:, place] = lengths_B
    records_B["list_start"][:, place] = list_starts[place] + _starts(lengths_B)


def _starts(lengths_B: NDArray[np.int32]) -> Ints:
    """Where each list starts if they stand one after the other."""
    starts_B: Ints = np.cumsum(lengths_B, dtype=np.int64) - lengths_B
    return starts_B


def _places(starts_B: Ints, lengths_B: NDArray[np.int32]) -> Ints:
    """Where the ids of some lists stand: starts[0] … starts[0] + lengths[0] - 1, starts[1] …"""
    shifts_B = starts_B - _starts(lengths_B)
    return np.repeat(shifts_B, lengths_B) + np.arange(int(lengths_B.sum(dtype=np.int64)))
