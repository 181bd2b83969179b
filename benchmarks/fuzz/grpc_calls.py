"""GrpcCalls: messages with mistakes in them, over KServe's protocol in gRPC."""

import random
from types import TracebackType
from typing import Self

from benchmarks.fuzz.mutations import changed_bytes
from benchmarks.fuzz.valid import ValidRequests
from benchmarks.fuzz.wire import HANG, Outcome, Sent

ROUTE = "gRPC ModelInfer"


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
