"""name_dense(): what every index of every dense weight stands for, so that weights of two models can be compared."""

from collections.abc import Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch

from recmoe.architectures.seam import Parts, copy_group
from recmoe.axes import Labels, RowLabel, describe
from recmoe.embeddings.tables import member_name
from recmoe.features.encoder import FeatureEncoder
from recmoe.features.layout import SHARED_SIDES, SparseKey
from recmoe.model import ModelConfig, MultiTaskRanker, feature_widths, input_order, model_parts
from recmoe.model.histories import HistoryColumns

RANKER = "ranker."
"""Names of the ranker's weights inside the training model begin so."""


@dataclass(frozen=True)
class NamedTensor:
    """A dense weight under a name that no order of tasks or features changes.

    Example: the gate of ctr over three experts, with two input columns::

        name    model.architecture.layer.gates[ctr].weight_VD
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
    config: ModelConfig,
    encoder: FeatureEncoder,
) -> dict[str, NamedTensor]:
    """The meaning of the dense weights of a training model, by their names in it.

    Args:
        shapes: of the weights; names as in ``logical.dense_state`` of the training model.
        ranker: the model inside, on any device, the meta device too.
        config: what it was built from.
        encoder: what its inputs are made by.
    """
    logits = ranker.tasks.logit_names
    # A pre-training has read no label: where its tasks start means nothing.
    start = "" if config.pretraining is None else "pretraining."
    known = {
        **{name: NamedTensor(f"{start}{name}", (logits,)) for name in ("start_T", "unit_T")},
        **{name: NamedTensor(name, axes) for name, axes in _wide_axes(encoder, logits).items()},
        **_named_vectors(encoder, ranker),
        **_named_histories(encoder, ranker),
        **_named_model(ranker, config, encoder),
        **_named_position(ranker, config),
    }
    named = {}
    for name, shape in shapes.items():
        inner = name.removeprefix(RANKER)
        if inner.startswith("weighting."):
            first = ranker.tasks.names if shape and len(ranker.tasks.names) == shape[0] else None
            named[name] = NamedTensor(inner, (first, *[None] * (len(shape) - 1)) if shape else ())
        elif inner.startswith("heads."):
            assert config.pretraining is not None
            named[name] = NamedTensor(inner, (None,) * len(shape))
        else:
            named[name] = known[inner]
    return named


def _named_position(ranker: MultiTaskRanker, config: ModelConfig) -> dict[str, NamedTensor]:
    """The tower on positions, which stands next to the ranker."""
    if config.position is None:
        return {}
    with torch.device("meta"), torch.random.fork_rng(devices=[]):
        described = describe(config.position.build(ranker.tasks))
    return {f"position.{name}": NamedTensor(f"position.{one.name}", one.axes) for name, one in described.items()}


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


def _column_labels(encoder: FeatureEncoder, features: Collection[str] | None = None) -> Labels:
    """Of the columns of x_BD, or of a group of features."""
    return tuple(
        (meaning, index)
        for feature, meaning, width in input_labels(encoder)
        if features is None or feature in features
        for index in range(width)
    )


def _wide_axes(encoder: FeatureEncoder, logits: Labels) -> dict[str, tuple[Labels, ...]]:
    """Logits and numbers, by weight of the linear part. A new number's weights begin at 0, as all of them do."""
    numbers: dict[bool, list[Hashable]] = {True: [], False: []}
    for column in encoder.layout.dense:
        if column.form == "value":
            numbers[column.side in SHARED_SIDES].append((column.name, column.meaning))
    return {
        "input_layer.wide.shared": (logits, tuple(numbers[True])),
        "input_layer.wide.own": (logits, tuple(numbers[False])),
    }


def _named_vectors(encoder: FeatureEncoder, ranker: MultiTaskRanker) -> dict[str, NamedTensor]:
    """Linear maps of learned vectors, which are numbered per side, by feature; the label holds the bucket edges."""
    named: dict[str, NamedTensor] = {}
    counts = {True: 0, False: 0}
    state = ranker.input_layer.state_dict()
    for column in encoder.layout.dense:
        if column.form != "position":
            continue
        is_shared = column.side in SHARED_SIDES
        module = "shared_vectors" if is_shared else "own_vectors"
        meaning = column.meaning
        for weight in ("weight", "bias"):
            name = f"{module}.maps.{counts[is_shared]}.{weight}"
            # Other bucket edges are other inputs: nothing of such a vector goes on.
            axes = _all_or_nothing(state[name].shape, meaning)
            named[f"input_layer.{name}"] = NamedTensor(f"vectors[{column.feature}].{weight}", axes)
        counts[is_shared] += 1
    return named


