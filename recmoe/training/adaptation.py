"""AdaptationConfig: how few rows of a new domain or task are learned."""

from collections.abc import Mapping
from typing import Literal

from pydantic import PositiveFloat, PositiveInt
from torch import Tensor, nn

from recmoe.config import Config
from recmoe.embeddings.logical import dense_parameters
from recmoe.tasks.tower import Tower
from recmoe.training.learner import Learner
from recmoe.training.meta import MetaConfig, ReptileConfig


class AdaptationConfig(Config):
    """How few rows of a new domain or task are learned, and how a start is found from which few suffice."""

    steps: PositiveInt = 10
    """Steps on the rows of one domain: of meta-training, and the most that ``recmoe adapt`` chooses from."""
    batch_size: PositiveInt = 64
    """Rows of a step; all rows where there are no more."""
    lr: PositiveFloat = 0.1
    """Step size, of plain gradient descent: Adam moves weights that say little of the rows as far as those that do."""
    weights: Literal["auto", "all", "towers"] = "auto"
    """What the steps move: all but the tables, or the towers alone (ANIL: Raghu et al., ICLR 2020,
    https://arxiv.org/abs/1909.09157). auto is all for a new domain, and for a new task what begins anew with it, so
    that other tasks keep their predictions."""
    meta: MetaConfig = ReptileConfig()
    """How ``recmoe metalearn`` finds a start."""

    def build(self, model: nn.Module, *, is_new: Mapping[str, Tensor]) -> Learner:
        """What steps a model.

        Args:
            model: from a batch to the loss to minimise and the losses by name; over plain tables.
            is_new: by name of a dense weight that is new, whole or in part: 1 where it is; empty where none is.
        """
        weights = dict(dense_parameters(model))
        if self.weights == "auto" and is_new:
            return Learner(model, weights={name: weights[name] for name in is_new}, masks=is_new, lr=self.lr)
        if self.weights == "towers":
            towers = [part for part in model.modules() if isinstance(part, Tower)]
            of_towers = {id(weight) for tower in towers for weight in tower.parameters()}
            weights = {name: weight for name, weight in weights.items() if id(weight) in of_towers}
        return Learner(model, weights=weights, masks={}, lr=self.lr)
