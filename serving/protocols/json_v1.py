"""JSON: the request and the answer of POST /v1/rank, unless its headers ask for another form."""

from typing import Any

from recmoe.ranking.ranked import Ranked
from recmoe.ranking.ranker import Ranker
from recmoe.ranking.request import RankRequest
from serving.body import check_values
from serving.reply import Reply

MEDIA_TYPE = "application/json"


class JsonV1:
    """Reads and writes JSON.

    Args:
        max_values: commas and brackets of a request that are read.
    """

    name = "json"

    def __init__(self, *, max_values: int) -> None:
        self._max_values = max_values

    def read(self, _: Ranker, body: bytes) -> RankRequest:
        """A request; RequestError with the field at fault."""
        check_values(body, self._max_values)
        return RankRequest.parse(body)

    def encode(self, ranked: Ranked) -> Reply:
        """The ordered items."""
        return Reply(ranked.response().model_dump_json(), MEDIA_TYPE)

    def described(self) -> dict[str, Any]:
        """The request's schema for the OpenAPI page, by media type."""
        return {MEDIA_TYPE: {"schema": RankRequest.model_json_schema()}}
