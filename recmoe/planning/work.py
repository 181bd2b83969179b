"""step_work(): the operations and bytes that one training step needs, counted for any model."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from recmoe.embeddings.sparse_optimizer import SparseOptimizerConfig
from recmoe.features.layout import InputLayout, TableSpec
from recmoe.model import ModelConfig, TrainingModel, build_training_model, model_layout
from recmoe.planning.counting import RandomVectors, StepCounts, count_step
from recmoe.planning.zipf import expected_distinct
from recmoe.tasks.funnel import TaskSet

FLOAT_BYTES, ID_BYTES, LENGTH_BYTES = 4, 8, 4
ADAM_PASSES = 7
"""Floats moved per dense parameter: gradient, weight and two moments read, weight and moments written."""


@dataclass(frozen=True)
class TableWork:
    """What one step does to one table, on all rows of the batch."""

    table: str
    batch_size: int
    num_ids: float
    """Ids looked up."""
    num_distinct: float
    """Rows that they touch, and the optimizer updates."""
    num_vectors: int
    """Pooled vectors: rows of the batch times keys; ids, where nothing is pooled."""
    width: int
    """Floats of a row, those of the linear part included."""
    state_width: float
    """Floats of optimizer state per row."""
    is_pooled: bool = True
    """Whether vectors are pooled where the rows are; where a sequence reads the table, there is one for each id."""

    @property
    def lookup_bytes(self) -> float:
        """Rows read, and pooled vectors written."""
        return FLOAT_BYTES * self.width * (self.num_ids + self.num_vectors)

    @property
    def update_bytes(self) -> float:
        """Gradients of the vectors read; touched rows and their state read and written."""
        return FLOAT_BYTES * (self.width * self.num_vectors + 2 * (self.width + self.state_width) * self.num_distinct)

    @property
    def id_bytes(self) -> float:
        """Ids and lengths, which travel to the rank that holds the rows."""
        return ID_BYTES * self.num_ids + LENGTH_BYTES * self.num_vectors

    @property
    def pooled_bytes(self) -> float:
        """Pooled vectors, which travel back, and their gradients, which travel there."""
        return FLOAT_BYTES * self.width * self.num_vectors


@dataclass(frozen=True)
class Work:
    """Operations and bytes of one step of one rank, forward and backward."""

    batch_size: int
    counts: StepCounts
    """Of the model."""
    tables: tuple[TableWork, ...]

    @property
    def num_dense_parameters(self) -> int:
        """Of everything but the tables; where experts are divided, of the worker that holds most."""
        return self.num_replicated_parameters + max(self.counts.num_expert_parameters, default=0)

    @property
    def num_replicated_parameters(self) -> int:
        """Those that every worker holds, and whose gradients are summed."""
        return self.counts.num_parameters - sum(self.counts.num_expert_parameters)

    def sent_bytes(self, number_bytes: int) -> float:
        """What travels from a worker to the experts of others and back, and the gradients of both.

        Args:
            number_bytes: of a number, 2 in bf16.
        """
        return 2.0 * number_bytes * self.counts.num_sent

    @property
    def mixing_flops(self) -> float:
        """Weighted sums of experts; a product and a sum in the forward pass, twice that in the backward."""
        return 6.0 * self.counts.num_mixed

    @property
    def flops(self) -> float:
        """All operations."""
        return self.counts.flops + self.mixing_flops

    @property
    def lookup_bytes(self) -> float:
        """Table rows read and pooled vectors written."""
        return sum(table.lookup_bytes for table in self.tables)

    @property
    def update_bytes(self) -> float:
        """What the update of the touched rows reads and writes, optimizer state included."""
        return sum(table.update_bytes for table in self.tables)

    @property
    def optimizer_bytes(self) -> float:
        """What Adam reads and writes for the dense parameters."""
        return float(ADAM_PASSES * FLOAT_BYTES * self.num_dense_parameters)

    @property
    def bytes(self) -> float:
        """All bytes that a step has to move through memory, activations left out."""
        return self.lookup_bytes + self.update_bytes + self.optimizer_bytes


def step_work(
    layout: InputLayout,
    *,
    tasks: TaskSet,
    model: ModelConfig,
    optimizer: SparseOptimizerConfig,
    batch_size: int,
    ids_per_row: Mapping[str, float] | None = None,
    zipf: float = 1.1,
    expert_workers: int | None = None,
) -> Work:
    """Count one step of a config; no table is allocated.

    Args:
        layout: of the encoder; the rows of the tables have the floats of the linear part beside them.
        optimizer: what happens to the touched rows of tables.
        batch_size: rows per step and rank.
        ids_per_row: by sparse key, ids of a row on average; 1 by default.
        zipf: exponent of the popularity of ids, from which follows how many different rows a batch touches.
        expert_workers: workers among which experts are divided; None where every worker has all.

    Raises:
        ConfigError: the experts cannot be divided among so many.
    """

    def make() -> TrainingModel:
        return build_training_model(layout=layout, tasks=tasks, config=model, tables=RandomVectors)

    rows = model_layout(layout, tasks=tasks, config=model)
    return Work(
        batch_size=batch_size,
        counts=count_step(
            make,
            ids_per_row=ids_per_row or {},
            num_labels=len(model.label_columns(tasks)),
            batch_size=batch_size,
            expert_workers=expert_workers,
        ),
        tables=tuple(
            _table_work(
                spec,
                batch_size,
                is_pooled=spec.name not in rows.sequence_tables,
                ids_per_row=ids_per_row or {},
                optimizer=optimizer,
                zipf=zipf,
            )
            for spec in rows.tables
        ),
    )


def _table_work(
    spec: TableSpec,
    batch_size: int,
    *,
    is_pooled: bool,
    ids_per_row: Mapping[str, float],
    optimizer: SparseOptimizerConfig,
    zipf: float,
) -> TableWork:
    num_ids = batch_size * sum(ids_per_row.get(key, 1.0) for key in spec.keys)
    state = optimizer.slots(spec.num_rows, spec.width).values()
    # A slot that is not kept by row, such as a count of steps, costs nothing.
    by_row = [shape for shape in state if shape[0] == spec.num_rows]
    return TableWork(
        table=spec.name,
        batch_size=batch_size,
        num_ids=num_ids,
        num_distinct=expected_distinct(spec.num_rows, num_ids, exponent=zipf),
        num_vectors=batch_size * len(spec.keys) if is_pooled else round(num_ids),
        width=spec.width,
        state_width=float(sum(math.prod(shape[1:]) for shape in by_row)),
        is_pooled=is_pooled,
    )
