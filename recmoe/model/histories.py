"""Histories: sequences of the batch as columns of the model's input."""

# B rows, R requests, C candidates, L entries of a history, N entries of all rows, D width of an entry,
# Q width of a query, H width of a column block, I width of the candidate's own part

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from recmoe.embeddings.tables import member_name
from recmoe.features.batch import Batch
from recmoe.features.layout import OWN_SIDES, InputLayout, SequenceSpec, SparseKey
from recmoe.sequence import EncodedHistory, HistoryEncoder


@dataclass(frozen=True)
class HistoryColumns:
    """The input columns that an encoder makes of one sequence.

    A candidate's query stands beside the entries: in the place of every column of the sequence, the candidate's vector
    in the same table, or zeros where it has none. Where it has none at all, the query is its whole own part; a model
    without features of candidates reads the entries alone.

    Example: an encoder with columns item, action; a candidate with features item and category::

        entry  [item | action]        query  [item of the candidate | 0]
    """

    spec: SequenceSpec
    entries: tuple[SparseKey, ...]
    """The sequence's own keys."""
    query: tuple[SparseKey | None, ...]
    """Beside each, the candidate's key in the same table."""
    own: InputLayout
    """The candidate's part of the input, which is the query where the tables have nothing in common."""

    @property
    def feature(self) -> str:
        return self.spec.name

    @property
    def name(self) -> str:
        return self.spec.name

    @property
    def entry_width(self) -> int:
        """D."""
        return sum(key.vector_width for key in self.entries)

    @property
    def reads_candidate(self) -> bool:
        """Whether the columns are part of the candidate's own half."""
        return self.spec.encoder.reads_candidate

    @property
    def width(self) -> int:
        """H."""
        return self.spec.encoder.width_of(self.entry_width)

    @property
    def is_query_whole(self) -> bool:
        """Whether the query is the candidate's whole own part."""
        return not any(self.query) and self.own.width > 0

    @property
    def meaning(self) -> Hashable:
        """All that decides what the encoder's weights read: they fit another sequence of the same meaning alone."""
        own = [key.name for key in self.own.pooled] + [column.name for column in self.own.dense]
        return (
            self.spec.encoder,
            self.spec.has_ages,
            tuple((key.name, key.table, key.vector_width) for key in self.entries),
            tuple(own) if self.is_query_whole else tuple(key and key.name for key in self.query),
        )

    def build(self) -> nn.Module:
        """The encoder."""
        encoder: nn.Module = self.spec.encoder.build(
            in_features=self.entry_width,
            query_features=self.own.width if self.is_query_whole else self.entry_width,
            max_length=self.spec.max_length,
            has_ages=self.spec.has_ages,
        )
        return encoder


def history_columns(layout: InputLayout, *, reads_candidate: bool) -> list[HistoryColumns]:
    """The histories whose vectors do, or do not, depend on the candidate, in layout order."""
    keys = {key.name: key for key in layout.sparse}
    own = layout.select(OWN_SIDES)
    # A list on the table of the candidate's id would be another query than the id itself.
    singles, lists = ([key for key in own.pooled if key.is_list == is_list] for is_list in (False, True))
    of_table = {key.table: key for key in reversed([*singles, *lists])}
    return [
        HistoryColumns(
            spec=spec,
            entries=tuple(keys[key] for key in spec.keys),
            query=tuple(of_table.get(keys[key].table) for key in spec.keys),
            own=own,
        )
        for spec in layout.sequences
        if spec.encoder.reads_candidate == reads_candidate
    ]


