"""name_dense(): what every index of every dense weight stands for, so that weights of two models can be compared."""

import re
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

import torch
from torch import nn

from recmoe.features.encoder import FeatureEncoder
from recmoe.features.layout import SHARED_SIDES, DenseColumn, SparseKey
from recmoe.features.schema import NumericFeature
from recmoe.model import MultiTaskRanker, input_order
from recmoe.moe.architectures import ArchitectureConfig
from recmoe.moe.architectures.cgc import SHARED
from recmoe.moe.expert_layer import ExpertLayer
from recmoe.moe.experts import Experts
from recmoe.tasks.tower import Tower

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
    towers, logits = ranker.tasks.tower_names, ranker.tasks.logit_names
    columns = _column_labels(encoder)
    parts = [
        *_vector_parts(encoder),
        *_tower_parts(ranker),
        *_expert_parts(ranker),
    ]
    inputs = _input_axes(architecture, width=encoder.layout.width, task_names=towers)
    by_tower = {"start_T": (logits,), "unit_T": (logits,), **_wide_axes(encoder, logits)}
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
        if re.match(r"vectors\[", logical):
            # Other bucket edges are other inputs: nothing of such a vector goes on.
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
            is_list = encoder.schema.features[part.feature].kind == "id_list"
            meaning = (part.name, part.table, pooling if is_list else None)
        else:
            meaning = (part.name, _number_meaning(encoder, part))
        blocks.append((part.feature, meaning, part.width))
    return blocks


def _column_labels(encoder: FeatureEncoder) -> Labels:
    return tuple((meaning, index) for _, meaning, width in input_labels(encoder) for index in range(width))


def _number_meaning(encoder: FeatureEncoder, column: DenseColumn) -> Hashable:
    """All that decides which float a number becomes."""
    feature = encoder.schema.features[column.feature]
    assert isinstance(feature, NumericFeature)
    numbers = encoder.state.numbers[column.feature]
    scale = (numbers.mean, numbers.std if feature.zscore else None) if column.form == "value" else numbers.edges
    return (column.form, feature.zscore, feature.missing, feature.clip, feature.log1p, scale)


def _wide_axes(encoder: FeatureEncoder, logits: Labels) -> dict[str, tuple[Labels, ...]]:
    """Logits and numbers, by weight of the linear part. A new number's weights begin at 0, as all of them do."""
    numbers: dict[bool, list[Hashable]] = {True: [], False: []}
    for column in encoder.layout.dense:
        if column.form == "value":
            numbers[column.side in SHARED_SIDES].append((column.name, _number_meaning(encoder, column)))
    return {
        "input_layer.wide.shared": (logits, tuple(numbers[True])),
        "input_layer.wide.own": (logits, tuple(numbers[False])),
    }


def _tower_parts(ranker: MultiTaskRanker) -> list[tuple[str, str, Labels | None]]:
    """Towers by the names of their tasks; what the last layer ends in by those of their logits."""
    parts: list[tuple[str, str, Labels | None]] = []
    names = iter(ranker.tasks.logit_names)
    for place, (task, size) in enumerate(zip(ranker.tasks.tower_names, ranker.tasks.num_logits, strict=True)):
        parts.append((f"towers.{place}.", f"towers[{task}].", None))
        tower = ranker.towers[place]
        assert isinstance(tower, Tower)
        last = f"layers.{len(tower.layers) - 1}."
        parts.append((f"towers.{place}.{last}", f"towers[{task}].{last}", tuple(islice(names, size))))
    return parts


def _vector_parts(encoder: FeatureEncoder) -> list[tuple[str, str, Labels | None]]:
    """Linear maps of learned vectors, which are numbered per side, by feature; the label holds the bucket edges."""
    parts: list[tuple[str, str, Labels | None]] = []
    counts = {True: 0, False: 0}
    for column in encoder.layout.dense:
        if column.form == "position":
            is_shared = column.side in SHARED_SIDES
            module = "shared_vectors" if is_shared else "own_vectors"
            meaning = (_number_meaning(encoder, column),)
            parts.append((f"input_layer.{module}.maps.{counts[is_shared]}.", f"vectors[{column.feature}].", meaning))
            counts[is_shared] += 1
    return parts


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
