"""GrpcCalls: messages with mistakes in them, over KServe's protocol in gRPC."""

import random
from collections.abc import Iterator
from types import TracebackType
from typing import Self

from benchmarks.fuzz.mutations import changed_bytes
from benchmarks.fuzz.valid import ValidRequests
from benchmarks.fuzz.wire import HANG, Outcome, Sent

ROUTE = "gRPC ModelInfer"
_MANY = 509_000


def costly_messages(valid: ValidRequests) -> Iterator[Sent]:
    """The largest messages, made to cost as much as they can."""
    from serving.protocols.kserve_messages import MESSAGES

    item = next(iter(valid.model.columns["item"]))

    def message(name: str, datatype: str, shape: list[int], raw: bytes = b"", **contents: list[object]) -> Sent:
        made = MESSAGES["ModelInferRequest"](model_name=valid.model.name)
        tensor = made.inputs.add(name=item, datatype=datatype, shape=shape)
        for field, values in contents.items():
            getattr(tensor.contents, field).extend(values)
        if raw:
            made.raw_input_contents.append(raw)
        return Sent(f"gRPC: {name}", "gRPC", (made.SerializeToString(),))

    yield message("empty texts", "BYTES", [_MANY], b"\0" * (4 * _MANY))
    yield message("long texts", "BYTES", [_MANY // 2, 2], (b"\x1c\0\0\0" + b"x" * 28) * (_MANY // 2 * 2))
    yield message("numbers", "INT64", [_MANY], b"\1" * (8 * _MANY))
    yield message("numbers in contents", "INT64", [_MANY], int64_contents=[1] * _MANY)
    yield message("texts in contents", "BYTES", [_MANY], bytes_contents=[b""] * _MANY)
    yield message("a shape of many axes", "INT64", [1] * _MANY)
    yield Sent("gRPC: empty fields", "gRPC", (b"\x2a\0" * (8 * 2**20),))
    yield Sent("gRPC: numbers without end", "gRPC", (b"\xff" * (16 * 2**20),))


class GrpcCalls:
    """Sends bytes as messages.

    Args:
        address: host and port.
        valid: what right messages are made of.
    """

    def __init__(self, address: str, valid: ValidRequests) -> None:
        import grpc

        from serving.protocols.kserve_messages import MESSAGES

        self._grpc = grpc
        self._channel = grpc.insecure_channel(address)
        self._call = self._channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
        message = MESSAGES["ModelInferRequest"](model_name=valid.model.name)
        for tensor in valid.tensors()["inputs"]:
            message.inputs.add(name=tensor["name"], datatype=tensor["datatype"], shape=tensor["shape"])
        message.raw_input_contents.extend(valid.binary_parts())
        self._message: bytes = message.SerializeToString()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._channel.close()

    def message(self, draw: random.Random) -> Sent:
        """One with a mistake."""
        name, body = changed_bytes(self._message, draw)
        return Sent(f"gRPC: {name}", ROUTE, (body,))

    def send(self, sent: Sent, *, limit_s: float) -> Outcome:
        """What a message is answered with: the name of its code, or 500 where that is the server's fault."""
        try:
            self._call(sent.pieces[0], timeout=limit_s)
        except self._grpc.RpcError as error:
            code = error.code().name
            faults = {"DEADLINE_EXCEEDED": HANG, "INTERNAL": "500", "UNKNOWN": "500"}
            return Outcome(faults.get(code, code), 0.0, str(error.details()).encode())
        return Outcome("OK", 0.0)