def _named_histories(encoder: FeatureEncoder, ranker: MultiTaskRanker) -> dict[str, NamedTensor]:
    """Encoders of histories by feature; nothing of one goes on that reads other columns, or reads them otherwise."""
    named: dict[str, NamedTensor] = {}
    for part in input_order(encoder.layout):
        if isinstance(part, HistoryColumns):
            module = member_name(part.name)
            for name, weight in ranker.input_layer.histories.encoders[module].state_dict().items():
                axes = _all_or_nothing(weight.shape, part.meaning)
                path = f"input_layer.histories.encoders.{module}.{name}"
                named[path] = NamedTensor(f"histories[{part.name}].{name}", axes)
    return named


def _all_or_nothing(shape: Sequence[int], meaning: Hashable) -> tuple[Labels | None, ...]:
    """Axes of a weight that another fits only where it means the same."""
    return (*[None] * (len(shape) - 1), tuple((meaning, index) for index in range(shape[-1])))


def _named_model(ranker: MultiTaskRanker, config: ModelConfig, encoder: FeatureEncoder) -> dict[str, NamedTensor]:
    """What the model says of its weights, and which of their axes are columns of its input."""
    parts = model_parts(ranker.input_layer.layout, tasks=ranker.tasks, config=config)
    groups = config.read_groups(feature_widths(ranker.input_layer.layout))
    columns: dict[str, Labels] = {
        "all": _column_labels(encoder),
        **{name: _column_labels(encoder, features) for name, features in groups.items()},
        **{copy_group(name): _column_labels(encoder) for name in ranker.input_layer.layout.copies},
    }
    read = {name: _axes_of_inputs(config, parts, name) for name in parts.widths}
    named = {}
    for name, described in describe(ranker.model).items():
        axes, inputs = [_with_ids(labels, encoder) for labels in described.axes], None
        for group, found in read.items():
            for axis in found.get(name, ()):
                assert axes[axis] is None, f"{name} reads {group} along an axis that stands for something else"
                axes[axis], inputs = columns.get(group), axis
        named[f"model.{name}"] = NamedTensor(f"model.{described.name}", tuple(axes), inputs)
    return named


def _with_ids(labels: Labels | None, encoder: FeatureEncoder) -> Labels | None:
    """Rows of tables by the keys of their ids; a row that has none, such as the unknown one, by its number."""
    if labels is None or not any(isinstance(label, RowLabel) for label in labels):
        return labels
    keys: dict[str, dict[int, int]] = {}
    for label in labels:
        if isinstance(label, RowLabel) and label.feature not in keys:
            table = next(key.table for key in encoder.layout.sparse if key.feature == label.feature)
            keys_n, rows_n = encoder.lookups[table].holders()
            keys[label.feature] = dict(zip(rows_n.tolist(), keys_n.tolist(), strict=True))
    return tuple(
        (label.feature, "id", keys[label.feature][label.row])
        if isinstance(label, RowLabel) and label.row in keys[label.feature]
        else label
        for label in labels
    )


def _axes_of_inputs(config: ModelConfig, parts: Parts, group: str) -> dict[str, list[int]]:
    """By weight: the axes of a group's columns, found by building the model for one column more."""

    def shapes(more: int) -> dict[str, torch.Size]:
        widths = {**parts.widths, group: parts.widths[group] + more}
        with torch.device("meta"), torch.random.fork_rng(devices=[]):
            model = config.assemble(replace(parts, widths=widths))
        return {name: tensor.shape for name, tensor in model.state_dict().items()}

    narrow, wide = shapes(0), shapes(1)
    return {
        name: [axis for axis, size in enumerate(shape) if size != wide[name][axis]]
        for name, shape in narrow.items()
        if shape != wide[name]
    }
