"""step_work(): the operations and bytes that one training step needs, counted from the modules of the model."""

# E experts, O output width, D input width

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal, cast

import torch
from torch import nn

from recmoe.architectures.towers import TowerModel
from recmoe.embeddings.numeric_vectors import NumericVectors
from recmoe.embeddings.sparse_optimizer import SparseOptimizerConfig
from recmoe.features.layout import InputLayout, TableSpec
from recmoe.model import ModelConfig, build_model
from recmoe.model.wide import Wide
from recmoe.moe.expert_layer import ExpertLayer
from recmoe.moe.experts import MlpExperts
from recmoe.moe.gates.gate import Gate
from recmoe.planning.zipf import expected_distinct
from recmoe.tasks.funnel import TaskSet

Part = Literal["experts", "gates", "mixing", "towers", "vectors", "wide"]
FLOAT_BYTES, ID_BYTES, LENGTH_BYTES = 4, 8, 4
ADAM_PASSES = 7
"""Floats moved per dense parameter: gradient, weight and two moments read, weight and moments written."""


@dataclass(frozen=True)
class Product:
    """Matrix products of one shape: ``count`` × [num_rows, in_features] · [in_features, out_features]."""

    part: Part
    count: int
    num_rows: float
    """Rows of each; an expectation where a sparse gate chooses them."""
    in_features: int
    out_features: int
    passes: int = 3
    """Forward, gradient of the weight, and gradient of the input where something before it learns.

    What enters the first level always counts as learning: it does as soon as there is one id feature.
    """

    @property
    def flops(self) -> float:
        """Operations of all passes; a multiplication and an addition count as two."""
        return 2.0 * self.passes * self.count * self.num_rows * self.in_features * self.out_features


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
    """Pooled vectors: rows of the batch times keys."""
    width: int
    """Floats of a row, those of the linear part included."""
    state_width: float
    """Floats of optimizer state per row."""

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
    products: tuple[Product, ...]
    """Matrix products, largest part of the operations."""
    tables: tuple[TableWork, ...]
    num_activations: float
    """Numbers that layers hand on in the forward pass, and whose gradients come back."""
    num_inputs: float
    """Numbers that products read: their gradients are added up where several read the same."""
    num_mixed: float
    """Numbers that gates weight and add up: rows times width, for every expert that a gate uses."""
    num_shares: float
    """Shares that gates give, one per row, gate and expert it uses."""
    num_dense_parameters: int

    @property
    def mixing_flops(self) -> float:
        """Weighted sums of experts; a product and a sum in the forward pass, twice that in the backward."""
        return 6.0 * self.num_mixed

    @property
    def num_products(self) -> int:
        """Matrix products of a forward pass."""
        return sum(product.count for product in self.products)

    @property
    def flops_by_part(self) -> dict[Part, float]:
        """Operations of experts, gates, mixing, towers, numeric vectors and the linear part's numbers."""
        parts: dict[Part, float] = {"experts": 0.0, "gates": 0.0, "mixing": self.mixing_flops}
        parts |= {"towers": 0.0, "vectors": 0.0, "wide": 0.0}
        for product in self.products:
            parts[product.part] += product.flops
        return parts

    @property
    def flops(self) -> float:
        """All operations."""
        return sum(self.flops_by_part.values())

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
) -> Work:
    """Count one step of a config; no table is allocated.

    Args:
        layout: of the encoder; the rows of the tables have the floats of the linear part beside them.
        optimizer: what happens to the touched rows of tables.
        batch_size: rows per step and rank.
        ids_per_row: by sparse key, ids of a row on average; 1 by default.
        zipf: exponent of the popularity of ids, from which follows how many different rows a batch touches.
    """
    # The dense part is small; the caller's random numbers stay as they were.
    with torch.random.fork_rng(devices=[]):
        ranker = build_model(layout=layout, tasks=tasks, config=model, tables=lambda _: nn.Identity())
    layers = [module for module in ranker.modules() if isinstance(module, ExpertLayer)]
    mixed = {id(layer.experts) for layer in layers}
    products = [product for layer in layers for product in _layer_products(layer, batch_size)]
    for module in ranker.modules():
        if isinstance(module, MlpExperts) and id(module) not in mixed:
            products += _expert_products(module, [float(batch_size)] * module.num_experts)
        elif isinstance(module, NumericVectors):
            products += [_linear_product("vectors", linear, batch_size, passes=2) for linear in _linears(module)]
        elif isinstance(module, Wide):
            # Numbers are data: nothing before them learns.
            products += [Product("wide", 1, batch_size, w.shape[1], w.shape[0], passes=2) for w in module.parameters()]
    products += [
        _linear_product("towers", linear, batch_size) for linear in _linears(cast(TowerModel, ranker.model).towers)
    ]
    num_mixed = sum(
        float(batch_size * _num_used(gate, len(seen)) * layer.out_features)
        for layer in layers
        for gate, seen in zip(layer.gates, layer.seen, strict=True)
    )
    return Work(
        batch_size=batch_size,
        products=tuple(products),
        num_mixed=num_mixed,
        num_shares=sum(
            float(batch_size * _num_used(gate, len(seen)))
            for layer in layers
            for gate, seen in zip(layer.gates, layer.seen, strict=True)
        ),
        num_activations=sum(product.count * product.num_rows * product.out_features for product in products),
        num_inputs=sum(product.count * product.num_rows * product.in_features for product in products),
        tables=tuple(
            _table_work(spec, batch_size, ids_per_row=ids_per_row or {}, optimizer=optimizer, zipf=zipf)
            for spec in ranker.input_layer.layout.tables
        ),
        num_dense_parameters=sum(parameter.numel() for parameter in ranker.parameters()),
    )


def _layer_products(layer: ExpertLayer, batch_size: int) -> list[Product]:
    """Experts and gates; behind sparse gates an expert computes the rows that at least one of them sends it."""
    experts = cast(MlpExperts, layer.experts)
    missed_E = [1.0] * experts.num_experts
    for gate, seen in zip(layer.gates, layer.seen, strict=True):
        for expert in seen:
            missed_E[expert] *= 1.0 - _num_used(gate, len(seen)) / len(seen)
    products = _expert_products(
        experts, [batch_size * (1.0 - missed if layer.is_sparse else 1.0) for missed in missed_E]
    )
    for gate in layer.gates:
        products += [
            Product("gates", 1, batch_size, weight.shape[1], weight.shape[0])
            for weight in gate.parameters()
            if weight.ndim == 2
        ]
    return products


def _expert_products(experts: MlpExperts, rows_E: list[float]) -> list[Product]:
    """The layers of all experts; experts with equally many rows are counted together."""
    return [
        Product("experts", rows_E.count(num_rows), num_rows, weight_EOD.shape[2], weight_EOD.shape[1])
        for weight_EOD in experts.weights_EOD
        for num_rows in sorted(set(rows_E))
    ]


def _num_used(gate: nn.Module, num_seen: int) -> int:
    """Experts that a gate gives a weight for one row."""
    return min(num_seen, cast(Gate, gate).num_used)


def _linears(module: nn.Module) -> Iterator[nn.Linear]:
    return (linear for linear in module.modules() if isinstance(linear, nn.Linear))


def _linear_product(part: Part, linear: nn.Linear, batch_size: int, passes: int = 3) -> Product:
    return Product(part, 1, batch_size, linear.in_features, linear.out_features, passes)


def _table_work(
    spec: TableSpec,
    batch_size: int,
    *,
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
        num_vectors=batch_size * len(spec.keys),
        width=spec.width,
        state_width=float(sum(math.prod(shape[1:]) for shape in by_row)),
    )
