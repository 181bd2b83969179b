"""What becomes of a request, stage by stage, and errors that are its own."""

from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor

from recmoe.errors import DataError, RequestError, SchemaError
from recmoe.features.blocks import BlockRows, EncodedRows
from recmoe.ranking.columns import AnyRequest, DecodedRequest, RequestDecoder, options_of
from recmoe.ranking.items.candidate_rows import CandidateRows, EncodedCandidates
from recmoe.ranking.items.candidates import StoredItems
from recmoe.ranking.items.users import StoredUsers
from recmoe.ranking.look_ups import LookUps, StoreName

A = TypeVar("A")
B = TypeVar("B")
AnyDecoded = DecodedRequest[BlockRows] | DecodedRequest[CandidateRows]
"""A request as raw columns, whose candidates may lie in a store."""


class EncodedRequest(NamedTuple):
    """A request as the model reads it."""

    columns: AnyDecoded
    shared: EncodedRows
    own: EncodedCandidates


def decode(
    request: AnyRequest, decoder: RequestDecoder, *, items: StoredItems | None = None, users: StoredUsers | None = None
) -> AnyDecoded:
    """The columns of a request; absent ones are those of a store, or null.

    Raises:
        RequestError: a value does not fit; its path is named.
        StoreError: a store does not answer.
    """
    options, ignored = options_of(request), decoder.ignored(request)
    look_ups: dict[StoreName, LookUps] = {}
    if users is None:
        shared = decoder.shared_rows(options)
    else:
        shared, look_ups["users"] = users.rows(options)
    item_ids, item_keys = decoder.item_ids(request)
    if items is None:
        own = decoder.own_rows(request, decoder.own)
        return DecodedRequest(options, shared, own, item_ids, item_keys, ignored, look_ups)
    rows, look_ups["items"] = items.rows(request, item_keys)
    return DecodedRequest(options, shared, rows, item_ids, item_keys, ignored, look_ups)


def attempt(work: Callable[[A], B], argument: A) -> B | RequestError:
    """What is made of one of several requests; its error is an answer, and the others go on."""
    try:
        return work(argument)
    except RequestError as error:
        return error


def encode(work: Callable[[A], B], rows: A, *, field: str) -> B:
    """Columns of a request as the model reads them; what an encoder refuses of them is the request's fault."""
    try:
        return work(rows)
    except (DataError, SchemaError) as error:
        raise RequestError(field, str(error)) from error


def request_of(counts: Sequence[int]) -> Tensor:
    """The request of each candidate, int64, from how many there are in each request."""
    if len(counts) == 1:
        # A tenth of the time.
        return torch.zeros(counts[0], dtype=torch.int64)
    return torch.repeat_interleave(torch.tensor(counts))
