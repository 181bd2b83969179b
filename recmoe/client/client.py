"""RankClient: ranking requests to a server, in time or with an error that says why not."""

import json
import ssl
import time
from collections.abc import Callable, Mapping, Sequence
from http import HTTPStatus
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar

from recmoe import __version__
from recmoe.client.address import authorization, split_url
from recmoe.client.answers import Health, Ranking, ServedModel
from recmoe.client.arrow import MEDIA_TYPE, stream_of, table_of
from recmoe.client.pool import Answer, BrokenAnswerError, ConnectionPool, UnansweredError
from recmoe.client.request import request_body
from recmoe.client.retry import RETRIED, retry_after_s, wait_s
from recmoe.errors import CallError, DeadlineError, RequestError

if TYPE_CHECKING:
    import pyarrow as pa

T = TypeVar("T")

Row = Mapping[str, Any]


class RankClient:
    """Asks a server to rank. Threads may share it; connections stay open between calls.

    A call is tried again where the server cannot have ranked, or ranks alike: no byte of an answer came, or it said 429
    or 503. It waits as long as the server asks, and a little longer by chance, and never beyond the deadline.

    Args:
        url: of the server, such as ``http://localhost:8000``; a path before ``/v1`` may follow.
        timeout_s: seconds that a call may take, with all its tries.
        retries: times that a call is tried again.
        token: sent as bearer token.
        num_idle: connections that stay open while they are not needed.
        tls: how to check an https server; Python's default by default.

    Raises:
        ServingError: the URL or the token cannot be used.

    Example::

        with RankClient("http://localhost:8000", timeout_s=0.2) as client:
            ranking = client.rank(user={"user_id": "u7"}, candidates=[{"item_id": 17}, {"item_id": 42}])
            print([item.item_id for item in ranking.items])
    """

    def __init__(
        self,
        url: str,
        *,
        timeout_s: float = 5.0,
        retries: int = 2,
        token: str | None = None,
        num_idle: int = 16,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        assert timeout_s > 0
        assert retries >= 0
        self.url = url.rstrip("/")
        self.timeout_s = timeout_s
        self._retries = retries
        is_encrypted, host, port, self._path = split_url(self.url)
        self._headers = {"User-Agent": f"recmoe/{__version__}", **authorization(token)}
        context = (tls or ssl.create_default_context()) if is_encrypted else None
        self._pool = ConnectionPool(host, port, tls=context, num_idle=num_idle)

    def rank(
        self,
        *,
        candidates: Sequence[Row] | Mapping[str, Sequence[Any]],
        user: Row | None = None,
        context: Row | None = None,
        top_k: int | None = None,
        tasks: Sequence[str] | None = None,
        score: str | None = None,
        explain: bool = False,
        top_features: int | None = None,
        request_id: str | None = None,
        deadline_ms: float | None = None,
    ) -> Ranking:
        """Order candidates for one user in one context.

        Args:
            candidates: columns of the items: one mapping per candidate, or one sequence per column. Here and below,
                numpy's numbers and arrays, dates and decimals may stand for what JSON has for them.
            user, context: columns of these sides, by their names in the log.
            top_k: items to return, the best ones; all by default.
            tasks: tasks whose predictions are wanted; all by default.
            score: name of the score to order by.
            explain: whether each item comes with what moved its predictions, and how gates weighted experts.
            top_features: features that an explanation names for each task; 5 by default.
            request_id: comes back with the ranking.
            deadline_ms: milliseconds that the call may take, with all its tries; ``timeout_s`` by default. The server
                is told what is left of them.

        Raises:
            RequestError: the request does not fit; ``field`` says where.
            DeadlineError: the time was up.
            CallError: no ranking came for another reason; ``status`` is what the server answered, if it did.
        """
        deadline_s = self._deadline_s(deadline_ms)
        body = request_body(
            user=user,
            context=context,
            candidates=candidates,
            tasks=None if tasks is None else list(tasks),
            score=score,
            explain=explain or None,
            top_features=top_features,
            top_k=top_k,
            request_id=request_id,
        )
        answer = self._call("POST", "/v1/rank", body=body, deadline_s=deadline_s)
        return self._parsed(answer, "a ranking", Ranking.read)

    def rank_table(
        self,
        candidates: "pa.Table | pa.RecordBatch",
        *,
        user: Row | None = None,
        context: Row | None = None,
        top_k: int | None = None,
        tasks: Sequence[str] | None = None,
        score: str | None = None,
        explain: bool = False,
        top_features: int | None = None,
        request_id: str | None = None,
        deadline_ms: float | None = None,
    ) -> "pa.Table":
        """Order candidates that are rows of an Arrow table; needs pyarrow.

        Args:
            candidates: a column for each of the items'.
            user, context, top_k, tasks, score, explain, top_features, request_id, deadline_ms: see ``rank``.

        Returns:
            The items in their order: ``item_id``, ``score`` (null where it is no finite number), a column for each
            task, and ``explanation``. The schema's metadata holds the rest of the ranking as JSON under ``recmoe``.

        Raises:
            RequestError, DeadlineError, CallError: see ``rank``.
            ServingError: pyarrow is not installed.
        """
        deadline_s = self._deadline_s(deadline_ms)
        document = request_body(
            user=user,
            context=context,
            tasks=None if tasks is None else list(tasks),
            score=score,
            explain=explain or None,
            top_features=top_features,
            top_k=top_k,
            request_id=request_id,
        )
        body = stream_of(candidates, document)
        answer = self._call("POST", "/v1/rank", body=body, deadline_s=deadline_s, media_type=MEDIA_TYPE)
        return self._parsed(answer, "a table of items", table_of, load=lambda content: content)

    def model(self) -> ServedModel:
        """The model in use, and what a request may hold; CallError where there is none."""
        answer = self._call("GET", "/v1/models", body=None, deadline_s=time.monotonic() + self.timeout_s)
        return self._parsed(answer, "a list of models", lambda document: ServedModel.read(document[0]))

    def health(self) -> Health:
        """Whether the server's process answers. Asked once, without further tries."""
        return self._health("/healthz")

    def ready(self) -> Health:
        """Whether its model ranks. Asked once, without further tries."""
        return self._health("/readyz")

    def close(self) -> None:
        """Close the connections; the client cannot be used any more."""
        self._pool.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _health(self, path: str) -> Health:
        try:
            answer = self._exchange("GET", path, None, time.monotonic() + self.timeout_s)
        except CallError as error:
            return Health(False, str(error))
        except UnansweredError as error:
            return Health(False, f"{self.url} does not answer: {error}")
        if answer.status != HTTPStatus.OK:
            return Health(False, str(self._error(answer)))
        return Health(True, str(self._parsed(answer, "a state", lambda document: document["status"])))

    def _deadline_s(self, deadline_ms: float | None) -> float:
        return time.monotonic() + (self.timeout_s if deadline_ms is None else deadline_ms / 1000)

    def _call(
        self, method: str, path: str, *, body: bytes | None, deadline_s: float, media_type: str = "application/json"
    ) -> Answer:
        """The answer 200, after as many tries as are allowed and as there is time for."""
        attempt = 0
        while True:
            asked_s = 0.0
            try:
                answer = self._exchange(method, path, body, deadline_s, media_type)
            except UnansweredError as error:
                failure: Exception = CallError(f"{self.url} does not answer: {error}")
            else:
                if answer.status == HTTPStatus.OK:
                    return answer
                failure = self._error(answer)
                if answer.status not in RETRIED:
                    raise failure
                asked_s = retry_after_s(answer.retry_after)
            pause_s = wait_s(attempt, retry_after_s=asked_s)
            attempt += 1
            # What cannot be answered in time is given up at once: the caller has a use for what is left.
            if attempt > self._retries or time.monotonic() + pause_s >= deadline_s:
                raise failure
            time.sleep(pause_s)

    def _exchange(
        self, method: str, path: str, body: bytes | None, deadline_s: float, media_type: str = "application/json"
    ) -> Answer:
        left_ms = int((deadline_s - time.monotonic()) * 1000)
        headers = dict(self._headers)
        if body is not None:
            headers |= {"Content-Type": media_type, "Accept": media_type, "X-Deadline-Ms": str(max(1, left_ms))}
        try:
            return self._pool.exchange(method, self._path + path, headers=headers, body=body, deadline_s=deadline_s)
        except TimeoutError as error:
            raise DeadlineError(f"{self.url} did not answer in time") from error
        except BrokenAnswerError as error:
            raise CallError(f"{self.url}: {error}") from error

    def _error(self, answer: Answer) -> Exception:
        """What an answer other than 200 means."""
        try:
            problem = json.loads(answer.body)
        except ValueError:
            problem = None
        problem = problem if isinstance(problem, dict) else {}
        detail, field = problem.get("detail"), problem.get("field")
        if answer.status == HTTPStatus.UNPROCESSABLE_ENTITY and isinstance(field, str):
            return RequestError(field, str(detail).removeprefix(f"{field}: "))
        kind = DeadlineError if answer.status == HTTPStatus.GATEWAY_TIMEOUT else CallError
        said = f"{self.url} answered {answer.status}{f': {detail}' if detail else ''}"
        return kind(said, status=answer.status)

    def _parsed(
        self, answer: Answer, what: str, read: Callable[[Any], T], *, load: Callable[[bytes], Any] = json.loads
    ) -> T:
        try:
            return read(load(answer.body))
        except (ValueError, TypeError, LookupError, RecursionError, OSError) as error:
            raise CallError(
                f"{self.url} answered what is not {what}: {error}; is it a server of recmoe?", status=answer.status
            ) from error
