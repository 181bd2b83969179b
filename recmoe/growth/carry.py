"""carry_over(): the weights of an earlier model into a new one, by id, by feature and by task."""

# V rows of a table, D its width

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from recmoe.architectures.cgc import SHARED
from recmoe.axes import Labels
from recmoe.embeddings.logical import dense_parameters, dense_state, find_tables
from recmoe.embeddings.placement import PlacedModel
from recmoe.errors import TrainingError
from recmoe.features.encoder import FeatureEncoder
from recmoe.features.layout import TableSpec
from recmoe.features.row_moves import row_sources
from recmoe.growth.dense_names import NamedTensor, input_labels
from recmoe.growth.earlier import EarlierModel
from recmoe.growth.move_rows import move_rows
from recmoe.model import LinearWideConfig
from recmoe.model.wide import WideConfig
from recmoe.tasks.funnel import TaskSet
from recmoe.training.dense_optimizer_state import set_dense_optimizer_state


@dataclass(frozen=True)
class TableCarry:
    """What became of one table."""

    rows: int
    """Rows of the table now, row 0 included."""
    kept: int
    """Of them, rows that go on from a row of the earlier table."""
    new: int
    """Of them, rows that begin at their initial values."""
    dropped: int
    """Rows of the earlier table that go on nowhere."""
    has_optimizer: bool
    """Whether the state of the optimizer goes on with the rows."""


@dataclass
class CarryReport:
    """What was carried over, and what begins anew."""

    source: str
    tables: dict[str, TableCarry] = field(default_factory=dict)
    dropped_tables: list[str] = field(default_factory=list)
    features_kept: list[str] = field(default_factory=list)
    features_new: list[str] = field(default_factory=list)
    """Their input columns begin with weights of zero: they change nothing until they have learned."""
    features_dropped: list[str] = field(default_factory=list)
    dense_kept: list[str] = field(default_factory=list)
    """Dense weights that go on whole."""
    dense_partly: list[str] = field(default_factory=list)
    """Those of which a part goes on, such as the columns of known features."""
    dense_new: list[str] = field(default_factory=list)
    has_dense_optimizer: bool = False
    largest_difference: float | None = None
    """Of a mixture made of a dense model: how far its predictions are from that model's before the first step, on the
    rows of its replay; relative for predictions beyond ±1. None where rows of now have columns that those lack."""

    def to_json(self) -> dict[str, Any]:
        """Plain values, for ``warm_start.json``."""
        return asdict(self)


def check_widths(earlier: EarlierModel, encoder: FeatureEncoder) -> None:
    """TrainingError for a table whose rows are of another width than the earlier model's."""
    before = {spec.name: spec.width for spec in earlier.encoder.layout.tables}
    for spec in encoder.layout.tables:
        if before.get(spec.name, spec.width) != spec.width:
            raise TrainingError(
                f"table {spec.name} has rows of {before[spec.name]} floats in {earlier.source} and of {spec.width} "
                "here, and a row cannot change its width; give it the old width, or another name (inputs.features."
                "NAME.table) to begin it anew"
            )


def check_rate(earlier: EarlierModel, wide: WideConfig) -> None:
    """TrainingError for a linear part with another rate than the earlier model's."""
    before = earlier.config.model.wide
    if isinstance(wide, LinearWideConfig) and isinstance(before, LinearWideConfig) and wide.rate != before.rate:
        raise TrainingError(
            f"model.wide.rate is {before.rate:g} in {earlier.source} and {wide.rate:g} here, and the weights of the "
            "linear part, which go on, mean something else under another rate; set it to the old one, or begin "
            "without a warm start"
        )