class Histories(nn.Module):
    """Encodes the histories of a batch, and lets candidates attend to them.

    Args:
        layout: of the model, all sides.
    """

    def __init__(self, layout: InputLayout) -> None:
        super().__init__()
        self.shared = history_columns(layout, reads_candidate=False)
        self.own = history_columns(layout, reads_candidate=True)
        self._own_keys = layout.select(OWN_SIDES).pooled
        self.encoders = nn.ModuleDict({member_name(part.name): part.build() for part in (*self.shared, *self.own)})

    def encode(self, batch: Batch, layout: InputLayout, entries: Mapping[str, Tensor]) -> dict[str, EncodedHistory]:
        """Every history, once per row of the batch, by feature.

        Args:
            batch: rows, or requests.
            layout: of the batch.
            entries: by key of a sequence, the vectors of its ids.
        """
        sequences = batch.sequences(layout) if self.encoders else {}
        encoded = {}
        for part in (*self.shared, *self.own):
            sequence = sequences[part.name]
            entries_ND = torch.cat([entries[key.name] for key in part.entries], dim=1)
            # On a GPU the longest of a batch is not asked for: the answer would have to be waited for. Nor is it where
            # the numbers of ids are given: what is computed then has a fixed size.
            is_fixed = entries_ND.device.type != "cpu" or batch.num_ids_K is not None
            longest = part.spec.max_length if is_fixed else int(sequence.lengths_B.max()) if batch.num_rows else 1
            padding = _Padding(sequence.lengths_B, num_entries=len(entries_ND), longest=longest)
            ages_N = sequence.ages_N
            encoded[part.name] = self._encoder(part).encode(
                padding(entries_ND), padding.mask_BL, None if ages_N is None else padding(ages_N[:, None])[..., 0]
            )
        return encoded

    def shared_pieces(self, encoded: Mapping[str, EncodedHistory]) -> list[Tensor]:
        """One [R, H] block per history that no candidate reads."""
        return [self._encoder(part).attend(encoded[part.name], None, None) for part in self.shared]

    def own_pieces(
        self, encoded: Mapping[str, EncodedHistory], own: Sequence[Tensor], request_C: Tensor | None
    ) -> list[Tensor]:
        """One [C, H] block per history that candidates read.

        Args:
            own: pieces of the candidates' own part, one at least: the vectors of their keys in front.
            request_C: the request of each candidate; without it, candidate c is of row c.
        """
        if not self.own:
            return []
        own_CI = torch.cat(list(own), dim=1)
        places = {}
        first = 0
        for key in self._own_keys:
            places[key.name] = slice(first, first + key.vector_width)
            first += key.vector_width
        pieces = []
        for part in self.own:
            query_CQ = own_CI
            if not part.is_query_whole:
                beside = [
                    own_CI.new_zeros(len(own_CI), entry.vector_width) if key is None else own_CI[:, places[key.name]]
                    for entry, key in zip(part.entries, part.query, strict=True)
                ]
                query_CQ = torch.cat(beside, dim=1)
            pieces.append(self._encoder(part).attend(encoded[part.name], query_CQ, request_C))
        return pieces

    def _encoder(self, part: HistoryColumns) -> HistoryEncoder:
        encoder: HistoryEncoder = self.encoders[member_name(part.name)]  # type: ignore[assignment]
        return encoder


class _Padding:
    """Entries of all rows, one after the other, as a matrix of rows with room for the longest."""

    def __init__(self, lengths_B: Tensor, *, num_entries: int, longest: int) -> None:
        device = lengths_B.device
        self._num_rows = len(lengths_B)
        # With no entry at all some weights would get no gradient, which other workers wait for.
        longest = max(longest, 1)
        self._length = longest
        self.mask_BL = torch.arange(longest, device=device) < lengths_B[:, None]
        ends_B = lengths_B.to(torch.int64).cumsum(0)
        skipped_B = torch.arange(self._num_rows, device=device) * longest - (ends_B - lengths_B)
        self._places_N = torch.arange(num_entries, device=device) + skipped_B.repeat_interleave(
            lengths_B, output_size=num_entries
        )

    def __call__(self, values_ND: Tensor) -> Tensor:
        padded = values_ND.new_zeros(self._num_rows * self._length, values_ND.shape[1])
        return padded.index_copy(0, self._places_N, values_ND).view(self._num_rows, self._length, values_ND.shape[1])
