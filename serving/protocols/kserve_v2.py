"""KServe's inference protocol, version 2, over HTTP: JSON tensors, and binary ones behind a JSON head."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import orjson
from fastapi import APIRouter, Request, Response

from recmoe import __version__
from recmoe.errors import RequestError
from recmoe.ranking.document import document_of
from recmoe.ranking.ranked import Ranked
from recmoe.ranking.ranker import Ranker
from recmoe.ranking.request import ColumnRequest
from recmoe.ranking.texts import shown
from serving.body import check_values
from serving.models.holder import ServedModels
from serving.problem import UnknownModelError
from serving.protocols.kserve import (
    MAX_TENSORS,
    Inference,
    answer_parameters,
    inputs_described,
    is_read,
    outputs_described,
    outputs_of,
    to_request,
)
from serving.protocols.tensors import Tensor, TensorHead, check_total, flattened, of_bytes, of_values, unread
from serving.reply import Reply
from serving.responses import RANKING, refusals
from serving.service import DEADLINE_HEADER, RankingService

HEAD_LENGTH = "Inference-Header-Content-Length"
"""Header: bytes of JSON, after which binary data follows."""
NAME = "kserve"
_BINARY_SIZE, _BINARY, _ALL_BINARY = "binary_data_size", "binary_data", "binary_data_output"


def served(models: ServedModels, name: str, version: str) -> Ranker:
    """The ranker of a model; UnknownModelError where another is served.

    Args:
        version: one that is in use; "" for the champion.
    """
    champion = models.get()
    if name != champion.info.name:
        raise UnknownModelError(f"there is no model {shown(name)}, the server has {champion.info.name}")
    if version == "":
        return champion
    answering = [ranker for role, ranker in models.by_role() if role != "shadow"]
    for ranker in answering:
        if ranker.info.version == version:
            return ranker
    there = " and ".join(ranker.info.version or "one without a number" for ranker in answering)
    raise UnknownModelError(f"there is no version {shown(version)} of {name}, the server has {there}")


class InferCall:
    """One request over HTTP and the answer to it, which is written as the request wants it.

    Args:
        head_length: the header of that name; None where there is none.
        max_values: elements that are read.
    """

    def __init__(self, head_length: str | None, *, max_values: int) -> None:
        self._head_length, self._max_values = head_length, max_values
        self._wanted: Sequence[str] = ()
        self._all_binary = False
        self._binary: Mapping[str, bool] = {}

    def read(self, ranker: Ranker, body: bytes) -> ColumnRequest:
        """A request; RequestError with the input at fault."""
        head, rest = self._parts(body)
        check_values(head, self._max_values)
        document = document_of(head)
        _check_fields(document, "body", ("id", "parameters", "inputs", "outputs"))
        parameters = dict(_object(document.get("parameters", {}), "parameters"))
        self._all_binary = parameters.pop(_ALL_BINARY, False) is True
        self._binary = dict(self._outputs(document.get("outputs", [])))
        self._wanted = list(self._binary)
        inputs = self._inputs(ranker, document.get("inputs", []), rest)
        return to_request(ranker, Inference(document.get("id"), parameters, inputs, self._wanted))

    def encode(self, ranked: Ranked) -> Reply:
        """Predictions, score and order; JSON, or JSON and what is wanted as bytes."""
        pieces, outputs = [], []
        for output in outputs_of(ranked, self._wanted):
            described: dict[str, Any] = {
                "name": output.name,
                "datatype": output.datatype,
                "shape": list(output.values.shape),
            }
            if self._binary.get(output.name, self._all_binary):
                pieces.append(np.ascontiguousarray(output.values).tobytes())
                described["parameters"] = {_BINARY_SIZE: len(pieces[-1])}
            else:
                described["data"] = output.values.tolist()
            outputs.append(described)
        document = {
            "model_name": ranked.model.name,
            **({"model_version": ranked.model.version} if ranked.model.version is not None else {}),
            **({"id": ranked.request_id} if ranked.request_id is not None else {}),
            "parameters": answer_parameters(ranked),
            "outputs": outputs,
        }
        head = orjson.dumps(document)
        if not pieces:
            return Reply(head, "application/json")
        return Reply(b"".join([head, *pieces]), "application/octet-stream", {HEAD_LENGTH: str(len(head))})

    def _parts(self, body: bytes) -> tuple[bytes, memoryview]:
        if self._head_length is None:
            return body, memoryview(b"")
        if not (self._head_length.isascii() and self._head_length.isdecimal() and len(self._head_length) < 20):
            raise RequestError(HEAD_LENGTH, f"expected a number of bytes, found {shown(self._head_length)}")
        length = int(self._head_length)
        if length > len(body):
            raise RequestError(HEAD_LENGTH, f"is {length}, the body has {len(body)} bytes")
        return body[:length], memoryview(body)[length:]

    def _outputs(self, outputs: Any) -> list[tuple[str, bool]]:
        found = []
        for index, output in enumerate(_list(outputs, "outputs")):
            path = f"outputs[{index}]"
            _check_fields(output, path, ("name", "parameters"))
            parameters = _object(output.get("parameters", {}), f"{path}.parameters")
            _check_fields(parameters, f"{path}.parameters", (_BINARY,))
            found.append((_text(output, "name", path), parameters.get(_BINARY, self._all_binary) is True))
        return found

    def _inputs(self, ranker: Ranker, inputs: Any, rest: memoryview) -> list[Tensor]:
        """The tensors; those that are binary take their bytes one after the other."""
        tensors, num_values = [], 0
        for index, given in enumerate(_list(inputs, "inputs")):
            path = f"inputs[{index}]"
            _check_fields(given, path, ("name", "datatype", "shape", "parameters", "data"))
            shape = _list(given.get("shape"), f"{path}.shape")
            if not all(type(length) is int for length in shape):
                raise RequestError(f"{path}.shape", "expected whole numbers")
            head = TensorHead.checked(
                _text(given, "name", path), _text(given, "datatype", path), shape, max_values=self._max_values
            )
            num_values = check_total(num_values + head.num_elements, self._max_values)
            reads = is_read(ranker, head)
            parameters = _object(given.get("parameters", {}), f"{path}.parameters")
            _check_fields(parameters, f"{path}.parameters", (_BINARY_SIZE,))
            if _BINARY_SIZE not in parameters:
                tensors.append(of_values(head, flattened(head, given.get("data"))) if reads else unread(head))
                continue
            size = parameters[_BINARY_SIZE]
            if type(size) is not int or not 0 <= size <= len(rest):
                raise head.error(f"{_BINARY_SIZE} is {shown(size)}, {len(rest)} bytes are left of the body")
            tensors.append(of_bytes(head, rest[:size]) if reads else unread(head))
            rest = rest[size:]
        if len(rest):
            raise RequestError("body", f"goes on for {len(rest)} bytes after the last input")
        return tensors


def kserve_routes(service: RankingService) -> APIRouter:
    """The pages of the protocol."""
    router, models = APIRouter(prefix="/v2"), service.models
    unknown, ranking = refusals(401, 404, 503, is_kserve=True), refusals(*RANKING, 404, is_kserve=True)

    @router.get("")
    async def server() -> dict[str, Any]:
        """Which server this is."""
        return {"name": "recmoe", "version": __version__, "extensions": ["binary_tensor_data"]}

    @router.get("/health/live")
    async def live() -> dict[str, bool]:
        """The process answers."""
        return {"live": True}

    @router.get("/health/ready", responses=refusals(503, is_kserve=True))
    async def ready() -> dict[str, bool]:
        """The model has passed its replay, and the server has not been told to stop."""
        models.get_for_new()
        return {"ready": True}

    @router.get("/models/{name}", responses=unknown)
    @router.get("/models/{name}/versions/{version}", responses=unknown)
    async def model(name: str, version: str = "") -> dict[str, Any]:
        """Inputs and outputs of the model."""
        return model_described(served(models, name, version))

    @router.get("/models/{name}/ready", responses=unknown)
    @router.get("/models/{name}/versions/{version}/ready", responses=unknown)
    async def model_ready(name: str, version: str = "") -> dict[str, Any]:
        """Whether the model ranks."""
        served(models, name, version)
        models.get_for_new()
        return {"name": name, "ready": True}

    @router.post("/models/{name}/infer", responses=ranking, openapi_extra=_described())
    @router.post("/models/{name}/versions/{version}/infer", responses=ranking, openapi_extra=_described())
    async def infer(request: Request, name: str, version: str = "") -> Response:
        """Predictions of the candidates in the order of the inputs, their score, and their places by falling score."""
        call = InferCall(request.headers.get(HEAD_LENGTH), max_values=service.settings.max_values)
        asked = served(models, name, version)
        # A version that is named answers; otherwise the user decides.
        return await service.answer(request, NAME, call.read, call.encode, ranker=asked if version else None)

    return router


def model_described(ranker: Ranker) -> dict[str, Any]:
    """The model's metadata as the protocol writes it."""

    def tensors(described: list[tuple[str, str, list[int]]]) -> list[dict[str, Any]]:
        return [{"name": name, "datatype": datatype, "shape": shape} for name, datatype, shape in described]

    return {
        "name": ranker.info.name,
        "versions": [ranker.info.version] if ranker.info.version is not None else [],
        "platform": "recmoe",
        "inputs": tensors(inputs_described(ranker)),
        "outputs": tensors(outputs_described(ranker)),
    }


