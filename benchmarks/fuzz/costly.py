"""costly(): requests of the largest size that is read, made to cost as much as they can: one of each kind."""

import json
from collections.abc import Iterator, Sequence

from benchmarks.fuzz.valid import ARROW, HEAD_LENGTH, ValidRequests
from benchmarks.fuzz.wire import Sent, http_request

MAX_BYTES = 16 * 2**20 - 1000
MAX_VALUES = 509_000


def costly(valid: ValidRequests) -> Iterator[Sent]:
    """Large requests, all of them wrong."""
    for name, body in _json_bodies():
        yield Sent(f"JSON: {name}", "/v1/rank", (http_request("/v1/rank", body),))
        arrow = http_request("/v1/rank", body, {"Content-Type": ARROW})
        yield Sent(f"Arrow: {name}", "/v1/rank (Arrow)", (arrow,))
        yield Sent(f"KServe: {name}", valid.infer, (http_request(valid.infer, body),))
    for name, body in _tensor_bodies(valid):
        yield Sent(f"KServe: {name}", valid.infer, (http_request(valid.infer, body),))
    text = b"\x00" * (4 * MAX_VALUES)
    for name, head in (("empty texts", {"datatype": "BYTES", "shape": [MAX_VALUES]}),):
        given = {"name": "item_id", **head, "parameters": {"binary_data_size": len(text)}}
        head_bytes = json.dumps({"inputs": [given]}).encode()
        request = http_request(valid.infer, head_bytes + text, {HEAD_LENGTH: str(len(head_bytes))})
        yield Sent(f"KServe, binary: {name}", valid.infer, (request,))


def _json_bodies() -> Iterator[tuple[str, bytes]]:
    half, many = b"\\ud83d", MAX_VALUES
    yield "one long text", b'{"user": {"user_id": "' + b"x" * MAX_BYTES + b'"}, "candidates": [{}]}'
    yield "one long text of two bytes each", b'{"user": {"user_id": "' + b"\xc3\xa4" * (MAX_BYTES // 2) + b'"}}'
    yield "one long text of escapes", b'{"user": {"user_id": "' + b"\\n" * (MAX_BYTES // 2) + b'"}}'
    yield "one long text with half a character", b'{"user": {"user_id": "' + b"x" * MAX_BYTES + half + b'"}}'
    yield "half characters alone", b'{"user": {"user_id": "' + half * (MAX_BYTES // 6) + b'"}}'
    yield "one long text that does not end", b'{"user": {"user_id": "' + b"x" * MAX_BYTES
    yield "a long name", b'{"' + b"x" * MAX_BYTES + b'": 1}'
    yield "a long text and NaN", b'{"user": {"user_id": "' + b"x" * MAX_BYTES + b'", "age": NaN}}'
    yield "a number of many digits", b'{"user": {"age": ' + b"1" * MAX_BYTES + b"}}"
    yield "a fraction of many digits", b'{"user": {"age": 0.' + b"1" * MAX_BYTES + b"}}"
    yield "spaces", b" " * MAX_BYTES
    yield "no UTF-8", b"\xff" * MAX_BYTES
    yield "zeros", bytes(MAX_BYTES)
    yield "UTF-16", b'{"user": 1}'.decode().encode("utf-16") + b" \x00" * (MAX_BYTES // 2 - 100)
    yield "deep lists", b"[" * many
    yield "deep objects", b'{"a":' * many
    yield "closing brackets", b'{"candidates": ' + b"]" * MAX_BYTES
    yield "many empty lists", b'{"candidates": [' + b"[]," * (many // 2) + b"[]]}"
    yield "many empty objects", b'{"candidates": [' + b"{}," * (many // 2) + b"{}]}"
    yield "many numbers", b'{"candidates": [' + b"1," * many + b"1]}"
    yield "many numbers with NaN", b'{"candidates": [' + b"1," * many + b"NaN]}"
    yield "many texts, NaN and an emoji", b'{"candidates": [' + b'"x",' * (many - 100) + b'NaN,"\\ud83d\\ude00"]}'
    yield "many lists, NaN and an emoji", b'{"candidates": [' + b"[]," * (many // 2 - 100) + b'NaN,"\\ud83d\\ude00"]}'
    rows = b",".join(b"{" + b",".join(b'"%d":"x"' % name for name in range(48)) + b"}" for _ in range(9999))
    yield "candidates with half a character", b'{"candidates": [' + rows + b'],"user": {"a": "' + half + b'"}}'
    yield "names with half a character", b'{"user": {' + b'"a":{"b":1},' * (many // 3) + b'"a": "' + half + b'"}}'
    yield "many names", b'{"user": {' + b",".join(b'"%d":0' % number for number in range(many)) + b"}}"
    yield "many fields", b"{" + b",".join(b'"%d":0' % number for number in range(many)) + b"}"
    yield "many names of a candidate", b'{"candidates": [{' + b",".join(b'"%d":0' % one for one in range(many)) + b"}]}"
    yield "many columns", b'{"candidates": {' + b",".join(b'"%d":[]' % number for number in range(many // 2)) + b"}}"
    yield "many tasks", b'{"candidates": [{}], "tasks": [' + b'"x",' * many + b'"x"]}'


def _tensor_bodies(valid: ValidRequests) -> Iterator[tuple[str, bytes]]:
    item, count = next(iter(valid.model.columns["item"])), MAX_VALUES - 100

    def inputs(*tensors: dict[str, object]) -> bytes:
        return json.dumps({"inputs": tensors}, separators=(",", ":")).encode()

    def tensor(datatype: str, values: Sequence[object], **changes: object) -> dict[str, object]:
        return {"name": item, "datatype": datatype, "shape": [len(values)], "data": values, **changes}

    yield "many numbers", inputs(tensor("INT64", [1] * count))
    yield "many fractions", inputs(tensor("FP64", [0.5] * count))
    yield "many texts", inputs(tensor("BYTES", [""] * count))
    yield "many long texts", inputs(tensor("BYTES", ["x" * 28] * count))
    yield "many nulls", inputs(tensor("FP32", [None] * count))
    yield "numbers and one text", inputs(tensor("INT64", [*[1] * (count - 1), "x"]))
    yield "texts and one number", inputs(tensor("BYTES", [*["x"] * (count - 1), 1]))
    yield "numbers out of range", inputs(tensor("UINT8", [1] * (count - 1) + [256]))
    yield "one number too few", inputs(tensor("INT64", [1] * count, shape=[count + 1]))
    yield "lists of one", inputs(tensor("INT64", [[1]] * (count // 2), shape=[count // 2, 1]))
    yield "lists of nothing", inputs(tensor("INT64", [[]] * (count // 2), shape=[count // 2, 0]))
    yield "many inputs", inputs(*[tensor("INT64", [1] * 400, name=f"a{number}") for number in range(999)])
    yield "many equal inputs", inputs(*[tensor("INT64", [1] * 400) for _ in range(999)])
    yield "a shape of many axes", inputs(tensor("INT64", [1], shape=[1] * count))
    yield (
        "many lengths",
        inputs(tensor("INT64", [1] * (count // 2)), tensor("INT64", [1] * (count // 2), name=f"{item}:lengths")),
    )
    yield "a long name", inputs(tensor("INT64", [1], name="x" * MAX_BYTES))
    yield "a long text", inputs(tensor("BYTES", ["x" * MAX_BYTES]))
    yield "a long datatype", inputs(tensor("x" * MAX_BYTES, [1]))
