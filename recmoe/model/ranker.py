"""MultiTaskRanker: tables, numbers, experts, towers and tasks joined into one model."""

# B rows, R requests, C candidates, D input width, H representation width, T tasks, T' towers, L label columns,
# K logits of a tower, Z logits of all towers; start_T and unit_T keep the names that stored models know, and hold Z

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import chain
from typing import NamedTuple

import torch
from torch import Tensor, nn

from recmoe.features.batch import Batch
from recmoe.features.layout import InputLayout
from recmoe.model.config import ModelConfig
from recmoe.model.inputs import InputLayer, Inputs, num_values
from recmoe.moe.balance import importance_loss
from recmoe.moe.expert_layer import GateUse
from recmoe.tasks.funnel import TaskSet
from recmoe.tasks.start import TaskStart
from recmoe.tasks.tower import Tower


class ModelOutput(NamedTuple):
    """Logits of the towers, and how the gates mixed the experts."""

    logits_BZ: Tensor
    gate_uses: list[GateUse]


class MultiTaskRanker(nn.Module):
    """Predicts every task for every row; the model that trains is the model that serves.

    A logit is what tower and linear part make of a row, in units of the task's spread, counted from where the task
    starts: its log-odds, or its mean::

        logit[b, z] = start[z] + unit[z] · (tower_t(h_t[b])[z] + wide[b, z])        z is one of the logits of task t

    Args:
        input_layer: tables and numbers joined to x_BD, and the linear part.
        architecture: x_BD → one h_BH per tower, and the gates' weights.
        towers: h_BH → logits_BK, in the order of ``tasks.tower_names``.
        tasks: link, space and composition of each task.
    """

    start_T: Tensor
    """Per logit."""
    unit_T: Tensor
    """Per logit; 1 where it is a log-odds."""

    def __init__(
        self, *, input_layer: InputLayer, architecture: nn.Module, towers: Sequence[nn.Module], tasks: TaskSet
    ) -> None:
        super().__init__()
        self.input_layer = input_layer
        self.architecture = architecture
        self.towers = nn.ModuleList(towers)
        self.tasks = tasks
        self.register_buffer("start_T", torch.zeros(len(tasks.logit_names)))
        self.register_buffer("unit_T", torch.ones(len(tasks.logit_names)))

    @torch.no_grad()
    def begin(self, starts: Sequence[TaskStart]) -> None:
        """Make an untrained model predict each task's base rate or mean in every row.

        Args:
            starts: one per logit.
        """
        self.start_T.copy_(torch.tensor([start.logit for start in starts]))
        self.unit_T.copy_(torch.tensor([start.unit for start in starts]))
        for tower in self.towers:
            assert isinstance(tower, Tower)
            tower.begin_at_zero()

    def forward(self, batch: Batch) -> ModelOutput:
        """Logits of rows that hold all sides."""
        return self._from_input(self.input_layer(batch))

    def predict(self, batch: Batch) -> Tensor:
        """predictions_BT of all tasks in natural units: probabilities and values."""
        return self.tasks.predict(self.forward(batch).logits_BZ)

    def predict_sided(self, shared: Batch, own: Batch, request_C: Tensor) -> Tensor:
        """predictions_CT of candidates; user and context are looked up and multiplied once per request.

        Args:
            shared: R rows with the columns of ``layout.select(SHARED_SIDES)``.
            own: C rows with the columns of ``layout.select(OWN_SIDES)``.
            request_C: int64, the request of each candidate.
        """
        return self.tasks.predict(self._from_input(self.input_layer.sided(shared, own, request_C)).logits_BZ)

    def _from_input(self, inputs: Inputs) -> ModelOutput:
        representations, gate_uses = self.architecture(inputs.x)
        towers = [tower(h_BH).unbind(dim=1) for tower, h_BH in zip(self.towers, representations, strict=True)]
        # Losses and links are computed in float32: a sigmoid in bfloat16 has three digits.
        own_BZ = torch.stack(list(chain.from_iterable(towers)), dim=1).float()
        if inputs.wide_BT is not None:
            own_BZ = own_BZ + inputs.wide_BT
        return ModelOutput(self.start_T + self.unit_T * own_BZ, gate_uses)

    def loss_units(self) -> Tensor:
        """units_T: what a task's loss is measured in, so that losses of tasks can be added."""
        return self.tasks.loss_units(self.unit_T)


