"""name_dense(): what every index of every dense weight stands for, so that weights of two models can be compared."""

import re
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from recmoe.embeddings.tables import member_name
from recmoe.features.encoder import FeatureEncoder
from recmoe.features.layout import SHARED_SIDES, SparseKey
from recmoe.model import MultiTaskRanker, input_order, input_width
from recmoe.model.histories import HistoryColumns
from recmoe.moe.architectures import ArchitectureConfig
from recmoe.moe.architectures.cgc import SHARED
from recmoe.moe.expert_layer import ExpertLayer
from recmoe.moe.experts import Experts

RANKER = "ranker."
"""Names of the ranker's weights inside the training model begin so."""

Labels = tuple[Hashable, ...]


@dataclass(frozen=True)
class NamedTensor:
    """A dense weight under a name that no order of tasks or features changes.

    Example: the gate of ctr over three experts, with two input columns::

        name    architecture.layer.gates[ctr].weight_VD
        labels  (("ctr.0", "ctr.1", "shared.0"), ((("price", …), 0), (("age", …), 0)))
        inputs  1
    """

    name: str
    labels: tuple[Labels | None, ...]
    """Per axis: what each index stands for; None where it is the index alone."""
    inputs: int | None = None
    """The axis of the model's input columns, where it has one."""


def name_dense(
    shapes: Mapping[str, Sequence[int]],
    *,
    ranker: MultiTaskRanker,
    architecture: ArchitectureConfig,
    encoder: FeatureEncoder,
) -> dict[str, NamedTensor]:
    """The meaning of the dense weights of a training model, by their names in it.

    Args:
        shapes: of the weights; names as in ``logical.dense_state`` of the training model.
        ranker: the model inside, on any device, the meta device too.
        architecture: what its architecture was built from.
        encoder: what its inputs are made by.
    """
    towers = ranker.tasks.tower_names
    columns = _column_labels(encoder)
    parts = [
        *_vector_parts(encoder),
        *_history_parts(encoder),
        *((f"towers.{i}.", f"towers[{task}].", None) for i, task in enumerate(towers)),
        *_expert_parts(ranker),
    ]
    inputs = _input_axes(architecture, width=input_width(encoder.layout), task_names=towers)
    by_tower = {"start_T": (towers,), "unit_T": (towers,), **_wide_axes(encoder, towers)}
    named = {}
    for name, shape in shapes.items():
        inner = name.removeprefix(RANKER)
        if inner in by_tower:
            named[name] = NamedTensor(inner, by_tower[inner])
            continue
        logical, first = inner, None
        for prefix, stands_for, labels in parts:
            if inner.startswith(prefix):
                logical, first = stands_for + inner.removeprefix(prefix), labels
        if inner.startswith("weighting."):
            first = ranker.tasks.names
        axes: list[Labels | None] = [None] * len(shape)
        if first is not None and shape and len(first) == shape[0]:
            axes[0] = first
        axis = inputs.get(inner)
        if axis is not None:
            axes[axis] = columns
        if re.match(r"(vectors|histories)\[", logical):
            # Other bucket edges or columns of a history are other inputs: nothing of such a module goes on.
            axes[-1] = tuple((first, index) for index in range(shape[-1]))
        named[name] = NamedTensor(logical, tuple(axes), axis)
    return named


def input_labels(encoder: FeatureEncoder) -> list[tuple[str, Hashable, int]]:
    """Per block of input columns: the feature, what the block means, and how wide it is."""
    blocks: list[tuple[str, Hashable, int]] = []
    for part in input_order(encoder.layout):
        meaning: Hashable
        if isinstance(part, SparseKey):
            pooling = next(spec.pooling for spec in encoder.layout.tables if spec.name == part.table)
            meaning = (part.name, part.table, pooling if part.is_list else None)
        else:
            meaning = (part.name, part.meaning)
        blocks.append((part.feature, meaning, part.width))
    return blocks


def _column_labels(encoder: FeatureEncoder) -> Labels:
    return tuple((meaning, index) for _, meaning, width in input_labels(encoder) for index in range(width))


def _wide_axes(encoder: FeatureEncoder, towers: Labels) -> dict[str, tuple[Labels, ...]]:
    """Towers and numbers, by weight of the linear part. A new number's weights begin at 0, as all of them do."""
    numbers: dict[bool, list[Hashable]] = {True: [], False: []}
    for column in encoder.layout.dense:
        if column.form == "value":
            numbers[column.side in SHARED_SIDES].append((column.name, column.meaning))
    return {
        "input_layer.wide.shared": (towers, tuple(numbers[True])),
        "input_layer.wide.own": (towers, tuple(numbers[False])),
    }


def _vector_parts(encoder: FeatureEncoder) -> list[tuple[str, str, Labels | None]]:
    """Linear maps of learned vectors, which are numbered per side, by feature; the label holds the bucket edges."""
    parts: list[tuple[str, str, Labels | None]] = []
    counts = {True: 0, False: 0}
    for column in encoder.layout.dense:
        if column.form == "position":
            is_shared = column.side in SHARED_SIDES
            module = "shared_vectors" if is_shared else "own_vectors"
            meaning = (column.meaning,)
            parts.append((f"input_layer.{module}.maps.{counts[is_shared]}.", f"vectors[{column.feature}].", meaning))
            counts[is_shared] += 1
    return parts


def _history_parts(encoder: FeatureEncoder) -> list[tuple[str, str, Labels | None]]:
    """Encoders of histories by feature; the label holds all that they read."""
    return [
        (f"input_layer.histories.encoders.{member_name(part.name)}.", f"histories[{part.name}].", (part.meaning,))
        for part in input_order(encoder.layout)
        if isinstance(part, HistoryColumns)
    ]


def _expert_parts(ranker: MultiTaskRanker) -> list[tuple[str, str, Labels | None]]:
    """Experts and gates by the names of their tasks."""
    tasks = ranker.tasks.tower_names
    experts: Labels = getattr(ranker.architecture, "expert_names", tasks)
    parts: list[tuple[str, str, Labels | None]] = []
    for path, module in ranker.architecture.named_modules(prefix="architecture"):
        if isinstance(module, Experts):
            parts.append((f"{path}.", f"{path}.", experts))
        if isinstance(module, ExpertLayer):
            # An architecture that does not name its tasks has one gate for all of them.
            owners = (*getattr(ranker.architecture, "task_names", ()), SHARED)
            for gate, seen in enumerate(module.seen):
                names = tuple(experts[expert] for expert in seen)
                parts.append((f"{path}.gates.{gate}.", f"{path}.gates[{owners[gate]}].", names))
    return parts


def _input_axes(architecture: ArchitectureConfig, *, width: int, task_names: Sequence[str]) -> dict[str, int]:
    """By weight: the axis of the input columns, found by building the architecture for one column more."""

    def shapes(in_features: int) -> dict[str, torch.Size]:
        with torch.device("meta"):
            built: nn.Module = architecture.build(in_features=in_features, task_names=task_names)
        return {f"architecture.{name}": tensor.shape for name, tensor in built.state_dict().items()}

    narrow, wide = shapes(width), shapes(width + 1)
    return {
        name: next(axis for axis, size in enumerate(shape) if size != wide[name][axis])
        for name, shape in narrow.items()
        if shape != wide[name]
    }
