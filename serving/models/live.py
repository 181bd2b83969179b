"""LiveRequests: the last requests that were answered; a model that is to answer the next ones must answer these."""

import threading
from collections import deque
from collections.abc import Sequence

from recmoe.errors import BundleError, RequestError
from recmoe.ranking.columns import AnyRequest
from recmoe.ranking.ranker import Ranker
from serving.reply import Read


class LiveRequests:
    """A ring of bodies as they came: JSON takes a tenth of the memory of what it becomes.

    Args:
        max_requests: that are kept; 0 for none.
        max_bytes: of all that are kept; a request of more is not.
    """

    def __init__(self, *, max_requests: int, max_bytes: int) -> None:
        self._max_requests, self._max_bytes = max_requests, max_bytes
        self._kept: deque[tuple[bytes, Read]] = deque()
        self._num_bytes = 0
        self._lock = threading.Lock()

    def record(self, body: bytes, read: Read) -> None:
        """Keep the body of a request that was answered, with what reads it, and let go of the oldest ones."""
        if len(body) > self._max_bytes or self._max_requests == 0:
            return
        with self._lock:
            self._kept.append((body, read))
            self._num_bytes += len(body)
            while len(self._kept) > self._max_requests or self._num_bytes > self._max_bytes:
                self._num_bytes -= len(self._kept.popleft()[0])

    def kept(self) -> list[tuple[bytes, Read]]:
        """What is kept, the oldest first."""
        with self._lock:
            return list(self._kept)


def check_live(ranker: Ranker, champion: Ranker, kept: Sequence[tuple[bytes, Read]]) -> None:
    """Let a ranker answer what the champion answered. It is warm after that.

    Raises:
        BundleError: it cannot answer one of them, or gives more candidates no finite score than the champion does.
    """
    for number, (body, read) in enumerate(kept, start=1):
        request = read(champion, body)
        who = f"request {number} of the last {len(kept)}, which version {champion.info.version} answered"
        try:
            num_lost = _num_not_finite(ranker, request)
        except RequestError as error:
            raise BundleError(f"it cannot answer {who}: {error}; {_ADVICE}") from error
        if num_lost > 0 and num_lost > _num_not_finite(champion, request):
            raise BundleError(f"{num_lost} candidates of {who}, get no finite score from it; {_ADVICE}")


_ADVICE = "change the model, or the clients first and let the server look again (SIGUSR1)"


def _num_not_finite(ranker: Ranker, request: AnyRequest) -> int:
    (ranked,) = ranker.rank_columns([ranker.decode(request)])
    if isinstance(ranked, RequestError):
        raise ranked
    return int(ranked.score_C.null_count)
