"""MultiTaskRanker: tables, numbers, experts, towers and tasks joined into one model."""

# B rows, R requests, C candidates, D input width, H representation width, T tasks, T' towers, L label columns

from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, NamedTuple

import torch
from pydantic import Field, NonNegativeFloat
from torch import Tensor, nn

from recmoe.config import Config
from recmoe.embeddings.numeric_vectors import NumericVectors
from recmoe.features.batch import Batch
from recmoe.features.layout import OWN_SIDES, SHARED_SIDES, DenseColumn, InputLayout, SparseKey
from recmoe.moe.architectures import ArchitectureConfig, MMoEConfig
from recmoe.moe.balance import importance_loss
from recmoe.moe.expert_layer import GateUse
from recmoe.moe.linear import SidedInput
from recmoe.tasks.funnel import TaskSet
from recmoe.tasks.tower import TowerConfig
from recmoe.tasks.weighting import FixedWeightingConfig, WeightingConfig


class ModelConfig(Config):
    """Everything between the tables and the loss."""

    architecture: ArchitectureConfig = MMoEConfig()
    """How tasks share experts."""
    towers: TowerConfig = TowerConfig()
    """The head of each task."""
    weighting: WeightingConfig = FixedWeightingConfig()
    """How the losses of the tasks become one."""
    balance: NonNegativeFloat = 0.0
    """Factor of the balance loss, which keeps gates from leaving experts unused."""
    unknown_share: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.0
    """Share of the ids that a training step reads as unknown, so that row 0 learns what a new id is worth."""


class ModelOutput(NamedTuple):
    """Logits of the towers, and how the gates mixed the experts."""

    logits_BT: Tensor
    gate_uses: list[GateUse]


class InputLayer(nn.Module):
    """From a batch to the input of the first level: ``[shared | own]``.

    The columns of user and context come first and the candidate's own last, so that the
    ranker can compute the first part once per request.
    """

    def __init__(self, *, layout: InputLayout, tables: nn.Module) -> None:
        super().__init__()
        self.tables = tables
        self.parts = {
            "all": _Part(layout),
            "shared": _Part(layout.select(SHARED_SIDES)),
            "own": _Part(layout.select(OWN_SIDES)),
        }
        vectors = [c for c in layout.dense if c.form == "position"]
        self.shared_vectors = NumericVectors([c for c in vectors if c.side in SHARED_SIDES])
        self.own_vectors = NumericVectors([c for c in vectors if c.side == "item"])

    def forward(self, batch: Batch) -> Tensor:
        """x_BD of rows that hold all sides."""
        part = self.parts["all"]
        pooled_BP = self.tables(batch)
        pieces = part.pieces(pooled_BP, batch.dense_BF, shared=True, vectors=self.shared_vectors)
        pieces += part.pieces(pooled_BP, batch.dense_BF, shared=False, vectors=self.own_vectors)
        return torch.cat(pieces, dim=1)

    def sided(self, shared: Batch, own: Batch, request_C: Tensor) -> SidedInput:
        """The same input from one row per request and one row per candidate."""
        halves = []
        for name, batch, vectors in (("shared", shared, self.shared_vectors), ("own", own, self.own_vectors)):
            part = self.parts[name]
            pooled_BP = self.tables(batch, part.layout.sparse)
            pieces = part.pieces(pooled_BP, batch.dense_BF, shared=name == "shared", vectors=vectors)
            halves.append(torch.cat(pieces, dim=1) if pieces else batch.dense_BF[:, :0])
        return SidedInput(shared_RS=halves[0], own_CI=halves[1], request_C=request_C)


class _Part:
    """Where the columns of one side stand in a batch of some layout."""

    def __init__(self, layout: InputLayout) -> None:
        self.layout = layout
        self.pooled: dict[bool, list[slice]] = {True: [], False: []}
        self.values: dict[bool, list[int]] = {True: [], False: []}
        self.positions: dict[bool, list[int]] = {True: [], False: []}
        start = 0
        for key in layout.sparse:
            _append(self.pooled[key.side in SHARED_SIDES], slice(start, start + key.width))
            start += key.width
        for index, column in enumerate(layout.dense):
            place = self.values if column.form == "value" else self.positions
            place[column.side in SHARED_SIDES].append(index)

    def pieces(self, pooled_BP: Tensor, dense_BF: Tensor, *, shared: bool, vectors: NumericVectors) -> list[Tensor]:
        """Pooled vectors, plain numbers and learnt vectors of the shared or the own columns."""
        pieces = [pooled_BP[:, columns] for columns in self.pooled[shared]]
        if self.values[shared]:
            pieces.append(dense_BF[:, self.values[shared]])
        if self.positions[shared]:
            pieces += vectors(dense_BF[:, self.positions[shared]])
        return pieces


