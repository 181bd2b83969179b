"""KServe's inference protocol, version 2: tensors → a request, and ranked candidates → tensors, on HTTP and gRPC alike.

https://kserve.github.io/website/docs/concepts/architecture/data-plane/v2-protocol. Each column is an input. Lists are a
tensor of two axes, or one of all their elements with a second input NAME:lengths that says how many each list has.
"""

# C candidates, K items, N elements

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from recmoe.errors import RequestError
from recmoe.features.columns import is_list_type
from recmoe.features.layout import SHARED_SIDES
from recmoe.ranking.prediction_columns import order_column, score_column
from recmoe.ranking.ranked import Ranked
from recmoe.ranking.ranker import Ranker
from recmoe.ranking.request import ColumnRequest, RankOptions, check_num_candidates
from recmoe.ranking.score import unknown_name
from recmoe.ranking.texts import short
from recmoe.ranking.values import RequestColumn, check_list_length
from serving.protocols.tensors import BYTES, Tensor, TensorHead

MAX_TENSORS = 1000
"""Inputs of a request, and outputs that it names."""
LENGTHS = ":lengths"
PARAMETERS = ("score", "top_k")
"""Parameters of a request that are read here."""


@dataclass(frozen=True)
class Inference:
    """A request as the protocol has it."""

    id: str | None
    parameters: Mapping[str, Any]
    inputs: Sequence[Tensor]
    outputs: Sequence[str]
    """Names of those that are wanted; all where it names none."""


@dataclass(frozen=True)
class Output:
    """One tensor of an answer."""

    name: str
    datatype: str
    values: NDArray[Any]


def is_read(ranker: Ranker, head: TensorHead) -> bool:
    """Whether the elements of an input count, and not its name alone; RequestError where it cannot be one of a request.

    That is asked before elements are made of the input: there may be half a million of them.
    """
    columns = {name: (side, one) for side, of_side in ranker.request_columns.items() for name, one in of_side.items()}
    if head.name not in columns and head.name.removesuffix(LENGTHS) not in columns:
        return False
    side, column = columns.get(head.name, ("item", None))
    is_list = column is not None and is_list_type(column.type)
    if len(head.shape) == 2 or not is_list:
        check_num_candidates(head.shape[0] or 1, ranker.config.max_candidates)
    if is_list and side in SHARED_SIDES:
        check_list_length(head.num_elements, head.label, ranker.config)
    return True


def to_request(ranker: Ranker, inference: Inference) -> ColumnRequest:
    """The request that the tensors make; RequestError with the input at fault."""
    for name in inference.parameters:
        if name in ("explain", "top_features"):
            raise RequestError(f"parameters.{name}", "tensors hold no explanations; POST /v1/rank gives them")
        if name not in PARAMETERS:
            raise RequestError(f"parameters.{short(name)}", unknown_name("parameter", name, PARAMETERS))
    known = output_names(ranker)
    for index, name in enumerate(inference.outputs):
        if name not in known:
            raise RequestError(f"outputs[{index}]", unknown_name("output", name, known))
    tensors: dict[str, Tensor] = {}
    for tensor in inference.inputs:
        if tensor.head.name in tensors:
            raise tensor.head.error("is there twice")
        tensors[tensor.head.name] = tensor
    columns = ranker.request_columns
    shared: dict[str, dict[str, Any]] = {side: {} for side in SHARED_SIDES}
    own: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        side = next((side for side in SHARED_SIDES if name in columns[side]), None)
        if side is not None:
            shared[side][name] = _one_value(tensor, columns[side][name])
        elif not (name.endswith(LENGTHS) and name.removesuffix(LENGTHS) in tensors):
            own[name] = tensor
    num_candidates = _num_candidates(own, tensors, columns["item"])
    options = {"request_id": inference.id or None, **shared, **inference.parameters}
    return ColumnRequest(
        RankOptions.parse(options),
        {
            name: _column(tensor, columns["item"].get(name), tensors.get(name + LENGTHS), num_candidates)
            for name, tensor in own.items()
        },
        num_candidates,
    )


def _one_value(tensor: Tensor, column: RequestColumn) -> Any:
    """The value of a column of user or context, which may be there once or once for each candidate."""
    if is_list_type(column.type):
        if len(tensor.head.shape) == 2 and tensor.head.shape[0] != 1:
            raise tensor.head.error(f"has the shape {list(tensor.head.shape)}; there is one list: give [1, LENGTH]")
        return tensor.values.to_pylist()
    if len(tensor.values) == 0 or len(tensor.values.unique()) != 1:
        raise tensor.head.error("belongs to all candidates: give one value, or the same one for each of them")
    return tensor.values[0].as_py()


