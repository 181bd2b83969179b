"""Every term against a loop written from its paper, on gates and experts of a real layer."""

# B rows, G gates, E experts, V experts visible to a gate

import math
from collections.abc import Sequence
from typing import Any, get_args

import pytest
import torch
from torch import Tensor

from recmoe.moe.balance.all_gates import all_gates_loss
from recmoe.moe.balance.diversity import DiversityLoss
from recmoe.moe.balance.entropy import EntropyLoss
from recmoe.moe.balance.load import load_loss
from recmoe.moe.balance.mutual_information import MutualInformation
from recmoe.moe.balance.statistics import all_logits
from recmoe.moe.balance.switch import switch_loss
from recmoe.moe.balance.variance import variance_loss
from recmoe.moe.balance.z_loss import z_loss
from recmoe.moe.expert_layer import ExpertLayer
from recmoe.moe.gate_use import GateUse
from recmoe.moe.gates import GateConfig
from recmoe.moe.gates.gate import Weighed, details_of
from recmoe.moe.gates.noisy_top_k import NoisyTopKGate
from recmoe.moe.mixture import MixtureConfig

MASK = [[True, False, True, True], [False, True, True, True], [True] * 4]
GATES = ("ctr", "cvr", "shared")
KINDS = [config_class() for config_class in get_args(get_args(GateConfig)[0])]
WITH_LOGITS = [config.kind for config in KINDS if details_of(config) >= {"logits"}]


def layer_of(gate: dict[str, Any]) -> ExpertLayer:
    """PLE's: each task sees an expert of its own and two shared ones, a third gate sees all."""
    torch.manual_seed(0)
    layer = MixtureConfig.model_validate({"gate": gate, "expert_hidden": [5]}).layer(
        experts={"ctr.0": 0, "cvr.0": 0, "shared.0": 0, "shared.1": 0},
        gates=dict.fromkeys(GATES, 0),
        mask_GE=MASK,
        in_features=6,
    )
    with torch.no_grad():
        # So that shares are far from even.
        for parameter in layer.gates.parameters():
            parameter.mul_(4.0)
    return layer


def use_of(gate: dict[str, Any], *, num_rows: int = 7) -> GateUse:
    layer = layer_of(gate)
    _, use = layer([torch.randn(num_rows, 6)])
    return use


def full_shares(use: GateUse, gate: int) -> list[list[float]]:
    """What a gate would give each expert that it sees were it not sparse, row by row, from its logits."""
    logits_BV = use.by_gate[gate].logits_BV
    assert logits_BV is not None
    rows = []
    for logits in logits_BV.tolist():
        total = sum(math.exp(logit) for logit in logits)
        rows.append([math.exp(logit) / total for logit in logits])
    return rows


def mean_share(rows: Sequence[Sequence[float]], expert: int) -> float:
    return sum(row[expert] for row in rows) / len(rows)


def entropy(shares: Sequence[float]) -> float:
    return -sum(share * math.log(share) for share in shares if share > 0)


@pytest.mark.parametrize("gate", [{"kind": "softmax"}, {"kind": "top_k", "k": 2}, {"kind": "switch"}])
def test_switch_is_the_product_of_counted_rows_and_mean_shares(gate: dict[str, Any]) -> None:
    use = use_of(gate)

    loss = switch_loss([use])

    losses = []
    for index in range(3):
        rows = full_shares(use, index)
        num_experts = len(rows[0])
        # Eq. 5: the part of the rows whose largest share is that of the expert; eq. 6: the mean share; eq. 4.
        chosen = [row.index(max(row)) for row in rows]
        losses.append(num_experts * sum(chosen.count(v) / len(rows) * mean_share(rows, v) for v in range(num_experts)))
    assert loss.item() == pytest.approx(sum(losses) / 3, rel=1e-5)


def test_switch_lowers_the_shares_of_what_most_rows_choose() -> None:
    use = use_of({"kind": "top_k", "k": 1})
    logits_BV = use.by_gate[2].logits_BV
    assert logits_BV is not None

    (grad_BV,) = torch.autograd.grad(switch_loss([use]), logits_BV)

    most_chosen = int(torch.bincount(use.by_gate[2].weights_BV.argmax(dim=1), minlength=4).argmax())
    assert grad_BV.mean(dim=0)[most_chosen] > 0


