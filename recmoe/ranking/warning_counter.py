"""WarningCounter: values of a request that the model does not know."""

# R requests, B rows of one side, K sparse keys

from collections import Counter

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from recmoe.features.batch import Batch
from recmoe.features.encoder import FeatureEncoder
from recmoe.features.layout import SHARED_SIDES, InputLayout
from recmoe.ranking.columns import OWN_SIDES
from recmoe.ranking.request import FeatureWarning

Rows = tuple[pa.Table, Batch, NDArray[np.int64]]
"""Raw columns, what the encoder made of them, and the request of each row."""


class WarningCounter:
    """Counts missing values and ids that training has not seen, per feature and request.

    Args:
        encoder: names the features and their columns.
    """

    def __init__(self, encoder: FeatureEncoder) -> None:
        self._features = encoder.schema.features
        self._columns = {
            name: None if (column := feature.raw_columns(name)[0].name) == name else column
            for name, feature in self._features.items()
        }
        self._id_tables = frozenset(encoder.lookups)
        self._shared = encoder.layout.select(SHARED_SIDES)
        self._own = encoder.layout.select(OWN_SIDES)

    def count(self, shared: Rows, own: Rows, *, num_requests: int) -> list[list[FeatureWarning]]:
        """The warnings of each request, features in the order of the schema."""
        counts = [Counter[tuple[str, str]]() for _ in range(num_requests)]
        for is_shared, rows, layout in ((True, shared, self._shared), (False, own, self._own)):
            missing = self._missing(rows, is_shared, counts)
            self._unknown(rows, layout, missing, counts)
        codes = ("missing", "unknown")
        return [
            [
                FeatureWarning(feature=name, column=self._columns[name], code=code, count=found[name, code])
                for name in self._features
                for code in codes
                if found[name, code]
            ]
            for found in counts
        ]

    def _missing(
        self, rows: Rows, is_shared: bool, counts: list[Counter[tuple[str, str]]]
    ) -> dict[str, NDArray[np.bool_]]:
        """Count nulls; returns which rows are null, by feature."""
        table, _, request_B = rows
        nulls = {}
        for name, feature in self._features.items():
            if (feature.side in SHARED_SIDES) != is_shared:
                continue
            column = table.column(feature.raw_columns(name)[0].name)
            is_null_B = column.is_null().to_numpy()
            nulls[name] = is_null_B
            if column.null_count:
                _add(counts, (name, "missing"), request_B[is_null_B])
        return nulls

    def _unknown(
        self,
        rows: Rows,
        layout: InputLayout,
        missing: dict[str, NDArray[np.bool_]],
        counts: list[Counter[tuple[str, str]]],
    ) -> None:
        """Count ids at row 0 that were given."""
        _, batch, request_B = rows
        lengths_KB = batch.lengths_KB.numpy()
        is_row_zero = (batch.values == 0).numpy()
        start = 0
        for key, lengths_B in zip(layout.sparse, lengths_KB, strict=True):
            end = start + int(lengths_B.sum())
            # Row 0 of a number's buckets is "missing", which is counted already.
            if is_row_zero[start:end].any() and key.table in self._id_tables:
                row_of_id = np.repeat(np.arange(len(lengths_B)), lengths_B)
                unknown_rows = row_of_id[is_row_zero[start:end]]
                _add(counts, (key.feature, "unknown"), request_B[unknown_rows[~missing[key.feature][unknown_rows]]])
            start = end


def _add(counts: list[Counter[tuple[str, str]]], key: tuple[str, str], requests: NDArray[np.int64]) -> None:
    for request, number in zip(*np.unique(requests, return_counts=True), strict=True):
        counts[request][key] += int(number)