def _described() -> dict[str, Any]:
    """The request for the OpenAPI page."""
    tensor = {
        "type": "object",
        "required": ["name", "datatype", "shape"],
        "properties": {
            "name": {"type": "string"},
            "datatype": {"type": "string"},
            "shape": {"type": "array", "items": {"type": "integer"}},
            "parameters": {"type": "object"},
            "data": {"type": "array", "items": {}},
        },
    }
    named = {"type": "object", "properties": {"name": {"type": "string"}, "parameters": {"type": "object"}}}
    schema = {
        "type": "object",
        "required": ["inputs"],
        "properties": {
            "id": {"type": "string"},
            "parameters": {"type": "object", "description": "score: name of the score; top_k: positions in order"},
            "inputs": {"type": "array", "items": tensor},
            "outputs": {"type": "array", "items": named},
        },
    }
    return {
        "requestBody": {"required": True, "content": {"application/json": {"schema": schema}}},
        "parameters": [DEADLINE_HEADER],
    }


def _check_fields(given: Any, path: str, known: Sequence[str]) -> None:
    for name in _object(given, path):
        if name not in known:
            raise RequestError(path, f"has the unknown field {shown(name)}; there are {', '.join(known)}")


def _object(given: Any, path: str) -> Mapping[str, Any]:
    if not isinstance(given, dict):
        raise RequestError(path, f"expected an object, found {shown(given)}")
    return given


def _list(given: Any, path: str) -> list[Any]:
    if not isinstance(given, list):
        raise RequestError(path, f"expected a list, found {shown(given)}")
    if len(given) > MAX_TENSORS:
        raise RequestError(path, f"has {len(given)} elements, at most {MAX_TENSORS} are read")
    return given


def _text(given: Mapping[str, Any], name: str, path: str) -> str:
    text = given.get(name)
    if not isinstance(text, str):
        raise RequestError(f"{path}.{name}", f"expected a string, found {shown(text)}")
    return text
