"""Right requests with mistakes in them: in the values of a document, in bytes, and in HTTP itself."""

import json
import random
import struct
from collections.abc import Callable, Iterator
from typing import Any

from benchmarks.fuzz.valid import ARROW, HEAD_LENGTH, ValidRequests
from benchmarks.fuzz.wire import Sent, http_request

HUGE = b"1" + b"0" * 400
VALUES: tuple[bytes, ...] = (
    b"null", b"true", b"-0", b"0", b"1.5", b"-1", b"NaN", b"-Infinity", b"1e999", b"1e-999", b"9223372036854775808",
    b"-9223372036854775809", b"18446744073709551616", HUGE, b"0." + HUGE, b'""', b'"x"', b'"007"', b'"NaN"',
    b'"' + b"x" * 5000 + b'"', b'"a|b||c"', b'"\\ud83d"', b'"\\u0000"', b'"\xff\xfe"', b'"\xf0\x9f\x99\x82"', b"[]",
    b"[[]]", b"[null]", b"{}", b'{"a": {"b": []}}', b"[" * 300 + b"]" * 300, b"[" + b"1," * 20_000 + b"1]",
    b'"2026-13-45"', b"{", b"'", b"",
)  # fmt: skip
"""What may stand where a value of JSON does."""
NUMBERS = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)
_MARK = "\0here\0"


def mutated(valid: ValidRequests, draw: random.Random) -> Sent:
    """A request of any protocol with one mistake, or a few."""
    make = draw.choice((_json, _json, _json, _kserve, _kserve, _kserve_binary, _arrow, _framing, _header))
    return make(valid, draw)


def _json(valid: ValidRequests, draw: random.Random) -> Sent:
    name, body = _changed_document(valid.document, draw)
    return _sent(f"JSON: {name}", "/v1/rank", body, valid)


def _kserve(valid: ValidRequests, draw: random.Random) -> Sent:
    name, body = _changed_document(valid.tensors(), draw)
    return _sent(f"KServe: {name}", valid.infer, body, valid)


def _kserve_binary(valid: ValidRequests, draw: random.Random) -> Sent:
    head, rest = valid.binary_tensors()
    if draw.random() < 0.5:
        name, head = _changed_document(json.loads(head), draw)
    else:
        name, rest = changed_bytes(rest, draw)
    length = draw.choice([len(head), len(head), len(head), 0, -1, len(head) + 1, 10**9, "x" * 30, ""])
    return _sent(f"KServe, binary: {name}", valid.infer, head + rest, valid, {HEAD_LENGTH: str(length)})


def _arrow(valid: ValidRequests, draw: random.Random) -> Sent:
    name, body = changed_bytes(valid.arrow(), draw)
    return _sent(f"Arrow: {name}", "/v1/rank", body, valid, {"Content-Type": ARROW})


def _sent(name: str, path: str, body: bytes, valid: ValidRequests, headers: dict[str, str] | None = None) -> Sent:
    route = f"{path} (Arrow)" if headers and ARROW in headers.values() else path
    return Sent(name, route, (http_request(path, body, headers),), num_candidates=len(valid.document["candidates"]))


def _changed_document(document: Any, draw: random.Random) -> tuple[str, bytes]:
    """A document with another value, name or a field twice in some places, or other bytes."""
    if draw.random() < 0.1:
        return changed_bytes(json.dumps(document).encode(), draw)
    values, done = [], []
    for _ in range(draw.choice((1, 1, 1, 2, 5))):
        path = draw.choice(list(_paths(document)))
        what = draw.choice(("value", "value", "value", "name", "gone", "twice"))
        if what == "value" or not path:
            values.append(draw.choice(VALUES))
            document = _replaced(document, path, lambda _: f"{_MARK}{len(values) - 1}{_MARK}")
        else:
            document = _renamed(document, path, what, draw)
        done.append(f"{what} at {'.'.join(map(str, path)) or 'the top'}")
    body = json.dumps(document).encode()
    mark = json.dumps(_MARK)[1:-1].encode()
    for number, value in enumerate(values):
        body = body.replace(b'"%s%d%s"' % (mark, number, mark), value)
    return ", ".join(done)[:200], body


