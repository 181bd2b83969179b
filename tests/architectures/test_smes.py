"""SMES: the choice row by row, the bound on the experts of a row, and work that follows it."""

from itertools import pairwise
from typing import Any

import pyarrow as pa
import pytest
import torch
from pydantic import TypeAdapter
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from recmoe.architectures.smes import SMES, JointThenPrivate
from recmoe.conformance.work import active_experts
from recmoe.embeddings.tables import PlainTables
from recmoe.features.encoder import FeatureEncoder
from recmoe.features.layout import OWN_SIDES, SHARED_SIDES
from recmoe.model import ModelConfig, build_training_model
from recmoe.moe.experts import Form
from recmoe.moe.gate_use import GateUse
from recmoe.moe.mixture import MixtureConfig
from recmoe.tasks import TaskConfig
from recmoe.tasks.funnel import TaskSet

NUM_EXPERTS, NUM_JOINT, NUM_PRIVATE = 12, 2, 1
TASKS = ("click", "buy", "rate")
BOUND = NUM_JOINT + len(TASKS) * NUM_PRIVATE
HIDDEN = (5, 4)


def network_of(*, form: Form = "auto", num_joint: int = NUM_JOINT, num_private: int = NUM_PRIVATE) -> SMES:
    torch.manual_seed(0)
    mixture = MixtureConfig(expert_hidden=HIDDEN)
    return SMES(
        in_features=3,
        task_names=TASKS,
        num_experts=NUM_EXPERTS,
        num_joint=num_joint,
        num_private=num_private,
        make_layer=lambda **fields: mixture.layer(**fields, form=form),
    )


def mixed_row(network: SMES, x_D: Tensor) -> list[Tensor]:
    """h of every task for one row: scores, the joint choice, each task's own, and the experts one by one."""
    scores = []
    for gate in network.layer.gates:
        odds = [torch.exp(weight_D @ x_D) for weight_D in gate.weight_VD]
        scores.append([odd / sum(odds) for odd in odds])
    experts = range(NUM_EXPERTS)
    joint = sorted(experts, key=lambda expert: -sum(of_task[expert].item() for of_task in scores))[:NUM_JOINT]
    h = []
    for of_task in scores:
        others = [expert for expert in experts if expert not in joint]
        chosen = joint + sorted(others, key=lambda expert: -of_task[expert].item())[:NUM_PRIVATE]
        total = sum(of_task[expert] for expert in chosen)
        mixture = torch.zeros(HIDDEN[-1], dtype=x_D.dtype)
        for expert in chosen:
            y = x_D
            for weight_EOD, bias_EO in zip(
                network.layer.experts.weights_EOD, network.layer.experts.biases_EO, strict=True
            ):
                y = torch.relu(weight_EOD[expert] @ y + bias_EO[expert])
            mixture = mixture + of_task[expert] / total * y
        h.append(mixture)
    return h


@pytest.mark.parametrize("num_rows", [1, 6])
def test_mixtures_and_gradients_equal_the_choice_row_by_row(num_rows: int) -> None:
    network = network_of().double()
    x_BD = torch.randn(num_rows, 3, dtype=torch.float64, requires_grad=True)
    upstream_TBH = torch.randn(3, num_rows, 4, dtype=torch.float64)
    leaves = [x_BD, *network.parameters()]

    h, _ = network(x_BD)
    expected_TBH = torch.stack([torch.stack(mixed_row(network, x_D)) for x_D in x_BD]).transpose(0, 1)

    torch.testing.assert_close(torch.stack(h), expected_TBH, rtol=0, atol=1e-12)
    gradients = torch.autograd.grad((torch.stack(h) * upstream_TBH).sum(), leaves)
    expected = torch.autograd.grad(
        (expected_TBH * upstream_TBH).sum(), leaves, allow_unused=True, materialize_grads=True
    )
    torch.testing.assert_close(gradients, expected, rtol=0, atol=1e-12)


def test_form_for_a_gpu_gives_the_same() -> None:
    network, batched = network_of(form="loop"), network_of(form="batched")
    x_BD = torch.randn(6, 3)
    batched.load_state_dict(network.state_dict())

    h, _ = batched(x_BD)

    torch.testing.assert_close(h, network(x_BD)[0], rtol=0, atol=1e-6)


def test_choice_of_the_example() -> None:
    choose = JointThenPrivate(num_joint=1, num_private=1)

    q = choose([torch.tensor([[0.5, 0.3, 0.1, 0.1]]), torch.tensor([[0.5, 0.0, 0.1, 0.4]])])

    torch.testing.assert_close(q[0], torch.tensor([[5 / 8, 3 / 8, 0.0, 0.0]]))
    torch.testing.assert_close(q[1], torch.tensor([[5 / 9, 0.0, 0.0, 4 / 9]]))