@pytest.mark.parametrize("kind", WITH_LOGITS)
def test_z_loss_is_the_mean_square_of_the_log_of_the_sum(kind: str) -> None:
    use = use_of({"kind": kind})

    loss = z_loss([use])

    squares = []
    for of_gate in use.by_gate:
        logits_BL = all_logits(of_gate)
        assert logits_BL is not None
        for logits in logits_BL.tolist():
            squares.append(math.log(sum(math.exp(logit) for logit in logits)) ** 2 / len(logits_BL) / 3)
    assert loss.item() == pytest.approx(sum(squares), rel=1e-5)


def test_z_loss_reads_logits_after_the_temperature() -> None:
    warm, cold = (use_of({"kind": "softmax", "temperature": temperature}) for temperature in (2.0, 1.0))

    halved = [of_gate.logits_BV for of_gate in warm.by_gate]

    torch.testing.assert_close(halved, [logits_BV / 2 for _, logits_BV, *_ in cold.by_gate])  # type: ignore[operator]


def test_load_is_the_chance_of_each_expert_if_its_noise_alone_were_drawn_again() -> None:
    torch.manual_seed(0)
    gate = NoisyTopKGate(in_features=3, num_experts=4, k=2)
    torch.nn.init.normal_(gate.noise_VD)
    x_BD = torch.randn(5, 3)
    logits_BL = x_BD @ torch.cat([gate.weight_VD, gate.noise_VD]).t()

    torch.manual_seed(1)
    given = gate.linear_form().shares(logits_BL)

    assert isinstance(given, Weighed)
    assert given.load is not None
    load_BV = given.load()
    torch.manual_seed(1)
    noise_BV = torch.randn(5, 4)
    for row in range(5):
        clean = logits_BL[row, :4].tolist()
        deviation = [math.log1p(math.exp(raw)) for raw in logits_BL[row, 4:].tolist()]
        noisy = [c + n * d for c, n, d in zip(clean, noise_BV[row].tolist(), deviation, strict=True)]
        for expert in range(4):
            # Eq. 9: the threshold is the k-th largest H of the others.
            threshold = sorted((noisy[v] for v in range(4) if v != expert), reverse=True)[1]
            chance = 0.5 * (1 + math.erf((clean[expert] - threshold) / deviation[expert] / math.sqrt(2)))
            assert load_BV[row, expert].item() == pytest.approx(chance, abs=1e-5)


def test_load_loss_is_the_squared_variation_of_the_summed_chances() -> None:
    use = use_of({"kind": "noisy_top_k", "k": 1})

    loss = load_loss([use])

    losses = []
    for of_gate in use.by_gate:
        assert of_gate.load is not None
        load = of_gate.load().sum(dim=0).tolist()
        mean = sum(load) / len(load)
        losses.append(sum((of_expert - mean) ** 2 for of_expert in load) / len(load) / mean**2)
    assert loss.item() == pytest.approx(sum(losses) / 3, rel=1e-5)


def test_load_is_known_in_training_alone() -> None:
    layer = layer_of({"kind": "noisy_top_k"}).eval()

    _, use = layer([torch.randn(7, 6)])

    assert load_loss([use]).item() == 0.0


@pytest.mark.parametrize("kind", ["softmax", "top_k"])
def test_entropy_is_that_of_rows_less_that_of_their_mean(kind: str) -> None:
    use = use_of({"kind": kind})

    loss = EntropyLoss(row=0.7, batch=0.3)([use])

    losses = []
    for index in range(3):
        rows = full_shares(use, index)
        mean = [mean_share(rows, v) for v in range(len(rows[0]))]
        losses.append(0.7 * sum(map(entropy, rows)) / len(rows) - 0.3 * entropy(mean))
    assert loss.item() == pytest.approx(sum(losses) / 3, rel=1e-5)


def plain_use(weights_BGE: Tensor, gates: Sequence[str] = ("ctr", "cvr")) -> GateUse:
    return GateUse(
        level=0,
        gates=tuple(gates),
        experts=tuple(f"shared.{expert}" for expert in range(weights_BGE.shape[2])),
        weights_BGE=weights_BGE,
        by_gate=tuple(map(Weighed, weights_BGE.unbind(1))),
    )


def test_entropy_is_least_where_rows_are_decided_and_the_batch_is_even() -> None:
    loss = EntropyLoss(row=1.0, batch=1.0)
    decided, captured, undecided = (
        torch.tensor(rows)[:, None] for rows in ([[1.0, 0.0], [0.0, 1.0]], [[1.0, 0.0]] * 2, [[0.5, 0.5]] * 2)
    )

    assert loss([plain_use(decided, ["ctr"])]).item() == pytest.approx(-math.log(2))
    assert loss([plain_use(captured, ["ctr"])]).item() == 0.0
    assert loss([plain_use(undecided, ["ctr"])]).item() == pytest.approx(0.0)