def carry_over(
    earlier: EarlierModel,
    *,
    placed: PlacedModel,
    named: dict[str, NamedTensor],
    dense_optimizer: torch.optim.Optimizer,
    encoder: FeatureEncoder,
    tasks: TaskSet,
) -> CarryReport:
    """Fill a fresh model with what an earlier one has learned. Every process fills what it holds.

    Rows go with their ids (``row_sources``): vectors as they are, weights of the linear part with their towers. Dense
    weights go with their names and, axis by axis, with what each index stands for: features, experts, tasks. Input
    columns without an earlier counterpart get weights of zero, so that a new feature changes no prediction before it
    has learned; all else that is new keeps its initial values. The state of the optimizers goes the same ways, where
    it was stored and the kind of optimizer is the same.

    Args:
        placed: the new model at its initial values, plain or sharded.
        named: the meaning of its dense weights.
        dense_optimizer: has not stepped.
        encoder, tasks: of the new model.
    """
    check_widths(earlier, encoder)
    report = CarryReport(source=earlier.source)
    _carry_tables(earlier, placed, encoder, tasks, report)
    _carry_dense(earlier, placed.model, named, dense_optimizer, report)
    old, new = (list(dict.fromkeys(input_labels(e))) for e in (earlier.encoder, encoder))
    report.features_kept = _features(label for label in new if label in old)
    report.features_new = _features(label for label in new if label not in old)
    report.features_dropped = _features(label for label in old if label not in new)
    return report


def _features(labels: Any) -> list[str]:
    return list(dict.fromkeys(feature for feature, _, _ in labels))


def _carry_tables(
    earlier: EarlierModel, placed: PlacedModel, encoder: FeatureEncoder, tasks: TaskSet, report: CarryReport
) -> None:
    tables = find_tables(placed.model)[1]
    weights = tables.table_weights()
    logits = (earlier.config.task_set().logit_names, tasks.logit_names)
    copies = (earlier.layout.copies, tables.layout.copies)
    state = placed.table_optimizer.state()
    has_optimizer = earlier.weights.table_optimizer == placed.table_optimizer.rule.kind
    before = {spec.name: spec for spec in earlier.layout.tables}
    for spec in tables.layout.tables:
        sources = row_sources(spec.name, old=earlier.encoder, new=encoder)
        kept = int((sources >= 0).sum())
        if spec.name in before:
            sources_V = torch.from_numpy(sources)
            columns = column_sources(before[spec.name], spec, logits, copies)
            move_rows(weights[spec.name], earlier.weights.table(spec.name), sources_V, columns=columns)
            slots = placed.table_optimizer.rule.slots(spec.num_rows, spec.width)
            # Of a table that other processes hold there is no state here.
            for slot, live in state.get(spec.name, {}).items() if has_optimizer else ():
                # A slot that is not of the rows, such as a count of steps, has one place for all.
                num_places = slots[slot][0]
                goes = sources_V if num_places == spec.num_rows else torch.zeros(num_places, dtype=torch.int64)
                move_rows(live, earlier.weights.table(spec.name, slot), goes, columns=columns)
        is_used = np.zeros(before[spec.name].num_rows if spec.name in before else 0, np.bool_)
        is_used[sources[sources >= 0]] = True
        report.tables[spec.name] = TableCarry(
            rows=spec.num_rows,
            kept=kept,
            new=spec.num_rows - kept,
            dropped=int((~is_used).sum()),
            has_optimizer=has_optimizer and spec.name in before,
        )
    if has_optimizer:
        placed.table_optimizer.after_load()
    report.dropped_tables = [name for name in before if name not in report.tables]


def column_sources(
    old: TableSpec,
    new: TableSpec,
    logits: tuple[Sequence[str], Sequence[str]],
    copies: tuple[Sequence[str], Sequence[str]],
) -> list[int]:
    """Per float of a row, the float it goes on from, -1 for none: vectors and weights of logits by their names."""
    # A model with one vector per id shares it between its tasks.
    old_copies, new_copies = (names or (SHARED,) for names in copies)
    width = new.vector_width // len(new_copies)
    assert width * len(old_copies) == old.vector_width, "check_widths comes first"
    first = {name: index * width for index, name in enumerate(old_copies)}
    vector = [first[name] + index if name in first else -1 for name in new_copies for index in range(width)]
    if not (old.num_linear and new.num_linear):
        return vector + [-1] * new.num_linear
    place = {logit: old.vector_width + index for index, logit in enumerate(logits[0])}
    padding = [-1] * (new.num_linear - len(logits[1]))
    return [*vector, *(place.get(logit, -1) for logit in logits[1]), *padding]


