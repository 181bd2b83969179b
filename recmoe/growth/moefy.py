"""moefied_into(): a trained dense network as experts of its own hidden units, with a router that knows who is active.

MoEfication: Zhang et al., Findings of ACL 2022, https://arxiv.org/abs/2110.01786: units whose weights are alike form an
expert (parameter clustering split, section 3.2), and the router scores experts by the sum of their units' activations
(section 3.3). The paper trains a small MLP as router; here it is linear and fitted in closed form, by ridge regression:
it costs a row one product, and no rates or steps have to be chosen.

Balanced clusters: Malinen & Fränti, S+SSPR 2014, https://doi.org/10.1007/978-3-662-44415-3_4 (balanced k-means).
"""

# N rows, Z width of what is split, U hidden units, V experts

from collections.abc import Iterable
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from recmoe.architectures.moefied import Moefied, Router, SplitExpert
from recmoe.architectures.shared_bottom import SharedBottom
from recmoe.architectures.trunks.trunk import Trunk, TrunkModel
from recmoe.errors import TrainingError
from recmoe.features.batch import Batch
from recmoe.growth.merge import assignment
from recmoe.model import MultiTaskRanker
from recmoe.moe.linear import linear, rows_of

MAX_ROUNDS = 20
"""Of balanced k-means; it ends earlier when no unit moves."""
RIDGE = 1e-4
"""Added to the mean squares of what the router reads: columns that are always equal would have no one solution."""


@dataclass(frozen=True)
class Split:
    """The layer of a dense network whose units are shared out."""

    network: SharedBottom
    path: str
    """Of the network in its ranker."""
    trunk: Trunk | None
    """What the network stands on."""

    @property
    def hidden(self) -> tuple[int, ...]:
        """Width of each layer of the network."""
        return tuple(weight_EOD.shape[1] for weight_EOD in self.network.experts.weights_EOD)

    @property
    def num_units(self) -> int:
        """U."""
        return self.hidden[-2]

    def units(self) -> Tensor:
        """weight_UZ with the bias as the last column: what makes units alike."""
        weight_UZ, bias_U = self.network.experts.weights_EOD[-2][0], self.network.experts.biases_EO[-2][0]
        return torch.cat([weight_UZ, bias_U.unsqueeze(1)], dim=1)

    def read(self, ranker: MultiTaskRanker, batch: Batch) -> tuple[Tensor, Tensor]:
        """z_NZ, what the layer reads of some rows, and a_NU, what it makes of it."""
        experts = self.network.experts
        inputs = ranker.input_layer(batch).inputs
        z = inputs.x if self.trunk is None else self.trunk(inputs.x, inputs.groups).x_BD
        for weight_EOD, bias_EO in list(zip(experts.weights_EOD, experts.biases_EO, strict=True))[:-2]:
            z = functional.relu(linear(z, weight_EOD[0], bias_EO[0]))
        z_NZ = rows_of(z)
        return z_NZ, functional.relu(linear(z_NZ, experts.weights_EOD[-2][0], experts.biases_EO[-2][0]))


def split_of(ranker: MultiTaskRanker) -> Split:
    """The layer of a model that is split.

    Raises:
        TrainingError: it is no dense network of two layers or more.
    """
    model, path, trunk = ranker.model, "model", None
    if isinstance(model, TrunkModel):
        model, path, trunk = model.inner, "model.inner", cast(Trunk, model.trunk)
    network = getattr(model, "architecture", None)
    if not isinstance(network, SharedBottom) or len(network.experts.weights_EOD) < 2:
        raise TrainingError(
            "the model is not of kind shared_bottom with two layers or more in model.architecture.hidden; only the "
            "units between two layers of one network can be split into experts"
        )
    return Split(network, f"{path}.architecture", trunk)