def test_active_experts_of_a_row_stay_within_the_bound_and_reach_it() -> None:
    network = network_of()

    _, (use,) = network(5 * torch.randn(500, 3))

    is_used_BGE = use.weights_BGE > 0
    num_active_B = is_used_BGE.any(dim=1).sum(dim=1)
    assert int(num_active_B.max()) == BOUND
    assert int(num_active_B.min()) < BOUND
    # Two experts of a row are those of all tasks; three more tasks by themselves would have up to nine.
    assert bool((is_used_BGE.all(dim=1).sum(dim=1) >= NUM_JOINT).all())
    assert bool((is_used_BGE.sum(dim=2) == NUM_JOINT + NUM_PRIVATE).all())


@pytest.mark.parametrize("gate", ["softmax", "noisy_top_k"])
def test_rows_of_a_log_stay_within_the_bound_as_they_train_and_as_they_are_ranked(
    gate: str, shop_log: pa.Table, shop_config: dict[str, Any], shop_encoder: FeatureEncoder
) -> None:
    architecture = {"kind": "smes", "num_experts": NUM_EXPERTS, "expert_hidden": HIDDEN, "gate": {"kind": gate}}
    training: Any = build_training_model(
        layout=shop_encoder.layout,
        tasks=TaskSet(TypeAdapter(dict[str, TaskConfig]).validate_python(shop_config["tasks"])),
        config=ModelConfig.model_validate({"architecture": architecture}),
        tables=lambda layout: PlainTables(layout, seed=0, init_std=1.0),
        seed=0,
    )
    uses: list[GateUse] = []
    training.ranker.model.register_forward_hook(lambda _model, _inputs, outputs: uses.extend(outputs.routing))
    optimizer = torch.optim.Adam(training.ranker.model.parameters(), lr=0.01)
    batches = [shop_encoder.encode(shop_log.slice(start, 50)) for start in range(0, 200, 50)]

    for batch in batches * 5:
        optimizer.zero_grad()
        training.train()(batch)[0].backward()
        optimizer.step()
    num_trained = len(uses)
    with torch.no_grad():
        training.ranker.eval().predict_sided(
            shop_encoder.encode(shop_log.slice(0, 1), sides=SHARED_SIDES, with_labels=False),
            shop_encoder.encode(shop_log, sides=OWN_SIDES, with_labels=False),
            torch.zeros(200, dtype=torch.int64),
        )

    bound = NUM_JOINT + 2 * NUM_PRIVATE
    assert (num_trained, [len(use.weights_BGE) for use in uses[num_trained:]]) == (20, [200])
    for served in (False, True):
        active = [active_experts(use) for use in (uses[num_trained:] if served else uses[:num_trained])]
        together_N, alone_N = (torch.cat(list(parts)) for parts in zip(*active, strict=True))
        assert bound - 1 <= int(together_N.min()) <= int(together_N.max()) == bound
        # Two tasks that take three by themselves may use six.
        assert int(alone_N.max()) > bound
        assert float(alone_N.double().mean()) > float(together_N.double().mean())


def test_work_is_that_of_the_active_experts() -> None:
    network = network_of()
    x_BD = torch.randn(50, 3)

    with FlopCounterMode(display=False) as counter:
        _, (use,) = network(x_BD)

    num_active = int((use.weights_BGE > 0).any(dim=1).sum())
    per_expert = sum(2 * before * after for before, after in pairwise((3, *HIDDEN)))
    gates = 50 * len(TASKS) * 2 * 3 * NUM_EXPERTS
    assert counter.get_total_flops() == num_active * per_expert + gates
    assert counter.get_total_flops() <= 50 * BOUND * per_expert + gates
    assert num_active <= 50 * BOUND < 50 * NUM_EXPERTS


def test_room_for_pairs_on_a_device_is_the_bound() -> None:
    layer = network_of().layer

    assert layer.is_sparse
    assert layer.num_pairs == BOUND
    assert layer.num_used == (NUM_JOINT + NUM_PRIVATE,) * len(TASKS)


def test_all_experts_chosen_together_are_the_dense_mixture() -> None:
    network = network_of(num_joint=NUM_EXPERTS)
    x_BD = torch.randn(6, 3)

    _, (use,) = network(x_BD)

    dense_BGE = torch.stack([gate(x_BD) for gate in network.layer.gates], dim=1)
    torch.testing.assert_close(use.weights_BGE, dense_BGE)
    assert not network.layer.is_sparse
