"""upcycled(): a trained dense model as the earlier model of a mixture, whose experts are copies of its network.

Sparse upcycling: Komatsuzaki et al., ICLR 2023, https://arxiv.org/abs/2212.05055, section 3. Gates are drawn. Where the
weights of a gate sum to one, a mixture of copies is the network: before the first step it predicts what the dense model
predicts, whatever its gates choose. Those of switch, relu and stable gates need not.
"""

# E experts

import json
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from recmoe.config import dump_config
from recmoe.embeddings.tables import PlainTables
from recmoe.errors import TrainingError
from recmoe.growth.dense_names import RANKER
from recmoe.growth.earlier import EarlierModel, StoredWeights
from recmoe.model import ModelConfig, MultiTaskRanker, build_model
from recmoe.moe.expert_layer import ExpertLayer
from recmoe.moe.experts import MlpExperts
from recmoe.training.pieces import Box

MODEL = "model."
"""Names of the weights of a ranker's model begin so."""


class CopiedExperts:
    """Stored weights of a network, as those of a layer of experts; see ``StoredWeights``.

    Args:
        weights: of the dense model.
        network_of_copy: by name of a weight of the experts: that of the network's.
        num_experts: E.
    """

    def __init__(self, weights: StoredWeights, network_of_copy: Mapping[str, str], num_experts: int) -> None:
        self._weights = weights
        self._network_of_copy = dict(network_of_copy)
        self._num_experts = num_experts
        self.table_optimizer = weights.table_optimizer
        stored = weights.dense_shapes
        self.dense_shapes: Mapping[str, Sequence[int]] = {
            **{name: shape for name, shape in stored.items() if name not in network_of_copy.values()},
            **{copy: (num_experts, *stored[network][1:]) for copy, network in network_of_copy.items()},
        }

    def dense(self, name: str) -> Tensor:
        """A weight; of an expert layer, the network's E times."""
        network = self._network_of_copy.get(name)
        if network is None:
            return self._weights.dense(name)
        weight = self._weights.dense(network)
        return weight.repeat(self._num_experts, *[1] * (weight.ndim - 1))

    def dense_slots(self, name: str) -> dict[str, Tensor]:
        """The state of the dense optimizer; that of the network is none of its copies'."""
        return {} if name in self._network_of_copy else self._weights.dense_slots(name)

    def table(self, name: str, slot: str | None = None) -> Sequence[Box]:
        """As it is stored."""
        return self._weights.table(name, slot)

    def close(self) -> None:
        """Close what has been opened."""
        self._weights.close()


def upcycled(dense: EarlierModel, config: ModelConfig) -> EarlierModel:
    """A dense model as if it were a mixture of copies of its network; its gates are not there, and so begin anew.

    Args:
        dense: all its tasks read one network.
        config: of the mixture, with one layer of experts of the network's widths.

    Raises:
        TrainingError: the dense model is none, or the mixture cannot be made of its network, or reads something else.
    """
    trunk = dense.config.model.trunk
    if config.trunk != trunk:
        raise TrainingError(
            f"the network of {dense.source} stands on model.trunk {trunk.kind}, and the mixture on another "
            f"({config.trunk.kind}); an expert is a copy of the network and reads what that reads: set model.trunk to "
            f"{json.dumps(dump_config(trunk))}"
        )
    # Towers and linear part are matched as in any warm start: they are described as the dense model has them.
    model = dense.config.model.model_copy(update={"architecture": config.architecture})
    mixture = dense.config.model_copy(update={"model": model})
    network_path, network = _network_of(dense)
    layer_path, experts = _experts_of(_on_meta(dense, model), config.architecture.kind)
    of_network, of_experts = _widths(network), _widths(experts)
    if of_network != of_experts:
        raise TrainingError(
            f"the network of {dense.source} has layers of {', '.join(map(str, of_network))} and the experts of "
            f"model.architecture.expert_hidden have {', '.join(map(str, of_experts))}; an expert is a copy of the "
            f"network: set it to {list(of_network)}"
        )
    copies = {
        f"{RANKER}{MODEL}{layer_path}.{name}": f"{RANKER}{MODEL}{network_path}.{name}" for name in experts.state_dict()
    }
    return EarlierModel(
        source=dense.source,
        config=mixture,
        encoder=dense.encoder,
        weights=CopiedExperts(dense.weights, copies, experts.num_experts),
    )


@torch.no_grad()
def tell_apart(ranker: MultiTaskRanker, *, noise: float, seed: int) -> None:
    """Add noise to every weight of a mixture's experts; the same in every process.

    Args:
        ranker: all its experts are copies of one network.
        noise: its standard deviation, as a share of that of the weights of a layer.
    """
    generator = torch.Generator().manual_seed(seed)
    for _, experts in _mlp_experts(ranker.model):
        for weight in experts.parameters():
            draws = torch.randn(weight.shape, generator=generator)
            weight.add_(noise * weight.std() * draws.to(weight))


def _network_of(dense: EarlierModel) -> tuple[str, MlpExperts]:
    """The only network of a dense model, and its path."""
    model = _on_meta(dense, dense.config.model).model
    found = _mlp_experts(model)
    has_gates = any(isinstance(module, ExpertLayer) for module in model.modules())
    if has_gates or len(found) != 1 or found[0][1].num_experts != 1:
        raise TrainingError(
            f"{dense.source} is a model of kind {dense.config.model.architecture.kind}; a mixture is upcycled from one "
            "whose tasks all read one network, such as shared_bottom"
        )
    return found[0]


def _experts_of(ranker: MultiTaskRanker, kind: str) -> tuple[str, MlpExperts]:
    """The experts of the only layer of a mixture, and their path."""
    layers = [module for module in ranker.model.modules() if isinstance(module, ExpertLayer)]
    found = _mlp_experts(ranker.model)
    if len(layers) != 1 or len(found) != 1 or layers[0].experts is not found[0][1]:
        raise TrainingError(
            f"model.architecture {kind} has {len(layers)} layers of experts; copies of one network make a mixture of "
            "one layer whose experts are all of kind mlp, such as mmoe, omoe or cgc"
        )
    return found[0]


def _mlp_experts(model: nn.Module) -> list[tuple[str, MlpExperts]]:
    return [(name, module) for name, module in model.named_modules() if isinstance(module, MlpExperts)]


def _widths(experts: MlpExperts) -> tuple[int, ...]:
    return tuple(weight_EOD.shape[1] for weight_EOD in experts.weights_EOD)


def _on_meta(dense: EarlierModel, config: ModelConfig) -> MultiTaskRanker:
    with torch.device("meta"):
        return build_model(
            layout=dense.encoder.layout, tasks=dense.config.task_set(), config=config, tables=PlainTables
        )
