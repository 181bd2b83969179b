"""Stable gate: both stages row by row, what changes between them and what does not, in training and in serving."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from recmoe.architectures.gate_losses import DISTILLED, DistilledLoss
from recmoe.architectures.seam import Targets
from recmoe.moe.balance.stable import stable_loss
from recmoe.moe.expert_layer import ExpertLayer
from recmoe.moe.gate_use import GateUse
from recmoe.moe.gates.gate import Weighed
from recmoe.moe.gates.stable import StableGate, StableGateConfig
from recmoe.moe.linear import id_group
from recmoe.moe.mixture import MixtureConfig

STAGE_1_STEPS, NUM_BUCKETS = 3, 7
FEATURES = ("item", "user")


def gate_of(*, num_experts: int = 4, stage_1_steps: int = STAGE_1_STEPS) -> StableGate:
    torch.manual_seed(0)
    return StableGate(
        in_features=5,
        num_experts=num_experts,
        features=FEATURES,
        stage_1_steps=stage_1_steps,
        num_buckets=NUM_BUCKETS,
        width=6,
    )


def rows_of(num_rows: int, *, seed: int = 1) -> tuple[Tensor, dict[str, Tensor]]:
    """x_BD, and ids in more rows of a table than there are buckets."""
    generator = torch.Generator().manual_seed(seed)
    ids = {id_group(name): torch.randint(0, 20, (num_rows,), generator=generator) for name in FEATURES}
    return torch.randn(num_rows, 5, generator=generator), ids


def affinities(gate: StableGate, x_D: Tensor) -> list[float]:
    return [float(w_D @ x_D) for w_D in gate.weight_VD.detach()]


def routed(gate: StableGate, item: int, user: int, *, is_frozen: bool) -> list[float]:
    """r of a row, with buckets of the users after those of the items."""
    table_NK, centroids_VK = (gate.frozen_NK, gate.frozen_VK) if is_frozen else (gate.table_NK, gate.centroids_VK)
    e_K = table_NK[item % NUM_BUCKETS] + table_NK[NUM_BUCKETS + user % NUM_BUCKETS]
    return [float(e_K.detach() @ c_K) for c_K in centroids_VK.detach()]


def best(values: list[float]) -> int:
    return values.index(max(values))


def steps(gate: StableGate, num_steps: int, *, optimizer: torch.optim.Optimizer | None = None) -> list[Weighed]:
    """Training steps on the losses of the gate and one of its weights."""
    given = []
    for step in range(num_steps):
        x_BD, ids = rows_of(64, seed=step)
        given.append(gate.train().weigh(x_BD, ids))
        if optimizer is not None:
            optimizer.zero_grad()
            distilled = DistilledLoss()([use_of(given[-1])], targets_of(64))[DISTILLED]
            (distilled + (given[-1].weights_BV.sum(dim=1) - x_BD[:, 0]).square().mean()).backward()
            optimizer.step()
    return given


def use_of(*given: Weighed) -> GateUse:
    names = tuple(f"shared.{expert}" for expert in range(given[0].weights_BV.shape[1]))
    weights_BGE = torch.stack([one.weights_BV for one in given], dim=1)
    gates = tuple(f"task{place}" for place in range(len(given)))
    return GateUse(0, gates, names, weights_BGE, sums_to_one=False, by_gate=given)


def targets_of(num_rows: int) -> Targets:
    return Targets(torch.zeros(num_rows, 1), torch.ones(num_rows, 1))


@pytest.mark.parametrize("num_steps", [0, STAGE_1_STEPS, STAGE_1_STEPS + 1])
def test_weights_equal_the_paper_row_by_row(num_steps: int) -> None:
    gate = gate_of()
    steps(gate, num_steps, optimizer=torch.optim.Adam(gate.parameters(), lr=0.1))
    x_BD, ids = rows_of(30, seed=9)

    p_BV = gate.eval().requires_grad_(False)(x_BD, ids)

    for x_D, item, user, p_V in zip(x_BD, *ids.values(), p_BV.tolist(), strict=True):
        s = affinities(gate, x_D)
        # Not before a step of stage 2 was trained is the router asked.
        chosen = best(s) if num_steps <= STAGE_1_STEPS else best(routed(gate, int(item), int(user), is_frozen=True))
        assert p_V == pytest.approx([1 / (1 + math.exp(-s[v])) if v == chosen else 0.0 for v in range(4)], abs=1e-6)


def test_first_stage_distils_its_choice_and_is_balanced_by_counts_and_the_second_has_neither() -> None:
    gates = [gate_of(), gate_of(num_experts=4, stage_1_steps=1)]
    gates[1].weight_VD.data.mul_(-1.0)
    x_BD, ids = rows_of(30)

    for gate, is_stage_2 in zip(gates * 2, (False, False, False, True), strict=True):
        given = gate.weigh(x_BD, ids)
        cross_entropy = balance = 0.0
        scores = [affinities(gate, x_D) for x_D in x_BD]
        for v in range(4):
            mine = [s[v] for s in scores if best(s) == v]
            balance += (len(mine) - 30 / 4) / (30 / 4) * sum(1 / (1 + math.exp(-s)) for s in mine) / 30
        for s, item, user in zip(scores, *ids.values(), strict=True):
            r = routed(gate, int(item), int(user), is_frozen=False)
            cross_entropy += (math.log(sum(map(math.exp, r))) - r[best(s)]) / 30
        found = DistilledLoss()([use_of(given)], targets_of(30))[DISTILLED].item(), stable_loss([use_of(given)]).item()
        assert found == pytest.approx((0.0, 0.0) if is_stage_2 else (cross_entropy, balance), abs=1e-5)


def test_losses_of_gates_add_up_and_balance_is_their_mean() -> None:
    x_BD, ids = rows_of(30)
    first, second = gate_of().weigh(x_BD, ids), gate_of(num_experts=4, stage_1_steps=9).weigh(-x_BD, ids)

    def of(*given: Weighed) -> tuple[float, float]:
        return DistilledLoss()([use_of(*given)], targets_of(30))[DISTILLED].item(), stable_loss([use_of(*given)]).item()

    (a, b), (c, d) = of(first), of(second)
    assert of(first, second) == pytest.approx((a + c, (b + d) / 2))
    assert DistilledLoss()([], targets_of(30))[DISTILLED] == 0


def test_second_stage_begins_after_its_steps_with_what_was_learned_by_then() -> None:
    gate = gate_of()
    optimizer = torch.optim.Adam(gate.parameters(), lr=0.1)
    x_BD, ids = rows_of(200, seed=9)

    chosen = []
    for step in range(STAGE_1_STEPS + 2):
        r = [routed(gate, int(item), int(user), is_frozen=False) for item, user in zip(*ids.values(), strict=True)]
        given = gate.train().weigh(x_BD, ids)
        by_affinity = [best(affinities(gate, x_D)) for x_D in x_BD]
        by_router = [best(scores) for scores in r]
        found = given.weights_BV.argmax(dim=1).tolist()
        chosen.append(("affinity" if found == by_affinity else "", "router" if found == by_router else ""))
        learned = gate.table_NK.detach().clone(), gate.centroids_VK.detach().clone()
        if step == STAGE_1_STEPS:
            frozen = learned
        optimizer.zero_grad()
        DistilledLoss()([use_of(given)], targets_of(200))[DISTILLED].backward()
        optimizer.step()

    # In the last step the learned router has gone on by its momentum, and the frozen one has not.
    assert chosen == [("affinity", "")] * STAGE_1_STEPS + [("", "router"), ("", "")]
    assert torch.equal(gate.frozen_NK, frozen[0])
    assert torch.equal(gate.frozen_VK, frozen[1])


OPTIMIZERS: list[Callable[..., torch.optim.Optimizer]] = [
    lambda weights: torch.optim.AdamW(weights, lr=0.05, weight_decay=0.5),
    lambda weights: torch.optim.SGD(weights, lr=0.05, momentum=0.9, weight_decay=0.5),
]


@pytest.mark.parametrize("make", OPTIMIZERS, ids=["adamw", "sgd"])
def test_choices_of_the_second_stage_stay_while_weights_learn_on(make: Callable[..., torch.optim.Optimizer]) -> None:
    gate = gate_of()
    optimizer = make(gate.parameters())
    steps(gate, STAGE_1_STEPS + 1, optimizer=optimizer)
    x_BD, ids = rows_of(200, seed=9)
    before_BV = gate.eval()(x_BD, ids)
    frozen = gate.frozen_NK.clone(), gate.frozen_VK.clone()

    given = steps(gate, 20, optimizer=optimizer)

    after_BV = gate.eval()(x_BD, ids)
    assert torch.equal(after_BV > 0, before_BV > 0)
    assert torch.equal(gate.eval()(torch.randn(200, 5), ids) > 0, before_BV > 0)
    assert (after_BV - before_BV).abs().max() > 0.1
    assert torch.equal(gate.frozen_NK, frozen[0])
    assert torch.equal(gate.frozen_VK, frozen[1])
    assert not {"frozen_NK", "frozen_VK"} & {name for name, _ in gate.named_parameters()}
    assert all(torch.isfinite(one.logits_BV).sum(dim=1).eq(1).all() for one in given if one.logits_BV is not None)


def test_router_does_not_move_what_it_learns_from() -> None:
    gate = gate_of()
    x_BD, ids = rows_of(64)
    x_BD.requires_grad_()

    DistilledLoss()([use_of(gate.weigh(x_BD, ids))], targets_of(64))[DISTILLED].backward()

    assert x_BD.grad is None
    assert gate.weight_VD.grad is None
    assert gate.table_NK.grad is not None
    assert gate.table_NK.grad.any()


def test_ids_that_share_a_bucket_share_an_expert_and_unknown_ones_are_row_zero() -> None:
    gate = gate_of()
    steps(gate, STAGE_1_STEPS + 1)
    ids = {id_group("item"): torch.tensor([3, 3 + NUM_BUCKETS, 0]), id_group("user"): torch.tensor([1, 1, 0])}

    chosen = gate.eval()(torch.randn(3, 5), ids).argmax(dim=1).tolist()

    assert chosen == [best(routed(gate, item, user, is_frozen=True)) for item, user in ((3, 1), (3, 1), (0, 0))]


def layer_of(stage_1_steps: int) -> ExpertLayer:
    torch.manual_seed(1)
    gate = StableGateConfig(feature=FEATURES, stage_1_steps=stage_1_steps, num_buckets=20, width=8)
    return MixtureConfig(gate=gate, expert_hidden=(16,)).layer(
        experts={f"shared.{expert}": 0 for expert in range(4)}, gates={"ctr": 0}, mask_GE=[[True] * 4], in_features=5
    )


@pytest.mark.parametrize("num_steps", [1, 3], ids=["stage 1", "stage 2"])
def test_experts_that_were_not_chosen_are_not_computed_in_training(num_steps: int) -> None:
    layer = layer_of(1)
    x_BD, ids = rows_of(64)
    for _ in range(num_steps - 1):
        layer([x_BD], ids)

    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        layer([x_BD], ids)

    # One expert of 5 · 16 per row, the affinities, and the router: as it is frozen, and as it is learned.
    assert counter.get_total_flops() == 2 * 64 * (5 * 16 + 5 * 4 + 2 * 8 * 4)


def test_experts_of_the_second_stage_learn_what_their_ids_need() -> None:
    layer, read = layer_of(100), torch.nn.Linear(16, 1)
    optimizer = torch.optim.Adam([*layer.parameters(), *read.parameters()], lr=0.02)
    x_BD, ids = rows_of(512)
    is_even_B = ids[id_group("item")] % 2 == 0
    # The id is in x too, as its vector is in a model.
    x_BD[:, 4] = torch.where(is_even_B, 2.0, -2.0)
    wanted_B = torch.where(is_even_B, x_BD[:, 0], -x_BD[:, 0])

    for _ in range(300):
        h, use = layer([x_BD], ids)
        loss = (read(h[0])[:, 0] - wanted_B).square().mean() + 0.3 * stable_loss([use])
        loss = loss + DistilledLoss()([use], targets_of(512))[DISTILLED]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    h, use = layer.eval()([x_BD], ids)
    assert functional.mse_loss(read(h[0])[:, 0], wanted_B) < 0.1
    counts_E = (use.weights_BGE[:, 0] > 0).sum(dim=0)
    assert (counts_E > 0).sum() >= 2