def _num_candidates(own: Mapping[str, Tensor], all_: Mapping[str, Tensor], columns: Mapping[str, RequestColumn]) -> int:
    """How many there are; RequestError where two inputs disagree."""
    first: tuple[str, int] | None = None
    for name, tensor in own.items():
        if name not in columns:
            continue
        rows = all_.get(name + LENGTHS, tensor)
        if first is None:
            first = name, rows.head.shape[0]
        elif rows.head.shape[0] != first[1]:
            raise rows.head.error(f"has {rows.head.shape[0]} rows, {short(first[0])} has {first[1]}; give one each")
    return 0 if first is None else first[1]


def _column(tensor: Tensor, column: RequestColumn | None, lengths: Tensor | None, num_candidates: int) -> pa.Array:
    """The values of C candidates; nulls for a column that the model does not know, which is warned of by its name."""
    if column is None:
        return pa.nulls(num_candidates)
    head = tensor.head
    if lengths is not None:
        lengths_C = lengths.values
        if not pa.types.is_integer(lengths_C.type) or lengths_C.null_count or len(head.shape) != 1:
            raise lengths.head.error(f"says how long the lists of {short(head.name)} are: give whole numbers for it")
        ends_C = np.concatenate([[0], np.cumsum(lengths_C.to_numpy().astype(object))])
        if min(lengths_C.to_pylist(), default=0) < 0 or ends_C[-1] != len(tensor.values):
            raise lengths.head.error(f"adds up to {ends_C[-1]}, {short(head.name)} has {len(tensor.values)} elements")
        return pa.ListArray.from_arrays(pa.array(ends_C.astype(np.int32)), tensor.values)
    if len(head.shape) == 2 and is_list_type(column.type):
        return pa.FixedSizeListArray.from_arrays(tensor.values, head.shape[1]) if head.shape[1] else _empty(tensor)
    if len(tensor.values) != num_candidates:
        raise head.error(f"has the shape {list(head.shape)} for {num_candidates} candidates; give one value for each")
    return tensor.values


def _empty(tensor: Tensor) -> pa.Array:
    """Lists without elements."""
    return pa.ListArray.from_arrays(pa.array([0] * (tensor.head.shape[0] + 1), pa.int32()), tensor.values)


def output_names(ranker: Ranker) -> list[str]:
    """Names of all outputs: the tasks, then the score and the order."""
    tasks = ranker.task_names
    return [*tasks, score_column(tasks), order_column(tasks)]


def outputs_of(ranked: Ranked, wanted: Sequence[str]) -> list[Output]:
    """Predictions and score of the candidates as they came, and the positions of the items to show."""
    found = {
        task: Output(task, "FP32", predictions_C.astype(np.float32))
        for task, predictions_C in zip(ranked.task_names, ranked.predictions_CT.T, strict=True)
    }
    score, order = score_column(ranked.task_names), order_column(ranked.task_names)
    found[score] = Output(score, "FP64", ranked.score_C.to_numpy(zero_copy_only=False))
    found[order] = Output(order, "INT64", ranked.order_K)
    return [found[name] for name in wanted or found]


def answer_parameters(ranked: Ranked) -> dict[str, str]:
    """What else there is to say: which score, by which model, and warnings as JSON."""
    warnings = [warning.model_dump(mode="json") for warning in ranked.warnings]
    return {
        "score": ranked.score.name,
        "digest": ranked.model.digest,
        **({"warnings": json.dumps(warnings)} if warnings else {}),
    }


def inputs_described(ranker: Ranker) -> list[tuple[str, str, list[int]]]:
    """Name, datatype and shape of each input; -1 is any length."""
    return [
        (
            name,
            _datatype(column.type),
            [-1 if side == "item" else 1, *([-1] if is_list_type(column.type) else [])],
        )
        for side, columns in ranker.request_columns.items()
        for name, column in columns.items()
    ]


def outputs_described(ranker: Ranker) -> list[tuple[str, str, list[int]]]:
    """Name, datatype and shape of each output."""
    *tasks, score, order = output_names(ranker)
    return [*((task, "FP32", [-1]) for task in tasks), (score, "FP64", [-1]), (order, "INT64", [-1])]


def _datatype(type_: pa.DataType) -> str:
    if is_list_type(type_):
        return _datatype(type_.value_type)
    if pa.types.is_boolean(type_):
        return "BOOL"
    if pa.types.is_integer(type_):
        return str(type_).upper()
    return "FP64" if pa.types.is_floating(type_) else BYTES