def balanced_clusters(points_NZ: Tensor, num_clusters: int, *, seed: int = 0) -> Tensor:
    """cluster_N: groups of one size whose points lie near each other, by balanced k-means.

    In every round each group has as many places as it will have points, and points go to places by the assignment with
    the least sum of squared distances to the means; then means follow.

    Args:
        points_NZ: N is a multiple of the number of clusters.
        seed: of the points that are the first means.
    """
    num_points = len(points_NZ)
    assert num_points % num_clusters == 0, "clusters of one size"
    points_NZ = points_NZ.double()
    drawn = torch.randperm(num_points, generator=torch.Generator().manual_seed(seed))[:num_clusters]
    means_VZ = points_NZ[drawn]
    cluster_N = torch.full((num_points,), -1)
    for _ in range(MAX_ROUNDS):
        place_N = torch.arange(num_clusters).repeat_interleave(num_points // num_clusters)
        distances_NN = torch.cdist(points_NZ, means_VZ).square()[:, place_N]
        found_N = place_N[torch.from_numpy(assignment()(distances_NN.numpy())[1])]
        if torch.equal(found_N, cluster_N):
            break
        cluster_N = found_N
        means_VZ = torch.stack([points_NZ[cluster_N == cluster].mean(dim=0) for cluster in range(num_clusters)])
    return cluster_N


def fit_router(rows: Iterable[tuple[Tensor, Tensor]], cluster_U: Tensor) -> tuple[Tensor, Tensor]:
    """weight_VZ and bias_V by which W · z + b is, in least squares, the sum of the activations of each expert's units.

    Args:
        rows: z_NZ and a_NU, part by part.
    """
    member_UV = functional.one_hot(cluster_U).double()
    gram, moments, num_rows = torch.zeros(()), torch.zeros(()), 0
    for z_NZ, a_NU in rows:
        x_NI = torch.cat([z_NZ.double(), torch.ones(len(z_NZ), 1)], dim=1)
        gram = gram + x_NI.T @ x_NI
        moments = moments + x_NI.T @ (a_NU.double() @ member_UV)
        num_rows += len(z_NZ)
    held = RIDGE * (gram.diagonal() / num_rows).mean() * torch.eye(len(gram), dtype=torch.float64)
    solution_IV = torch.linalg.solve(gram / num_rows + held, moments / num_rows).float()
    return solution_IV[:-1].T.contiguous(), solution_IV[-1]


@torch.no_grad()
def moefied_into(new: MultiTaskRanker, old: MultiTaskRanker, cluster_U: Tensor, router: tuple[Tensor, Tensor]) -> None:
    """Fill a model of kind moefied with the weights of the dense one that it is; all else goes over as it is."""
    split = split_of(old)
    network, made = split.network, new.get_submodule(split.path)
    assert isinstance(made, Moefied), "what a dense network is split into"
    others = {
        name: weight for name, weight in old.state_dict().items() if not name.startswith(f"{split.path}.experts.")
    }
    kept = {name: weight for name, weight in new.state_dict().items() if name.startswith(f"{split.path}.")}
    new.load_state_dict({**others, **kept})
    weights, biases = (list(network.experts.weights_EOD), list(network.experts.biases_EO))
    for layer, (lower, weight_EOD, bias_EO) in enumerate(zip(made.lower, weights, biases, strict=False)):
        assert isinstance(lower, nn.Linear), f"lower layer {layer} is a product"
        lower.weight.copy_(weight_EOD[0])
        lower.bias.copy_(bias_EO[0])
    for place, expert in enumerate(made.layer.experts.experts):  # type: ignore[arg-type]
        assert isinstance(expert, SplitExpert), "experts are parts of a layer"
        mine = cluster_U == place
        expert.units.weight.copy_(weights[-2][0][mine])
        expert.units.bias.copy_(biases[-2][0][mine])
        expert.output.weight.copy_(weights[-1][0][:, mine])
    made.bias_H.copy_(biases[-1][0])
    (gate,) = made.layer.gates
    assert isinstance(gate, Router), "a moefied network has a router of its own"
    gate.weight_VD.copy_(router[0])
    gate.bias_V.copy_(router[1])


def captured(rows: Iterable[tuple[Tensor, Tensor]], cluster_U: Tensor, router: tuple[Tensor, Tensor], k: int) -> float:
    """The share of the activations of all units that those of the chosen experts have: 1 where nothing is left out."""
    member_UV = functional.one_hot(cluster_U).float()
    chosen, all_of_it = 0.0, 0.0
    for z_NZ, a_NU in rows:
        active_NV = a_NU @ member_UV
        at_NK = (z_NZ @ router[0].T + router[1]).topk(k, dim=1).indices
        chosen += float(active_NV.gather(1, at_NK).double().sum())
        all_of_it += float(active_NV.double().sum())
    return chosen / all_of_it if all_of_it else 1.0
