import pytest

from serving.bench.answer_reader import AnswerReader, RawAnswer

LENGTH = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3;name=x\r\nhel\r\n2\r\nlo\r\n0\r\nTrailer: 1\r\n\r\n"
EMPTY_CHUNKS = b"HTTP/1.1 429 Busy\r\ntransfer-encoding: Chunked\r\n\r\n0\r\n\r\n"
CLOSED = b"HTTP/1.1 503 No\r\nconnection: Close\r\ncontent-length: 0\r\n\r\n"
OLD = b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok"
OLD_KEPT = b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\nConnection: keep-alive\r\n\r\nok"
NOTHING = b"HTTP/1.1 204 No Content\r\n\r\n"


@pytest.mark.parametrize(
    ("data", "answer"),
    [
        (LENGTH, RawAnswer(200, b"hello", True)),
        (CHUNKED, RawAnswer(200, b"hello", True)),
        (EMPTY_CHUNKS, RawAnswer(429, b"", True)),
        (CLOSED, RawAnswer(503, b"", False)),
        (OLD, RawAnswer(200, b"ok", False)),
        (OLD_KEPT, RawAnswer(200, b"ok", True)),
        (NOTHING, RawAnswer(204, b"", True)),
    ],
)
@pytest.mark.parametrize("piece", [1, 3, 1000])
def test_answers_are_whole_however_they_are_cut(data: bytes, answer: RawAnswer, piece: int) -> None:
    reader = AnswerReader()

    found = [reader.feed(data[start : start + piece]) for _ in range(2) for start in range(0, len(data), piece)]

    assert [one for one in found if one is not None] == [answer, answer]
    assert found[-1] == answer


def test_answer_without_a_length_ends_with_its_connection() -> None:
    reader = AnswerReader()

    assert reader.feed(b"HTTP/1.1 200 OK\r\n\r\nhel") is None
    assert reader.feed(b"lo") is None
    assert reader.end() == RawAnswer(200, b"hello", False)


@pytest.mark.parametrize("cut", [b"", b"HTTP/1.1 200 OK\r\n", LENGTH[:-1], CHUNKED[:-1]])
def test_answer_that_breaks_off_is_none(cut: bytes) -> None:
    reader = AnswerReader()
    reader.feed(cut)

    assert reader.end() is None


@pytest.mark.parametrize(
    "data",
    [
        b"220 mail.example\r\n",
        b"HTTP/1.1 abc\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: five\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * 20_000,
    ],
)
def test_what_is_not_http_is_an_error(data: bytes) -> None:
    with pytest.raises(ValueError):
        AnswerReader().feed(data)
