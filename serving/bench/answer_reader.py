"""AnswerReader: the answers of an HTTP/1.1 connection, out of the pieces that arrive."""

from dataclasses import dataclass

_MAX_HEAD_BYTES = 65536


@dataclass(frozen=True, slots=True)
class RawAnswer:
    """One answer."""

    status: int
    body: bytes
    keeps_open: bool
    """Whether the connection takes another request."""


class AnswerReader:
    """Reads one answer after the other; a request is sent only when the one before has its answer.

    ``http.client`` waits for its bytes, and other parsers cost as much as all else that the generator does.
    """

    def __init__(self) -> None:
        self._data = bytearray()
        self._begin()

    def _begin(self) -> None:
        self._status = 0
        self._length: int | None = None
        self._is_chunked = self._keeps_open = False
        self._chunks = bytearray()

    def feed(self, data: bytes) -> RawAnswer | None:
        """The answer, once it is whole; ValueError where what comes is not HTTP."""
        self._data += data
        if not self._status and not self._read_head():
            return None
        if self._is_chunked:
            return self._answer(bytes(self._chunks)) if self._read_chunks() else None
        if self._length is None or len(self._data) < self._length:
            return None
        body = bytes(self._data[: self._length])
        del self._data[: self._length]
        return self._answer(body)

    def end(self) -> RawAnswer | None:
        """The answer that ends with its connection; None where it broke off."""
        if self._status and self._length is None and not self._is_chunked:
            return self._answer(bytes(self._data))
        return None

    def _answer(self, body: bytes) -> RawAnswer:
        answer = RawAnswer(self._status, body, self._keeps_open)
        self._begin()
        return answer

    def _read_head(self) -> bool:
        """Whether the lines before the body are there."""
        end = self._data.find(b"\r\n\r\n")
        if end < 0:
            if len(self._data) > _MAX_HEAD_BYTES or not b"HTTP/1.".startswith(self._data[:7]):
                raise ValueError("the answer is not HTTP/1.1")
            return False
        first, *lines = bytes(self._data[:end]).split(b"\r\n")
        if not first.startswith(b"HTTP/1.") or not first[9:12].isdigit():
            raise ValueError("the answer is not HTTP/1.1")
        del self._data[: end + 4]
        self._status = int(first[9:12])
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(b":") for line in lines)}
        self._is_chunked = headers.get(b"transfer-encoding", b"").lower() == b"chunked"
        if b"content-length" in headers:
            self._length = int(headers[b"content-length"])
        elif self._status in (204, 304):
            self._length = 0
        asked = headers.get(b"connection", b"").lower()
        is_delimited = self._is_chunked or self._length is not None
        self._keeps_open = is_delimited and asked != b"close" and (first[7:8] == b"1" or asked == b"keep-alive")
        return True

    def _read_chunks(self) -> bool:
        """Whether the last chunk is there; ValueError where its length is no number."""
        while (end := self._data.find(b"\r\n")) >= 0:
            length = int(self._data[:end].partition(b";")[0], 16)
            if length == 0:
                # Fields after the last chunk are passed over, up to an empty line.
                last = self._data.find(b"\r\n\r\n", end)
                if last < 0:
                    return False
                del self._data[: last + 4]
                return True
            if len(self._data) < end + 2 + length + 2:
                return False
            self._chunks += self._data[end + 2 : end + 2 + length]
            del self._data[: end + 2 + length + 2]
        return False
