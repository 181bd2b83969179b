"""MultiTaskRanker: inputs, model, linear part and tasks joined."""

# B rows, R requests, C candidates, T tasks, Z logits; start_T and unit_T have the names that stored models know

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn

from recmoe.architectures.seam import Outputs
from recmoe.features.batch import Batch
from recmoe.model.inputs import InputLayer, RowInputs
from recmoe.model.known_items import KnownCandidates, KnownItems
from recmoe.moe.gate_use import GateUse
from recmoe.moe.known import KnownProducts, ObservedInput
from recmoe.moe.linear import SidedInput
from recmoe.tasks.funnel import TaskSet
from recmoe.tasks.mixing import NO_MIXTURE, Mixing, Mixture, changed
from recmoe.tasks.start import TaskStart

_CHUNK_ROWS = 1024
"""Items whose products are computed at once."""


class ModelOutput(NamedTuple):
    """Logits of the towers, how the gates mixed the experts, and what only the model's own losses read.

    With the logits of the same rows by other draws, of a model that gives both while it trains; and what logits are
    joined of, where experts predict each by themselves.
    """

    logits_BZ: Tensor
    gate_uses: Sequence[GateUse]
    extra: Mapping[str, Tensor]
    again_BZ: Tensor | None = None
    below: Callable[[], Sequence[GateUse]] = tuple
    """Gives the use of gates below the model; see ``Outputs``."""
    mixture: Mixture = NO_MIXTURE

    def all_uses(self) -> list[GateUse]:
        """Of all gates, from the bottom to the top."""
        return [*self.below(), *self.gate_uses]


class MultiTaskRanker(nn.Module):
    """Predicts every task for every row; the model that trains is the model that serves.

    A logit is what model and linear part make of a row, in units of the task's spread, counted from where the task
    starts: its log-odds, or its mean::

        logit[b, z] = start[z] + unit[z] · (model(x[b])[z] + wide[b, z])

    Where experts predict each by themselves, so is the logit of each; then they are joined.

    Args:
        input_layer: tables and numbers joined to x_BD, and the linear part.
        model: from inputs to logits_BZ in the order of ``tasks.logit_names``; see ``Model``.
        tasks: link, space and composition of each task.
    """

    start_T: Tensor
    """Per logit."""
    unit_T: Tensor
    """Per logit; 1 where it is a log-odds."""

    def __init__(self, *, input_layer: InputLayer, model: nn.Module, tasks: TaskSet) -> None:
        super().__init__()
        self.input_layer = input_layer
        self.model = model
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
        self.model.begin_at_zero()  # type: ignore[operator]

    @torch.no_grad()
    def shift(self, shifts_Z: Tensor) -> None:
        """Add to every logit of a trained model, in all rows; see ``TaskSet.level_shifts``."""
        self.start_T += shifts_Z.to(self.start_T)

    def forward(self, batch: Batch) -> ModelOutput:
        """Logits of rows that hold all sides."""
        return self._from_inputs(self.input_layer(batch))

    def predict(self, batch: Batch) -> Tensor:
        """predictions_BT of all tasks in natural units: probabilities and values."""
        return self.tasks.predict(self.forward(batch).logits_BZ)

    def predict_sided(
        self, shared: Batch, own: Batch, request_C: Tensor, known: KnownCandidates | None = None
    ) -> Tensor:
        """predictions_CT of candidates; see ``forward_sided``."""
        return self.tasks.predict(self.forward_sided(shared, own, request_C, known).logits_BZ)

    def forward_sided(
        self, shared: Batch, own: Batch, request_C: Tensor, known: KnownCandidates | None = None
    ) -> ModelOutput:
        """Logits of candidates; user and context are looked up and multiplied once per request.

        Args:
            shared: R rows with the columns of ``layout.select(SHARED_SIDES)``.
            own: C rows with the columns of ``layout.select(OWN_SIDES)``; without those of known items.
            request_C: int64, the request of each candidate.
            known: which candidates are items whose products are known.
        """
        return self._from_inputs(self.input_layer.sided(shared, own, request_C, known))

    @property
    def knows_items(self) -> bool:
        """Whether what items give is the same in every request: no candidate reads a history."""
        return not self.input_layer.histories.own

    def know_items(self, shared: Batch, items: Callable[[Tensor], Batch], *, num_items: int) -> KnownItems:
        """What the own part of items gives in every product that the whole input enters, computed chunk by chunk.

        Args:
            shared: one row of user and context, any.
            items: gives the rows of some of them, of 0 … N - 1.
            num_items: N, at least one.
        """
        assert self.knows_items
        products = KnownProducts(self.model.parameters(), num_items=num_items)
        size = min(num_items, _CHUNK_ROWS)
        wide_NT: Tensor | None = None
        for start in range(0, num_items, size):
            # Of one size all: how many rows there are may decide in which products a model is computed.
            first = min(start, num_items - size)
            own = items(torch.arange(first, first + size))
            of_rows = self.input_layer.sided(shared, own, torch.zeros(size, dtype=torch.int64))
            assert isinstance(of_rows.inputs.x, SidedInput)
            self.model(of_rows.inputs._replace(x=ObservedInput(of_rows.inputs.x, products, first)))
            wide_BT = self.input_layer.own_half(own).wide_BT
            if wide_BT is not None:
                wide_NT = wide_BT.new_empty(num_items, wide_BT.shape[1]) if wide_NT is None else wide_NT
                wide_NT[first : first + size] = wide_BT
        return KnownItems(products, wide_NT, items)

    def _from_inputs(self, rows: RowInputs) -> ModelOutput:
        outputs: Outputs = self.model(rows.inputs)
        again_BZ = None if outputs.again_BZ is None else self._as_read(outputs.again_BZ, rows.wide_BT)
        mixture = self._mixture_as_read(outputs.mixture, rows.wide_BT) if outputs.mixture else outputs.mixture
        logits_BZ = self.joined(mixture) if mixture else self._as_read(outputs.logits_BZ, rows.wide_BT)
        return ModelOutput(logits_BZ, outputs.routing, outputs.extra, again_BZ, outputs.below, mixture)

    def _mixture_as_read(self, mixture: Mixture, wide_BZ: Tensor | None) -> Mixture:
        """Experts that predict each by themselves, with logits and spreads as the tasks read them."""
        units = {name: self.unit_T[self.tasks.columns(name)[0]] for name in mixture}
        read = changed(mixture, partial(self._as_read, wide_BZ=wide_BZ))
        return {name: experts._replace(spread=units[name] * experts.spread) for name, experts in read.items()}

    def joined(self, mixture: Mixture) -> Tensor:
        """logits_BZ of experts that predict each by themselves; the model has seen to it that their tasks can mix."""
        parts = [cast(Mixing, self.tasks.mixing(name)).join(experts) for name, experts in mixture.items()]
        return torch.cat(parts, dim=1)

    def _as_read(self, logits_BZ: Tensor, wide_BZ: Tensor | None) -> Tensor:
        """The logits of a model, or those of each of its experts, as the tasks read them."""
        # Losses and links are computed in float32: a sigmoid in bfloat16 has three digits.
        own_BZ = logits_BZ.float()
        if wide_BZ is not None:
            own_BZ = own_BZ + wide_BZ
        return self.start_T + self.unit_T * own_BZ

    def loss_units(self) -> Tensor:
        """units_T: what a task's loss is measured in, so that losses of tasks can be added."""
        return self.tasks.loss_units(self.unit_T)
