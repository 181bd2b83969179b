"""GrpcInferCall: one ModelInfer request of gRPC and the answer to it."""

from typing import Any

import numpy as np
from google.protobuf.message import DecodeError

from recmoe.errors import RequestError
from recmoe.ranking.ranked import Ranked
from recmoe.ranking.ranker import Ranker
from recmoe.ranking.request import ColumnRequest
from serving.protocols.kserve import MAX_TENSORS, Inference, Output, answer_parameters, is_read, outputs_of, to_request
from serving.protocols.kserve_messages import MESSAGES
from serving.protocols.tensors import BYTES, Tensor, TensorHead, check_total, of_bytes, of_values, texts_of, unread
from serving.protocols.wire import Nested, check_fields
from serving.reply import Reply

_MAP: Nested = {2: {}}
_NESTED: Nested = {4: _MAP, 5: {4: _MAP}, 6: {2: _MAP}}
"""Where a request holds messages: parameters, inputs and outputs with theirs."""
_CONTENTS = {
    "BOOL": "bool_contents",
    "INT8": "int_contents",
    "INT16": "int_contents",
    "INT32": "int_contents",
    "INT64": "int64_contents",
    "UINT8": "uint_contents",
    "UINT16": "uint_contents",
    "UINT32": "uint_contents",
    "UINT64": "uint64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    BYTES: "bytes_contents",
}
"""Which list of a tensor's contents has the elements of a datatype."""


def read_message(body: bytes, kind: str) -> Any:
    """A message; RequestError where it is none, or holds more than is read."""
    check_fields(body, _NESTED)
    try:
        return MESSAGES[kind].FromString(body)
    except DecodeError as error:
        raise RequestError("body", f"is no message of the protocol: {error}") from error


class GrpcInferCall:
    """Reads a message and writes the answer as the request was written: raw bytes, or lists of numbers.

    Args:
        max_values: elements that are read.
    """

    def __init__(self, *, max_values: int) -> None:
        self._max_values = max_values
        self._wanted: list[str] = []
        self._is_raw = True

    def read(self, ranker: Ranker, message: Any) -> ColumnRequest:
        """A ModelInferRequest; RequestError with the input at fault."""
        for kind, tensors in (("inputs", message.inputs), ("outputs", message.outputs)):
            if len(tensors) > MAX_TENSORS:
                raise RequestError(kind, f"has {len(tensors)} elements, at most {MAX_TENSORS} are read")
            for index, tensor in enumerate(tensors):
                for name in tensor.parameters:
                    raise RequestError(f"{kind}[{index}].parameters", f"there are none, found {name[:100]}")
        self._wanted = [output.name for output in message.outputs]
        self._is_raw = bool(message.raw_input_contents) or not message.inputs
        parameters = {name: _value(parameter) for name, parameter in message.parameters.items()}
        return to_request(ranker, Inference(message.id, parameters, self._inputs(ranker, message), self._wanted))

    def encode(self, ranked: Ranked) -> Reply:
        """Predictions, score and order."""
        message = MESSAGES["ModelInferResponse"](
            model_name=ranked.model.name, model_version=ranked.model.version or "", id=ranked.request_id or ""
        )
        for name, text in answer_parameters(ranked).items():
            message.parameters[name].string_param = text
        for output in outputs_of(ranked, self._wanted):
            self._add(message, output)
        return Reply(message.SerializeToString(), "application/grpc")

    def _add(self, message: Any, output: Output) -> None:
        tensor = message.outputs.add(name=output.name, datatype=output.datatype, shape=output.values.shape)
        if self._is_raw:
            message.raw_output_contents.append(np.ascontiguousarray(output.values).tobytes())
        else:
            getattr(tensor.contents, _CONTENTS[output.datatype]).extend(output.values.tolist())

    def _inputs(self, ranker: Ranker, message: Any) -> list[Tensor]:
        raw = message.raw_input_contents
        if raw and len(raw) != len(message.inputs):
            raise RequestError(
                "raw_input_contents", f"has {len(raw)} elements for {len(message.inputs)} inputs; give one each"
            )
        tensors, num_values = [], 0
        for index, given in enumerate(message.inputs):
            head = TensorHead.checked(given.name, given.datatype, given.shape, max_values=self._max_values)
            num_values = check_total(num_values + head.num_elements, self._max_values)
            if not is_read(ranker, head):
                tensors.append(unread(head))
            elif not raw:
                tensors.append(_of_contents(head, given.contents))
            elif given.HasField("contents"):
                raise head.error("has contents beside raw_input_contents; give one of them")
            else:
                tensors.append(of_bytes(head, memoryview(raw[index])))
        return tensors


def _of_contents(head: TensorHead, contents: Any) -> Tensor:
    name = _CONTENTS.get(head.datatype)
    if name is None:
        raise head.error(f"of {head.datatype} has no contents in the protocol; give raw_input_contents")
    values = getattr(contents, name)
    if head.datatype == BYTES:
        return texts_of(head, list(values))
    if head.datatype in ("FP32", "FP64"):
        # NaN is a value left out, as in bytes.
        dtype = np.float32 if head.datatype == "FP32" else np.float64
        return of_bytes(head, memoryview(np.array(values, dtype).tobytes()))
    return of_values(head, list(values))


def _value(parameter: Any) -> Any:
    kind = parameter.WhichOneof("parameter_choice")
    return None if kind is None else getattr(parameter, kind)
