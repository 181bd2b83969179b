"""TrainingModel: the ranker with everything that is minimised around it."""

# B rows, K sparse keys, T tasks, M own losses of the model, N ids or balance terms

from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import cast

import torch
from torch import Tensor, nn

from recmoe.architectures.seam import Model, Outputs, Targets
from recmoe.balancing.fork import Fork
from recmoe.balancing.weightings import Weighting
from recmoe.features.batch import Batch
from recmoe.model.balance_losses import BalanceTerms, balance_losses, with_balance
from recmoe.model.draws import generator_of
from recmoe.model.imitation import Imitation
from recmoe.model.position import PositionBias
from recmoe.model.ranker import ModelOutput, MultiTaskRanker
from recmoe.moe.balance.alarms import RoutingWatch
from recmoe.moe.expert_layer import ExpertLayer
from recmoe.tasks.mixing import changed


class TrainingModel(nn.Module):
    """What the training loop steps. The loss is::

        weighting(losses of the tasks)  +  Σ_n factor_n · balance term n  +  Σ_m weight_m · own loss m

    Where there is a teacher, the loss of a task holds the distance to it, too: see ``Imitation``. Of a model that gives
    the logits of two draws, the loss of a task is the mean of both.

    Args:
        ranker: the model that will serve.
        weighting: losses_T → one loss; may learn its weights.
        fork: of what the model's tasks share; it is in the model already.
        position: what the place where the log showed a row adds to its logits; the ranker knows nothing of it.
        imitation: what a student learns from a teacher besides its labels.
        balance: by name, a factor and the term that it is of; a term with factor 0 acts by other means.
        balance_features: whose ids the terms read.
        unknown_shares: per sparse key, the probability with which an id is read as row 0 while training.
        seed: of the draws by which ids are hidden; another one in every process.
    """

    unknown_shares_K: Tensor

    def __init__(
        self,
        *,
        ranker: MultiTaskRanker,
        weighting: nn.Module,
        fork: Fork | None = None,
        position: PositionBias | None = None,
        imitation: Imitation | None = None,
        balance: BalanceTerms = MappingProxyType({}),
        balance_features: Sequence[str] = (),
        unknown_shares: Sequence[float] = (),
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.ranker = ranker
        self.weighting = weighting
        self.fork = fork
        self.position = position
        self.imitation = imitation
        self.balance = dict(balance)
        self.balance_features = tuple(dict.fromkeys(balance_features))
        self.watch = RoutingWatch()
        """Asked by the loop for what is wrong with the gates and experts."""
        self._seed = seed
        self._hides_ids = any(unknown_shares)
        self.register_buffer("unknown_shares_K", torch.tensor(unknown_shares), persistent=False)
        taught = () if imitation is None else tuple(f"{name}/teacher" for name in imitation.names)
        terms = tuple(f"balance.{name}" for name in self.balance)
        self.loss_names = (*ranker.tasks.names, *taught, *self.model.loss_weights, *terms)
        """What ``forward`` reports: the tasks, their distances to a teacher, the model's own losses, balance terms."""

    @property
    def model(self) -> Model:
        """The ranker's model."""
        return cast(Model, self.ranker.model)

    def prepare(self, batch: Batch, step: int) -> Batch:
        """What a training step reads: the batch, with a share of its ids unknown.

        Which ones depends on seed and step alone: a batch that is taken ahead, and taken again by a run that resumes,
        is the same batch.
        """
        if not self._hides_ids:
            return batch
        num_ids, device = batch.values.shape[0], batch.values.device
        shares_N = self.unknown_shares_K.repeat_interleave(batch.lengths_KB.sum(dim=1), output_size=num_ids)
        draws_N = torch.rand(num_ids, device=device, generator=generator_of(self._seed, step, device))
        return replace(batch, values=batch.values.masked_fill(draws_N < shares_N, 0))

    def forward(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """The loss to minimise, and the losses by name as they are before weighting; see ``loss_names``."""
        served = self.ranker(batch)
        output = self._with_position(served, batch)
        tasks, units_T = self.ranker.tasks, self.ranker.loss_units()
        labels_BT, weights_BT = tasks.targets(batch.labels_BL)
        losses_BT = tasks.row_losses(output.logits_BZ, labels_BT, weights_BT, batch.groups_B, output.mixture)
        if output.again_BZ is not None:
            losses_BT = (losses_BT + tasks.row_losses(output.again_BZ, labels_BT, weights_BT, batch.groups_B)) / 2
        losses_T = tasks.losses(losses_BT)
        learned_T, named = losses_T, [losses_T.detach()]
        if self.imitation is not None:
            # A teacher, too, knows nothing of the place.
            imitations_N = self.imitation.losses(served.logits_BZ, batch)
            learned_T = self.imitation.added(losses_T, imitations_N)
            named.append(imitations_N.detach())
        loss = self.weighting(learned_T / units_T)
        self.watch.see(output.all_uses())
        terms_N = balance_losses(
            self.balance,
            output.gate_uses,
            batch,
            layout=self.ranker.input_layer.layout,
            features=self.balance_features,
            device=self.unknown_shares_K.device,
        )
        loss = with_balance(loss, self.balance, terms_N)
        own_M = []
        if self.model.loss_weights:
            targets = Targets(labels_BT, weights_BT, losses_BT.detach() / units_T, units_T, batch.groups_B)
            own_M = self._own_losses(output, targets)
        for own, weight in zip(own_M, self.model.loss_weights.values(), strict=True):
            loss = loss + weight * own
        if others := [*own_M, *terms_N]:
            named.append(torch.stack(others).detach())
        return loss, torch.cat(named)

    def curves(self) -> Mapping[str, float]:
        """What balances the tasks, as it is now: weights of losses; cosines and weights of gradients; what became of
        the rows that gates shared out since the last call."""
        tasks = self.ranker.tasks
        values = dict(cast(Weighting, self.weighting).curves(tasks.names))
        if self.fork is not None:
            values |= self.fork.curves(tasks.tower_names)
        for layer in self.ranker.modules():
            if isinstance(layer, ExpertLayer):
                values |= layer.curves()
        return values

    def _with_position(self, output: ModelOutput, batch: Batch) -> ModelOutput:
        """The logits of the rows where they were shown: what the log's labels are an answer to."""
        if self.position is None:
            return output
        shown_BC = batch.labels_BL[:, len(self.ranker.tasks.label_columns) :]
        added_BZ = self.ranker.unit_T * self.position(shown_BC)
        again_BZ = None if output.again_BZ is None else output.again_BZ + added_BZ
        output = output._replace(logits_BZ=output.logits_BZ + added_BZ, again_BZ=again_BZ)
        if not output.mixture:
            return output
        mixture = changed(output.mixture, lambda logits_EBZ: logits_EBZ + added_BZ)
        return output._replace(logits_BZ=self.ranker.joined(mixture), mixture=mixture)

    def _own_losses(self, output: ModelOutput, targets: Targets) -> list[Tensor]:
        """Of the model, in the order of its names."""
        weights = self.model.loss_weights
        outputs = Outputs(output.logits_BZ, output.gate_uses, output.extra, output.again_BZ)
        losses = self.model.losses(outputs, targets)
        assert losses.keys() == weights.keys(), "a model gives the losses that it names"
        return [losses[name].float() for name in weights]
