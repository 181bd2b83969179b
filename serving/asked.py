"""Asked: a request for a ranking whose turn is still to come."""

from collections.abc import Callable
from dataclasses import dataclass

from recmoe.errors import RequestError
from recmoe.ranking.clock import Clock
from recmoe.ranking.columns import AnyRequest, options_of
from recmoe.ranking.ranked import Ranked
from recmoe.ranking.ranker import Ranker
from serving.reply import Encode, Read


@dataclass(frozen=True)
class Asked:
    """The body of a request, and what reads and answers it."""

    body: bytes
    protocol: str
    """What it is counted under."""
    read: Read
    encode: Encode
    named: Callable[[], Ranker | None]
    """The ranker of the version that the request names, if it names one; known once it has been read."""
    max_explained: int
    """Items that are explained at most."""

    def request(self, champion: Ranker) -> AnyRequest:
        """What the body holds; RequestError where that is no request, or one for too many explanations."""
        request = self.read(self.named() or champion, self.body)
        _check_num_explained(request, self.max_explained)
        return request


def ranked_by(ranker: Ranker, request: AnyRequest, clock: Clock) -> Ranked:
    """What a ranker makes of a request.

    Raises:
        RequestError: a field does not fit.
        StoreError: a store does not answer.
    """
    columns = ranker.decode(request)
    clock.stage("decode")
    (ranked,) = ranker.rank_columns([columns], clock=clock)
    if isinstance(ranked, RequestError):
        raise ranked
    return ranked


def _check_num_explained(request: AnyRequest, max_explained: int) -> None:
    """RequestError where a request asks for more explanations than are given."""
    options = options_of(request)
    if not options.explain:
        return
    if max_explained == 0:
        raise RequestError("explain", "this server explains nothing: its max_explained is 0")
    num_items = min(request.num_candidates, options.top_k or request.num_candidates)
    if num_items > max_explained:
        raise RequestError(
            "explain",
            f"{num_items} items would be explained, at most {max_explained} are in one request; "
            f"send top_k: {max_explained} or less, or raise max_explained of the server",
        )
