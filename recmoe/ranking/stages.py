"""What becomes of a request, stage by stage."""

from typing import NamedTuple

from recmoe.features.blocks import BlockRows, EncodedRows
from recmoe.ranking.columns import DecodedRequest
from recmoe.ranking.items.candidates import CandidateRows, EncodedCandidates
from recmoe.ranking.request import RankRequest
from recmoe.ranking.score import ScoreFormula


class ReadRequest(NamedTuple):
    """A request that has been read."""

    request: RankRequest
    columns: DecodedRequest[BlockRows] | DecodedRequest[CandidateRows]
    score: str
    """Name of the formula."""
    formula: ScoreFormula


class EncodedRequest(NamedTuple):
    """A request as the model reads it."""

    decoded: ReadRequest
    shared: EncodedRows
    own: EncodedCandidates