def _carry_dense(
    earlier: EarlierModel,
    model: nn.Module,
    named: dict[str, NamedTensor],
    dense_optimizer: torch.optim.Optimizer,
    report: CarryReport,
) -> None:
    sources = {tensor.name: (name, tensor) for name, tensor in earlier.named_dense().items()}
    parameters = dict(dense_parameters(model))
    optimizer: dict[str, Tensor] = {}
    for name, target in dense_state(model).items():
        tensor = named[name]
        found = sources.get(tensor.name)
        places = None if found is None else _places(found[1], tensor, earlier.weights.dense_shapes[found[0]], target)
        if found is None or places is None:
            report.dense_new.append(tensor.name)
            continue
        if tensor.inputs is not None:
            _clear_new_inputs(target, tensor.inputs, places[1][tensor.inputs])
        _copy(target, earlier.weights.dense(found[0]), places)
        is_whole = all(len(index) == size for index, size in zip(places[1], target.shape, strict=True))
        (report.dense_kept if is_whole else report.dense_partly).append(tensor.name)
        if name in parameters:
            optimizer |= _moved_slots(name, target, earlier.weights.dense_slots(found[0]), places)
    if optimizer:
        set_dense_optimizer_state(optimizer, model, dense_optimizer)
        report.has_dense_optimizer = True


Places = tuple[list[list[int]], list[list[int]]]
"""Per axis: the indices that go on in the earlier weight, and in the new one."""


def _places(old: NamedTensor, new: NamedTensor, old_shape: Sequence[int], target: Tensor) -> Places | None:
    """Which part of an earlier weight goes on where; None for no part, and for axes that cannot be compared."""
    if len(old_shape) != target.dim():
        return None
    both: Places = ([], [])
    for axis, size in enumerate(target.shape):
        pairs = _pairs(old.labels[axis], new.labels[axis], old_shape[axis], size)
        if not pairs:
            return None
        both[0].append([before for before, _ in pairs])
        both[1].append([now for _, now in pairs])
    return both


def _pairs(old: Labels | None, new: Labels | None, old_size: int, size: int) -> list[tuple[int, int]]:
    if old is None or new is None:
        return [(index, index) for index in range(size)] if old is new and old_size == size else []
    place = {label: index for index, label in enumerate(old)}
    return [(place[label], index) for index, label in enumerate(new) if label in place]


def _clear_new_inputs(target: Tensor, axis: int, kept: list[int]) -> None:
    is_new = torch.ones(target.shape[axis], dtype=torch.bool, device=target.device)
    is_new[kept] = False
    target.index_fill_(axis, is_new.nonzero()[:, 0], 0.0)


def _copy(target: Tensor, source: Tensor, places: Places) -> None:
    values = source
    for axis, index in enumerate(places[0]):
        values = values.index_select(axis, torch.tensor(index))
    if target.dim() == 0:
        target.copy_(values)
        return
    # Each axis has its index along itself alone; indexing spreads them over the others without copies.
    grid = [
        torch.tensor(index, device=target.device).view([-1 if other == axis else 1 for other in range(target.dim())])
        for axis, index in enumerate(places[1])
    ]
    target[tuple(grid)] = values.to(target)


def _moved_slots(name: str, target: Tensor, slots: dict[str, Tensor], places: Places) -> dict[str, Tensor]:
    """State of the dense optimizer for a weight: zero where the weight is new, a count of steps as it was."""
    moved = {}
    for slot, source in slots.items():
        if source.dim() != target.dim() or source.dim() == 0:
            moved[f"{name}/{slot}"] = source.clone()
            continue
        moved[f"{name}/{slot}"] = torch.zeros_like(target, dtype=source.dtype)
        _copy(moved[f"{name}/{slot}"], source, places)
    return moved