@pytest.mark.parametrize("kind", ["softmax", "top_k"])
def test_variance_is_around_each_experts_mean_share(kind: str) -> None:
    use = use_of({"kind": kind})

    loss = variance_loss([use])

    losses = []
    for index in range(3):
        rows = full_shares(use, index)
        num_experts = len(rows[0])
        total = sum((row[v] - mean_share(rows, v)) ** 2 for row in rows for v in range(num_experts))
        losses.append(-total / num_experts / len(rows))
    assert loss.item() == pytest.approx(sum(losses) / 3, rel=1e-5)


@pytest.mark.parametrize("kind", ["softmax", "top_k"])
def test_mutual_information_is_that_of_the_joint_distribution_of_tasks_and_experts(kind: str) -> None:
    use = use_of({"kind": kind})

    loss = MutualInformation(frozenset({"ctr", "cvr"}))([use, use])

    joint = {}
    for index in range(2):
        rows = full_shares(use, index)
        seen = [expert for expert, is_seen in enumerate(MASK[index]) if is_seen]
        for column, expert in enumerate(seen):
            joint[index, expert] = mean_share(rows, column) / 2
    of_expert = {e: sum(p for (_, other), p in joint.items() if other == e) for e in range(4)}
    information = sum(p * math.log(p / (0.5 * of_expert[e])) for (_, e), p in joint.items())
    # Once per level.
    assert loss.item() == pytest.approx(-2 * information, rel=1e-4)


def test_mutual_information_is_from_tasks_apart_to_tasks_alike() -> None:
    term = MutualInformation(frozenset({"ctr", "cvr"}))
    apart = torch.tensor([[[1.0, 0.0], [0.0, 1.0]]])
    alike = torch.tensor([[[0.9, 0.1], [0.9, 0.1]]])

    assert term([plain_use(apart)]).item() == pytest.approx(-math.log(2))
    assert term([plain_use(alike)]).item() == pytest.approx(0.0, abs=1e-6)
    # One gate for all tasks, or a gate that belongs to none, says nothing of tasks.
    assert term([plain_use(apart, ["all", "shared"])]).item() == 0.0


def test_all_gates_together_are_compared_with_an_even_use_by_each() -> None:
    use = use_of({"kind": "top_k", "k": 2})

    loss = all_gates_loss([use])

    relative = []
    for expert in range(4):
        given = sum(use.weights_BGE[row, gate, expert].item() for row in range(7) for gate in range(3)) / 7
        even = sum(1 / sum(MASK[gate]) for gate in range(3) if MASK[gate][expert])
        relative.append((given / even - 1) ** 2)
    assert loss.item() == pytest.approx(sum(relative) / 4, rel=1e-5)


def test_tasks_may_differ_if_all_gates_together_are_even() -> None:
    apart = torch.tensor([[[1.0, 0.0], [0.0, 1.0]]])
    alike = torch.tensor([[[1.0, 0.0], [1.0, 0.0]]])

    assert all_gates_loss([plain_use(apart)]).item() == 0.0
    assert all_gates_loss([plain_use(alike)]).item() == 1.0


@pytest.mark.parametrize("kind", ["softmax", "top_k"])
def test_diversity_is_the_mean_squared_cosine_of_pairs_of_experts(kind: str) -> None:
    layer = layer_of({"kind": kind})
    x_BD = torch.randn(7, 6)
    _, use = layer([x_BD])

    loss = DiversityLoss(rows=5)([use])

    outputs = layer.experts([x_BD])
    cosines = []
    for row in range(5):
        for one in range(4):
            for other in range(one):
                y, z = outputs[one][row].tolist(), outputs[other][row].tolist()
                lengths = math.sqrt(sum(a * a for a in y) * sum(b * b for b in z))
                product = sum(a * b for a, b in zip(y, z, strict=True))
                cosines.append((product / lengths) ** 2 if lengths else 0.0)
    assert loss.item() == pytest.approx(sum(cosines) / len(cosines), rel=1e-4)


def test_diversity_reads_experts_without_dropout_and_draws_nothing() -> None:
    layer = layer_of({"kind": "softmax"})
    for module in layer.experts.modules():
        if hasattr(module, "dropout"):
            module.dropout = 0.5
    x_BD = torch.randn(7, 6)
    use = layer.route([x_BD])[1]
    before = torch.random.get_rng_state()

    first, second = (DiversityLoss(rows=7)([use]) for _ in range(2))

    assert torch.equal(first, second)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert layer.experts.training
