"""Encoding: what each kind of encoding of ids offers; Growth: what one whose ids are learned does while it learns."""

from collections.abc import Iterable
from typing import Protocol

import pyarrow as pa

from recmoe.features.encodings.lookup import RowLookup


class Growth(Protocol):
    """The ids of one table while they are learned.

    Which ids get a row is found in two steps, of which the first can be done part by part, in any order and in many
    processes: candidates of some ids, then of the candidates of all parts, then the ids and their rows.
    """

    def candidates(self, counts: Iterable[pa.Table]) -> pa.Table:
        """Of some ids, those that may get a row, with their counts.

        Args:
            counts: as of ``IdCounts.merged``, each id in one of them.
        """
        ...

    def finish(self, candidates: pa.Table, *, num_sightings: int) -> RowLookup:
        """The ids with their rows.

        Args:
            candidates: of all ids of the table.
            num_sightings: how often ids of the table were seen, all together.
        """
        ...


class Encoding(Protocol):
    """How the ids of a table become its rows."""

    @property
    def is_frequent_first(self) -> bool:
        """Whether the first rows are the most frequent ids; otherwise they are scattered, in time at least."""
        ...

    @property
    def can_refuse(self) -> bool:
        """Whether an id can be an error, which only encoding every row finds."""
        ...

    @property
    def num_planned_ids(self) -> int | None:
        """Rows beside row 0, before any log exists; None if only a log can tell."""
        ...

    def build(self, *, learned: RowLookup | None, seed: int) -> RowLookup:
        """What looks the ids up.

        Args:
            learned: what was learned; None where nothing is.
            seed: of a hash.
        """
        ...

    def grow(self, earlier: RowLookup | None) -> Growth | None:
        """The ids before the training data is read; None where there is nothing to learn.

        Args:
            earlier: the ids that an earlier model learned for the table, with whichever encoding.
        """
        ...

    def fewer_unknown(self, path: str) -> str:
        """What to change in the config so that fewer ids look up row 0; "" if nothing would help.

        Args:
            path: of the encoding in the config.
        """
        ...
