"""ValidRequests: right requests in every form that a server reads, which others are made of by mistakes."""

import json
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from recmoe.client import ServedModel
from serving.bench.payloads import made_requests

ARROW = "application/vnd.apache.arrow.stream"
HEAD_LENGTH = "Inference-Header-Content-Length"
_TYPES = {"bool": "BOOL", "float": "FP32", "double": "FP64"}


@dataclass(frozen=True)
class ValidRequests:
    """Requests for one user and some candidates with every column that the model knows."""

    model: ServedModel
    document: dict[str, Any]
    """As POST /v1/rank takes it."""

    @classmethod
    def of(cls, model: ServedModel, *, num_candidates: int, seed: int) -> "ValidRequests":
        (document,) = made_requests(model, num_requests=1, num_candidates=num_candidates, num_ids=1, seed=seed)
        return cls(model, document)

    @property
    def infer(self) -> str:
        """The path of KServe's protocol."""
        return f"/v2/models/{self.model.name}/infer"

    def arrow(self) -> bytes:
        """As an Arrow stream."""
        rows = pa.Table.from_pylist(self.document["candidates"])
        rest = {name: value for name, value in self.document.items() if name != "candidates"}
        rows = rows.replace_schema_metadata({"recmoe": json.dumps(rest)})
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, rows.schema) as writer:
            writer.write_table(rows)
        content: bytes = sink.getvalue().to_pybytes()
        return content

    def tensors(self) -> dict[str, Any]:
        """As KServe's JSON."""
        rows = self.document["candidates"]
        columns = {name: [value] for side in ("user", "context") for name, value in self.document[side].items()}
        columns |= {name: [row[name] for row in rows] for name in (rows[0] if rows else {})}
        types = {name: kind for kinds in self.model.columns.values() for name, kind in kinds.items()}
        return {"id": "fuzz", "inputs": [_tensor(name, values, types[name]) for name, values in columns.items()]}

    def binary_tensors(self) -> tuple[bytes, bytes]:
        """As KServe's JSON, and the bytes that follow it."""
        head, pieces = self.tensors(), self.binary_parts()
        for tensor, piece in zip(head["inputs"], pieces, strict=True):
            del tensor["data"]
            tensor["parameters"] = {"binary_data_size": len(piece)}
        return json_bytes(head), b"".join(pieces)

    def binary_parts(self) -> list[bytes]:
        """The bytes of each tensor."""
        return [_bytes_of(tensor["datatype"], tensor["data"]) for tensor in self.tensors()["inputs"]]


def json_bytes(document: Any) -> bytes:
    """A document as it is sent."""
    return json.dumps(document).encode()


def _tensor(name: str, values: list[Any], kind: str) -> dict[str, Any]:
    is_list = bool(values) and isinstance(values[0], list)
    inner = kind.partition(": ")[2].rstrip(">") if is_list else kind
    datatype = _TYPES.get(inner, inner.upper() if inner.startswith(("int", "uint")) else "BYTES")
    flat = [element for value in values for element in value] if is_list else values
    shape = [len(values), len(values[0])] if is_list else [len(values)]
    if datatype == "BYTES":
        flat = ["" if value is None else str(value) for value in flat]
    return {"name": name, "datatype": datatype, "shape": shape, "data": flat}


def _bytes_of(datatype: str, values: list[Any]) -> bytes:
    if datatype == "BYTES":
        texts = [value.encode() for value in values]
        return b"".join(len(text).to_bytes(4, "little") + text for text in texts)
    types = {"BOOL": pa.uint8(), "FP32": pa.float32(), "FP64": pa.float64()}
    kind = types.get(datatype) or pa.type_for_alias(datatype.lower())
    content: bytes = pa.array(values, kind).buffers()[1].to_pybytes()[: len(values) * kind.bit_width // 8]
    return content