class TrainingModel(nn.Module):
    """The ranker with its loss around it: what the training loop steps.

    Args:
        ranker: the model that will serve.
        weighting: losses_T → one loss; may learn its weights.
        balance: factor of the balance loss.
        unknown_shares: per sparse key, the probability with which an id is read as row 0 while training.
        seed: of the draws by which ids are hidden; another one in every process.
    """

    unknown_shares_K: Tensor

    def __init__(
        self,
        *,
        ranker: MultiTaskRanker,
        weighting: nn.Module,
        balance: float = 0.0,
        unknown_shares: Sequence[float] = (),
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.ranker = ranker
        self.weighting = weighting
        self.balance = balance
        self._seed = seed
        self._hides_ids = any(unknown_shares)
        self.register_buffer("unknown_shares_K", torch.tensor(unknown_shares), persistent=False)

    def prepare(self, batch: Batch, step: int) -> Batch:
        """What a training step reads: the batch, with a share of its ids unknown.

        Which ones depends on seed and step alone: a batch that is taken ahead, and taken again by a run that resumes,
        is the same batch.
        """
        if not self._hides_ids:
            return batch
        num_ids, device = batch.values.shape[0], batch.values.device
        shares_N = self.unknown_shares_K.repeat_interleave(batch.lengths_KB.sum(dim=1), output_size=num_ids)
        draws_N = torch.rand(num_ids, device=device, generator=_generator(self._seed, step, device))
        return replace(batch, values=batch.values.masked_fill(draws_N < shares_N, 0))

    def forward(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """The loss to minimise, and losses_T as they are before weighting."""
        output = self.ranker(batch)
        labels_BT, weights_BT = self.ranker.tasks.targets(batch.labels_BL)
        losses_T = self.ranker.tasks.losses(output.logits_BZ, labels_BT, weights_BT, batch.groups_B)
        loss = self.weighting(losses_T / self.ranker.loss_units())
        if self.balance > 0:
            loss = loss + self.balance * importance_loss(output.gate_uses)
        return loss, losses_T.detach()


def _generator(seed: int, step: int, device: torch.device) -> torch.Generator:
    # Generators of seeds that follow each other draw alike; those of hashes do not.
    digest = hashlib.sha256(f"{seed} {step}".encode()).digest()
    return torch.Generator(device).manual_seed(int.from_bytes(digest[:8], "big") >> 1)


def model_layout(layout: InputLayout, *, tasks: TaskSet, config: ModelConfig) -> InputLayout:
    """The layout of a model's tables: that of the encoder, with room for the weights of the linear part."""
    return config.wide.rows(layout, num_outputs=len(tasks.logit_names))


def build_model(
    *, layout: InputLayout, tasks: TaskSet, config: ModelConfig, tables: Callable[[InputLayout], nn.Module]
) -> MultiTaskRanker:
    """The model of a config; initialised from torch's global generator.

    Args:
        layout: of the encoder.
        tables: makes the tables of a layout, such as ``PlainTables``.
    """
    layout = model_layout(layout, tasks=tasks, config=config)
    made = tables(layout)
    architecture = config.architecture.build(in_features=layout.width, task_names=tasks.tower_names)
    width = architecture.out_features
    towers = [config.towers.build(in_features=width, num_logits=size) for size in tasks.num_logits]
    wide = config.wide.build(
        num_outputs=len(tasks.logit_names),
        num_shared=num_values(layout, shared=True),
        num_own=num_values(layout, shared=False),
    )
    return MultiTaskRanker(
        input_layer=InputLayer(layout=layout, tables=made, wide=wide),
        architecture=architecture,
        towers=towers,
        tasks=tasks,
    )