def _paths(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The key paths of all values, of lists their first two elements and the last."""
    yield path
    if isinstance(value, dict):
        for key in value:
            yield from _paths(value[key], (*path, key))
    elif isinstance(value, list):
        for index in sorted({*range(min(2, len(value))), len(value) - 1} - {-1}):
            yield from _paths(value[index], (*path, index))


def _replaced(value: Any, path: tuple[Any, ...], change: Callable[[Any], Any]) -> Any:
    if not path:
        return change(value)
    try:
        inner = value[path[0]]
    except (KeyError, IndexError, TypeError):
        return value
    copy = value.copy() if isinstance(value, dict | list) else value
    copy[path[0]] = _replaced(inner, path[1:], change)
    return copy


def _renamed(document: Any, path: tuple[Any, ...], what: str, draw: random.Random) -> Any:
    """A document without a field, or with it under another name too, or in its place."""

    def change(owner: Any) -> Any:
        if isinstance(owner, dict) and path[-1] in owner:
            other = draw.choice(("", "item_id", "x" * 3000, "\u0000", "score", "Candidates"))
            given = {**owner, other: owner[path[-1]]}
            return given if what == "twice" else {key: one for key, one in given.items() if key != path[-1]}
        if isinstance(owner, list) and owner:
            return owner[1:] if what == "gone" else [*owner, owner[0]]
        return owner

    return _replaced(document, path[:-1], change)


def changed_bytes(content: bytes, draw: random.Random) -> tuple[str, bytes]:
    """Bytes with some flipped, cut off, put in, repeated, or another number among them."""
    data = bytearray(content)
    at, length = draw.randrange(len(data) + 1), draw.choice((1, 4, 8, 100))
    what = draw.choice(("bits", "bits", "cut", "gone", "put in", "twice", "number", "number", "junk behind"))
    if what == "bits" and data:
        for _ in range(draw.choice((1, 1, 3, 20))):
            data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
    elif what == "cut":
        del data[at:]
    elif what == "gone":
        del data[at : at + length]
    elif what == "put in":
        data[at:at] = draw.randbytes(length)
    elif what == "twice":
        data[at:at] = data[at : at + 1000]
    elif what == "number" and len(data) > 8:
        at = draw.randrange(len(data) // 4) * 4
        data[at : at + 4] = struct.pack("<I", draw.choice(NUMBERS))
    else:
        data += draw.randbytes(length)
    return f"{what} at byte {at}", bytes(data)


def _header(valid: ValidRequests, draw: random.Random) -> Sent:
    name = draw.choice(("X-Deadline-Ms", "Content-Type", "Accept", "Content-Encoding", HEAD_LENGTH, "Authorization"))
    values = (
        "",
        "NaN",
        "-1",
        "0",
        "1e999",
        "60000",
        "x" * 5000,
        ARROW,
        "gzip",
        "a/b;c=d",
        "\u00e4",
        "application/json",
    )
    value = draw.choice(values)
    body = json.dumps(valid.document).encode()
    return _sent(f"header {name}: {value[:20]}", "/v1/rank", body, valid, {name: value})


def _framing(valid: ValidRequests, draw: random.Random) -> Sent:
    name, pieces, hangs_up = draw.choice(framings(valid))
    return Sent(f"HTTP: {name}", "HTTP", pieces, hangs_up=hangs_up)


def framings(valid: ValidRequests) -> list[tuple[str, tuple[bytes, ...], bool]]:
    """What is wrong with a request as HTTP, its pieces, and whether the client then hangs up."""
    body = json.dumps(valid.document).encode()
    whole = http_request("/v1/rank", body)
    head, close = whole[: -len(body)], b"Connection: close\r\n"
    post = b"POST /v1/rank HTTP/1.1\r\nHost: x\r\n" + close
    get, chunked = b"GET /healthz HTTP/1.1\r\nHost: x\r\n" + close, post + b"Transfer-Encoding: chunked\r\n\r\n"
    wrong = {
        "half a head": (head[:30],),
        "half a body": (head + body[: len(body) // 2],),
        "a byte at a time": (*(whole[index : index + 1] for index in range(60)), whole[60:]),
        "nothing": (b"",),
        "an empty line": (b"\r\n",),
        "many empty lines": (b"\r\n" * 40_000,),
        "many empty lines before a request": (b"\r\n" * 1000 + whole,),
        "a body that is too short": (post + b"Content-Length: %d\r\n\r\n" % (len(body) + 9) + body,),
        "a body that is too long": (post + b"Content-Length: 9\r\n\r\n" + body,),
        "a huge length": (post + b"Content-Length: 99999999999999999999\r\n\r\n" + body,),
        "a large length": (post + b"Content-Length: 999999999999\r\n\r\n" + body,),
        "a negative length": (post + b"Content-Length: -1\r\n\r\n" + body,),
        "a length that is none": (post + b"Content-Length: abc\r\n\r\n" + body,),
        "two lengths": (post + b"Content-Length: 5\r\nContent-Length: 9\r\n\r\n" + body,),
        "a length and chunks": (chunked[:-2] + b"Content-Length: 5\r\n\r\n5\r\nhello\r\n0\r\n\r\n",),
        "no chunks": (chunked,),
        "a chunk of no number": (chunked + b"xyz\r\nhello\r\n",),
        "a huge chunk": (chunked + b"ffffffffffffffffff\r\nhello\r\n",),
        "a negative chunk": (chunked + b"-5\r\nhello\r\n",),
        "a chunk that does not end": (chunked + b"5\r\nhello",),
        "many small chunks": (chunked + b"1\r\n{\r\n" * 20_000 + b"0\r\n\r\n",),
        "a long extension of a chunk": (chunked + b"5;" + b"x" * 100_000 + b"\r\nhello\r\n0\r\n\r\n",),
        "many trailers": (chunked + b"0\r\n" + b"x: y\r\n" * 30_000 + b"\r\n",),
        "a long line": (b"GET /" + b"x" * 70_000 + b" HTTP/1.1\r\n\r\n",),
        "a long header": (get + b"X: " + b"x" * 70_000 + b"\r\n\r\n",),
        "many headers": (get + b"x: y\r\n" * 8000 + b"\r\n",),
        "a header without a colon": (get + b"hello\r\n\r\n",),
        "a header of zeros": (get + b"X: \0\0\r\n\r\n",),
        "a folded header": (get + b"X: a\r\n b\r\n\r\n",),
        "bare line ends": (get.replace(b"\r\n", b"\n") + b"\n",),
        "no host": (b"GET /healthz HTTP/1.1\r\nConnection: close\r\n\r\n",),
        "an old version": (b"GET /healthz\r\n\r\n",),
        "another version": (get.replace(b"HTTP/1.1", b"HTTP/7.3") + b"\r\n",),
        "HTTP/2": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(9),),
        "TLS": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500),),
        "an unknown method": (get.replace(b"GET", b"BREW") + b"\r\n",),
        "a method that there is not": (get.replace(b"GET", b"DELETE") + b"\r\n",),
        "a path of dots": (get.replace(b"/healthz", b"/../../etc/passwd") + b"\r\n",),
        "a path of percents": (get.replace(b"/healthz", b"/v2/models/%00%ff%zz/infer") + b"\r\n",),
        "a path that is an address": (get.replace(b"/healthz", b"http://elsewhere/healthz") + b"\r\n",),
        "an offer of websockets": (get + b"Upgrade: websocket\r\nConnection: Upgrade\r\n\r\n",),
        "a wait for 100": (post + b"Expect: 100-continue\r\nContent-Length: 9\r\n\r\n",),
        "a hundred requests at once": (b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n" * 100 + get + b"\r\n",),
    }  # fmt: skip
    given_up = {name: (pieces, True) for name, pieces in wrong.items() if name.startswith(("half", "a wait", "no "))}
    given_up["a whole request"] = ((whole,), True)
    return [
        *((name, pieces, False) for name, pieces in wrong.items()),
        *((f"{name}, and gone", pieces, gone) for name, (pieces, gone) in given_up.items()),
    ]
