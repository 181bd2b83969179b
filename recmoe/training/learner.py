"""Learner: the dense weights of a trained model, which a few steps on few rows move; its tables stay as they are.

MAML: Finn et al., ICML 2017, https://arxiv.org/abs/1703.03400 (the inner update, algorithm 1). That few rows move the
weights after the look-ups, and leave the vectors of ids alone, is MeLU's: Lee et al., KDD 2019,
https://arxiv.org/abs/1908.00413 (section 3.2).
"""

from collections.abc import Iterable, Iterator, Mapping

import torch
from torch import Tensor, nn

from recmoe.embeddings.logical import dense_state
from recmoe.errors import TrainingError
from recmoe.features.batch import Batch


class Learner:
    """Steps a model from its start, as often as is asked for.

    Args:
        model: from a batch to the loss to minimise and the losses by name; over plain tables.
        weights: those that move, by name; all others stay.
        masks: by name of a weight of which a part stays: 1 where it may move.
        lr: step size of plain gradient descent.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        weights: Mapping[str, nn.Parameter],
        masks: Mapping[str, Tensor],
        lr: float,
    ) -> None:
        self.model = model
        self.weights = dict(weights)
        self._masks = masks
        self._optimizer = torch.optim.SGD(self.weights.values(), lr=lr)
        model.requires_grad_(False)
        for weight in self.weights.values():
            weight.requires_grad_(True)
        self._start = {name: tensor.clone() for name, tensor in dense_state(model).items()}

    @torch.no_grad()
    def restart(self) -> None:
        """Put all that steps change back to the start, buffers too."""
        for name, tensor in dense_state(self.model).items():
            tensor.copy_(self._start[name])

    @torch.no_grad()
    def begin_here(self) -> None:
        """Make the weights as they are the start of what follows."""
        for name, weight in self.weights.items():
            self._start[name].copy_(weight)

    def start(self, name: str) -> Tensor:
        """A weight at the start."""
        return self._start[name]

    def steps(self, batches: Iterable[Batch]) -> Iterator[int]:
        """Step the model from where it is, batch by batch; gives the number of steps done after each.

        Raises:
            TrainingError: the loss is not finite.
        """
        for step, batch in enumerate(batches, start=1):
            for weight, gradient in zip(self.weights.values(), self.gradients(batch), strict=True):
                weight.grad = gradient
            self._optimizer.step()
            yield step

    def gradients(self, batch: Batch) -> list[Tensor]:
        """Of the loss of a batch, in the order of ``weights``.

        Raises:
            TrainingError: the loss is not finite.
        """
        self.model.train()
        loss, _ = self.model(batch)
        if not torch.isfinite(loss):
            raise TrainingError("the loss of a step on few rows is not finite; lower adaptation.lr or adaptation.steps")
        weights = list(self.weights.values())
        found = torch.autograd.grad(loss, weights, allow_unused=True, materialize_grads=True)
        return [
            gradient * self._masks[name] if name in self._masks else gradient
            for name, gradient in zip(self.weights, found, strict=True)
        ]
