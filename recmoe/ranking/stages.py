"""What becomes of a request, stage by stage, and errors that are its own."""

from collections.abc import Callable
from typing import NamedTuple, TypeVar

from recmoe.errors import DataError, RequestError, SchemaError
from recmoe.features.blocks import BlockRows, EncodedRows
from recmoe.ranking.columns import DecodedRequest
from recmoe.ranking.items.candidates import CandidateRows, EncodedCandidates

A = TypeVar("A")
B = TypeVar("B")
AnyDecoded = DecodedRequest[BlockRows] | DecodedRequest[CandidateRows]
"""A request as raw columns, whose candidates may lie in a store."""


class EncodedRequest(NamedTuple):
    """A request as the model reads it."""

    columns: AnyDecoded
    shared: EncodedRows
    own: EncodedCandidates


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