def input_order(layout: InputLayout) -> list[SparseKey | DenseColumn]:
    """What the columns of x_BD are: shared before own; in each half ids, then numbers, then learnt vectors."""
    order: list[SparseKey | DenseColumn] = []
    for sides in (SHARED_SIDES, OWN_SIDES):
        part = layout.select(sides)
        order += part.sparse
        order += [column for column in part.dense if column.form == "value"]
        order += [column for column in part.dense if column.form == "position"]
    return order


def _append(slices: list[slice], new: slice) -> None:
    """Add a slice, or lengthen the last one where they touch."""
    if slices and slices[-1].stop == new.start:
        slices[-1] = slice(slices[-1].start, new.stop)
    else:
        slices.append(new)


class MultiTaskRanker(nn.Module):
    """Predicts every task for every row; the model that trains is the model that serves.

    Args:
        input_layer: tables and numbers joined to x_BD.
        architecture: x_BD → one h_BH per tower, and the gates' weights.
        towers: h_BH → logit_B, in the order of ``tasks.tower_names``.
        tasks: link, space and composition of each task.
    """

    def __init__(
        self, *, input_layer: InputLayer, architecture: nn.Module, towers: Sequence[nn.Module], tasks: TaskSet
    ) -> None:
        super().__init__()
        self.input_layer = input_layer
        self.architecture = architecture
        self.towers = nn.ModuleList(towers)
        self.tasks = tasks

    def forward(self, batch: Batch) -> ModelOutput:
        """Logits of rows that hold all sides."""
        return self._from_input(self.input_layer(batch))

    def predict(self, batch: Batch) -> Tensor:
        """predictions_BT of all tasks in natural units: probabilities and values."""
        return self.tasks.predict(self.forward(batch).logits_BT)

    def predict_sided(self, shared: Batch, own: Batch, request_C: Tensor) -> Tensor:
        """predictions_CT of candidates; user and context are looked up and multiplied once per request.

        Args:
            shared: R rows with the columns of ``layout.select(SHARED_SIDES)``.
            own: C rows with the columns of ``layout.select(OWN_SIDES)``.
            request_C: int64, the request of each candidate.
        """
        return self.tasks.predict(self._from_input(self.input_layer.sided(shared, own, request_C)).logits_BT)

    def _from_input(self, x: Tensor | SidedInput) -> ModelOutput:
        representations, gate_uses = self.architecture(x)
        logits = [tower(h_BH) for tower, h_BH in zip(self.towers, representations, strict=True)]
        # Losses and links are computed in float32: a sigmoid in bfloat16 has three digits.
        return ModelOutput(torch.stack(logits, dim=1).float(), gate_uses)


class TrainingModel(nn.Module):
    """The ranker with its loss around it: what the training loop steps.

    Args:
        ranker: the model that will serve.
        weighting: losses_T → one loss; may learn its weights.
        balance: factor of the balance loss.
        unknown_share: probability with which an id is read as row 0 while training.
    """

    def __init__(
        self, *, ranker: MultiTaskRanker, weighting: nn.Module, balance: float = 0.0, unknown_share: float = 0.0
    ) -> None:
        super().__init__()
        self.ranker = ranker
        self.weighting = weighting
        self.balance = balance
        self.unknown_share = unknown_share

    def prepare(self, batch: Batch) -> Batch:
        """What a training step reads: the batch, with a share of its ids unknown."""
        if self.unknown_share == 0:
            return batch
        is_hidden = torch.rand(batch.values.shape, device=batch.values.device) < self.unknown_share
        return replace(batch, values=batch.values.masked_fill(is_hidden, 0))

    def forward(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """The loss to minimise, and losses_T as they are before weighting."""
        output = self.ranker(batch)
        labels_BT, weights_BT = self.ranker.tasks.targets(batch.labels_BL)
        losses_T = self.ranker.tasks.losses(output.logits_BT, labels_BT, weights_BT)
        loss = self.weighting(losses_T)
        if self.balance > 0:
            loss = loss + self.balance * importance_loss(output.gate_uses)
        return loss, losses_T.detach()


def build_model(*, layout: InputLayout, tasks: TaskSet, config: ModelConfig, tables: nn.Module) -> MultiTaskRanker:
    """The model of a config over tables of either back end; initialised from torch's global generator."""
    architecture = config.architecture.build(in_features=layout.width, task_names=tasks.tower_names)
    towers = [config.towers.build(in_features=architecture.out_features) for _ in tasks.tower_names]
    return MultiTaskRanker(
        input_layer=InputLayer(layout=layout, tables=tables), architecture=architecture, towers=towers, tasks=tasks
    )
