"""Learner: the dense weights of a trained model, which a few steps on few rows move; its tables stay as they are.

MAML: Finn et al., ICML 2017, https://arxiv.org/abs/1703.03400 (the inner update, algorithm 1). That a few rows move the
weights after the look-ups and leave the vectors of ids alone is MeLU's: Lee et al., KDD 2019,
https://arxiv.org/abs/1908.00413 (section 3.2); that the heads alone may do is ANIL's: Raghu et al., ICLR 2020,
https://arxiv.org/abs/1909.09157.
"""

from collections.abc import Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import Literal

import torch
from pydantic import PositiveFloat, PositiveInt
from torch import Tensor, nn

from recmoe.config import Config
from recmoe.embeddings.logical import dense_parameters, dense_state
from recmoe.errors import TrainingError
from recmoe.features.batch import Batch
from recmoe.tasks.tower import Tower
from recmoe.training.meta import MetaConfig, ReptileConfig

EVERYTHING: Mapping[str, Tensor] = MappingProxyType({})


class AdaptationConfig(Config):
    """How few rows of a new domain or task are learned, and a start from which few suffice."""

    steps: PositiveInt = 10
    """Steps on the rows of one domain: of meta-training, and the most that ``recmoe adapt`` chooses from."""
    batch_size: PositiveInt = 64
    """Rows of a step; all rows where there are fewer."""
    optimizer: Literal["sgd", "adam"] = "adam"
    """Of these steps; it begins afresh with every domain."""
    lr: PositiveFloat = 0.001
    """Its step size."""
    weights: Literal["auto", "all", "towers"] = "auto"
    """What the steps move: all but the tables, or the towers alone. auto is all for a new domain, and for a new task
    what begins anew with it, so that other tasks keep their predictions."""
    meta: MetaConfig = ReptileConfig()
    """How ``recmoe metalearn`` finds a start."""


class Learner:
    """Steps a model from its start, as often as is asked for.

    Args:
        model: from a batch to the loss to minimise and the losses by name; over plain tables, which do not move.
        config: the steps.
        learned: by name of a dense weight, 1 where it may move; all of a weight that is not named, unless any is.
    """

    def __init__(
        self, model: nn.Module, *, config: AdaptationConfig, learned: Mapping[str, Tensor] = EVERYTHING
    ) -> None:
        self.model = model
        self.config = config
        model.requires_grad_(False)
        self.weights = _chosen(model, towers_only=config.weights == "towers", learned=learned)
        """The weights that move, by name."""
        self._masks = learned
        for weight in self.weights.values():
            weight.requires_grad_(True)
        self._start = {name: tensor.clone() for name, tensor in dense_state(model).items()}

    @torch.no_grad()
    def restart(self) -> None:
        """Put every weight back to the start."""
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
        optimizer = _optimizer(self.config, self.weights.values())
        self.model.train()
        for step, batch in enumerate(batches, start=1):
            for weight, gradient in zip(self.weights.values(), self.gradients(batch), strict=True):
                weight.grad = gradient
            optimizer.step()
            yield step

    def gradients(self, batch: Batch) -> list[Tensor]:
        """Of the loss of a batch, in the order of ``weights``.

        Raises:
            TrainingError: the loss is not finite.
        """
        loss, _ = self.model(batch)
        if not torch.isfinite(loss):
            raise TrainingError("the loss of a step on few rows is not finite; lower adaptation.lr or adaptation.steps")
        weights = list(self.weights.values())
        found = torch.autograd.grad(loss, weights, allow_unused=True, materialize_grads=True)
        return [
            gradient * self._masks[name] if name in self._masks else gradient
            for name, gradient in zip(self.weights, found, strict=True)
        ]


def _chosen(model: nn.Module, *, towers_only: bool, learned: Mapping[str, Tensor]) -> dict[str, nn.Parameter]:
    weights = dict(dense_parameters(model))
    if learned:
        weights = {name: weight for name, weight in weights.items() if name in learned}
    if towers_only:
        of_towers = {id(weight) for part in model.modules() if isinstance(part, Tower) for weight in part.parameters()}
        weights = {name: weight for name, weight in weights.items() if id(weight) in of_towers}
    return weights


def _optimizer(config: AdaptationConfig, weights: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
    if config.optimizer == "sgd":
        return torch.optim.SGD(weights, lr=config.lr)
    return torch.optim.Adam(weights, lr=config.lr)
